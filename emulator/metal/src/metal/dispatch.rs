//! What a dispatch becomes: checked against the kernel's signature, then a command that launches it.

use std::sync::{Arc, Weak};

use emulator_msl::{Access, ArgumentKind, Binding, Fault, Launch, Region};
use objc2_metal::MTLSize;

use super::compute_encoder::SLOTS;
use super::device::{MAX_THREADGROUP_BYTES, SIMD_WIDTH};
use super::pipeline::Kernel;
use crate::gpu::memory::Memory;
use crate::gpu::scheduler;
use crate::gpu::work::{Bound, Done, Touched, Usage, Work};
use crate::report::{Report, Rule};

/// What is bound to a slot.
#[derive(Clone)]
pub(crate) enum Argument {
    /// A buffer from an offset on.
    Buffer { memory: Arc<Memory>, offset: usize },
    /// Bytes copied by `setBytes`, 16-byte aligned as the constant address space is.
    Bytes { words: Arc<[u128]>, length: usize },
}

impl Argument {
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        let mut words = vec![0u128; bytes.len().div_ceil(16)];
        // SAFETY: the words have room for the bytes, and any bytes are a valid u128.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), words.as_mut_ptr().cast::<u8>(), bytes.len()) };
        Argument::Bytes { words: words.into(), length: bytes.len() }
    }
}

/// How many threads.
pub(crate) enum Grid {
    /// Whole threadgroups.
    Threadgroups(MTLSize),
    /// Threads; the last threadgroups may be smaller.
    Threads(MTLSize),
    /// Threadgroups, three 32-bit numbers in a buffer, read when the dispatch runs.
    Indirect(Arc<Memory>, usize),
}

/// What a compute encoder has set.
#[derive(Clone)]
pub(crate) struct Bindings {
    pub(crate) kernel: Option<Arc<Kernel>>,
    pub(crate) buffers: [Option<Argument>; SLOTS],
    pub(crate) threadgroup: [usize; SLOTS],
}

impl Default for Bindings {
    fn default() -> Self {
        Bindings { kernel: None, buffers: [const { None }; SLOTS], threadgroup: [0; SLOTS] }
    }
}

/// The kernel of a command: kept alive, or not where the command buffer keeps no references.
enum KernelHandle {
    Retained(Arc<Kernel>),
    Unretained(Weak<Kernel>),
}

impl Bindings {
    /// The command for a dispatch with what is bound now, or what Metal's validation says against it.
    pub(crate) fn dispatch(&self, grid: Grid, threads: MTLSize, retained: bool, label: &str) -> Result<Work, String> {
        let kernel = self.kernel.clone().ok_or("no compute pipeline state is set")?;
        let name = kernel.function.name().to_owned();
        check_sizes(&kernel, &grid, threads)?;
        let mut bound = Vec::new();
        let mut slots: [Option<Slot>; SLOTS] = [const { None }; SLOTS];
        for argument in kernel.function.arguments().iter().filter(|argument| argument.kind == ArgumentKind::Buffer) {
            let index = argument.index as usize;
            match &self.buffers[index] {
                Some(Argument::Buffer { memory, offset }) => {
                    check_alignment(argument, *offset, memory)?;
                    let usage = if argument.access == Access::Read { Usage::Read } else { Usage::Write };
                    slots[index] = Some(Slot::Buffer(bound.len(), *offset));
                    bound.push(Bound::new(memory, usage, retained));
                }
                Some(Argument::Bytes { words, length }) => slots[index] = Some(Slot::Bytes(words.clone(), *length)),
                // Metal asks for it if the compiled kernel uses it: the run will tell.
                None => {}
            }
        }
        self.check_threadgroup_memory(&kernel)?;
        let grid = match grid {
            Grid::Threadgroups(size) => {
                Extent::Threads(std::array::from_fn(|d| dimension(size, d) * dimension(threads, d)))
            }
            Grid::Threads(size) => Extent::Threads(std::array::from_fn(|d| dimension(size, d))),
            Grid::Indirect(memory, offset) => {
                bound.push(Bound::new(&memory, Usage::Read, retained));
                Extent::Indirect(bound.len() - 1, offset)
            }
        };
        let handle =
            if retained { KernelHandle::Retained(kernel) } else { KernelHandle::Unretained(Arc::downgrade(&kernel)) };
        let command = Command {
            name: name.clone(),
            kernel: handle,
            slots,
            threadgroup: self.threadgroup,
            grid,
            threads: std::array::from_fn(|d| dimension(threads, d)),
        };
        let place = if label.is_empty() { String::new() } else { format!(" of encoder '{label}'") };
        Ok(Work {
            name: format!("kernel `{name}`{place}"),
            bound,
            run: Box::new(move |memories| command.run(memories)),
        })
    }

    fn check_threadgroup_memory(&self, kernel: &Kernel) -> Result<(), String> {
        let arguments =
            kernel.function.arguments().iter().filter(|argument| argument.kind == ArgumentKind::Threadgroup);
        let mut total = kernel.function.static_threadgroup_bytes();
        for argument in arguments {
            let length = self.threadgroup[argument.index as usize];
            if length == 0 && !argument.optional {
                let name = kernel.function.name();
                return Err(format!(
                    "kernel {name}: no threadgroup memory length is set at index {} for {}",
                    argument.index, argument.name
                ));
            }
            total += length;
        }
        if total > MAX_THREADGROUP_BYTES {
            return Err(format!(
                "threadgroup memory ({total} bytes, static ones included) exceeds {MAX_THREADGROUP_BYTES}"
            ));
        }
        Ok(())
    }
}

fn dimension(size: MTLSize, d: usize) -> u32 {
    [size.width, size.height, size.depth][d] as u32
}

fn check_sizes(kernel: &Kernel, grid: &Grid, threads: MTLSize) -> Result<(), String> {
    let group = threads.width * threads.height * threads.depth;
    let show = |size: MTLSize| format!("({}, {}, {})", size.width, size.height, size.depth);
    if group == 0 {
        return Err(format!("threadsPerThreadgroup {} must not be zero", show(threads)));
    }
    if group > kernel.max_threads {
        return Err(format!(
            "threadsPerThreadgroup {} = {group} must be <= {}, the pipeline's maxTotalThreadsPerThreadgroup",
            show(threads),
            kernel.max_threads
        ));
    }
    if kernel.whole_simd_groups && !group.is_multiple_of(SIMD_WIDTH) {
        return Err(format!(
            "threadsPerThreadgroup {} = {group} is no multiple of {SIMD_WIDTH}, as the pipeline was promised",
            show(threads)
        ));
    }
    if let Grid::Threadgroups(size) | Grid::Threads(size) = grid
        && size.width * size.height * size.depth == 0
    {
        return Err(format!("the grid {} must not be empty", show(*size)));
    }
    Ok(())
}

/// Metal feature set tables: a constant buffer's offset is a multiple of 4 on Apple GPUs; a pointer's of its element.
fn check_alignment(argument: &emulator_msl::Argument, offset: usize, memory: &Memory) -> Result<(), String> {
    let alignment = argument.alignment.max(1) as usize;
    if !offset.is_multiple_of(alignment) {
        return Err(format!(
            "offset {offset} of {} at index {} is misaligned: {} needs a multiple of {alignment}",
            memory.name(),
            argument.index,
            argument.name
        ));
    }
    Ok(())
}

enum Slot {
    /// An index into the command's memories, and an offset.
    Buffer(usize, usize),
    Bytes(Arc<[u128]>, usize),
}

enum Extent {
    Threads([u32; 3]),
    Indirect(usize, usize),
}

/// A dispatch, ready to run.
struct Command {
    name: String,
    kernel: KernelHandle,
    slots: [Option<Slot>; SLOTS],
    threadgroup: [usize; SLOTS],
    grid: Extent,
    threads: [u32; 3],
}

/// Regions of `setBytes` data have numbers that no memory has.
const BYTES_REGION: u64 = 1 << 63;

impl Command {
    fn run(self, memories: &[Arc<Memory>]) -> Done {
        let kernel = match self.kernel {
            KernelHandle::Retained(kernel) => kernel,
            KernelHandle::Unretained(kernel) => match kernel.upgrade() {
                Some(kernel) => kernel,
                None => {
                    let text = format!(
                        "kernel `{}`: its pipeline state was freed before the command buffer completed",
                        self.name
                    );
                    return Done { reports: vec![Report::new(Rule::FreedResource, text)], ..Done::default() };
                }
            },
        };
        let mut touched = Vec::new();
        let threads_per_grid = match self.grid {
            Extent::Threads(threads) => threads,
            Extent::Indirect(bound, offset) => {
                touched.push(Touched {
                    bound,
                    reads: std::iter::once(offset..offset + 12).collect(),
                    ..Touched::default()
                });
                // SAFETY: twelve bytes at this offset were seen to lie inside the memory, aligned to four.
                let groups = unsafe { memories[bound].address().add(offset).cast::<[u32; 3]>().read() };
                std::array::from_fn(|d| groups[d] * self.threads[d])
            }
        };
        if threads_per_grid.contains(&0) {
            return Done { touched, ..Done::default() };
        }
        let buffers = std::array::from_fn(|index| match &self.slots[index] {
            Some(Slot::Buffer(bound, offset)) => {
                let memory = &memories[*bound];
                let region = Region { id: memory.id(), address: memory.address(), length: memory.length() };
                Some(Binding { region, offset: *offset })
            }
            Some(Slot::Bytes(words, length)) => {
                let region = Region {
                    id: BYTES_REGION | index as u64,
                    address: words.as_ptr().cast_mut().cast(),
                    length: *length,
                };
                Some(Binding { region, offset: 0 })
            }
            None => None,
        });
        let launch = Launch {
            constants: &kernel.constants,
            buffers,
            threadgroup_bytes: self.threadgroup,
            threads_per_grid,
            threads_per_threadgroup: self.threads,
            seed: scheduler::launch_seed(),
        };
        // SAFETY: every region lives as long as `memories` and `self.slots`, which outlive the call.
        let outcome = unsafe { emulator_msl::run(&kernel.function, &launch) };
        for access in outcome.accesses {
            if access.region & BYTES_REGION != 0 {
                continue;
            }
            let Some(bound) = memories.iter().position(|memory| memory.id() == access.region) else { continue };
            touched.push(Touched { bound, reads: access.reads, writes: access.writes, atomics: access.atomics });
        }
        let name = |region: u64| match memories.iter().find(|memory| memory.id() == region) {
            Some(memory) => memory.name(),
            None => format!("the bytes at index {}", region & !BYTES_REGION),
        };
        let reports = outcome.faults.iter().map(|fault| Report::new(rule_of(fault), fault.describe(&name))).collect();
        Done { touched, reports }
    }
}

fn rule_of(fault: &Fault) -> Rule {
    match fault {
        Fault::OutOfBounds { .. } => Rule::OutOfBounds,
        Fault::NotBound { .. } => Rule::UnboundBuffer,
        Fault::Race { .. } => Rule::Race,
        Fault::DivergentBarrier { .. } => Rule::DivergentBarrier,
        _ => Rule::Stuck,
    }
}
