//! LoRA layers of one x and the rotation of what they make, as q, k and v of an attention are: one launch.

use super::{Hidden, Together, launched, same};
use crate::kernel::Kernel;
use crate::mma::{self, MOST_LAYERS, Projection};
use crate::ops::Build;
use crate::{CUBLASLT, MMA};
use arrayvec::ArrayVec;
use candlewick_core::tape::{self, Place};
use candlewick_core::{LoraLinear, Op, Result};

/// A layer's step, and that of the rotation behind it.
struct Found<'a> {
    of: Projection,
    layer: &'a tape::Step<Kernel>,
    rope: Option<&'a tape::Step<Kernel>>,
}

impl Found<'_> {
    fn output(&self) -> Place {
        self.rope.unwrap_or(self.layer).outputs[0]
    }

    /// W, and A and B where there is a rank.
    fn weights(&self) -> &[Place] {
        &self.layer.inputs[1..if self.of.layer.rank > 0 { 4 } else { 2 }]
    }
}

/// The layers at `at` and behind it, with rotations behind them, if one launch is the better guess.
///
/// # Errors
/// What the compiler says.
pub(super) fn projections(steps: &[tape::Step<Kernel>], at: usize, build: &mut Build<'_>) -> Result<Option<Together>> {
    let Some(mut layers) = found(steps, at).filter(is_apart) else { return Ok(None) };
    let trained = trained(&mut layers, &steps[at..], build);
    let of: ArrayVec<Projection, MOST_LAYERS> = layers.iter().map(|layer| layer.of).collect();
    let Some(program) = mma::projections(&of, build.chip()) else { return Ok(None) };
    let x = layers[0].layer.inputs[0];
    let tables = layers.iter().find_map(|layer| layer.rope).map_or([x; 2], |rope| [rope.inputs[1], rope.inputs[2]]);
    // As the program numbers them; what is not there is anything.
    let weights = |i: usize| layers.get(i).map_or(&[][..], Found::weights);
    let inputs = (0..MOST_LAYERS).flat_map(|i| (0..3).map(move |j| weights(i).get(j).copied().unwrap_or(x)));
    let inputs: Vec<Place> = std::iter::once(x).chain(inputs).chain(tables).collect();
    let outputs: ArrayVec<Place, MOST_LAYERS> = layers.iter().map(Found::output).collect();
    let steps = layers.iter().map(|layer| 1 + usize::from(layer.rope.is_some())).sum();
    let workspace = build.workspace(program.workspace_bytes)?;
    let together = launched(&program, steps, (inputs, &outputs), workspace, build)?;
    let keeps = trained.map(|a| Hidden { behind: at + steps, x, a, workspace });
    Ok(Some(Together { keeps, ..together }))
}

/// Two layers that keep h for their backwards, which come later: A of each, in the order of these.
fn trained(
    layers: &mut ArrayVec<Found<'_>, MOST_LAYERS>,
    steps: &[tape::Step<Kernel>],
    build: &Build<'_>,
) -> Option<[Place; 2]> {
    let x = layers[0].layer.inputs[0];
    let mut order = ArrayVec::<(usize, LoraLinear), MOST_LAYERS>::new();
    for step in steps {
        let Op::LoraLinearBackward(op) = *step.kernel.op() else { continue };
        let is = |layer: &Found<'_>| {
            layer.of.layer.rank > 0 && same(&step.inputs[0], &x) && same(&step.inputs[2], &layer.layer.inputs[2])
        };
        let Some(i) = layers.iter().position(is).filter(|i| order.iter().all(|(other, _)| other != i)) else {
            continue;
        };
        order.try_push((i, op)).ok()?;
    }
    let ops: ArrayVec<LoraLinear, MOST_LAYERS> = order.iter().map(|(_, op)| *op).collect();
    let [(one, _), (other, _)] = order[..] else { return None };
    let kept = mma::kept_hidden(&ops, build.chip())?;
    (layers[one].of.kept, layers[other].of.kept) = (Some((kept, 0)), Some((kept, 1)));
    Some([one, other].map(|i| layers[i].layer.inputs[2]))
}

/// Several layers, or one that is turned.
fn found(steps: &[tape::Step<Kernel>], at: usize) -> Option<ArrayVec<Found<'_>, MOST_LAYERS>> {
    let mut layers = ArrayVec::<Found<'_>, MOST_LAYERS>::new();
    let mut rest = steps.get(at..)?.iter().peekable();
    while let Some(layer) = rest.peek() {
        let Op::LoraLinear(op) = *layer.kernel.op() else { break };
        let reads_x = layers.first().is_none_or(|first| same(&first.layer.inputs[0], &layer.inputs[0]));
        if layers.is_full() || !reads_x || ![CUBLASLT, MMA].contains(&layer.kernel.engine()) {
            break;
        }
        layers.push(Found { of: Projection { layer: op, rope: None, kept: None }, layer, rope: None });
        rest.next();
    }
    let mut end = at + layers.len();
    for step in rest {
        let Op::Rope(rope) = *step.kernel.op() else { break };
        let tables =
            layers.iter().find_map(|layer| layer.rope).is_none_or(|other| other.inputs[1..] == step.inputs[1..]);
        let Some(layer) = layers.iter_mut().find(|layer| same(&layer.layer.outputs[0], &step.inputs[0])) else { break };
        if !tables || layer.rope.is_some() {
            break;
        }
        (layer.rope, layer.of.rope) = (Some(step), Some(rope));
        end += 1;
    }
    // What is turned is never written unturned.
    let passing = layers.iter().all(|layer| layer.rope.is_none() || layer.layer.until(0) <= end);
    (passing && end > at + 1).then_some(layers)
}

/// Whether no output lies on what is read, or on another.
fn is_apart(layers: &ArrayVec<Found<'_>, MOST_LAYERS>) -> bool {
    let x = layers[0].layer.inputs[0];
    let read = || {
        let tables = layers.iter().filter_map(|layer| layer.rope).flat_map(|rope| &rope.inputs[1..]);
        layers.iter().flat_map(Found::weights).chain(tables).chain([&x])
    };
    layers.iter().enumerate().all(|(i, layer)| {
        let output = layer.output();
        let others = layers[..i].iter().map(Found::output);
        !read().any(|place| place.meets(&output)) && !others.into_iter().any(|other| other.meets(&output))
    })
}
