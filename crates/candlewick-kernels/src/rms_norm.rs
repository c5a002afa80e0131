//! `kernels/rms_norm.h`: RMSNorm and its backward.

use crate::program::{Alignment, GpuLimits, Kernel, Memory, Place, Program, names, params, size, span};
use crate::rows::{self, Way, by_way};
use crate::source::File;
use candlewick_core::RmsNorm;

params! {
    struct RmsNormParams {
        x_row: u64,
        y_row: u64,
        rows: u32,
        cols: u32,
        lanes: u32,
        segments: u32,
        segment_rows: u32,
        eps: f32,
        adds: u32,
        unused: u32,
    }
}

/// Columns that a group of the weight's gradient sums, and the teams that share their rows.
const COLUMNS: usize = 256;
const TEAMS: usize = 8;

fn params(op: &RmsNorm, lanes: u32) -> Option<RmsNormParams> {
    Some(RmsNormParams {
        x_row: op.x_row as u64,
        y_row: op.y_row as u64,
        rows: size(op.rows)?,
        cols: size(op.cols)?,
        lanes,
        segments: 1,
        segment_rows: 0,
        eps: op.eps.get(),
        adds: 0,
        unused: 0,
    })
}

fn kernel(op: &RmsNorm, alignment: Alignment, names: &'static [&'static str; 6]) -> Kernel {
    let wide = rows::wide(alignment, op.rows, op.cols, &[op.x_row, op.y_row]);
    Kernel { file: File::RmsNorm, names, dtype: op.dtype, wide }
}

/// How `op` can run, the best guess first.
pub(crate) fn forward(op: &RmsNorm, limits: &GpuLimits, alignment: Alignment) -> Vec<Program> {
    let ways = rows::ways(op.rows, op.cols, limits, false);
    ways.into_iter().filter_map(|way| forward_by(op, limits, alignment, way)).collect()
}

fn forward_by(op: &RmsNorm, limits: &GpuLimits, alignment: Alignment, way: Way) -> Option<Program> {
    let mut program = Program::new(way.name(), op.dtype);
    let bytes = op.dtype.bytes() as u64;
    let x = Memory::whole(Place::Input(0), bytes * span(op.rows, op.x_row, op.cols));
    let weight = Memory::whole(Place::Input(1), bytes * op.cols as u64);
    let y = Memory::whole(Place::Output(0), bytes * span(op.rows, op.y_row, op.cols));
    let names = by_way!("rms_norm", way)?;
    let geometry = rows::geometry(way, op.rows, op.cols, limits);
    let bindings = [x.read(), weight.read(), y.write()];
    let params = params(op, geometry.lanes)?;
    program.launch(kernel(op, alignment, names), &params, bindings, geometry.groups, geometry.threads)?;
    Some(program)
}

/// How the backward of `op` can run, the best guess first: dx, then, where it is wanted, dweight from what the first launch
/// left of each row.
pub(crate) fn backward(op: &RmsNorm, limits: &GpuLimits, alignment: Alignment) -> Vec<Program> {
    let ways = rows::ways(op.rows, op.cols, limits, false);
    ways.into_iter().filter_map(|way| backward_by(op, limits, alignment, way, false)).collect()
}

/// dx of a weight that is not trained, and another gradient added to it: input 3, which lies as dx does, or on it.
pub(crate) fn backward_added(op: &RmsNorm, limits: &GpuLimits) -> Option<Program> {
    let way = rows::ways(op.rows, op.cols, limits, false)[0];
    backward_by(op, limits, Alignment::Sixteen, way, true).filter(|_| op.frozen)
}

fn backward_by(op: &RmsNorm, limits: &GpuLimits, alignment: Alignment, way: Way, adds: bool) -> Option<Program> {
    let mut program = Program::new(way.name(), op.dtype);
    let bytes = op.dtype.bytes() as u64;
    let x = Memory::whole(Place::Input(0), bytes * span(op.rows, op.x_row, op.cols));
    let weight = Memory::whole(Place::Input(1), bytes * op.cols as u64);
    let dy = Memory::whole(Place::Input(2), bytes * span(op.rows, op.y_row, op.cols));
    let dx = Memory { place: Place::Output(0), ..x };
    let dweight = Memory { place: Place::Output(1), ..weight };
    let inverses = if op.frozen { dx.unused() } else { program.reserve(4 * op.rows as u64) };
    let names = by_way!("rms_norm_backward", way)?;
    let geometry = rows::geometry(way, op.rows, op.cols, limits);
    let rows_params = RmsNormParams { segments: (!op.frozen).into(), adds: adds.into(), ..params(op, geometry.lanes)? };
    let added = if adds { Memory { place: Place::Input(3), ..x } } else { x.unused() };
    let bindings = [x.read(), weight.read(), dy.read(), added.read(), dx.write(), inverses.write()];
    program.launch(kernel(op, alignment, names), &rows_params, bindings, geometry.groups, geometry.threads)?;
    if op.frozen {
        return Some(program);
    }

    let blocks = op.cols.div_ceil(COLUMNS);
    // Enough segments for every core, each with enough rows for every team.
    let wanted = (2 * limits.cores as usize).div_ceil(blocks.max(1));
    let segment_rows = op.rows.div_ceil(wanted).next_multiple_of(2 * TEAMS).max(2 * TEAMS);
    let segments = op.rows.div_ceil(segment_rows).max(1);
    let params = RmsNormParams { segments: size(segments)?, segment_rows: size(segment_rows)?, ..rows_params };
    // One segment writes the result; more leave sums, to be added up.
    let (result, partial) = match segments {
        1 => (dweight, dweight.unused()),
        _ => (dweight.unused(), program.reserve(4 * segments as u64 * op.cols as u64)),
    };
    let bindings = [x.read(), dy.read(), inverses.read(), result.write(), partial.write()];
    let groups = (blocks * segments) as u64;
    program.launch(kernel(op, alignment, names!("rms_norm_dweight")), &params, bindings, groups, 32 * TEAMS as u32)?;
    if segments > 1 {
        let sum = Kernel { wide: false, ..kernel(op, alignment, names!("rms_norm_dweight_sum")) };
        program.launch(sum, &params, [partial.read(), dweight.write()], op.cols.div_ceil(256) as u64, 256)?;
    }
    Some(program)
}
