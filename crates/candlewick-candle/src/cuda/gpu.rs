//! What the process keeps of each GPU.

use crate::error::Result;
use candlewick_cuda::{Device, Options};
use std::sync::{Mutex, PoisonError};

/// The GPU of this number, in the primary context, which Candle's devices use too; however many of those there are.
///
/// # Errors
/// What is missing, with what to do: Candle has found the driver, NVRTC may lack.
pub(super) fn open(ordinal: usize) -> Result<Device> {
    // A handful at most, kept as long as the process: compiled kernels belong to them.
    static GPUS: Mutex<Vec<(usize, Device)>> = Mutex::new(Vec::new());
    let mut gpus = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, gpu)) = gpus.iter().find(|(known, _)| *known == ordinal) {
        return Ok(gpu.clone());
    }
    // Tensors are Candle's: all that is cut from these blocks is what kernels need beside them.
    let gpu = Device::with_options(ordinal, Options { block_bytes: 1 << 20, ..Options::default() })?;
    gpus.push((ordinal, gpu.clone()));
    Ok(gpu)
}
