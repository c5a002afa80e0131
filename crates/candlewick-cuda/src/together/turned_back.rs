//! Attention's backward, and the rotation of dq and dk: one launch.

use super::{Together, launched, same};
use crate::kernel::Kernel;
use crate::ops::Build;
use crate::{MMA, mma};
use candlewick_core::tape::{self, Place};
use candlewick_core::{Op, Result, Rope};

/// The step at `at` and the two behind it, if they are attention's backward and what turns dq and dk back.
///
/// # Errors
/// What the compiler says.
pub(super) fn turned_back(steps: &[tape::Step<Kernel>], at: usize, build: &mut Build<'_>) -> Result<Option<Together>> {
    let Some([attention, one, other]) = steps.get(at..at + 3) else { return Ok(None) };
    let (Op::AttentionBackward(op), MMA) = (*attention.kernel.op(), attention.kernel.engine()) else { return Ok(None) };
    // dq is the first of its outputs, dk the second.
    let of = |output: usize| {
        let of = |step: &&tape::Step<Kernel>| same(&step.inputs[0], &attention.outputs[output]);
        [one, other].into_iter().find(of).and_then(|step| match *step.kernel.op() {
            Op::RopeBackward(rope) if attention.until(output) <= at + 3 => Some((rope, step)),
            _ => None,
        })
    };
    let (Some((q, of_q)), Some((k, of_k))) = (of(0), of(1)) else { return Ok(None) };
    let whole = |rope: &Rope, rows: usize, row: usize, heads: usize| {
        (rope.rows, rope.heads, rope.head, rope.y_row, rope.x_row) == (rows, heads, op.head, row, row)
    };
    let fits = whole(&q, op.queries, op.q_row, op.heads) && whole(&k, op.keys, op.k_row, op.kv_heads);
    let tables = of_q.inputs[1..] == of_k.inputs[1..];
    if !(fits && tables) {
        return Ok(None);
    }
    let Some(program) = mma::attention_turned_back(&op, [&q, &k], build.chip()) else { return Ok(None) };
    let outputs = [of_q.outputs[0], of_k.outputs[0], attention.outputs[2]];
    let read = || attention.inputs.iter().chain(&of_q.inputs[1..]);
    let meets = |(i, place): (usize, &Place)| {
        read().any(|other| other.meets(place)) || outputs[..i].iter().any(|other| other.meets(place))
    };
    if outputs.iter().enumerate().any(meets) {
        return Ok(None);
    }
    launched(&program, 3, (read().copied().collect(), &outputs), 0, build).map(Some)
}
