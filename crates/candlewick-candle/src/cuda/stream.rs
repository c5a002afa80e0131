//! Candle's streams as Candlewick's: one for each Candle device that a thread has used, with the kernels prepared there.

use super::gpu;
use crate::engine::Choices;
use crate::error::Result;
use candle_core::CudaDevice;
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candlewick::Op;
use candlewick_cuda::Stream;
use std::cell::RefCell;
use std::sync::Arc;

/// Fields are dropped in this order: Candlewick's stream waits for its work on Candle's, which must still be there.
struct Open {
    device: DeviceId,
    ours: Stream,
    choices: Choices,
    candles: Arc<CudaStream>,
}

thread_local! {
    // Per thread for two reasons: a handle like `CU_STREAM_PER_THREAD` means another stream on every thread, and kernels of
    // one stream share memory that two threads must not use at once.
    static STREAMS: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
}

/// Hands the calling thread's stream on a device to `work`, as Candlewick's and as Candle's. `work` must not call this again.
/// No lock and no string, once the thread has used the device.
///
/// # Errors
/// What opening the GPU says, and those of `work`.
pub(super) fn with<T>(device: &CudaDevice, work: impl FnOnce(&mut Stream, &CudaStream) -> Result<T>) -> Result<T> {
    with_open(device, |Open { ours, candles, .. }| work(ours, candles))
}

/// Whether Candle's own is known to be faster for `op`.
///
/// # Errors
/// What opening the GPU says.
pub(crate) fn candle_pays(device: &CudaDevice, op: &Op) -> Result<bool> {
    with_open(device, |open| Ok(open.choices.candle_pays(op)))
}

fn with_open<T>(device: &CudaDevice, work: impl FnOnce(&mut Open) -> Result<T>) -> Result<T> {
    let id = device.id();
    STREAMS.with_borrow_mut(|streams| {
        let at = match streams.iter().position(|open| open.device == id) {
            Some(at) => at,
            None => {
                // Those whose device and tensors are all gone.
                streams.retain(|open| Arc::strong_count(&open.candles) > 1);
                streams.push(open(device)?);
                streams.len() - 1
            }
        };
        work(&mut streams[at])
    })
}

fn open(device: &CudaDevice) -> Result<Open> {
    let candles = device.cuda_stream();
    let (gpu, measured) = gpu::open(candles.context().ordinal())?;
    // SAFETY: Candle's devices are made in the primary context of their GPU, which is the one that `gpu` has; the stream is
    // kept, and with it that context, until Candlewick's is gone; and what this thread makes of a handle that means a stream
    // of its own never leaves the thread.
    let ours = unsafe { gpu.stream_on(candles.cu_stream().cast()) }?;
    Ok(Open { device: device.id(), ours, choices: Choices::new(measured), candles })
}
