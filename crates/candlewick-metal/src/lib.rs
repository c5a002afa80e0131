//! Candlewick on Apple GPUs.
//!
//! | looking for | it is in |
//! |---|---|
//! | the contract's device, stream and memory | `device.rs`, `stream.rs`, `buffer.rs` |
//! | which engines an operation has, and how it runs on each | `ops/`, one file per operation |
//! | command buffers, encoders, barriers, memory, completion | `runtime/` |
//! | kernels shared with CUDA (engine `metal/msl`) | `msl.rs` and the crate `candlewick-kernels` |
//! | products on simdgroup matrices (engine `metal/simdgroup`) | `simdgroup/`, `kernels/` |
//! | Metal Performance Shaders (`metal/mps`, `metal/mps-ndarray`, `metal/naive-mps`) | `mps/` |
//!
//! # How an operation runs
//! `prepare` compiles, makes every object and reserves memory. `encode` compares the arguments, adds a kernel to the one
//! compute encoder that is open, and returns. Commands of that encoder run in any order, except that a barrier goes in
//! where two meet in memory. A command buffer is committed when it is full, on `flush`, and before a wait. In the steady
//! state an operation makes no object and no string, opens no command buffer, takes no lock and waits for nothing; tests
//! in `emulator/product` count that.
//!
//! # What an operation costs
//! Messages to Metal of one operation in the steady state, after another one, counted on the emulator (`emulator/product`,
//! test `costs`); each would be one more where it meets what came before, for the barrier. No objects are made.
//!
//! | operation | `msl` | `simdgroup` | `mps` | `mps-ndarray` |
//! |---|---|---|---|---|
//! | softmax, RMSNorm | 3 | | | |
//! | product | 3 | 3 | 4 | 1 |
//! | LoRA layer | 7 | 7 | 8 | |
//!
//! Rust's own part of `encode` is 53 ns (release) beside those messages, on the emulator's machine (test `host_cost`).
//! Candle's operations, counted the same way in `emulator/README.md`: 11 messages and an object for softmax, 16 and three
//! for a product, 65 and nine for a LoRA layer by hand.
//!
//! # macOS
//! From 13 on. Residency sets and the math modes are macOS 15's and used where they are; bf16 needs no `bfloat` type. The
//! engine `metal/mps-ndarray` is offered from macOS 15 on.
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
//! * Whether MPS reads C where beta is 0. It is tried once per device, with a few shapes, and C is cleared where it does.
//! * Whether `MPSNDArrayMatrixMultiplication` is right in a concurrent encoder where it consists of several dispatches.
//! * Whether MPS keeps to untracked memory that an event orders, whether it sums f16 in f32, and what it makes of NaN and
//!   infinities.
//! * Products of MPS with more than 32768 terms, wrong on M1 and M2 by reports, are not offered.
//!
//! Products that are waited for and tiny are better off on the CPU (Accelerate); there is no such engine here yet.

#[cfg(metal)]
mod buffer;
#[cfg(metal)]
mod device;
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
pub use buffer::{Buffer, Input, Output};
#[cfg(metal)]
pub use device::{Device, MPS, MPS_NDARRAY, MSL, NAIVE_MPS, Options, SIMDGROUP};
#[cfg(metal)]
pub use limits::CommitLimits;
#[cfg(metal)]
pub use mps::{Stage, naive_product};
#[cfg(metal)]
pub use stream::{Counters, Kernel, Stream};

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
