//! Libraries and pipeline states: compiled once per device, and kept.

use super::objects::{DEVICE, MetalDevice, Pipeline, Sendable, failed, macos};
use crate::{simdgroup, tensor};
use candlewick_core::cache::{Cache, CacheCounters};
use candlewick_core::{DType, Error, Result};
use candlewick_kernels::{File, Target};
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSString;
use objc2_metal::{
    MTLCompileOptions, MTLDevice, MTLLanguageVersion, MTLLibrary, MTLMathFloatingPointFunctions, MTLMathMode,
};
use std::collections::{HashMap, hash_map};

/// A text that is compiled as one library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A file of `candlewick-kernels`, for a dtype.
    Shared(File, DType),
    /// `kernels/product.metal`.
    Tiles,
    /// `kernels/tensor.metal`.
    Tensor,
}

/// A kernel: where, and its name there.
pub(crate) type Entry = (Source, &'static str);

type Library = Sendable<Retained<ProtocolObject<dyn MTLLibrary>>>;

/// What a device has compiled. Libraries are as many as there are sources; pipelines are bounded.
pub(crate) struct Pipelines {
    libraries: HashMap<Source, Library>,
    pipelines: Cache<Entry, Sendable<Retained<Pipeline>>>,
}

impl Pipelines {
    /// Every kernel there is, a few times over.
    const MOST: usize = 1024;

    pub(crate) fn new() -> Self {
        Pipelines { libraries: HashMap::new(), pipelines: Cache::new(Self::MOST) }
    }

    pub(crate) fn counters(&self) -> CacheCounters {
        self.pipelines.counters()
    }

    /// The pipeline state of a kernel.
    ///
    /// # Errors
    /// What the compiler says.
    pub(crate) fn get(&mut self, device: &MetalDevice, entry: Entry) -> Result<Sendable<Retained<Pipeline>>> {
        if let Some(pipeline) = self.pipelines.get(&entry) {
            return Ok(shared(pipeline));
        }
        let pipeline = autoreleasepool(|_| {
            let (source, name) = entry;
            let library = match self.libraries.entry(source) {
                hash_map::Entry::Occupied(entry) => entry.into_mut(),
                hash_map::Entry::Vacant(entry) => {
                    let library = compile(device, source).map_err(|error| failed(source.name(), &error))?;
                    // SAFETY: libraries are safe from several threads (MTLLibrary is Send and Sync in the typed crate).
                    entry.insert(unsafe { Sendable::new(library) })
                }
            };
            let function = library.newFunctionWithName(&NSString::from_str(name));
            let function = function.ok_or_else(|| missing(source, name))?;
            device.newComputePipelineStateWithFunction_error(&function).map_err(|error| failed(name, &error))
        })?;
        // SAFETY: pipeline states are safe from several threads (MTLComputePipelineState is Send and Sync).
        let pipeline = unsafe { Sendable::new(pipeline) };
        self.pipelines.insert(entry, shared(&pipeline));
        Ok(pipeline)
    }
}

fn shared(pipeline: &Sendable<Retained<Pipeline>>) -> Sendable<Retained<Pipeline>> {
    // SAFETY: as where it was made.
    unsafe { Sendable::new(Retained::clone(pipeline)) }
}

impl Source {
    fn text(self) -> String {
        match self {
            Source::Shared(file, dtype) => candlewick_kernels::source(Target::Metal, file, &[dtype]),
            Source::Tiles => simdgroup::SOURCE.into(),
            Source::Tensor => tensor::SOURCE.into(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Source::Shared(file, _) => file.name(),
            Source::Tiles => "product.metal",
            Source::Tensor => "tensor.metal",
        }
    }
}

fn missing(source: Source, name: &str) -> Error {
    Error::Backend { device: DEVICE.into(), message: format!("{} has no kernel {name}", source.name()) }
}

/// Compiles without fast math: NaN and infinities are part of what the operations promise.
fn compile(
    device: &MetalDevice,
    source: Source,
) -> std::result::Result<Retained<ProtocolObject<dyn MTLLibrary>>, Retained<objc2_foundation::NSError>> {
    let options = MTLCompileOptions::new();
    if source == Source::Tensor {
        options.setLanguageVersion(MTLLanguageVersion::Version4_0);
    }
    if macos(15, 0) {
        options.setMathMode(MTLMathMode::Safe);
        options.setMathFloatingPointFunctions(MTLMathFloatingPointFunctions::Precise);
    } else {
        #[allow(deprecated)] // All there is before macOS 15.
        options.setFastMathEnabled(false);
    }
    device.newLibraryWithSource_options_error(&NSString::from_str(&source.text()), Some(&options))
}
