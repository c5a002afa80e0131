//! RMSNorm and its backward, and whatever else has own kernels alone.

use crate::FUSED;
use candlewick_core::backend::Engine;

pub(super) fn engines() -> Vec<Engine> {
    vec![FUSED]
}
