//! The tensors of an operation: what a descriptor says of them, and the checks that all descriptors share.

use super::{Op, Quant};
use crate::{DType, Error, Result, Shape};
use std::fmt;

/// How an operand's elements lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// As the strides say.
    #[default]
    Plain,
    /// In a backend's own order, made once from a frozen operand by `Stream::pack`.
    Packed,
}

/// One tensor that an operation reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Its name in the formula and in messages.
    pub name: &'static str,
    /// Its dtype.
    pub dtype: DType,
    /// Its sizes.
    pub shape: Shape,
    /// Elements from the first to the last that is touched, strides included.
    pub span: usize,
    /// How it lies in memory.
    pub format: Format,
}

/// The tensors of an operation, in the order in which `encode` takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operands {
    /// Read, never written.
    pub inputs: Vec<Operand>,
    /// Written; read too where the descriptor accumulates (beta, `accumulate`).
    pub outputs: Vec<Operand>,
}

/// A packed operand, as the right factor [k, n] of the product that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedFactor {
    /// Which input it is.
    pub input: usize,
    /// The length of the sum.
    pub k: usize,
    /// Columns of the product.
    pub n: usize,
    /// Whether the plain operand is stored [n, k].
    pub transposed: bool,
    /// Elements between the stored rows of the plain operand; bytes of quantised ones.
    pub row: usize,
    /// The format of quantised blocks.
    pub quant: Option<Quant>,
}

impl Op {
    /// The operand that `Stream::pack` makes, if the descriptor has one.
    pub fn packed_factor(&self) -> Option<PackedFactor> {
        match self {
            Op::MatMul(op) if op.b_format == Format::Packed => {
                Some(PackedFactor { input: 1, k: op.k, n: op.n, transposed: op.trans_b, row: op.ldb, quant: None })
            }
            Op::LoraLinear(op) if op.w_format == Format::Packed => Some(PackedFactor {
                input: 1,
                k: op.in_features,
                n: op.out_features,
                transposed: true,
                row: op.in_features,
                quant: None,
            }),
            Op::LoraLinearBackward(op) if op.w_format == Format::Packed => Some(PackedFactor {
                input: 1,
                k: op.out_features,
                n: op.in_features,
                transposed: false,
                row: op.in_features,
                quant: None,
            }),
            Op::QuantLinear(op) => op.packed_factor(),
            _ => None,
        }
    }
}

/// Elements from the first to the last of a tensor of `(size, stride)` dimensions, checked against the address space.
pub(super) fn operand(op: &'static str, name: &'static str, dtype: DType, dims: &[(usize, usize)]) -> Result<Operand> {
    let sizes: Vec<usize> = dims.iter().map(|&(size, _)| size).collect();
    let shape = Shape::new(&sizes);
    let span =
        span(dims).filter(|span| span.checked_mul(dtype.bytes()).is_some_and(|bytes| bytes <= isize::MAX as usize));
    match span {
        Some(span) if shape.elements().is_some() => Ok(Operand { name, dtype, shape, span, format: Format::Plain }),
        _ => Err(Error::TooLarge { op, operand: name, shape }),
    }
}

fn span(dims: &[(usize, usize)]) -> Option<usize> {
    if dims.iter().any(|&(size, _)| size == 0) {
        return Some(0);
    }
    dims.iter().try_fold(1usize, |last, &(size, stride)| last.checked_add((size - 1).checked_mul(stride)?))
}

/// Rows of `cols` elements, `row` elements apart.
pub(super) fn matrix(
    op: &'static str,
    name: &'static str,
    dtype: DType,
    rows: usize,
    row: usize,
    cols: usize,
) -> Result<Operand> {
    operand(op, name, dtype, &[(rows, row), (cols, 1)])
}

/// `elements` in a row.
pub(super) fn vector(op: &'static str, name: &'static str, dtype: DType, elements: usize) -> Result<Operand> {
    operand(op, name, dtype, &[(elements, 1)])
}

/// An error that names the field and its value unless `holds`.
pub(super) fn require(
    op: &'static str,
    field: &'static str,
    value: impl fmt::Display,
    holds: bool,
    remedy: &'static str,
) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Descriptor { op, field, value: value.to_string(), remedy }) }
}

/// A row stride must hold a whole row, or rows would overlap.
pub(super) fn check_row_stride(op: &'static str, field: &'static str, stride: usize, cols: usize) -> Result<()> {
    if stride < cols {
        return Err(Error::Descriptor {
            op,
            field,
            value: stride.to_string(),
            remedy: "a row stride is at least the number of columns",
        });
    }
    Ok(())
}
