//! LoRA where rows are many: the product with W, then the delta added to it (beta = 1).
//!
//! Between the two the layer's y is rounded to the dtype, and so is h = x Aᵀ. That is as PyTorch does it, and within the
//! operation's bound but for f16, where h or the layer without its delta could overflow: f16 goes by own kernels.
//!
//! The layer's backward is six products, or the one with W and two launches of own kernels: on an H100 the latter took
//! 0.4 to 0.9 times as long in every shape that was measured up to rank 32 (`kernels/lora_backward.cu`), and 1.6 times
//! with rank 64.

use super::product::{Product, Where};
use crate::ops::{Build, Step, Work};
use crate::{fused, mma};
use candlewick_core::{DType, LoraDelta, LoraLinear, MatMul, Op, Result};
use candlewick_kernels::Place;

/// Whether the library runs it.
pub(crate) fn runs_lora(op: &Op) -> bool {
    let (rows, ins, outs, rank, scale) = match op {
        Op::LoraLinear(op) | Op::LoraLinearBackward(op) => {
            (op.rows, op.in_features, op.out_features, op.rank, op.scale)
        }
        Op::LoraDelta(op) | Op::LoraDeltaBackward(op) => (op.rows, op.in_features, op.out_features, op.rank, op.scale),
        _ => return false,
    };
    let fits = [rows, ins, outs].iter().all(|&size| (1..1 << 31).contains(&size));
    if rank == 0 {
        // A product alone.
        return fits && matches!(op, Op::LoraLinear(_));
    }
    fits && rank < 1 << 31 && scale.get() != 0.0 && op.dtype() != DType::F16
}

/// Tensors of the call, by their place among inputs and outputs; A, B, then y or dy.
#[derive(Clone, Copy)]
struct Delta {
    x: usize,
    a: usize,
    b: usize,
    y: usize,
}

/// y = x Wᵀ + bias, or added to y, then y += scale (x Aᵀ) Bᵀ where there is a rank.
///
/// # Errors
/// No algorithm, or no memory.
pub(crate) fn lora_linear(op: &LoraLinear, build: &mut Build<'_>) -> Result<Vec<Step>> {
    let LoraLinear { rows, in_features, out_features, rank, scale, x_row, y_row, dtype, .. } = *op;
    let whole = Op::from(*op);
    let after_w = 2 + usize::from(op.bias);
    let tensors = Delta { x: 0, a: after_w, b: after_w + 1, y: after_w + 2 };
    let mut base = MatMul::new(rows, out_features, in_features, dtype).trans_b();
    base = base.scaled(1.0, if op.accumulate { 1.0 } else { 0.0 });
    (base.lda, base.ldc) = (x_row, y_row);
    let bias = op.bias.then_some(Where::Tensor(2));
    let places = [Where::Tensor(tensors.x), Where::Tensor(1), Where::Tensor(tensors.y)];
    let mut steps = vec![step(Product::new(&base, &whole, places, bias, build)?)];
    if rank == 0 {
        return Ok(steps);
    }
    let delta = LoraDelta::new(rows, in_features, out_features, rank, scale.get(), dtype).accumulate();
    let delta = LoraDelta { x_row, y_row, ..delta };
    steps.extend(products(&delta, &whole, tensors, build)?);
    Ok(steps)
}

/// y = scale (x Aᵀ) Bᵀ, or added to y.
///
/// # Errors
/// No algorithm, or no memory.
pub(crate) fn lora_delta(op: &LoraDelta, build: &mut Build<'_>) -> Result<Vec<Step>> {
    products(op, &Op::from(*op), Delta { x: 0, a: 1, b: 2, y: 3 }, build)
}

fn products(op: &LoraDelta, whole: &Op, tensors: Delta, build: &mut Build<'_>) -> Result<Vec<Step>> {
    let LoraDelta { rows, in_features, out_features, rank, scale, dtype, .. } = *op;
    let h = Where::Own(build.workspace(bytes(rows, rank, dtype))?);
    let [x, a, b, y] = [tensors.x, tensors.a, tensors.b, tensors.y].map(Where::Tensor);
    let mut down = MatMul::new(rows, rank, in_features, dtype).trans_b();
    down.lda = op.x_row;
    let mut up = MatMul::new(rows, out_features, rank, dtype).trans_b();
    up = up.scaled(scale.get(), if op.accumulate { 1.0 } else { 0.0 });
    up.ldc = op.y_row;
    let down = Product::new(&down, whole, [x, a, h], None, build)?;
    let up = Product::new(&up, whole, [h, b, y], None, build)?;
    Ok(vec![step(down), step(up)])
}

/// The tensors of the layer's backward: five inputs, three outputs; what another matrix added to dx is behind them.
const BEHIND_BACKWARD: usize = 8;

/// The layer's backward: dx = dy W + dh A, with dh = scale dy B; da = dhᵀ x; db = scale dyᵀ h. With `added` another
/// tensor is behind those of the operation, which lies as dx does and is added to it.
///
/// # Errors
/// No algorithm, no memory, or what the compiler says.
pub(crate) fn lora_linear_backward(op: &LoraLinear, added: bool, build: &mut Build<'_>) -> Result<Work> {
    let LoraLinear { rows, in_features, out_features, rank, scale, x_row, y_row, dtype, .. } = *op;
    let whole = Op::LoraLinearBackward(*op);
    let delta = LoraDelta::new(rows, in_features, out_features, rank, scale.get(), dtype);
    let delta = LoraDelta { x_row, y_row, ..delta };
    let base = base_of_backward(op, added);
    let base = |build: &mut Build<'_>| {
        let product = Product::new(&base, &whole, [4, 1, 5].map(Where::Tensor), None, build)?;
        let product = if added { product.added(Where::Tensor(BEHIND_BACKWARD)) } else { product };
        Ok::<_, candlewick_core::Error>(step(product))
    };
    let mut any = vec![base(build)?];
    any.extend(backward(&delta, &whole, Some(1), build)?);
    let work = Work::products(any);
    let Some(own) = mma::behind_products(&[*op], false, build.chip()) else { return Ok(work) };
    let workspace = build.workspace(own.workspace_bytes)?;
    let place = |place| match place {
        Place::Input(0) => 0,
        // Behind x and W.
        Place::Input(index) => 1 + usize::from(index),
        Place::Output(index) => 5 + usize::from(index),
        Place::Workspace => 0,
    };
    let steps = vec![base(build)?, fused::launches(&own, workspace, place, build)?];
    Ok(Work { variant: "product and fragments", aligned: Some((own.alignment.into(), steps)), ..work })
}

/// dx = dy W of the layer's backward, or added to something.
pub(crate) fn base_of_backward(op: &LoraLinear, added: bool) -> MatMul {
    let LoraLinear { rows, in_features, out_features, x_row, y_row, dtype, .. } = *op;
    let base = MatMul { lda: y_row, ldc: x_row, ..MatMul::new(rows, in_features, out_features, dtype) };
    base.scaled(1.0, if added { 1.0 } else { 0.0 })
}

/// The delta's backward: as the layer's, without W.
///
/// # Errors
/// No algorithm, or no memory.
pub(crate) fn lora_delta_backward(op: &LoraDelta, build: &mut Build<'_>) -> Result<Work> {
    Ok(Work::products(backward(op, &Op::LoraDeltaBackward(*op), None, build)?))
}

/// All but dy W, which is in dx where there is a W.
fn backward(op: &LoraDelta, whole: &Op, w: Option<usize>, build: &mut Build<'_>) -> Result<Vec<Step>> {
    let LoraDelta { rows, in_features: ins, out_features: outs, rank, scale, x_row, y_row, dtype, .. } = *op;
    let scale = scale.get();
    let first = w.map_or(1, |w| w + 1);
    let x = Where::Tensor(0);
    let [a, b, dy, dx, da, db] = [0, 1, 2, 3, 4, 5].map(|i| Where::Tensor(first + i));
    let h = Where::Own(build.workspace(bytes(rows, rank, dtype))?);
    let dh = Where::Own(build.workspace(bytes(rows, rank, dtype))?);
    let product = |m, n, k| MatMul::new(m, n, k, dtype);
    let mut steps = Vec::with_capacity(5);
    let mut add = |op: MatMul, places| {
        steps.push(step(Product::new(&op, whole, places, None, build)?));
        Ok(())
    };
    add(MatMul { lda: x_row, ..product(rows, rank, ins).trans_b() }, [x, a, h])?;
    add(MatMul { lda: y_row, ..product(rows, rank, outs).scaled(scale, 0.0) }, [dy, b, dh])?;
    let beta = if w.is_some() { 1.0 } else { 0.0 };
    add(MatMul { ldc: x_row, ..product(rows, ins, rank).scaled(1.0, beta) }, [dh, a, dx])?;
    add(MatMul { ldb: x_row, ..product(rank, ins, rows).trans_a() }, [dh, x, da])?;
    add(MatMul { lda: y_row, ..product(outs, rank, rows).trans_a().scaled(scale, 0.0) }, [dy, h, db])?;
    Ok(steps)
}

fn step(product: Product) -> Step {
    Step::Product(Box::new(product))
}

fn bytes(rows: usize, rank: usize, dtype: DType) -> u64 {
    rows as u64 * rank as u64 * dtype.bytes() as u64
}
