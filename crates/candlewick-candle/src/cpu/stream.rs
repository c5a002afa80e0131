//! One Candlewick stream per thread: it keeps the kernels that the thread has prepared.

use crate::error::Result;
use candlewick::{Device, Stream};
use std::cell::RefCell;

thread_local! {
    static STREAM: RefCell<Option<Stream>> = const { RefCell::new(None) };
}

/// Hands the calling thread's stream to `work`, which must not call this again.
pub(crate) fn with<T>(work: impl FnOnce(&mut Stream) -> Result<T>) -> Result<T> {
    STREAM.with_borrow_mut(|stream| match stream {
        Some(stream) => work(stream),
        none => work(none.insert(Device::cpu().stream()?)),
    })
}
