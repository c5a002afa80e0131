//! What the process keeps of each GPU.

use crate::engine;
use crate::error::Result;
use candle_core::MetalDevice;
use candle_core::metal_backend::DeviceId;
use candle_metal_kernels::metal::Buffer;
use candlewick::DispatchTable;
use candlewick_core::backend::Device as _;
use candlewick_metal::{Device, Options, Stream};
use objc2::Message;
use objc2::runtime::ProtocolObject;
use objc2_metal::MTLDevice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One GPU, however many Candle devices are on it.
pub(super) struct Gpu {
    device: Device,
    /// What was measured of both libraries on Candle's tensors.
    measured: Arc<DispatchTable>,
    /// Streams that no region uses now.
    streams: Mutex<Vec<Stream>>,
    /// Memory of regions, and the Candle device that it was used on. Free where nobody else holds it.
    memory: Mutex<Vec<(DeviceId, Arc<Buffer>)>>,
}

/// Metal's device is the same object for every Candle device of a GPU.
pub(super) fn raw(device: &MetalDevice) -> &ProtocolObject<dyn MTLDevice> {
    device.metal_device().as_ref()
}

/// The GPU of a Candle device.
///
/// # Errors
/// A GPU that is too old.
pub(super) fn of(device: &MetalDevice) -> Result<Arc<Gpu>> {
    // A handful at most, kept as long as the process: pipelines belong to them.
    static GPUS: Mutex<Vec<(usize, Arc<Gpu>)>> = Mutex::new(Vec::new());
    let raw = raw(device);
    let address = std::ptr::from_ref(raw).addr();
    let mut gpus = lock(&GPUS);
    if let Some((_, gpu)) = gpus.iter().find(|(known, _)| *known == address) {
        return Ok(gpu.clone());
    }
    // Tensors are Candle's: all that is cut from these blocks is parameters and workspaces of regions.
    let device = Device::from_metal(raw.retain(), Options { block_bytes: 1 << 20, ..Options::default() })?;
    let info = device.info();
    let (profile, measured) = engine::measured(&info);
    let device = match profile {
        Some(profile) => device.with_table(profile.table(&info.engines)),
        None => device,
    };
    let gpu = Arc::new(Gpu { device, measured, streams: Mutex::default(), memory: Mutex::default() });
    gpus.push((address, gpu.clone()));
    Ok(gpu)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn measured(&self) -> Arc<DispatchTable> {
        self.measured.clone()
    }

    /// A stream for one region.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn stream(&self) -> Result<Stream> {
        let idle = lock(&self.streams).pop();
        Ok(idle.map_or_else(|| self.device.stream(), Ok)?)
    }

    /// Takes it back once its work is done.
    pub(super) fn give_stream(&self, stream: Stream) {
        lock(&self.streams).push(stream);
    }

    /// Memory of earlier regions on this Candle device that nobody holds. Work of Candle's may be pending there: wait
    /// before it is written. What other devices left is let go.
    pub(super) fn free_memory(&self, device: DeviceId) -> Vec<Arc<Buffer>> {
        let free = lock(&self.memory).extract_if(.., |(_, buffer)| Arc::strong_count(buffer) == 1).collect::<Vec<_>>();
        free.into_iter().filter(|(of, _)| *of == device).map(|(_, buffer)| buffer).collect()
    }

    /// Takes back what a region used. What it did not use it has let go: there is as much as the last regions needed.
    pub(super) fn give_memory(&self, device: DeviceId, used: impl Iterator<Item = Arc<Buffer>>) {
        lock(&self.memory).extend(used.map(|buffer| (device, buffer)));
    }
}
