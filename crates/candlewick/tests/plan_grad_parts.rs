//! Gradients of parts of tensors, of casts and of several seeds, against differences of the loss.

use candlewick::op::Add;
use candlewick::plan::{Recorder, Tensor};
use candlewick::{DType, Device, Plan, Result, Softmax};

const F32: DType = DType::F32;
const ROWS: usize = 5;
const COLS: usize = 8;

fn device() -> Device {
    Device::cpu()
}

/// Where the tests run: the emulator's tests include this file, and have another `device`.
#[allow(unused_qualifications, reason = "it is unnecessary where this file is the root")]
fn here() -> Device {
    crate::device()
}

fn numbers(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * step + 17) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// The sum of a tensor's elements, each as often as the weight of its column says; and the weights.
fn weighted_sum(p: &mut Recorder, y: Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, cols) = p.shape(y);
    let (left, weights) = (p.filled(0.5, 1, rows, F32), p.input("weights", cols, 1, F32));
    let row = p.matmul(left, y)?;
    Ok((p.matmul(row, weights)?, weights))
}

/// Compares the gradient of x with differences. The closure makes y of x; the loss is a weighted sum of y.
fn check(name: &str, closure: impl Fn(&mut Recorder, Tensor) -> Result<Tensor>) {
    let (mut plan, (x, weights, loss, gradient)) = Plan::record(&here(), |p| {
        let x = p.input("x", ROWS, COLS, F32);
        let y = closure(p, x)?;
        let (loss, weights) = weighted_sum(p, y)?;
        let gradient = p.grad(loss, &[x])?[0];
        Ok((x, (weights, p.shape(weights).0), p.output(loss)?, p.output(gradient)?))
    })
    .unwrap();
    let (weights, cols) = weights;
    plan.write(weights, &numbers(cols, 419)).unwrap();
    let mut values = numbers(ROWS * COLS, 131);
    let at = |values: &[f32], plan: &mut Plan| {
        plan.write(x, values).unwrap();
        plan.run().unwrap();
        let mut found = [0f32];
        plan.read(loss, &mut found).unwrap();
        f64::from(found[0])
    };
    at(&values, &mut plan);
    let mut found = vec![0f32; ROWS * COLS];
    plan.read(gradient, &mut found).unwrap();
    let largest = found.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    assert!(largest > 1e-2, "{name}: a gradient of nothing shows nothing");
    let step = 1e-2;
    for i in 0..values.len() {
        let value = values[i];
        values[i] = value + step;
        let above = at(&values, &mut plan);
        values[i] = value - step;
        let slope = (above - at(&values, &mut plan)) / f64::from(2.0 * step);
        values[i] = value;
        let error = (slope - f64::from(found[i])).abs() / f64::from(largest);
        assert!(error < 0.01, "{name}, element {i}: {} and not {slope}", found[i]);
    }
}

#[test]
fn rows_and_columns_give_their_gradients_to_the_whole() {
    check("rows", |p, x| {
        let y = p.softmax(x, 2.0)?;
        let (top, bottom) = (p.rows(y, 0..3)?, p.rows(y, 2..5)?);
        p.silu_mul(top, bottom)
    });
    check("rows of columns", |p, x| {
        let y = p.softmax(x, 2.0)?;
        let columns = p.columns(y, 2..6)?;
        let (part, other) = (p.rows(columns, 1..4)?, p.rows(x, 1..4)?);
        let other = p.columns(other, 0..4)?;
        p.silu_mul(other, part)
    });
    check("a part and the whole", |p, x| {
        let y = p.silu_mul(x, x)?;
        let row = p.rows(y, 3..4)?;
        let products = p.matmul_transposed(y, row)?;
        let columns = p.columns(y, 7..8)?;
        p.add(products, columns)
    });
}

#[test]
fn casts_pass_gradients_back() {
    check("cast", |p, x| {
        let y = p.silu_mul(x, x)?;
        let same = p.cast(y, F32)?;
        p.silu_mul(same, x)
    });
    let (_, shapes) = Plan::record(&here(), |p| {
        let x = p.input("x", ROWS, COLS, F32);
        let narrow = p.cast(x, DType::BF16)?;
        let wide = p.cast(narrow, F32)?;
        let (loss, _) = weighted_sum(p, wide)?;
        let gradient = p.grad(loss, &[x])?[0];
        let columns = p.columns(x, 1..3)?;
        assert!(p.cast(columns, DType::F16).unwrap_err().to_string().contains("cast"));
        Ok((p.shape(gradient), p.dtype(narrow), p.dtype(gradient)))
    })
    .unwrap();
    assert_eq!(shapes, ((ROWS, COLS), DType::BF16, F32));
}

/// The gradient of a part is that part of the whole's; seeds of one tensor add up.
#[test]
fn parameters_and_seeds_may_be_parts() {
    let (mut plan, (x, seed, all, part, twice)) = Plan::record(&here(), |p| {
        let (x, seed) = (p.input("x", ROWS, COLS, F32), p.input("seed", 2, 3, F32));
        let y = p.softmax(x, 1.0)?;
        let rows = p.rows(y, 1..3)?;
        let seeded = p.columns(rows, 4..7)?;
        let all = p.grad_from(&[(seeded, seed)], &[x])?[0];
        let rows = p.rows(x, 1..3)?;
        let part = p.grad_from(&[(seeded, seed)], &[rows])?[0];
        let part = p.softmax(part, 1.0)?;
        let twice = p.grad_from(&[(seeded, seed), (seeded, seed)], &[x])?[0];
        Ok((x, seed, p.output(all)?, p.output(part)?, p.output(twice)?))
    })
    .unwrap();
    let values = numbers(ROWS * COLS, 131);
    let dy = numbers(6, 77);
    plan.write(x, &values).unwrap();
    plan.write(seed, &dy).unwrap();
    plan.run().unwrap();
    let mut found = [vec![0f32; ROWS * COLS], vec![0f32; ROWS * COLS]];
    plan.read(all, &mut found[0]).unwrap();
    plan.read(twice, &mut found[1]).unwrap();
    let mut of_part = vec![0f32; 2 * COLS];
    plan.read(part, &mut of_part).unwrap();
    for row in 0..ROWS {
        let exp: Vec<f64> = values[row * COLS..][..COLS].iter().map(|x| f64::from(*x).exp()).collect();
        let y: Vec<f64> = exp.iter().map(|e| e / exp.iter().sum::<f64>()).collect();
        let seed = |col: usize| match (row, col) {
            (1..3, 4..7) => f64::from(dy[(row - 1) * 3 + col - 4]),
            _ => 0.0,
        };
        let dot: f64 = (0..COLS).map(|col| y[col] * seed(col)).sum();
        for col in 0..COLS {
            let expected = y[col] * (seed(col) - dot);
            assert!((f64::from(found[0][row * COLS + col]) - expected).abs() < 1e-6, "{row}, {col}");
            assert!((f64::from(found[1][row * COLS + col]) - 2.0 * expected).abs() < 2e-6, "{row}, {col}, twice");
        }
    }
    let sums: Vec<f32> = of_part.chunks(COLS).map(|row| row.iter().sum()).collect();
    assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5), "the softmax of two rows of a gradient");
}

/// A gradient of numbers that are no longer there would be wrong without a word.
#[test]
fn what_was_written_again_has_no_gradient() {
    check("added to in place", |p, x| {
        let y = p.silu_mul(x, x)?;
        p.op_into(Add::new(ROWS, COLS, F32), &[y, x], &[y])?;
        p.silu_mul(y, x)
    });
    let mut line = 0;
    let error = Plan::record(&here(), |p| {
        let x = p.input("x", ROWS, COLS, F32);
        let y = p.softmax(x, 1.0)?;
        let z = p.silu_mul(y, x)?;
        p.op_into(Softmax::new(ROWS, COLS, F32), &[z], &[y])?;
        let (loss, _) = weighted_sum(p, z)?;
        line = line!() + 1;
        p.grad(loss, &[x])
    });
    let message = error.err().unwrap().to_string();
    assert!(message.contains(&format!("plan_grad_parts.rs:{line}:")), "{message}");
    assert!(message.contains("silu_mul") && message.contains("writes it again"), "{message}");
}
