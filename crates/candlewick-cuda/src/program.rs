//! One way to run an operation, as plain data: a program of `candlewick-kernels`, with what CUDA adds to a launch.
//!
//! Engines of own kernels make programs ([`crate::fused`], [`crate::mma`]); [`crate::runtime::launch`] translates them.

use arrayvec::ArrayVec;
use candlewick_core::DType;
use candlewick_kernels::{Binding, File, MAX_BINDINGS, Target};

/// The most pointers of a kernel: of the shared ones, and of this crate's own.
pub(crate) const MOST_POINTERS: usize = if MAX_BINDINGS > 12 { MAX_BINDINGS } else { 12 };

/// One way to run an operation on one chip.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// What this way is called, within its operation.
    pub(crate) variant: &'static str,
    /// In the order of a stream: each may use what those before it wrote.
    pub(crate) launches: Vec<Launch>,
    /// Memory that the launches share, at an address that is a multiple of 256 bytes. It may hold anything before.
    pub(crate) workspace_bytes: u64,
    /// Whether the launches count in it: it is this program's alone then, and zero before they run for the first time.
    pub(crate) counts: bool,
    /// The address of every operand is a multiple of this many bytes.
    pub(crate) alignment: u32,
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// Where the kernel is written.
    pub(crate) source: Source,
    /// Its name there (`extern "C"`).
    pub(crate) entry: &'static str,
    /// Its parameter structure, given by value behind the last pointer. Empty: there is none.
    pub(crate) params: Vec<u8>,
    /// Matrices that it copies in tiles, given by value ahead of the pointers.
    pub(crate) maps: ArrayVec<TensorMap, MOST_MAPS>,
    /// Its pointers, in order. One of zero bytes is not used: the kernel is given any address.
    pub(crate) bindings: ArrayVec<Binding, MOST_POINTERS>,
    /// Blocks along x, y, z.
    pub(crate) grid: [u32; 3],
    /// Threads of a block.
    pub(crate) threads: u32,
    /// Dynamic shared memory of a block.
    pub(crate) shared_bytes: u32,
    /// Blocks of a cluster along x; 1: no cluster.
    pub(crate) cluster: u32,
    /// Whether clusters go where there is most room, instead of in order.
    pub(crate) balanced: bool,
}

/// The most tensor maps of a launch.
pub(crate) const MOST_MAPS: usize = 7;

/// A matrix that the tensor memory accelerator copies in tiles (CUDA Driver API, "Tensor Map Object Management"). Its
/// address and the bytes from line to line are multiples of 16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorMap {
    pub(crate) binding: Binding,
    /// Of 16 bits.
    pub(crate) dtype: DType,
    /// Elements of a line.
    pub(crate) columns: u64,
    pub(crate) lines: u64,
    /// Elements from line to line.
    pub(crate) stride: u64,
    /// Lines of a tile, of 64 elements each: at most 256.
    pub(crate) tile: u32,
}

/// A text that is compiled as one module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A file of `candlewick-kernels`, for a dtype.
    Shared(File, DType),
    /// A file of this crate.
    Own(Instance),
}

/// A file in `kernels/` with the macros that make an instance of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Instance {
    /// What messages of the compiler call it.
    pub(crate) name: &'static str,
    /// Files by name and text, those that others build on first.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Macros and their values. `DEPENDENT_LAUNCH` is defined too where launches are dependent, as the CUDA prelude of
    /// `candlewick-kernels` says.
    pub(crate) macros: Vec<(&'static str, String)>,
}

impl Source {
    /// What is compiled.
    pub(crate) fn text(&self) -> String {
        let Instance { files, macros, .. } = match self {
            Source::Shared(file, dtype) => return candlewick_kernels::source(Target::Cuda, *file, &[*dtype]),
            Source::Own(instance) => instance,
        };
        let macros = macros.iter().map(|(name, value)| format!("#define {name} {value}\n"));
        // Messages of the compiler name the file that a person would open.
        macros.chain(files.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}\n"))).collect()
    }

    /// The file's name, as messages have it.
    pub(crate) fn name(&self) -> String {
        match self {
            Source::Shared(file, dtype) => format!("{}_{dtype}.cu", file.name()),
            Source::Own(instance) => instance.name.into(),
        }
    }
}

impl From<candlewick_kernels::Program> for Program {
    fn from(program: candlewick_kernels::Program) -> Self {
        let launch = |dispatch: &candlewick_kernels::Dispatch| Launch {
            source: Source::Shared(dispatch.entry.file, dispatch.entry.dtype),
            entry: dispatch.entry.name,
            params: dispatch.params.bytes().to_vec(),
            maps: ArrayVec::new(),
            bindings: dispatch.bindings.iter().cloned().collect(),
            grid: [dispatch.groups, 1, 1],
            threads: dispatch.threads,
            shared_bytes: 0,
            cluster: 1,
            balanced: false,
        };
        Program {
            variant: program.variant,
            launches: program.dispatches.iter().map(launch).collect(),
            workspace_bytes: program.workspace_bytes,
            counts: false,
            alignment: program.alignment,
        }
    }
}
