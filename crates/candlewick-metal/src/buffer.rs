//! Device memory with a dtype, and borrows of it.

use crate::memory::Memory;
use crate::runtime::arena::Block;
use crate::runtime::dispatch::Place;
use candlewick_core::backend::Packing;
use candlewick_core::{DType, Element};
use std::fmt;
use std::ops::Range;

/// Device memory of one dtype. The CPU reaches it too: Apple's GPUs share its memory.
pub struct Buffer {
    memory: Memory,
    dtype: DType,
    elements: usize,
    packing: Option<Packing>,
}

impl Buffer {
    pub(crate) fn new(memory: Memory, dtype: DType, elements: usize, packing: Option<Packing>) -> Self {
        Buffer { memory, dtype, elements, packing }
    }

    /// A part of it, to be read. Empty where the range leaves the buffer.
    pub fn slice(&self, range: Range<usize>) -> Input<'_> {
        let (offset, elements) = clamp(range, self.elements);
        let whole = Input::from(self);
        Input { offset: whole.offset + offset * self.dtype.bytes(), elements, ..whole }
    }

    /// A part of it, to be written. Empty where the range leaves the buffer.
    pub fn slice_mut(&mut self, range: Range<usize>) -> Output<'_> {
        Output(self.slice(range))
    }

    pub(crate) fn into_memory(self) -> Memory {
        self.memory
    }

    pub(crate) fn device(&self) -> u64 {
        self.memory.shared().id()
    }

    /// Zeroes a buffer that nobody has used yet.
    pub(crate) fn clear(&self) {
        let part = self.memory.part();
        // SAFETY: the part is as long, and nothing else can reach it yet.
        unsafe { part.pointer().write_bytes(0, part.bytes()) };
    }

    pub(crate) fn place(&self) -> Place<'_> {
        self.memory.part().place()
    }

    /// Copies numbers in. Nothing of the GPU's may touch them now.
    pub(crate) fn fill_from<T: Element>(&mut self, from: &[T]) {
        debug_assert_eq!((T::DTYPE, self.elements), (self.dtype, from.len()));
        // SAFETY: the memory holds as many numbers of this dtype, and this borrow is exclusive.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.memory.part().pointer().cast(), from.len()) };
    }

    /// Copies numbers out. Nothing of the GPU's may write them now.
    pub(crate) fn copy_to<T: Element>(&self, to: &mut [T]) {
        debug_assert_eq!((T::DTYPE, self.elements), (self.dtype, to.len()));
        // SAFETY: the memory holds as many numbers of this dtype, every bit pattern is one.
        unsafe { std::ptr::copy_nonoverlapping(self.memory.part().pointer().cast(), to.as_mut_ptr(), to.len()) };
    }
}

fn clamp(range: Range<usize>, elements: usize) -> (usize, usize) {
    if range.start <= range.end && range.end <= elements { (range.start, range.end - range.start) } else { (0, 0) }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} {})", self.elements, self.dtype)
    }
}

/// A tensor that is read: a buffer or a part of one.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    block: &'a Block,
    offset: usize,
    elements: usize,
    dtype: DType,
    packing: Option<Packing>,
    device: u64,
}

/// A tensor that is written.
#[derive(Debug)]
pub struct Output<'a>(Input<'a>);

impl<'a> Input<'a> {
    #[inline]
    pub(crate) fn place(&self) -> Place<'a> {
        Place { block: self.block, offset: self.offset }
    }

    #[inline]
    pub(crate) fn device(&self) -> u64 {
        self.device
    }
}

impl<'a> Input<'a> {
    /// A part of a block: offset in bytes, length in elements.
    pub(crate) fn of_block(block: &'a Block, offset: usize, elements: usize, dtype: DType, device: u64) -> Self {
        Input { block, offset, elements, dtype, packing: None, device }
    }
}

impl<'a> Output<'a> {
    /// To be written.
    pub(crate) fn new(whole: Input<'a>) -> Self {
        Output(whole)
    }
}

impl Output<'_> {
    /// The same tensor, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> Output<'_> {
        Output(self.0)
    }

    #[inline]
    pub(crate) fn as_input(&self) -> &Input<'_> {
        &self.0
    }
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Input({} {})", self.elements, self.dtype)
    }
}

impl<'a> From<&'a Buffer> for Input<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        let part = buffer.memory.part();
        let Buffer { dtype, elements, packing, .. } = *buffer;
        Input { block: &part.block, offset: part.offset, elements, dtype, packing, device: buffer.device() }
    }
}

impl<'a> From<&'a mut Buffer> for Output<'a> {
    fn from(buffer: &'a mut Buffer) -> Self {
        Output(Input::from(&*buffer))
    }
}

candlewick_core::arguments!(Buffer => |it| it, Input<'_> => |it| it, Output<'_> => |it| it.0);
