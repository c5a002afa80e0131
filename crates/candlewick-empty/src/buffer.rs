//! Memory that is not there: a dtype and a length.

use candlewick_core::backend::{Argument, Packing};
use candlewick_core::{DType, Element};
use std::marker::PhantomData;

/// A dtype and a length.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub(crate) dtype: DType,
    pub(crate) elements: usize,
    pub(crate) packing: Option<Packing>,
}

/// A tensor that would be read.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    dtype: DType,
    elements: usize,
    packing: Option<Packing>,
    borrow: PhantomData<&'a ()>,
}

impl Input<'_> {
    /// What another backend's argument says of itself.
    pub fn of(argument: &impl Argument) -> Self {
        Input {
            dtype: argument.dtype(),
            elements: argument.elements(),
            packing: argument.packing(),
            borrow: PhantomData,
        }
    }
}

/// A tensor that would be written.
#[derive(Debug)]
pub struct Output<'a>(Input<'a>);

impl Output<'_> {
    /// What another backend's argument says of itself.
    pub fn of(argument: &impl Argument) -> Self {
        Output(Input::of(argument))
    }
}

impl<'a> From<&'a Buffer> for Input<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        Input { dtype: buffer.dtype, elements: buffer.elements, packing: buffer.packing, borrow: PhantomData }
    }
}

impl<'a> From<&'a mut Buffer> for Output<'a> {
    fn from(buffer: &'a mut Buffer) -> Self {
        Output(Input::from(&*buffer))
    }
}

impl<'a, T: Element> From<&'a [T]> for Input<'a> {
    fn from(slice: &'a [T]) -> Self {
        Input { dtype: T::DTYPE, elements: slice.len(), packing: None, borrow: PhantomData }
    }
}

impl<'a, T: Element> From<&'a mut [T]> for Output<'a> {
    fn from(slice: &'a mut [T]) -> Self {
        Output(Input::from(&*slice))
    }
}

candlewick_core::arguments!(Buffer => |it| it, Input<'_> => |it| it, Output<'_> => |it| it.0);
