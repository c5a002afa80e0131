//! `kernels/attention.h` and `kernels/attention_decode.h`: attention of many queries, and of few.

use crate::program::{Alignment, GpuLimits, Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use candlewick_core::Attention;

params! {
    struct AttentionParams {
        q_row: u64,
        k_row: u64,
        v_row: u64,
        y_row: u64,
        queries: u32,
        keys: u32,
        sequences: u32,
        heads: u32,
        kv_heads: u32,
        group: u32,
        head: u32,
        causal: u32,
        tiles: u32,
        tile_queries: u32,
        tile_heads: u32,
        head_blocks: u32,
        columns: u32,
        ahead: u32,
        splits: u32,
        scale: f32,
    }
}

/// Rows of a tile, and its columns.
const TILE: usize = 32;
/// The most columns of a head that a group has in its registers.
const COLUMNS: usize = 128;
/// Threads of a group.
const THREADS: u32 = 128;
/// The most teams of a group of few queries.
const TEAMS: usize = 16;

/// How `op` can run, the best guess first.
pub(crate) fn forward(op: &Attention, limits: &GpuLimits, alignment: Alignment) -> Vec<Program> {
    let ways = [tiled(op, alignment), decode(op, limits, alignment)];
    let mut programs: Vec<Program> = ways.into_iter().flatten().collect();
    if has_few(op) {
        // A tile of them would have few rows that see the same keys.
        programs.reverse();
    }
    programs
}

fn has_few(op: &Attention) -> bool {
    op.queries <= 4 * op.sequences.max(1)
}

/// What groups that share a query's keys leave for whoever puts them together: `prelude/splits.h`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Partial {
    pub(crate) memory: Memory,
    pub(crate) splits: usize,
    pub(crate) heads: usize,
    pub(crate) head: usize,
}

/// Of few queries in one launch, which reads the spans before the kernels ahead are done. Where groups share keys, they
/// leave what the second is for, instead of y and lse.
pub(crate) fn early(op: &Attention, limits: &GpuLimits) -> Option<(Program, Option<Partial>)> {
    if !has_few(op) || !wide(op, Alignment::Sixteen) {
        return None;
    }
    decode_keys(op, limits, Alignment::Sixteen, true)
}

/// By tiles, whose rows are queries by the heads that share a head of k and v.
pub(crate) fn tiles(op: &Attention) -> Option<AttentionParams> {
    let tile_heads = op.group().clamp(1, 8);
    let tile_queries = TILE / tile_heads;
    Some(AttentionParams {
        q_row: op.q_row as u64,
        k_row: op.k_row as u64,
        v_row: op.v_row as u64,
        y_row: op.y_row as u64,
        queries: size(op.queries)?,
        keys: size(op.keys)?,
        sequences: size(op.sequences)?,
        heads: size(op.heads)?,
        kv_heads: size(op.kv_heads)?,
        group: size(op.group())?,
        head: size(op.head)?,
        causal: op.causal.into(),
        tiles: size(op.queries.div_ceil(tile_queries))?,
        tile_queries: size(tile_queries)?,
        tile_heads: size(tile_heads)?,
        head_blocks: size(op.group().div_ceil(tile_heads))?,
        columns: size(op.head.div_ceil(COLUMNS).max(1))?,
        ahead: 0,
        splits: 1,
        scale: op.scale.get(),
    })
}

/// Whether heads can go 16 bytes at a time.
pub(crate) fn wide(op: &Attention, alignment: Alignment) -> bool {
    let apart = |rows: usize, strides: [usize; 2]| rows <= 1 || strides.iter().all(|row| row.is_multiple_of(8));
    let rows = apart(op.queries, [op.q_row, op.y_row]) && apart(op.keys, [op.k_row, op.v_row]);
    alignment == Alignment::Sixteen && op.head.is_multiple_of(8) && rows
}

/// q, k, v and what lies as y does, each at its place.
pub(crate) fn tensors(op: &Attention, places: [Place; 4]) -> [Memory; 4] {
    let bytes = op.dtype.bytes() as u64;
    let (wide, narrow) = (op.heads * op.head, op.kv_heads * op.head);
    let spans = [
        span(op.queries, op.q_row, wide),
        span(op.keys, op.k_row, narrow),
        span(op.keys, op.v_row, narrow),
        span(op.queries, op.y_row, wide),
    ];
    [0, 1, 2, 3].map(|i| Memory::whole(places[i], bytes * spans[i]))
}

pub(crate) fn spans(op: &Attention) -> Memory {
    Memory::whole(Place::Input(3), 16 * op.sequences as u64)
}

fn inputs_and_y() -> [Place; 4] {
    [Place::Input(0), Place::Input(1), Place::Input(2), Place::Output(0)]
}

fn lse(op: &Attention) -> Memory {
    Memory::whole(Place::Output(1), 4 * op.queries as u64 * op.heads as u64)
}

fn tiled(op: &Attention, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("tiled", op.dtype);
    let [q, k, v, y] = tensors(op, inputs_and_y());
    let params = tiles(op)?;
    let names = match op.head {
        0..=64 => names!("attention_2"),
        _ => names!("attention_4"),
    };
    let kernel = Kernel { file: File::Attention, names, dtype: op.dtype, wide: wide(op, alignment) };
    let bindings = [q.read(), k.read(), v.read(), spans(op).read(), y.write(), lse(op).write()];
    let groups = [params.tiles, params.kv_heads, params.head_blocks, params.columns];
    let groups = if op.heads == 0 { 0 } else { groups.into_iter().map(u64::from).product() };
    program.launch(kernel, &params, bindings, groups, THREADS)?;
    Some(program)
}

fn decode(op: &Attention, limits: &GpuLimits, alignment: Alignment) -> Option<Program> {
    let (mut program, partial) = decode_keys(op, limits, alignment, false)?;
    let Some(Partial { memory, splits, .. }) = partial else { return Some(program) };
    let y = tensors(op, inputs_and_y())[3];
    let params = AttentionParams { splits: splits as u32, ..tiles(op)? };
    let names = names!("attention_combine");
    let kernel = Kernel { file: File::AttentionDecode, names, dtype: op.dtype, wide: false };
    let rows = op.queries as u64 * op.heads as u64;
    program.launch(kernel, &params, [memory.read(), y.write(), lse(op).write()], rows, THREADS)?;
    Some(program)
}

/// A group for each query and up to eight heads that share k and v, or several where that leaves cores without work.
fn decode_keys(
    op: &Attention,
    limits: &GpuLimits,
    alignment: Alignment,
    ahead: bool,
) -> Option<(Program, Option<Partial>)> {
    if !(1..=256).contains(&op.head) {
        return None;
    }
    let mut program = Program::new("decode", op.dtype);
    let [q, k, v, y] = tensors(op, inputs_and_y());
    let lanes = op.head.div_ceil(8).next_power_of_two().max(8);
    let names = match lanes {
        8 => names!("attention_decode_8"),
        16 => names!("attention_decode_16"),
        _ => names!("attention_decode_32"),
    };
    let block = op.group().clamp(1, 8);
    let head_blocks = op.group().div_ceil(block);
    let groups = op.queries * op.kv_heads * head_blocks;
    // What follows reads all splits: few of them, if the sequences share the keys evenly, unless they are very long.
    let keys = op.keys / op.sequences.max(1);
    let most = (keys / 256).clamp(1, 8).max(keys / 2048);
    let splits = (4 * limits.cores as usize).div_ceil(groups.max(1)).clamp(1, most);
    // Teams share the keys of a head: more of them where there are few groups.
    let most_teams = if groups * splits <= limits.cores as usize { TEAMS } else { TEAMS / 4 };
    let threads = (32 * block * (most_teams / block).max(1)) as u32;
    let params = AttentionParams {
        tile_heads: size(block)?,
        head_blocks: size(head_blocks)?,
        ahead: ahead.into(),
        splits: size(splits)?,
        ..tiles(op)?
    };
    // As in `prelude/splits.h`.
    let numbers = (op.queries * op.heads * splits * (op.head + 4)) as u64;
    let partial = if splits > 1 { program.reserve(4 * numbers) } else { y.unused() };
    let (to_y, to_lse) = if splits > 1 { (y.unused(), lse(op).unused()) } else { (y, lse(op)) };
    let kernel = Kernel { file: File::AttentionDecode, names, dtype: op.dtype, wide: wide(op, alignment) };
    let bindings = [q.read(), k.read(), v.read(), spans(op).read(), to_y.write(), to_lse.write(), partial.write()];
    program.launch(kernel, &params, bindings, (groups * splits) as u64, threads)?;
    let left = Partial { memory: partial, splits, heads: op.heads, head: op.head };
    Some((program, (splits > 1).then_some(left)))
}
