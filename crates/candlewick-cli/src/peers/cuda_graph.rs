//! A sequence of operations on Candle's CUDA tensors, recorded once: Candle has no graphs of its own, and its stream has.

use super::tensors::in_words;
use crate::bench::timing::{RECORDED, Timed};
use candle_core::CudaDevice;
use candle_core::backend::BackendDevice as _;
use candle_core::cuda_backend::cudarc::driver::CudaGraph;
use candle_core::cuda_backend::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};

/// [`RECORDED`] calls as a CUDA graph.
pub struct Recorded {
    graph: CudaGraph,
    device: CudaDevice,
}

impl Recorded {
    /// Records what `submit` gives to the device.
    ///
    /// # Errors
    /// What `submit` says, or the driver: not everything can be recorded.
    pub fn new(device: &CudaDevice, mut submit: impl FnMut() -> Result<(), String>) -> Result<Self, String> {
        let stream = device.cuda_stream();
        // Candle uploads strides for some operations, which a recording refuses: a call before it leaves them on the device.
        let _kept = device.enable_cuda_graph_htod_cache();
        submit()?;
        device.synchronize().map_err(in_words)?;
        let driver = |error: candle_core::cuda_backend::cudarc::driver::DriverError| format!("recording: {error}");
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).map_err(driver)?;
        let submitted = (0..RECORDED).try_for_each(|_| submit());
        // Ended in any case: the stream is of no use while it records.
        let graph = stream.end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        submitted?;
        let graph = graph.map_err(driver)?.ok_or("recording: nothing was recorded")?;
        graph.upload().map_err(driver)?;
        Ok(Recorded { graph, device: device.clone() })
    }
}

impl Timed for Recorded {
    fn submit(&mut self) -> Result<(), String> {
        self.graph.launch().map_err(|error| format!("replaying: {error}"))
    }

    fn wait(&mut self) -> Result<(), String> {
        self.device.synchronize().map_err(in_words)
    }
}
