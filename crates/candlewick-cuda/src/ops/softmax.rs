//! Softmax and its backward: own kernels, which read and write each element once. cuBLASLt has none.

use crate::FUSED;
use candlewick_core::backend::Engine;

pub(super) fn engines() -> Vec<Engine> {
    vec![FUSED]
}
