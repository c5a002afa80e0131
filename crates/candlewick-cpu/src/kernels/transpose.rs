//! Transposition with conversion, in square blocks that stay in registers.

use super::with_type;
use crate::simd::{Lane, MAX_LANES, Simd};
use candlewick_core::DType;

/// The arguments of `transpose`: `dst(j, i) = scale * src(i, j)`.
///
/// # Safety
/// Every element named by the strides is valid, the two matrices do not overlap, and one of them is f32.
#[derive(Clone, Copy, Debug)]
pub struct TransposeArgs {
    /// Rows of `src` and columns of `dst`.
    pub rows: usize,
    /// Columns of `src` and rows of `dst`.
    pub cols: usize,
    /// Factor of every element.
    pub scale: f32,
    /// The matrix to read, contiguous along its columns.
    pub src: *const u8,
    /// Its number format.
    pub src_dtype: DType,
    /// Elements from one row of `src` to the next.
    pub src_row: usize,
    /// The matrix to write, contiguous along its columns.
    pub dst: *mut u8,
    /// Its number format; f32 if that of `src` is not.
    pub dst_dtype: DType,
    /// Elements from one row of `dst` to the next.
    pub dst_row: usize,
}

/// # Safety
/// See [`TransposeArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn transpose<S: Simd>(args: &TransposeArgs) {
    debug_assert!(args.src_dtype == DType::F32 || args.dst_dtype == DType::F32);
    // SAFETY: the caller's contract.
    unsafe {
        if args.dst_dtype == DType::F32 {
            with_type!(args.src_dtype, T => blocks::<S, T, f32>(args));
        } else {
            with_type!(args.dst_dtype, T => blocks::<S, f32, T>(args));
        }
    }
}

/// # Safety
/// That of [`transpose`], with T and U the number formats.
#[inline(always)]
unsafe fn blocks<S: Simd, T: Lane, U: Lane>(args: &TransposeArgs) {
    let scale = if args.scale == 1.0 { None } else { Some(args.scale) };
    // SAFETY: the caller's contract.
    unsafe {
        let (src, dst) = (args.src.cast::<T>(), args.dst.cast::<U>());
        let pitch = args.src_row * size_of::<T>();
        for i in (0..args.rows).step_by(S::LANES) {
            for j in (0..args.cols).step_by(S::LANES) {
                let height = (args.rows - i).min(S::LANES);
                let width = (args.cols - j).min(S::LANES);
                let mut lanes = load_block::<S, T>(src.add(i * args.src_row + j), pitch, height, width);
                if let Some(scale) = scale {
                    for v in &mut lanes[..S::LANES] {
                        *v = S::mul(*v, S::splat(scale));
                    }
                }
                store_block::<S, U>(dst.add(j * args.dst_row + i), args.dst_row, &lanes, width, height);
            }
        }
    }
}

/// Reads a block of `height` rows and `width` columns, both at most `LANES`, and returns its columns, padded with zeros.
/// The rows are `pitch` bytes apart.
///
/// # Safety
/// The block is valid; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn load_block<S: Simd, T: Lane>(
    src: *const T,
    pitch: usize,
    height: usize,
    width: usize,
) -> [S::V; MAX_LANES] {
    // SAFETY: the caller's contract.
    unsafe {
        let mut lanes = [S::splat(0.0); MAX_LANES];
        if height == S::LANES && width == S::LANES {
            for i in 0..S::LANES {
                lanes[i] = T::load::<S>(src.byte_add(i * pitch));
            }
        } else {
            for i in 0..S::LANES {
                if i < height {
                    lanes[i] = T::load_first::<S>(src.byte_add(i * pitch), width);
                }
            }
        }
        // Shuffling the vectors together like two halves of a deck of cards moves one bit of the row index into the
        // column index; once per bit transposes.
        let half = S::LANES / 2;
        let mut round = 1;
        while round < S::LANES {
            let old = lanes;
            for i in 0..half {
                (lanes[2 * i], lanes[2 * i + 1]) = S::interleave(old[i], old[i + half]);
            }
            round *= 2;
        }
        lanes
    }
}

/// Writes the first `width` elements of the first `height` vectors as rows of a block.
///
/// # Safety
/// The block is valid; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn store_block<S: Simd, T: Lane>(
    dst: *mut T,
    row: usize,
    lanes: &[S::V; MAX_LANES],
    height: usize,
    width: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        if height == S::LANES && width == S::LANES {
            for i in 0..S::LANES {
                T::store::<S>(dst.add(i * row), lanes[i]);
            }
        } else {
            for i in 0..S::LANES {
                if i < height {
                    T::store_first::<S>(dst.add(i * row), lanes[i], width);
                }
            }
        }
    }
}
