//! One Candlewick stream per thread: it keeps the kernels that the thread has prepared, and its choices.

use crate::engine::{self, Choices};
use crate::error::Result;
use candlewick::{Device, DispatchTable, Stream};
use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

thread_local! {
    static STREAM: RefCell<Option<(Stream, Choices)>> = const { RefCell::new(None) };
}

/// Hands the calling thread's stream and choices to `work`, which must not call this again.
pub(crate) fn with<T>(work: impl FnOnce(&mut Stream, &mut Choices) -> Result<T>) -> Result<T> {
    STREAM.with_borrow_mut(|open| match open {
        Some((stream, choices)) => work(stream, choices),
        none => {
            let (device, measured) = device();
            let (stream, choices) = none.insert((device.stream()?, Choices::new(measured.clone())));
            work(stream, choices)
        }
    })
}

/// The CPU with what was measured of it, which is read once.
fn device() -> &'static (Device, Arc<DispatchTable>) {
    static DEVICE: OnceLock<(Device, Arc<DispatchTable>)> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let cpu = Device::cpu();
        let (profile, table) = engine::measured(&cpu.info());
        (if let Some(profile) = &profile { cpu.with_profile(profile) } else { cpu }, table)
    })
}
