//! Rotary position embedding: pairs of elements turned by an angle that grows with the position.

use super::{Op, Operand, Operands, check_row_stride, matrix, require, vector};
use crate::{DType, Result};

/// Rotary position embedding (Su et al., 2021): in each head of each row, pair i turns by `positions[row] · frequencies[i]`:
/// (a, b) becomes (a cos - b sin, a sin + b cos). Elements of a head beyond `rotary` are copied.
///
/// The angle is the f32 product of the position, converted to f32, and the frequency: what Hugging Face's models compute,
/// and part of the definition, because at position 131072 its last bit is 0.008 and another rounding another angle. Its
/// sine and cosine are accurate to 2e-7 for angles up to 2^28: engines reduce the argument with more than 24 bits (the CPU
/// in f64, a GPU with three f32 parts of pi / 2 and fused multiply-adds).
///
/// The frequencies are a tensor, so that scalings of long contexts (Llama 3, YaRN, linear) are the caller's table.
/// Backward: the same with the negative angle. In place (y being x) is legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rope {
    /// Rows: tokens.
    pub rows: usize,
    /// Heads in a row.
    pub heads: usize,
    /// Elements of a head.
    pub head: usize,
    /// How many leading elements of a head turn: even, at most `head`.
    pub rotary: usize,
    /// Which two elements are a pair.
    pub pairs: Pairs,
    /// Elements between rows of x (and of dx).
    pub x_row: usize,
    /// Elements between rows of y (and of dy).
    pub y_row: usize,
    /// Of x and y; positions are U32, frequencies F32.
    pub dtype: DType,
}

/// Which two elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairs {
    /// i and i + rotary / 2: Hugging Face's order, `neox` in llama.cpp.
    Halves,
    /// 2 i and 2 i + 1: the paper's order, `norm` in llama.cpp.
    Interleaved,
}

impl Pairs {
    /// The elements of pair `i`.
    pub const fn elements(self, i: usize, rotary: usize) -> (usize, usize) {
        match self {
            Pairs::Halves => (i, i + rotary / 2),
            Pairs::Interleaved => (2 * i, 2 * i + 1),
        }
    }
}

impl Rope {
    /// Contiguous rows, whole heads, pairs of halves.
    pub fn new(rows: usize, heads: usize, head: usize, dtype: DType) -> Self {
        let width = heads.saturating_mul(head);
        Rope { rows, heads, head, rotary: head, pairs: Pairs::Halves, x_row: width, y_row: width, dtype }
    }

    pub(super) fn width(&self) -> usize {
        self.heads.saturating_mul(self.head)
    }

    /// Six per pair of every head, and a sine and a cosine per pair of a row.
    pub(super) fn flops(&self) -> f64 {
        self.rows as f64 * self.rotary as f64 * (3.0 * self.heads as f64 + 1.5)
    }

    fn check(&self, op: &'static str) -> Result<()> {
        check_row_stride(op, "x_row", self.x_row, self.width())?;
        check_row_stride(op, "y_row", self.y_row, self.width())?;
        let fits = self.rotary.is_multiple_of(2) && self.rotary <= self.head;
        require(op, "rotary", self.rotary, fits, "rotary is even and at most the elements of a head")
    }

    fn tables(&self, op: &'static str) -> Result<[Operand; 2]> {
        let positions = vector(op, "positions", DType::U32, self.rows)?;
        Ok([positions, vector(op, "frequencies", DType::F32, self.rotary / 2)?])
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::Rope(*self).name();
        self.check(op)?;
        let [positions, frequencies] = self.tables(op)?;
        let x = matrix(op, "x", self.dtype, self.rows, self.x_row, self.width())?;
        let y = matrix(op, "y", self.dtype, self.rows, self.y_row, self.width())?;
        Ok(Operands { inputs: vec![x, positions, frequencies], outputs: vec![y] })
    }

    pub(super) fn backward_operands(&self) -> Result<Operands> {
        let op = Op::RopeBackward(*self).name();
        self.check(op)?;
        let [positions, frequencies] = self.tables(op)?;
        let dy = matrix(op, "dy", self.dtype, self.rows, self.y_row, self.width())?;
        let dx = matrix(op, "dx", self.dtype, self.rows, self.x_row, self.width())?;
        Ok(Operands { inputs: vec![dy, positions, frequencies], outputs: vec![dx] })
    }
}
