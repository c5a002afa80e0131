//! Device memory with a dtype, and borrows of it.

use crate::memory::Memory;
use candlewick_core::DType;
use candlewick_core::backend::Packing;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Device memory of one dtype.
pub struct Buffer {
    /// A recorded graph keeps what it uses alive.
    memory: Arc<Memory>,
    dtype: DType,
    elements: usize,
    packing: Option<Packing>,
}

impl Buffer {
    pub(crate) fn new(memory: Memory, dtype: DType, elements: usize, packing: Option<Packing>) -> Self {
        Buffer { memory: Arc::new(memory), dtype, elements, packing }
    }

    /// A part of it, to be read. Empty where the range leaves the buffer.
    pub fn slice(&self, range: Range<usize>) -> Input<'_> {
        let (offset, elements) = clamp(range, self.elements);
        let whole = Input::from(self);
        Input { address: whole.address + (offset * self.dtype.bytes()) as u64, elements, ..whole }
    }

    /// A part of it, to be written. Empty where the range leaves the buffer.
    pub fn slice_mut(&mut self, range: Range<usize>) -> Output<'_> {
        Output(self.slice(range))
    }

    /// Its address on the device.
    pub fn address(&self) -> u64 {
        self.memory.address()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.elements * self.dtype.bytes()
    }

    pub(crate) fn into_memory(self) -> Arc<Memory> {
        self.memory
    }

    pub(crate) fn device(&self) -> u64 {
        self.memory.device()
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

/// A tensor that is read: a buffer, a part of one, or memory of another library's.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    address: u64,
    elements: usize,
    dtype: DType,
    packing: Option<Packing>,
    device: u64,
    /// What keeps it alive in a recorded graph; nothing for memory of others.
    memory: Option<&'a Arc<Memory>>,
}

/// A tensor that is written.
#[derive(Debug)]
pub struct Output<'a>(Input<'a>);

impl<'a> Input<'a> {
    /// Memory of another library's.
    pub(crate) fn raw(address: u64, elements: usize, dtype: DType, device: u64) -> Self {
        Input { address, elements, dtype, packing: None, device, memory: None }
    }

    /// A part of a tape's memory.
    pub(crate) fn at(
        memory: &'a Arc<Memory>,
        offset: usize,
        elements: usize,
        dtype: DType,
        packing: Option<Packing>,
    ) -> Self {
        let (address, device) = (memory.address() + offset as u64, memory.device());
        Input { address, elements, dtype, packing, device, memory: Some(memory) }
    }

    #[inline]
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    #[inline]
    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    pub(crate) fn memory(&self) -> Option<&'a Arc<Memory>> {
        self.memory
    }
}

impl<'a> Output<'a> {
    /// Memory of another library's.
    pub(crate) fn raw(address: u64, elements: usize, dtype: DType, device: u64) -> Self {
        Output(Input::raw(address, elements, dtype, device))
    }

    /// A part of a tape's memory, which only one stream reaches.
    pub(crate) fn of(input: Input<'a>) -> Self {
        Output(input)
    }

    /// The same tensor, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> Output<'_> {
        Output(self.0)
    }

    #[inline]
    pub(crate) fn as_input(&self) -> &Input<'a> {
        &self.0
    }
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Input({} {})", self.elements, self.dtype)
    }
}

impl<'a> From<&'a Buffer> for Input<'a> {
    #[inline]
    fn from(buffer: &'a Buffer) -> Self {
        let Buffer { dtype, elements, packing, .. } = *buffer;
        let memory = Some(&buffer.memory);
        Input { address: buffer.address(), elements, dtype, packing, device: buffer.device(), memory }
    }
}

impl<'a> From<&'a mut Buffer> for Output<'a> {
    #[inline]
    fn from(buffer: &'a mut Buffer) -> Self {
        Output(Input::from(&*buffer))
    }
}

candlewick_core::arguments!(Buffer => |it| it, Input<'_> => |it| it, Output<'_> => |it| it.0);
