//! Gradients of joined products.

use crate::recorded::*;
use candlewick::LoraLinear;
use candlewick::op::Quant;

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
