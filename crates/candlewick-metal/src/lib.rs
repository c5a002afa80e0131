//! Candlewick on Apple GPUs.
//!
//! ```no_run
//! # #[cfg(target_vendor = "apple")]
//! # fn main() -> candlewick_core::Result<()> {
//! use candlewick_core::backend::{Device as _, Stream as _};
//! use candlewick_core::{DType, Softmax};
//! use candlewick_metal::Device;
//!
//! let device = Device::open()?;
//! let mut stream = device.stream()?;
//! let kernel = stream.prepare(&Softmax::new(1, 2, DType::F32).into(), None)?;
//! let (mut x, mut y) = (device.alloc(DType::F32, 2)?, device.alloc(DType::F32, 2)?);
//! stream.write(&mut x, &[3f32, 3.])?;
//! stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()])?;
//! let mut numbers = [0f32; 2];
//! stream.read(&y, &mut numbers)?; // waits
//! assert_eq!(numbers, [0.5, 0.5]);
//! # Ok(())
//! # }
//! # #[cfg(not(target_vendor = "apple"))]
//! # fn main() {}
//! ```
//!
//! | looking for | it is in |
//! |---|---|
//! | the contract's device, stream and memory | `device.rs`, `stream.rs`, `kernel.rs`, `buffer.rs` |
//! | which engines an operation has, and how it runs on each | `ops/`, one file per operation |
//! | command buffers, encoders, barriers, memory, completion | `runtime/` |
//! | for other users of the GPU, such as Candle: kernels for their encoders, and their buffers on our streams | `launch.rs`, `borrow.rs` |
//! | kernels shared with CUDA (engine `metal/msl`) | `msl.rs` and the crate `candlewick-kernels` |
//! | products on simdgroup matrices (engine `metal/simdgroup`) | `simdgroup/`, `tiling.rs`, `kernels/` |
//! | products by Metal 4's tensor operations (engine `metal/tensor`) | `tensor.rs`, `kernels/tensor.metal` |
//! | tiny products on the CPU (engine `metal/accelerate`) | `accelerate.rs` |
//! | Metal Performance Shaders (`metal/mps`, `metal/mps-ndarray`, `metal/naive-mps`) | `mps/` |
//! | what one product through MPS is made of, as naive code does it and as we do | `anatomy.rs` |
//!
//! # How an operation runs
//! `prepare` compiles, makes every object and reserves memory. `encode` compares the arguments, adds a kernel to the one
//! compute encoder that is open, and returns. Commands of that encoder run in any order, except that a barrier goes in
//! where two meet in memory. A command buffer is committed when it is full, on `flush`, and before a wait. In the steady
//! state an operation makes no object and no string, opens no command buffer, takes no lock and waits for nothing; tests
//! in `emulator/product` count that.
//!
//! # Which kernel a product gets
//! | shape | engine and kernels |
//! |---|---|
//! | one row or column: matrix-vector | `msl`: `dots_1`, and `columns_1` where the matrix lies the other way |
//! | up to 64 rows or columns: wide matrix-vector, skinny, LoRA's down-projections | `msl`: `dots_4`, `dots_8`, `columns_4`, `columns_8`; long sums are shared by teams, or split between groups |
//! | both sides from 16 on | `simdgroup`: tiles of 64, or of 32 where C is small; few tiles and a long sum: split-K, which `product_sum` adds up (not in a LoRA layer) |
//! | the same in f16 and bf16, from M5 on | `tensor`: tiles of 64 x 32 |
//! | sums over batches | `msl`: `product_64`, `product_32` |
//! | f32 up to 128 x 128 x 128, nothing pending | `accelerate` |
//!
//! Softmax and RMSNorm: rows in the registers of up to 32 lanes or of a group (single-pass), looped where they are longer,
//! split between groups where they are few (`candlewick-kernels`, `rows.rs`).
//!
//! # What an operation costs
//! Messages to Metal of one operation in the steady state, after another one, counted on the emulator (`emulator/product`,
//! test `costs`); each would be one more where it meets what came before, for the barrier. No objects are made.
//!
//! | operation | `msl` | `simdgroup` | `tensor` | `mps` | `mps-ndarray` | `accelerate` |
//! |---|---|---|---|---|---|---|
//! | softmax, RMSNorm | 3 | | | | | |
//! | product | 3 | 3 | 3 | 4 | 1 | 0 |
//! | LoRA layer | 6 | 7 | | 8 | | 0 |
//!
//! (`accelerate` where nothing is pending; else it is the GPU's engine that comes next. Split sums cost four more, as a
//! second kernel does.)
//!
//! Rust's own part of `encode` is 53 ns (release) beside those messages, on the emulator's machine (test `host_cost`).
//! Candle's operations, counted the same way in `emulator/README.md`: 11 messages and an object for softmax, 16 and three
//! for a product, 65 and nine for a LoRA layer by hand.
//!
//! # macOS
//! From 13 on; newer parts are used where they are (emulator test `systems`, which hides them where they are not). The
//! architecture's name is macOS 14's; residency sets, the math modes and the engine `metal/mps-ndarray` are macOS 15's. bf16
//! needs no `bfloat` type, but for the engine `metal/tensor`: macOS 26.2 and a GPU of family Apple10 (M5).
//!
//! # Seen and not seen
//! The types are checked for `aarch64-apple-darwin`, and everything runs on the emulator in `emulator/`. **Nothing here has
//! run on a Mac.** What only a Mac can show:
//!
//! * Any time: which engine is faster for which shape (the defaults in `ops/` are guesses, named there), what a barrier, a
//!   fence, an event or an ended encoder costs, whether looking at the event for 50 us before sleeping is the right
//!   length, and which commit limits are best.
//! * Whether Apple's compiler takes the kernels, and what it makes of them.
//! * Whether a command buffer that fails raises its event, and how long after the event its status is final. The code
//!   relies on neither: it waits for the status, which is where an error is.
//! * Whether `MPSMatrixSoftMax` may write over its input, as plans have it do where the dispatch table chooses that engine.
//! * Whether MPS reads C where beta is 0. It is tried once per device, with a few shapes, and C is cleared where it does.
//! * Whether `MPSNDArrayMatrixMultiplication` is right in a concurrent encoder where it consists of several dispatches.
//! * Whether MPS keeps to untracked memory that an event orders, whether it sums f16 in f32, and what it makes of NaN and
//!   infinities.
//! * Whether `matmul2d` takes tensors over pointers as the headers say, at which alignment (16 bytes are kept to), and in
//!   which order it sums. Where its kernels do not compile, the device goes on without (`Device::tensor_failure`).
//! * Up to which size Accelerate is the faster way to one product, and whether `cblas_sgemm` reads C where beta is 0, which
//!   BLAS forbids, and keeps NaN and infinities.
//! * Products of MPS with more than 32768 terms, wrong on M1 and M2 by reports, are not offered.

#[cfg(metal)]
mod accelerate;
#[cfg(metal)]
pub mod anatomy;
#[cfg(metal)]
mod borrow;
#[cfg(metal)]
mod buffer;
#[cfg(metal)]
mod device;
#[cfg(metal)]
mod kernel;
#[cfg(metal)]
mod launch;
#[cfg(any(metal, test))]
mod limits;
#[cfg(metal)]
mod measure;
#[cfg(metal)]
mod memory;
#[cfg(metal)]
mod mps;
#[cfg(metal)]
mod msl;
#[cfg(metal)]
mod ops;
#[cfg(any(metal, test))]
mod runtime;
#[cfg(metal)]
mod simdgroup;
#[cfg(metal)]
mod stream;
#[cfg(metal)]
mod tape;
#[cfg(metal)]
mod tensor;
#[cfg(any(metal, test))]
mod tiling;

#[cfg(metal)]
pub use borrow::Borrowed;
#[cfg(metal)]
pub use buffer::{Buffer, Input, Output};
#[cfg(metal)]
pub use device::{ACCELERATE, Device, MPS, MPS_NDARRAY, MSL, NAIVE_MPS, Options, SIMDGROUP, TENSOR};
#[cfg(metal)]
pub use kernel::Kernel;
#[cfg(metal)]
pub use launch::{Launch, Launches, Slot, SlotMemory};
#[cfg(metal)]
pub use limits::CommitLimits;
#[cfg(metal)]
pub use mps::{Stage, naive_product};
#[cfg(metal)]
pub use stream::{Counters, Stream};
#[cfg(metal)]
pub use tape::{Memory, Tape};

use candlewick_core::Error;

/// Why there is no Metal device: for systems other than Apple's.
pub fn absent() -> Error {
    let reason = if cfg!(target_vendor = "apple") {
        "this process sees no GPU of Metal's"
    } else {
        "Metal exists on Apple systems; for tests on Linux see emulator/"
    };
    Error::NoDevice { wanted: "metal".into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn without_metal_the_error_says_where_it_is() {
        assert!(super::absent().to_string().starts_with("no device metal here"));
    }
}

// MTLCreateSystemDefaultDevice finds no device in programs without a window unless this framework is linked
// (MTLDevice.h, "must link CoreGraphics").
#[cfg(target_os = "macos")]
#[link(name = "CoreGraphics", kind = "framework")]
unsafe extern "C" {}
