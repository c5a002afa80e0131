//! Products against the f64 reference, finite differences and Candle's own product.

mod numbers;

use candle_core::{D, DType, Device, Result, Shape, Tensor, Var};
use candlewick::{MatMul, Op};
use candlewick_candle::matmul;
use numbers::*;
use proptest::prelude::*;

/// A B in Candle's own operations, which want three contiguous dimensions.
fn candles(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (outer_a, outer_b) = (&a.dims()[..a.rank() - 2], &b.dims()[..b.rank() - 2]);
    let outer = Shape::from(outer_a).broadcast_shape_binary_op(&Shape::from(outer_b), "test")?;
    let flat = |x: &Tensor| {
        let (rows, cols) = (x.dim(D::Minus2)?, x.dim(D::Minus1)?);
        let whole = x.broadcast_as([outer.dims(), &[rows, cols]].concat())?;
        whole.contiguous()?.reshape((outer.elem_count(), rows, cols))
    };
    let (m, n) = (a.dim(D::Minus2)?, b.dim(D::Minus1)?);
    flat(a)?.matmul(&flat(b)?)?.reshape([outer.dims(), &[m, n]].concat())
}

fn expected(a: &Tensor, b: &Tensor) -> Vec<f64> {
    numbers(&candles(&a.to_dtype(DType::F64).unwrap(), &b.to_dtype(DType::F64).unwrap()).unwrap())
}

fn bound(k: usize, dtype: DType) -> f64 {
    let dtype = match dtype {
        DType::F16 => candlewick::DType::F16,
        DType::BF16 => candlewick::DType::BF16,
        _ => candlewick::DType::F32,
    };
    Op::from(MatMul::new(1, 1, k, dtype)).error_bound()
}

#[test]
fn products_agree_with_the_reference_on_odd_shapes() -> Result<()> {
    for dtype in DTYPES {
        for (m, n, k) in [(1, 1, 1), (3, 17, 5), (65, 33, 17), (1, 64, 64), (64, 1, 63), (2, 130, 65)] {
            let (a, b) = (tensor(1, &[m, k], dtype), tensor(2, &[k, n], dtype));
            let op = MatMul::new(m, n, k, candlewick::DType::F32);
            let [c] = reference(op, &[&numbers(&a), &numbers(&b)], [m * n]);
            for (a, b) in [
                (a.clone(), b.clone()),
                (with_gaps(&a), b.clone()),
                (a.clone(), with_gaps(&b)),
                (through_transpose(&a), b.clone()),
                (with_gaps(&a), through_transpose(&b)),
                (through_transpose(&with_gaps(&a)), with_gaps(&through_transpose(&b))),
            ] {
                let found = matmul(&a, &b)?;
                assert_eq!(found.dims(), [m, n]);
                assert_eq!(found.dtype(), dtype);
                assert_close(&found, &c, bound(k, dtype), &format!("{m}x{n}x{k} {dtype:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn batches_broadcast_both_ways() -> Result<()> {
    for (a, b) in [
        (vec![4, 3, 5], vec![4, 5, 2]),
        (vec![4, 3, 5], vec![5, 2]),
        (vec![3, 5], vec![4, 5, 2]),
        (vec![2, 1, 3, 5], vec![1, 7, 5, 2]),
        (vec![2, 1, 2, 1, 3, 5], vec![1, 3, 1, 2, 5, 2]),
        (vec![1, 1, 3, 5], vec![5, 2]),
    ] {
        let (a, b) = (tensor(3, &a, DType::F32), tensor(4, &b, DType::F32));
        let c = matmul(&a, &b)?;
        assert_eq!(c.dims(), candles(&a, &b)?.dims());
        assert_close(&c, &expected(&a, &b), bound(5, DType::F32), &format!("{a:?} {b:?}"));
    }
    Ok(())
}

#[test]
fn attention_heads_are_read_in_place_or_copied() -> Result<()> {
    // [batch, time, heads, size] as [batch, heads, time, size], and a view with no stride of one.
    let heads = |seed| tensor(seed, &[2, 5, 3, 4], DType::F32).permute((0, 2, 1, 3));
    let (q, k) = (heads(5)?, heads(6)?);
    let scores = matmul(&q, &k.t()?)?;
    assert_close(&scores, &expected(&q, &k.t()?), bound(4, DType::F32), "scores");
    let a = tensor(7, &[4, 3, 5], DType::F32).permute((1, 2, 0))?.narrow(2, 0, 3)?.permute((1, 0, 2))?;
    let b = tensor(8, &[1, 1], DType::F32).broadcast_as((3, 2))?;
    assert_close(&matmul(&a, &b)?, &expected(&a, &b), bound(3, DType::F32), "strided and broadcast views");
    Ok(())
}

#[test]
fn empty_products_are_empty_or_zero_and_so_are_their_gradients() -> Result<()> {
    for (a, b) in [
        (vec![0, 3], vec![3, 2]),
        (vec![2, 0], vec![0, 3]),
        (vec![2, 3], vec![3, 0]),
        (vec![0, 2, 3], vec![3, 2]),
        (vec![1, 2, 3], vec![0, 3, 2]),
        (vec![1, 3, 4], vec![5, 4, 0]),
        (vec![5, 3, 0], vec![1, 0, 2]),
    ] {
        let (a, b) = (var(1, &a, DType::F32), var(2, &b, DType::F32));
        let c = matmul(&a, &b)?;
        assert!(numbers(&c).iter().all(|&c| c == 0.0), "{:?}", c.dims());
        let gradients = c.sum_all()?.backward()?;
        for var in [&a, &b] {
            let gradient = gradients.get(var).expect("tracked");
            assert_eq!(gradient.dims(), var.dims());
            assert!(numbers(gradient).iter().all(|&g| g == 0.0));
        }
    }
    Ok(())
}

/// Both gradients of a weighted sum of the product, through Candle's backward.
fn gradients(a: &Var, b: &Var, product: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<[Tensor; 2]> {
    let c = product(a, b)?;
    let loss = weighted_sum(&c, &tensor(9, c.dims(), c.dtype()));
    let gradients = loss.backward()?;
    Ok([a, b].map(|var| gradients.get(var).expect("tracked").clone()))
}

#[test]
fn gradients_agree_with_candles_and_with_finite_differences() -> Result<()> {
    for (a, b) in [
        (vec![3, 5], vec![5, 2]),
        (vec![4, 3, 5], vec![4, 5, 2]),
        (vec![4, 3, 5], vec![5, 2]),
        (vec![3, 5], vec![4, 5, 2]),
        (vec![2, 1, 3, 5], vec![1, 3, 5, 2]),
        (vec![2, 1, 2, 1, 3, 5], vec![1, 3, 1, 2, 5, 2]),
    ] {
        let (a, b) = (var(1, &a, DType::F32), var(2, &b, DType::F32));
        let ours = gradients(&a, &b, matmul)?;
        let theirs = gradients(&a, &b, candles)?;
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours.dims(), theirs.dims());
            assert_close(ours, &numbers(theirs), 1e-6, "against Candle");
        }
    }
    let (m, n, k) = (3, 4, 5);
    let (a, b) = (var(1, &[m, k], DType::F32), var(2, &[k, n], DType::F32));
    let (a64, b64, weights) = (numbers(&a), numbers(&b), numbers(&tensor(9, &[m, n], DType::F32)));
    let product = |a: &[f64], b: &[f64]| {
        let [c] = reference(MatMul::new(m, n, k, candlewick::DType::F32), &[a, b], [m * n]);
        c
    };
    let [da, db] = gradients(&a, &b, matmul)?;
    assert_close(&da, &differences(&a64, &weights, |a| product(a, &b64)), 1e-6, "da");
    assert_close(&db, &differences(&b64, &weights, |b| product(&a64, b)), 1e-6, "db");
    Ok(())
}

#[test]
fn gradients_reach_views_in_every_dtype() -> Result<()> {
    for dtype in DTYPES {
        let (a, b) = (var(1, &[6, 7], dtype), var(2, &[9, 5], dtype));
        let views = |a: &Tensor, b: &Tensor| Ok::<_, candle_core::Error>((a.narrow(1, 1, 5)?, b.narrow(0, 2, 4)?.t()?));
        let ours = gradients(&a, &b, |a, b| views(a, b).and_then(|(a, b)| matmul(&a, &b)))?;
        let (a64, b64) = (Var::from_tensor(&a.to_dtype(DType::F64)?)?, Var::from_tensor(&b.to_dtype(DType::F64)?)?);
        let weights = tensor(9, &[6, 4], dtype).to_dtype(DType::F64)?;
        let (va, vb) = views(&a64, &b64)?;
        let exact = weighted_sum(&va.matmul(&vb)?, &weights).backward()?;
        for (ours, exact) in ours.iter().zip([&a64, &b64].map(|var| exact.get(var).expect("tracked"))) {
            assert_close(ours, &numbers(exact), bound(6, dtype), &format!("{dtype:?}"));
        }
    }
    Ok(())
}

#[test]
fn an_untracked_operand_gets_no_gradient() -> Result<()> {
    let (a, b) = (var(1, &[3, 4], DType::F32), tensor(2, &[4, 2], DType::F32));
    let gradients = matmul(&a, &b)?.sum_all()?.backward()?;
    assert!(gradients.get(&a).is_some() && gradients.get(&b).is_none());
    let c = matmul(&b.t()?, &b)?;
    assert!(!c.track_op(), "nothing to track");
    Ok(())
}

/// A view of a larger tensor: transposed or not, with gaps and an offset, broadcast over a new batch or not.
fn view(seed: u64, batch: &[usize], rows: usize, cols: usize, how: (bool, usize, bool)) -> Result<Tensor> {
    let (transposed, gap, expanded) = how;
    let (rows, cols) = if transposed { (cols, rows) } else { (rows, cols) };
    let shape: Vec<usize> = batch.iter().copied().chain([rows + gap, cols + 2 * gap]).collect();
    let dims = shape.len();
    let whole = tensor(seed, &shape, DType::F32);
    let view = whole.narrow(dims - 2, gap, rows)?.narrow(dims - 1, gap, cols)?;
    let view = if transposed { view.t()? } else { view };
    if expanded { view.broadcast_left(2) } else { Ok(view) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_shapes_and_strides_agree_with_candle(
        m in 0usize..20, n in 0usize..20, k in 0usize..20,
        dims in prop::collection::vec((1usize..4, 0usize..3), 0..4),
        how_a: (bool, bool), how_b: (bool, bool), gap_a in 0usize..3, gap_b in 0usize..3,
    ) {
        // In each batch dimension one operand may be broadcast.
        let batch = |who: usize| dims.iter().map(|&(size, one)| if one == who { 1 } else { size }).collect::<Vec<_>>();
        let a = view(1, &batch(1), m, k, (how_a.0, gap_a, how_a.1)).unwrap();
        let b = view(2, &batch(2), k, n, (how_b.0, gap_b, how_b.1 && dims.is_empty())).unwrap();
        let c = matmul(&a, &b).unwrap();
        if c.elem_count() == 0 || k == 0 {
            prop_assert!(numbers(&c).iter().all(|&c| c == 0.0));
        } else {
            assert_close(&c, &expected(&a, &b), bound(k, DType::F32), "product");
        }
    }
}

#[test]
fn a_gradient_that_is_a_view_is_taken() -> Result<()> {
    // The transpose after the product hands its backward a transposed gradient.
    let (a, b) = (var(1, &[3, 4], DType::F32), var(2, &[4, 2], DType::F32));
    let weights = Tensor::from_vec(vec![1f32, 2., 3., 4., 5., 6.], (2, 3), &Device::Cpu)?;
    let run = |c: Tensor| weighted_sum(&c.t().unwrap(), &weights).backward();
    let (ours, candles) = (run(matmul(&a, &b)?)?, run(a.matmul(&b)?)?);
    for var in [&a, &b] {
        assert_close(ours.get(var).unwrap(), &numbers(candles.get(var).unwrap()), 1e-6, "gradient");
    }
    Ok(())
}
