//! Host memory: owned buffers on cache lines, and slices borrowed from the caller.

use candlewick_core::backend::Packing;
use candlewick_core::tape::Place;
use candlewick_core::{DType, Element, Error, Result};
use std::marker::PhantomData;
use std::ops::Range;

/// Vectors of every instruction set here load whole from such a line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Owned memory of one dtype, aligned to 64 bytes.
pub struct Buffer {
    lines: Vec<Line>,
    dtype: DType,
    elements: usize,
    packing: Option<Packing>,
}

impl Buffer {
    /// Zeroed memory for `elements` numbers.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn new(dtype: DType, elements: usize) -> Result<Self> {
        let bytes = elements.checked_mul(dtype.bytes()).filter(|&bytes| bytes <= isize::MAX as usize);
        let out_of_memory = |bytes| Error::OutOfMemory { device: "cpu".into(), bytes };
        let bytes = bytes.ok_or_else(|| out_of_memory(usize::MAX))?;
        let count = bytes.div_ceil(64);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).map_err(|_| out_of_memory(bytes))?;
        lines.resize(count, Line([0; 64]));
        Ok(Buffer { lines, dtype, elements, packing: None })
    }

    pub(crate) fn set_packing(&mut self, packing: Packing) {
        self.packing = Some(packing);
    }

    /// Its numbers; `None` where `T` is not its dtype, or where it is packed.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        // SAFETY: the lines hold `elements` numbers of this dtype, every bit pattern is one, and 64 bytes align all.
        (T::DTYPE == self.dtype && self.packing.is_none())
            .then(|| unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.elements) })
    }

    /// Its numbers, to be changed; `None` where `T` is not its dtype, or where it is packed.
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        // SAFETY: as in `as_slice`, and the borrow is exclusive.
        (T::DTYPE == self.dtype && self.packing.is_none())
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.elements) })
    }

    /// A part of it, to be read. Empty where the range leaves the buffer.
    pub fn slice(&self, range: Range<usize>) -> Input<'_> {
        let (offset, elements) = clamp(range, self.elements);
        Input { pointer: Input::from(self).pointer.wrapping_add(offset * self.dtype.bytes()), elements, ..self.into() }
    }

    /// A part of it, to be written. Empty where the range leaves the buffer.
    pub fn slice_mut(&mut self, range: Range<usize>) -> Output<'_> {
        let (offset, elements) = clamp(range, self.elements);
        let bytes = self.dtype.bytes();
        let whole = Output::from(self);
        Output { pointer: whole.pointer.wrapping_add(offset * bytes), elements, ..whole }
    }

    pub(crate) fn pointer(&self) -> *const u8 {
        self.lines.as_ptr().cast()
    }

    pub(crate) fn pointer_mut(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }
}

fn clamp(range: Range<usize>, elements: usize) -> (usize, usize) {
    if range.start <= range.end && range.end <= elements { (range.start, range.end - range.start) } else { (0, 0) }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} {})", self.elements, self.dtype)
    }
}

/// A tensor that is read: a slice of the caller's or a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pointer: *const u8,
    elements: usize,
    dtype: DType,
    packing: Option<Packing>,
    borrow: PhantomData<&'a [u8]>,
}

/// A tensor that is written.
#[derive(Debug)]
pub struct Output<'a> {
    pointer: *mut u8,
    elements: usize,
    dtype: DType,
    packing: Option<Packing>,
    borrow: PhantomData<&'a mut [u8]>,
}

// SAFETY: an `Input` is a shared borrow of plain numbers, an `Output` an exclusive one.
unsafe impl Send for Input<'_> {}
// SAFETY: as above.
unsafe impl Sync for Input<'_> {}
// SAFETY: as above.
unsafe impl Send for Output<'_> {}

impl<'a> Input<'a> {
    /// Its numbers; `None` where `T` is not its dtype, or where it is packed.
    pub fn as_slice<T: Element>(&self) -> Option<&'a [T]> {
        // SAFETY: the pointer is a slice's or a buffer's, of as many numbers of this dtype, borrowed for 'a.
        (T::DTYPE == self.dtype && self.packing.is_none())
            .then(|| unsafe { std::slice::from_raw_parts(self.pointer.cast(), self.elements) })
    }

    pub(crate) fn pointer(&self) -> *const u8 {
        self.pointer
    }
}

impl Input<'static> {
    /// Of a tape, which keeps the memory.
    pub(crate) fn at(pointer: *const u8, place: &Place) -> Self {
        let Place { elements, dtype, packing, .. } = *place;
        Input { pointer, elements, dtype, packing, borrow: PhantomData }
    }
}

impl Output<'static> {
    /// Of a tape, which keeps the memory.
    pub(crate) fn at(pointer: *mut u8, place: &Place) -> Self {
        let Place { elements, dtype, packing, .. } = *place;
        Output { pointer, elements, dtype, packing, borrow: PhantomData }
    }
}

impl Output<'_> {
    /// The same tensor, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> Output<'_> {
        Output { borrow: PhantomData, ..*self }
    }

    pub(crate) fn pointer(&mut self) -> *mut u8 {
        self.pointer
    }
}

impl<'a, T: Element> From<&'a [T]> for Input<'a> {
    fn from(slice: &'a [T]) -> Self {
        let (pointer, elements) = (slice.as_ptr().cast(), slice.len());
        Input { pointer, elements, dtype: T::DTYPE, packing: None, borrow: PhantomData }
    }
}

impl<'a, T: Element> From<&'a mut [T]> for Output<'a> {
    fn from(slice: &'a mut [T]) -> Self {
        let (pointer, elements) = (slice.as_mut_ptr().cast(), slice.len());
        Output { pointer, elements, dtype: T::DTYPE, packing: None, borrow: PhantomData }
    }
}

impl<'a> From<&'a Buffer> for Input<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        let Buffer { dtype, elements, packing, .. } = *buffer;
        Input { pointer: buffer.pointer(), elements, dtype, packing, borrow: PhantomData }
    }
}

impl<'a> From<&'a mut Buffer> for Output<'a> {
    fn from(buffer: &'a mut Buffer) -> Self {
        let Buffer { dtype, elements, packing, .. } = *buffer;
        Output { pointer: buffer.pointer_mut(), elements, dtype, packing, borrow: PhantomData }
    }
}

candlewick_core::arguments!(Buffer => |it| it, Input<'_> => |it| it, Output<'_> => |it| it);
