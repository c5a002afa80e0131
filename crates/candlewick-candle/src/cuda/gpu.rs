//! What the process keeps of each GPU.

use crate::engine;
use crate::error::Result;
use candlewick::DispatchTable;
use candlewick_core::backend::Device as _;
use candlewick_cuda::{Device, Options};
use std::sync::{Arc, Mutex, PoisonError};

/// A GPU, deciding by what was measured of it, and what was measured of both libraries on Candle's tensors.
pub(super) type Gpu = (Device, Arc<DispatchTable>);

/// The GPU of this number, in the primary context, which Candle's devices use too; however many of those there are.
///
/// # Errors
/// What is missing, with what to do: Candle has found the driver, NVRTC may lack.
pub(super) fn open(ordinal: usize) -> Result<Gpu> {
    // A handful at most, kept as long as the process: compiled kernels belong to them.
    static GPUS: Mutex<Vec<(usize, Gpu)>> = Mutex::new(Vec::new());
    let mut gpus = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, gpu)) = gpus.iter().find(|(known, _)| *known == ordinal) {
        return Ok(gpu.clone());
    }
    // Tensors are Candle's: all that is cut from these blocks is what kernels need beside them.
    let device = Device::with_options(ordinal, Options { block_bytes: 1 << 20, ..Options::default() })?;
    let info = device.info();
    let (profile, table) = engine::measured(&info);
    let device = match profile {
        Some(profile) => device.with_table(profile.table(&info.engines)),
        None => device,
    };
    gpus.push((ordinal, (device.clone(), table.clone())));
    Ok((device, table))
}
