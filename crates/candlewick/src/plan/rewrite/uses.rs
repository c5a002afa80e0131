//! Who reads and writes what.

use crate::plan::Tensor;
use crate::plan::graph::{Graph, Kind, View};

/// A place among an operation's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    In(usize),
    Out(usize),
}

impl Graph {
    /// Every operand that lies in a storage, as operation and place, in order.
    pub(super) fn uses(&self, storage: usize) -> impl Iterator<Item = (usize, Side)> + '_ {
        self.nodes.iter().enumerate().flat_map(move |(at, node)| {
            let lies = move |tensor: &Tensor| self.view(*tensor).storage == storage;
            let inputs = node.inputs.iter().enumerate().filter(move |(_, tensor)| lies(tensor));
            let outputs = node.outputs.iter().enumerate().filter(move |(_, tensor)| lies(tensor));
            (inputs.map(|(i, _)| Side::In(i)).chain(outputs.map(|(i, _)| Side::Out(i)))).map(move |side| (at, side))
        })
    }

    /// The operand at a place.
    pub(super) fn operand(&self, at: usize, side: Side) -> Tensor {
        match side {
            Side::In(i) => self.nodes[at].inputs[i],
            Side::Out(i) => self.nodes[at].outputs[i],
        }
    }

    /// The operation that writes what `reader` alone reads: a temporary of its own, that no run keeps. Its first output.
    pub(super) fn sole_writer(&self, tensor: Tensor, reader: usize) -> Option<usize> {
        let view = *self.view(tensor);
        if !self.is_own(&view) {
            return None;
        }
        let uses: Vec<_> = self.uses(view.storage).take(3).collect();
        let &[(writer, Side::Out(0)), (at, Side::In(_))] = &uses[..] else { return None };
        let written = *self.view(self.nodes[writer].outputs[0]);
        let alone = self.nodes[writer].outputs.len() == 1 && !self.nodes[writer].op.keeps_output(0);
        let same = View { part_of: view.part_of, ..written } == view;
        (at == reader && alone && same).then_some(writer)
    }

    /// Whether a view is all of a temporary that no run keeps, row after row.
    pub(super) fn is_own(&self, view: &View) -> bool {
        let storage = &self.storages[view.storage];
        matches!(storage.kind, Kind::Temporary { output: false }) && self.is_whole(view)
    }

    /// Whether a view is all of its storage, row after row.
    pub(super) fn is_whole(&self, view: &View) -> bool {
        let contiguous = view.rows <= 1 || view.row == view.cols;
        view.offset == 0 && contiguous && view.rows * view.cols == self.storages[view.storage].elements
    }

    /// Whether a storage is written by an operation from `first` up to, without, `end`.
    pub(super) fn written(&self, storage: usize, first: usize, end: usize) -> bool {
        self.uses(storage).any(|(at, side)| matches!(side, Side::Out(_)) && (first..end).contains(&at))
    }

    /// Whether a storage is read or written by an operation from `first` up to, without, `end`.
    pub(super) fn used(&self, storage: usize, first: usize, end: usize) -> bool {
        self.uses(storage).any(|(at, _)| (first..end).contains(&at))
    }
}
