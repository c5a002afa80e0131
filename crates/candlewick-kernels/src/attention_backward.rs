//! `kernels/attention_backward.h`: the gradients of attention.

use crate::attention::{self, spans, tensors, tiles};
use crate::program::{Alignment, Kernel, Memory, Place, Program, names};
use crate::source::File;
use candlewick_core::Attention;

/// What each row needs, then dq by tiles of queries, and dk and dv by tiles of keys.
pub(crate) fn backward(op: &Attention, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("tiled", op.dtype);
    let [q, k, v, y] = tensors(op, [Place::Input(0), Place::Input(1), Place::Input(2), Place::Input(4)]);
    let rows = op.queries as u64 * op.heads as u64;
    let lse = Memory::whole(Place::Input(5), 4 * rows);
    let dy = Memory { place: Place::Input(6), ..y };
    let [dq, dk, dv] = [(q, 0), (k, 1), (v, 2)].map(|(like, index)| Memory { place: Place::Output(index), ..like });
    let params = tiles(op)?;
    let wide = attention::wide(op, alignment);
    let kernel = |names| Kernel { file: File::AttentionBackward, names, dtype: op.dtype, wide };
    let (of_rows, ranges) = (program.reserve(8 * rows), program.reserve(8 * op.queries as u64));
    let bindings = [spans(op).read(), y.read(), lse.read(), dy.read(), of_rows.write(), ranges.write()];
    program.launch(kernel(names!("attention_backward_rows")), &params, bindings, rows.div_ceil(8), 256)?;
    let (dq_names, dkv_names) = match op.head {
        0..=64 => (names!("attention_dq_2"), names!("attention_dkv_2")),
        _ => (names!("attention_dq_4"), names!("attention_dkv_4")),
    };
    let each = if op.heads == 0 || op.head == 0 { 0 } else { u64::from(params.columns * params.kv_heads) };
    let groups = each * u64::from(params.tiles) * u64::from(params.head_blocks);
    let bindings = [q.read(), k.read(), v.read(), dy.read(), of_rows.read(), ranges.read(), dq.write()];
    program.launch(kernel(dq_names), &params, bindings, groups, 128)?;
    // Keys that no head reads get zeros.
    let each = if op.head == 0 { 0 } else { u64::from(params.columns * params.kv_heads) };
    let groups = each * op.keys.div_ceil(32) as u64;
    let bindings = [q.read(), k.read(), v.read(), dy.read(), of_rows.read(), ranges.read(), dk.write(), dv.write()];
    program.launch(kernel(dkv_names), &params, bindings, groups, 128)?;
    Some(program)
}
