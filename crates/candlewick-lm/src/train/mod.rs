//! Fine-tuning: forward, backward and optimizer of a step as one plan.
