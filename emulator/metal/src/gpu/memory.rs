//! The memory behind buffers and heaps: pages of its own, with a guard page on both sides.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::settings;

/// The page size of Apple silicon, which no-copy buffers and heaps are aligned to.
pub const APPLE_PAGE: usize = 16384;

/// What fills the room between the end of a buffer and its guard page, and must still be there when it is freed.
const CANARY: u8 = 0xCA;

static ALIVE: AtomicI64 = AtomicI64::new(0);

/// Bytes that buffers and heaps hold now, in the whole process.
pub fn allocated_bytes() -> u64 {
    ALIVE.load(Ordering::Relaxed).max(0) as u64
}

/// Where a [`Memory`] lies.
enum Place {
    /// Pages of its own: the mapping, guard pages included.
    Own { mapping: *mut u8, mapped: usize },
    /// The caller's pages (no-copy buffers); what frees them.
    Foreign(Option<Box<dyn FnOnce() + Send>>),
    /// A part of a heap, which it keeps alive; what gives the part back.
    Heap(#[expect(dead_code, reason = "keeps the heap's pages alive")] Arc<Memory>, Option<Box<dyn FnOnce() + Send>>),
}

/// A run of bytes that the emulated GPU can reach.
pub struct Memory {
    id: u64,
    /// The allocation whose bytes these are: itself, or the heap it lies in. Hazards are found by (root, offset).
    root: u64,
    root_offset: usize,
    address: *mut u8,
    length: usize,
    tracked: bool,
    label: Mutex<String>,
    /// One flag per command buffer that writes it: whether the host knows that it completed.
    writers: Mutex<Vec<Arc<AtomicBool>>>,
    place: Place,
}

// SAFETY: the bytes are shared between host and GPU threads as Metal's are; ordering them is the program's duty, and
// what the emulator is there to check. All other fields are immutable or behind a lock.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

type ByAddress = BTreeMap<usize, Weak<Memory>>;

/// Every living buffer and heap, by its first byte; not the parts of heaps.
fn by_address() -> MutexGuard<'static, ByAddress> {
    static LIVING: Mutex<ByAddress> = Mutex::new(BTreeMap::new());
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Memory {
    /// Fresh pages, filled as the settings say (NaN unless asked otherwise). `None` when the system has none.
    pub fn allocate(length: usize, tracked: bool) -> Option<Arc<Memory>> {
        let body = length.max(1).next_multiple_of(page());
        let mapped = body + 2 * page();
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory in use.
        let mapping = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0)
        };
        if mapping == libc::MAP_FAILED {
            return None;
        }
        let mapping = mapping.cast::<u8>();
        // SAFETY: the body lies inside the mapping, one page from either end.
        let address = unsafe {
            let address = mapping.add(page());
            if libc::mprotect(address.cast(), body, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                libc::munmap(mapping.cast(), mapped);
                return None;
            }
            let fill = settings::current().fill.byte();
            if fill != 0 {
                std::ptr::write_bytes(address, fill, length);
            }
            std::ptr::write_bytes(address.add(length), CANARY, body - length);
            address
        };
        let id = next_id();
        ALIVE.fetch_add(length as i64, Ordering::Relaxed);
        let place = Place::Own { mapping, mapped };
        Some(Memory::known(Memory {
            id,
            root: id,
            root_offset: 0,
            address,
            length,
            tracked,
            label: Mutex::default(),
            writers: Mutex::default(),
            place,
        }))
    }

    /// The caller's own pages.
    ///
    /// # Safety
    /// `address` is valid for reads and writes of `length` bytes until `free` has been called.
    pub unsafe fn foreign(
        address: *mut u8,
        length: usize,
        tracked: bool,
        free: Option<Box<dyn FnOnce() + Send>>,
    ) -> Arc<Memory> {
        let id = next_id();
        let place = Place::Foreign(free);
        Memory::known(Memory {
            id,
            root: id,
            root_offset: 0,
            address,
            length,
            tracked,
            label: Mutex::default(),
            writers: Mutex::default(),
            place,
        })
    }

    /// Lets [`Memory::at`] find it.
    fn known(memory: Memory) -> Arc<Memory> {
        let memory = Arc::new(memory);
        by_address().insert(memory.address.addr(), Arc::downgrade(&memory));
        memory
    }

    /// The buffer or heap whose bytes these are.
    pub fn at(address: *const u8) -> Option<Arc<Memory>> {
        let memory = by_address().range(..=address.addr()).next_back()?.1.upgrade()?;
        (address.addr() < memory.address.addr() + memory.length).then_some(memory)
    }

    /// A part of a heap; refused when it does not fit. `free` gives it back.
    pub fn part(
        heap: &Arc<Memory>,
        range: Range<usize>,
        tracked: bool,
        free: Option<Box<dyn FnOnce() + Send>>,
    ) -> Option<Arc<Memory>> {
        if range.end > heap.length {
            return None;
        }
        Some(Arc::new(Memory {
            id: next_id(),
            root: heap.root,
            root_offset: heap.root_offset + range.start,
            // SAFETY: the range was just seen to lie inside the heap.
            address: unsafe { heap.address.add(range.start) },
            length: range.len(),
            tracked,
            label: Mutex::default(),
            writers: Mutex::default(),
            place: Place::Heap(heap.clone(), free),
        }))
    }

    /// Unlike that of any other memory of this process, living or freed.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The allocation these bytes belong to, and where in it they start.
    pub fn root(&self) -> (u64, usize) {
        (self.root, self.root_offset)
    }

    /// The first byte.
    pub fn address(&self) -> *mut u8 {
        self.address
    }

    /// Bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether Metal orders passes by their use of it (`MTLHazardTrackingMode`).
    pub fn tracked(&self) -> bool {
        self.tracked
    }

    /// Its label, or its number where it has none.
    pub fn name(&self) -> String {
        let label = self.label.lock().unwrap();
        if label.is_empty() { format!("buffer #{}", self.id) } else { format!("buffer '{label}'") }
    }

    /// The label set by the program.
    pub fn label(&self) -> String {
        self.label.lock().unwrap().clone()
    }

    /// Names it in reports.
    pub fn set_label(&self, label: String) {
        *self.label.lock().unwrap() = label;
    }

    /// A command buffer that was committed writes it; `observed` is set once the host knows that it completed.
    pub fn note_writer(&self, observed: &Arc<AtomicBool>) {
        let mut writers = self.writers.lock().unwrap();
        writers.retain(|writer| !writer.load(Ordering::Acquire));
        if !writers.iter().any(|writer| Arc::ptr_eq(writer, observed)) {
            writers.push(observed.clone());
        }
    }

    /// Whether a committed command buffer writes it which the host has not waited for.
    pub fn has_unseen_writer(&self) -> bool {
        self.writers.lock().unwrap().iter().any(|writer| !writer.load(Ordering::Acquire))
    }

    /// Whether something wrote between the end of the buffer and its guard page.
    pub fn overrun(&self) -> bool {
        let Place::Own { mapped, .. } = self.place else { return false };
        let slack = mapped - 2 * page() - self.length;
        // SAFETY: the slack lies between the end of the buffer and the end of its last page, which is mapped.
        unsafe { std::slice::from_raw_parts(self.address.add(self.length), slack) }.iter().any(|byte| *byte != CANARY)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !matches!(self.place, Place::Heap(..)) {
            by_address().remove(&self.address.addr());
        }
        match &mut self.place {
            Place::Own { mapping, mapped } => {
                ALIVE.fetch_sub(self.length as i64, Ordering::Relaxed);
                // SAFETY: made by `allocate` with this length, and nothing refers to it any more.
                unsafe { libc::munmap(mapping.cast(), *mapped) };
            }
            Place::Foreign(free) | Place::Heap(_, free) => {
                if let Some(free) = free.take() {
                    free();
                }
            }
        }
    }
}

fn page() -> usize {
    static PAGE: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    // SAFETY: a query without arguments in memory.
    *PAGE.get_or_init(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize)
}
