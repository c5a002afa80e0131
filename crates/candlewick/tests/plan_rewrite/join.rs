//! Products of one x are joined, where that is certain; several plans share what is joined.

use crate::recorded::*;
use candlewick::op::{Attention, Quant, QuantLinear, Rope};
use candlewick::plan::{Recorder, Session, Tensor};
use candlewick::{DType, Device, LoraLinear, Result};

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
