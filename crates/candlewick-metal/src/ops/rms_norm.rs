//! RMSNorm, and whatever else has own kernels for both GPUs alone: MPS has no norm and no backward.

use crate::MSL;
use candlewick_core::backend::Engine;

pub(super) fn engines() -> Vec<Engine> {
    vec![MSL]
}
