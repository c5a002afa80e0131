//! Dropout of successive elements.

use super::vector::{each_vector, load, store};
use super::with_type;
use crate::simd::{Lane, Simd};
use candlewick_core::Dropout;

/// The arguments of `dropout`: `y = x * m` for elements in a row.
///
/// # Safety
/// `n` elements are valid at x and y, which may be the same.
#[derive(Clone, Copy, Debug)]
pub struct DropoutArgs {
    /// How many elements.
    pub n: usize,
    /// What the masks depend on, the number format among it.
    pub op: Dropout,
    /// Seed and step.
    pub seed: [u32; 2],
    /// The number of the first element.
    pub first: u64,
    /// What to read.
    pub x: *const u8,
    /// What to write.
    pub y: *mut u8,
}

/// Blocks of four elements at once: as many as the widest vector has lanes.
const BLOCKS: usize = 16;

/// # Safety
/// See [`DropoutArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn dropout<S: Simd>(args: &DropoutArgs) {
    // SAFETY: the caller's contract.
    unsafe { with_type!(args.op.dtype, T => masked::<S, T>(args)) }
}

/// # Safety
/// That of [`dropout`], with T the number format.
#[inline(always)]
unsafe fn masked<S: Simd, T: Lane>(args: &DropoutArgs) {
    let (x, y) = (args.x.cast::<T>(), args.y.cast::<T>());
    let mut done = 0;
    while done < args.n {
        let element = args.first + done as u64;
        let (block, before) = (element / 4, (element % 4) as usize);
        let words = args.op.factors::<BLOCKS>(block, args.seed);
        let mut factors = [0f32; 4 * BLOCKS];
        for (i, four) in factors.chunks_exact_mut(4).enumerate() {
            four.copy_from_slice(&words.map(|word| word[i]));
        }
        let n = (factors.len() - before).min(args.n - done);
        // SAFETY: the caller's contract; there are factors for `n` elements behind those before.
        unsafe {
            let (x, y, factors) = (x.add(done), y.add(done), factors.as_ptr().add(before));
            each_vector!(S, n, |i, width, WHOLE| {
                let factor = load::<S, f32, WHOLE>(factors.add(i), width);
                store::<S, T, WHOLE>(y.add(i), S::mul(load::<S, T, WHOLE>(x.add(i), width), factor), width)
            });
        }
        done += n;
    }
}
