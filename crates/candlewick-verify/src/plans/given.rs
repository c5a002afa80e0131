//! What the caller of a random plan gives it: which tensors, and what is in them.

use crate::cases;
use crate::rng::Rng;
use candlewick::DType;
use candlewick::op::{Attention, Quant};
use candlewick::plan::Tensor;

/// A tensor that the caller gives numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    pub(crate) tensor: Tensor,
    pub(crate) dtype: DType,
    pub(crate) elements: usize,
    pub(crate) role: Role,
    pub(crate) content: Content,
}

/// When it gets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Before each run, others each time.
    Input,
    /// Once.
    Constant,
    /// Before the first run.
    State,
}

/// What they are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    /// Up to this magnitude.
    Uniform(f64),
    /// Between half and one and a half: weights of norms.
    AroundOne,
    /// Not below zero: means of squares.
    Squares,
    /// Rows of a table of so many.
    Ids(usize),
    /// Labels of so many, and some that are ignored.
    Labels(usize),
    /// Positions of tokens.
    Positions,
    /// Different rows of so many, and some that are beyond.
    Slots(usize),
    /// Spans of an attention.
    Spans(Attention),
    /// Quantised blocks.
    Blocks(Quant),
    /// Learning rate, and the number of a step.
    Schedule,
}

impl Given {
    /// Its numbers, before they are rounded to its dtype.
    pub(crate) fn values(&self, rng: &mut Rng) -> Vec<f64> {
        let count = self.elements;
        match self.content {
            Content::Uniform(largest) => cases::uniform(0.0, largest, count, rng),
            Content::AroundOne => cases::uniform(1.0, 0.5, count, rng),
            Content::Squares => (0..count).map(|_| 0.01 * rng.unit().powi(2)).collect(),
            Content::Ids(rows) => (0..count).map(|_| rng.below(rows) as f64).collect(),
            Content::Labels(classes) => {
                let label = |rng: &mut Rng| if rng.chance(20) { u32::MAX as usize } else { rng.below(classes) };
                (0..count).map(|_| label(rng) as f64).collect()
            }
            Content::Positions => (0..count).map(|_| rng.below(4000) as f64).collect(),
            Content::Slots(capacity) => {
                let mut slots: Vec<f64> = (0..capacity + 2).map(|slot| slot as f64).collect();
                (0..count).map(|_| slots.swap_remove(rng.below(slots.len()))).collect()
            }
            Content::Spans(op) => cases::attention::spans(&op, rng).into_iter().flatten().map(f64::from).collect(),
            Content::Blocks(format) => cases::quant::blocks(format, count, 0, &[], rng),
            Content::Schedule => vec![0.001 * (2.0 + rng.unit()), (1 + rng.below(20)) as f64],
        }
    }
}
