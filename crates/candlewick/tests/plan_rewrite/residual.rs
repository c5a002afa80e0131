//! A residual goes into the product that it is added to, where that is certain.

use crate::recorded::*;
use candlewick::op::Quant;
use candlewick::plan::Tensor;
use candlewick::{LoraLinear, Result};

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
