use super::part;
use crate::{CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats};

pub(super) fn stats(op: &CrossEntropyStats, logits: &[f64], labels: &[f64], stats: &mut [f64]) {
    for row in 0..op.rows {
        let logits = part(logits, row * op.logits_row, op.cols);
        let stats = &mut stats[3 * row..3 * row + 3];
        if op.begin {
            stats.copy_from_slice(&[f64::NEG_INFINITY, 0.0, 0.0]);
        }
        let max = logits.iter().copied().fold(stats[0], f64::max);
        // All of -inf: exp(-inf - 0) is the 0 that it should be, where exp(-inf + inf) is not.
        let shift = if max == f64::NEG_INFINITY { 0.0 } else { max };
        let before = if stats[1] == 0.0 { 0.0 } else { stats[1] * (stats[0] - shift).exp() };
        let sum = before + logits.iter().map(|logit| (logit - shift).exp()).sum::<f64>();
        (stats[0], stats[1]) = if sum.is_nan() { (f64::NAN, f64::NAN) } else { (max, sum) };
        if let Some(column) = (labels[row] as usize).checked_sub(op.first).filter(|&column| column < op.cols) {
            stats[2] = logits[column];
        }
    }
}

pub(super) fn loss(op: &CrossEntropyLoss, stats: &[f64], labels: &[f64], loss: &mut [f64]) {
    let counted: Vec<usize> = (0..op.rows).filter(|&row| (labels[row] as usize) < op.vocab).collect();
    let sum: f64 = counted.iter().map(|row| part(stats, 3 * row, 3)).map(|s| s[1].ln() + s[0] - s[2]).sum();
    loss[0] = if counted.is_empty() { 0.0 } else { sum / counted.len() as f64 };
    loss[1] = counted.len() as f64;
}

/// logits, labels, stats, loss, dloss.
pub(super) fn grad(op: &CrossEntropyGrad, inputs: [&[f64]; 5], dlogits: &mut [f64]) {
    let [logits, labels, stats, loss, dloss] = inputs;
    for (row, &label) in labels.iter().take(op.rows).enumerate() {
        let (label, stats) = (label as usize, part(stats, 3 * row, 3));
        for j in 0..op.cols {
            let at = row * op.logits_row + j;
            let onehot = f64::from(label == op.first + j);
            let p = (logits[at] - stats[0]).exp() / stats[1];
            dlogits[at] = if label < op.vocab { dloss[0] / loss[1] * (p - onehot) } else { 0.0 };
        }
    }
}
