//! The small operations of LoRA at hardware speed.
//!
//! ```
//! use candlewick::{DType, Device, MatMul};
//!
//! let device = Device::cpu();
//! let mut stream = device.stream()?;
//! // Prepare once ..
//! let product = stream.prepare(MatMul::new(2, 2, 3, DType::F32))?;
//! // .. encode often.
//! let (a, b, mut c) = ([1f32, 2., 3., 4., 5., 6.], [1f32, 0., 0., 1., 1., 1.], [0f32; 4]);
//! stream.encode(&product, &[a[..].into(), b[..].into()], &mut [c[..].as_mut().into()])?;
//! stream.wait()?;
//! assert_eq!(c, [4., 5., 10., 11.]);
//! # Ok::<(), candlewick::Error>(())
//! ```
//!
//! Operations are plain data ([`Op`], one type each: [`MatMul`], [`Softmax`], [`RmsNorm`], [`LoraLinear`], [`LoraDelta`]).
//! A [`Stream`] prepares them and runs them in order, on slices or on [`Buffer`]s. [`lora::Layer`] keeps a frozen W,
//! packed once, with its adapter. The contract behind all of it is [`candlewick_core::backend`].

mod backends;
mod buffer;
mod device;
pub mod lora;
pub mod plan;
pub mod profile;
mod stream;
mod tape;

pub use buffer::{Buffer, Input, Output};
pub use candlewick_core::backend::{DeviceInfo, Engine, Limits};
pub use candlewick_core::cache::CacheCounters;
pub use candlewick_core::dispatch::{Bucket, Decision, DispatchTable, Reason};
pub use candlewick_core::tape::{Place, Step};
pub use candlewick_core::{
    DType, Element, Error, Layout, LoraDelta, LoraLinear, Mask, MatMul, Op, Result, RmsNorm, Scalar, Shape, Softmax,
    op, reference,
};
pub use device::Device;
pub use plan::Plan;
pub use stream::{Kernel, Stream};
pub use tape::{Memory, Tape};

/// The CPU as a backend of its own: its engines by name, when a thread pays.
pub use candlewick_cpu as cpu;

/// Apple's GPU as a backend of its own: its engines by name, its counters, what a product is made of.
#[cfg(metal)]
pub use candlewick_metal as metal;

/// NVIDIA's GPUs as a backend of its own: its engines by name, its options, its graphs.
#[cfg(cuda)]
pub use candlewick_cuda as cuda;
