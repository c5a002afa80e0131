//! Random plans on a device: every operation against the f64 reference, and the plan as users have it against the same
//! plan with memory of its own for every tensor.
//!
//! A seed makes a plan of some ten to a hundred operations: products with frozen, quantised and trained weights, norms,
//! attention over packed sequences and caches, parts of tensors, tensors written more than once, states, gradients within
//! budgets, steps of the optimizer. It is recorded twice. In one recording every tensor is an output: after a run each
//! operation is judged on the operands that the device itself gave it, so errors do not add up and a wrong operation is
//! named. In the other one temporaries share memory as `layout.rs` has it: its results must have the same bits, in two
//! runs on different numbers, and in a third and fourth without a wait between them.
//!
//! | looking for | it is in |
//! |---|---|
//! | what a plan is made of | `generate.rs`; operations in `steps.rs`, gradients in `losses.rs` |
//! | numbers that plans are given | `given.rs` |
//! | judging operations | `judge.rs` |
//! | running both recordings | `run.rs` |
//! | plans of one operation | `single.rs` |

mod generate;
mod given;
mod judge;
mod losses;
mod run;
mod single;
mod steps;

pub use judge::Wrong;
pub use run::{Flaw, Results, plan_results, verify_plan};
pub use single::operation_results;

use candlewick::Device;
use candlewick::op::OpClass;
use std::collections::BTreeMap;
use std::fmt;

/// What came of random plans.
#[derive(Clone, Debug, Default)]
pub struct PlanReport {
    /// Plans without a flaw.
    pub passed: usize,
    /// The operations of these, by class.
    pub rows: BTreeMap<OpClass, PlanRow>,
    /// The others.
    pub failures: Vec<PlanFailure>,
}

/// The operations of one class, in all plans.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlanRow {
    /// How many.
    pub operations: usize,
    /// The largest error of one, as a share of its bound.
    pub share: f64,
    /// Of the plan where that was.
    pub seed: u64,
}

/// A plan with a flaw. It prints as what a person needs to look into it, and how to run it again.
#[derive(Clone, Debug)]
pub struct PlanFailure {
    /// Of the plan.
    pub seed: u64,
    /// What is wrong.
    pub flaw: Flaw,
    /// The device's name, as users type it.
    pub device: String,
}

impl PlanReport {
    /// The operations of all plans that passed.
    pub fn operations(&self) -> usize {
        self.rows.values().map(|row| row.operations).sum()
    }

    /// The largest error of an operation, as a share of its bound.
    pub fn share(&self) -> f64 {
        self.rows.values().fold(0.0, |share, row| share.max(row.share))
    }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operations, share) = (self.operations(), self.share());
        let (passed, failed) = (self.passed, self.failures.len());
        write!(f, "{passed} plans of {operations} operations passed, {share:.2} of a bound at most; {failed} failed")
    }
}

impl fmt::Display for PlanFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlanFailure { seed, flaw, device } = self;
        write!(f, "FAIL plan {seed}: {flaw}\n  candlewick verify --plans 1 --seed {seed} --device {device}")
    }
}

/// Verifies `count` random plans, with seeds from `seed` on; `on_progress` is told how many are done.
pub fn verify_plans(device: &Device, seed: u64, count: usize, on_progress: &mut dyn FnMut(usize)) -> PlanReport {
    let mut report = PlanReport::default();
    for index in 0..count {
        on_progress(index);
        let seed = seed + index as u64;
        match verify_plan(device, seed) {
            Ok(judged) => {
                report.passed += 1;
                for (class, share) in judged {
                    let row = report.rows.entry(class).or_default();
                    row.operations += 1;
                    if share > row.share {
                        (row.share, row.seed) = (share, seed);
                    }
                }
            }
            Err(flaw) => report.failures.push(PlanFailure { seed, flaw, device: device.info().id }),
        }
    }
    on_progress(count);
    report
}
