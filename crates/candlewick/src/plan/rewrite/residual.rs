//! r + a product: the product is added to r where it lies, in the pass that makes it.
//!
//! For r that nobody reads afterwards: what a residual connection is in a plan without gradients, and what sums of
//! gradients are.

use crate::op::{Batch, Format, QuantLinear};
use crate::plan::Tensor;
use crate::plan::graph::{Graph, Kind};
use crate::{LoraDelta, LoraLinear, MatMul, Op, Scalar};

/// An addition at `at` of a product and another tensor becomes the product, accumulated. How many additions that saved.
pub(super) fn fold(graph: &mut Graph, at: usize) -> usize {
    let Op::Add(add) = graph.nodes[at].op else { return 0 };
    if add.b_row == 0 {
        return 0;
    }
    let (a, b) = (graph.nodes[at].inputs[0], graph.nodes[at].inputs[1]);
    usize::from(into(graph, at, b, a) || into(graph, at, a, b))
}

/// Accumulates the product that made `term` into `sum`.
fn into(graph: &mut Graph, at: usize, term: Tensor, sum: Tensor) -> bool {
    let y = graph.nodes[at].outputs[0];
    let (of_sum, of_y) = (*graph.view(sum), *graph.view(y));
    let Some(writer) = graph.sole_writer(term, at) else { return false };
    let Some(op) = accumulating(&graph.nodes[writer].op, graph.packs) else { return false };
    let temporary = |storage: usize| matches!(graph.storages[storage].kind, Kind::Temporary { .. });
    let fits = graph.is_own(&of_sum) && temporary(of_y.storage) && graph.is_whole(&of_y);
    // The sum is done when the product begins, and nobody but the addition reads it from then on.
    let done = graph.uses(of_sum.storage).filter(|&(by, _)| by >= writer).count() == 1;
    // What has been there before the addition would be lost.
    let fresh = of_y.storage != of_sum.storage && !graph.used(of_y.storage, 0, at);
    if !fits || !done || !fresh {
        return false;
    }
    // Whether it is an output goes with it.
    let kind = std::mem::replace(&mut graph.storages[of_y.storage].kind, Kind::Temporary { output: false });
    graph.storages[of_sum.storage].kind = kind;
    for view in graph.views.iter_mut().filter(|view| view.storage == of_y.storage) {
        view.storage = of_sum.storage;
    }
    let node = &mut graph.nodes[writer];
    (node.op, node.outputs) = (op, vec![y]);
    graph.nodes.remove(at);
    true
}

/// The product, added to what its output holds. Not on a CPU where W lies plain and rows are few: it reads such a W by
/// dots, which are written, not added.
fn accumulating(op: &Op, packs: bool) -> Option<Op> {
    let few = |rows: usize| packs && rows <= super::FEW_ROWS;
    Some(match *op {
        Op::MatMul(op) if op.batch == Batch::ONE && op.beta.get() == 0.0 => {
            if op.trans_b && op.b_format == Format::Plain && few(op.m) {
                return None;
            }
            MatMul { beta: Scalar(1.0), ..op }.into()
        }
        Op::LoraLinear(op) if !op.accumulate && (op.w_format == Format::Packed || !few(op.rows)) => {
            LoraLinear { accumulate: true, ..op }.into()
        }
        Op::LoraDelta(op) if !op.accumulate => LoraDelta { accumulate: true, ..op }.into(),
        Op::QuantLinear(op) if !op.accumulate => QuantLinear { accumulate: true, ..op }.into(),
        _ => return None,
    })
}
