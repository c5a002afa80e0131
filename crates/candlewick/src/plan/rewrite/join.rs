//! Products of frozen weights that read the same x, as one product of the joined weight: q, k and v, gate and up.
//!
//! The weights' rows follow each other in one constant of the session, and what were tensors of their own are columns of
//! one. Whoever reads them reads columns, in place, and so do their gradients' operations. It pays most where rows are
//! few: one pass over x and one wait for all threads instead of three.
//!
//! Layers with a rank are left alone. Their A and B change from step to step, so stacking the As would copy them in every
//! run, at one row as many numbers as the products with them read; and no operation applies one B to each part of h. With
//! quantised weights the base is an operation of its own, and is joined; the deltas are then added to its columns.
//!
//! Readers whose gradient has their strides (SiLU times up, attention's v) get a gradient with the same gaps, in memory of
//! its own, unless `sums.rs` places them side by side. The plans of a session load a joined weight once where they join the
//! same parts; a plan that reads a part alone has a copy of it.

use super::strides::row_stride;
use super::uses::Side;
use crate::op::{Format, QuantLinear};
use crate::plan::Tensor;
use crate::plan::graph::{Graph, Kind, Node, View};
use crate::plan::session::Shared;
use crate::{LoraLinear, Op};

/// A product that can be a part of a joined one.
struct Part {
    at: usize,
    /// The operation without what differs between parts: equal where parts can be joined.
    key: (Op, View),
    w: Shared,
    bias: Option<Shared>,
    outs: usize,
    y: Tensor,
}

/// Joins the product at `at` with later ones of the same x. How many products that saved.
pub(super) fn fold(graph: &mut Graph, at: usize) -> usize {
    let Some(first) = part(graph, at) else { return 0 };
    let x = first.key.1.storage;
    let mut parts = Vec::new();
    for later in at..graph.nodes.len() {
        if later > at && graph.written(x, later - 1, later) {
            break;
        }
        // Most have another key, which is sooner seen.
        let same = key(graph, later).is_some_and(|key| key == first.key);
        let Some(part) = same.then(|| part(graph, later)).flatten() else { continue };
        // A part has one place in the joined constant.
        let again = parts.iter().any(|other: &Part| {
            other.w.is(&part.w) || other.bias.as_ref().zip(part.bias.as_ref()).is_some_and(|(a, b)| a.is(b))
        });
        // Whether its readers can read columns does not depend on how many columns there are.
        let columns = || moved(&mut graph.clone(), &part, graph.view(part.y).storage, 0, 2 * part.outs, part.y);
        if !again && columns().is_some() {
            parts.push(part);
        }
    }
    if parts.len() < 2 || parts[0].at != at {
        return 0;
    }
    let mut joined = graph.clone();
    let Some(()) = join(&mut joined, &parts) else { return 0 };
    *graph = joined;
    parts.len() - 1
}

/// The operation and x of a product that can be a part, without what differs between parts.
fn key(graph: &Graph, at: usize) -> Option<(Op, View)> {
    let op: Op = match graph.nodes[at].op {
        Op::LoraLinear(op) if op.rank == 0 && !op.accumulate && (op.w_format == Format::Packed || !graph.packs) => {
            LoraLinear { out_features: 0, y_row: 0, ..op }.into()
        }
        Op::QuantLinear(op) if !op.accumulate => QuantLinear { out_features: 0, y_row: 0, ..op }.into(),
        _ => return None,
    };
    Some((op, View { part_of: None, ..*graph.view(graph.nodes[at].inputs[0]) }))
}

/// The product at `at`, if it can be a part.
fn part(graph: &Graph, at: usize) -> Option<Part> {
    let key = key(graph, at)?;
    let Node { op, inputs, outputs, .. } = &graph.nodes[at];
    let (outs, bias) = match *op {
        Op::LoraLinear(op) => (op.out_features, op.bias.then(|| inputs[2])),
        Op::QuantLinear(op) => (op.out_features, None),
        _ => return None,
    };
    let constant = |tensor: Tensor| match &graph.storage(tensor).kind {
        Kind::Constant(shared) if graph.is_whole(graph.view(tensor)) => Some(shared.clone()),
        _ => None,
    };
    // What is joined already is not joined again.
    let w = constant(inputs[1]).filter(|w| w.tensor().parts.is_empty())?;
    let bias = match bias {
        Some(bias) => Some(constant(bias)?),
        None => None,
    };
    let view = graph.view(outputs[0]);
    let own = graph.is_own(view) && !graph.used(view.storage, 0, at) && view.rows * outs > 0;
    own.then(|| Part { at, key, w, bias, outs, y: outputs[0] })
}

/// One product in the place of the first part.
fn join(graph: &mut Graph, parts: &[Part]) -> Option<()> {
    let first = &parts[0];
    let node = graph.nodes[first.at].clone();
    let (rows, total) = (graph.view(first.y).rows, parts.iter().map(|part| part.outs).sum());
    let dtype = graph.dtype(first.y);
    let y = graph.add(first.y, "y", Kind::Temporary { output: false }, dtype, rows, total);
    let mut column = 0;
    for part in parts {
        moved(graph, part, graph.view(y).storage, column, total, y)?;
        column += part.outs;
    }
    if written_beside(graph, graph.view(y).storage) {
        return None;
    }
    let weights: Vec<&Shared> = parts.iter().map(|part| &part.w).collect();
    let w = constant(graph, node.inputs[1], &weights, false);
    let biases: Option<Vec<&Shared>> = parts.iter().map(|part| part.bias.as_ref()).collect();
    let mut inputs = node.inputs.clone();
    inputs[1] = w;
    let op: Op = match node.op {
        Op::LoraLinear(op) => {
            if let Some(biases) = biases {
                inputs[2] = constant(graph, node.inputs[2], &biases, true);
            }
            // A rank of zero: B is as empty with more rows.
            let b = inputs.len() - 1;
            inputs[b] = graph.add(y, "0", Kind::Filled(0.0), dtype, total, 0);
            LoraLinear { out_features: total, y_row: total, ..op }.into()
        }
        Op::QuantLinear(op) => QuantLinear { out_features: total, y_row: total, ..op }.into(),
        _ => return None,
    };
    let packed = op.packed_factor().is_some();
    graph.nodes[first.at] = Node { op, inputs, outputs: vec![y], at: node.at };
    parts[1..].iter().rev().for_each(|part| drop(graph.nodes.remove(part.at)));
    if !packed {
        read_in_joined(graph, w, &weights);
    }
    Some(())
}

/// Whether an operation writes some columns and uses others: their rows take turns, and an operation's output may not
/// reach from one to the other over what it reads. In place is legal.
fn written_beside(graph: &Graph, storage: usize) -> bool {
    let place = |tensor: Tensor| Some(*graph.view(tensor)).filter(|view| view.storage == storage);
    graph.nodes.iter().any(|node| {
        let outputs: Vec<(usize, View)> =
            node.outputs.iter().enumerate().filter_map(|(o, &tensor)| Some((o, place(tensor)?))).collect();
        let beside = |&(o, output): &(usize, View)| {
            let in_place =
                |i: usize, input: View| node.op.in_place().contains(&(i, o)) && input.offset == output.offset;
            let mut inputs = node.inputs.iter().enumerate().filter_map(|(i, &tensor)| Some((i, place(tensor)?)));
            inputs.any(|(i, input)| !in_place(i, input))
        };
        outputs.len() > 1 || outputs.iter().any(beside)
    })
}

/// The constant that has the parts one after the other: rows of weights, columns of biases.
fn constant(graph: &mut Graph, like: Tensor, parts: &[&Shared], columns: bool) -> Tensor {
    let shared = Shared::joined(parts, columns);
    let ((rows, cols), like_storage) = (shared.shape(), graph.storage(like).clone());
    let known = graph.storages.iter().position(|storage| match &storage.kind {
        Kind::Constant(other) => other.is(&shared),
        _ => false,
    });
    match known {
        Some(storage) => {
            graph.add_view(like, View { storage, offset: 0, rows, cols, row: cols, part_of: None, reshaped: None })
        }
        None => {
            let tensor = graph.add(like, shared.name(), Kind::Constant(shared.clone()), like_storage.dtype, rows, cols);
            let storage = graph.view(tensor).storage;
            graph.storages[storage].quant = like_storage.quant;
            tensor
        }
    }
}

/// Whoever reads a part as it is reads it where it lies in the joined constant, so that it lies there alone.
fn read_in_joined(graph: &mut Graph, joined: Tensor, parts: &[&Shared]) {
    let mut first = 0;
    for part in parts {
        let is_part = |graph: &Graph, tensor: Tensor| match &graph.storage(tensor).kind {
            Kind::Constant(shared) => shared.is(part),
            _ => false,
        };
        for at in 0..graph.nodes.len() {
            let packed = graph.nodes[at].op.packed_factor().map(|factor| factor.input);
            for input in 0..graph.nodes[at].inputs.len() {
                let tensor = graph.nodes[at].inputs[input];
                if Some(input) != packed && is_part(graph, tensor) {
                    let (view, storage) = (*graph.view(tensor), graph.view(joined).storage);
                    let moved = View { storage, offset: first + view.offset, part_of: None, ..view };
                    graph.nodes[at].inputs[input] = graph.add_view(joined, moved);
                }
            }
        }
        let (rows, cols) = part.shape();
        first += rows * cols;
    }
}

/// Makes a part's output columns of `storage`, from `column` on, in rows of `row`: for all but the part itself. Nothing
/// where one of its readers needs rows that follow each other.
fn moved(graph: &mut Graph, part: &Part, storage: usize, column: usize, row: usize, whole: Tensor) -> Option<()> {
    let old = graph.view(part.y).storage;
    let uses: Vec<(usize, Side)> = graph.uses(old).filter(|&(at, _)| at != part.at).collect();
    respace(graph, old, part.outs, &uses, row)?;
    for view in graph.views.iter_mut().filter(|view| view.storage == old) {
        let first = view.part_of.map_or(0, |(_, first)| first);
        (view.storage, view.offset) = (storage, view.offset + column);
        view.part_of = Some((whole, column + first));
    }
    Some(())
}

/// Moves the rows of a temporary from `old` to `row` elements apart, for the operations at `uses`.
fn respace(graph: &mut Graph, storage: usize, old: usize, uses: &[(usize, Side)], row: usize) -> Option<()> {
    for &(at, side) in uses {
        let view = *graph.view(graph.operand(at, side));
        let operands = graph.nodes[at].op.operands().ok()?;
        let operand = match side {
            Side::In(i) => &operands.inputs[i],
            Side::Out(i) => &operands.outputs[i],
        };
        let [rows, cols] = *operand.shape.sizes() else { return None };
        let (field, other) = row_stride(&mut graph.nodes[at].op, side)?;
        // Rows of the operation are rows of the tensor, and not its heads.
        if (rows, cols) != (view.rows, view.cols) || (rows > 1 && (*field != old || view.row != old)) {
            return None;
        }
        if rows <= 1 {
            continue;
        }
        *field = row;
        // The other operand with the same field: a gradient of its own, with gaps.
        let Some(other) = other else { continue };
        let (tensor, mut rest) = (graph.operand(at, other), Vec::new());
        let view = *graph.view(tensor);
        if view.storage == storage || !graph.is_own(&view) || view.row != old {
            return None;
        }
        rest.extend(graph.uses(view.storage).filter(|&by| by != (at, other)));
        respace(graph, view.storage, old, &rest, row)?;
        graph.storages[view.storage].elements = (view.rows - 1) * row + view.cols;
    }
    for view in graph.views.iter_mut().filter(|view| view.storage == storage) {
        if view.rows > 1 && view.row != old {
            return None;
        }
        view.offset = view.offset / old * row + view.offset % old;
        view.row = row;
    }
    Some(())
}
