//! Copies between host and device through memory that the GPU can reach: the caller's slice is free when `write` returns.

use super::completion::Event;
use super::context::Context;
use candlewick_core::{Error, Result};
use cudarc::driver::sys::CUstream;

/// Bytes of a chunk, and how many there are: while one is filled others travel.
const BYTES: usize = 1 << 20;
const CHUNKS: usize = 4;

struct Chunk {
    memory: *mut u8,
    event: Event,
    /// Whether a copy out of it may be under way.
    busy: bool,
}

/// The chunks of a stream, made when they are first used.
pub(crate) struct Staging {
    chunks: Vec<Chunk>,
    next: usize,
}

// SAFETY: the memory belongs to the stream that owns this, which one thread uses at a time.
unsafe impl Send for Staging {}

impl Staging {
    pub(crate) fn new() -> Self {
        Staging { chunks: Vec::new(), next: 0 }
    }

    /// Copies to the device, in order with the stream's work. Waits only for a chunk that is still on its way.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn write(&mut self, context: &Context, stream: CUstream, to: u64, from: &[u8]) -> Result<()> {
        for (i, piece) in from.chunks(BYTES).enumerate() {
            let chunk = self.chunk(context)?;
            if chunk.busy {
                let event = chunk.event.raw();
                // SAFETY: the event is valid.
                context.run("cuEventSynchronize", |driver| unsafe { (driver.cuEventSynchronize)(event) })?;
            }
            // SAFETY: the chunk is as long, and no copy out of it is under way.
            unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), chunk.memory, piece.len()) };
            let (memory, to) = (chunk.memory.cast(), to + (i * BYTES) as u64);
            // SAFETY: both sides are as long; the chunk is left alone until the event says that the copy is done.
            context.run("cuMemcpyHtoDAsync", |driver| unsafe {
                (driver.cuMemcpyHtoDAsync_v2)(to, memory, piece.len(), stream)
            })?;
            chunk.busy = true;
            chunk.event.record(context, stream)?;
        }
        Ok(())
    }

    /// Copies to the host; `wait` is called whenever something has to be there.
    ///
    /// # Errors
    /// What the driver says, and those of `wait`.
    pub(crate) fn read(
        &mut self,
        context: &Context,
        stream: CUstream,
        from: u64,
        to: &mut [u8],
        mut wait: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut from = from;
        for batch in to.chunks_mut(BYTES * CHUNKS) {
            let mut staged = [std::ptr::null_mut(); CHUNKS];
            for (piece, memory) in batch.chunks(BYTES).zip(&mut staged) {
                // In order with copies out of the same chunk: those are before it on the same stream.
                *memory = self.chunk(context)?.memory;
                let (memory, bytes) = (memory.cast(), piece.len());
                // SAFETY: both sides are as long.
                context.run("cuMemcpyDtoHAsync", |driver| unsafe {
                    (driver.cuMemcpyDtoHAsync_v2)(memory, from, bytes, stream)
                })?;
                from += bytes as u64;
            }
            wait()?;
            for (piece, memory) in batch.chunks_mut(BYTES).zip(staged) {
                // SAFETY: the copy into the chunk is done, and it is as long.
                unsafe { std::ptr::copy_nonoverlapping(memory, piece.as_mut_ptr(), piece.len()) };
            }
        }
        Ok(())
    }

    /// The stream is done: every chunk is free.
    pub(crate) fn is_idle(&mut self) {
        self.chunks.iter_mut().for_each(|chunk| chunk.busy = false);
    }

    pub(crate) fn destroy(&mut self, context: &Context) {
        for chunk in self.chunks.drain(..) {
            chunk.event.destroy(context);
            // SAFETY: the stream is done, and nobody else has it.
            context.try_run(|driver| unsafe { (driver.cuMemFreeHost)(chunk.memory.cast()) });
        }
    }

    fn chunk(&mut self, context: &Context) -> Result<&mut Chunk> {
        if self.chunks.len() < CHUNKS {
            let event = Event::new(context)?;
            let mut memory = std::ptr::null_mut();
            // SAFETY: the pointer is valid.
            let code =
                context.run("cuMemHostAlloc", |driver| unsafe { (driver.cuMemHostAlloc)(&mut memory, BYTES, 0) });
            if let Err(error) = code {
                event.destroy(context);
                return Err(match context.is_lost() {
                    true => error,
                    false => Error::OutOfMemory { device: format!("{}, page-locked", context.label), bytes: BYTES },
                });
            }
            self.chunks.push(Chunk { memory: memory.cast(), event, busy: false });
            return Ok(self.chunks.last_mut().expect("it was pushed"));
        }
        self.next = (self.next + 1) % CHUNKS;
        Ok(&mut self.chunks[self.next])
    }
}
