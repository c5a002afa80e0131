//! A launch: what is bound, how many threads, and what came of it.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ops::Range;

use crate::abi;
use crate::fault::{Fault, Memory, Remedy, Thread};
use crate::library::{ArgumentKind, Function};

/// How many slots a compute function has for buffers, and for threadgroup memory.
pub const SLOTS: usize = 31;

/// Memory that a launch may touch: a whole buffer, or the bytes of `setBytes`.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// The caller's number for it; two bindings of one region have the same.
    pub id: u64,
    /// Where it starts.
    pub address: *mut u8,
    /// Its length in bytes.
    pub length: usize,
}

/// What a slot is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The memory.
    pub region: Region,
    /// Where in it the argument points.
    pub offset: usize,
}

/// A dispatch of threads.
pub struct Launch<'a> {
    /// The values of function constants by their indices; those left out are not defined.
    pub constants: &'a HashMap<u32, Vec<u8>>,
    /// The buffers by their slots.
    pub buffers: [Option<Binding>; SLOTS],
    /// The lengths of threadgroup memory by their slots.
    pub threadgroup_bytes: [usize; SLOTS],
    /// The size of the grid in threads.
    pub threads_per_grid: [u32; 3],
    /// The size of a threadgroup; those at the end of the grid may be smaller.
    pub threads_per_threadgroup: [u32; 3],
    /// 0: threadgroups and threads run in their natural order. Else they run in an order drawn from this number.
    pub seed: u64,
}

/// What a launch touched in a region: bytes from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionAccess {
    /// The region's number.
    pub region: u64,
    /// What was read.
    pub reads: Vec<Range<usize>>,
    /// What was written.
    pub writes: Vec<Range<usize>>,
    /// What atomic operations worked on; they are in none of the other two.
    pub atomics: Vec<Range<usize>>,
}

/// What came of a launch.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// For each region that was touched, exactly the bytes.
    pub accesses: Vec<RegionAccess>,
    /// What is wrong with the kernel. The launch did not finish if this holds an access out of bounds, an argument that
    /// is not bound, a deadlock or a stack overflow.
    pub faults: Vec<Fault>,
}

/// Runs a kernel.
///
/// # Safety
///
/// The regions must be valid for reads, and for writes where an argument's type allows them, and no other thread may
/// use the bytes that the kernel writes.
///
/// # Panics
///
/// If a threadgroup has no or more than 1024 threads.
pub unsafe fn run(function: &Function, launch: &Launch<'_>) -> Outcome {
    let threads = launch.threads_per_threadgroup.iter().map(|size| *size as usize).product::<usize>();
    assert!((1..=1024).contains(&threads), "a threadgroup has 1 to 1024 threads, not {threads}");
    if launch.threads_per_grid.contains(&0) {
        return Outcome::default();
    }
    let memories = Memories::new(function, launch);
    let constants: Vec<_> = launch
        .constants
        .iter()
        .map(|(index, value)| abi::ConstantValue {
            index: *index,
            bytes: value.as_ptr().cast(),
            size: value.len() as u64,
        })
        .collect();
    let mut collected = Collected { memories: &memories, accesses: Vec::new() };
    let nobody = abi::Thread { threadgroup: [0; 3], index: 0 };
    let mut raw = abi::Launch {
        kernel: function.raw(),
        memories: memories.raw.as_ptr(),
        memory_count: memories.raw.len() as u64,
        buffers: memories.buffers,
        threadgroup: memories.threadgroup,
        constants: constants.as_ptr(),
        constant_count: constants.len() as u64,
        threadgroup_variables: function.threadgroup_variables(),
        threads_per_grid: launch.threads_per_grid,
        threads_per_threadgroup: launch.threads_per_threadgroup,
        seed: launch.seed,
        context: (&raw mut collected).cast(),
        accessed,
        fault_count: 0,
        faults: [abi::Fault {
            kind: 0,
            memory: abi::UNKNOWN,
            offset: 0,
            bytes: 0,
            code: std::ptr::null(),
            first: nobody,
            second: nobody,
            first_wrote: 0,
            second_wrote: 0,
            remedy: 0,
            slot: 0,
            returned: 0,
            lanes: 0,
        }; abi::MAX_FAULTS],
    };
    // SAFETY: the caller vouches for the regions; all else is borrowed from this frame.
    unsafe { function.launch(&mut raw) };
    let mut faults = Vec::new();
    for fault in &raw.faults[..raw.fault_count as usize] {
        add_fault(&mut faults, memories.fault(function, fault));
    }
    Outcome { accesses: collected.accesses, faults }
}

/// One race for each line and memory: an access may be several instructions.
fn add_fault(faults: &mut Vec<Fault>, new: Fault) {
    if let Fault::Race { line: Some(new_line), memory: new_memory, bytes: new_bytes, .. } = &new {
        for fault in faults.iter_mut() {
            match fault {
                Fault::Race { line: Some(line), memory, bytes, .. } if line == new_line && memory == new_memory => {
                    *bytes = bytes.start.min(new_bytes.start)..bytes.end.max(new_bytes.end);
                    return;
                }
                _ => {}
            }
        }
    }
    faults.push(new);
}

/// What a launch can touch, in the form of the library.
struct Memories {
    raw: Vec<abi::Memory>,
    names: Vec<Memory>,
    buffers: [*mut c_void; SLOTS],
    threadgroup: [*mut c_void; SLOTS],
    // Threadgroup memory of the kernel's arguments: `raw` and `threadgroup` point into it.
    _owned: Vec<Vec<u128>>,
}

impl Memories {
    fn new(function: &Function, launch: &Launch<'_>) -> Self {
        let mut memories = Memories {
            raw: Vec::new(),
            names: Vec::new(),
            buffers: [std::ptr::null_mut(); SLOTS],
            threadgroup: [std::ptr::null_mut(); SLOTS],
            _owned: Vec::new(),
        };
        for argument in function.arguments() {
            let slot = argument.index as usize;
            match argument.kind {
                ArgumentKind::Buffer => {
                    if let Some(binding) = launch.buffers.get(slot).copied().flatten() {
                        memories.bind(slot, binding);
                    }
                }
                ArgumentKind::Threadgroup => {
                    let length = launch.threadgroup_bytes.get(slot).copied().unwrap_or(0);
                    memories.allocate(slot, length, &argument.name);
                }
            }
        }
        for variable in function.variables() {
            memories.add(
                abi::THREADGROUP,
                variable.address,
                variable.length,
                Memory::Threadgroup(variable.name.clone()),
            );
        }
        memories
    }

    fn add(&mut self, kind: u32, address: *mut u8, length: usize, name: Memory) {
        self.raw.push(abi::Memory { kind, address, length: length as u64 });
        self.names.push(name);
    }

    fn bind(&mut self, slot: usize, binding: Binding) {
        let Region { id, address, length } = binding.region;
        self.buffers[slot] = address.wrapping_add(binding.offset).cast();
        let known = self.names.iter().any(|name| matches!(name, Memory::Buffer { region, .. } if *region == id));
        if !known {
            self.add(abi::BUFFER, address, length, Memory::Buffer { region: id, slot: slot as u32 });
        }
    }

    fn allocate(&mut self, slot: usize, length: usize, name: &str) {
        if length == 0 {
            return;
        }
        let mut words = vec![0u128; length.div_ceil(size_of::<u128>())];
        let address: *mut u8 = words.as_mut_ptr().cast();
        self.threadgroup[slot] = address.cast();
        self._owned.push(words);
        self.add(abi::THREADGROUP, address, length, Memory::Threadgroup(name.to_owned()));
    }

    fn fault(&self, function: &Function, fault: &abi::Fault) -> Fault {
        let kernel = function.name().to_owned();
        let line = function.line(fault.code);
        let memory = self.names.get(fault.memory as usize).cloned();
        let length = self.raw.get(fault.memory as usize).map_or(0, |memory| memory.length as usize);
        let thread = thread(&fault.second);
        let threadgroup = fault.second.threadgroup;
        match fault.kind {
            abi::fault::OUT_OF_BOUNDS => Fault::OutOfBounds {
                kernel,
                line,
                memory,
                length,
                offset: fault.offset,
                bytes: fault.bytes as usize,
                write: fault.second_wrote != 0,
                thread,
            },
            abi::fault::NOT_BOUND => {
                let kind = if fault.memory == 0 { ArgumentKind::Buffer } else { ArgumentKind::Threadgroup };
                let argument = function.arguments().iter().find(|a| a.kind == kind && a.index == fault.slot);
                let argument = argument.map_or(String::new(), |argument| argument.name.clone());
                Fault::NotBound { kernel, line, argument, slot: fault.slot, thread }
            }
            abi::fault::RACE => Fault::Race {
                kernel,
                line,
                memory: memory.unwrap_or(Memory::Threadgroup(String::new())),
                bytes: fault.offset as usize..fault.offset as usize + fault.bytes as usize,
                first: self::thread(&fault.first),
                first_wrote: fault.first_wrote != 0,
                second: thread,
                second_wrote: fault.second_wrote != 0,
                remedy: match fault.remedy {
                    abi::remedy::THREADGROUP_BARRIER => Remedy::ThreadgroupBarrier,
                    abi::remedy::SIMDGROUP_BARRIER => Remedy::SimdgroupBarrier,
                    _ => Remedy::Split,
                },
            },
            abi::fault::DIVERGENT_BARRIER => Fault::DivergentBarrier {
                kernel,
                line,
                threadgroup,
                waiting: fault.bytes as u32,
                returned: fault.returned,
                threads: fault.lanes,
            },
            abi::fault::DEADLOCK => Fault::Deadlock { kernel, line, threadgroup },
            _ => Fault::StackOverflow { kernel, line, thread },
        }
    }
}

fn thread(raw: &abi::Thread) -> Thread {
    Thread {
        threadgroup: (raw.threadgroup[0] != abi::UNKNOWN).then_some(raw.threadgroup),
        index: (raw.index != abi::UNKNOWN).then_some(raw.index),
    }
}

/// What the library reports while a launch ends.
struct Collected<'a> {
    memories: &'a Memories,
    accesses: Vec<RegionAccess>,
}

extern "C" fn accessed(context: *mut c_void, memory: u32, usage: u32, start: u64, end: u64) {
    // SAFETY: `run` passed a pointer to its `Collected`, which nothing else uses during the launch.
    let collected = unsafe { &mut *context.cast::<Collected<'_>>() };
    let Some(Memory::Buffer { region, .. }) = collected.memories.names.get(memory as usize) else { return };
    if collected.accesses.last().is_none_or(|access| access.region != *region) {
        let access = RegionAccess { region: *region, reads: Vec::new(), writes: Vec::new(), atomics: Vec::new() };
        collected.accesses.push(access);
    }
    let Some(access) = collected.accesses.last_mut() else { return };
    let ranges = match usage {
        abi::READ => &mut access.reads,
        abi::WRITE => &mut access.writes,
        _ => &mut access.atomics,
    };
    ranges.push(start as usize..end as usize);
}
