//! Text from a model: sampling, stopping, batches.
