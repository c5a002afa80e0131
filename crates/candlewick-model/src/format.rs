//! How the numbers of a weight are stored.

use candlewick_core::DType;
use candlewick_core::op::Quant;
use std::fmt;

/// How the numbers of a weight are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One float after another, little-endian.
    Float(DType),
    /// Rows of whole quantised blocks.
    Quant(Quant),
}

impl Format {
    /// Bytes of a row of `cols` numbers; none where they are not whole blocks, or more than this machine can address.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        match self {
            Format::Float(dtype) => cols.checked_mul(dtype.bytes()),
            Format::Quant(quant) if cols.is_multiple_of(quant.block()) => {
                (cols / quant.block()).checked_mul(quant.bytes())
            }
            Format::Quant(_) => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Float(dtype) => dtype.fmt(f),
            Format::Quant(quant) => quant.fmt(f),
        }
    }
}
