//! Whether MPS reads C where beta is 0: then a NaN there shows, and C has to be cleared.
//!
//! MPSMatrixMultiplication.h says that C is read "if necessary", and not whether beta = 0 makes it unnecessary. So the
//! system is asked, once per device: a few products into a C of NaN.

use super::naive::NaiveProduct;
use crate::memory::Shared;
use crate::runtime::dispatch::Places;
use candlewick_core::{DType, MatMul, Result};
use std::sync::Arc;

/// Sizes below, at and above those of common tiles: MPS has more kernels than one.
const SHAPES: [(usize, usize, usize); 4] = [(1, 33, 64), (5, 7, 3), (64, 64, 64), (130, 70, 33)];

/// Asks, or remembers.
///
/// # Errors
/// What the driver says.
pub(super) fn reads_c(shared: &Arc<Shared>) -> Result<bool> {
    if let Some(&known) = shared.mps_reads_c.get() {
        return Ok(known);
    }
    let mut reads = false;
    for dtype in [DType::F32, DType::F16] {
        for (m, n, k) in SHAPES {
            reads |= leaks(shared, &MatMul::new(m, n, k, dtype))?;
        }
    }
    Ok(*shared.mps_reads_c.get_or_init(|| reads))
}

fn leaks(shared: &Arc<Shared>, op: &MatMul) -> Result<bool> {
    let bytes = [op.m * op.k, op.k * op.n, op.m * op.n].map(|elements| elements * op.dtype.bytes());
    let memory = [shared.memory(bytes[0])?, shared.memory(bytes[1])?, shared.memory(bytes[2])?];
    for (memory, byte) in memory.iter().zip([0, 0, 0xff]) {
        let part = memory.part();
        // SAFETY: nobody else has the memory; 0xff everywhere is a NaN in both dtypes.
        unsafe { part.pointer().write_bytes(byte, part.bytes()) };
    }
    let places: Places<'_> = memory.iter().map(|memory| memory.part().place()).collect();
    NaiveProduct::new(op).run(shared.metal(), &places, &mut |_| {})?;
    // SAFETY: the GPU is done, and the result is that long.
    let c = unsafe { std::slice::from_raw_parts(memory[2].part().pointer(), bytes[2]) };
    Ok(c.iter().any(|&byte| byte != 0))
}
