//! The operations on tensors, one file each.

pub(crate) mod lora;
pub(crate) mod matmul;
pub(crate) mod rms_norm;
pub(crate) mod softmax;
