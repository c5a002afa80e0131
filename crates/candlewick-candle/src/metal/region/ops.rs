//! The operations of a region: those of the crate, on values.

use super::{Region, Value, refused};
use crate::error::{Described, Error, Result};
use crate::operand::{Rows, same_dtype};
use crate::ops::{lora, matmul, rms_norm, softmax};
use crate::{base, compute};
use arrayvec::ArrayVec;
use candlewick::{DType, LoraDelta, LoraLinear, Op};
use candlewick_core::backend::Stream as _;
use candlewick_metal::Input;

type Operand<'a> = (&'static str, &'a Value);

impl Region {
    /// The product of a [.., m, k] and b [.., k, n], as [`crate::matmul`]. Transposed views are read in place.
    ///
    /// # Errors
    /// Shapes, dtypes or strides that the product does not take.
    pub fn matmul(&mut self, a: &Value, b: &Value) -> candle_core::Result<Value> {
        let operands = [("a", a), ("b", b)];
        let dtype = self.dtype(matmul::NAME, &operands)?;
        let (op, shape) = matmul::op(a.layout(), b.layout(), dtype).map_err(Error::from)?;
        self.run(op.into(), &operands, shape)
    }

    /// softmax(scale x) over the last dimension, as [`crate::softmax`].
    ///
    /// # Errors
    /// A scalar, or strides with other gaps than between rows.
    pub fn softmax(&mut self, x: &Value, scale: f32) -> candle_core::Result<Value> {
        self.softmax_of(x, scale, None)
    }

    /// The same where no query sees a later key, as [`crate::softmax_causal`].
    ///
    /// # Errors
    /// Those of [`Region::softmax`], fewer than two dimensions, or more queries than keys.
    pub fn softmax_causal(&mut self, x: &Value, scale: f32) -> candle_core::Result<Value> {
        let queries = softmax::queries(x)?;
        self.softmax_of(x, scale, queries)
    }

    fn softmax_of(&mut self, x: &Value, scale: f32, queries: Option<usize>) -> candle_core::Result<Value> {
        let operands = [("x", x)];
        let dtype = self.dtype(softmax::NAME, &operands)?;
        let op = softmax::op(rows(softmax::NAME, x)?, scale, queries, dtype);
        self.run(op.into(), &operands, x.dims().into())
    }

    /// Root mean square normalisation over the last dimension, as [`crate::rms_norm()`]. MPS has none.
    ///
    /// # Errors
    /// A weight of another length, another dtype, or strides with other gaps than between rows.
    pub fn rms_norm(&mut self, x: &Value, weight: &Value, eps: f32) -> candle_core::Result<Value> {
        let operands = [("x", x), ("weight", weight)];
        let dtype = self.dtype(rms_norm::NAME, &operands)?;
        rms_norm::fits(x, weight)?;
        weight.require_contiguous(rms_norm::NAME, "weight")?;
        let op = rms_norm::op(rows(rms_norm::NAME, x)?, eps, dtype);
        self.run(op.into(), &operands, x.dims().into())
    }

    /// x Wᵀ + bias + scale (x Aᵀ) Bᵀ, as [`crate::lora_linear()`].
    ///
    /// # Errors
    /// Shapes or dtypes that do not fit, an infinite `scale`, or strides: of x only rows may have gaps between them.
    pub fn lora_linear(
        &mut self,
        x: &Value,
        w: &Value,
        bias: Option<&Value>,
        a: &Value,
        b: &Value,
        scale: f32,
    ) -> candle_core::Result<Value> {
        let mut operands: ArrayVec<Operand<'_>, { compute::MOST_INPUTS }> = [("x", x), ("w", w)].into_iter().collect();
        operands.extend(bias.map(|bias| ("bias", bias)));
        operands.extend([("a", a), ("b", b)]);
        let dtype = self.dtype(lora::NAME, &operands)?;
        let (out_features, in_features) = base::features(w, bias.map(|bias| bias as &dyn Described))?;
        let rank = lora::layer(x, w, a, b)?;
        for (name, operand) in &operands[1..] {
            operand.require_contiguous(lora::NAME, name)?;
        }
        let rows = rows(lora::NAME, x)?;
        let op = LoraLinear::new(rows.count, in_features, out_features, rank, scale, dtype);
        let op = LoraLinear { x_row: rows.stride, bias: bias.is_some(), ..op };
        self.run(op.into(), &operands, lora::output_shape(x.dims(), out_features).into_dims())
    }

    /// scale (x Aᵀ) Bᵀ, as [`crate::lora_delta`].
    ///
    /// # Errors
    /// Those of [`Region::lora_linear`].
    pub fn lora_delta(&mut self, x: &Value, a: &Value, b: &Value, scale: f32) -> candle_core::Result<Value> {
        let operands = [("x", x), ("a", a), ("b", b)];
        let dtype = self.dtype(lora::DELTA, &operands)?;
        let rank = lora::adapter(lora::DELTA, x, a, b)?;
        for (name, operand) in &operands[1..] {
            operand.require_contiguous(lora::DELTA, name)?;
        }
        let (rows, out_features) = (rows(lora::DELTA, x)?, b.dims()[0]);
        let op = LoraDelta::new(rows.count, rows.length, out_features, rank, scale, dtype);
        let op = LoraDelta { x_row: rows.stride, ..op };
        self.run(op.into(), &operands, lora::output_shape(x.dims(), out_features).into_dims())
    }

    fn dtype(&self, op: &'static str, operands: &[Operand<'_>]) -> Result<DType> {
        for (name, value) in operands {
            self.check(name, value)?;
        }
        same_dtype(op, operands.iter().map(|&(name, value)| (name, value as &dyn Described)))
    }

    /// Whether a value is of this region.
    pub(super) fn check(&self, name: &str, value: &Value) -> Result<()> {
        if value.region == self.id {
            return Ok(());
        }
        Err(refused(
            format!("{name} {:?} is of another region", value.shape),
            "return it as a tensor, and give that in",
        ))
    }

    fn run(&mut self, op: Op, operands: &[Operand<'_>], shape: Vec<usize>) -> candle_core::Result<Value> {
        Ok(self.encode(op, operands, shape)?)
    }

    fn encode(&mut self, op: Op, operands: &[Operand<'_>], shape: Vec<usize>) -> Result<Value> {
        let Some(stream) = &mut self.stream else { unreachable!("it is taken when the region ends") };
        let kernel = stream.prepare(&op, self.engine)?;
        let output = self.allocate(shape, operands[0].1.dtype)?;
        let (read, written) = self.memory.split(output.memory);
        let dtype = op.dtype();
        let mut inputs = ArrayVec::<Input<'_>, { compute::MOST_INPUTS }>::new();
        for (name, value) in operands {
            let input =
                read(value.memory).and_then(|memory| memory.input(dtype, value.start * dtype.bytes(), value.span()));
            inputs.push(input.ok_or_else(|| refused(format!("{name} leaves its memory"), "report this"))?);
        }
        let elements = output.shape.iter().product();
        let mut outputs =
            [written.output(dtype, 0, elements).unwrap_or_else(|| unreachable!("it was made this large"))];
        let Some(stream) = &mut self.stream else { unreachable!("as above") };
        stream.encode(&kernel, &inputs, &mut outputs)?;
        Ok(output)
    }
}

/// A value as rows with one stride between them.
fn rows(op: &'static str, x: &Value) -> Result<Rows> {
    if x.shape.is_empty() {
        return Err(crate::error::shape(op, ("x", x), "a scalar has no rows: give it a dimension"));
    }
    if let Some(rows) = Rows::of(x.layout()) {
        return Ok(rows);
    }
    x.require_contiguous(op, "x")?;
    let (length, count) = (x.shape[x.shape.len() - 1], x.shape[..x.shape.len() - 1].iter().product());
    Ok(Rows { count, length, stride: length })
}
