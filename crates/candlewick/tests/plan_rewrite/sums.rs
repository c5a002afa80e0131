//! Sums of products with neighbouring rows of a frozen weight are one product, where that is certain.

use crate::recorded::*;
use candlewick::op::{Attention, Rope, SiluMul};
use candlewick::plan::Tensor;
use candlewick::{DType, LoraLinear, MatMul, Op, Result, RmsNorm};

const WIDTH: usize = 64;
const INNER: usize = 96;

/// x + W (silu(gate) · up) of a norm of x.
fn feed_forward(m: &mut Maker<'_>, x: Tensor, swapped: bool) -> Result<Tensor> {
    let norm = m.constant(1, WIDTH);
    let [gate, up] = [0, 1].map(|_| m.constant(INNER, WIDTH));
    let down = m.constant(WIDTH, INNER);
    let normed = m.p.rms_norm(x, norm, 1e-5)?;
    let (gate, up) = (m.p.linear(normed, gate, None)?, m.p.linear(normed, up, None)?);
    let hidden = if swapped { m.p.silu_mul(up, gate)? } else { m.p.silu_mul(gate, up)? };
    let y = m.p.linear(hidden, down, None)?;
    m.p.add(x, y)
}

/// x + attention of a norm of x.
fn attention(m: &mut Maker<'_>, x: Tensor) -> Result<Tensor> {
    let (heads, kv_heads, head) = (4, 2, 8);
    let ((rows, _), dtype) = (m.p.shape(x), m.dtype);
    let frequencies = m.p.constant("frequencies", 1, head / 2, F32);
    m.made.floats.push((frequencies, F32, vec![1.0, 0.3, 0.1, 0.03]));
    let positions = m.words(&(0..rows as u32).collect::<Vec<_>>());
    let spans = m.p.input("spans", 1, 4, DType::U32);
    m.made.words.push((spans, vec![0, rows as u32, 0, rows as u32]));
    let norm = m.constant(1, WIDTH);
    let weights = [heads, kv_heads, kv_heads].map(|heads| m.constant(heads * head, WIDTH));
    let out = m.constant(WIDTH, heads * head);
    let normed = m.p.rms_norm(x, norm, 1e-5)?;
    let (q, k) = (m.p.linear(normed, weights[0], None)?, m.p.linear(normed, weights[1], None)?);
    let v = m.p.linear(normed, weights[2], None)?;
    let q = m.p.rope(q, positions, frequencies, Rope::new(rows, heads, head, dtype))?;
    let k = m.p.rope(k, positions, frequencies, Rope::new(rows, kv_heads, head, dtype))?;
    let y = m.p.attention(q, k, v, spans, Attention::new(rows, rows, heads, kv_heads, head, dtype))?;
    let y = m.p.linear(y, out, None)?;
    m.p.add(x, y)
}

/// Weights stay plain, as on GPUs; a block's gradient is then a product for q, k and v, and one for gate and up.
#[test]
fn gradients_of_joined_products_are_one_product() {
    for dtype in [F32, BF16] {
        for rows in [1, 5, 13] {
            for swapped in [false, true] {
                let limit = 16.0 * bound(LoraLinear::new(rows, WIDTH, INNER, 0, 0.0, dtype));
                let ran = both(dtype, limit, |m| {
                    m.p.plain_weights();
                    let (x, seed) = (m.input(rows, WIDTH), m.input(rows, WIDTH));
                    let between = attention(m, x)?;
                    let y = feed_forward(m, between, swapped)?;
                    let gradients = m.p.grad_from(&[(y, seed)], &[x])?;
                    m.output(y)?;
                    m.output(gradients[0])
                });
                assert_eq!((ran.rewrites.joined, ran.rewrites.summed), (3, 3), "{}", ran.described);
                // The constants of the forward, and no others.
                let joined = [WIDTH, 2 * INNER].map(|k| format!("matmul {rows}x{WIDTH}x{k} "));
                joined.iter().for_each(|it| assert!(ran.described.contains(it), "{it}: {}", ran.described));
                let weights = (WIDTH + WIDTH / 2 + 3 * INNER) * WIDTH + 2 * WIDTH;
                let kib = (weights * dtype.bytes() + 4 * 4).div_ceil(1024);
                assert!(ran.described.contains(&format!("constants {kib} KiB")), "{kib}: {}", ran.described);
            }
        }
    }
}

/// Gate, up and a third layer of the same x: their gradients make one product, or, where the third's is kept, those of
/// gate and up do, with the gap that their strides have, added to the third's.
#[test]
fn a_part_of_a_joined_weight_is_enough() {
    for kept in [false, true] {
        for rows in [1, 6] {
            let limit = 16.0 * bound(LoraLinear::new(rows, WIDTH, WIDTH, 0, 0.0, F32));
            let ran = both(F32, limit, |m| {
                m.p.plain_weights();
                let (x, seed) = (m.input(rows, WIDTH), m.input(rows, WIDTH));
                let [gate, up, value] = [0, 1, 2].map(|_| m.constant(WIDTH, WIDTH));
                let norm = m.constant(1, WIDTH);
                let normed = m.p.rms_norm(x, norm, 1e-5)?;
                let (gate, up) = (m.p.linear(normed, gate, None)?, m.p.linear(normed, up, None)?);
                let value = m.p.linear(normed, value, None)?;
                let hidden = m.p.silu_mul(gate, up)?;
                let softmax = m.p.softmax(value, 1.0)?;
                let y = m.p.add(hidden, softmax)?;
                let gradients = m.p.grad_from(&[(y, seed)], &[x, value])?;
                m.output(y)?;
                m.output(gradients[0])?;
                if kept { m.output(gradients[1]) } else { Ok(()) }
            });
            assert_eq!(ran.rewrites.joined, 2, "{}", ran.described);
            assert_eq!(ran.rewrites.summed, if kept { 1 } else { 2 }, "{}", ran.described);
        }
    }
}

/// What is multiplied with some rows of a constant.
struct Parts {
    a: [Tensor; 2],
    b: Tensor,
}

const INS: [usize; 2] = [20, 12];
const OUTS: usize = 8;

/// How many products a closure over two temporaries and a constant saves.
fn summed(rows: usize, make: impl Fn(&mut Maker<'_>, Parts) -> Result<()>) -> usize {
    let ran = both(F32, 1e-5, |m| {
        let x = INS.map(|ins| m.input(rows, ins));
        let b = m.constant(INS[0] + INS[1], OUTS);
        let a = [m.temporary(x[0])?, m.temporary(x[1])?];
        make(m, Parts { a, b })
    });
    ran.rewrites.summed
}

/// The products with the rows from `first` on, added in this order or the other.
fn products(m: &mut Maker<'_>, it: &Parts, first: [usize; 2], swapped: bool) -> Result<Tensor> {
    let mut y = Vec::new();
    for i in 0..2 {
        let b = m.p.rows(it.b, first[i]..first[i] + INS[i])?;
        y.push(m.p.matmul(it.a[i], b)?);
    }
    if swapped { m.p.add(y[1], y[0]) } else { m.p.add(y[0], y[1]) }
}

#[test]
fn rows_of_a_constant_meet() {
    for rows in [1, 3, 17] {
        // Either term may have the upper rows, and either may be the first.
        for (first, swapped) in [([0, 20], false), ([0, 20], true), ([12, 0], false), ([12, 0], true)] {
            let ran = both(F32, 1e-5, |m| {
                let x = INS.map(|ins| m.input(rows, ins));
                let b = m.constant(INS[0] + INS[1], OUTS);
                let a = [m.temporary(x[0])?, m.temporary(x[1])?];
                let y = products(m, &Parts { a, b }, first, swapped)?;
                m.output(y)
            });
            assert_eq!((ran.rewrites.summed, ran.operations), (1, 3), "{}", ran.described);
            let b = numbers((INS[0] + INS[1]) * OUTS, 2);
            let mut expected = vec![0.0; rows * OUTS];
            for i in 0..2 {
                let x = numbers(rows * INS[i], i);
                for (at, y) in expected.iter_mut().enumerate() {
                    let term = |p: usize| x[at / OUTS * INS[i] + p] * b[(first[i] + p) * OUTS + at % OUTS];
                    *y += (0..INS[i]).map(|p| f64::from(term(p))).sum::<f64>();
                }
            }
            close(&ran.outputs[0], &expected, 1e-5, "the reference");
        }
    }
}

/// What dies with the operation that writes both parts has their strides and sizes, but the second part is no place for it.
#[test]
fn columns_lie_on_nothing_that_is_read() {
    const ROWS: usize = 5;
    let ran = both(F32, 1e-5, |m| {
        let (x, dy) = (m.input(ROWS, 2 * INNER), m.input(ROWS, 2 * INNER));
        let b = m.constant(2 * INNER, OUTS);
        let dy = m.temporary(dy)?;
        let (gate, up) = (m.p.columns(x, 0..INNER)?, m.p.columns(x, INNER..2 * INNER)?);
        let dy = m.p.columns(dy, 0..INNER)?;
        let op = SiluMul::new(ROWS, INNER, F32);
        let op = SiluMul { gate_row: 2 * INNER, up_row: 2 * INNER, y_row: 2 * INNER, ..op };
        let parts = m.p.op(Op::SiluMulBackward(op), &[gate, up, dy])?;
        let (upper, lower) = (m.p.rows(b, 0..INNER)?, m.p.rows(b, INNER..2 * INNER)?);
        let (y, z) = (m.p.matmul(parts[0], upper)?, m.p.matmul(parts[1], lower)?);
        let y = m.p.add(y, z)?;
        m.output(y)
    });
    assert_eq!((ran.rewrites.summed, ran.operations), (1, 3), "{}", ran.described);
}

#[test]
fn products_are_not_summed_where_it_is_not_certain() {
    const FIRST: [usize; 2] = [0, 20];
    let fires = summed(3, |m, it| {
        let y = products(m, &it, FIRST, false)?;
        m.output(y)
    });
    assert_eq!(fires, 1, "what the others change");
    let read_by_another = summed(3, |m, it| {
        let y = products(m, &it, FIRST, false)?;
        let other = m.p.softmax(it.a[0], 1.0)?;
        m.output(other)?;
        m.output(y)
    });
    let kept = summed(3, |m, it| {
        let y = products(m, &it, FIRST, false)?;
        m.output(it.a[1])?;
        m.output(y)
    });
    let no_neighbours = summed(3, |m, it| {
        let y = products(m, &it, [0, 19], false)?;
        m.output(y)
    });
    let the_other_way_round = summed(3, |m, it| {
        let y = products(m, &it, [11, 0], false)?;
        m.output(y)
    });
    let not_frozen = summed(3, |m, it| {
        let b = m.input(INS[0] + INS[1], OUTS);
        let y = products(m, &Parts { b, ..it }, FIRST, false)?;
        m.output(y)
    });
    let an_input = summed(3, |m, it| {
        let x = m.input(3, INS[0]);
        let y = products(m, &Parts { a: [x, it.a[1]], b: it.b }, FIRST, false)?;
        m.output(y)
    });
    let other_factors = summed(3, |m, it| {
        let (upper, lower) = (m.p.rows(it.b, 0..20)?, m.p.rows(it.b, 20..32)?);
        let y = m.p.matmul(it.a[0], upper)?;
        let op = MatMul::new(3, OUTS, INS[1], F32).scaled(0.5, 1.0);
        m.p.op_into(op, &[it.a[1], lower], &[y])?;
        m.output(y)
    });
    let read_between = summed(3, |m, it| {
        let (upper, lower) = (m.p.rows(it.b, 0..20)?, m.p.rows(it.b, 20..32)?);
        let y = m.p.matmul(it.a[0], upper)?;
        let between = m.p.softmax(y, 1.0)?;
        m.output(between)?;
        m.p.op_into(MatMul::new(3, OUTS, INS[1], F32).scaled(1.0, 1.0), &[it.a[1], lower], &[y])?;
        m.output(y)
    });
    // The second overwrites what the first has made.
    let not_added = summed(3, |m, it| {
        let (upper, lower) = (m.p.rows(it.b, 0..20)?, m.p.rows(it.b, 20..32)?);
        let y = m.p.matmul(it.a[0], upper)?;
        m.p.op_into(MatMul::new(3, OUTS, INS[1], F32), &[it.a[1], lower], &[y])?;
        m.output(y)
    });
    // Its gradient has the strides of its x, which has no gaps.
    let strides_of_another = summed(3, |m, it| {
        let (x, weight) = (m.input(3, INS[0]), m.constant(1, INS[0]));
        let op = RmsNorm { frozen: true, ..RmsNorm::new(3, INS[0], 1e-3, F32) };
        let a = m.p.op(Op::RmsNormBackward(op), &[x, weight, it.a[0]])?[0];
        let y = products(m, &Parts { a: [a, it.a[1]], b: it.b }, FIRST, false)?;
        m.output(y)
    });
    // A row of a head each: the rows of the operation are not the tensor's.
    let written_by_heads = summed(3, |m, it| {
        let (x, weight) = (m.p.reshape(it.a[0], 6, INS[0] / 2)?, m.constant(1, INS[0] / 2));
        let normed = m.p.rms_norm(x, weight, 1e-3)?;
        let a = m.p.reshape(normed, 3, INS[0])?;
        let y = products(m, &Parts { a: [a, it.a[1]], b: it.b }, FIRST, false)?;
        m.output(y)
    });
    let transposed = summed(3, |m, it| {
        let b = m.constant(2 * OUTS, INS[1]);
        let a = m.p.columns(it.a[0], 0..INS[1])?;
        let a = m.temporary(a)?;
        let (upper, lower) = (m.p.rows(b, 0..OUTS)?, m.p.rows(b, OUTS..2 * OUTS)?);
        let (y, z) = (m.p.matmul_transposed(a, upper)?, m.p.matmul_transposed(it.a[1], lower)?);
        let y = m.p.add(y, z)?;
        m.output(y)
    });
    let found = [
        read_by_another,
        kept,
        no_neighbours,
        the_other_way_round,
        not_frozen,
        an_input,
        other_factors,
        read_between,
        not_added,
        strides_of_another,
        written_by_heads,
        transposed,
    ];
    assert_eq!(found, [0; 12]);
}
