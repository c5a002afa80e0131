//! The forward pass: a model as the operations of a plan.
