//! x Wᵀ, then a row added to every row: the bias of the product.

use crate::op::Batch;
use crate::plan::Tensor;
use crate::plan::graph::{Graph, Kind};
use crate::{DType, LoraLinear, MatMul, Op};

/// An addition of one row at `at` becomes the bias of the product before it. How many products that made one of.
pub(super) fn fold(graph: &mut Graph, at: usize) -> usize {
    let Op::Add(add) = graph.nodes[at].op else { return 0 };
    let (product, bias, y) = (graph.nodes[at].inputs[0], graph.nodes[at].inputs[1], graph.nodes[at].outputs[0]);
    let Some(writer) = graph.sole_writer(product, at).filter(|_| add.b_row == 0) else { return 0 };
    let Some(op) = with_bias(&graph.nodes[writer].op) else { return 0 };
    let (of_bias, of_y) = (graph.view(bias).storage, graph.view(y).storage);
    let in_time = !graph.written(of_bias, writer, at + 1) && !graph.used(of_y, writer, at);
    // What the product writes is read after it alone.
    if !in_time || of_bias == of_y {
        return 0;
    }
    let mut inputs = graph.nodes[writer].inputs.clone();
    if matches!(graph.nodes[writer].op, Op::MatMul(_)) {
        let mut empty = |rows, cols| graph.add(product, "0", Kind::Filled(0.0), op.dtype, rows, cols);
        inputs.extend([empty(0, op.in_features), empty(op.out_features, 0)]);
    }
    inputs.insert(2, bias);
    let node = &mut graph.nodes[writer];
    (node.op, node.inputs, node.outputs) = (LoraLinear { y_row: add.y_row, ..op }.into(), inputs, vec![y]);
    graph.nodes.remove(at);
    1
}

/// The product as a layer with a bias, if it can be one.
fn with_bias(op: &Op) -> Option<LoraLinear> {
    match *op {
        Op::LoraLinear(op) if !op.bias => Some(op.with_bias()),
        Op::MatMul(op) if is_layer(&op) => {
            let layer = LoraLinear::new(op.m, op.k, op.n, 0, 0.0, op.dtype).with_bias();
            Some(LoraLinear { x_row: op.lda, w_format: op.b_format, ..layer })
        }
        _ => None,
    }
}

/// Whether a product is x Wᵀ and nothing else. A few rows of 16 bits with a W that lies plain are better off without a
/// bias: engines read such a W by dots, whose results they would have to round before the bias is added.
fn is_layer(op: &MatMul) -> bool {
    let plain = op.batch == Batch::ONE && !op.trans_a && op.trans_b && op.alpha.get() == 1.0 && op.beta.get() == 0.0;
    plain && op.ldb == op.k && (op.m > super::FEW_ROWS || op.dtype == DType::F32)
}

impl Graph {
    /// A new storage in the plan of another tensor, and all of it.
    pub(super) fn add(&mut self, of: Tensor, name: &str, kind: Kind, dtype: DType, rows: usize, cols: usize) -> Tensor {
        let (name, elements) = (name.to_owned(), rows * cols);
        self.storages.push(crate::plan::graph::Storage { name, kind, dtype, elements, quant: None });
        let storage = self.storages.len() - 1;
        self.add_view(
            of,
            crate::plan::graph::View { storage, offset: 0, rows, cols, row: cols, part_of: None, reshaped: None },
        )
    }

    /// A new view in the plan of another tensor.
    pub(super) fn add_view(&mut self, of: Tensor, view: crate::plan::graph::View) -> Tensor {
        self.views.push(view);
        Tensor { index: (self.views.len() - 1) as u32, ..of }
    }
}
