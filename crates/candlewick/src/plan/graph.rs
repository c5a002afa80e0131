//! A plan as data: storages, views of them, and the operations that read and write views.

use super::Tensor;
use super::checkpoint::Activations;
use super::session::Shared;
use crate::op::Quant;
use crate::{DType, Op};
use std::panic::Location;

/// What memory is for.
#[derive(Clone)]
pub(crate) enum Kind {
    /// Written before a run, kept between runs.
    Input,
    /// Frozen, loaded once, packed where its readers want that; shared by the plans of a session.
    Constant(Shared),
    /// Kept from run to run, and by the other plans of the session.
    State(Shared),
    /// Filled with one number, once.
    Filled(f32),
    /// Alive from its first writer to its last reader, or to the end where it is an output.
    Temporary {
        /// Whether it is read after a run.
        output: bool,
    },
}

/// Memory of one dtype.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) dtype: DType,
    pub(crate) elements: usize,
    /// Bytes of quantised blocks, where it is a constant of those.
    pub(crate) quant: Option<Quant>,
}

/// A matrix inside a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) storage: usize,
    /// Elements from the storage's start.
    pub(crate) offset: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Elements between rows.
    pub(crate) row: usize,
    /// The view that it is a part of, and its first column there.
    pub(crate) part_of: Option<(Tensor, usize)>,
    /// The view that it is in another shape.
    pub(crate) reshaped: Option<Tensor>,
}

/// An operation on views.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<Tensor>,
    /// The line of the caller's closure.
    pub(crate) at: &'static Location<'static>,
}

/// Everything that was recorded.
#[derive(Clone, Default)]
pub(crate) struct Graph {
    pub(crate) storages: Vec<Storage>,
    pub(crate) views: Vec<View>,
    pub(crate) nodes: Vec<Node>,
    /// One for each gradient with a budget.
    pub(crate) activations: Vec<Activations>,
    /// Whether the device reads frozen weights in an order of its own: elsewhere they stay plain, one copy for all readers.
    pub(crate) packs: bool,
}

impl Graph {
    pub(crate) fn view(&self, tensor: Tensor) -> &View {
        &self.views[tensor.index()]
    }

    pub(crate) fn storage(&self, tensor: Tensor) -> &Storage {
        &self.storages[self.view(tensor).storage]
    }

    pub(crate) fn dtype(&self, tensor: Tensor) -> DType {
        self.storage(tensor).dtype
    }

    /// `x [32, 512] f32`.
    pub(crate) fn print(&self, tensor: Tensor) -> String {
        let (view, storage) = (self.view(tensor), self.storage(tensor));
        format!("{} [{}, {}] {}", storage.name, view.rows, view.cols, storage.dtype)
    }
}
