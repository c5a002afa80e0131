//! What a recorder has recorded, as data: for what computes a plan by itself, as its verification does.

use super::Tensor;
use super::graph::{Graph, Kind};
use super::recorder::Recorder;
use crate::{DType, Op};

/// The operations and the memory of a plan as they were recorded: before anything is rewritten or laid out.
#[derive(Clone)]
pub struct Recording(Graph);

/// An operation and what it reads and writes, in the order of [`Op::operands`].
#[derive(Clone, Debug)]
pub struct Operation {
    /// What is computed.
    pub op: Op,
    /// Read.
    pub inputs: Vec<Tensor>,
    /// Written.
    pub outputs: Vec<Tensor>,
}

/// Memory of one dtype, which tensors are all or parts of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Storage {
    /// How its numbers come into it.
    pub origin: Origin,
    /// Of its elements.
    pub dtype: DType,
    /// How many.
    pub elements: usize,
}

/// How numbers come into a storage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Origin {
    /// The caller writes them.
    Input,
    /// The caller loads them, once.
    Constant,
    /// Operations write them, and they stay from run to run.
    State,
    /// The same number everywhere.
    Filled(f32),
    /// Operations write them in every run.
    Computed,
}

impl Recorder {
    /// Everything that was recorded so far.
    pub fn recording(&self) -> Recording {
        Recording(self.graph.clone())
    }
}

impl Recording {
    /// The operations, in order.
    pub fn operations(&self) -> impl Iterator<Item = Operation> + '_ {
        self.0.nodes.iter().map(|node| Operation {
            op: node.op,
            inputs: node.inputs.clone(),
            outputs: node.outputs.clone(),
        })
    }

    /// Every storage, by number.
    pub fn storages(&self) -> impl Iterator<Item = Storage> + '_ {
        self.0.storages.iter().map(|storage| Storage {
            origin: match storage.kind {
                Kind::Input => Origin::Input,
                Kind::Constant(_) => Origin::Constant,
                Kind::State(_) => Origin::State,
                Kind::Filled(value) => Origin::Filled(value),
                Kind::Temporary { .. } => Origin::Computed,
            },
            dtype: storage.dtype,
            elements: storage.elements,
        })
    }

    /// The number of a tensor's storage, and the element of it that is the tensor's first.
    pub fn place(&self, tensor: Tensor) -> (usize, usize) {
        let view = self.0.view(tensor);
        (view.storage, view.offset)
    }

    /// Rows, columns and the elements between rows of a tensor.
    pub fn layout(&self, tensor: Tensor) -> (usize, usize, usize) {
        let view = self.0.view(tensor);
        (view.rows, view.cols, view.row)
    }
}
