//! Steps of a tape that run as one: what an operation alone cannot know. (What the shared kernels know of it is in
//! `candlewick_kernels::sequence`.)
//!
//! | steps | become | in |
//! |---|---|---|
//! | LoRA layers of one x, and the rotation of what they make | one launch | `projections.rs` |
//! | the product that makes gate and up, and SiLU; the product behind SiLU backward, and SiLU's | one launch | `gated.rs` |
//! | attention's backward, and the rotation of dq and dk | one launch | `turned_back.rs` |
//! | the backwards of two LoRA layers of one x | products, and two launches for both | `siblings.rs` |
//! | a product and the sum behind it | one product | `residual.rs` |
//!
//! Each file looks at the steps from one on and says what they become, or nothing. What lies between the steps is then
//! never written: it must be a temporary that nobody else reads ([`tape::Step::until`]).

mod gated;
mod projections;
mod residual;
mod siblings;
mod turned_back;

use crate::kernel::Kernel;
use crate::ops::{Build, Work};
use crate::program::Program;
use crate::{MMA, fused};
use candlewick_core::backend::Engine;
use candlewick_core::tape::{self, Place};
use candlewick_core::{Add, LoraLinear, Result};
use candlewick_kernels::Place as Of;

/// Steps of a tape as the work of one.
pub(crate) struct Together {
    /// So many.
    pub(crate) steps: usize,
    pub(crate) work: Work,
    pub(crate) engine: Engine,
    /// The places of its tensors.
    pub(crate) places: Vec<Place>,
    /// For addresses that are multiples of so many bytes.
    pub(crate) alignment: u64,
    /// What it leaves for steps behind it.
    pub(crate) keeps: Option<Hidden>,
}

/// h of two LoRA layers of one x, which their forward made and leaves for their backward.
pub(crate) struct Hidden {
    /// The step behind those that make it.
    behind: usize,
    x: Place,
    /// A of each, in the order of their backwards.
    a: [Place; 2],
    /// The backward's, where it lies.
    workspace: u64,
}

/// The steps at `at` and behind it as one, if they go together. `kept`: what those ahead leave, the latest last.
///
/// # Errors
/// No algorithm, no memory, or what the compiler says.
pub(crate) fn together(
    steps: &[tape::Step<Kernel>],
    at: usize,
    kept: &[Hidden],
    build: &mut Build<'_>,
) -> Result<Option<Together>> {
    if let Some(together) = siblings::siblings(steps, at, kept, build)? {
        return Ok(Some(together));
    }
    let finds =
        [projections::projections, gated::forward, gated::backward, turned_back::turned_back, residual::residual];
    for find in finds {
        if let Some(together) = find(steps, at, build)? {
            return Ok(Some(together));
        }
    }
    Ok(None)
}

/// A program of own kernels on tensors at these places, as the work of so many steps.
fn launched(
    program: &Program,
    steps: usize,
    (inputs, outputs): (Vec<Place>, &[Place]),
    workspace: u64,
    build: &Build<'_>,
) -> Result<Together> {
    let first_output = inputs.len();
    let place = |place| match place {
        Of::Input(index) => usize::from(index),
        Of::Output(index) => first_output + usize::from(index),
        Of::Workspace => 0,
    };
    let launches = vec![fused::launches(program, workspace, place, build)?];
    let work = Work { variant: program.variant, aligned: None, any: launches };
    let places = inputs.into_iter().chain(outputs.iter().copied()).collect();
    Ok(Together { steps, work, engine: MMA, places, alignment: program.alignment.into(), keeps: None })
}

fn same(a: &Place, b: &Place) -> bool {
    (a.memory, a.bytes()) == (b.memory, b.bytes())
}

/// Whether a sum is of matrices that lie as one of these rows and columns does.
fn fits(op: &LoraLinear, add: &Add, row: usize, cols: usize) -> bool {
    [add.a_row, add.b_row, add.y_row].iter().all(|&other| other == row) && (add.rows, add.cols) == (op.rows, cols)
}
