//! Rewrites of plans: each fires where it is certain and nowhere else, and changes no result beyond rounding.

use candlewick::op::{Attention, Quant, QuantLinear, Rope};
use candlewick::plan::{Recorder, Rewrites, Session, Tensor};
use candlewick::{DType, Device, LoraDelta, LoraLinear, MatMul, Op, Plan, Result};
use half::{bf16, f16};
use proptest::prelude::*;

const F32: DType = DType::F32;
const BF16: DType = DType::BF16;

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let hash = |i: usize| ((i * 2_654_435_761 + seed * 40_503 + 12_345) ^ (seed * 977)) % 100_003;
    // Numbers that 16 bits hold, so that a reference in f64 has the same.
    (0..count).map(|i| bf16::from_f32(hash(i) as f32 / 50_001.5 - 1.0).to_f32()).collect()
}

/// Blocks of any bytes with scales of a sane size.
fn blocks(format: Quant, count: usize, seed: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..count * format.bytes()).map(|i| ((i * 7919 + seed * 131) % 251) as u8).collect();
    for (i, block) in bytes.chunks_exact_mut(format.bytes()).enumerate() {
        let scale = f16::from_f32(0.002 + 0.0003 * ((i + seed) % 7) as f32).to_le_bytes();
        let places: &[usize] = match format {
            Quant::Q4_1 | Quant::Q4K => &[0, 2],
            Quant::Q6K => &[208],
            _ => &[0],
        };
        places.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&scale));
    }
    bytes
}

/// What a closure made: every tensor that has numbers, and what is read.
#[derive(Default)]
struct Made {
    floats: Vec<(Tensor, DType, Vec<f32>)>,
    bytes: Vec<(Tensor, Vec<u8>)>,
    words: Vec<(Tensor, Vec<u32>)>,
    outputs: Vec<Tensor>,
}

/// A recorder that gives what it declares its numbers.
struct Maker<'a> {
    p: &'a mut Recorder,
    dtype: DType,
    made: Made,
}

impl Maker<'_> {
    fn input(&mut self, rows: usize, cols: usize) -> Tensor {
        let tensor = self.p.input("x", rows, cols, self.dtype);
        self.made.floats.push((tensor, self.dtype, numbers(rows * cols, self.made.floats.len())));
        tensor
    }

    fn constant(&mut self, rows: usize, cols: usize) -> Tensor {
        let tensor = self.p.constant("w", rows, cols, self.dtype);
        self.made.floats.push((tensor, self.dtype, numbers(rows * cols, self.made.floats.len())));
        tensor
    }

    fn quantised(&mut self, rows: usize, cols: usize, format: Quant) -> Result<Tensor> {
        let tensor = self.p.quantised("q", rows, cols, format)?;
        let count = rows * cols / format.block();
        self.made.bytes.push((tensor, blocks(format, count, self.made.bytes.len())));
        Ok(tensor)
    }

    fn words(&mut self, numbers: &[u32]) -> Tensor {
        let tensor = self.p.input("words", 1, numbers.len(), DType::U32);
        self.made.words.push((tensor, numbers.to_vec()));
        tensor
    }

    /// A temporary with the numbers of an input: what no rewrite may take for an input.
    fn temporary(&mut self, x: Tensor) -> Result<Tensor> {
        let (_, cols) = self.p.shape(x);
        let zeros = self.p.filled(0.0, 1, cols, self.dtype);
        self.p.add_row(x, zeros)
    }

    fn output(&mut self, tensor: Tensor) -> Result<()> {
        self.made.outputs.push(self.p.output(tensor)?);
        Ok(())
    }
}

struct Ran {
    outputs: Vec<Vec<f64>>,
    rewrites: Rewrites,
    operations: usize,
    described: String,
}

fn set(plan: &mut Plan, tensor: Tensor, numbers: &[f32], dtype: DType, load: bool) -> Result<()> {
    match (dtype, load) {
        (F32, true) => plan.load(tensor, numbers),
        (F32, false) => plan.write(tensor, numbers),
        (_, true) => plan.load(tensor, &numbers.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()),
        (_, false) => plan.write(tensor, &numbers.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()),
    }
}

fn run(dtype: DType, rewrites: bool, make: &dyn Fn(&mut Maker<'_>) -> Result<()>) -> Ran {
    let (mut plan, (made, shapes)) = Plan::record(&Device::cpu(), |p| {
        if !rewrites {
            p.without_rewrites();
        }
        let mut maker = Maker { p, dtype, made: Made::default() };
        make(&mut maker)?;
        let made = maker.made;
        let shapes: Vec<_> = made.outputs.iter().map(|&y| (p.shape(y), p.dtype(y))).collect();
        Ok((made, shapes))
    })
    .unwrap();
    for (tensor, dtype, numbers) in &made.floats {
        // One of both: constants are loaded, inputs are written.
        set(&mut plan, *tensor, numbers, *dtype, true)
            .or_else(|_| set(&mut plan, *tensor, numbers, *dtype, false))
            .unwrap();
    }
    made.bytes.iter().for_each(|(tensor, bytes)| plan.load(*tensor, bytes).unwrap());
    made.words.iter().for_each(|(tensor, words)| plan.write(*tensor, words).unwrap());
    // Twice: what is accumulated must begin anew.
    plan.run().unwrap();
    plan.run().unwrap();
    let outputs = made.outputs.iter().zip(shapes).map(|(&y, ((rows, cols), dtype))| {
        if dtype == F32 {
            let mut numbers = vec![0f32; rows * cols];
            plan.read(y, &mut numbers).unwrap();
            numbers.into_iter().map(f64::from).collect()
        } else {
            let mut numbers = vec![bf16::ZERO; rows * cols];
            plan.read(y, &mut numbers).unwrap();
            numbers.into_iter().map(f64::from).collect()
        }
    });
    Ran {
        outputs: outputs.collect(),
        rewrites: plan.rewrites(),
        operations: plan.operations(),
        described: plan.describe(),
    }
}

fn close(found: &[f64], expected: &[f64], bound: f64, what: &str) {
    let largest = expected.iter().fold(0f64, |max, x| max.max(x.abs()));
    let error = found.iter().zip(expected).fold(0f64, |max, (x, y)| max.max((x - y).abs()));
    assert_eq!(found.len(), expected.len());
    assert!(largest > 1e-3, "{what}: results of nothing show nothing");
    assert!(error <= bound * largest, "{what}: {error:e} of {largest:e} is beyond {bound:e}");
}

/// Runs a plan as it is rewritten and as it was recorded; both agree. What the rewritten one was.
fn both(dtype: DType, bound: f64, make: impl Fn(&mut Maker<'_>) -> Result<()>) -> Ran {
    let (rewritten, recorded) = (run(dtype, true, &make), run(dtype, false, &make));
    assert_eq!(recorded.rewrites, Rewrites::default());
    let saved = rewritten.rewrites.saved();
    assert_eq!(recorded.operations, rewritten.operations + saved, "{}", rewritten.described);
    for (found, expected) in rewritten.outputs.iter().zip(&recorded.outputs) {
        close(found, expected, bound, "rewritten and recorded");
    }
    rewritten
}

/// Two engines may each be that far from the truth, and a result between two operations is rounded once more.
fn bound(op: impl Into<Op>) -> f64 {
    let op: Op = op.into();
    2.0 * op.error_bound() + 2.0 * op.dtype().unit_roundoff()
}

/// x Wᵀ in f64.
fn product(x: &[f32], w: &[f32], rows: usize, k: usize, outs: usize) -> Vec<f64> {
    let at = |i: usize, o: usize| (0..k).map(|p| f64::from(x[i * k + p]) * f64::from(w[o * k + p])).sum();
    (0..rows).flat_map(|i| (0..outs).map(move |o| at(i, o))).collect()
}

#[test]
fn a_bias_goes_into_the_product() {
    for dtype in [F32, BF16] {
        for (rows, ins, outs, rank) in [(1, 64, 48, 4), (5, 33, 17, 3), (9, 130, 65, 0)] {
            let limit = bound(LoraLinear::new(rows, ins, outs, rank, 0.5, dtype));
            let ran = both(dtype, limit, |m| {
                let (x, w, bias) = (m.input(rows, ins), m.constant(outs, ins), m.constant(1, outs));
                let (a, b) = (m.constant(rank, ins), m.constant(outs, rank));
                let y = m.p.lora_linear(x, w, None, a, b, 0.5)?;
                let y = m.p.add_row(y, bias)?;
                m.output(y)
            });
            assert_eq!((ran.rewrites.biases, ran.operations), (1, 1), "{}", ran.described);
            if rank == 0 {
                let (x, w, bias) = (numbers(rows * ins, 0), numbers(outs * ins, 1), numbers(outs, 2));
                let mut expected = product(&x, &w, rows, ins, outs);
                expected.iter_mut().enumerate().for_each(|(i, y)| *y += f64::from(bias[i % outs]));
                close(&ran.outputs[0], &expected, limit, "the reference");
            }
        }
        // A product with a matrix that lies plain.
        let ran = both(dtype, bound(MatMul::new(9, 31, 40, dtype)), |m| {
            let (x, w, bias) = (m.input(9, 40), m.input(31, 40), m.input(1, 31));
            let y = m.p.matmul_transposed(x, w)?;
            let y = m.p.add_row(y, bias)?;
            m.output(y)
        });
        assert_eq!((ran.rewrites.biases, ran.operations), (1, 1), "{}", ran.described);
        assert!(ran.described.contains("1 biases"), "{}", ran.described);
    }
}

#[test]
fn a_bias_stays_where_it_is_not_certain() {
    let rewrites = |make: &dyn Fn(&mut Maker<'_>) -> Result<()>| both(F32, 1e-5, make).rewrites.biases;
    let linear = |m: &mut Maker<'_>| {
        let (x, w) = (m.input(3, 8), m.constant(5, 8));
        m.p.linear(x, w, None)
    };
    let two_readers = rewrites(&|m| {
        let (y, bias) = (linear(m)?, m.constant(1, 5));
        let (biased, other) = (m.p.add_row(y, bias)?, m.p.softmax(y, 1.0)?);
        m.output(biased)?;
        m.output(other)
    });
    let an_output = rewrites(&|m| {
        let (y, bias) = (linear(m)?, m.constant(1, 5));
        let biased = m.p.add_row(y, bias)?;
        m.output(y)?;
        m.output(biased)
    });
    let written_later = rewrites(&|m| {
        let (y, bias) = (linear(m)?, m.constant(1, 5));
        let bias = m.p.softmax(bias, 1.0)?;
        let biased = m.p.add_row(y, bias)?;
        m.output(biased)
    });
    let has_one = rewrites(&|m| {
        let (x, w, bias) = (m.input(3, 8), m.constant(5, 8), m.constant(1, 5));
        let y = m.p.linear(x, w, Some(bias))?;
        let biased = m.p.add_row(y, bias)?;
        m.output(biased)
    });
    let a_product_by_columns = rewrites(&|m| {
        let (x, w, bias) = (m.input(9, 8), m.constant(8, 5), m.constant(1, 5));
        let y = m.p.matmul(x, w)?;
        let biased = m.p.add_row(y, bias)?;
        m.output(biased)
    });
    assert_eq!([two_readers, an_output, written_later, has_one, a_product_by_columns], [0; 5]);
}

#[test]
fn a_scale_goes_into_the_product() {
    for dtype in [F32, BF16] {
        for (rows, ins, outs) in [(1, 64, 48), (7, 33, 17)] {
            let limit = bound(MatMul::new(rows, outs, ins, dtype));
            let ran = both(dtype, limit, |m| {
                let (x, w) = (m.input(rows, ins), m.input(outs, ins));
                let y = m.p.matmul_transposed(x, w)?;
                let y = m.p.scale(y, -0.75)?;
                m.output(y)
            });
            assert_eq!((ran.rewrites.scales, ran.operations), (1, 1), "{}", ran.described);
            let expected = product(&numbers(rows * ins, 0), &numbers(outs * ins, 1), rows, ins, outs);
            let expected: Vec<f64> = expected.iter().map(|y| -0.75 * y).collect();
            close(&ran.outputs[0], &expected, limit, "the reference");
            let ran = both(dtype, bound(LoraDelta::new(rows, ins, outs, 4, 2.0, dtype)), |m| {
                let (x, a, b) = (m.input(rows, ins), m.constant(4, ins), m.constant(outs, 4));
                let y = m.p.lora_delta(x, a, b, 2.0)?;
                let y = m.p.scale(y, 3.0)?;
                m.output(y)
            });
            assert_eq!((ran.rewrites.scales, ran.operations), (1, 1), "{}", ran.described);
        }
    }
}

#[test]
fn a_scale_alone_is_a_scale_and_has_a_gradient() {
    let ran = both(F32, 1e-6, |m| {
        let (x, w) = (m.input(3, 10), m.constant(4, 10));
        // With a base there is no factor of all, and columns have gaps.
        let y = m.p.linear(x, w, None)?;
        let y = m.p.scale(y, 2.0)?;
        m.output(y)?;
        let part = m.p.columns(x, 2..7)?;
        let y = m.p.scale(part, -0.5)?;
        m.output(y)?;
        let gradients = m.p.grad_from(&[(y, part)], &[x])?;
        m.output(gradients[0])
    });
    assert_eq!(ran.rewrites.scales, 0);
    let x = numbers(30, 0);
    for (i, row) in x.chunks(10).enumerate() {
        for (j, &x) in row.iter().enumerate() {
            let inside = (2..7).contains(&j);
            let expected = if inside { -0.5 * f64::from(x) } else { 0.0 };
            assert_eq!(ran.outputs[2][i * 10 + j], expected);
            assert!(!inside || ran.outputs[1][i * 5 + j - 2] == expected);
        }
    }
    // Zero would hide what the product has of NaN.
    let zero = both(F32, 1e-6, |m| {
        let (x, w) = (m.input(3, 10), m.input(10, 4));
        let y = m.p.matmul(x, w)?;
        let y = m.p.scale(y, 0.0)?;
        let (other, y) = (m.input(3, 4), y);
        let y = m.p.add(other, y)?;
        m.output(y)
    });
    assert_eq!(zero.rewrites.scales, 0);
}

/// x + f(norm(x)) for each kind of product f, either way round.
#[test]
fn a_residual_goes_into_the_product() {
    const WIDTH: usize = 96;
    for dtype in [F32, BF16] {
        for (rows, first) in [(1, true), (11, false), (70, true)] {
            for kind in 0..5 {
                let limit = bound(LoraLinear::new(rows, WIDTH, WIDTH, 4, 0.5, dtype));
                let ran = both(dtype, limit, |m| {
                    let (x, weight) = (m.input(rows, WIDTH), m.constant(1, WIDTH));
                    let x = m.temporary(x)?;
                    let normed = m.p.rms_norm(x, weight, 1e-5)?;
                    let (a, b) = (m.constant(4, WIDTH), m.constant(WIDTH, 4));
                    let w = m.constant(WIDTH, WIDTH);
                    let y = match kind {
                        0 => m.p.matmul(normed, w)?,
                        1 => m.p.linear(normed, w, None)?,
                        2 => m.p.lora_linear(normed, w, None, a, b, 0.5)?,
                        3 => m.p.lora_delta(normed, a, b, 0.5)?,
                        _ => {
                            let blocks = m.quantised(WIDTH, WIDTH, Quant::Q8_0)?;
                            m.p.linear(normed, blocks, None)?
                        }
                    };
                    let y = if first { m.p.add(x, y)? } else { m.p.add(y, x)? };
                    m.output(y)
                });
                assert_eq!((ran.rewrites.residuals, ran.operations), (1, 3), "{kind}: {}", ran.described);
                if kind == 1 && rows == 11 {
                    let expected = residual_reference(rows, WIDTH);
                    close(&ran.outputs[0], &expected, 2.0 * limit, "the reference");
                }
            }
        }
    }
}

fn residual_reference(rows: usize, width: usize) -> Vec<f64> {
    let (x, weight, w) = (numbers(rows * width, 0), numbers(width, 1), numbers(width * width, 4));
    let mut y = Vec::new();
    for row in x.chunks(width) {
        let square: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
        let factor = 1.0 / (square / width as f64 + 1e-5).sqrt();
        let normed: Vec<f64> = row.iter().zip(&weight).map(|(&x, &w)| f64::from(x) * factor * f64::from(w)).collect();
        for (o, &x) in row.iter().enumerate() {
            let product: f64 = normed.iter().zip(&w[o * width..]).map(|(x, &w)| x * f64::from(w)).sum();
            y.push(f64::from(x) + product);
        }
    }
    y
}

#[test]
fn a_residual_stays_where_it_is_not_certain() {
    let residuals = |make: &dyn Fn(&mut Maker<'_>, Tensor, Tensor) -> Result<()>| {
        let ran = both(F32, 1e-5, |m| {
            let (x, w) = (m.input(3, 8), m.constant(8, 8));
            let x = m.temporary(x)?;
            make(m, x, w)
        });
        ran.rewrites.residuals
    };
    let read_later = residuals(&|m, x, w| {
        let y = m.p.linear(x, w, None)?;
        let sum = m.p.add(x, y)?;
        let later = m.p.softmax(x, 1.0)?;
        m.output(sum)?;
        m.output(later)
    });
    // x itself is what the product reads.
    let own_input = residuals(&|m, x, w| {
        let y = m.p.linear(x, w, None)?;
        let sum = m.p.add(x, y)?;
        m.output(sum)
    });
    let sum_is_kept = residuals(&|m, x, w| {
        let normed = m.p.softmax(x, 1.0)?;
        let y = m.p.linear(normed, w, None)?;
        let sum = m.p.add(x, y)?;
        m.output(x)?;
        m.output(sum)
    });
    let product_is_kept = residuals(&|m, x, w| {
        let normed = m.p.softmax(x, 1.0)?;
        let y = m.p.linear(normed, w, None)?;
        let sum = m.p.add(x, y)?;
        m.output(y)?;
        m.output(sum)
    });
    let an_input = residuals(&|m, x, w| {
        let (other, y) = (m.input(3, 8), m.p.linear(x, w, None)?);
        let sum = m.p.add(other, y)?;
        m.output(sum)
    });
    let a_part = residuals(&|m, x, w| {
        let normed = m.p.softmax(x, 1.0)?;
        let y = m.p.linear(normed, w, None)?;
        let (left, right) = (m.p.columns(x, 0..4)?, m.p.columns(y, 4..8)?);
        let sum = m.p.add(left, right)?;
        m.output(sum)
    });
    let found = [read_later, own_input, sum_is_kept, product_is_kept, an_input, a_part];
    assert_eq!(found, [0; 6]);
}

/// q, k and v with rope and attention, gate and up with SiLU: the readers read columns.
fn attention(
    m: &mut Maker<'_>,
    rows: usize,
    weights: &mut dyn FnMut(&mut Maker<'_>, usize) -> Result<Layer>,
) -> Result<()> {
    const WIDTH: usize = 64;
    let (heads, kv_heads, head) = (4, 2, 8);
    let x = m.input(rows, WIDTH);
    let frequencies = m.p.constant("frequencies", 1, head / 2, F32);
    let dtype = m.dtype;
    m.made.floats.push((frequencies, F32, vec![1.0, 0.3, 0.1, 0.03]));
    let positions = m.words(&(0..rows as u32).collect::<Vec<_>>());
    let spans = m.p.input("spans", 1, 4, DType::U32);
    m.made.words.push((spans, vec![0, rows as u32, 0, rows as u32]));
    let mut parts = Vec::new();
    for outs in [heads * head, kv_heads * head, kv_heads * head, 40, 40] {
        let layer = weights(m, outs)?;
        parts.push(layer.of(m.p, x)?);
    }
    let q = m.p.rope(parts[0], positions, frequencies, Rope::new(rows, heads, head, dtype))?;
    let k = m.p.rope(parts[1], positions, frequencies, Rope::new(rows, kv_heads, head, dtype))?;
    let op = Attention::new(rows, rows, heads, kv_heads, head, dtype);
    let y = m.p.attention(q, k, parts[2], spans, op)?;
    m.output(y)?;
    let y = m.p.silu_mul(parts[3], parts[4])?;
    m.output(y)
}

/// A weight with what belongs to it.
struct Layer {
    w: Tensor,
    bias: Option<Tensor>,
    adapter: Option<(Tensor, Tensor)>,
}

impl Layer {
    fn of(&self, p: &mut Recorder, x: Tensor) -> Result<Tensor> {
        match self.adapter {
            Some((a, b)) => p.lora_linear(x, self.w, self.bias, a, b, 0.5),
            None => p.linear(x, self.w, self.bias),
        }
    }
}

#[test]
fn products_of_one_x_are_joined() {
    for dtype in [F32, BF16] {
        for (rows, biased) in [(1, false), (1, true), (6, true), (13, false)] {
            let ran = both(dtype, 4.0 * bound(LoraLinear::new(rows, 64, 64, 0, 0.0, dtype)), |m| {
                attention(m, rows, &mut |m, outs| {
                    let w = m.constant(outs, 64);
                    Ok(Layer { w, bias: biased.then(|| m.constant(1, outs)), adapter: None })
                })
            });
            assert_eq!((ran.rewrites.joined, ran.operations), (4, 5), "{}", ran.described);
        }
    }
}

#[test]
fn quantised_products_of_one_x_are_joined() {
    // One of each kind of block; rows of W are whole blocks.
    for format in [Quant::Q4_0, Quant::Q8_0] {
        for (dtype, rows, adapted) in [(F32, 1, false), (F32, 5, true), (BF16, 9, true)] {
            let limit = 4.0 * bound(QuantLinear::new(rows, 64, 64, format, dtype));
            let ran = both(dtype, limit, |m| {
                attention(m, rows, &mut |m, outs| {
                    let w = m.quantised(outs, 64, format)?;
                    let adapter = adapted.then(|| (m.constant(3, 64), m.constant(outs, 3)));
                    Ok(Layer { w, bias: None, adapter })
                })
            });
            // With adapters, each delta is added to its columns.
            let residuals = if adapted { 5 } else { 0 };
            let found = (ran.rewrites.joined, ran.rewrites.residuals, ran.operations);
            assert_eq!(found, (4, residuals, 5 + residuals), "{}", ran.described);
        }
    }
}

#[test]
fn joined_products_are_the_references() {
    let (rows, ins, outs) = (4, 33, [5, 17, 40]);
    let ran = both(F32, 1e-5, |m| {
        let x = m.input(rows, ins);
        let parts = outs.map(|outs| m.constant(outs, ins));
        for w in parts {
            let y = m.p.linear(x, w, None)?;
            let y = m.p.softmax(y, 0.1)?;
            m.output(y)?;
        }
        Ok(())
    });
    assert_eq!((ran.rewrites.joined, ran.operations), (2, 4), "{}", ran.described);
    let x = numbers(rows * ins, 0);
    for (i, outs) in outs.into_iter().enumerate() {
        let mut expected = product(&x, &numbers(outs * ins, 1 + i), rows, ins, outs);
        for row in expected.chunks_mut(outs) {
            let sum: f64 = row.iter().map(|y| (0.1 * y).exp()).sum();
            row.iter_mut().for_each(|y| *y = (0.1 * *y).exp() / sum);
        }
        close(&ran.outputs[i], &expected, 1e-5, "the reference");
    }
}

#[test]
fn products_are_not_joined_where_it_is_not_certain() {
    let joined = |make: &dyn Fn(&mut Maker<'_>, Tensor) -> Result<()>| {
        let ran = both(F32, 1e-5, |m| {
            let x = m.input(3, 32);
            make(m, x)
        });
        ran.rewrites.joined
    };
    let softmax = |m: &mut Maker<'_>, y: Tensor| {
        let y = m.p.softmax(y, 1.0)?;
        m.output(y)
    };
    let kept = joined(&|m, x| {
        for _ in 0..2 {
            let w = m.constant(8, 32);
            let y = m.p.linear(x, w, None)?;
            m.output(y)?;
        }
        Ok(())
    });
    let with_a_rank = joined(&|m, x| {
        for _ in 0..2 {
            let (w, a, b) = (m.constant(8, 32), m.constant(2, 32), m.constant(8, 2));
            let y = m.p.lora_linear(x, w, None, a, b, 1.0)?;
            softmax(m, y)?;
        }
        Ok(())
    });
    let other_formats = joined(&|m, x| {
        for format in [Quant::Q4_0, Quant::Q8_0] {
            let w = m.quantised(8, 32, format)?;
            let y = m.p.linear(x, w, None)?;
            softmax(m, y)?;
        }
        Ok(())
    });
    let one_with_a_bias = joined(&|m, x| {
        for biased in [true, false] {
            let w = m.constant(8, 32);
            let bias = biased.then(|| m.constant(1, 8));
            let y = m.p.linear(x, w, bias)?;
            softmax(m, y)?;
        }
        Ok(())
    });
    let weights_that_change = joined(&|m, x| {
        for _ in 0..2 {
            let w = m.input(8, 32);
            let y = m.p.linear(x, w, None)?;
            softmax(m, y)?;
        }
        Ok(())
    });
    let one_weight_twice = joined(&|m, x| {
        let w = m.constant(8, 32);
        for _ in 0..2 {
            let y = m.p.linear(x, w, None)?;
            softmax(m, y)?;
        }
        Ok(())
    });
    let one_bias_twice = joined(&|m, x| {
        let bias = m.constant(1, 8);
        for _ in 0..2 {
            let w = m.constant(8, 32);
            let y = m.p.linear(x, w, Some(bias))?;
            softmax(m, y)?;
        }
        Ok(())
    });
    let parts_of_a_weight = joined(&|m, x| {
        let w = m.quantised(8, 32, Quant::Q8_0)?;
        for rows in [0..4, 4..8] {
            let part = m.p.rows(w, rows)?;
            let y = m.p.linear(x, part, None)?;
            softmax(m, y)?;
        }
        Ok(())
    });
    // A row of a head each: the rows of the operation are not the tensor's.
    let read_by_heads = joined(&|m, x| {
        for _ in 0..2 {
            let (w, weight) = (m.constant(8, 32), m.constant(1, 4));
            let y = m.p.linear(x, w, None)?;
            let heads = m.p.op(candlewick::RmsNorm::new(6, 4, 1e-5, F32), &[y, weight])?[0];
            m.output(heads)?;
        }
        Ok(())
    });
    let x_changes = joined(&|m, x| {
        let x = m.temporary(x)?;
        for _ in 0..2 {
            let w = m.constant(8, 32);
            let y = m.p.linear(x, w, None)?;
            softmax(m, y)?;
            m.p.op_into(candlewick::Softmax::new(3, 32, F32), &[x], &[x])?;
        }
        Ok(())
    });
    // Its rows would reach over those that it reads.
    let one_added_to_another = joined(&|m, x| {
        let weights = [32, 32, 8].map(|ins| m.constant(8, ins));
        let (q, k) = (m.p.linear(x, weights[0], None)?, m.p.linear(x, weights[1], None)?);
        let y = m.p.linear(q, weights[2], None)?;
        let y = m.p.add(k, y)?;
        softmax(m, y)
    });
    let found = [
        one_added_to_another,
        kept,
        with_a_rank,
        other_formats,
        one_with_a_bias,
        weights_that_change,
        one_weight_twice,
        one_bias_twice,
        parts_of_a_weight,
        read_by_heads,
        x_changes,
    ];
    assert_eq!(found, [0; 11]);
}

/// A feed-forward with gradients: gate and up are joined, and their gradients have the same gaps.
#[test]
fn gradients_are_those_of_the_recorded_plan() {
    for (dtype, quantised) in [(F32, false), (F32, true), (BF16, false)] {
        for rows in [1, 5] {
            let limit = 16.0 * bound(LoraLinear::new(rows, 64, 96, 3, 0.5, dtype));
            let ran = both(dtype, limit, |m| {
                let x = m.input(rows, 64);
                let seed = m.input(rows, 64);
                let weight = |m: &mut Maker<'_>, outs, ins| {
                    if quantised { m.quantised(outs, ins, Quant::Q8_0) } else { Ok(m.constant(outs, ins)) }
                };
                let (gate, up, down) = (weight(m, 96, 64)?, weight(m, 96, 64)?, weight(m, 64, 96)?);
                let (value, norm) = (weight(m, 64, 64)?, m.constant(1, 64));
                let (a, b) = (m.constant(3, 96), m.constant(64, 3));
                let normed = m.p.rms_norm(x, norm, 1e-5)?;
                let (gate, up) = (m.p.linear(normed, gate, None)?, m.p.linear(normed, up, None)?);
                let value = m.p.linear(normed, value, None)?;
                let value = m.p.softmax(value, 1.0)?;
                let hidden = m.p.silu_mul(gate, up)?;
                let y = m.p.lora_linear(hidden, down, None, a, b, 0.5)?;
                let y = m.p.add(y, value)?;
                let y = m.p.add(x, y)?;
                let gradients = m.p.grad_from(&[(y, seed)], &[x, a, b, norm])?;
                m.output(y)?;
                gradients.into_iter().try_for_each(|gradient| m.output(gradient))
            });
            assert_eq!(ran.rewrites.joined, 2, "{}", ran.described);
        }
    }
}

/// Two plans of a session join the same weights: one load serves both, and there is one copy.
#[test]
fn plans_share_joined_weights() {
    let session = Session::new(&Device::cpu()).unwrap();
    let parts = [("q", 16), ("k", 8)].map(|(name, outs)| session.constant(name, outs, 32, F32));
    let record = |rows: usize| {
        session
            .record(|p| {
                let x = p.input("x", rows, 32, F32);
                let mut made = Vec::new();
                for part in &parts {
                    let w = p.shared(part)?;
                    let y = p.linear(x, w, None)?;
                    let y = p.softmax(y, 1.0)?;
                    made.push((w, p.output(y)?));
                }
                Ok((x, made))
            })
            .unwrap()
    };
    let (mut prompt, (x, made)) = record(3);
    assert_eq!(prompt.rewrites().joined, 1);
    prompt.load(made[1].0, &numbers(8 * 32, 2)).unwrap();
    prompt.write(x, &numbers(3 * 32, 3)).unwrap();
    let error = prompt.run().unwrap_err().to_string();
    assert!(error.contains("q+k [24, 32]") && error.contains("Plan::load"), "{error}");
    prompt.load(made[0].0, &numbers(16 * 32, 1)).unwrap();
    prompt.run().unwrap();
    // As f32: 24 rows of 32, and not twice.
    assert!(prompt.describe().contains("constants 3 KiB"), "{}", prompt.describe());
    let mut of_prompt = vec![0f32; 3 * 8];
    prompt.read(made[1].1, &mut of_prompt).unwrap();
    drop(prompt);
    let (mut token, (x, made)) = record(1);
    token.write(x, &numbers(3 * 32, 3)[32..64]).unwrap();
    token.run().unwrap();
    let mut of_token = vec![0f32; 8];
    token.read(made[1].1, &mut of_token).unwrap();
    of_token.iter().zip(&of_prompt[8..16]).for_each(|(x, y)| assert!((x - y).abs() < 1e-6, "{x} and {y}"));
    // A plan that reads the parts alone, recorded before the load that serves both.
    let (mut alone, (x, w, y)) = session
        .record(|p| {
            p.without_rewrites();
            let (x, w) = (p.input("x", 1, 32, F32), p.shared(&parts[1])?);
            let y = p.linear(x, w, None)?;
            let y = p.softmax(y, 1.0)?;
            Ok((x, w, p.output(y)?))
        })
        .unwrap();
    assert!(alone.run().is_err());
    token.load(made[1].0, &numbers(8 * 32, 2)).unwrap();
    alone.write(x, &numbers(3 * 32, 3)[32..64]).unwrap();
    alone.run().unwrap();
    let mut of_alone = vec![0f32; 8];
    alone.read(y, &mut of_alone).unwrap();
    of_alone.iter().zip(&of_token).for_each(|(x, y)| assert!((x - y).abs() < 1e-6, "{x} and {y}"));
    assert!(alone.load(w, &[0f32; 3]).is_err());
}

/// A quantised weight that others read as its file has it lies beside the joined one, which is packed.
#[test]
fn a_weight_that_others_read_lies_beside_the_joined_one() {
    let ran = both(F32, 1e-5, |m| {
        let x = m.input(2, 64);
        let parts = [m.quantised(8, 64, Quant::Q8_0)?, m.quantised(24, 64, Quant::Q8_0)?];
        for w in parts {
            let y = m.p.linear(x, w, None)?;
            let y = m.p.softmax(y, 1.0)?;
            m.output(y)?;
        }
        let rows = m.p.rows(parts[1], 3..19)?;
        let (dtype, format) = (m.dtype, Quant::Q8_0);
        let plain = m.p.op(candlewick::op::Dequantize::new(16, 64, format, dtype), &[rows])?[0];
        m.output(plain)
    });
    assert_eq!(ran.rewrites.joined, 1, "{}", ran.described);
    let kib = ((32 + 24) * 2 * 34usize).div_ceil(1024);
    assert!(ran.described.contains(&format!("constants {kib} KiB")), "{}", ran.described);
}

/// What a random operation takes and does.
#[derive(Clone, Debug)]
struct Step {
    kind: usize,
    left: prop::sample::Index,
    right: prop::sample::Index,
    kept: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    // Tensors of late are chosen more often than not, and few are kept.
    let step = (0usize..14, index(), index(), prop::bool::weighted(0.1));
    prop::collection::vec(step.prop_map(|(kind, left, right, kept)| Step { kind, left, right, kept }), 1..28)
}

/// A random sequence over matrices [rows, 32], with gradients of the last one where `graded`.
fn random(m: &mut Maker<'_>, rows: usize, steps: &[Step], graded: bool) -> Result<()> {
    const WIDTH: usize = 32;
    let x = m.input(rows, WIDTH);
    let (a, b) = (m.constant(2, WIDTH), m.constant(WIDTH, 2));
    let weight = m.constant(1, WIDTH);
    let (mut all, mut normed) = (vec![x], x);
    for step in steps {
        let recent = |index: &prop::sample::Index| all[all.len() - 1 - index.index(all.len().min(4))];
        let (left, right) = (recent(&step.left), recent(&step.right));
        let y = match step.kind {
            0..=5 => {
                // Biased, scaled or neither, and often of the same tensor as the one before.
                let w = m.constant(WIDTH, WIDTH);
                let y = m.p.linear(if step.kind < 4 { normed } else { left }, w, None)?;
                let bias = if step.kind == 1 { m.constant(1, WIDTH) } else { weight };
                match step.kind {
                    1 | 5 => m.p.add_row(y, bias)?,
                    2 => m.p.scale(y, 0.3)?,
                    _ => y,
                }
            }
            6 => {
                let w = m.quantised(WIDTH, WIDTH, Quant::Q8_0)?;
                m.p.lora_linear(normed, w, None, a, b, 0.1)?
            }
            7 => {
                let y = m.p.lora_delta(left, a, b, 0.1)?;
                m.p.scale(y, 0.5)?
            }
            8 | 9 => m.p.add(left, right)?,
            10 => m.p.silu_mul(left, right)?,
            11 => m.p.softmax(left, 1.0)?,
            _ => m.p.rms_norm(left, weight, 1e-3)?,
        };
        // Numbers stay of one size, and there is something that several products read.
        if step.kind > 10 {
            normed = y;
        }
        if step.kept {
            m.output(y)?;
        }
        all.push(y);
    }
    let last = all[all.len() - 1];
    if graded && last != x {
        let seed = m.input(rows, WIDTH);
        let gradients = m.p.grad_from(&[(last, seed)], &[x])?;
        m.output(gradients[0])?;
    }
    m.output(last)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is recorded, what is rewritten computes the same.
    #[test]
    fn random_plans_stay_the_same(steps in steps(), rows in 1usize..6, graded in any::<bool>()) {
        let make = |m: &mut Maker<'_>| random(m, rows, &steps, graded);
        let (rewritten, recorded) = (run(F32, true, &make), run(F32, false, &make));
        prop_assert_eq!(recorded.operations, rewritten.operations + rewritten.rewrites.saved());
        for (found, expected) in rewritten.outputs.iter().zip(&recorded.outputs) {
            let largest = expected.iter().fold(1e-6f64, |max, x| max.max(x.abs()));
            let error = found.iter().zip(expected).fold(0f64, |max, (x, y)| max.max((x - y).abs()));
            prop_assert!(error <= 1e-3 * largest, "{:e} of {:e}\n{}", error, largest, rewritten.described);
        }
    }
}
