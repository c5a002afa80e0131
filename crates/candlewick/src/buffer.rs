//! Memory of a device, and borrows of it or of the caller's slices.

use crate::backends::on_each;
use crate::{DType, Element};
use candlewick_core::backend::{Argument, Packing};
use candlewick_cpu as cpu;
#[cfg(cuda)]
use candlewick_cuda as cuda;
use candlewick_empty as empty;
#[cfg(metal)]
use candlewick_metal as metal;
use std::ops::Range;

/// Memory of a device.
#[derive(Debug)]
#[non_exhaustive]
pub enum Buffer {
    /// Of the CPU.
    Cpu(cpu::Buffer),
    /// Of the device that does nothing.
    Empty(empty::Buffer),
    /// Of Apple's GPU.
    #[cfg(metal)]
    Metal(metal::Buffer),
    /// Of an NVIDIA GPU.
    #[cfg(cuda)]
    Cuda(cuda::Buffer),
}

/// A tensor that is read: a slice of the caller's or a buffer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// In host memory.
    Host(cpu::Input<'a>),
    /// Nowhere.
    Empty(empty::Input<'a>),
    /// On Apple's GPU.
    #[cfg(metal)]
    Metal(metal::Input<'a>),
    /// On an NVIDIA GPU.
    #[cfg(cuda)]
    Cuda(cuda::Input<'a>),
}

/// A tensor that is written.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output<'a> {
    /// In host memory.
    Host(cpu::Output<'a>),
    /// Nowhere.
    Empty(empty::Output<'a>),
    /// On Apple's GPU.
    #[cfg(metal)]
    Metal(metal::Output<'a>),
    /// On an NVIDIA GPU.
    #[cfg(cuda)]
    Cuda(cuda::Output<'a>),
}

impl Buffer {
    /// The dtype of its elements.
    pub fn dtype(&self) -> DType {
        on_each!(Buffer, self, buffer => buffer.dtype())
    }

    /// How many elements it holds.
    pub fn elements(&self) -> usize {
        on_each!(Buffer, self, buffer => buffer.elements())
    }

    /// How it was packed, if it was.
    pub fn packing(&self) -> Option<Packing> {
        on_each!(Buffer, self, buffer => buffer.packing())
    }

    /// A part of it, to be read. Empty where the range leaves the buffer.
    pub fn slice(&self, range: Range<usize>) -> Input<'_> {
        match self {
            Buffer::Cpu(buffer) => Input::Host(buffer.slice(range)),
            Buffer::Empty(buffer) => Input::Empty(buffer.into()),
            #[cfg(metal)]
            Buffer::Metal(buffer) => Input::Metal(buffer.slice(range)),
            #[cfg(cuda)]
            Buffer::Cuda(buffer) => Input::Cuda(buffer.slice(range)),
        }
    }

    /// A part of it, to be written. Empty where the range leaves the buffer.
    pub fn slice_mut(&mut self, range: Range<usize>) -> Output<'_> {
        match self {
            Buffer::Cpu(buffer) => Output::Host(buffer.slice_mut(range)),
            Buffer::Empty(buffer) => Output::Empty(buffer.into()),
            #[cfg(metal)]
            Buffer::Metal(buffer) => Output::Metal(buffer.slice_mut(range)),
            #[cfg(cuda)]
            Buffer::Cuda(buffer) => Output::Cuda(buffer.slice_mut(range)),
        }
    }
}

impl<'a, T: Element> From<&'a [T]> for Input<'a> {
    fn from(slice: &'a [T]) -> Self {
        Input::Host(slice.into())
    }
}

impl<'a, T: Element> From<&'a mut [T]> for Output<'a> {
    fn from(slice: &'a mut [T]) -> Self {
        Output::Host(slice.into())
    }
}

impl<'a> From<&'a Buffer> for Input<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        match buffer {
            Buffer::Cpu(buffer) => Input::Host(buffer.into()),
            Buffer::Empty(buffer) => Input::Empty(buffer.into()),
            #[cfg(metal)]
            Buffer::Metal(buffer) => Input::Metal(buffer.into()),
            #[cfg(cuda)]
            Buffer::Cuda(buffer) => Input::Cuda(buffer.into()),
        }
    }
}

impl<'a> From<&'a mut Buffer> for Output<'a> {
    fn from(buffer: &'a mut Buffer) -> Self {
        match buffer {
            Buffer::Cpu(buffer) => Output::Host(buffer.into()),
            Buffer::Empty(buffer) => Output::Empty(buffer.into()),
            #[cfg(metal)]
            Buffer::Metal(buffer) => Output::Metal(buffer.into()),
            #[cfg(cuda)]
            Buffer::Cuda(buffer) => Output::Cuda(buffer.into()),
        }
    }
}
