//! Attention and its backward: tensor cores where queries are many, own kernels for few and for f32.

use super::Here;
use crate::{FUSED, MMA, mma};
use candlewick_core::Op;
use candlewick_core::backend::Engine;

pub(super) fn engines(op: &Op, here: Here<'_>) -> Vec<Engine> {
    match (here.has_mma(op), mma::prefers(op, here.chip)) {
        (true, true) => vec![MMA, FUSED],
        (true, false) => vec![FUSED, MMA],
        _ => vec![FUSED],
    }
}
