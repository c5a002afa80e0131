//! A GPU, or the stand-ins for NVIDIA's libraries that `scripts/check-candle-cuda.sh` links this to.
#![allow(dead_code, missing_docs)] // Each test file uses its part.

use candle_core::Device;
use libloading::os::unix::Library;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The GPU, or nothing and a line that says so.
pub fn gpu() -> Option<Device> {
    if function::<extern "C" fn()>("stub_clear").is_some() {
        println!("not run: no NVIDIA GPU, but a stand-in for the driver");
        return None;
    }
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(error) => {
            println!("not run: no NVIDIA GPU ({})", error.to_string().lines().next().unwrap_or_default());
            None
        }
    }
}

/// A function that this program is linked to, with the signature that it has in stub.c.
fn function<F: Copy>(name: &str) -> Option<F> {
    // SAFETY: the callers name the signatures of stub.c.
    unsafe { Library::this().get::<F>(name.as_bytes()).ok().map(|function| *function) }
}

/// A launch as the driver got it: the first part of stub.c's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    name: *const c_char,
    pub grid: [u32; 3],
    pub threads: u32,
    pub shared: u32,
    pub attributes: u32,
    pub stream: u64,
    pub arguments: [u64; 9],
    recorded: c_int,
}

/// What the stand-in counts, as in stub.c.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Allocations,
    Streams,
    Events,
}

/// The stand-in for every library at once. One test at a time has it.
pub struct StandIn(MutexGuard<'static, ()>);

impl StandIn {
    /// `None` where this is linked to the real ones, which is said.
    pub fn take() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        if function::<extern "C" fn()>("stub_clear").is_none() {
            println!("not run: linked to NVIDIA's libraries; scripts/check-candle-cuda.sh links it to stand-ins");
            return None;
        }
        Some(StandIn(TURN.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn function<F: Copy>(&self, name: &str) -> F {
        function(name).unwrap()
    }

    /// Calls of every library since the last [`StandIn::clear`], in order.
    pub fn calls(&self) -> Vec<String> {
        let count = self.function::<extern "C" fn() -> c_int>("stub_calls")();
        let call = self.function::<extern "C" fn(c_int) -> *const c_char>("stub_call");
        // SAFETY: names end with a zero and are never freed.
        (0..count).map(|i| unsafe { CStr::from_ptr(call(i)) }.to_str().unwrap().to_string()).collect()
    }

    /// Launches that were not recorded for later.
    pub fn launches(&self) -> Vec<Launch> {
        let count = self.function::<extern "C" fn() -> c_int>("stub_launches")();
        let launch = self.function::<extern "C" fn(c_int) -> Launch>("stub_launch");
        (0..count).map(|i| launch(i)).filter(|launch| launch.recorded == 0).collect()
    }

    pub fn clear(&self) {
        self.function::<extern "C" fn()>("stub_clear")();
    }

    pub fn live(&self, kind: Kind) -> i32 {
        self.function::<extern "C" fn(c_int) -> c_int>("stub_live")(kind as c_int)
    }

    /// The `nth` call of `name` from now on returns `code`.
    pub fn fail(&self, name: &str, nth: i32, code: i32) {
        let name = CString::new(name).unwrap();
        self.function::<extern "C" fn(*const c_char, c_int, c_int)>("stub_fail")(name.as_ptr(), nth, code);
    }

    /// How many arguments of a launch are numbers of 64 bits, to be remembered.
    pub fn read_arguments(&self, count: i32) {
        self.function::<extern "C" fn(c_int)>("stub_read_arguments")(count);
    }
}
