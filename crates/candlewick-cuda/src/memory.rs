//! What the streams of a device share: memory, compiled kernels, and what was dropped while work was pending.

use crate::chip::Chip;
use crate::cublaslt::Blas;
use crate::device::Options;
use crate::program::Launch;
use crate::runtime::arena::{Arena, Part};
use crate::runtime::completion::{Event, Progress};
use crate::runtime::context::Context;
use crate::runtime::driver::SUCCESS;
use crate::runtime::graveyard::{Dropped, Graveyard, is_recording};
use crate::runtime::modules::{Function, ModuleCounters, Modules};
use candlewick_core::{Error, Result};
use cudarc::driver::sys::{CUstream, CUstream_flags};
use std::any::Any;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One GPU as this process uses it.
pub(crate) struct Shared {
    id: u64,
    pub(crate) context: Context,
    pub(crate) chip: Chip,
    pub(crate) options: Options,
    /// cuBLASLt, or why it is not there.
    pub(crate) blas: std::result::Result<Blas, String>,
    heap: Mutex<Heap>,
    modules: Mutex<Modules>,
    /// Clears new memory.
    housekeeping: Handle,
}

struct Heap {
    arena: Arena,
    graveyard: Graveyard,
}

/// A stream of this library's own.
pub(crate) struct Handle(pub(crate) CUstream);

// SAFETY: a stream's handle is only given back to the driver, whose functions are safe from several threads.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// A new stream that waits for no other.
///
/// # Errors
/// What the driver says.
pub(crate) fn new_stream(context: &Context) -> Result<CUstream> {
    let mut stream = std::ptr::null_mut();
    let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
    // SAFETY: the pointer is valid.
    context.run("cuStreamCreate", |driver| unsafe { (driver.cuStreamCreate)(&mut stream, flags) })?;
    Ok(stream)
}

impl Shared {
    pub(crate) fn new(
        context: Context,
        chip: Chip,
        options: Options,
        blas: std::result::Result<Blas, String>,
        modules: Modules,
    ) -> Result<Self> {
        static DEVICES: AtomicU64 = AtomicU64::new(0);
        let housekeeping = Handle(new_stream(&context)?);
        let arena = Arena::new(options.block_bytes);
        Ok(Shared {
            id: DEVICES.fetch_add(1, Ordering::Relaxed),
            context,
            chip,
            options,
            blas,
            heap: Mutex::new(Heap { arena, graveyard: Graveyard::default() }),
            modules: Mutex::new(modules),
            housekeeping,
        })
    }

    /// Tells devices of one process apart.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Memory of at least `bytes`. It may hold anything.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], after everything that was dropped was waited for.
    pub(crate) fn memory(self: &Arc<Self>, bytes: usize) -> Result<Memory> {
        let mut heap = self.heap();
        let mut objects = self.sweep(&mut heap);
        let mut part = heap.arena.take(&self.context, bytes);
        if matches!(part, Err(Error::OutOfMemory { .. })) && self.let_go(&heap) {
            objects.extend(self.sweep(&mut heap));
            part = heap.arena.take(&self.context, bytes);
        }
        drop(heap);
        drop(objects);
        Ok(Memory { shared: self.clone(), part: ManuallyDrop::new(part?) })
    }

    /// The same, all zero.
    ///
    /// # Errors
    /// As [`Shared::memory`].
    pub(crate) fn zeroed(self: &Arc<Self>, bytes: usize) -> Result<Memory> {
        let memory = self.memory(bytes)?;
        let (Part { address, bytes }, stream, context) = (&*memory.part, self.housekeeping.0, &self.context);
        // SAFETY: the memory is as long, and nothing else uses it yet.
        context.run("cuMemsetD8Async", |driver| unsafe { (driver.cuMemsetD8Async)(*address, 0, *bytes, stream) })?;
        // SAFETY: the stream is valid.
        context.run("cuStreamSynchronize", |driver| unsafe { (driver.cuStreamSynchronize)(stream) })?;
        Ok(memory)
    }

    /// Waits for the streams that use what was dropped. Returns whether there were any.
    fn let_go(&self, heap: &Heap) -> bool {
        let mut any = false;
        // Under the lock of the heap, so that no stream goes away meanwhile.
        for progress in heap.graveyard.awaited() {
            let count = progress.submitted();
            if !progress.is_reachable() || is_recording(&self.context, &progress) || self.context.bind().is_err() {
                continue;
            }
            // SAFETY: the stream is valid: its owner cannot take it out of the graveyard now.
            if unsafe { (self.context.driver.cuStreamSynchronize)(progress.stream()) } == SUCCESS {
                progress.complete(count);
                any = true;
            }
        }
        any
    }

    /// Bytes taken from the driver.
    pub(crate) fn bytes(&self) -> usize {
        self.heap().arena.bytes()
    }

    /// Gives unused blocks back to the driver.
    pub(crate) fn trim(&self) {
        let mut heap = self.heap();
        let objects = self.sweep(&mut heap);
        heap.arena.trim(&self.context);
        drop(heap);
        drop(objects);
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

    pub(crate) fn add_stream(&self, progress: Arc<Progress>, event: Event) {
        self.heap().graveyard.add_stream(progress, event);
    }

    /// A stream whose work is done.
    pub(crate) fn remove_stream(&self, progress: &Arc<Progress>) {
        let event = self.heap().graveyard.remove_stream(progress);
        if let Some(event) = event {
            event.destroy(&self.context);
        }
    }

    /// The kernel of a launch.
    ///
    /// # Errors
    /// What the compiler or the driver says.
    pub(crate) fn function(&self, launch: &Launch) -> Result<Function> {
        self.modules().function(&self.context, launch)
    }

    pub(crate) fn module_counters(&self) -> ModuleCounters {
        self.modules().counters()
    }

    pub(crate) fn nvrtc_version(&self) -> (u32, u32) {
        self.modules().nvrtc_version()
    }

    /// Where compiled kernels are kept.
    pub(crate) fn cache_folder(&self) -> Option<PathBuf> {
        self.modules().disk().map(|disk| disk.folder().to_path_buf())
    }

    fn modules(&self) -> MutexGuard<'_, Modules> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heap(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees what nothing uses any more. Objects are returned, to be dropped outside the lock: they own memory too.
    fn sweep(&self, heap: &mut Heap) -> Vec<Dropped> {
        let mut objects = Vec::new();
        for dropped in heap.graveyard.exhume(&self.context) {
            match dropped {
                Dropped::Memory(part) => heap.arena.free(&self.context, &part),
                Dropped::Objects(_) => objects.push(dropped),
            }
        }
        objects
    }
}

impl Drop for Shared {
    /// Whatever used the device held it: nothing does any more.
    fn drop(&mut self) {
        self.trim();
        self.modules().unload(&self.context);
        let stream = self.housekeeping.0;
        // SAFETY: it is destroyed once, and its work was waited for.
        self.context.try_run(|driver| unsafe { (driver.cuStreamDestroy_v2)(stream) });
    }
}

/// Memory that is given back once nothing uses it.
pub(crate) struct Memory {
    shared: Arc<Shared>,
    part: ManuallyDrop<Part>,
}

impl Memory {
    #[inline]
    pub(crate) fn address(&self) -> u64 {
        self.part.address
    }

    #[inline]
    pub(crate) fn device(&self) -> u64 {
        self.shared.id
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it is taken once, here, and not used after.
        let part = unsafe { ManuallyDrop::take(&mut self.part) };
        let mut heap = self.shared.heap();
        if let Some(Dropped::Memory(part)) = heap.graveyard.bury(Dropped::Memory(part)) {
            heap.arena.free(&self.shared.context, &part);
        }
    }
}
