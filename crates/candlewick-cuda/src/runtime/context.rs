//! The context of a device: made current on a thread where it is not, and lost for good after some errors.

use super::driver::{Code, Driver, SUCCESS, is_sticky};
use candlewick_core::{Error, Result};
use cudarc::driver::sys::{CUcontext, CUdevice};
use std::cell::Cell;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A context that kernels and memory belong to.
pub(crate) struct Context {
    pub(crate) driver: &'static Driver,
    handle: CUcontext,
    device: CUdevice,
    /// The primary context, which is given back; a caller's is not.
    retained: bool,
    /// `cuda:0`.
    pub(crate) label: String,
    /// Tells contexts apart for as long as the process runs, unlike handles.
    id: u64,
    lost: AtomicBool,
    /// The error that it was lost by, and whether that names operations.
    why: Mutex<(String, bool)>,
}

// SAFETY: the driver's functions are safe from several threads, and handles are only given back to it.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

thread_local! {
    /// The context that this library made current on this thread last.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

impl Context {
    /// The primary context of a device, or a caller's context on it.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn new(
        driver: &'static Driver,
        device: CUdevice,
        label: String,
        given: Option<CUcontext>,
    ) -> std::result::Result<Self, String> {
        static CONTEXTS: AtomicU64 = AtomicU64::new(1);
        let mut handle = given.unwrap_or(std::ptr::null_mut());
        if given.is_none() {
            // SAFETY: the device exists and the pointer is valid.
            let code = unsafe { (driver.cuDevicePrimaryCtxRetain)(&mut handle, device) };
            if code != SUCCESS {
                return Err(format!("cuDevicePrimaryCtxRetain: {}", driver.describe(code)));
            }
        }
        Ok(Context {
            driver,
            handle,
            device,
            retained: given.is_none(),
            label,
            id: CONTEXTS.fetch_add(1, Ordering::Relaxed),
            lost: AtomicBool::new(false),
            why: Mutex::default(),
        })
    }

    /// Makes it current on this thread, unless it is as far as this library knows.
    ///
    /// # Errors
    /// The error that the context was lost by.
    #[inline]
    pub(crate) fn bind(&self) -> Result<()> {
        if self.is_lost() {
            return Err(self.lost(&""));
        }
        if CURRENT.get() == self.id { Ok(()) } else { self.rebind() }
    }

    /// Makes it current on this thread, whatever is.
    ///
    /// # Errors
    /// What the driver says.
    #[cold]
    pub(crate) fn rebind(&self) -> Result<()> {
        // SAFETY: the context is valid.
        let code = unsafe { (self.driver.cuCtxSetCurrent)(self.handle) };
        if code != SUCCESS {
            return Err(self.failed(code, "cuCtxSetCurrent", &""));
        }
        CURRENT.set(self.id);
        Ok(())
    }

    /// Calls the driver with this context current.
    ///
    /// # Errors
    /// What it says.
    #[inline]
    pub(crate) fn run(&self, call: &'static str, run: impl FnOnce(&Driver) -> Code) -> Result<()> {
        self.bind()?;
        match run(self.driver) {
            SUCCESS => Ok(()),
            code => Err(self.failed(code, call, &"")),
        }
    }

    /// Calls the driver where nobody is left to hear of an error; not at all where the context is lost.
    pub(crate) fn try_run(&self, run: impl FnOnce(&Driver) -> Code) {
        if self.bind().is_ok() {
            run(self.driver);
        }
    }

    /// The error that a call returned; `suspects` says what may have caused it, if anything.
    #[cold]
    pub(crate) fn failed(&self, code: Code, call: &'static str, suspects: &dyn Display) -> Error {
        let suspects = suspects.to_string();
        let mut message = format!("{call}: {}{suspects}", self.driver.describe(code));
        if is_sticky(code) {
            message.push_str(". This process can use the device no more: start it again");
            let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
            if why.0.is_empty() {
                *why = (message.clone(), !suspects.is_empty());
            }
            self.lost.store(true, Ordering::Release);
        }
        Error::Backend { device: self.label.clone(), message }
    }

    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// The error that it was lost by. Where another call than a stream's met it first, `suspects` are those of whoever
    /// asks.
    #[cold]
    pub(crate) fn lost(&self, suspects: &dyn Display) -> Error {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        let suspects = if why.1 { String::new() } else { suspects.to_string() };
        Error::Backend { device: self.label.clone(), message: format!("an earlier failure: {}{suspects}", why.0) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.retained && !self.is_lost() {
            // SAFETY: it was retained once. Whatever belonged to it is gone by now.
            unsafe { (self.driver.cuDevicePrimaryCtxRelease_v2)(self.device) };
        }
    }
}
