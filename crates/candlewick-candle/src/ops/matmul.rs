//! C = A B, batched.

use crate::compute::{self, Compute, Source, forwards};
use crate::error::{self, Error, Result};
use crate::operand::{self, elements, gradient};
use candle_core::{CustomOp2, Layout, Shape, Tensor};
use candlewick::op::{Gradient, MatMulOperand};
use candlewick::{DType, MatMul};

pub(crate) const NAME: &str = "matmul";

/// The matrix product of a [.., m, k] and b [.., k, n]: [.., m, n], differentiable in both.
///
/// Both are f32, f16 or bf16. Leading dimensions are batches and broadcast against each other, and a gradient sums
/// over what was broadcast. Transposed and strided views are read in place; only views without a stride of one along
/// rows or columns are copied first.
///
/// # Errors
/// Shapes that do not fit, fewer than two dimensions, different or other dtypes, different devices, or one that this build
/// does not compute on.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let a = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let c = candlewick_candle::matmul(&a, &a.t()?)?;
/// assert_eq!(c.to_vec2::<f32>()?, [[5.0, 11.0], [11.0, 25.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn matmul(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    match Product::of(a, b) {
        Ok(product) => a.apply_op2(b, product),
        Err(Error::Candlewick(candlewick::Error::Strides { .. })) => {
            let (a, b) = in_place(a, b)?;
            a.apply_op2(&b, Product::of(&a, &b)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// The same tensors with strides that a product takes: contiguous, and with the broadcast spelled out where there are
/// more batch dimensions than a descriptor has.
fn in_place(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let (copied_a, copied_b) = (operand::contiguous(NAME, ("a", a))?, operand::contiguous(NAME, ("b", b))?);
    if Product::of(&copied_a, &copied_b).is_ok() {
        return Ok((copied_a, copied_b));
    }
    let (a_outer, a_matrix) = a.dims().split_at(a.rank() - 2);
    let (b_outer, b_matrix) = b.dims().split_at(b.rank() - 2);
    let outer = Shape::from(a_outer).broadcast_shape_binary_op(&Shape::from(b_outer), NAME)?;
    let spell_out = |name, tensor: &Tensor, matrix: &[usize]| {
        operand::contiguous(NAME, (name, &tensor.broadcast_as([outer.dims(), matrix].concat())?))
    };
    Ok((spell_out("a", a, a_matrix)?, spell_out("b", b, b_matrix)?))
}

/// The product of two layouts, and the shape of C.
pub(crate) fn op(
    a: candlewick::Layout<'_>,
    b: candlewick::Layout<'_>,
    dtype: DType,
) -> candlewick::Result<(MatMul, Vec<usize>)> {
    let (op, shape) = MatMul::of(a, b, dtype)?;
    // Of an empty C nothing is read, however short a broadcast operand is.
    Ok((if shape.contains(&0) { MatMul::new(0, 0, 0, dtype) } else { op }, shape))
}

struct Product {
    op: MatMul,
    /// Whether Candle's own computes it.
    candle: bool,
    shape: Vec<usize>,
    /// The products that give the gradients of a and of b, where these are tracked.
    gradients: [Option<Gradient>; 2],
}

impl Product {
    fn of(a: &Tensor, b: &Tensor) -> Result<Self> {
        let dtype = operand::dtype(NAME, &[("a", a), ("b", b)])?;
        if a.rank() < 2 || b.rank() < 2 {
            return Err(error::mismatch(NAME, ("a", a), ("b", b), "a matrix has at least two dimensions"));
        }
        let (a_layout, b_layout) = (operand::layout(a.layout()), operand::layout(b.layout()));
        let (op, shape) = op(a_layout, b_layout, dtype)?;
        // A gradient is a new contiguous tensor, so its product is that of a contiguous operand.
        let gradient_of_a = || {
            let layout = Layout::contiguous(a.shape());
            MatMul::of(operand::layout(&layout), b_layout, dtype).map(|(op, _)| op.grad_a())
        };
        let gradient_of_b = || {
            let layout = Layout::contiguous(b.shape());
            MatMul::of(a_layout, operand::layout(&layout), dtype).map(|(op, _)| op.grad_b())
        };
        let gradients = [a.track_op().then(gradient_of_a).transpose()?, b.track_op().then(gradient_of_b).transpose()?];
        let candle = compute::candle_runs(&op.into(), a.device())?;
        Ok(Product { op, candle, shape, gradients })
    }
}

impl Product {
    fn forward<S: Compute>(
        &self,
        [(a, a_layout), (b, b_layout)]: [(&S, &Layout); 2],
    ) -> candle_core::Result<(S, Shape)> {
        let shape = Shape::from(self.shape.as_slice());
        let inputs = [Source::Tensor(a, a_layout), Source::Tensor(b, b_layout)];
        let c = compute::forward(self.op.into(), self.candle, &inputs, elements(shape.dims()))?;
        Ok((c, shape))
    }
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        NAME
    }

    forwards!(a a_layout, b b_layout);

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        dc: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let dc = operand::contiguous(NAME, ("dc", dc))?;
        let product = |of: &Tensor, gradient_product: &Option<Gradient>| -> Result<Option<Tensor>> {
            let Some(Gradient { op, a: left, b: right }) = gradient_product else { return Ok(None) };
            // Nothing to sum: the batches of an empty product do not tell what was broadcast.
            if c.elem_count() == 0 || of.elem_count() == 0 {
                return Ok(Some(of.zeros_like()?));
            }
            let tensor = |operand: &MatMulOperand| match operand {
                MatMulOperand::A => a,
                MatMulOperand::B => b,
                MatMulOperand::GradC => &dc,
            };
            let sum = compute::product(*op, [tensor(left), tensor(right)], of.elem_count())?;
            Ok(gradient(of, sum))
        };
        Ok((product(a, &self.gradients[0])?, product(b, &self.gradients[1])?))
    }
}
