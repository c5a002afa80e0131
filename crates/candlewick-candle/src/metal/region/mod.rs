//! Metal Performance Shaders on Candle's tensors: one wait on the way in, one on the way out.

mod memory;
mod ops;
mod value;

pub use value::Value;

use super::gpu::{self, Gpu};
use crate::error::{Error, Result};
use candle_core::op::BackpropOp;
use candle_core::{Device, MetalDevice, MetalStorage, Storage, Tensor};
use candlewick::Engine;
use candlewick_core::backend::Stream as _;
use candlewick_metal::Stream;
use memory::Memory;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Operations on a queue of Candlewick's own, over Candle's buffers: what [`region()`] hands to its closure.
pub struct Region {
    id: u64,
    device: MetalDevice,
    gpu: Arc<Gpu>,
    /// Taken when the region ends.
    stream: Option<Stream>,
    engine: Option<Engine>,
    memory: Memory,
}

/// Runs `work` on a Metal queue of Candlewick's own, where every engine can be used, Metal Performance Shaders too.
///
/// Candle's pending work is submitted and waited for before, the region's after `work` returns: two waits, however many
/// operations there are between. Inside, nothing waits and nothing is copied: operations read Candle's buffers, and results
/// come back as Candle tensors. Candle gives out no command buffer and no event, so the waits cannot be the GPU's.
///
/// Tensors come in through `inputs` alone; what `work` computes by Candle meanwhile is not seen. A view is read with its
/// strides where the operation can, and is an error where it cannot. Do not set an input that is a variable inside `work`:
/// its memory is locked. A region has no gradient: detach what trains.
///
/// # Errors
/// No inputs, inputs on different devices or not on Metal, tracked by autograd or of another dtype; whatever `work`
/// returns; what the GPU reports.
///
/// ```no_run
/// use candle_core::{Device, Tensor};
/// use candlewick_candle::metal::{MPS, region};
///
/// let device = Device::new_metal(0)?;
/// let x = Tensor::randn(0f32, 1.0, (64, 512), &device)?;
/// let w = Tensor::randn(0f32, 1.0, (512, 512), &device)?;
/// let [y] = region([&x, &w], |region, [x, w]| {
///     region.force(Some(MPS));
///     let mut y = region.matmul(&x, &w)?;
///     for _ in 0..10 {
///         y = region.matmul(&y, &w.t()?)?;
///     }
///     Ok([y])
/// })?;
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn region<const N: usize, const M: usize>(
    inputs: [&Tensor; N],
    work: impl FnOnce(&mut Region, [Value; N]) -> candle_core::Result<[Value; M]>,
) -> candle_core::Result<[Tensor; M]> {
    let device = device_of(&inputs)?;
    // Nobody changes an input while the region reads it.
    let held = inputs.map(Tensor::storage_and_layout);
    let mut region = Region::new(device)?;
    // What is free now is nobody's once Candle's work is done.
    region.memory.take_free(&region.gpu, device);
    device.flush_and_wait_current()?;
    let mut values = Vec::with_capacity(N);
    for (storage, layout) in &held {
        let Storage::Metal(storage) = &**storage else { unreachable!("the device was looked at") };
        values.push(region.adopt(storage, layout)?);
    }
    let Ok(values) = <[Value; N]>::try_from(values) else { unreachable!("one for each input") };
    let results = work(&mut region, values)?;
    region.finish(results)
}

/// The Metal device that all inputs are on, none of them tracked.
fn device_of<'a>(inputs: &[&'a Tensor]) -> Result<&'a MetalDevice> {
    let Some(first) = inputs.first() else {
        return Err(refused("there are no inputs".into(), "give it one tensor, which says on which device to run"));
    };
    for (i, input) in inputs.iter().enumerate() {
        let what = |is: &str| format!("input {i} {:?} {is}", input.dims());
        if !input.device().is_metal() {
            return Err(refused(what("is not on Metal"), "move it with `to_device`"));
        }
        if !input.device().same_device(first.device()) {
            return Err(refused(what("is on another Metal device than input 0"), "move it with `to_device`"));
        }
        if input.track_op() {
            return Err(refused(what("takes part in autograd"), "a region has no gradient: detach it"));
        }
        crate::operand::convert("metal::region", ("input", *input))?;
    }
    match first.device() {
        Device::Metal(device) => Ok(device),
        _ => Err(refused("input 0 is not on Metal".into(), "move it with `to_device`")),
    }
}

#[cold]
fn refused(what: String, remedy: &'static str) -> Error {
    Error::Region { what, remedy }
}

impl Region {
    fn new(device: &MetalDevice) -> Result<Self> {
        static REGIONS: AtomicU64 = AtomicU64::new(0);
        let gpu = gpu::of(device)?;
        let stream = gpu.stream()?;
        let id = REGIONS.fetch_add(1, Ordering::Relaxed);
        Ok(Region { id, device: device.clone(), gpu, stream: Some(stream), engine: None, memory: Memory::default() })
    }

    /// The engine of the operations from here on; with `None`, the dispatcher chooses. An operation that does not run on it
    /// is an error that lists those that it runs on.
    pub fn force(&mut self, engine: Option<Engine>) {
        self.engine = engine;
    }

    /// Waits, and hands the results to Candle.
    fn finish<const M: usize>(mut self, results: [Value; M]) -> candle_core::Result<[Tensor; M]> {
        for (i, value) in results.iter().enumerate() {
            self.check("the result", value)?;
            if !self.memory.is_own(value.memory) {
                return Err(refused(format!("result {i} is an input"), "return what was computed").into());
            }
            if !value.is_contiguous() {
                let what = format!("result {i} is a view with strides {:?}", value.strides);
                return Err(refused(what, "return it without `t`, and transpose the tensor").into());
            }
        }
        if let Some(stream) = &mut self.stream {
            stream.wait().map_err(Error::from)?;
        }
        let mut tensors: Vec<Tensor> = Vec::with_capacity(M);
        for (i, value) in results.iter().enumerate() {
            // Two values in one memory are two views of one tensor.
            let tensor = match results[..i].iter().position(|other| other.memory == value.memory) {
                Some(same) => tensors[same].reshape(value.shape.as_slice())?,
                None => {
                    let count = value.shape.iter().product();
                    let buffer = self.memory.buffer(value.memory);
                    let storage = MetalStorage::new(buffer, self.device.clone(), count, value.dtype);
                    Tensor::from_storage(Storage::Metal(storage), value.shape.as_slice(), BackpropOp::none(), false)
                }
            };
            tensors.push(tensor);
        }
        tensors.try_into().map_err(|_| unreachable!("one for each result"))
    }
}

impl Drop for Region {
    /// Waits where the region ended in an error: what its work uses goes back.
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let done = stream.wait();
        self.memory.give_back(&self.gpu, &self.device);
        // A stream that failed is not used again; MPS's views would keep Candle's buffers alive.
        if done.is_ok() {
            stream.release_views();
            self.gpu.give_stream(stream);
        }
    }
}
