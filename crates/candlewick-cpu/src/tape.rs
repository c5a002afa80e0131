//! Recorded sequences: calls whose arguments are resolved once, in memory that one stream owns.

#[cfg(test)]
mod tests;
mod wave;

use crate::pool::{Alone, Workers};
use crate::stream::{Kernel, Stream};
use crate::{Buffer, Input, Output};
use candlewick_core::backend::Argument as _;
use candlewick_core::tape::{self, Place, Step};
use candlewick_core::{DType, Element, Error, Result};
use std::cell::UnsafeCell;
use std::sync::Arc;
use wave::Site;

/// Memory that one stream alone reaches.
#[derive(Clone)]
pub struct Memory(Arc<Owned>);

struct Owned {
    /// Only owned here: its bytes are reached through the pointer, and never move.
    _buffer: UnsafeCell<Buffer>,
    pointer: *mut u8,
    bytes: usize,
    stream: u64,
}

// SAFETY: the bytes are touched through the owning stream's exclusive borrow alone; a handle by itself reaches nothing.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

/// A recorded sequence.
pub struct Tape {
    stream: u64,
    calls: Vec<Call>,
    /// How many of the calls, in order, run together: none of a wave depends on another of it.
    waves: Vec<usize>,
    /// At most; one where nothing is handed out.
    threads: usize,
    /// Keeps what the calls' arguments point to.
    _memories: Vec<Memory>,
}

struct Call {
    kernel: Kernel,
    inputs: Vec<Input<'static>>,
    outputs: Vec<Output<'static>>,
    /// Where its part of the stream's workspace begins, in f32: calls of a wave have different parts.
    workspace: usize,
}

impl Call {
    /// # Safety
    /// Nobody else reaches the call's memory or its part of the workspace, other calls that read the same excepted.
    #[inline]
    unsafe fn run(&mut self, workspace: *mut f32, workers: &dyn Workers) {
        // SAFETY: `record_steps` compared the arguments with the signature and the memories, which the tape keeps. Where
        // an output lies on an input, the kernel allows it. The workspace has room for every part.
        unsafe { self.kernel.run(&self.inputs, &mut self.outputs, workspace.wrapping_add(self.workspace), workers) };
    }
}

impl Memory {
    pub(crate) fn new(mut buffer: Buffer, stream: u64) -> Self {
        let pointer = buffer.pointer_mut();
        let bytes = buffer.elements() * buffer.dtype().bytes();
        Memory(Arc::new(Owned { _buffer: UnsafeCell::new(buffer), pointer, bytes, stream }))
    }

    pub(crate) fn zeroed(bytes: usize, stream: u64) -> Result<Self> {
        // The dtype only says how long it is.
        Ok(Self::new(Buffer::new(DType::F32, bytes.div_ceil(DType::F32.bytes()))?, stream))
    }

    /// Where `elements` numbers from byte `offset` on are.
    fn part<T: Element>(&self, op: &'static str, stream: u64, offset: usize, elements: usize) -> Result<*mut T> {
        self.check_owner(op, stream)?;
        let place = Place { memory: 0, offset, elements, dtype: T::DTYPE, packing: None };
        if place.bytes().end > self.0.bytes || !offset.is_multiple_of(size_of::<T>()) {
            let (first, end, size) = (offset, place.bytes().end, self.0.bytes);
            return Err(Error::Place { op, operand: "the slice", first, end, size });
        }
        Ok(self.0.pointer.wrapping_add(offset).cast())
    }

    fn check_owner(&self, op: &'static str, stream: u64) -> Result<()> {
        if self.0.stream == stream {
            return Ok(());
        }
        Err(Error::of_another_stream(op, "the memory", self.0.stream, stream))
    }
}

impl Stream {
    pub(crate) fn store_numbers<T: Element>(&mut self, memory: &Memory, offset: usize, from: &[T]) -> Result<()> {
        let to = memory.part::<T>("store", self.id(), offset, from.len())?;
        // SAFETY: the part is as long and aligned, and this stream's borrow is exclusive; the slice is not in it.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    pub(crate) fn load_numbers<T: Element>(&mut self, memory: &Memory, offset: usize, to: &mut [T]) -> Result<()> {
        let from = memory.part::<T>("load", self.id(), offset, to.len())?;
        // SAFETY: as above, and every bit pattern is a number.
        unsafe { std::ptr::copy_nonoverlapping(from.cast_const(), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    pub(crate) fn record_steps(&mut self, memories: &[Memory], steps: Vec<Step<Kernel>>) -> Result<Tape> {
        for memory in memories {
            memory.check_owner("record", self.id())?;
        }
        let sizes: Vec<usize> = memories.iter().map(|memory| memory.0.bytes).collect();
        let (mut calls, mut accesses) = (Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
        for step in steps {
            self.check_kernel(&step.kernel)?;
            tape::check(step.kernel.signature(), &step, &sizes)?;
            let pointer = |place: &Place| memories[place.memory].0.pointer.wrapping_add(place.offset);
            accesses.push(wave::Accesses::new(&step, pointer));
            let inputs = step.inputs.iter().map(|place| Input::at(pointer(place), place)).collect();
            let outputs = step.outputs.iter().map(|place| Output::at(pointer(place), place)).collect();
            calls.push(Call { kernel: step.kernel, inputs, outputs, workspace: 0 });
        }
        let (waves, workspace) = wave::divide(&mut calls, &accesses);
        self.reserve_workspace(workspace)?;
        let shares = waves.len() < calls.len() || calls.iter().any(|call| call.kernel.threads() > 1);
        let threads = if shares { self.threads() } else { 1 };
        Ok(Tape { stream: self.id(), calls, waves, threads, _memories: memories.to_vec() })
    }

    pub(crate) fn replay_tape(&mut self, tape: &mut Tape) -> Result<()> {
        if tape.stream != self.id() {
            return Err(Error::of_another_stream("replay", "the tape", tape.stream, self.id()));
        }
        let (pool, workspace) = (self.pool(), self.workspace_pointer());
        let held = (tape.threads > 1).then(|| pool.hold(tape.threads));
        let workers: &dyn Workers = match &held {
            Some(held) => held,
            None => &Alone,
        };
        let mut calls = &mut tape.calls[..];
        for &count in &tape.waves {
            let (wave, rest) = calls.split_at_mut(count);
            calls = rest;
            match wave {
                // SAFETY: only this stream, borrowed exclusively, reaches the memories and the workspace; calls run in order.
                [call] => unsafe { call.run(workspace, workers) },
                // SAFETY: as above, and calls of a wave neither write what another of them reads or writes, nor share
                // workspace.
                several => unsafe { wave::run(several, Site { workspace, workers, threads: tape.threads }) },
            }
        }
        Ok(())
    }
}
