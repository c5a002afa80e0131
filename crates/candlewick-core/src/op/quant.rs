//! GGUF's quantised blocks: their formats, a product with such weights, and dequantisation.

use super::{Format, Op, Operand, Operands, PackedFactor, check_row_stride, matrix, require};
use crate::{DType, Result};
use std::fmt;

/// A block format of GGUF. What a block's bytes mean is [`crate::reference::decode_block`], after `dequantize_row_*` of
/// ggml's `ggml-quants.c`; sizes are those of the structs of `ggml-common.h`, type numbers those of `enum ggml_type` in
/// `ggml.h` and of the GGUF specification (`docs/gguf.md` of ggml).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quant {
    /// 32 numbers of 4 bits and a scale.
    Q4_0,
    /// 32 numbers of 4 bits, a scale and a minimum.
    Q4_1,
    /// 32 numbers of 8 bits and a scale.
    Q8_0,
    /// 256 numbers of 4 bits; 8 scales and minima of 6 bits, a scale of each.
    Q4K,
    /// 256 numbers of 6 bits; 16 scales of 8 bits, and a scale of those.
    Q6K,
}

impl Quant {
    /// Every format.
    pub const ALL: [Quant; 5] = [Quant::Q4_0, Quant::Q4_1, Quant::Q8_0, Quant::Q4K, Quant::Q6K];

    /// Numbers in a block.
    pub const fn block(self) -> usize {
        match self {
            Quant::Q4_0 | Quant::Q4_1 | Quant::Q8_0 => 32,
            Quant::Q4K | Quant::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Quant::Q4_0 => 2 + 16,
            Quant::Q4_1 => 2 + 2 + 16,
            Quant::Q8_0 => 2 + 32,
            Quant::Q4K => 2 + 2 + 12 + 128,
            Quant::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// Bytes of `cols` numbers, which are whole blocks.
    pub const fn row_bytes(self, cols: usize) -> usize {
        (cols / self.block()).saturating_mul(self.bytes())
    }

    /// Its number in a GGUF file.
    pub const fn ggml_type(self) -> u32 {
        match self {
            Quant::Q4_0 => 2,
            Quant::Q4_1 => 3,
            Quant::Q8_0 => 8,
            Quant::Q4K => 12,
            Quant::Q6K => 14,
        }
    }

    /// The format with that number in a GGUF file, if it is one of these.
    pub fn from_ggml_type(number: u32) -> Option<Quant> {
        Quant::ALL.into_iter().find(|format| format.ggml_type() == number)
    }

    /// Its name, as ggml prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Quant::Q4_0 => "q4_0",
            Quant::Q4_1 => "q4_1",
            Quant::Q8_0 => "q8_0",
            Quant::Q4K => "q4_K",
            Quant::Q6K => "q6_K",
        }
    }
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// y [rows, cols] = the numbers of rows of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dequantize {
    /// Rows.
    pub rows: usize,
    /// Columns of y: whole blocks.
    pub cols: usize,
    /// Of the blocks.
    pub format: Quant,
    /// Of y; blocks are U8, [rows, cols / block · bytes].
    pub dtype: DType,
}

/// What a product with quantised weights may do to x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Activations {
    /// x is used as it is.
    #[default]
    Exact,
    /// 32 successive numbers of a row of x may be rounded to whole multiples of d = max |x| / 127, so that products are
    /// those of integers of 8 bits, as llama.cpp computes them. A permission: an engine that rounds nothing is right too,
    /// and rows that are no finite numbers of ordinary magnitude are used as they are.
    Int8,
}

impl Activations {
    /// Successive numbers of a row of x that share a scale, where they are rounded.
    pub const BLOCK: usize = 32;
}

/// y = x Wᵀ, or y += with `accumulate`, with quantised weights W [out, in]. W is used as its blocks say, x as it is, or rounded where
/// [`Activations::Int8`] allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantLinear {
    /// Rows of x and y.
    pub rows: usize,
    /// Columns of x and of W: whole blocks.
    pub in_features: usize,
    /// Columns of y, rows of W.
    pub out_features: usize,
    /// Of W.
    pub format: Quant,
    /// Whether W was packed once, by `Stream::pack`. Its packing serves either kind of activations.
    pub w_format: Format,
    /// Whether x may be rounded.
    pub activations: Activations,
    /// Add to y instead of writing it: a residual connection.
    pub accumulate: bool,
    /// Elements between rows of x.
    pub x_row: usize,
    /// Elements between rows of y.
    pub y_row: usize,
    /// Of x and y; w is U8, [out, in / block · bytes].
    pub dtype: DType,
}

/// The blocks of `rows` rows of `cols` numbers.
pub(super) fn blocks(
    op: &'static str,
    name: &'static str,
    format: Quant,
    rows: usize,
    (field, cols): (&'static str, usize),
) -> Result<Operand> {
    let whole = cols.is_multiple_of(format.block());
    require(op, field, cols, whole, "a row is whole blocks: a multiple of 32, of 256 for the K formats")?;
    let bytes = format.row_bytes(cols);
    matrix(op, name, DType::U8, rows, bytes, bytes)
}

impl Dequantize {
    /// All its fields.
    pub fn new(rows: usize, cols: usize, format: Quant, dtype: DType) -> Self {
        Dequantize { rows, cols, format, dtype }
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::Dequantize(*self).name();
        let w = blocks(op, "blocks", self.format, self.rows, ("cols", self.cols))?;
        Ok(Operands { inputs: vec![w], outputs: vec![matrix(op, "y", self.dtype, self.rows, self.cols, self.cols)?] })
    }
}

impl QuantLinear {
    /// Contiguous rows, W as the file has it, x used as it is.
    pub fn new(rows: usize, in_features: usize, out_features: usize, format: Quant, dtype: DType) -> Self {
        let (w_format, activations) = (Format::Plain, Activations::Exact);
        let (x_row, y_row) = (in_features, out_features);
        QuantLinear {
            rows,
            in_features,
            out_features,
            format,
            w_format,
            activations,
            accumulate: false,
            x_row,
            y_row,
            dtype,
        }
    }

    /// Added to y.
    #[must_use]
    pub fn accumulate(mut self) -> Self {
        self.accumulate = true;
        self
    }

    /// The same with W packed.
    #[must_use]
    pub fn packed(mut self) -> Self {
        self.w_format = Format::Packed;
        self
    }

    /// The same where x may be rounded to 8 bits.
    #[must_use]
    pub fn int8(mut self) -> Self {
        self.activations = Activations::Int8;
        self
    }

    pub(super) fn packed_factor(&self) -> Option<PackedFactor> {
        (self.w_format == Format::Packed).then(|| PackedFactor {
            input: 1,
            k: self.in_features,
            n: self.out_features,
            transposed: true,
            row: self.format.row_bytes(self.in_features),
            quant: Some(self.format),
        })
    }

    pub(super) fn shape(&self) -> String {
        let int8 = if self.activations == Activations::Int8 { " int8" } else { "" };
        let packed = if self.w_format == Format::Packed { " packed" } else { "" };
        let added = if self.accumulate { " added" } else { "" };
        format!("{}x{}x{} {}{int8}{packed}{added}", self.rows, self.in_features, self.out_features, self.format)
    }

    /// The standard deviation of a result's error from rounding x, relative to the result's own where weights have random
    /// signs. A rounded number is off by a number of variance d²/12, evenly spread over d = max |x| / 127, so an element
    /// of y by the sum of d² w² / 12, where y² is about the sum of x² w²: the ratio is max |x| / (127 sqrt(12 mean(x²))),
    /// and in 32 numbers max |x| is at most sqrt(32 mean(x²)).
    pub(super) fn rounding(&self) -> f64 {
        match self.activations {
            Activations::Exact => 0.0,
            Activations::Int8 => (Activations::BLOCK as f64 / 12.0).sqrt() / 127.0,
        }
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::QuantLinear(*self).name();
        check_row_stride(op, "x_row", self.x_row, self.in_features)?;
        check_row_stride(op, "y_row", self.y_row, self.out_features)?;
        let x = matrix(op, "x", self.dtype, self.rows, self.x_row, self.in_features)?;
        let w = blocks(op, "w", self.format, self.out_features, ("in_features", self.in_features))?;
        let w = Operand { format: self.w_format, ..w };
        let y = matrix(op, "y", self.dtype, self.rows, self.y_row, self.out_features)?;
        Ok(Operands { inputs: vec![x, w], outputs: vec![y] })
    }
}
