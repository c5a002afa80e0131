//! `kernels/linear.h`: a frozen linear layer of few rows, with what stands around it in a model.

use crate::attention::Partial;
use crate::program::{GpuLimits, Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use candlewick_core::op::{Format, Pairs};
use candlewick_core::{CopyRows, LoraLinear, RmsNorm, Rope, SiluMul};

params! {
    struct LinearParams {
        x_row: u64,
        up_row: u64,
        y_row: u64,
        rows: u32,
        ins: u32,
        outs: u32,
        share: u32,
        has_bias: u32,
        accumulate: u32,
        heads: u32,
        kv_heads: u32,
        head: u32,
        capacity: u32,
        eps: f32,
        splits: u32,
    }
}

/// What stands before a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ahead<'a> {
    Nothing,
    Norm(&'a RmsNorm),
    Silu(&'a SiluMul),
    Join(Partial),
}

/// What stands behind a layer that makes q, k and v side by side: q and k are turned, k and v copied to a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) q: &'a Rope,
    pub(crate) k: &'a Rope,
    pub(crate) keys: &'a CopyRows,
    pub(crate) values: &'a CopyRows,
}

/// The most rows, and rows of W that a team walks along, elements of them at a time, teams of a group.
const MOST_ROWS: usize = 4;
const ROWS: u32 = 4;
const STEP: u32 = 256;
const TEAMS: u32 = 8;

/// The most splits of attention that are put together on the way.
const MOST_SPLITS: usize = 8;

/// Adds the layer, one launch. Inputs are x (or gate), RMSNorm's weight (or up), W, bias, positions, frequencies, slots,
/// from number `first` on; outputs y (or the turned q), keys, values: those that it has not are not looked at. Every tensor
/// lies at a multiple of 16 bytes.
pub(crate) fn add(
    program: &mut Program,
    op: &LoraLinear,
    ahead: Ahead<'_>,
    turn: Option<Turn<'_>>,
    limits: &GpuLimits,
    first: u8,
) -> Option<()> {
    let LoraLinear { rows, in_features, out_features, dtype, .. } = *op;
    let fits = op.rank == 0 && op.w_format == Format::Plain && (1..=MOST_ROWS).contains(&rows);
    if !fits || in_features == 0 || out_features == 0 {
        return None;
    }
    let (x_row, up_row) = match ahead {
        Ahead::Nothing => (op.x_row, 0),
        Ahead::Norm(norm) => (norm.x_row, 0),
        Ahead::Silu(silu) => (silu.gate_row, silu.up_row),
        Ahead::Join(Partial { splits, head, .. }) if splits > MOST_SPLITS || !head.is_multiple_of(8) => return None,
        Ahead::Join(_) => (0, 0),
    };
    let strides = [in_features, x_row, up_row];
    if !strides.iter().all(|elements| elements.is_multiple_of(8)) {
        return None;
    }
    let (ins, outs) = (size(in_features)?, size(out_features)?);
    // Teams share rows of W where there are too few for two groups on every core.
    let (tiles, mut share) = (u64::from(outs.div_ceil(ROWS)), 1);
    while share < TEAMS && tiles * u64::from(share) < u64::from(2 * TEAMS * limits.cores) && ins > STEP * share {
        share *= 2;
    }
    let mut params = LinearParams {
        x_row: x_row as u64,
        up_row: up_row as u64,
        y_row: op.y_row as u64,
        rows: size(rows)?,
        ins,
        outs,
        share,
        has_bias: op.bias.into(),
        accumulate: op.accumulate.into(),
        heads: 0,
        kv_heads: 0,
        head: 0,
        capacity: 0,
        eps: if let Ahead::Norm(norm) = ahead { norm.eps.get() } else { 0.0 },
        splits: 0,
    };
    let bytes = dtype.bytes() as u64;
    let input = |index: u8| Place::Input(first + index);
    let x = match ahead {
        Ahead::Join(Partial { memory, splits, heads, head }) => {
            params = LinearParams { heads: size(heads)?, head: size(head)?, splits: size(splits)?, ..params };
            memory
        }
        _ => Memory::whole(input(0), bytes * span(rows, x_row, in_features)),
    };
    let unused = |place| Memory { place, ..x.unused() };
    let second = match ahead {
        Ahead::Nothing | Ahead::Join(_) => unused(input(1)),
        Ahead::Norm(_) => Memory::whole(input(1), bytes * in_features as u64),
        Ahead::Silu(_) => Memory::whole(input(1), bytes * span(rows, up_row, in_features)),
    };
    let w = Memory::whole(input(2), bytes * in_features as u64 * out_features as u64);
    let bias = if op.bias { Memory::whole(input(3), bytes * out_features as u64) } else { unused(input(3)) };
    let mut tables = [4, 5, 6].map(|i| unused(input(i)));
    let mut outputs = [0, 1, 2].map(|i| unused(Place::Output(i)));
    outputs[0] = Memory::whole(Place::Output(0), bytes * span(rows, op.y_row, out_features));
    if let Some(turn) = turn {
        turn.check(op, ahead)?;
        let Rope { heads, head, rotary, y_row, .. } = *turn.q;
        params = LinearParams {
            heads: size(heads)?,
            kv_heads: size(turn.k.heads)?,
            head: size(head)?,
            capacity: u32::try_from(turn.keys.capacity).ok()?,
            y_row: y_row as u64,
            ..params
        };
        tables[0] = Memory::whole(input(4), 4 * rows as u64);
        tables[1] = Memory::whole(input(5), 4 * (rotary / 2) as u64);
        tables[2] = Memory::whole(input(6), 4 * rows as u64);
        outputs[0] = Memory::whole(Place::Output(0), bytes * span(rows, y_row, heads * head));
        let cache = bytes * turn.keys.capacity as u64 * turn.keys.width as u64;
        outputs[1] = Memory::whole(Place::Output(1), cache);
        outputs[2] = Memory::whole(Place::Output(2), cache);
    }
    let names = match (ahead, turn, rows) {
        (_, Some(_), 1) => names!("linear_turn_1"),
        (_, Some(_), _) => names!("linear_turn_4"),
        (Ahead::Nothing, _, 1) => names!("linear_plain_1"),
        (Ahead::Nothing, ..) => names!("linear_plain_4"),
        (Ahead::Norm(_), _, 1) => names!("linear_norm_1"),
        (Ahead::Norm(_), ..) => names!("linear_norm_4"),
        (Ahead::Join(_), _, 1) => names!("linear_join_1"),
        (Ahead::Join(_), ..) => names!("linear_join_4"),
        (Ahead::Silu(_), _, 1) => names!("linear_silu_1"),
        (Ahead::Silu(_), ..) => names!("linear_silu_4"),
    };
    let [positions, frequencies, slots] = tables.map(Memory::read);
    let [y, keys, values] = outputs;
    let bindings = [
        x.read(),
        second.read(),
        w.read(),
        bias.read(),
        positions,
        frequencies,
        slots,
        y.update(op.accumulate),
        keys.write(),
        values.write(),
    ];
    let kernel = Kernel { file: File::Linear, names, dtype, wide: true };
    let groups = tiles.div_ceil(u64::from(TEAMS / share));
    program.launch(kernel, &params, bindings, groups, 32 * TEAMS)
}

impl Turn<'_> {
    /// That the layer's columns are q, k and v of whole heads, all of whose elements turn, in halves.
    fn check(&self, op: &LoraLinear, ahead: Ahead<'_>) -> Option<()> {
        let Turn { q, k, keys, values } = self;
        let alike = |rope: &Rope| {
            let whole = rope.rotary == rope.head && rope.head.is_multiple_of(4) && rope.head > 0;
            rope.pairs == Pairs::Halves && whole && rope.head == q.head && rope.rows == op.rows
        };
        let width = k.heads * k.head;
        let cached = |copy: &CopyRows| copy.rows == op.rows && copy.width == width && copy.capacity == keys.capacity;
        let fits = alike(q) && alike(k) && cached(keys) && cached(values);
        let joined = op.out_features == q.heads * q.head + 2 * width && !op.accumulate;
        (fits && joined && matches!(ahead, Ahead::Norm(_))).then_some(())
    }
}
