//! The engine `cuda/cublaslt`: NVIDIA's matrix products.
//!
//! | looking for | it is in |
//! |---|---|
//! | the library: its functions, its handle, its errors | here |
//! | which products it runs, and how their matrices lie | `layout.rs` |
//! | one product: what it is given, the algorithm that was found for it | `product.rs` |
//! | LoRA, forward and backward, as such products | `lora.rs` |
//!
//! What the library decides it decides in `prepare`: an algorithm for operands at multiples of 16 bytes, and one for any.
//! All products of a stream share one workspace: they run one after the other.

mod layout;
mod lora;
mod product;

pub(crate) use layout::runs_matmul;
pub(crate) use lora::{
    base_of_backward, lora_delta, lora_delta_backward, lora_linear, lora_linear_backward, runs_lora,
};
pub(crate) use product::{Product, Where, matmul};

use crate::runtime::context::Context;
use crate::runtime::libraries::{Found, Name, functions, load};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;

/// An object of the library's.
type Object = *mut c_void;

/// What a heuristic found (cublasLt.h, `cublasLtMatmulHeuristicResult_t`); its state is a plain number here.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Heuristic {
    algorithm: [u64; 8],
    workspace_bytes: usize,
    state: u32,
    waves: f32,
    reserved: [c_int; 4],
}

functions! {
    /// libcublasLt.
    struct Functions {
        fn cublasLtCreate(*mut Object) -> u32;
        fn cublasLtDestroy(Object) -> u32;
        fn cublasLtGetVersion() -> usize;
        fn cublasLtGetStatusString(u32) -> *const c_char;
        fn cublasLtMatmulDescCreate(*mut Object, u32, u32) -> u32;
        fn cublasLtMatmulDescDestroy(Object) -> u32;
        fn cublasLtMatmulDescSetAttribute(Object, u32, *const c_void, usize) -> u32;
        fn cublasLtMatrixLayoutCreate(*mut Object, u32, u64, u64, i64) -> u32;
        fn cublasLtMatrixLayoutDestroy(Object) -> u32;
        fn cublasLtMatrixLayoutSetAttribute(Object, u32, *const c_void, usize) -> u32;
        fn cublasLtMatmulPreferenceCreate(*mut Object) -> u32;
        fn cublasLtMatmulPreferenceDestroy(Object) -> u32;
        fn cublasLtMatmulPreferenceSetAttribute(Object, u32, *const c_void, usize) -> u32;
        fn cublasLtMatmulAlgoGetHeuristic(
            Object, Object, Object, Object, Object, Object, Object, c_int, *mut Heuristic, *mut c_int,
        ) -> u32;
        fn cublasLtMatmul(
            Object, Object, *const c_void, *const c_void, Object, *const c_void, Object, *const c_void, *const c_void,
            Object, *mut c_void, Object, *const [u64; 8], *mut c_void, usize, *mut c_void,
        ) -> u32;
    }
}

/// The library on one device.
pub(crate) struct Blas {
    functions: &'static Functions,
    handle: Object,
    /// 130000 for 13.0.0.
    pub(crate) version: usize,
}

// SAFETY: the handle may be used from several threads (cuBLAS, "Using the cuBLASLt API": "thread safety").
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

impl Blas {
    /// The library that suits a driver of CUDA `major`.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(crate) fn get(context: &Context, only: Option<&[PathBuf]>, major: u32) -> Result<Self, String> {
        let Found { library, path } = load(Name::CublasLt, only, major)?;
        let explain = |what: String| format!("{}: {what}", path.display());
        let functions: &'static Functions = Box::leak(Box::new(Functions::from_library(library).map_err(explain)?));
        context.bind().map_err(|error| error.to_string())?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is valid and a context is current.
        let status = unsafe { (functions.cublasLtCreate)(&mut handle) };
        if status != 0 {
            return Err(explain(format!("cublasLtCreate: {}", meaning(functions, status))));
        }
        // SAFETY: it may be called at any time.
        let version = unsafe { (functions.cublasLtGetVersion)() };
        Ok(Blas { functions, handle, version })
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once; products of its own are gone, as they hold the device.
        unsafe { (self.functions.cublasLtDestroy)(self.handle) };
    }
}

#[cold]
fn meaning(functions: &Functions, status: u32) -> String {
    // SAFETY: it returns a text that is never freed, or nothing.
    let text = unsafe { (functions.cublasLtGetStatusString)(status) };
    if text.is_null() {
        return format!("status {status}");
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
