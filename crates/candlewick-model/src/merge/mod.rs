//! Adapters merged into the weights of a model, and taken out again, exactly.
//!
//! A merged weight is W' = round(W + Σ strength · scale · B A): the sum is formed in f64 and rounded once, to the weight's own
//! float format. That rounding loses bits of W, and W' - scale · B A, rounded again, is W only now and then. So unmerging
//! "exactly" cannot mean subtracting. Here it means that every bit of W comes back, in one of two ways:
//! * In memory nothing has to be undone: the model's file is mapped and never written, and a merged weight is a copy. Drop
//!   the copy.
//! * A merged folder keeps W xor W', bit by bit, beside its weights ([`UNDO`]). That restores W whatever was rounded, NaN
//!   included, and the SHA-256 of each W proves it. The file costs as much as the weights that were merged into; delete it
//!   if the model will never be unmerged.

mod folder;

pub use folder::{UNDO, merge_folder, unmerge_folder};

use crate::adapter::tensor::{numbers, put};
use crate::{Error, Format, Lora, Result, Weight};
use std::num::NonZero;
use std::thread;

/// The bytes of `weight` with `strength` times each delta added, in the weight's own format.
///
/// The deltas have the weight's order of rows: see [`crate::Adapter::fit`].
///
/// # Errors
/// Where the weight is quantised (its blocks cannot hold the sum without quantising it anew), or a shape differs.
pub fn merge(weight: Weight<'_>, deltas: &[(&Lora, f64)]) -> Result<Vec<u8>> {
    let Format::Float(dtype) = weight.format else {
        return Err(Error::Mismatch {
            what: "merge".to_owned(),
            left: format!("a weight of {}", weight.format),
            right: "a sum of floats".to_owned(),
            remedy: "merge into the model's float weights, or keep the adapter beside the quantised ones".to_owned(),
        });
    };
    let mut terms = Vec::with_capacity(deltas.len());
    for &(lora, strength) in deltas {
        if lora.shape() != [weight.rows, weight.cols] {
            return Err(Error::Mismatch {
                what: "merge".to_owned(),
                left: format!("a weight of {:?}", [weight.rows, weight.cols]),
                right: format!("an adapter of {:?}", lora.shape()),
                remedy: "the adapter was trained for another model".to_owned(),
            });
        }
        terms.push(Term { rank: lora.rank(), factor: strength * lora.scale, a: lora.a.to_f32(), b: lora.b.to_f32() });
    }
    let row_bytes = weight.cols * dtype.bytes();
    let add = |first: usize, rows: &[u8]| {
        let mut merged = Vec::with_capacity(rows.len());
        for (nth, row) in rows.chunks_exact(row_bytes.max(1)).enumerate() {
            let mut sums: Vec<f64> = vec![0.0; weight.cols];
            terms.iter().for_each(|term| term.add_row(first + nth, &mut sums));
            for (number, sum) in numbers(dtype, row).zip(sums) {
                put(dtype, number + sum, &mut merged);
            }
        }
        merged
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(weight.rows.max(1));
    let rows_each = weight.rows.div_ceil(threads).max(1);
    let parts = thread::scope(|scope| {
        let parts = weight.bytes.chunks((rows_each * row_bytes).max(1)).enumerate();
        let workers: Vec<_> = parts.map(|(nth, rows)| scope.spawn(move || add(nth * rows_each, rows))).collect();
        workers.into_iter().map(|worker| worker.join().expect("adding numbers does not panic")).collect::<Vec<_>>()
    });
    Ok(parts.concat())
}

/// A delta, widened.
struct Term {
    rank: usize,
    factor: f64,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Term {
    /// sums += factor · (row of B) A.
    fn add_row(&self, row: usize, sums: &mut [f64]) {
        let of_b = &self.b[row * self.rank..(row + 1) * self.rank];
        for (&b, of_a) in of_b.iter().zip(self.a.chunks_exact(sums.len())) {
            let factor = self.factor * f64::from(b);
            sums.iter_mut().zip(of_a).for_each(|(sum, &a)| *sum += factor * f64::from(a));
        }
    }
}

/// One xor the other: the difference of two weights that gives either back from the other.
pub fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(left, right)| left ^ right).collect()
}
