//! Random plans.

use crate::recorded::*;
use candlewick::Result;
use candlewick::op::Quant;
use proptest::prelude::*;

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
    let step = (0usize..16, index(), index(), prop::bool::weighted(0.1));
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
            12 | 13 => m.p.rms_norm(left, weight, 1e-3)?,
            _ => {
                let [gate, up] = [0, 1].map(|_| m.constant(WIDTH, WIDTH));
                let (gate, up) = (m.p.linear(normed, gate, None)?, m.p.linear(normed, up, None)?);
                m.p.silu_mul(gate, up)?
            }
        };
        // Numbers stay of one size, and there is something that several products read.
        if (11..14).contains(&step.kind) {
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
    fn random_plans_stay_the_same(steps in steps(), rows in 1usize..6, graded in any::<bool>(), plain in any::<bool>()) {
        let make = |m: &mut Maker<'_>| {
            if plain {
                m.p.plain_weights();
            }
            random(m, rows, &steps, graded)
        };
        let (rewritten, recorded) = (run(F32, true, &make), run(F32, false, &make));
        prop_assert_eq!(recorded.operations, rewritten.operations + rewritten.rewrites.saved());
        for (found, expected) in rewritten.outputs.iter().zip(&recorded.outputs) {
            let largest = expected.iter().fold(1e-6f64, |max, x| max.max(x.abs()));
            let error = found.iter().zip(expected).fold(0f64, |max, (x, y)| max.max((x - y).abs()));
            prop_assert!(error <= 1e-3 * largest, "{:e} of {:e}\n{}", error, largest, rewritten.described);
        }
    }
}
