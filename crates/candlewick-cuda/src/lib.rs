//! Candlewick on NVIDIA GPUs.
//!
//! ```no_run
//! use candlewick_core::backend::{Device as _, Stream as _};
//! use candlewick_core::{DType, Softmax};
//! use candlewick_cuda::Device;
//!
//! let device = Device::open(0)?;
//! let mut stream = device.stream()?;
//! let kernel = stream.prepare(&Softmax::new(1, 2, DType::F32).into(), None)?;
//! let (mut x, mut y) = (device.alloc(DType::F32, 2)?, device.alloc(DType::F32, 2)?);
//! stream.write(&mut x, &[3f32, 3.])?;
//! stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()])?;
//! let mut numbers = [0f32; 2];
//! stream.read(&y, &mut numbers)?; // waits
//! assert_eq!(numbers, [0.5, 0.5]);
//! # Ok::<(), candlewick_core::Error>(())
//! ```
//!
//! | looking for | it is in |
//! |---|---|
//! | the contract's device, stream, prepared operations and memory | `device.rs`, `stream.rs`, `kernel.rs`, `buffer.rs` |
//! | recorded sequences; steps of them that run as one | `tape.rs`; `together/` |
//! | which engines an operation has, and how it runs on each | `ops/`, one file per operation |
//! | libraries, context, memory, completion, errors, compiled kernels, graphs, what comes again | `runtime/` |
//! | kernels shared with Metal (engine `cuda/fused`) | `fused.rs` and the crate `candlewick-kernels` |
//! | kernels on tensor cores (engine `cuda/mma`) | `mma/`, `kernels/` |
//! | NVIDIA's matrix products (engine `cuda/cublaslt`) | `cublaslt/` |
//!
//! # What it needs
//! NVIDIA's driver of CUDA 12 or later, and NVRTC; cuBLASLt where its engine is wanted. Nothing is linked: they are found
//! when a device is opened, in the folders of `CANDLEWICK_CUDA_LIBS`, the loader's path, the toolkit's folders or Python's
//! wheels, and what is missing is named. It builds on any machine.
//!
//! # How an operation runs
//! `prepare` chooses the engine, has NVRTC compile the files that the operation names for its dtype (a second or so each;
//! kept in the user's cache folder, so that it happens once per version), asks cuBLASLt for an algorithm, and reserves
//! memory. `encode` compares the arguments and gives the driver one launch per kernel. It allocates nothing, looks nothing
//! up, takes no lock of its own and calls nothing else: tests count that on a driver that stands in for NVIDIA's.
//!
//! What comes again with the same tensors is recorded the second time and is one launch of a graph from then on, however many
//! kernels it has: the driver takes a graph sooner than a kernel (`runtime/repeats.rs` has the figures). A long kernel behind
//! pending work stays a launch, as it overlaps with the one before it. [`Options::repeats_as_graphs`] turns that off.
//!
//! # What an operation costs
//! Calls of the driver, and host time of a release build whose driver is that stand-in: Rust's part, and some 50 ns a call
//! for the stand-in (2-core virtual machine, `tests/encode.rs`). What NVIDIA's driver adds, some 3 us a launch and 2 a graph, is
//! not in it.
//!
//! | bf16 | `mma` | `fused` | `cublaslt` |
//! |---|---|---|---|
//! | product 64 | 1, 118 ns | 1, 127 ns | 1, 85 ns |
//! | LoRA layer 32x512x512 r8 | 1, 122 ns | 2, 224 ns | 3, 227 ns |
//! | LoRA layer 512x1024x1024 r16 | 1, 117 ns | 2, 224 ns | 3, 248 ns |
//! | its backward | | 7, 673 ns | 3, 360 ns |
//! | softmax 128x4096 | | 1, 71 ns | |
//!
//! As graphs of what comes again, found by their addresses, all of these took 67 to 113 ns where they are graphs, in a run where the
//! launches took 105 to 2254.
//!
//! A `write` is a copy into page-locked memory, a copy of the driver's, and an event; a `read` is a copy and a wait. A wait
//! looks at the stream for a millisecond, then sleeps. Dropping a buffer calls nobody. New memory is cleared and waited for, some
//! 10 us, unless a kernel is prepared: its workspace is not cleared.
//!
//! # Errors
//! A launch's own error is that of its `encode`. What fails on the device is the error of the next call that waits, with
//! the operations since the last wait, one of which it is of. After an error that ends the context (an illegal address, say)
//! nothing is called any more and every call says so. Out of memory leaves everything usable.
//!
//! # Graphs
//! [`Stream::capture`] records what is encoded, [`Graph::launch`] submits it with one call. A graph keeps its buffers alive.
//! With [`Options::dependent_launch`] kernels are brought to the cores while those ahead of them end.
//!
//! # With other libraries
//! The device's context is the GPU's primary one, which Candle and PyTorch use too. [`Device::stream_on`] submits to a
//! stream of theirs, [`Device::input`] and [`Device::output`] take their memory.
//!
//! # Seen and not seen
//! Everything but the kernels themselves is tested without a GPU, on stand-ins for NVIDIA's libraries (`tests/stub`), and
//! with the real NVRTC where it is installed. `tests/gpu.rs` needs a GPU, and says where it had none. On an H100 (driver
//! 580.159, CUDA 13.0) it passed, as did `candlewick verify --device cuda --quick` and random plans (`docs/verified.md`), and
//! compute-sanitizer found nothing. Not seen:
//!
//! * The order in which engines are preferred (`ops/`) is a guess but where a figure stands beside it.
//! * cuBLASLt sums some shapes differently from one version to the next; that it keeps to the bounds is what `verify` shows.
//! * Any chip but that one: sources compile for sm_80 and sm_100 too.
//! * Windows: the names of its libraries are there, nobody has run it.

mod buffer;
mod chip;
mod cublaslt;
mod device;
mod fused;
mod kernel;
mod measure;
mod memory;
mod mma;
mod ops;
mod program;
mod runtime;
mod stream;
mod tape;
mod together;

pub use buffer::{Buffer, Input, Output};
pub use device::{CUBLASLT, CacheFolder, Device, FUSED, MMA, Options};
pub use kernel::Kernel;
pub use runtime::graph::Graph;
pub use runtime::modules::ModuleCounters;
pub use stream::Stream;
pub use tape::{Memory, Tape};
