//! Compiled kernels: once per device in memory, once per user on disk.

use super::context::Context;
use super::disk::{Disk, Key, Lookup};
use super::driver::Driver;
use super::nvrtc::Nvrtc;
use crate::chip::Chip;
use crate::program::{Launch, Source};
use candlewick_core::{Error, Result};
use cudarc::driver::sys::{CUfunction, CUfunction_attribute, CUmodule};
use std::collections::HashMap;
use std::ffi::CString;

/// What became of the kernels that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModuleCounters {
    /// Modules that were in memory.
    pub hits: u64,
    /// Modules that were on disk.
    pub from_disk: u64,
    /// Modules that were compiled.
    pub compiled: u64,
    /// Entries on disk that were not whole, of something else, or refused by the driver.
    pub rejected: u64,
}

/// A kernel, for as long as its device is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function(pub(crate) CUfunction);

// SAFETY: a function's handle is only given back to the driver.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

struct Module {
    handle: CUmodule,
    /// By name; with the shared memory that it has been allowed.
    functions: HashMap<&'static str, (CUfunction, u32)>,
}

// SAFETY: a module's handle is only given back to the driver.
unsafe impl Send for Module {}

/// The modules of a device: as many as there are files and dtypes.
pub(crate) struct Modules {
    nvrtc: Nvrtc,
    disk: Option<Disk>,
    options: Vec<String>,
    modules: HashMap<Source, Module>,
    counters: ModuleCounters,
}

impl Modules {
    pub(crate) fn new(nvrtc: Nvrtc, disk: Option<Disk>, chip: &Chip, dependent: bool) -> Self {
        // No fast math: NaN and infinities are part of what the operations promise.
        let mut options = vec![
            format!("--gpu-architecture={}", chip.architecture(&nvrtc.architectures)),
            "--std=c++17".into(),
            "-lineinfo".into(),
        ];
        if dependent {
            options.push("--define-macro=DEPENDENT_LAUNCH".into());
        }
        Modules { nvrtc, disk, options, modules: HashMap::new(), counters: ModuleCounters::default() }
    }

    pub(crate) fn counters(&self) -> ModuleCounters {
        self.counters
    }

    pub(crate) fn nvrtc_version(&self) -> (u32, u32) {
        self.nvrtc.version
    }

    pub(crate) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// The kernel of a launch, allowed as much shared memory.
    ///
    /// # Errors
    /// What the compiler or the driver says.
    pub(crate) fn function(&mut self, context: &Context, launch: &Launch) -> Result<Function> {
        let module = self.module(context, &launch.source)?;
        let (function, allowed) = match module.functions.get_mut(launch.entry) {
            Some(known) => known,
            None => {
                let name = CString::new(launch.entry).expect("kernels' names have no zero bytes");
                let mut function = std::ptr::null_mut();
                let handle = module.handle;
                // SAFETY: the module is loaded, the name ends with a zero, and the pointer is valid.
                context.run("cuModuleGetFunction", |driver| unsafe {
                    (driver.cuModuleGetFunction)(&mut function, handle, name.as_ptr())
                })?;
                module.functions.entry(launch.entry).or_insert((function, 0))
            }
        };
        if launch.shared_bytes > *allowed {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as u32;
            // SAFETY: the function is valid.
            context.run("cuFuncSetAttribute", |driver| unsafe {
                (driver.cuFuncSetAttribute)(*function, attribute, launch.shared_bytes as i32)
            })?;
            *allowed = launch.shared_bytes;
        }
        Ok(Function(*function))
    }

    fn module(&mut self, context: &Context, source: &Source) -> Result<&mut Module> {
        if self.modules.contains_key(source) {
            self.counters.hits += 1;
        } else {
            let handle = self.load(context, source)?;
            self.modules.insert(source.clone(), Module { handle, functions: HashMap::new() });
        }
        Ok(self.modules.get_mut(source).expect("it is there or was inserted"))
    }

    fn load(&mut self, context: &Context, source: &Source) -> Result<CUmodule> {
        let text = source.text();
        let name = source.name();
        let version = format!("nvrtc {}.{}", self.nvrtc.version.0, self.nvrtc.version.1);
        let mut parts = vec![name.as_str(), &text, &version];
        parts.extend(self.options.iter().map(String::as_str));
        let key = Key::new(&parts);
        match self.disk.as_ref().map_or(Lookup::Absent, |disk| disk.load(&key)) {
            Lookup::Found(code) => match load_module(context, &code) {
                Ok(module) => {
                    self.counters.from_disk += 1;
                    return Ok(module);
                }
                Err(error) if context.is_lost() => return Err(error),
                Err(_) => self.counters.rejected += 1,
            },
            Lookup::Rejected => self.counters.rejected += 1,
            Lookup::Absent => {}
        }
        let failed = |message: String| Error::Backend { device: context.label.clone(), message };
        let code = self.nvrtc.compile(&name, &text, &self.options).map_err(failed)?;
        self.counters.compiled += 1;
        let module = load_module(context, &code)?;
        if let Some(disk) = &self.disk {
            // Only code that the driver took. Where the disk is full or read-only it is compiled again next time.
            let _ = disk.store(&key, &code);
        }
        Ok(module)
    }

    /// Nothing may use the kernels any more.
    pub(crate) fn unload(&mut self, context: &Context) {
        for (_, module) in self.modules.drain() {
            // SAFETY: it is unloaded once.
            context.try_run(|driver| unsafe { (driver.cuModuleUnload)(module.handle) });
        }
    }
}

fn load_module(context: &Context, code: &[u8]) -> Result<CUmodule> {
    // PTX is a text, which ends with a zero; machine code has its length in its header.
    let mut image = code.to_vec();
    image.push(0);
    let mut module = std::ptr::null_mut();
    let load = |driver: &Driver| {
        // SAFETY: the image is whole, and the driver copies what it needs.
        unsafe { (driver.cuModuleLoadData)(&mut module, image.as_ptr().cast()) }
    };
    context.run("cuModuleLoadData", load)?;
    Ok(module)
}
