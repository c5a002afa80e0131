//! The backwards of two LoRA layers that read the same x, as q and v do: the products of all that adds to its gradient in one
//! launch, or one after the other, then two launches for what the two layers' adapters have to do.

use super::{Hidden, Together, fits, same};
use crate::cublaslt::{Product, Where, base_of_backward};
use crate::kernel::Kernel;
use crate::ops::{Build, Step, Work};
use crate::{CUBLASLT, fused, mma};
use candlewick_core::tape::{self, Place};
use candlewick_core::{LoraLinear, MatMul, Op, Result};
use candlewick_kernels::Place as Of;

/// What the steps from one on are, as far as they go together.
struct Family<'a> {
    steps: usize,
    layers: Vec<(LoraLinear, &'a tape::Step<Kernel>)>,
    products: Vec<Term>,
    /// Where the gradient of x is at last.
    dx: Place,
}

/// A product that is added to the gradient.
struct Term {
    op: MatMul,
    /// A, B, C, and what is added, where it is not C.
    places: [Place; 3],
    added: Option<Place>,
}

/// The steps at `at` and behind it as one, if they are the backward of a layer, products that are added to its dx, and the
/// backward of another layer of the same x whose dx is added too; and nobody else reads what lies between them.
///
/// # Errors
/// No algorithm, no memory, or what the compiler says.
pub(super) fn siblings(
    steps: &[tape::Step<Kernel>],
    at: usize,
    kept: &[Hidden],
    build: &mut Build<'_>,
) -> Result<Option<Together>> {
    let Some(family) = family(steps, at).filter(Family::is_apart) else { return Ok(None) };
    let ops: Vec<LoraLinear> = family.layers.iter().map(|(op, _)| *op).collect();
    let kept = kept.iter().rev().find(|hidden| family.is_of(hidden, &steps[hidden.behind..at]));
    let Some(own) = mma::behind_products(&ops, kept.is_some(), build.chip()) else { return Ok(None) };
    let mut places = Vec::with_capacity(20);
    let mut number = |place: Place| {
        places.push(place);
        places.len() - 1
    };
    let mut all = Vec::with_capacity(family.products.len() + 1);
    let ops_of_sum: Vec<MatMul> = family.products.iter().map(|term| term.op).collect();
    if let Some(sum) = mma::product_sum(&ops_of_sum, build.chip()) {
        let inputs: Vec<usize> =
            family.products.iter().flat_map(|term| &term.places[..2]).map(|&place| number(place)).collect();
        let output = number(family.dx);
        let place = |place| match place {
            Of::Input(index) => inputs[usize::from(index)],
            _ => output,
        };
        all.push(fused::launches(&sum, 0, place, build)?);
    } else {
        for Term { op, places, added } in &family.products {
            let places = places.map(|place| Where::Tensor(number(place)));
            let product = Product::new(op, &Op::from(*op), places, None, build)?;
            let product = match added {
                Some(added) => product.added(Where::Tensor(number(*added))),
                None => product,
            };
            all.push(Step::Product(Box::new(product)));
        }
    }
    // As the program numbers them.
    let inputs: Vec<usize> = std::iter::once(family.x())
        .chain(family.layers.iter().flat_map(|(_, step)| [2, 3, 4].map(|i| step.inputs[i])))
        .map(&mut number)
        .collect();
    let outputs: Vec<usize> = std::iter::once(family.dx)
        .chain(family.layers.iter().flat_map(|(_, step)| [1, 2].map(|i| step.outputs[i])))
        .map(&mut number)
        .collect();
    let place = |place| match place {
        Of::Input(index) => inputs[usize::from(index)],
        Of::Output(index) => outputs[usize::from(index)],
        Of::Workspace => 0,
    };
    let workspace = match kept {
        Some(hidden) => hidden.workspace,
        None => build.workspace(own.workspace_bytes)?,
    };
    all.push(fused::launches(&own, workspace, place, build)?);
    let (steps, work, alignment) = (family.steps, Work::products(all), own.alignment.into());
    Ok(Some(Together { steps, work, engine: CUBLASLT, places, alignment, keeps: None }))
}

fn family(steps: &[tape::Step<Kernel>], at: usize) -> Option<Family<'_>> {
    let (first, step) = layer(steps, at)?;
    let dx = step.outputs[0];
    let product =
        Term { op: base_of_backward(&first, false), places: [step.inputs[4], step.inputs[1], dx], added: None };
    let mut family = Family { steps: 1, layers: vec![(first, step)], products: vec![product], dx };
    loop {
        let next = at + family.steps;
        if let Some((op, other)) = layer(steps, next) {
            // Its own dx is left out: the sum is made instead.
            let sum = steps.get(next + 1)?;
            let Op::Add(add) = *sum.kernel.op() else { return None };
            let adds = (0..2).any(|i| same(&sum.inputs[i], &other.outputs[0]) && same(&sum.inputs[1 - i], &family.dx));
            let alike = same(&other.inputs[0], &family.x())
                && (op.rows, op.in_features, op.rank, op.x_row)
                    == (first.rows, first.in_features, first.rank, first.x_row)
                && fits(&op, &add, op.x_row, op.in_features);
            if !adds || !alike || other.until(0) > next + 2 {
                return None;
            }
            let (to, so_far) = (sum.outputs[0], family.dx);
            let places = [other.inputs[4], other.inputs[1], to];
            family.products.push(Term { op: base_of_backward(&op, true), places, added: Some(so_far) });
            family.layers.push((op, other));
            (family.dx, family.steps) = (to, family.steps + 2);
            // The sum so far is not what it would have been, until the end.
            return (step.until(0) <= at + family.steps || same(&step.outputs[0], &family.dx)).then_some(family);
        }
        let term = steps.get(next)?;
        let Op::MatMul(op) = *term.kernel.op() else { return None };
        if term.kernel.engine() != CUBLASLT || op.beta.get() != 1.0 || !same(&term.outputs[0], &family.dx) {
            return None;
        }
        let places = [term.inputs[0], term.inputs[1], term.outputs[0]];
        family.products.push(Term { op, places, added: None });
        family.steps += 1;
    }
}

/// The backward of a layer that the library runs.
fn layer(steps: &[tape::Step<Kernel>], at: usize) -> Option<(LoraLinear, &tape::Step<Kernel>)> {
    let step = steps.get(at)?;
    let Op::LoraLinearBackward(op) = *step.kernel.op() else { return None };
    (step.kernel.engine() == CUBLASLT && op.rank > 0).then_some((op, step))
}

impl Family<'_> {
    fn x(&self) -> Place {
        self.layers[0].1.inputs[0]
    }

    /// Whether this is h of these layers, and what it was made of is as it was, behind these steps.
    fn is_of(&self, hidden: &Hidden, since: &[tape::Step<Kernel>]) -> bool {
        let made_of = || [&hidden.x].into_iter().chain(&hidden.a);
        let mut written = since.iter().flat_map(|step| &step.outputs);
        same(&hidden.x, &self.x())
            && self.layers.len() == hidden.a.len()
            && self.layers.iter().zip(&hidden.a).all(|((_, step), a)| same(&step.inputs[2], a))
            && !written.any(|output| made_of().any(|read| read.meets(output)))
    }

    /// Whether nothing that is read now, later than before, has been written by then, and no two results meet.
    fn is_apart(&self) -> bool {
        let of_layers = self.layers.iter().flat_map(|(_, step)| [0, 2, 3, 4].map(|i| step.inputs[i]));
        let factors = self.products.iter().flat_map(|term| [term.places[0], term.places[1]]);
        let read: Vec<Place> = of_layers.chain(factors).collect();
        let own: Vec<Place> = self.layers.iter().flat_map(|(_, step)| [1, 2].map(|i| step.outputs[i])).collect();
        let sums = || self.products.iter().map(|term| term.places[2]);
        let meets_sum = |place: &Place| sums().any(|sum| sum.meets(place));
        let own_meets = |(i, place): (usize, &Place)| {
            meets_sum(place) || own[..i].iter().chain(&read).any(|other| other.meets(place))
        };
        !read.iter().any(meets_sum) && !own.iter().enumerate().any(own_meets)
    }
}
