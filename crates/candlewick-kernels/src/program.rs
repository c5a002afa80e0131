//! A prepared operation as plain data: which kernels run, on what, and in which order.

use crate::source::File;
use arrayvec::ArrayVec;
use bytemuck::NoUninit;
use candlewick_core::DType;

/// The most dispatches that a program has.
pub const MAX_DISPATCHES: usize = 10;
/// The most buffers that a kernel is given.
pub const MAX_BINDINGS: usize = 10;
/// The most bytes of a kernel's parameters.
pub const MAX_PARAM_BYTES: usize = 320;

/// One way to run an operation.
#[derive(Clone, Debug)]
pub struct Program {
    /// What this way is called, within its operation: `lanes`, `looped`, `dots`, `tiled_64`, ..
    pub variant: &'static str,
    /// What runs, in an order in which every dispatch comes after those it depends on.
    pub dispatches: ArrayVec<Dispatch, MAX_DISPATCHES>,
    /// Memory that the dispatches share, at an address that is a multiple of 256 bytes. It may hold anything before.
    pub workspace_bytes: u64,
    /// The address of every operand is a multiple of this many bytes: 16; or the size of an element of the operation's
    /// dtype, and for operands of another dtype of one of theirs.
    pub alignment: u32,
}

/// One launch of a kernel. The grid is one-dimensional on both GPUs.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The kernel.
    pub entry: Entry,
    /// Its parameters. On Metal they are bound as bytes at the slot behind the last binding; on CUDA they are the
    /// argument behind the last pointer, by value.
    pub params: Params,
    /// Its buffers, by slot.
    pub bindings: ArrayVec<Binding, MAX_BINDINGS>,
    /// Groups (threadgroups, blocks) of the grid; at least one.
    pub groups: u32,
    /// Threads per group: a multiple of 32. Group memory is declared in the kernels: the host gives none.
    pub threads: u32,
    /// Bit i: this dispatch touches what dispatch i of the same program writes, or writes what that reads. A barrier
    /// lies between them.
    pub after: u16,
}

/// A kernel: a function of a source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Where it is written.
    pub file: File,
    /// For which dtype, the operation's own: one of those that its source was assembled for.
    pub dtype: DType,
    /// Its name there.
    pub name: &'static str,
}

/// Memory that a dispatch reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// What the kernel does with it.
    pub access: Access,
    /// The memory. Empty where a kernel has a slot that this launch does not use: then any buffer will do.
    pub memory: Memory,
}

/// A range of bytes. The kernel is given the address of its start, and touches nothing outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Whose.
    pub place: Place,
    /// The first byte, from the start of the place on.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// Whose memory a binding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// An input of the operation, in the order of `Op::operands`.
    Input(u8),
    /// An output of the operation.
    Output(u8),
    /// The program's workspace.
    Workspace,
}

/// What a kernel does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only reads.
    Read,
    /// Only writes.
    Write,
    /// Reads, then writes.
    ReadWrite,
}

/// The bytes of a kernel's parameter structure.
#[derive(Clone, Copy)]
pub struct Params {
    len: u16,
    bytes: [u8; MAX_PARAM_BYTES],
}

impl Params {
    /// The bytes of a `#[repr(C)]` structure that equals the kernel's.
    pub(crate) fn new<T: NoUninit>(params: &T) -> Self {
        let from = bytemuck::bytes_of(params);
        let mut bytes = [0; MAX_PARAM_BYTES];
        bytes[..from.len()].copy_from_slice(from);
        Params { len: from.len() as u16, bytes }
    }

    /// What is bound.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Params({} bytes)", self.len)
    }
}

/// What a GPU allows and has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GpuLimits {
    /// The most threads of a group, at least 256: 1024 on every Apple GPU since A11 and on every NVIDIA GPU.
    pub threads_per_group: u32,
    /// Cores, streaming multiprocessors: how many groups run at once at least. It decides how finely work is cut.
    pub cores: u32,
}

impl GpuLimits {
    /// An Apple GPU with so many cores.
    pub const fn apple(cores: u32) -> Self {
        GpuLimits { threads_per_group: 1024, cores }
    }

    /// An NVIDIA GPU with so many multiprocessors.
    pub const fn nvidia(cores: u32) -> Self {
        GpuLimits { threads_per_group: 1024, cores }
    }
}

/// What is known of the operands' addresses before they are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alignment {
    /// Each is a multiple of its element's size.
    Element,
    /// Each is a multiple of 16 bytes: kernels may load and store 16 bytes at once.
    Sixteen,
}

impl Memory {
    /// The whole of a place of so many bytes.
    pub(crate) const fn whole(place: Place, bytes: u64) -> Self {
        Memory { place, offset: 0, bytes }
    }

    /// For a slot that a launch does not use: a buffer that is there anyway.
    pub(crate) const fn unused(self) -> Self {
        Memory { bytes: 0, ..self }
    }

    pub(crate) const fn read(self) -> Binding {
        Binding { access: Access::Read, memory: self }
    }

    pub(crate) const fn write(self) -> Binding {
        Binding { access: Access::Write, memory: self }
    }

    /// Written, and read before where the result is added to what was there.
    pub(crate) const fn update(self, accumulates: bool) -> Binding {
        Binding { access: if accumulates { Access::ReadWrite } else { Access::Write }, memory: self }
    }

    fn overlaps(&self, other: &Memory) -> bool {
        self.place == other.place && self.offset < other.offset + other.bytes && other.offset < self.offset + self.bytes
    }
}

impl Dispatch {
    fn must_follow(&self, earlier: &Dispatch) -> bool {
        let meet = |a: &Binding, b: &Binding| {
            (a.access != Access::Read || b.access != Access::Read) && a.memory.overlaps(&b.memory)
        };
        self.bindings.iter().any(|mine| earlier.bindings.iter().any(|theirs| meet(mine, theirs)))
    }
}

impl Program {
    pub(crate) fn new(variant: &'static str, dtype: DType) -> Self {
        Program { variant, dispatches: ArrayVec::new(), workspace_bytes: 0, alignment: dtype.bytes() as u32 }
    }

    /// Adds a launch of `threads` threads in each of `groups` groups; none where there is nothing to do.
    /// `None` where the grid is larger than a GPU takes.
    pub(crate) fn launch<const N: usize>(
        &mut self,
        kernel: Kernel,
        params: &impl NoUninit,
        bindings: [Binding; N],
        groups: u64,
        threads: u32,
    ) -> Option<()> {
        if groups == 0 {
            return Some(());
        }
        let groups = u32::try_from(groups).ok().filter(|&groups| groups <= MAX_GROUPS)?;
        if kernel.wide {
            self.alignment = 16;
        }
        let entry = Entry { file: kernel.file, dtype: kernel.dtype, name: kernel.name() };
        let bindings = bindings.into_iter().collect();
        let mut dispatch = Dispatch { entry, params: Params::new(params), bindings, groups, threads, after: 0 };
        for (i, earlier) in self.dispatches.iter().enumerate() {
            dispatch.after |= u16::from(dispatch.must_follow(earlier)) << i;
        }
        self.dispatches.try_push(dispatch).ok()
    }

    /// Reserves workspace.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Memory {
        let offset = self.workspace_bytes;
        // A region starts where 16-byte accesses may start, and no two share a cache line.
        self.workspace_bytes = (offset + bytes).next_multiple_of(256);
        Memory { place: Place::Workspace, offset, bytes }
    }
}

/// The largest grid along x of CUDA; Metal takes more.
const MAX_GROUPS: u32 = i32::MAX as u32;

/// A kernel by its name without the dtype.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    pub(crate) file: File,
    /// With each suffix: by dtype, then without and with 16-byte accesses.
    pub(crate) names: &'static [&'static str; 6],
    pub(crate) dtype: DType,
    /// 16-byte accesses.
    pub(crate) wide: bool,
}

impl Kernel {
    fn name(&self) -> &'static str {
        let dtype = match self.dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::BF16 => 2,
            DType::U32 | DType::U8 => unreachable!("operations compute with floats: `Op::operands` was asked"),
        };
        self.names[2 * dtype + usize::from(self.wide)]
    }
}

/// A kernel's names for every dtype, without and with 16-byte accesses: strings are made here, not per operation.
macro_rules! names {
    ($($name:literal),+) => {
        &[
            concat!($($name),+, "_f32"),
            concat!($($name),+, "_f32_wide"),
            concat!($($name),+, "_f16"),
            concat!($($name),+, "_f16_wide"),
            concat!($($name),+, "_bf16"),
            concat!($($name),+, "_bf16_wide"),
        ]
    };
}
pub(crate) use names;

/// A parameter structure that equals a kernel's, with what a test needs to see that it does.
macro_rules! params {
    ($(#[$attribute:meta])* struct $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$attribute])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::NoUninit)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        #[cfg(test)]
        impl $crate::program::Layout for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [(&'static str, &'static str, usize)] =
                &[$((stringify!($field), stringify!($type), std::mem::offset_of!($name, $field))),*];
        }
    };
}
pub(crate) use params;

/// Names, types and offsets of a structure's fields.
#[cfg(test)]
pub(crate) trait Layout: Sized {
    const NAME: &'static str;
    const FIELDS: &'static [(&'static str, &'static str, usize)];
}

/// A size as kernels take it: below 2^31, so that sums of two do not overflow.
pub(crate) fn size(size: usize) -> Option<u32> {
    u32::try_from(size).ok().filter(|&size| size <= i32::MAX as u32)
}

/// Elements from the first to the last of `rows` rows, `row` elements apart.
pub(crate) fn span(rows: usize, row: usize, cols: usize) -> u64 {
    if rows == 0 || cols == 0 { 0 } else { (rows as u64 - 1) * row as u64 + cols as u64 }
}
