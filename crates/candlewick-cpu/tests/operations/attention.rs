//! `attention` and its gradients.

use crate::engines::{Random, check, random};
use candlewick_core::{Attention, DType, Op};

/// Spans, and the operation's other inputs.
fn attention_inputs(op: Attention, spans: &[[u32; 4]], seed: u64) -> Vec<Vec<f64>> {
    let mut inputs = random(op, seed);
    inputs[3] = spans.iter().flatten().map(|&n| f64::from(n)).collect();
    // Scores that are not all alike.
    inputs[0].iter_mut().for_each(|q| *q *= 3.0);
    inputs
}

fn attention_and_gradients(op: Attention, spans: &[[u32; 4]], special: Option<(usize, usize, f64)>) {
    let op = Attention { sequences: spans.len(), ..op };
    let mut inputs = attention_inputs(op, spans, 12);
    if let Some((input, at, value)) = special {
        inputs[input][at] = value;
    }
    let outputs = check(op, &inputs, &[]);
    let mut rng = Random(13);
    inputs.extend([outputs[0].clone(), outputs[1].clone(), rng.units(outputs[0].len())]);
    check(Op::AttentionBackward(op), &inputs, &[]);
}

#[test]
fn attention_of_one_sequence() {
    for dtype in DType::ALL {
        for causal in [false, true] {
            for (queries, keys, heads, kv_heads, head) in [
                (1, 1, 1, 1, 1),
                (1, 512, 9, 3, 64),
                (1, 700, 2, 1, 80),
                (5, 5, 4, 2, 7),
                (25, 70, 6, 2, 33),
                (100, 100, 3, 3, 16),
                (130, 65, 2, 1, 8),
                (3, 200, 32, 1, 40),
                (150, 200, 6, 2, 64),
            ] {
                let shape = Attention::new(queries, keys, heads, kv_heads, head, dtype);
                let op = Attention {
                    causal,
                    q_row: shape.q_row + 3,
                    k_row: shape.k_row + 1,
                    v_row: shape.v_row + 2,
                    y_row: shape.y_row + 5,
                    ..shape
                };
                attention_and_gradients(op, &[[0, u32::MAX, 0, u32::MAX]], None);
            }
        }
    }
}

#[test]
fn attention_of_sequences_and_of_nothing() {
    for dtype in DType::ALL {
        for causal in [false, true] {
            let op = Attention { causal, ..Attention::new(60, 150, 4, 2, 24, dtype) };
            // A cache of capacity 50: lengths 50, 1 and 30; and a query that nobody has.
            attention_and_gradients(op, &[[0, 1, 0, 50], [1, 1, 50, 1], [2, 30, 100, 30]], None);
            // Documents in a row; one of them overlaps the one before and keeps what is left; shared keys; no keys.
            attention_and_gradients(op, &[[0, 20, 0, 20], [15, 20, 10, 60], [40, 10, 0, 0], [50, 99, 140, 99]], None);
            attention_and_gradients(op, &[], None);
            attention_and_gradients(op, &[[70, 5, 200, 5]], None);
        }
        for (queries, keys, heads, head) in [(0, 5, 2, 4), (5, 0, 2, 4), (5, 5, 0, 4), (5, 5, 2, 0)] {
            let op = Attention::new(queries, keys, heads, 1, head, dtype);
            attention_and_gradients(op, &[[0, 5, 0, 5]], None);
        }
    }
}

#[test]
fn attention_keeps_what_is_not_a_number_where_it_is_seen() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for causal in [false, true] {
            let op = Attention { causal, ..Attention::new(40, 90, 2, 1, 20, DType::F32) };
            for input in 0..3 {
                // Key 60 is on the diagonal of the second tile, query 10 sees keys up to 60.
                let at = if input == 0 { 10 * 40 + 3 } else { 60 * 20 + 3 };
                let outputs = check(
                    op,
                    &{
                        let mut inputs = attention_inputs(op, &[[0, 40, 0, 90]], 14);
                        inputs[input][at] = value;
                        inputs
                    },
                    &[],
                );
                if input == 2 && causal {
                    assert!(outputs[0][..10 * 40].iter().all(|y| y.is_finite()), "earlier queries do not see key 60");
                }
            }
        }
    }
    // All scores -inf: 0 / 0, as in softmax.
    let op = Attention { causal: false, ..Attention::new(1, 70, 1, 1, 1, DType::F32) };
    let outputs = check(op, &[vec![1.0], vec![f64::NEG_INFINITY; 70], vec![1.0; 70], vec![0.0, 1.0, 0.0, 70.0]], &[]);
    assert!(outputs[0][0].is_nan() && outputs[1][0].is_nan());
}
