//! Products by Metal 4's tensor operations (engine `metal/tensor`): f16 and bf16, on `kernels/tensor.metal`.
//!
//! Offered where the GPU has matrix units for them: from M5 on (`MTLGPUFamily::Apple10`), from macOS 26.2 on, as MLX 0.32
//! has it for the same operation (`is_nax_available` in its `device.cpp`). f32 is not offered: MLX takes the operation for
//! it only where the user allows TF32, and Apple documents no bits. Where Apple's compiler refuses the kernels, the device
//! goes on without this engine.

use crate::ops::{Build, Work};
use crate::runtime::hazard::Access;
use crate::runtime::objects::{MetalDevice, macos};
use crate::runtime::pipeline::Source;
use crate::simdgroup;
use bytemuck::NoUninit;
use candlewick_core::{DType, MatMul, Result};
use objc2_metal::{MTLDevice, MTLGPUFamily, MTLSize};

/// The text of its kernels.
pub(crate) const SOURCE: &str = include_str!("../kernels/tensor.metal");

/// As in `kernels/tensor.metal`: rows and columns of C that a group of 128 threads makes.
const TILE: [usize; 2] = [64, 32];

/// As in `kernels/tensor.metal`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct TensorParams {
    a_batch: [u64; 3],
    b_batch: [u64; 3],
    c_batch: [u64; 3],
    c_row: u64,
    batch: [u32; 3],
    a_row: i32,
    b_row: i32,
    m: i32,
    n: i32,
    k: i32,
    alpha: f32,
    beta: f32,
}

/// Whether a device has it.
pub(crate) fn is_offered(device: &MetalDevice) -> bool {
    macos(26, 2) && device.supportsFamily(MTLGPUFamily::Apple10)
}

/// Whether it runs a product: one whose rows begin at multiples of 16 bytes, as those do in all that is published of these
/// operations. With alpha = 0 an infinite A would show.
pub(crate) fn runs(op: &MatMul) -> bool {
    let [a, b, _] = simdgroup::tensors(op).map(|tensor| tensor.strides);
    let rows = [if op.trans_a { a.col } else { a.row }, if op.trans_b { b.col } else { b.row }];
    let sixteen = |stride: &u64| stride.is_multiple_of(8);
    op.dtype != DType::F32
        && op.alpha.get() != 0.0
        && rows.iter().all(|row| sixteen(row) && *row < 1 << 31)
        && (0..3).filter(|&i| op.batch.dims[i] > 1).all(|i| sixteen(&a.batch[i]) && sixteen(&b.batch[i]))
}

/// A product that [`runs`] and `simdgroup::runs_matmul` accept. Tensors that begin elsewhere than at multiples of 16 bytes
/// are multiplied on simdgroup matrices.
///
/// # Errors
/// What the compiler says.
pub(crate) fn matmul(op: &MatMul, build: &mut Build<'_>) -> Result<Work> {
    let [a, b, c] = simdgroup::tensors(op);
    let params = TensorParams {
        a_batch: a.strides.batch,
        b_batch: b.strides.batch,
        c_batch: c.strides.batch,
        c_row: c.strides.row,
        batch: op.batch.dims.map(|size| size as u32),
        a_row: (if op.trans_a { a.strides.col } else { a.strides.row }) as i32,
        b_row: (if op.trans_b { b.strides.col } else { b.strides.row }) as i32,
        m: op.m as i32,
        n: op.n as i32,
        k: op.k as i32,
        alpha: op.alpha.get(),
        beta: op.beta.get(),
    };
    let names = match op.dtype {
        DType::BF16 => ["tensor_nn_bf16", "tensor_nt_bf16", "tensor_tn_bf16", "tensor_tt_bf16"],
        _ => ["tensor_nn_f16", "tensor_nt_f16", "tensor_tn_f16", "tensor_tt_f16"],
    };
    let name = names[2 * usize::from(op.trans_a) + usize::from(op.trans_b)];
    let [rows, cols] = TILE;
    let groups = MTLSize { width: op.n.div_ceil(cols), height: op.m.div_ceil(rows), depth: op.batch.count() };
    let bindings = [(a, Access::Read), (b, Access::Read), (c, Access::Write)];
    let bindings = bindings.map(|(tensor, access)| Build::tensor(tensor.index, access, tensor.bytes));
    let entry = (Source::Tensor, name);
    let tensor = build.dispatch(entry, bindings, bytemuck::bytes_of(&params), groups, 128)?;
    Ok(Work::Dispatches { sixteen: Some(vec![tensor]), any: simdgroup::matmul(op, build)? })
}
