//! What the streams of a device share: memory, compiled kernels, and what was dropped while work was pending.

use crate::runtime::arena::{Arena, Part};
use crate::runtime::completion::Progress;
use crate::runtime::graveyard::{Dropped, Graveyard};
use crate::runtime::objects::{MetalDevice, Pipeline, ResidencySet, Sendable};
use crate::runtime::pipeline::{Entry, Pipelines};
use candlewick_core::Result;
use candlewick_core::cache::CacheCounters;
use candlewick_kernels::GpuLimits;
use objc2::rc::Retained;
use std::any::Any;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// One Metal device as this process uses it.
pub(crate) struct Shared {
    id: u64,
    metal: Sendable<Retained<MetalDevice>>,
    residency: Option<Sendable<Retained<ResidencySet>>>,
    pub(crate) gpu: GpuLimits,
    newer: Newer,
    /// Why the tensor operations cannot be used after all.
    no_tensors: OnceLock<String>,
    heap: Mutex<Heap>,
    pipelines: Mutex<Pipelines>,
    /// Raised when a block of memory goes back to the system: objects that refer to it keep it alive until then.
    generation: AtomicU64,
    /// Whether MPS reads C where beta is 0; asked once.
    pub(crate) mps_reads_c: OnceLock<bool>,
}

/// Engines that not every system and GPU has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newer {
    /// `metal/mps-ndarray`.
    pub(crate) ndarray: bool,
    /// `metal/tensor`.
    pub(crate) tensor: bool,
}

struct Heap {
    arena: Arena,
    graveyard: Graveyard,
}

impl Shared {
    pub(crate) fn new(
        metal: Sendable<Retained<MetalDevice>>,
        residency: Option<Sendable<Retained<ResidencySet>>>,
        arena: Arena,
        gpu: GpuLimits,
        newer: Newer,
    ) -> Self {
        static DEVICES: AtomicU64 = AtomicU64::new(0);
        Shared {
            id: DEVICES.fetch_add(1, Ordering::Relaxed),
            metal,
            residency,
            gpu,
            newer,
            no_tensors: OnceLock::new(),
            heap: Mutex::new(Heap { arena, graveyard: Graveyard::default() }),
            pipelines: Mutex::new(Pipelines::new()),
            generation: AtomicU64::new(0),
            mps_reads_c: OnceLock::new(),
        }
    }

    /// Tells devices of one process apart.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn metal(&self) -> &MetalDevice {
        &self.metal
    }

    pub(crate) fn residency(&self) -> Option<&ResidencySet> {
        self.residency.as_ref().map(|set| &***set)
    }

    /// Engines that this system has, as far as is known by now.
    pub(crate) fn newer(&self) -> Newer {
        Newer { tensor: self.newer.tensor && self.no_tensors.get().is_none(), ..self.newer }
    }

    /// The tensor operations turned out not to work: they are not offered from now on.
    pub(crate) fn give_up_tensors(&self, why: String) {
        // The first reason stays.
        let _ = self.no_tensors.set(why);
    }

    /// Why the tensor operations, which the system should have, are not offered.
    pub(crate) fn no_tensors(&self) -> Option<&str> {
        self.no_tensors.get().map(String::as_str)
    }

    /// Changes whenever objects that refer to memory should be let go.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Objects that refer to memory should be let go.
    pub(crate) fn raise_generation(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Memory of at least `bytes`. It may hold anything.
    ///
    /// # Errors
    /// [`candlewick_core::Error::OutOfMemory`].
    pub(crate) fn memory(self: &Arc<Self>, bytes: usize) -> Result<Memory> {
        let mut heap = self.heap();
        let objects = self.sweep(&mut heap);
        let part = heap.arena.take(bytes);
        drop(heap);
        drop(objects);
        Ok(Memory { shared: self.clone(), part: ManuallyDrop::new(part?) })
    }

    /// Bytes taken from the system.
    pub(crate) fn bytes(&self) -> usize {
        let mut heap = self.heap();
        let objects = self.sweep(&mut heap);
        let bytes = heap.arena.bytes();
        drop(heap);
        drop(objects);
        bytes
    }

    /// Frees what pending work has let go.
    pub(crate) fn collect(&self) {
        let objects = self.sweep(&mut self.heap());
        drop(objects);
    }

    /// Keeps objects until pending work is done.
    pub(crate) fn bury(&self, objects: Box<dyn Any + Send>) {
        let free = self.heap().graveyard.bury(Dropped::Objects(objects));
        drop(free);
    }

    pub(crate) fn add_stream(&self, stream: Arc<Progress>) {
        self.heap().graveyard.add_stream(stream);
    }

    /// A stream whose work is done.
    pub(crate) fn remove_stream(&self, stream: &Arc<Progress>) {
        self.heap().graveyard.remove_stream(stream);
    }

    /// The pipeline state of a kernel.
    ///
    /// # Errors
    /// What the compiler says.
    pub(crate) fn pipeline(&self, entry: Entry) -> Result<Sendable<Retained<Pipeline>>> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).get(self.metal(), entry)
    }

    pub(crate) fn pipeline_counters(&self) -> CacheCounters {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).counters()
    }

    fn heap(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees what nothing uses any more. Objects are returned, to be dropped outside the lock: they own memory too.
    fn sweep(&self, heap: &mut Heap) -> Vec<Dropped> {
        let mut objects = Vec::new();
        for dropped in heap.graveyard.exhume() {
            match dropped {
                Dropped::Memory(part) => self.free(heap, part),
                Dropped::Objects(_) => objects.push(dropped),
            }
        }
        objects
    }

    fn free(&self, heap: &mut Heap, part: Part) {
        if heap.arena.free(part) {
            self.raise_generation();
        }
    }
}

/// Memory that is given back once nothing uses it.
pub(crate) struct Memory {
    shared: Arc<Shared>,
    part: ManuallyDrop<Part>,
}

impl Memory {
    pub(crate) fn part(&self) -> &Part {
        &self.part
    }

    #[inline]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it is taken once, here, and not used after.
        let part = unsafe { ManuallyDrop::take(&mut self.part) };
        let mut heap = self.shared.heap();
        if let Some(Dropped::Memory(part)) = heap.graveyard.bury(Dropped::Memory(part)) {
            self.shared.free(&mut heap, part);
        }
    }
}
