//! A product, then all of it times one number: the product's own factor.
//!
//! `Recorder::scale` records a product with a [1, 1] of one and the number as alpha, so the scale is an operation that
//! every backend has. Of a LoRA layer only the delta has a factor, so a layer with a base is not scaled.

use crate::plan::graph::{Graph, Kind, Node};
use crate::{LoraDelta, MatMul, Op, Scalar};

/// The number that an operation multiplies its second input with, if it is a scale and nothing else.
pub(crate) fn factor(graph: &Graph, node: &Node) -> Option<f32> {
    let Op::MatMul(op) = node.op else { return None };
    let one = &graph.storage(node.inputs[0]).kind;
    let shape = MatMul { alpha: op.alpha, ..MatMul::new(1, op.n, 1, op.dtype) };
    (op == shape && matches!(one, Kind::Filled(1.0))).then(|| op.alpha.get())
}

/// A scale at `at` goes into the product before it. How many products that made one of.
pub(super) fn fold(graph: &mut Graph, at: usize) -> usize {
    let Some(factor) = factor(graph, &graph.nodes[at]) else { return 0 };
    let (x, y) = (graph.nodes[at].inputs[1], graph.nodes[at].outputs[0]);
    let Some(writer) = graph.sole_writer(x, at) else { return 0 };
    // With a factor of zero a product is not read, and NaN in it would be lost.
    let scaled = |own: Scalar| Some(Scalar(own.get() * factor)).filter(|it| it.get().is_normal());
    let op: Op = match graph.nodes[writer].op {
        Op::MatMul(op) => match scaled(op.alpha) {
            Some(alpha) => MatMul { alpha, ..op }.into(),
            None => return 0,
        },
        Op::LoraDelta(op) => match scaled(op.scale) {
            Some(scale) => LoraDelta { scale, ..op }.into(),
            None => return 0,
        },
        _ => return 0,
    };
    let view = *graph.view(y);
    if !graph.is_whole(&view) || graph.used(view.storage, writer, at) {
        return 0;
    }
    let node = &mut graph.nodes[writer];
    (node.op, node.outputs) = (op, vec![y]);
    graph.nodes.remove(at);
    1
}
