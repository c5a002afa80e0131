//! Rewrites of a recorded plan: fewer operations that compute the same, up to rounding.
//!
//! | rewrite | before | after | file |
//! |---|---|---|---|
//! | bias | x Wᵀ, then + a row | one layer with a bias | `bias.rs` |
//! | scale | a product, then · a number | its own factor | `scale.rs` |
//! | residual | a product, then r + it | the product, added to r in place | `residual.rs` |
//! | join | products of frozen weights with the same x | one product, and columns of it | `join.rs` |
//! | sums | A1 B1 + A2 B2, where B1 and B2 are neighbours in a frozen weight | [A1 A2] [B1 ; B2] | `sums.rs` |
//!
//! A rewrite fires only where it is certain: what lies between the operations is a temporary that one operation writes
//! and one reads, that is no output, and whose strides fit. Gradients are recorded before, so what a backward reads has
//! several readers and stays. The same operations are rewritten alike for every number of rows, as far as they have the
//! same readers, so that the plans of a session share what they load.
//!
//! SiLU times up is one operation from the start, and reads a joined gate and up where they lie. RMSNorm is not put into
//! the product behind it here: on a CPU there is nothing to win, as x stays in the innermost cache and normalising a row of
//! 576 takes about 0.1 us of a product's 20. On a GPU a launch less is a microsecond: there the tape does it, for few rows,
//! with whatever else stands around a layer (`candlewick_kernels::sequence`).
//!
//! `Recorder::without_rewrites` leaves a plan as it was recorded.

mod bias;
mod join;
mod residual;
pub(super) mod scale;
mod strides;
mod sums;
mod uses;

use super::graph::Graph;
use super::recorder::Recorder;
use std::fmt;

/// Up to so many rows, engines read a W that lies plain row by row, as dots.
const FEW_ROWS: usize = 8;

/// What was rewritten in a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewrites {
    /// Rows added to a product that became its bias.
    pub biases: usize,
    /// Scales of a product that became its own factor.
    pub scales: usize,
    /// Additions of a product that became its accumulation in place.
    pub residuals: usize,
    /// Products that another one of the same x took in.
    pub joined: usize,
    /// Products that another one took in, whose result they were added to.
    pub summed: usize,
}

impl Rewrites {
    /// Operations that there are fewer than were recorded.
    pub fn saved(&self) -> usize {
        self.biases + self.scales + self.residuals + self.joined + self.summed
    }
}

impl fmt::Display for Rewrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rewrites { biases, scales, residuals, joined, summed } = self;
        write!(f, "{biases} biases, {scales} scales and {residuals} residuals in products, ")?;
        write!(f, "{joined} products joined, {summed} summed")
    }
}

/// Rewrites a graph.
pub(super) fn rewrite(graph: &mut Graph) -> Rewrites {
    Rewrites {
        biases: everywhere(graph, bias::fold),
        scales: everywhere(graph, scale::fold),
        residuals: everywhere(graph, residual::fold),
        joined: everywhere(graph, join::fold),
        // Needs what the two before have made.
        summed: everywhere(graph, sums::fold),
    }
}

impl Recorder {
    /// Leaves frozen weights of what is recorded from now on plain, as GPUs read them: for tests of the rewrites that such
    /// devices get.
    #[doc(hidden)]
    pub fn plain_weights(&mut self) {
        self.graph.packs = false;
    }
}

/// Tries a rewrite at every operation; what it saves is gone from the list, so the next has taken its place.
fn everywhere(graph: &mut Graph, fold: fn(&mut Graph, usize) -> usize) -> usize {
    let (mut saved, mut at) = (0, 0);
    while at < graph.nodes.len() {
        match fold(graph, at) {
            0 => at += 1,
            fewer => saved += fewer,
        }
    }
    saved
}
