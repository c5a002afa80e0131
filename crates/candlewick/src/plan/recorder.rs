//! Records a plan: tensors without numbers, and operations on them.

use super::Tensor;
use super::cross_entropy::Head;
use super::graph::{Graph, Kind, Node, Storage, View};
use super::session::{Session, Shared};
use crate::{DType, Error, Op, Result};
use candlewick_core::op::{Activations, Dequantize, Format, Quant};
use std::collections::HashMap;
use std::ops::Range;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a plan's closure records into. Every tensor is a matrix [rows, cols]; a vector has one row.
///
/// The methods that record operations are in `ops.rs` and `grad.rs`.
pub struct Recorder {
    pub(super) session: Session,
    pub(super) graph: Graph,
    /// What the gradients of losses need.
    pub(super) heads: HashMap<Tensor, Head>,
    pub(super) rewrites: bool,
    /// Of products with quantised weights that are recorded from now on.
    pub(super) activations: Activations,
    id: u32,
}

impl Recorder {
    pub(super) fn new(session: Session) -> Self {
        static RECORDERS: AtomicU32 = AtomicU32::new(0);
        let packs = session.device.packs();
        Recorder {
            session,
            graph: Graph { packs, ..Graph::default() },
            heads: HashMap::new(),
            rewrites: true,
            activations: Activations::Exact,
            id: RECORDERS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Leaves the operations as they are recorded: to find out whether a rewrite is at fault, or what it gains. See
    /// [`Plan::rewrites`](super::Plan::rewrites).
    pub fn without_rewrites(&mut self) {
        self.rewrites = false;
    }

    /// Numbers that the caller writes before a run: see [`Plan::write`](super::Plan::write). They stay until they are
    /// written again.
    pub fn input(&mut self, name: &str, rows: usize, cols: usize, dtype: DType) -> Tensor {
        self.storage(name, Kind::Input, rows, cols, dtype)
    }

    /// Frozen numbers, loaded once: see [`Plan::load`](super::Plan::load).
    pub fn constant(&mut self, name: &str, rows: usize, cols: usize, dtype: DType) -> Tensor {
        let shared = self.session.constant(name, rows, cols, dtype);
        self.storage(name, Kind::Constant(shared), rows, cols, dtype)
    }

    /// Frozen numbers in quantised blocks, [rows, cols] as bytes [rows, bytes of a row]; loaded as `u8`.
    ///
    /// # Errors
    /// Columns that are no whole blocks.
    #[track_caller]
    pub fn quantised(&mut self, name: &str, rows: usize, cols: usize, format: Quant) -> Result<Tensor> {
        // The descriptor knows what fits.
        Op::Dequantize(Dequantize::new(rows, cols, format, DType::F32)).operands().here()?;
        let tensor = self.constant(name, rows, format.row_bytes(cols), DType::U8);
        self.mark(tensor, format);
        Ok(tensor)
    }

    /// The same of a constant of the session, of bytes.
    ///
    /// # Errors
    /// One of another session.
    #[track_caller]
    pub fn shared_quantised(&mut self, shared: &Shared, format: Quant) -> Result<Tensor> {
        let tensor = self.shared(shared)?;
        self.mark(tensor, format);
        Ok(tensor)
    }

    /// Whether products with quantised weights that are recorded from now on may round their x to blocks of 8-bit integers,
    /// as llama.cpp does: several times as fast on CPUs. They may not at first; weights are packed alike either way.
    pub fn int8_activations(&mut self, allowed: bool) {
        self.activations = if allowed { Activations::Int8 } else { Activations::Exact };
    }

    fn mark(&mut self, tensor: Tensor, format: Quant) {
        let storage = self.graph.view(tensor).storage;
        self.graph.storages[storage].quant = Some(format);
    }

    /// Numbers that runs update, zero at first: see [`Plan::write`](super::Plan::write) and
    /// [`Plan::read`](super::Plan::read).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn state(&mut self, name: &str, rows: usize, cols: usize, dtype: DType) -> Result<Tensor> {
        let shared = self.session.state(name, rows, cols, dtype)?;
        Ok(self.storage(name, Kind::State(shared), rows, cols, dtype))
    }

    /// A constant or a state of the session.
    ///
    /// # Errors
    /// One of another session.
    #[track_caller]
    pub fn shared(&mut self, shared: &Shared) -> Result<Tensor> {
        shared.check_session("shared", &self.session).here()?;
        let tensor = shared.tensor();
        let kind = if tensor.is_state { Kind::State(shared.clone()) } else { Kind::Constant(shared.clone()) };
        let known = |kind: &Kind| match kind {
            Kind::Constant(other) | Kind::State(other) => std::ptr::eq(other.tensor(), tensor),
            _ => false,
        };
        if let Some(storage) = self.graph.storages.iter().position(|storage| known(&storage.kind)) {
            // Temporaries that settled there have views of it too.
            let sizes = (0, tensor.rows, tensor.cols);
            let whole = |view: &View| {
                view.storage == storage && view.part_of.is_none() && (view.offset, view.rows, view.cols) == sizes
            };
            let index = self.graph.views.iter().position(whole);
            return Ok(self.handle(index.expect("every storage has its whole view")));
        }
        Ok(self.storage(&tensor.name, kind, tensor.rows, tensor.cols, tensor.dtype))
    }

    /// The same number everywhere.
    pub fn filled(&mut self, value: f32, rows: usize, cols: usize, dtype: DType) -> Tensor {
        self.storage(&format!("{value}"), Kind::Filled(value), rows, cols, dtype)
    }

    /// Marks a tensor that is read after runs; its memory is then used for nothing else behind its writer.
    ///
    /// # Errors
    /// A tensor of another plan.
    #[track_caller]
    pub fn output(&mut self, tensor: Tensor) -> Result<Tensor> {
        self.check_owner(tensor).here()?;
        let storage = self.graph.view(tensor).storage;
        if let Kind::Temporary { output } = &mut self.graph.storages[storage].kind {
            *output = true;
        }
        Ok(tensor)
    }

    /// Some columns of a tensor, in place.
    ///
    /// # Errors
    /// Columns beyond the tensor's, or a tensor of another plan.
    #[track_caller]
    pub fn columns(&mut self, tensor: Tensor, columns: Range<usize>) -> Result<Tensor> {
        self.check_owner(tensor).here()?;
        let view = *self.graph.view(tensor);
        if columns.start > columns.end || columns.end > view.cols {
            return Err(here(Error::Shape {
                op: "columns",
                operand: "the tensor",
                shape: [view.rows, view.cols].into(),
                remedy: "the columns must lie within it",
            }));
        }
        // A part of a part is a part of the whole.
        let part_of = match view.part_of {
            Some((whole, first)) => (whole, first + columns.start),
            None => (tensor, columns.start),
        };
        let (offset, cols) = (view.offset + columns.start, columns.len());
        Ok(self.push_view(View { offset, cols, part_of: Some(part_of), reshaped: None, ..view }))
    }

    /// Some rows of a tensor, in place.
    ///
    /// # Errors
    /// Rows beyond the tensor's, or a tensor of another plan.
    #[track_caller]
    pub fn rows(&mut self, tensor: Tensor, rows: Range<usize>) -> Result<Tensor> {
        self.check_owner(tensor).here()?;
        let view = *self.graph.view(tensor);
        if rows.start > rows.end || rows.end > view.rows {
            return Err(here(Error::Shape {
                op: "rows",
                operand: "the tensor",
                shape: [view.rows, view.cols].into(),
                remedy: "the rows must lie within it",
            }));
        }
        let (offset, rows) = (view.offset + rows.start * view.row, rows.len());
        Ok(self.push_view(View { offset, rows, part_of: view.part_of.or(Some((tensor, 0))), ..view }))
    }

    /// The same numbers with other sizes: each head of a row as a row of its own, for a norm of each.
    ///
    /// # Errors
    /// A tensor with gaps between its rows, other sizes than it has numbers, a tensor of another plan.
    #[track_caller]
    pub fn reshape(&mut self, tensor: Tensor, rows: usize, cols: usize) -> Result<Tensor> {
        self.check_owner(tensor).map_err(here)?;
        let view = *self.graph.view(tensor);
        let contiguous = view.row == view.cols || view.rows <= 1;
        if !contiguous || rows.checked_mul(cols) != Some(view.rows * view.cols) {
            return Err(here(Error::ShapeMismatch {
                op: "reshape",
                left: "the tensor",
                left_shape: [view.rows, view.cols].into(),
                right: "its new shape",
                right_shape: [rows, cols].into(),
                remedy: "both have as many numbers, and the tensor has no gaps between its rows",
            }));
        }
        Ok(self.push_view(View { rows, cols, row: cols, part_of: None, reshaped: Some(tensor), ..view }))
    }

    /// Rows and columns.
    pub fn shape(&self, tensor: Tensor) -> (usize, usize) {
        let view = self.graph.view(tensor);
        (view.rows, view.cols)
    }

    /// The number format.
    pub fn dtype(&self, tensor: Tensor) -> DType {
        self.graph.dtype(tensor)
    }

    /// Records any operation; its outputs are new tensors. Row strides of the descriptor must be the tensors'.
    ///
    /// # Errors
    /// A descriptor that contradicts itself, or tensors that are not its operands.
    #[track_caller]
    pub fn op(&mut self, op: impl Into<Op>, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let op = op.into();
        let operands = op.operands().here()?;
        let new = |recorder: &mut Self, operand: &candlewick_core::op::Operand| {
            let (rows, cols) = matrix(operand.shape.sizes());
            let storage = Storage {
                name: operand.name.into(),
                kind: Kind::Temporary { output: false },
                dtype: operand.dtype,
                elements: operand.span,
                quant: None,
            };
            // Strides of a descriptor's output make a storage with gaps.
            let row = if rows > 1 && operand.span > 0 { (operand.span - cols) / (rows - 1) } else { cols };
            recorder.graph.storages.push(storage);
            let storage = recorder.graph.storages.len() - 1;
            recorder.push_view(View { storage, offset: 0, rows, cols, row, part_of: None, reshaped: None })
        };
        let outputs: Vec<Tensor> = operands.outputs.iter().map(|operand| new(self, operand)).collect();
        self.push(op, inputs, &outputs)?;
        Ok(outputs)
    }

    /// Records any operation, writing into given tensors: states, or parts of others.
    ///
    /// # Errors
    /// As [`Recorder::op`], and outputs that cannot be written.
    #[track_caller]
    pub fn op_into(&mut self, op: impl Into<Op>, inputs: &[Tensor], outputs: &[Tensor]) -> Result<()> {
        for &output in outputs {
            self.check_owner(output).here()?;
            let storage = self.graph.storage(output);
            if !matches!(storage.kind, Kind::Temporary { .. } | Kind::State(_)) {
                return Err(here(Error::Descriptor {
                    op: "plan",
                    field: "output",
                    value: storage.name.clone(),
                    remedy: "inputs and constants cannot be written: use a state",
                }));
            }
        }
        self.push(op.into(), inputs, outputs)
    }

    #[track_caller]
    fn push(&mut self, op: Op, inputs: &[Tensor], outputs: &[Tensor]) -> Result<()> {
        let at = Location::caller();
        let operands = op.operands().here()?;
        for (role, expected, given) in [("inputs", &operands.inputs, inputs), ("outputs", &operands.outputs, outputs)] {
            if expected.len() != given.len() {
                let names: Vec<&str> = expected.iter().map(|operand| operand.name).collect();
                let (expected, found, names) = (expected.len(), given.len(), names.join(", "));
                return Err(here(Error::ArgumentCount { op: op.name(), role, expected, found, names }));
            }
            for (operand, &tensor) in expected.iter().zip(given) {
                self.check_owner(tensor).here()?;
                let (view, storage) = (self.graph.view(tensor), self.graph.storage(tensor));
                if storage.dtype != operand.dtype {
                    let (expected, found) = (operand.dtype, storage.dtype);
                    return Err(here(Error::DType { op: op.name(), operand: operand.name, expected, found }));
                }
                let packed = operand.format == Format::Packed;
                if packed && !matches!(storage.kind, Kind::Constant(_)) {
                    let (expected, found) = ("a constant, to be packed".into(), self.graph.print(tensor));
                    return Err(here(Error::Format { op: op.name(), operand: operand.name, expected, found }));
                }
                if view.offset + operand.span > storage.elements {
                    return Err(here(Error::TooShort {
                        op: op.name(),
                        operand: operand.name,
                        shape: operand.shape.clone(),
                        needed: operand.span,
                        found: storage.elements - view.offset,
                    }));
                }
            }
        }
        self.graph.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: outputs.to_vec(), at });
        Ok(())
    }

    /// Whether a tensor is all of its storage, as a packed operand has to be.
    pub(super) fn is_whole(&self, tensor: Tensor) -> bool {
        let (view, storage) = (self.graph.view(tensor), self.graph.storage(tensor));
        view.offset == 0 && view.rows * view.cols == storage.elements
    }

    /// A contiguous temporary that operations of this plan write.
    pub(super) fn temporary(&mut self, name: &str, rows: usize, cols: usize, dtype: DType) -> Tensor {
        self.storage(name, Kind::Temporary { output: false }, rows, cols, dtype)
    }

    fn storage(&mut self, name: &str, kind: Kind, rows: usize, cols: usize, dtype: DType) -> Tensor {
        self.graph.storages.push(Storage { name: name.to_owned(), kind, dtype, elements: rows * cols, quant: None });
        let storage = self.graph.storages.len() - 1;
        self.push_view(View { storage, offset: 0, rows, cols, row: cols, part_of: None, reshaped: None })
    }

    pub(super) fn push_view(&mut self, view: View) -> Tensor {
        self.graph.views.push(view);
        self.handle(self.graph.views.len() - 1)
    }

    pub(super) fn handle(&self, index: usize) -> Tensor {
        Tensor { plan: self.id, index: index as u32 }
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn check_owner(&self, tensor: Tensor) -> Result<()> {
        if tensor.plan == self.id && tensor.index() < self.graph.views.len() {
            return Ok(());
        }
        Err(super::foreign("record"))
    }
}

/// An operand's sizes as a matrix: leading dimensions are rows.
fn matrix(sizes: &[usize]) -> (usize, usize) {
    match sizes {
        [] => (1, 1),
        [cols] => (1, *cols),
        [rows @ .., cols] => (rows.iter().product(), *cols),
    }
}

/// An error with the line of the caller's closure.
#[track_caller]
pub(super) fn here(error: Error) -> Error {
    match error {
        // A method that calls others has said it already.
        Error::Recorded { .. } => error,
        error => Error::Recorded { at: Location::caller().to_string(), source: Box::new(error) },
    }
}

/// The same for results. `map_err(here)` would name the line of `map_err`.
pub(super) trait Here {
    /// With the line of the caller's closure, in the place of one of this library's.
    #[track_caller]
    fn here(self) -> Self;
}

impl<T> Here for Result<T> {
    fn here(self) -> Self {
        match self {
            Err(Error::Recorded { source, at }) if at.starts_with(file!().trim_end_matches("recorder.rs")) => {
                Err(here(*source))
            }
            Err(error) => Err(here(error)),
            done => done,
        }
    }
}
