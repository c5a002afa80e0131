//! Metal tensors.
//!
//! | looking for | it is in |
//! |---|---|
//! | own kernels in Candle's encoder: what every operation of this crate does on a Metal tensor | `encode.rs` |
//! | kernels that a thread has prepared | `kernels.rs` |
//! | Metal Performance Shaders on Candle's buffers | [`region()`], `region/` |
//! | what the process keeps per GPU | `gpu.rs` |
//!
//! # In Candle's encoder
//! Candle keeps one concurrent compute encoder open and hands it to others under a lock (`MetalDevice::command_encoder`).
//! It orders dispatches by whole buffers: what goes through `set_output_buffer` and `set_input_buffer` gets a barrier where
//! it meets what came before, and encoders are ordered by fences (candle-metal-kernels 0.11.1, `metal/encoder.rs`,
//! `metal/commands.rs`). So an operation takes the lock once, binds everything through those two, and is asynchronous and
//! ordered with Candle's own operations. Memory that several dispatches of one operation share comes from Candle's pool,
//! one buffer for each independent part, and goes back at once: Candle orders its next use like any other.
//!
//! What an operation costs, with everything prepared and an encoder open, counted on the emulator (`emulator/candle-adapter`,
//! test `costs`). No command buffer, no wait, no buffer, no string:
//!
//! | operation | | messages | retains | objects | dispatches | barriers | bytes copied |
//! |---|---|---|---|---|---|---|---|
//! | softmax | ours | 6 | 2 | 0 | 1 | 1 | 48 |
//! | | Candle's | 11 | 3 | 1 | 1 | 1 | 16 |
//! | RMSNorm | ours | 9 | 5 | 0 | 1 | 1 | 48 |
//! | | Candle's | 15 | 6 | 1 | 1 | 1 | 20 |
//! | product 64x64x64 | ours | 13 | 5 | 0 | 1 | 1 | 200 |
//! | | Candle's | 16 | 6 | 3 | 1 | 1 | 92 |
//! | LoRA delta 64x64x64 r8 | ours | 22 | 8 | 0 | 2 | 2 | 240 |
//! | | Candle's | 40 | 18 | 6 | 3 | 2 | 200 |
//! | LoRA layer 64x64x64 r8 | ours | 22 | 8 | 0 | 2 | 2 | 240 |
//! | | Candle's | 66 | 31 | 9 | 5 | 4 | 300 |
//!
//! Candle's wrapper of the encoder binds one buffer per message; a stream of Candlewick's own binds all at once. Candle adds
//! two messages for each operand after the first, to see that they share a device. A LoRA layer with its backward takes less
//! than a third of Candle's messages and half of its dispatches, and computes no gradient of W.
//!
//! # In a region
//! Metal Performance Shaders need a command buffer, and Candle hands out none. [`region()`] therefore runs on a queue of its
//! own, and waits once on the way in and once on the way out.

mod encode;
mod gpu;
mod kernels;
mod region;

pub use candlewick::Engine;
pub use candlewick_metal::{MPS, MPS_NDARRAY, MSL, SIMDGROUP, TENSOR};
pub(crate) use kernels::candle_pays;
pub use region::{Region, Value, region};
