//! NVIDIA's run-time compiler (NVRTC user guide).

use super::libraries::{Found, Name, functions, load};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;

type Handle = *mut c_void;

functions! {
    /// libnvrtc.
    struct Functions {
        fn nvrtcVersion(*mut c_int, *mut c_int) -> u32;
        fn nvrtcGetErrorString(u32) -> *const c_char;
        fn nvrtcGetNumSupportedArchs(*mut c_int) -> u32;
        fn nvrtcGetSupportedArchs(*mut c_int) -> u32;
        fn nvrtcCreateProgram(
            *mut Handle, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char,
        ) -> u32;
        fn nvrtcDestroyProgram(*mut Handle) -> u32;
        fn nvrtcCompileProgram(Handle, c_int, *const *const c_char) -> u32;
        fn nvrtcGetProgramLogSize(Handle, *mut usize) -> u32;
        fn nvrtcGetProgramLog(Handle, *mut c_char) -> u32;
        fn nvrtcGetCUBINSize(Handle, *mut usize) -> u32;
        fn nvrtcGetCUBIN(Handle, *mut c_char) -> u32;
        fn nvrtcGetPTXSize(Handle, *mut usize) -> u32;
        fn nvrtcGetPTX(Handle, *mut c_char) -> u32;
    }
}

/// The compiler.
pub(crate) struct Nvrtc {
    functions: Functions,
    /// (13, 0).
    pub(crate) version: (u32, u32),
    /// The architectures that it compiles for: 75, 80, 90, ..
    pub(crate) architectures: Vec<u32>,
}

impl Nvrtc {
    /// The compiler that suits a driver of CUDA `major`.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(crate) fn get(only: Option<&[PathBuf]>, major: u32) -> Result<Self, String> {
        let Found { library, path } = load(Name::Nvrtc, only, major)?;
        let explain = |what: String| format!("{}: {what}", path.display());
        let functions = Functions::from_library(library).map_err(explain)?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: the pointers are valid.
        let codes = unsafe {
            [(functions.nvrtcVersion)(&mut major, &mut minor), (functions.nvrtcGetNumSupportedArchs)(&mut count)]
        };
        let mut architectures = vec![0; count.max(0) as usize];
        // SAFETY: there is room for as many as it said.
        let code = unsafe { (functions.nvrtcGetSupportedArchs)(architectures.as_mut_ptr()) };
        if codes != [0, 0] || code != 0 {
            return Err(explain("it does not say what it is".into()));
        }
        let architectures = architectures.into_iter().map(|architecture| architecture as u32).collect();
        Ok(Nvrtc { functions, version: (major as u32, minor as u32), architectures })
    }

    /// Machine code, or PTX for an architecture that is named `compute_..`.
    ///
    /// # Errors
    /// What the compiler says.
    pub(crate) fn compile(&self, name: &str, source: &str, options: &[String]) -> Result<Vec<u8>, String> {
        let text = |text: &str| CString::new(text).map_err(|_| format!("{name}: a source has no zero bytes"));
        let (source, file) = (text(source)?, text(name)?);
        let options = options.iter().map(|option| text(option)).collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program = Program { functions: &self.functions, handle: std::ptr::null_mut() };
        // SAFETY: the texts end with a zero and live until the program is made, which copies them.
        let code = unsafe {
            (self.functions.nvrtcCreateProgram)(
                &mut program.handle,
                source.as_ptr(),
                file.as_ptr(),
                0,
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        self.check(code, name)?;
        // SAFETY: the program is valid, and so are as many pointers to texts.
        let code =
            unsafe { (self.functions.nvrtcCompileProgram)(program.handle, pointers.len() as c_int, pointers.as_ptr()) };
        if code != 0 {
            let log = program.log();
            return Err(format!("{}\n{log}", self.check(code, name).unwrap_err()));
        }
        let for_ptx = options.iter().any(|option| option.to_bytes().windows(8).any(|part| part == b"compute_"));
        let (size, get) = match for_ptx {
            true => (self.functions.nvrtcGetPTXSize, self.functions.nvrtcGetPTX),
            false => (self.functions.nvrtcGetCUBINSize, self.functions.nvrtcGetCUBIN),
        };
        let mut bytes = 0;
        // SAFETY: the program was compiled, and the pointer is valid.
        self.check(unsafe { size(program.handle, &mut bytes) }, name)?;
        let mut code = vec![0u8; bytes];
        // SAFETY: there is room for as many bytes as it said.
        self.check(unsafe { get(program.handle, code.as_mut_ptr().cast()) }, name)?;
        if code.is_empty() { Err(format!("{name}: the compiler gave no code")) } else { Ok(code) }
    }

    fn check(&self, code: u32, name: &str) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: it is a text that is never freed, whatever the number.
        let meaning = unsafe { CStr::from_ptr((self.functions.nvrtcGetErrorString)(code)) }.to_string_lossy();
        Err(format!("{name}: {meaning}"))
    }
}

struct Program<'a> {
    functions: &'a Functions,
    handle: Handle,
}

impl Program<'_> {
    fn log(&self) -> String {
        let mut bytes = 0;
        // SAFETY: the program is valid; the log is as long as it says.
        unsafe {
            (self.functions.nvrtcGetProgramLogSize)(self.handle, &mut bytes);
            let mut log = vec![0u8; bytes];
            (self.functions.nvrtcGetProgramLog)(self.handle, log.as_mut_ptr().cast());
            String::from_utf8_lossy(&log).trim_end_matches('\0').trim().into()
        }
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: it is destroyed once.
            unsafe { (self.functions.nvrtcDestroyProgram)(&mut self.handle) };
        }
    }
}
