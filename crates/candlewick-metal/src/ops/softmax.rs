//! Softmax. Its backward has own kernels alone.

use super::{Build, Work};
use crate::{MPS, MSL, mps};
use candlewick_core::backend::Engine;
use candlewick_core::{Op, Result, Softmax};

pub(super) fn engines(op: &Softmax) -> Vec<Engine> {
    if mps::runs_softmax(op) { vec![MSL, MPS] } else { vec![MSL] }
}

pub(super) fn work(op: &Softmax, engine: Engine, build: &mut Build<'_>) -> Result<Work> {
    match engine {
        MPS => Ok(Work::Mps(vec![mps::softmax(op, build)])),
        _ => Err(super::unlisted(&Op::Softmax(*op), engine)),
    }
}
