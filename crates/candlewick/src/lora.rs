//! A linear layer with a frozen W and a LoRA adapter.

use crate::{Buffer, Device, Element, Error, Input, LoraLinear, Op, Output, Result, Stream};

/// y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ with W [out, in] frozen and packed once, A [rank, in] and B [out, rank].
///
/// ```
/// use candlewick::{DType, Device, LoraLinear, lora};
///
/// let device = Device::cpu();
/// let mut stream = device.stream()?;
/// let (w, a, b) = (vec![0.5f32; 8 * 4], vec![0.1f32; 2 * 4], vec![0.2f32; 8 * 2]);
/// let shape = LoraLinear::new(0, 4, 8, 2, 16.0 / 2.0, DType::F32);
/// let layer = lora::Layer::new(&device, &mut stream, shape, &w, None, &a, &b)?;
/// let (x, mut y) = (vec![1f32; 3 * 4], vec![0f32; 3 * 8]);
/// layer.forward(&mut stream, 3, x[..].into(), y[..].as_mut().into())?;
/// assert!((y[0] - (2.0 + 8.0 * 2.0 * 0.4 * 0.2)).abs() < 1e-5);
/// # Ok::<(), candlewick::Error>(())
/// ```
#[derive(Debug)]
pub struct Layer {
    shape: LoraLinear,
    w: Buffer,
    w_backward: Option<Buffer>,
    bias: Option<Buffer>,
    a: Buffer,
    b: Buffer,
}

impl Layer {
    /// A layer for any number of rows: `shape.rows` does not matter. W is packed, and not kept plain.
    ///
    /// # Errors
    /// Slices that do not have the shape's sizes and dtype.
    pub fn new<T: Element>(
        device: &Device,
        stream: &mut Stream,
        shape: LoraLinear,
        w: &[T],
        bias: Option<&[T]>,
        a: &[T],
        b: &[T],
    ) -> Result<Self> {
        let shape = LoraLinear { bias: bias.is_some(), ..shape }.packed();
        let kernel = stream.prepare(shape)?;
        let mut copy = |operand, from: &[T], rows, cols| -> Result<Buffer> {
            if from.len() != rows * cols {
                return Err(wrong_length(operand, from.len(), rows, cols));
            }
            let mut buffer = device.alloc(shape.dtype, from.len())?;
            stream.write(&mut buffer, from)?;
            Ok(buffer)
        };
        let a = copy("a", a, shape.rank, shape.in_features)?;
        let b = copy("b", b, shape.out_features, shape.rank)?;
        let bias = bias.map(|bias| copy("bias", bias, 1, shape.out_features)).transpose()?;
        if w.len() != shape.out_features * shape.in_features {
            return Err(wrong_length("w", w.len(), shape.out_features, shape.in_features));
        }
        let w = stream.pack(&kernel, w.into())?;
        Ok(Layer { shape, w, w_backward: None, bias, a, b })
    }

    /// Packs W for the backward too, which reads it along its other side: as much memory again.
    ///
    /// # Errors
    /// A slice that is not the W that the layer was made from, as far as its size shows.
    pub fn trainable<T: Element>(mut self, stream: &mut Stream, w: &[T]) -> Result<Self> {
        if w.len() != self.shape.out_features * self.shape.in_features {
            return Err(wrong_length("w", w.len(), self.shape.out_features, self.shape.in_features));
        }
        let kernel = stream.prepare(Op::LoraLinearBackward(self.shape))?;
        self.w_backward = Some(stream.pack(&kernel, w.into())?);
        Ok(self)
    }

    /// y from x: `rows` contiguous rows each.
    ///
    /// # Errors
    /// Tensors of another size or dtype.
    pub fn forward(&self, stream: &mut Stream, rows: usize, x: Input<'_>, y: Output<'_>) -> Result<()> {
        let kernel = stream.prepare(LoraLinear { rows, ..self.shape })?;
        let (w, a, b) = ((&self.w).into(), (&self.a).into(), (&self.b).into());
        match &self.bias {
            Some(bias) => stream.encode(&kernel, &[x, w, bias.into(), a, b], &mut [y]),
            None => stream.encode(&kernel, &[x, w, a, b], &mut [y]),
        }
    }

    /// `[dx, da, db]` from x and dy: `rows` contiguous rows of x, dy and dx; da and db as A and B.
    ///
    /// # Errors
    /// Tensors of another size or dtype, or a layer that was not made [`Layer::trainable`].
    pub fn backward(
        &self,
        stream: &mut Stream,
        rows: usize,
        x: Input<'_>,
        dy: Input<'_>,
        mut gradients: [Output<'_>; 3],
    ) -> Result<()> {
        let op = Op::LoraLinearBackward(LoraLinear { rows, ..self.shape });
        let Some(w) = &self.w_backward else {
            return Err(Error::Descriptor {
                op: op.name(),
                field: "w",
                value: "packed for the forward only".into(),
                remedy: "make the layer with `Layer::trainable`",
            });
        };
        let kernel = stream.prepare(op)?;
        let inputs = [x, w.into(), (&self.a).into(), (&self.b).into(), dy];
        stream.encode(&kernel, &inputs, &mut gradients)
    }

    /// The sizes; `rows` does not matter.
    pub fn shape(&self) -> &LoraLinear {
        &self.shape
    }

    /// A [rank, in].
    pub fn a(&mut self) -> &mut Buffer {
        &mut self.a
    }

    /// B [out, rank].
    pub fn b(&mut self) -> &mut Buffer {
        &mut self.b
    }
}

fn wrong_length(operand: &'static str, elements: usize, rows: usize, cols: usize) -> Error {
    Error::ShapeMismatch {
        op: "lora_linear",
        left: operand,
        left_shape: [rows, cols].into(),
        right: "the slice",
        right_shape: [elements].into(),
        remedy: "pass the whole tensor, row by row",
    }
}
