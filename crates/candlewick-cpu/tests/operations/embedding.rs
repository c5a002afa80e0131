//! `embedding` and its gradient.

use crate::engines::{Random, check};
use candlewick_core::{DType, Embedding, Op};

#[test]
fn embedding_and_its_gradient() {
    let mut rng = Random(9);
    for dtype in DType::ALL {
        for (tokens, vocab, width) in [(0, 4, 3), (5, 0, 3), (4, 3, 0), (1, 7, 1), (33, 5, 17), (300, 1000, 64)] {
            let op = Embedding::new(tokens, vocab, width, dtype);
            let mut ids: Vec<f64> = (0..tokens).map(|_| rng.below(vocab + 1) as f64).collect();
            if let Some(last) = ids.last_mut() {
                *last = f64::from(u32::MAX);
            }
            check(op, &[ids.clone(), rng.units(vocab * width)], &[]);
            let mut dy = rng.units(tokens * width);
            if dy.len() > 40 {
                dy[20] = f64::NAN;
            }
            check(Op::EmbeddingBackward(op), &[ids, dy], &[]);
        }
    }
}
