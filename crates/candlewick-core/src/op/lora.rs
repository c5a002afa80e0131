//! The LoRA layer and its delta, in PEFT's convention (Hu et al., 2021): W [out, in], A [rank, in], B [out, rank].

use super::{Format, Op, Operand, Operands, check_row_stride, operand};
use crate::{DType, Error, Result, Scalar};

/// y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ, or y += with `accumulate`, with a frozen W [out, in], A [rank, in], B [out, rank];
/// scale is alpha / rank (alpha / sqrt(rank) with rslora).
///
/// Backward, with h = x Aᵀ and dh = scale dy B: dx = dy W + dh A, da = dhᵀ x, db = scale dyᵀ h. W and bias are frozen
/// and get no gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoraLinear {
    /// Rows of x and y: batch times sequence.
    pub rows: usize,
    /// Columns of x.
    pub in_features: usize,
    /// Columns of y.
    pub out_features: usize,
    /// Rows of A, columns of B. Zero is a plain linear layer.
    pub rank: usize,
    /// Factor of the delta.
    pub scale: Scalar,
    /// Whether there is a bias `[out]`, the third input of the forward.
    pub bias: bool,
    /// Add to y instead of writing it: a residual connection. The backward, which knows no y, is the same.
    pub accumulate: bool,
    /// Elements between rows of x (and of dx).
    pub x_row: usize,
    /// Elements between rows of y (and of dy).
    pub y_row: usize,
    /// Of every operand.
    pub dtype: DType,
    /// Whether W was packed once, by `Stream::pack`; forward and backward each have their own packing.
    pub w_format: Format,
}

/// y = scale (x Aᵀ) Bᵀ, or y += with `accumulate`: the LoRA layer without its base product, for a base that another
/// library computes. Backward as [`LoraLinear`]'s, with dx = dh A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoraDelta {
    /// Rows of x and y: batch times sequence.
    pub rows: usize,
    /// Columns of x.
    pub in_features: usize,
    /// Columns of y.
    pub out_features: usize,
    /// Rows of A, columns of B.
    pub rank: usize,
    /// Factor of the delta.
    pub scale: Scalar,
    /// Add to y instead of writing it.
    pub accumulate: bool,
    /// Elements between rows of x (and of dx).
    pub x_row: usize,
    /// Elements between rows of y (and of dy).
    pub y_row: usize,
    /// Of every operand.
    pub dtype: DType,
}

impl LoraLinear {
    /// Contiguous rows, no bias, W as it lies in a checkpoint.
    pub fn new(rows: usize, in_features: usize, out_features: usize, rank: usize, scale: f32, dtype: DType) -> Self {
        LoraLinear {
            rows,
            in_features,
            out_features,
            rank,
            scale: scale.into(),
            bias: false,
            accumulate: false,
            x_row: in_features,
            y_row: out_features,
            dtype,
            w_format: Format::Plain,
        }
    }

    /// With a bias.
    pub fn with_bias(mut self) -> Self {
        self.bias = true;
        self
    }

    /// Added to y.
    pub fn accumulate(mut self) -> Self {
        self.accumulate = true;
        self
    }

    /// W given as `Stream::pack` made it.
    pub fn packed(mut self) -> Self {
        self.w_format = Format::Packed;
        self
    }

    fn delta(&self) -> LoraDelta {
        LoraDelta {
            x_row: self.x_row,
            y_row: self.y_row,
            ..LoraDelta::new(self.rows, self.in_features, self.out_features, self.rank, self.scale.get(), self.dtype)
        }
    }

    pub(super) fn flops(&self) -> f64 {
        2.0 * self.rows as f64 * self.in_features as f64 * self.out_features as f64 + self.delta().flops()
    }

    pub(super) fn backward_flops(&self) -> f64 {
        2.0 * self.rows as f64 * self.in_features as f64 * self.out_features as f64 + self.delta().backward_flops()
    }

    pub(super) fn shape(&self) -> String {
        let packed = if self.w_format == Format::Packed { " packed" } else { "" };
        let bias = if self.bias { " bias" } else { "" };
        let added = if self.accumulate { " added" } else { "" };
        format!("{}{bias}{packed}{added}", self.delta().shape())
    }

    fn w(&self, name: &'static str) -> Result<Operand> {
        let w = operand(name, "w", self.dtype, &[(self.out_features, self.in_features), (self.in_features, 1)])?;
        Ok(Operand { format: self.w_format, ..w })
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let name = Op::LoraLinear(*self).name();
        let mut operands = self.delta().named_operands(name)?;
        operands.inputs.insert(1, self.w(name)?);
        if self.bias {
            operands.inputs.insert(2, operand(name, "bias", self.dtype, &[(self.out_features, 1)])?);
        }
        Ok(operands)
    }

    pub(super) fn backward_operands(&self) -> Result<Operands> {
        let name = Op::LoraLinearBackward(*self).name();
        let mut operands = self.delta().named_backward_operands(name)?;
        operands.inputs.insert(1, self.w(name)?);
        Ok(operands)
    }
}

impl LoraDelta {
    /// Contiguous rows, written.
    pub fn new(rows: usize, in_features: usize, out_features: usize, rank: usize, scale: f32, dtype: DType) -> Self {
        LoraDelta {
            rows,
            in_features,
            out_features,
            rank,
            scale: scale.into(),
            accumulate: false,
            x_row: in_features,
            y_row: out_features,
            dtype,
        }
    }

    /// Added to y.
    pub fn accumulate(mut self) -> Self {
        self.accumulate = true;
        self
    }

    pub(super) fn flops(&self) -> f64 {
        2.0 * self.rows as f64 * self.rank as f64 * (self.in_features as f64 + self.out_features as f64)
    }

    /// h, dh, da, db and the delta's part of dx, each a product with the rank.
    pub(super) fn backward_flops(&self) -> f64 {
        2.0 * self.rows as f64 * self.rank as f64 * (3.0 * self.in_features as f64 + 2.0 * self.out_features as f64)
    }

    pub(super) fn shape(&self) -> String {
        format!("{}x{}x{} r{}", self.rows, self.in_features, self.out_features, self.rank)
    }

    fn check(&self, name: &'static str) -> Result<()> {
        check_row_stride(name, "x_row", self.x_row, self.in_features)?;
        check_row_stride(name, "y_row", self.y_row, self.out_features)?;
        if !self.scale.get().is_finite() {
            return Err(Error::Descriptor {
                op: name,
                field: "scale",
                value: self.scale.to_string(),
                remedy: "scale is alpha / rank (alpha / sqrt(rank) with rslora), a finite number: a rank of 0 makes it infinite",
            });
        }
        Ok(())
    }

    fn tensor(&self, op: &'static str, name: &'static str) -> Result<Operand> {
        let dims = match name {
            "x" | "dx" => [(self.rows, self.x_row), (self.in_features, 1)],
            "y" | "dy" => [(self.rows, self.y_row), (self.out_features, 1)],
            "a" | "da" => [(self.rank, self.in_features), (self.in_features, 1)],
            _ => [(self.out_features, self.rank), (self.rank, 1)],
        };
        operand(op, name, self.dtype, &dims)
    }

    fn named_operands(&self, op: &'static str) -> Result<Operands> {
        self.check(op)?;
        let tensors =
            |names: &[&'static str]| names.iter().map(|name| self.tensor(op, name)).collect::<Result<Vec<_>>>();
        Ok(Operands { inputs: tensors(&["x", "a", "b"])?, outputs: tensors(&["y"])? })
    }

    fn named_backward_operands(&self, op: &'static str) -> Result<Operands> {
        self.check(op)?;
        let tensors =
            |names: &[&'static str]| names.iter().map(|name| self.tensor(op, name)).collect::<Result<Vec<_>>>();
        Ok(Operands { inputs: tensors(&["x", "a", "b", "dy"])?, outputs: tensors(&["dx", "da", "db"])? })
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        self.named_operands(Op::LoraDelta(*self).name())
    }

    pub(super) fn backward_operands(&self) -> Result<Operands> {
        self.named_backward_operands(Op::LoraDeltaBackward(*self).name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_come_in_the_order_of_the_formula() {
        let op = LoraLinear::new(32, 512, 256, 8, 2.0, DType::F32).with_bias();
        let names = |operands: &[Operand]| operands.iter().map(|operand| operand.name).collect::<Vec<_>>();
        let forward = op.operands().unwrap();
        assert_eq!(names(&forward.inputs), ["x", "w", "bias", "a", "b"]);
        assert_eq!(names(&forward.outputs), ["y"]);
        let backward = op.backward_operands().unwrap();
        assert_eq!(names(&backward.inputs), ["x", "w", "a", "b", "dy"]);
        assert_eq!(names(&backward.outputs), ["dx", "da", "db"]);
        assert_eq!(Op::from(op).to_string(), "lora_linear 32x512x256 r8 bias f32");
    }

    #[test]
    fn an_infinite_scale_is_refused() {
        let error = Op::from(LoraDelta::new(1, 1, 1, 0, f32::INFINITY, DType::F32)).operands().unwrap_err();
        assert!(error.to_string().contains("alpha / rank"), "{error}");
    }
}
