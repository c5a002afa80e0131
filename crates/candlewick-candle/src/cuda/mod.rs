//! CUDA tensors.
//!
//! | looking for | it is in |
//! |---|---|
//! | an operation on Candle's stream: what every operation of this crate does on a CUDA tensor | `encode.rs` |
//! | the streams and prepared kernels of a thread | `stream.rs` |
//! | what the process keeps per GPU | `gpu.rs` |
//!
//! # On Candle's stream
//! Candle and `candlewick-cuda` both use a GPU's primary context, so that addresses and streams mean the same to both. An
//! operation asks Candle for its outputs (`cuMemAllocAsync` on Candle's stream), and gives the driver its launches on that
//! same stream: ordered with Candle's own operations, not waited for, with no other memory than the outputs. What kernels
//! need beside them is reserved when they are prepared, once per operation, thread and Candle device.
//!
//! Candle frees memory in order with the stream that it was made on (cudarc 0.19.10, `CudaSlice`), so a tensor may be dropped
//! while its work is pending. Where Candle's devices have streams of their own (`Device::new_cuda_with_stream`), its tensors
//! carry events for what other streams do: addresses are taken through `DevicePtr` and `DevicePtrMut`, which wait for those
//! events and record them, as Candle's own operations do.
//!
//! `Device::new_cuda` computes on the calling thread's own stream (`CU_STREAM_PER_THREAD`), and orders nothing between
//! threads: call `synchronize` before another thread reads a tensor, or drops the last handle of one. That is so for Candle's
//! own operations, and for these.
//!
//! What an operation costs, with everything prepared, counted on stand-ins for NVIDIA's libraries (`tests/cuda_calls.rs`):
//! Candle's allocation, which is one call of the driver and two events for each output, one call that makes the context
//! current, and the launches. Nothing waits.
//!
//! # In a CUDA graph
//! Launches are recorded where Candle's stream records. Run the sequence once before: the first call of an operation compiles,
//! loads and reserves, which a recording refuses. A graph holds nothing that it uses: keep the thread that recorded it, and
//! use fewer operations than a thread keeps prepared (1024), as long as the graph is launched.

mod encode;
mod gpu;
mod stream;

pub(crate) use stream::candle_pays;
