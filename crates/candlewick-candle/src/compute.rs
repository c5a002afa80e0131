//! Where operations run: one implementation of [`Compute`] per device, and the one place that chooses among them.
//!
//! A new device is a module like `cpu/` that implements [`Compute`], an arm in [`on_device`], and a forward in [`forwards`].

use crate::error::{self, Result};
use crate::{candles, cpu, engine};
use arrayvec::ArrayVec;
use candle_core::backend::BackendStorage;
use candle_core::{Device, Layout, Storage, StorageRef, Tensor};
use candlewick::{Buffer, MatMul, Op};

/// A kind of Candle's memory, and what computes there.
pub(crate) trait Compute: BackendStorage {
    /// The memory, if it is of this kind.
    fn of(storage: &Storage) -> Option<&Self>;

    /// The memory as Candle's.
    fn wrap(self) -> Storage;

    /// Runs an operation into new memory: one contiguous output for each length, which is that of the operation's output.
    fn run<const N: usize>(op: Op, inputs: &[Source<'_, Self>], lengths: [usize; N]) -> Result<[Self; N]>;
}

/// What an operation reads.
pub(crate) enum Source<'a, S> {
    /// A tensor: its memory, and where it lies there.
    Tensor(&'a S, &'a Layout),
    /// A frozen operand in the order that a kernel reads.
    Packed(&'a Buffer),
}

impl<S> Clone for Source<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Source<'_, S> {}

/// The most tensors that an operation reads.
pub(crate) const MOST_INPUTS: usize = 5;

/// What an operation reads, in order.
pub(crate) type Sources<'a, S> = ArrayVec<Source<'a, S>, MOST_INPUTS>;

/// Evaluates `$body` with `$storage` as the type of the device's memory; `$otherwise` where nothing computes.
macro_rules! on_device {
    ($device:expr, $storage:ident => $body:expr, $otherwise:expr) => {
        match $device {
            candle_core::Device::Cpu => {
                type $storage = candle_core::CpuStorage;
                $body
            }
            #[cfg(feature = "cuda")]
            candle_core::Device::Cuda(_) => {
                type $storage = candle_core::CudaStorage;
                $body
            }
            #[cfg(feature = "metal")]
            candle_core::Device::Metal(_) => {
                type $storage = candle_core::MetalStorage;
                $body
            }
            _ => $otherwise,
        }
    };
}
pub(crate) use on_device;

/// The forwards of a custom operation of Candle's, one per device, from `Self::forward`, which is generic over the memory.
macro_rules! forwards {
    ($($memory:ident $layout:ident),+) => {
        fn cpu_fwd(
            &self,
            $($memory: &candle_core::CpuStorage, $layout: &candle_core::Layout),+
        ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
            self.forward([$(($memory, $layout)),+])
        }

        #[cfg(feature = "cuda")]
        fn cuda_fwd(
            &self,
            $($memory: &candle_core::CudaStorage, $layout: &candle_core::Layout),+
        ) -> candle_core::Result<(candle_core::CudaStorage, candle_core::Shape)> {
            self.forward([$(($memory, $layout)),+])
        }

        #[cfg(feature = "metal")]
        fn metal_fwd(
            &self,
            $($memory: &candle_core::MetalStorage, $layout: &candle_core::Layout),+
        ) -> candle_core::Result<(candle_core::MetalStorage, candle_core::Shape)> {
            self.forward([$(($memory, $layout)),+])
        }
    };
}
pub(crate) use forwards;

/// Refuses a device that this build does not compute on.
pub(crate) fn check_device(op: &'static str, operand: &'static str, device: &Device) -> Result<()> {
    on_device!(device, Memory => {
        let _: Option<&Memory> = None;
        Ok(())
    }, Err(error::elsewhere(op, operand, device.location())))
}

/// A tensor's memory, locked for reading.
pub(crate) struct Held<'a>(StorageRef<'a>, &'a Layout);

/// Locks a tensor's memory for reading.
pub(crate) fn hold(tensor: &Tensor) -> Held<'_> {
    let (storage, layout) = tensor.storage_and_layout();
    Held(storage, layout)
}

impl Held<'_> {
    /// The tensor, on the device of `S`.
    pub(crate) fn source<S: Compute>(&self) -> Result<Source<'_, S>> {
        let wrong = || error::elsewhere("read", "a tensor", self.0.device().location());
        Ok(Source::Tensor(S::of(&self.0).ok_or_else(wrong)?, self.1))
    }
}

/// Whether Candle's own operation runs `op` on a device: see [`engine`].
pub(crate) fn candle_runs(op: &Op, device: &Device) -> Result<bool> {
    if !candles::has(op) {
        return Ok(false);
    }
    if let Some(engine) = engine::asked_for() {
        return Ok(engine == engine::CANDLE);
    }
    match device {
        Device::Cpu => cpu::stream::with(|_, choices| Ok(choices.candle_pays(op))),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::candle_pays(device, op),
        #[cfg(feature = "metal")]
        Device::Metal(device) => crate::metal::candle_pays(device, op),
        #[allow(unreachable_patterns, reason = "where a build has every device")]
        _ => Ok(false),
    }
}

/// Runs an operation with one output of `length` elements, as Candle's own where `candle` says so.
pub(crate) fn forward<S: Compute>(op: Op, candle: bool, inputs: &[Source<'_, S>], length: usize) -> Result<S> {
    if candle {
        return candles::run(&op, inputs);
    }
    let [output] = S::run(op, inputs, [length])?;
    Ok(output)
}

/// [`forward`] on tensors, where the first of them lies.
pub(crate) fn product(op: MatMul, tensors: [&Tensor; 2], length: usize) -> Result<Storage> {
    let (op, device) = (Op::from(op), tensors[0].device());
    let candle = candle_runs(&op, device)?;
    let held = tensors.map(hold);
    on_device!(device, Memory => {
        let inputs = [held[0].source::<Memory>()?, held[1].source()?];
        Ok(forward(op, candle, &inputs, length)?.wrap())
    }, Err(error::elsewhere(op.name(), "a tensor", device.location())))
}

/// Runs an operation on tensors, where the first of them lies.
pub(crate) fn run<const N: usize>(op: impl Into<Op>, tensors: &[&Tensor], lengths: [usize; N]) -> Result<[Storage; N]> {
    fn on<S: Compute, const N: usize>(op: Op, tensors: &[&Tensor], lengths: [usize; N]) -> Result<[Storage; N]> {
        let held: ArrayVec<Held<'_>, MOST_INPUTS> = tensors.iter().map(|tensor| hold(tensor)).collect();
        let inputs = held.iter().map(Held::source).collect::<Result<Sources<'_, S>>>()?;
        Ok(S::run(op, &inputs, lengths)?.map(S::wrap))
    }
    let (op, device) = (op.into(), tensors[0].device());
    on_device!(device, Memory => on::<Memory, N>(op, tensors, lengths), {
        Err(error::elsewhere(op.name(), "a tensor", device.location()))
    })
}
