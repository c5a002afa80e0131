//! Metal Performance Shaders.
//!
//! | looking for | it is in |
//! |---|---|
//! | which operations MPS runs, and their steps | here |
//! | matrices, arrays and descriptors, kept by place and layout | `matrices.rs` |
//! | `MPSMatrixMultiplication` | `product.rs` |
//! | `MPSNDArrayMatrixMultiplication` | `ndarray.rs` |
//! | `MPSMatrixSoftMax` | `softmax.rs` |
//! | whether C is read where beta is 0 | `beta_zero.rs` |
//! | the naive way, for comparison | `naive.rs` |
//!
//! MPS encodes into the command buffer, not into the open encoder, which therefore ends before and is opened again after:
//! two messages and a pass of the GPU each, and an event, as MPS waits for no fence. Only `MPSNDArray..` encodes into an
//! encoder that is open. Kernel objects belong to one stream: they are not safe to share (MPSKernel.h).

mod beta_zero;
mod matrices;
mod naive;
mod ndarray;
mod product;
mod softmax;

pub use naive::{Stage, naive_product};

pub(crate) use matrices::Matrices;
pub(crate) use naive::NaiveProduct;
pub(crate) use ndarray::{is_offered as ndarray_is_offered, matmul as ndarray_matmul, runs as ndarray_runs};
pub(crate) use product::{lora_delta, lora_linear, matmul, runs_lora_delta, runs_lora_linear, runs_matmul};
pub(crate) use softmax::{runs as runs_softmax, softmax};

use crate::runtime::dispatch::Places;
use crate::runtime::encoder::Encoder;
use candlewick_core::{DType, Result};
use objc2_metal_performance_shaders::MPSDataType;

/// One MPS kernel of a prepared operation.
pub(crate) enum Step {
    Product(product::Product),
    Array(ndarray::Product),
    Softmax(softmax::Softmax),
}

impl Step {
    pub(crate) fn encode(&self, encoder: &mut Encoder, matrices: &mut Matrices, places: &Places<'_>) -> Result<()> {
        match self {
            Step::Product(product) => product.encode(encoder, matrices, places),
            Step::Array(product) => product.encode(encoder, matrices, places),
            Step::Softmax(softmax) => softmax.encode(encoder, matrices, places),
        }
    }

    /// Makes what [`Step::encode`] would make when it first meets these tensors: descriptors alone, or all.
    pub(crate) fn make_views(&self, matrices: &mut Matrices, places: &Places<'_>, stage: Stage) {
        match self {
            Step::Product(product) => product.make_views(matrices, places, stage),
            Step::Array(product) if stage == Stage::Matrices => product.make_views(matrices, places),
            Step::Array(_) | Step::Softmax(_) => {}
        }
    }
}

fn data_type(dtype: DType) -> MPSDataType {
    match dtype {
        DType::F32 => MPSDataType::Float32,
        DType::F16 => MPSDataType::Float16,
        DType::BF16 => MPSDataType::BFloat16,
        DType::U32 | DType::U8 => unreachable!("no operation computes in integers"),
    }
}
