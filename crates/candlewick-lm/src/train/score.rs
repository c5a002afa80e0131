//! How well a model does on validation data.

use super::data::{Batch, IGNORED};

/// What a look at validation data found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Sum over the labels, in nats.
    pub loss: f64,
    /// Labels.
    pub learned: usize,
    /// Labels that the model finds likeliest.
    pub right: usize,
    /// Documents that have labels.
    pub answers: usize,
    /// Those of which every label is the likeliest: the model, asked greedily, answers just that.
    pub right_answers: usize,
}

impl Score {
    /// Adds what a plan found of a batch: `stats` has a row for every position, or for every label in their order.
    pub(super) fn add(&mut self, batch: &Batch, stats: &[f32], by_position: bool) {
        let mut label = 0;
        for &(first, count) in &batch.documents {
            let (mut learned, mut right) = (0, 0);
            for position in first as usize..(first + count) as usize {
                if batch.labels[position] == IGNORED {
                    continue;
                }
                let row = if by_position { position } else { label };
                let (largest, sum, own) = (stats[3 * row], stats[3 * row + 1], stats[3 * row + 2]);
                self.loss += f64::from(sum).ln() + f64::from(largest) - f64::from(own);
                learned += 1;
                right += usize::from(own == largest);
                label += 1;
            }
            self.learned += learned;
            self.right += right;
            self.answers += usize::from(learned > 0);
            self.right_answers += usize::from(learned > 0 && right == learned);
        }
    }

    /// Mean over the labels, in nats.
    pub fn mean(&self) -> f64 {
        self.loss / self.learned.max(1) as f64
    }
}
