//! `kernels/softmax.h`: softmax and its backward.

use crate::program::{Alignment, GpuLimits, Kernel, Memory, Place, Program, names, params, size, span};
use crate::rows::{self, Way, by_way};
use crate::source::File;
use candlewick_core::{Mask, Softmax};

params! {
    struct SoftmaxParams {
        x_row: u64,
        y_row: u64,
        rows: u32,
        cols: u32,
        queries: u32,
        lanes: u32,
        segments: u32,
        segment: u32,
        scale: f32,
        unused: u32,
    }
}

/// How `op` can run, the best guess first.
pub(crate) fn forward(op: &Softmax, limits: &GpuLimits, alignment: Alignment) -> Vec<Program> {
    let ways = rows::ways(op.rows, op.cols, limits, true);
    ways.into_iter().filter_map(|way| forward_by(op, limits, alignment, way)).collect()
}

fn params(op: &Softmax) -> Option<SoftmaxParams> {
    let queries = match op.mask {
        Mask::None => 0,
        Mask::Causal { queries } => size(queries)?,
    };
    Some(SoftmaxParams {
        x_row: op.x_row as u64,
        y_row: op.y_row as u64,
        rows: size(op.rows)?,
        cols: size(op.cols)?,
        queries,
        lanes: 0,
        segments: 1,
        segment: 0,
        scale: op.scale.get(),
        unused: 0,
    })
}

fn kernel(op: &Softmax, alignment: Alignment, names: &'static [&'static str; 6]) -> Kernel {
    let wide = rows::wide(alignment, op.rows, op.cols, &[op.x_row, op.y_row]);
    Kernel { file: File::Softmax, names, dtype: op.dtype, wide }
}

fn forward_by(op: &Softmax, limits: &GpuLimits, alignment: Alignment, way: Way) -> Option<Program> {
    let mut program = Program::new(way.name(), op.dtype);
    let mut params = params(op)?;
    let bytes = op.dtype.bytes() as u64;
    let x = Memory::whole(Place::Input(0), bytes * span(op.rows, op.x_row, op.cols));
    let y = Memory::whole(Place::Output(0), bytes * span(op.rows, op.y_row, op.cols));
    let kernel = |names| kernel(op, alignment, names);
    let geometry = rows::geometry(way, op.rows, op.cols, limits);
    (params.lanes, params.segments, params.segment) = (geometry.lanes, geometry.segments, geometry.segment);
    let (groups, threads) = (geometry.groups, geometry.threads);
    let one = [x.read(), y.write()];
    match way {
        Way::Split => {
            // Maximum and sum of each segment.
            let partial = program.reserve(8 * groups);
            let partials = [x.read(), partial.write()];
            program.launch(kernel(names!("softmax_partial")), &params, partials, groups, threads)?;
            let write = [x.read(), partial.read(), y.write()];
            program.launch(kernel(names!("softmax_write")), &params, write, groups, threads)?;
        }
        _ => program.launch(kernel(by_way!("softmax", way)?), &params, one, groups, threads)?,
    }
    Some(program)
}

/// How the backward of `op` can run, the best guess first.
pub(crate) fn backward(op: &Softmax, limits: &GpuLimits, alignment: Alignment) -> Vec<Program> {
    let ways = rows::ways(op.rows, op.cols, limits, false);
    ways.into_iter().filter_map(|way| backward_by(op, limits, alignment, way)).collect()
}

fn backward_by(op: &Softmax, limits: &GpuLimits, alignment: Alignment, way: Way) -> Option<Program> {
    let mut program = Program::new(way.name(), op.dtype);
    let bytes = op.dtype.bytes() as u64;
    let y = Memory::whole(Place::Input(0), bytes * span(op.rows, op.y_row, op.cols));
    let dy = Memory { place: Place::Input(1), ..y };
    let dx = Memory::whole(Place::Output(0), bytes * span(op.rows, op.x_row, op.cols));
    let names = by_way!("softmax_backward", way)?;
    let geometry = rows::geometry(way, op.rows, op.cols, limits);
    let params = SoftmaxParams { lanes: geometry.lanes, ..params(op)? };
    let bindings = [y.read(), dy.read(), dx.write()];
    program.launch(kernel(op, alignment, names), &params, bindings, geometry.groups, geometry.threads)?;
    Some(program)
}
