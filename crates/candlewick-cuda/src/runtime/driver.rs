//! The driver's functions that are used (CUDA Driver API reference; the names with `_v2` are what cuda.h defines them to).

use super::libraries::{Found, Name, functions, load};
use cudarc::driver::sys::{
    CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphExec, CUgraphNode, CUlaunchConfig, CUmodule,
    CUstream, CUtensorMap,
};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_void};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// What a driver call returns: zero, or an error's number (`CUresult`).
pub(crate) type Code = u32;

pub(crate) const SUCCESS: Code = 0;
pub(crate) const OUT_OF_MEMORY: Code = 2;
pub(crate) const NOT_READY: Code = 600;

functions! {
    /// libcuda.
    struct Functions {
        fn cuInit(c_uint) -> Code;
        fn cuDriverGetVersion(*mut c_int) -> Code;
        fn cuGetErrorName(Code, *mut *const c_char) -> Code;
        fn cuGetErrorString(Code, *mut *const c_char) -> Code;
        fn cuDeviceGetCount(*mut c_int) -> Code;
        fn cuDeviceGet(*mut CUdevice, c_int) -> Code;
        fn cuDeviceGetName(*mut c_char, c_int, CUdevice) -> Code;
        fn cuDeviceGetAttribute(*mut c_int, c_uint, CUdevice) -> Code;
        fn cuDeviceTotalMem_v2(*mut usize, CUdevice) -> Code;
        fn cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice) -> Code;
        fn cuDevicePrimaryCtxRelease_v2(CUdevice) -> Code;
        fn cuCtxSetCurrent(CUcontext) -> Code;
        fn cuModuleLoadData(*mut CUmodule, *const c_void) -> Code;
        fn cuModuleUnload(CUmodule) -> Code;
        fn cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char) -> Code;
        fn cuFuncSetAttribute(CUfunction, c_uint, c_int) -> Code;
        fn cuLaunchKernel(
            CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void,
            *mut *mut c_void,
        ) -> Code;
        fn cuLaunchKernelEx(*const CUlaunchConfig, CUfunction, *mut *mut c_void, *mut *mut c_void) -> Code;
        fn cuTensorMapEncodeTiled(
            *mut CUtensorMap, c_uint, c_uint, CUdeviceptr, *const u64, *const u64, *const c_uint, *const c_uint, c_uint,
            c_uint, c_uint, c_uint,
        ) -> Code;
        fn cuStreamCreate(*mut CUstream, c_uint) -> Code;
        fn cuStreamDestroy_v2(CUstream) -> Code;
        fn cuStreamQuery(CUstream) -> Code;
        fn cuStreamSynchronize(CUstream) -> Code;
        fn cuStreamIsCapturing(CUstream, *mut c_uint) -> Code;
        fn cuStreamBeginCapture_v2(CUstream, c_uint) -> Code;
        fn cuStreamEndCapture(CUstream, *mut CUgraph) -> Code;
        fn cuEventCreate(*mut CUevent, c_uint) -> Code;
        fn cuEventDestroy_v2(CUevent) -> Code;
        fn cuEventRecord(CUevent, CUstream) -> Code;
        fn cuEventQuery(CUevent) -> Code;
        fn cuEventSynchronize(CUevent) -> Code;
        fn cuMemAlloc_v2(*mut CUdeviceptr, usize) -> Code;
        fn cuMemFree_v2(CUdeviceptr) -> Code;
        fn cuMemHostAlloc(*mut *mut c_void, usize, c_uint) -> Code;
        fn cuMemFreeHost(*mut c_void) -> Code;
        fn cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream) -> Code;
        fn cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream) -> Code;
        fn cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, usize, CUstream) -> Code;
        fn cuMemsetD8Async(CUdeviceptr, c_uchar, usize, CUstream) -> Code;
        fn cuGraphGetNodes(CUgraph, *mut CUgraphNode, *mut usize) -> Code;
        fn cuGraphInstantiateWithFlags(*mut CUgraphExec, CUgraph, u64) -> Code;
        fn cuGraphUpload(CUgraphExec, CUstream) -> Code;
        fn cuGraphLaunch(CUgraphExec, CUstream) -> Code;
        fn cuGraphExecDestroy(CUgraphExec) -> Code;
        fn cuGraphDestroy(CUgraph) -> Code;
    }
}

/// The driver, loaded and initialised.
pub(crate) struct Driver {
    functions: Functions,
    /// 12080 for CUDA 12.8.
    pub(crate) version: u32,
}

impl std::ops::Deref for Driver {
    type Target = Functions;

    fn deref(&self) -> &Functions {
        &self.functions
    }
}

impl Driver {
    /// The driver; the same one for everybody who finds it in the same place.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(crate) fn get(only: Option<&[PathBuf]>) -> Result<&'static Driver, String> {
        static DRIVERS: Mutex<Option<HashMap<PathBuf, &'static Driver>>> = Mutex::new(None);
        let Found { library, path } = load(Name::Cuda, only, 0)?;
        let mut drivers = DRIVERS.lock().unwrap_or_else(PoisonError::into_inner);
        let drivers = drivers.get_or_insert_default();
        if let Some(driver) = drivers.get(&path) {
            return Ok(driver);
        }
        let functions = Functions::from_library(library)
            .map_err(|missing| format!("{}: {missing}: a driver of CUDA 12 or later is needed", path.display()))?;
        let mut driver = Driver { functions, version: 0 };
        // SAFETY: it may be called at any time, by any thread.
        let code = unsafe { (driver.cuInit)(0) };
        if code != SUCCESS {
            return Err(format!("cuInit: {}", driver.describe(code)));
        }
        let mut version = 0;
        // SAFETY: the pointer is valid.
        if unsafe { (driver.cuDriverGetVersion)(&mut version) } == SUCCESS {
            driver.version = version as u32;
        }
        let driver: &'static Driver = Box::leak(Box::new(driver));
        drivers.insert(path, driver);
        Ok(driver)
    }

    /// `CUDA_ERROR_OUT_OF_MEMORY (out of memory)`.
    pub(crate) fn describe(&self, code: Code) -> String {
        let text = |function: unsafe extern "C" fn(Code, *mut *const c_char) -> Code| {
            let mut text = std::ptr::null();
            // SAFETY: the pointer is valid; what comes back is null or a text that is never freed.
            unsafe {
                function(code, &mut text);
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        };
        match (text(self.cuGetErrorName), text(self.cuGetErrorString)) {
            (Some(name), Some(meaning)) => format!("{name} ({meaning})"),
            _ => format!("error {code}, which this driver does not explain"),
        }
    }
}

/// Whether the context is lost for good: what is called after such an error returns it again (CUDA Driver API,
/// `CUresult`: "the process must be terminated and relaunched").
pub(crate) const fn is_sticky(code: Code) -> bool {
    // ECC and NVLink, illegal address, timeout, destroyed context, assert, then from hardware stack to launch failure,
    // and a contained error.
    matches!(code, 214 | 220 | 700 | 702 | 709 | 710 | 714..=719 | 721)
}
