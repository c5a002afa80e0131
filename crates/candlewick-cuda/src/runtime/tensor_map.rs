//! Matrices as the tensor memory accelerator knows them.

use super::context::Context;
use super::driver::{Code, SUCCESS};
use super::launch::{Addresses, Pointer};
use crate::program;
use candlewick_core::DType;
use cudarc::driver::sys::{
    CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion,
    CUtensorMapSwizzle,
};

/// All of a tensor map but the address, which changes from call to call.
pub(super) struct TensorMap {
    pointer: Pointer,
    dtype: CUtensorMapDataType,
    sizes: [u64; 2],
    /// Bytes from line to line.
    stride: u64,
    tile: [u32; 2],
}

impl TensorMap {
    pub(super) fn new(map: &program::TensorMap, pointer: Pointer) -> Self {
        let dtype = match map.dtype {
            DType::F16 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            _ => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        };
        TensorMap { pointer, dtype, sizes: [map.columns, map.lines], stride: 2 * map.stride, tile: [64, map.tile] }
    }

    /// As a kernel takes it: lines of 128 bytes, swizzled, zero where the matrix has nothing. The driver computes it; it
    /// neither allocates nor waits.
    #[inline]
    pub(super) fn encode(&self, context: &Context, addresses: &Addresses) -> Result<CUtensorMap, Code> {
        let mut map = CUtensorMap { opaque: [0; 16] };
        // SAFETY: it writes the map, and reads as many numbers of each kind as there are dimensions, one stride less.
        let code = unsafe {
            (context.driver.cuTensorMapEncodeTiled)(
                &mut map,
                self.dtype as u32,
                2,
                self.pointer.address(addresses),
                self.sizes.as_ptr(),
                &self.stride,
                self.tile.as_ptr(),
                [1, 1].as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE as u32,
                CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B as u32,
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B as u32,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE as u32,
            )
        };
        if code == SUCCESS { Ok(map) } else { Err(code) }
    }
}
