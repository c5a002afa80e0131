//! Plans: recorded once, submitted whole.
//!
//! ```
//! use candlewick::{DType, Device, Plan};
//!
//! let (mut plan, (x, w, y)) = Plan::record(&Device::cpu(), |p| {
//!     let x = p.input("x", 2, 3, DType::F32);
//!     let w = p.constant("w", 3, 4, DType::F32);
//!     let product = p.matmul(x, w)?;
//!     let y = p.softmax(product, 1.0)?;
//!     Ok((x, w, p.output(y)?))
//! })?;
//! plan.load(w, &[0f32; 12])?;
//! plan.write(x, &[1f32; 6])?;
//! plan.run()?;
//! let mut numbers = [0f32; 8];
//! plan.read(y, &mut numbers)?;
//! assert_eq!(numbers, [0.25; 8]);
//! # Ok::<(), candlewick::Error>(())
//! ```
//!
//! | looking for | it is in |
//! |---|---|
//! | tensors, states, how an operation is recorded | `recorder.rs`; the operations by name in `ops.rs` |
//! | gradients | `grad.rs`; what they keep of the forward pass in `checkpoint.rs`; the loss over a vocabulary in `cross_entropy.rs` |
//! | what several plans share | `session.rs` |
//! | tensors that lie in a part of another | `place.rs` |
//! | what was recorded, as data | `graph.rs`, and for others `recording.rs` |
//! | fewer operations for the same results | `rewrite/` |
//! | frozen weights in memory | `constants.rs` |
//! | where temporaries lie | `layout.rs` |
//! | what is printed and drawn | `describe.rs`, `drawing.rs` |

mod checkpoint;
mod constants;
mod cross_entropy;
mod describe;
mod drawing;
mod grad;
mod graph;
mod layout;
mod ops;
mod place;
mod recorder;
mod recording;
mod rewrite;
mod session;

pub use checkpoint::{Activations, Budget};
pub use constants::Numbers;
pub use recorder::Recorder;
pub use recording::{Operation, Origin, Recording, Storage};
pub use rewrite::Rewrites;
pub use session::{Session, Shared};

use crate::{DType, Device, Element, Error, Kernel, Memory, Result, Tape};
use candlewick_core::backend::Packing;
use candlewick_core::op::Format;
use candlewick_core::tape::{Place, Step};
use graph::{Graph, Kind};
use half::{bf16, f16};
use layout::Layout;
use session::check_slice;

/// A matrix of a plan, by handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tensor {
    plan: u32,
    index: u32,
}

impl Tensor {
    fn index(self) -> usize {
        self.index as usize
    }
}

/// A recorded sequence of operations with its memory. It runs on one thread at a time: every method that runs it takes it
/// exclusively.
///
/// ```compile_fail,E0499
/// fn twice_at_once(plan: &mut candlewick::Plan) {
///     std::thread::scope(|scope| {
///         scope.spawn(|| plan.run());
///         scope.spawn(|| plan.run());
///     });
/// }
/// ```
pub struct Plan {
    id: u32,
    session: Session,
    graph: Graph,
    rewrites: Rewrites,
    layout: Layout,
    /// One per node.
    kernels: Vec<Kernel>,
    arena: Memory,
    /// Made at the first run, when every constant has its numbers.
    tape: Option<Tape>,
}

/// A submitted run. Dropping it waits for nothing.
#[must_use = "wait for it, or read an output"]
pub struct Submission<'a>(&'a mut Plan);

impl Submission<'_> {
    /// Returns when the run is done.
    ///
    /// # Errors
    /// Whatever failed since the last wait.
    pub fn wait(self) -> Result<()> {
        self.0.session.stream().wait()
    }
}

impl Plan {
    /// Runs a closure over shapes alone, chooses and prepares every kernel, and lays out the memory. What the closure
    /// returns is handed on: the handles of inputs and outputs.
    ///
    /// # Errors
    /// What the closure returns, with the line in it; what cannot be prepared; [`Error::OutOfMemory`].
    pub fn record<T>(device: &Device, closure: impl FnOnce(&mut Recorder) -> Result<T>) -> Result<(Self, T)> {
        Session::new(device)?.record(closure)
    }

    pub(crate) fn of(recorder: Recorder) -> Result<Self> {
        let id = recorder.id();
        let Recorder { session, mut graph, rewrites, .. } = recorder;
        let rewrites = if rewrites { rewrite::rewrite(&mut graph) } else { Rewrites::default() };
        let layout = Layout::of(&graph);
        let mut stream = session.stream();
        let kernels = (graph.nodes.iter())
            .map(|node| stream.prepare(node.op).map_err(|error| recorded(error, node)))
            .collect::<Result<Vec<_>>>()?;
        let arena = stream.memory(layout.bytes)?;
        drop(stream);
        let plan = Plan { id, session, graph, rewrites, layout, kernels, arena, tape: None };
        plan.fill()?;
        plan.want_constants();
        for storage in &plan.graph.storages {
            if let Kind::Constant(shared) = &storage.kind {
                shared.load_from_source(&plan.session)?;
            }
        }
        Ok(plan)
    }

    /// The session that it shares weights and states with.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Gives a constant its numbers, row by row: packed, joined with others, or as they are, for what the session's plans
    /// read it as that are recorded by now. The caller's copy is not needed any more.
    ///
    /// # Errors
    /// A tensor that is no constant of this plan, another length or dtype, [`Error::OutOfMemory`].
    pub fn load<T: Element>(&mut self, constant: Tensor, from: &[T]) -> Result<()> {
        self.check::<T>("load", constant, from.len())?;
        let Kind::Constant(shared) = &self.graph.storage(constant).kind else {
            return Err(self.not("load", constant, "it is no constant: use `Plan::write`"));
        };
        shared.load(&self.session, from)?;
        self.tape = None;
        Ok(())
    }

    /// Writes an input or a state, in order with the runs.
    ///
    /// # Errors
    /// A tensor that cannot be written, another length or dtype.
    pub fn write<T: Element>(&mut self, tensor: Tensor, from: &[T]) -> Result<()> {
        self.check::<T>("write", tensor, from.len())?;
        match &self.graph.storage(tensor).kind {
            Kind::State(shared) => self.session.store(shared, from),
            Kind::Input => match self.layout.offsets[self.graph.view(tensor).storage] {
                Some(offset) => self.session.stream().store(&self.arena, offset, from),
                // Nothing reads it.
                None => Ok(()),
            },
            _ => Err(self.not("write", tensor, "it is no input and no state")),
        }
    }

    /// Waits for the runs, then copies an output, an input or a state out.
    ///
    /// # Errors
    /// A tensor that is none of these, another length or dtype, and whatever failed since the last wait.
    pub fn read<T: Element>(&mut self, tensor: Tensor, to: &mut [T]) -> Result<()> {
        self.check::<T>("read", tensor, to.len())?;
        let view = *self.graph.view(tensor);
        let whole = view.row == view.cols || view.rows <= 1;
        match &self.graph.storages[view.storage].kind {
            Kind::State(shared) if whole => self.session.read(shared, to),
            Kind::Temporary { output: true } | Kind::Input => {
                let Some(offset) = self.layout.offsets[view.storage] else {
                    return Err(self.not("read", tensor, "no operation writes it"));
                };
                let offset = offset + view.offset * T::DTYPE.bytes();
                if whole {
                    return self.session.stream().load(&self.arena, offset, to);
                }
                let mut rows = vec![T::default(); (view.rows - 1) * view.row + view.cols];
                self.session.stream().load(&self.arena, offset, &mut rows)?;
                for (row, to) in rows.chunks(view.row.max(1)).zip(to.chunks_exact_mut(view.cols.max(1))) {
                    to.copy_from_slice(&row[..view.cols]);
                }
                Ok(())
            }
            _ => Err(self.not("read", tensor, "mark it with `Recorder::output`")),
        }
    }

    /// Submits one run, and waits for it.
    ///
    /// # Errors
    /// Constants without numbers, and what failed.
    pub fn run(&mut self) -> Result<()> {
        self.submit()?.wait()
    }

    /// Submits one run, and returns. Reading an output waits.
    ///
    /// # Errors
    /// Constants without numbers, what the driver says.
    pub fn submit(&mut self) -> Result<Submission<'_>> {
        if self.tape.is_none() {
            self.tape = Some(self.make_tape()?);
        }
        if let Some(tape) = &mut self.tape {
            self.session.stream().replay(tape)?;
        }
        Ok(Submission(self))
    }

    /// How many operations a run has.
    pub fn operations(&self) -> usize {
        self.graph.nodes.len()
    }

    /// Bytes of the arena that inputs, temporaries and outputs share.
    pub fn arena_bytes(&self) -> usize {
        self.layout.bytes
    }

    /// What was rewritten: a plan has so many operations fewer than were recorded.
    pub fn rewrites(&self) -> Rewrites {
        self.rewrites
    }

    /// What became of the activations of each gradient with a budget, in the order of recording.
    pub fn activations(&self) -> &[Activations] {
        &self.graph.activations
    }

    /// Tells the constants how they are read.
    fn want_constants(&self) {
        for (node, kernel) in self.graph.nodes.iter().zip(&self.kernels) {
            let packed = node.op.packed_factor().map(|factor| factor.input);
            for (i, &input) in node.inputs.iter().enumerate() {
                if let Kind::Constant(shared) = &self.graph.storage(input).kind {
                    shared.want(&node.op, if packed == Some(i) { kernel.packing() } else { None });
                }
            }
        }
    }

    /// The tape over the memories as they are now.
    fn make_tape(&self) -> Result<Tape> {
        let mut memories = vec![self.arena.clone()];
        let mut steps = Vec::with_capacity(self.graph.nodes.len());
        for (node, kernel) in self.graph.nodes.iter().zip(&self.kernels) {
            let operands = node.op.operands()?;
            let place = |tensor: Tensor, operand: &candlewick_core::op::Operand, memories: &mut Vec<Memory>| {
                let packing = if operand.format == Format::Packed { kernel.packing() } else { None };
                self.place(tensor, operand.span, packing, memories)
            };
            let inputs = node.inputs.iter().zip(&operands.inputs);
            let inputs =
                inputs.map(|(&tensor, operand)| place(tensor, operand, &mut memories)).collect::<Result<_>>()?;
            let outputs = node.outputs.iter().zip(&operands.outputs);
            let outputs =
                outputs.map(|(&tensor, operand)| place(tensor, operand, &mut memories)).collect::<Result<_>>()?;
            let until = node.outputs.iter().map(|&tensor| self.until(tensor)).collect();
            steps.push(Step { kernel: kernel.clone(), inputs, outputs, until });
        }
        self.session.stream().record(&memories, &steps)
    }

    /// The operation behind the last that touches a tensor's memory; none where its numbers stay.
    fn until(&self, tensor: Tensor) -> usize {
        let storage = self.graph.view(tensor).storage;
        match self.graph.storages[storage].kind {
            Kind::Temporary { output: false } => self.layout.lives[storage].end,
            _ => usize::MAX,
        }
    }

    fn place(
        &self,
        tensor: Tensor,
        span: usize,
        packing: Option<Packing>,
        memories: &mut Vec<Memory>,
    ) -> Result<Place> {
        let (view, storage) = (self.graph.view(tensor), self.graph.storage(tensor));
        let mut add = |memory: &Memory| {
            memories.push(memory.clone());
            memories.len() - 1
        };
        let bytes = storage.dtype.bytes();
        let (memory, offset) = match &storage.kind {
            Kind::Constant(shared) | Kind::State(shared) => {
                let forms = shared.tensor().forms();
                let memory = match packing {
                    Some(packing) => forms.packed.iter().find(|(known, _)| *known == packing).map(|(_, memory)| memory),
                    None => forms.plain(),
                };
                let Some(memory) = memory else {
                    return Err(self.not("run", tensor, "give it its numbers with `Plan::load` first"));
                };
                (add(memory), view.offset * bytes)
            }
            _ => (0, self.layout.offsets[view.storage].unwrap_or(0) + view.offset * bytes),
        };
        let elements = match packing {
            Some(packing) => packing.elements(),
            None => span,
        };
        Ok(Place { memory, offset, elements, dtype: storage.dtype, packing })
    }

    /// Writes what is the same number everywhere.
    fn fill(&self) -> Result<()> {
        let mut stream = self.session.stream();
        for (storage, offset) in self.graph.storages.iter().zip(&self.layout.offsets) {
            let (Kind::Filled(value), &Some(offset)) = (&storage.kind, offset) else { continue };
            match storage.dtype {
                DType::F32 => stream.store(&self.arena, offset, &vec![*value; storage.elements])?,
                DType::F16 => stream.store(&self.arena, offset, &vec![f16::from_f32(*value); storage.elements])?,
                DType::BF16 => stream.store(&self.arena, offset, &vec![bf16::from_f32(*value); storage.elements])?,
                DType::U32 => stream.store(&self.arena, offset, &vec![*value as u32; storage.elements])?,
                DType::U8 => stream.store(&self.arena, offset, &vec![*value as u8; storage.elements])?,
            }
        }
        Ok(())
    }

    fn check<T: Element>(&self, op: &'static str, tensor: Tensor, elements: usize) -> Result<(usize, usize)> {
        if tensor.plan != self.id {
            return Err(foreign(op));
        }
        let view = self.graph.view(tensor);
        check_slice::<T>(op, [view.rows, view.cols], self.graph.dtype(tensor), elements)?;
        Ok((view.rows, view.cols))
    }

    #[cold]
    fn not(&self, op: &'static str, tensor: Tensor, remedy: &'static str) -> Error {
        Error::Descriptor { op, field: "tensor", value: self.graph.print(tensor), remedy }
    }
}

#[cold]
fn foreign(op: &'static str) -> Error {
    Error::WrongOwner {
        op,
        what: "the tensor",
        owner: "another plan".into(),
        here: "this plan".into(),
        remedy: "use the handles that this plan's closure returned",
    }
}

fn recorded(error: Error, node: &graph::Node) -> Error {
    Error::Recorded { at: node.at.to_string(), source: Box::new(error) }
}
