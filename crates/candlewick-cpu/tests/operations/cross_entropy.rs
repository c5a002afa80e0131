//! `cross_entropy`.

use crate::engines::{Random, check};
use candlewick_core::{CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats, DType};

#[test]
fn cross_entropy() {
    let mut rng = Random(16);
    for dtype in DType::ALL {
        for (rows, vocab, chunk) in [(1, 1, 1), (3, 40, 17), (5, 1000, 1000), (70, 300, 128), (0, 3, 3), (4, 0, 1)] {
            let row = chunk + 3;
            let labels: Vec<f64> =
                (0..rows).map(|i| if i % 4 == 3 { f64::from(u32::MAX) } else { rng.below(vocab + 1) as f64 }).collect();
            let mut stats = vec![0.5; 3 * rows];
            let firsts: Vec<usize> = (0..vocab).step_by(chunk).collect();
            let logits: Vec<Vec<f64>> =
                firsts.iter().map(|_| rng.units(rows * row).iter().map(|x| 10.0 * x).collect::<Vec<f64>>()).collect();
            for (&first, logits) in firsts.iter().zip(&logits) {
                let cols = chunk.min(vocab - first);
                let op = CrossEntropyStats {
                    first,
                    begin: first == 0,
                    logits_row: row,
                    ..CrossEntropyStats::new(rows, cols, dtype)
                };
                stats = check(op, &[logits.clone(), labels.clone()], &[stats]).remove(0);
            }
            let loss = check(CrossEntropyLoss::new(rows, vocab), &[stats.clone(), labels.clone()], &[]).remove(0);
            for (&first, logits) in firsts.iter().zip(&logits) {
                let cols = chunk.min(vocab - first);
                let op = CrossEntropyGrad { rows, cols, first, vocab, logits_row: row, dtype };
                let inputs = [logits.clone(), labels.clone(), stats.clone(), loss.clone(), vec![0.7]];
                check(op, &inputs, &[]);
            }
        }
    }
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let logits = [[nan, 1.0, 2.0], [inf, 1.0, 2.0], [-inf, -inf, -inf], [-inf, 1.0, 2.0]].concat();
    let labels = vec![0.0, 0.0, 0.0, 1.0];
    let op = CrossEntropyStats::new(4, 3, DType::F32);
    let stats = check(op, &[logits.clone(), labels.clone()], &[]).remove(0);
    // The same chunk again, after one of all -inf, and after one with NaN.
    check(op.at(3), &[logits, labels.clone()], std::slice::from_ref(&stats));
    check(CrossEntropyLoss::new(4, 3), &[stats, labels], &[]);
}
