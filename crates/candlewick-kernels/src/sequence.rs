//! Operations that follow each other on a tape and run as one launch: what an operation alone cannot know.

use crate::attention;
use crate::linear::{self, Ahead, Turn};
use crate::program::{GpuLimits, Program};
use crate::{cross_entropy, rms_norm, rope};
use candlewick_core::tape::{Place, Step};
use candlewick_core::{Add, Attention, CrossEntropyLoss, CrossEntropyStats, LoraLinear, Op, RmsNorm, Rope};
use std::ops::Range;

/// A program for several steps of a tape at once. Its tensors are named as those of an operation, but by these lists.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// So many steps.
    pub steps: usize,
    /// What runs, for tensors at multiples of 16 bytes.
    pub program: Program,
    /// What [`Place::Input`](crate::Place::Input) means; `None` for what the program does not touch.
    pub inputs: Vec<Option<Place>>,
    /// What [`Place::Output`](crate::Place::Output) means.
    pub outputs: Vec<Option<Place>>,
}

/// The most steps of a sequence.
const MOST_STEPS: usize = 6;

/// How the steps from `at` on run as one launch, if they do: RMSNorm, or SiLU times up, and the layer of few rows that alone
/// reads it; where that makes q, k and v, their rotation and the copies to a cache too; and such a layer by itself, whose
/// weights are then read before the kernel ahead is done. Memories that are one have one number in the places.
///
/// ```text
/// rms_norm, linear                                    linear_norm
/// rms_norm, linear, rope, rope, copy_rows, copy_rows  linear_turn
/// silu_mul, linear                                    linear_silu
/// linear                                              linear_plain
/// rope, rope; or their backwards                      rope, of q and k by the same tables
/// rms_norm's backward, add                            rms_norm_backward, for two gradients of what is normalised
/// attention of few queries                            attention_decode, where no two groups share a query's keys
/// attention of few queries, linear                    attention_decode, linear_join: two launches
/// cross-entropy's stats, loss and gradient            cross_entropy_both, and two launches of one group
/// ```
pub fn sequence<K>(steps: &[Step<K>], at: usize, op: impl Fn(&K) -> Op, limits: &GpuLimits) -> Option<Sequence> {
    let (first, second) = (op(&steps.get(at)?.kernel), steps.get(at + 1).map(|step| op(&step.kernel)));
    let tape = Tape { steps, op: &op, limits };
    match (first, second) {
        (Op::RmsNorm(norm), Some(Op::LoraLinear(linear))) => tape.normed(at, &norm, &linear),
        (Op::SiluMul(silu), Some(Op::LoraLinear(linear))) => {
            let [gate, up] = [0, 1].map(|i| steps[at].inputs[i]);
            let contiguous = silu.y_row == linear.x_row || silu.rows <= 1;
            let fits = contiguous && (silu.rows, silu.cols) == (linear.rows, linear.in_features);
            tape.layer(at, at + 1, &linear, Ahead::Silu(&silu), fits, gate, Some(up))
        }
        (Op::LoraLinear(linear), _) => tape.layer(at, at, &linear, Ahead::Nothing, true, steps[at].inputs[0], None),
        (Op::Rope(q), Some(Op::Rope(k))) => tape.both_turned(at, &q, &k, rope::Way::Forward),
        (Op::RopeBackward(q), Some(Op::RopeBackward(k))) => tape.both_turned(at, &q, &k, rope::Way::Backward),
        (Op::RmsNormBackward(norm), Some(Op::Add(add))) => tape.summed(at, &norm, &add),
        (Op::CrossEntropyStats(stats), Some(Op::CrossEntropyLoss(loss))) => tape.lost(at, &stats, &loss),
        (Op::Attention(op), next) => tape.attended(at, &op, next.as_ref()),
        _ => None,
    }
}

struct Tape<'a, K, F> {
    steps: &'a [Step<K>],
    op: &'a F,
    limits: &'a GpuLimits,
}

impl<K, F: Fn(&K) -> Op> Tape<'_, K, F> {
    fn normed(&self, at: usize, norm: &RmsNorm, linear: &LoraLinear) -> Option<Sequence> {
        let [x, weight] = [0, 1].map(|i| self.steps[at].inputs[i]);
        let contiguous = norm.y_row == linear.x_row || norm.rows <= 1;
        let fits = contiguous && (norm.rows, norm.cols) == (linear.rows, linear.in_features);
        let turned = if fits { self.turned(at, norm, linear, x, weight) } else { None };
        turned.or_else(|| self.layer(at, at + 1, linear, Ahead::Norm(norm), fits, x, Some(weight)))
    }

    /// Steps `at` and `of`, a layer that reads the one before it; or `of` alone.
    #[allow(clippy::too_many_arguments)]
    fn layer(
        &self,
        at: usize,
        of: usize,
        op: &LoraLinear,
        ahead: Ahead<'_>,
        fits: bool,
        x: Place,
        second: Option<Place>,
    ) -> Option<Sequence> {
        let step = &self.steps[of];
        if !fits || (of > at && !self.passes(at, of, step.inputs[0])) {
            return None;
        }
        let mut program = Program::new("one_launch", op.dtype);
        linear::add(&mut program, op, ahead, None, self.limits, 0)?;
        let (w, bias, y) = (step.inputs[1], op.bias.then(|| step.inputs[2]), step.outputs[0]);
        let mut early = vec![Some(w), bias];
        if matches!(ahead, Ahead::Norm(_)) {
            early.push(second);
        }
        let inputs = vec![Some(x), second, Some(w), bias, None, None, None];
        self.checked(at..of + 1, program, inputs, vec![Some(y), None, None], &early, &[])
    }

    fn turned(&self, at: usize, norm: &RmsNorm, linear: &LoraLinear, x: Place, weight: Place) -> Option<Sequence> {
        let ops: Vec<Op> = self.steps.get(at..at + MOST_STEPS)?.iter().map(|step| (self.op)(&step.kernel)).collect();
        let [_, _, Op::Rope(q), Op::Rope(k), Op::CopyRows(keys), Op::CopyRows(values)] = ops[..] else { return None };
        let turn = Turn { q: &q, k: &k, keys: &keys, values: &values };
        let mut program = Program::new("one_launch", linear.dtype);
        linear::add(&mut program, linear, Ahead::Norm(norm), Some(turn), self.limits, 0)?;
        let step = |i: usize| &self.steps[at + i];
        let (layer, joined) = (step(1), step(1).outputs[0]);
        // q, k and v lie side by side in the layer's rows.
        let bytes = |elements: usize| elements * linear.dtype.bytes();
        let column =
            |place: Place, first: usize| (place.memory, place.offset) == (joined.memory, joined.offset + bytes(first));
        let rows = |row: usize| row == linear.y_row || linear.rows <= 1;
        let (width, kv_width) = (q.heads * q.head, k.heads * k.head);
        let lies = column(step(2).inputs[0], 0)
            && column(step(3).inputs[0], width)
            && column(step(5).inputs[0], width + kv_width)
            && [q.x_row, k.x_row, values.x_row].into_iter().all(rows)
            && (k.y_row == keys.x_row || k.rows <= 1)
            && step(4).inputs[0].bytes() == step(3).outputs[0].bytes()
            && step(4).inputs[0].memory == step(3).outputs[0].memory;
        let same = step(2).inputs[1..] == step(3).inputs[1..] && step(4).inputs[1] == step(5).inputs[1];
        let passing =
            self.passes(at, at + 1, layer.inputs[0]) && [1, 3].iter().all(|&i| step(i).until(0) <= at + MOST_STEPS);
        if !(lies && same && passing) {
            return None;
        }
        let [positions, frequencies, slots] = [step(2).inputs[1], step(2).inputs[2], step(4).inputs[1]];
        let (w, bias) = (layer.inputs[1], linear.bias.then(|| layer.inputs[2]));
        let early = [Some(w), bias, Some(weight), Some(positions), Some(frequencies), Some(slots)];
        let inputs = vec![Some(x), Some(weight), Some(w), bias, Some(positions), Some(frequencies), Some(slots)];
        let outputs = [2, 4, 5].map(|i| Some(step(i).outputs[0])).to_vec();
        self.checked(at..at + MOST_STEPS, program, inputs, outputs, &early, &[])
    }

    fn attended(&self, at: usize, op: &Attention, next: Option<&Op>) -> Option<Sequence> {
        let (step, all) = (&self.steps[at], |places: &[Place]| places.iter().copied().map(Some).collect::<Vec<_>>());
        let (mut program, partial) = attention::early(op, self.limits)?;
        let (mut inputs, spans) = (all(&step.inputs), Some(step.inputs[3]));
        let Some(partial) = partial else {
            return self.checked(at..at + 1, program, inputs, all(&step.outputs), &[spans], &[]);
        };
        let (Some(Op::LoraLinear(linear)), Some(layer)) = (next, self.steps.get(at + 1)) else { return None };
        let contiguous = op.y_row == linear.x_row || op.queries <= 1;
        let fits = contiguous && (op.queries, op.heads * op.head) == (linear.rows, linear.in_features);
        if !fits || !self.passes(at, at + 1, layer.inputs[0]) || step.until(1) > at + 2 {
            return None;
        }
        linear::add(&mut program, linear, Ahead::Join(partial), None, self.limits, inputs.len() as u8)?;
        let (w, bias) = (Some(layer.inputs[1]), linear.bias.then(|| layer.inputs[2]));
        inputs.extend([None, None, w, bias, None, None, None]);
        self.checked(at..at + 2, program, inputs, vec![Some(layer.outputs[0]), None, None], &[spans, w, bias], &[])
    }

    fn both_turned(&self, at: usize, one: &Rope, other: &Rope, way: rope::Way) -> Option<Sequence> {
        let (first, second) = (&self.steps[at], &self.steps[at + 1]);
        let program = rope::both(one, other, self.limits, way)?;
        if first.inputs[1..] != second.inputs[1..] {
            return None;
        }
        let inputs = first.inputs.iter().chain(&second.inputs[..1]).copied().map(Some).collect();
        let outputs = [first, second].map(|step| Some(step.outputs[0])).to_vec();
        self.checked(at..at + 2, program, inputs, outputs, &[], &[(0, 0), (3, 1)])
    }

    fn summed(&self, at: usize, norm: &RmsNorm, add: &Add) -> Option<Sequence> {
        let (step, sum) = (&self.steps[at], &self.steps[at + 1]);
        let other = [1, 0].into_iter().find(|&other| self.passes(at, at + 1, sum.inputs[1 - other]))?;
        let alike = [add.a_row, add.b_row, add.y_row].iter().all(|&row| row == norm.x_row);
        if !alike || (add.rows, add.cols) != (norm.rows, norm.cols) {
            return None;
        }
        let program = rms_norm::backward_added(norm, self.limits)?;
        let (added, y) = (sum.inputs[other], sum.outputs[0]);
        let inputs: Vec<Option<Place>> = step.inputs.iter().copied().chain([added]).map(Some).collect();
        self.checked(at..at + 2, program, inputs, vec![Some(y)], &[], &[(3, 0)])
    }

    fn lost(&self, at: usize, stats: &CrossEntropyStats, loss: &CrossEntropyLoss) -> Option<Sequence> {
        let [of_stats, of_loss, of_grad] = self.steps.get(at..at + 3)? else { return None };
        let Op::CrossEntropyGrad(grad) = (self.op)(&of_grad.kernel) else { return None };
        let alike = stats.begin
            && stats.first == 0
            && (stats.rows, stats.cols, stats.logits_row, stats.dtype)
                == (grad.rows, grad.cols, grad.logits_row, grad.dtype)
            && loss.rows == grad.rows;
        let program = cross_entropy::both(loss, &grad, self.limits)?;
        let [logits, labels, stats, loss, dloss] = of_grad.inputs[..] else { return None };
        let reads = of_stats.inputs == [logits, labels] && of_loss.inputs == [stats, labels];
        let writes = of_stats.outputs == [stats] && of_loss.outputs == [loss];
        if !(alike && reads && writes) {
            return None;
        }
        let inputs = [logits, labels, dloss].map(Some).to_vec();
        let outputs = [of_grad.outputs[0], stats, loss].map(Some).to_vec();
        self.checked(at..at + 3, program, inputs, outputs, &[], &[(0, 0)])
    }

    /// Whether what step `from` writes is what step `to` reads at `place`, and nobody else reads it.
    fn passes(&self, from: usize, to: usize, place: Place) -> bool {
        let (step, output) = (&self.steps[from], self.steps[from].outputs[0]);
        step.until(0) <= to + 1 && (output.memory, output.bytes()) == (place.memory, place.bytes())
    }

    /// A sequence, if its tensors are aligned, no output lies on what is read, and the kernels ahead, which may run still, do
    /// not write what is read early. `but`: inputs that an output may be, whose elements are read by the thread that writes
    /// them.
    fn checked(
        &self,
        range: Range<usize>,
        program: Program,
        inputs: Vec<Option<Place>>,
        outputs: Vec<Option<Place>>,
        early: &[Option<Place>],
        but: &[(usize, usize)],
    ) -> Option<Sequence> {
        let (read, written) = (inputs.iter().flatten(), || outputs.iter().flatten());
        let aligned = read.chain(written()).all(|place| place.offset.is_multiple_of(16));
        let apart = inputs.iter().enumerate().all(|(i, input)| {
            let meets = |(o, output): (usize, &Option<Place>)| match (input, output) {
                (Some(input), Some(output)) => input.meets(output) && !(but.contains(&(i, o)) && input == output),
                _ => false,
            };
            !outputs.iter().enumerate().any(meets)
        });
        let own = written().enumerate().all(|(i, output)| !written().take(i).any(|other| output.meets(other)));
        // The launch ahead may itself be a sequence.
        let mut ahead = self.steps[range.start.saturating_sub(MOST_STEPS)..range.start].iter();
        let ready = ahead
            .all(|step| step.outputs.iter().all(|output| !early.iter().flatten().any(|place| place.meets(output))));
        let steps = range.len();
        (aligned && apart && own && ready).then_some(Sequence { steps, program, inputs, outputs })
    }
}
