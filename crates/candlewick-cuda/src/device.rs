//! An NVIDIA GPU as a device.

use crate::chip::Chip;
use crate::cublaslt::Blas;
use crate::memory::Shared;
use crate::ops::{self, Here};
use crate::runtime::context::Context;
use crate::runtime::disk::{Disk, usual_folder};
use crate::runtime::driver::{Driver, SUCCESS};
use crate::runtime::modules::{ModuleCounters, Modules};
use crate::runtime::nvrtc::Nvrtc;
use crate::{Buffer, Input, Output, Stream};
use candlewick_core::backend::{self, DeviceInfo, Engine, Limits};
use candlewick_core::dispatch::{Decision, DispatchTable, in_order};
use candlewick_core::{DType, Error, Op, Result};
use cudarc::driver::sys::{CUdevice, CUdevice_attribute as Attribute};
use std::ffi::{CStr, c_char, c_void};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const BACKEND: &str = "cuda";

/// Own kernels that Metal shares, from `candlewick-kernels`. Every operation.
pub const FUSED: Engine = Engine::new(BACKEND, "fused");
/// Own kernels on tensor cores.
pub const MMA: Engine = Engine::new(BACKEND, "mma");
/// NVIDIA's matrix products, and LoRA as such products.
pub const CUBLASLT: Engine = Engine::new(BACKEND, "cublaslt");

/// Where compiled kernels are kept from one process to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CacheFolder {
    /// `candlewick/cuda` in the user's cache folder.
    #[default]
    Usual,
    /// This folder.
    At(PathBuf),
    /// Nowhere: every process compiles.
    Nowhere,
}

/// What can be chosen when a device is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Folders in which NVIDIA's libraries are looked for, and nowhere else. `None`: those of `CANDLEWICK_CUDA_LIBS`, then
    /// the loader's path, the toolkit's folders, Python's wheels.
    pub libraries: Option<Vec<PathBuf>>,
    /// Where compiled kernels are kept.
    pub cache: CacheFolder,
    /// Bytes of a block of memory that tensors are cut from. Larger tensors have one of their own; with 0 every tensor
    /// has, so that compute-sanitizer sees where each ends.
    pub block_bytes: usize,
    /// How long a waiting thread looks before it sleeps: as long as an operation, a plan or a token takes. A thread that
    /// sleeps is woken late: on a virtual machine with an H100 a token took 590 us with 50 us of looking, and 500 with more.
    /// Where the wait before was longer, as between steps of a training, it looks again about when that ended.
    pub spin: Duration,
    /// Lets cuBLASLt round f32 to TF32: faster, and outside [`Op::error_bound`].
    pub tf32: bool,
    /// Programmatic dependent launch, from compute capability 9.0 on: a kernel is brought to the cores while the one
    /// ahead of it ends. The kernels are compiled so that they wait before they read.
    pub dependent_launch: bool,
    /// An operation that comes again with the same tensors is launched as a graph of its own where the driver takes that sooner:
    /// where nothing of the stream's is pending, and where it is several launches, a product of cuBLASLt's, or so brief that the host
    /// takes longer than the GPU. The second time makes the graph, and takes longer. Off where `CANDLEWICK_CUDA_REPEATS=off`.
    pub repeats_as_graphs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            libraries: None,
            cache: CacheFolder::Usual,
            block_bytes: 64 << 20,
            spin: Duration::from_millis(1),
            tf32: false,
            dependent_launch: true,
            repeats_as_graphs: std::env::var_os("CANDLEWICK_CUDA_REPEATS").is_none_or(|value| value != "off"),
        }
    }
}

/// An NVIDIA GPU: a cheap handle.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
    table: Arc<DispatchTable>,
}

impl Device {
    /// The GPU of this number, in its primary context, which Candle and PyTorch use too.
    ///
    /// # Errors
    /// [`Error::NoDevice`], with what is missing and what to do.
    pub fn open(ordinal: usize) -> Result<Self> {
        Self::with_options(ordinal, Options::default())
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn with_options(ordinal: usize, options: Options) -> Result<Self> {
        Self::build(ordinal, options, None)
    }

    /// The GPU of this number in a context of the caller's (a `CUcontext`).
    ///
    /// # Safety
    /// The context belongs to that GPU, and outlives the device and everything made from it.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub unsafe fn with_raw_context(ordinal: usize, context: *mut c_void, options: Options) -> Result<Self> {
        Self::build(ordinal, options, Some(context))
    }

    /// How many GPUs the driver sees.
    ///
    /// # Errors
    /// [`Error::NoDevice`], with what is missing.
    pub fn count() -> Result<usize> {
        let none = |reason| Error::NoDevice { wanted: BACKEND.into(), reason };
        let driver = Driver::get(None).map_err(none)?;
        count(driver).map_err(none)
    }

    fn build(ordinal: usize, options: Options, context: Option<*mut c_void>) -> Result<Self> {
        let label = format!("{BACKEND}:{ordinal}");
        let none = |reason: String| Error::NoDevice { wanted: label.clone(), reason };
        let only = options.libraries.as_deref();
        let driver = Driver::get(only).map_err(none)?;
        let (device, mut chip) = find(driver, ordinal).map_err(none)?;
        if chip.capability < (7, 0) {
            let (major, minor) = chip.capability;
            return Err(none(format!("{} has compute capability {major}.{minor}: 7.0 or later is needed", chip.name)));
        }
        let major = driver.version / 1000;
        let nvrtc = Nvrtc::get(only, major).map_err(none)?;
        let folder = match &options.cache {
            CacheFolder::Usual => usual_folder(),
            CacheFolder::At(folder) => Some(folder.clone()),
            CacheFolder::Nowhere => None,
        };
        let mut options = options.clone();
        options.dependent_launch &= chip.capability >= (9, 0);
        let modules = Modules::new(nvrtc, folder.map(Disk::new), &chip, options.dependent_launch);
        let context = Context::new(driver, device, label.clone(), context.map(<*mut c_void>::cast)).map_err(none)?;
        let blas = Blas::get(&context, options.libraries.as_deref(), major);
        chip.name = chip.name.trim().into();
        let shared = Shared::new(context, chip, options, blas, modules)?;
        Ok(Device { shared: Arc::new(shared), table: Arc::default() })
    }

    /// The same device with measurements to choose engines by.
    pub fn with_table(self, table: DispatchTable) -> Self {
        Device { table: Arc::new(table), ..self }
    }

    /// The engine that `prepare` takes for `op`, and why.
    pub fn decide(&self, op: &Op) -> Option<Decision> {
        self.table.choose(op, &ops::engines(op, self.here()))
    }

    /// Bytes of memory taken from the driver.
    pub fn allocated_bytes(&self) -> usize {
        self.shared.bytes()
    }

    /// Gives memory that nothing uses back to the driver. It may wait for the GPU.
    pub fn trim(&self) {
        self.shared.trim();
    }

    /// What became of the kernels that were asked for: found in memory, on disk, compiled.
    pub fn module_counters(&self) -> ModuleCounters {
        self.shared.module_counters()
    }

    /// Makes the device's context current on this thread. Needed only after other code has made another context current
    /// on a thread that has used this device before: Candle and PyTorch use the same one, and streams of
    /// [`Device::stream_on`] do it themselves.
    ///
    /// # Errors
    /// What the driver says.
    pub fn bind_thread(&self) -> Result<()> {
        self.shared.context.rebind()
    }

    /// A stream that submits to a stream of the caller's (a `CUstream`), in order with whatever else is submitted there.
    ///
    /// # Safety
    /// The stream belongs to the device's context and outlives the returned stream and what it prepared and recorded. Where
    /// the handle is `CU_STREAM_PER_THREAD`, the returned stream stays on the thread that asked for it.
    ///
    /// # Errors
    /// What the driver says.
    pub unsafe fn stream_on(&self, stream: *mut c_void) -> Result<Stream> {
        Stream::on(self.clone(), stream.cast())
    }

    /// Memory of another library's, to be read by an `encode`: an address on this device.
    ///
    /// # Safety
    /// So many elements are there, at a multiple of the element's size, for as long as work that was given them is
    /// pending, or recorded in a graph; and nobody writes them meanwhile but in order with the stream.
    pub unsafe fn input<'a>(&self, address: u64, elements: usize, dtype: DType) -> Input<'a> {
        Input::raw(address, elements, dtype, self.shared.id())
    }

    /// Memory of another library's, to be written by an `encode`.
    ///
    /// # Safety
    /// As [`Device::input`], and nobody reads them meanwhile but in order with the stream.
    pub unsafe fn output<'a>(&self, address: u64, elements: usize, dtype: DType) -> Output<'a> {
        Output::raw(address, elements, dtype, self.shared.id())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn here(&self) -> Here<'_> {
        Here { chip: &self.shared.chip, blas: self.shared.blas.is_ok() }
    }

    fn bytes_of(&self, dtype: DType, elements: usize) -> Result<usize> {
        let bytes = elements.checked_mul(dtype.bytes()).filter(|&bytes| bytes <= isize::MAX as usize);
        bytes.ok_or_else(|| Error::OutOfMemory { device: self.shared.context.label.clone(), bytes: usize::MAX })
    }
}

impl backend::Device for Device {
    type Buffer = Buffer;
    type Stream = Stream;

    fn info(&self) -> DeviceInfo {
        let Chip { name, capability: (major, minor), multiprocessors, l2_bytes, memory_bytes, .. } = &self.shared.chip;
        let driver = self.shared.context.driver.version;
        let (nvrtc_major, nvrtc_minor) = self.shared.nvrtc_version();
        let blas = match &self.shared.blas {
            Ok(blas) => format!("{}.{}", blas.version / 10_000, blas.version / 100 % 100),
            Err(missing) => missing.clone(),
        };
        let cache = self.shared.cache_folder().map_or("none".into(), |folder| folder.display().to_string());
        let mut engines = vec![FUSED];
        if *major >= 8 {
            engines.push(MMA);
        }
        if self.shared.blas.is_ok() {
            engines.push(CUBLASLT);
        }
        DeviceInfo {
            id: self.shared.context.label.clone(),
            name: name.clone(),
            facts: vec![
                ("compute capability", format!("{major}.{minor}")),
                ("multiprocessors", multiprocessors.to_string()),
                ("memory, MiB", (memory_bytes >> 20).to_string()),
                ("level-two cache, MiB", (l2_bytes >> 20).to_string()),
                ("CUDA of the driver", format!("{}.{}", driver / 1000, driver % 1000 / 10)),
                ("NVRTC", format!("{nvrtc_major}.{nvrtc_minor}")),
                ("cuBLASLt", blas),
                ("compiled kernels", cache),
            ],
            asynchronous: true,
            engines,
        }
    }

    fn engines(&self, op: &Op) -> Vec<Engine> {
        in_order(&self.table, op, ops::engines(op, self.here()))
    }

    fn alloc(&self, dtype: DType, elements: usize) -> Result<Buffer> {
        let memory = self.shared.zeroed(self.bytes_of(dtype, elements)?)?;
        Ok(Buffer::new(memory, dtype, elements, None))
    }

    fn stream(&self) -> Result<Stream> {
        Stream::new(self.clone())
    }

    fn measure_limits(&self, _threads: usize) -> Result<Limits> {
        crate::measure::limits(self)
    }
}

fn count(driver: &Driver) -> std::result::Result<usize, String> {
    let mut count = 0;
    // SAFETY: the pointer is valid.
    match unsafe { (driver.cuDeviceGetCount)(&mut count) } {
        SUCCESS => Ok(count.max(0) as usize),
        code => Err(format!("cuDeviceGetCount: {}", driver.describe(code))),
    }
}

fn find(driver: &Driver, ordinal: usize) -> std::result::Result<(CUdevice, Chip), String> {
    let count = count(driver)?;
    if ordinal >= count {
        return Err(format!("the driver sees {count} GPUs, numbered from 0 (CUDA_VISIBLE_DEVICES hides others)"));
    }
    let check = |code, call: &str| match code {
        SUCCESS => Ok(()),
        code => Err(format!("{call}: {}", driver.describe(code))),
    };
    let mut device: CUdevice = 0;
    // SAFETY: the pointer is valid.
    check(unsafe { (driver.cuDeviceGet)(&mut device, ordinal as i32) }, "cuDeviceGet")?;
    let mut name = [0 as c_char; 256];
    // SAFETY: there is room for as many characters.
    check(unsafe { (driver.cuDeviceGetName)(name.as_mut_ptr(), 255, device) }, "cuDeviceGetName")?;
    // SAFETY: the last character is zero, whatever was written before it.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let mut memory_bytes = 0;
    // SAFETY: the pointer is valid.
    check(unsafe { (driver.cuDeviceTotalMem_v2)(&mut memory_bytes, device) }, "cuDeviceTotalMem")?;
    let attribute = |attribute: Attribute| {
        let mut value = 0;
        // SAFETY: the pointer is valid.
        let code = unsafe { (driver.cuDeviceGetAttribute)(&mut value, attribute as u32, device) };
        check(code, "cuDeviceGetAttribute").map(|()| value.max(0) as u32)
    };
    let chip = Chip {
        name,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        memory_bytes,
    };
    Ok((device, chip))
}
