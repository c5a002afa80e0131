//! Recorded sequences: one graph, one launch. Steps that follow each other become one kernel where
//! [`candlewick_kernels::sequence`] knows one, a product and its residual one call of cuBLASLt, and two LoRA layers of one x
//! share the launches of their backwards.

use crate::cublaslt::{Together, residual, siblings};
use crate::ops::{self, Build};
use crate::runtime::graph::Graph;
use crate::runtime::history::Given;
use crate::runtime::launch::Addresses;
use crate::stream::{Kernel, Stream};
use crate::{Buffer, CUBLASLT, FUSED, Input, Output, fused, memory};
use candlewick_core::backend::{Engine, Stream as _};
use candlewick_core::tape::{self, Place, Step};
use candlewick_core::{Element, Error, Op, Result};
use candlewick_kernels::{Place as Of, Sequence};
use std::collections::HashMap;
use std::sync::Arc;

/// Memory that one stream alone reaches.
#[derive(Clone)]
pub struct Memory(Arc<Owned>);

struct Owned {
    memory: Arc<memory::Memory>,
    bytes: usize,
    stream: u64,
}

/// A recorded sequence.
pub struct Tape {
    stream: u64,
    /// None for nothing.
    graph: Option<Graph>,
    _memories: Vec<Memory>,
}

impl Memory {
    pub(crate) fn new(buffer: Buffer, stream: u64) -> Self {
        let bytes = buffer.bytes();
        Memory(Arc::new(Owned { memory: buffer.into_memory(), bytes, stream }))
    }

    /// Where `elements` numbers from byte `offset` on are, for work of stream `stream`.
    pub(crate) fn part<T: Element>(
        &self,
        op: &'static str,
        stream: u64,
        offset: usize,
        elements: usize,
    ) -> Result<u64> {
        self.check_owner(op, stream)?;
        let end = elements.saturating_mul(size_of::<T>()).saturating_add(offset);
        if end > self.0.bytes || !offset.is_multiple_of(size_of::<T>()) {
            let (first, size) = (offset, self.0.bytes);
            return Err(Error::Place { op, operand: "the slice", first, end, size });
        }
        Ok(self.0.memory.address() + offset as u64)
    }

    /// Where byte `offset` is.
    fn address(&self, offset: usize) -> u64 {
        self.0.memory.address() + offset as u64
    }

    fn check_owner(&self, op: &'static str, stream: u64) -> Result<()> {
        if self.0.stream == stream {
            Ok(())
        } else {
            Err(Error::of_another_stream(op, "the memory", self.0.stream, stream))
        }
    }
}

impl Tape {
    /// Nodes of its graph: launches and copies.
    pub fn nodes(&self) -> usize {
        self.graph.as_ref().map_or(0, Graph::nodes)
    }
}

impl Stream {
    pub(crate) fn record_steps(&mut self, memories: &[Memory], steps: Vec<Step<Kernel>>) -> Result<Tape> {
        for memory in memories {
            memory.check_owner("record", self.id)?;
        }
        let sizes: Vec<usize> = memories.iter().map(|memory| memory.0.bytes).collect();
        for step in &steps {
            // What becomes part of a sequence is never encoded, which would say so.
            step.kernel.check_owner(self.id)?;
            tape::check(step.kernel.signature(), step, &sizes)?;
        }
        let steps = one_number_each(memories, steps);
        let graph = match steps.is_empty() {
            true => None,
            false => Some(self.capture(|stream| {
                let mut at = 0;
                while at < steps.len() {
                    at += stream.record_at(memories, &steps, at)?;
                }
                Ok(())
            })?),
        };
        Ok(Tape { stream: self.id, graph, _memories: memories.to_vec() })
    }

    /// Encodes the step at `at`, or several as one; how many.
    fn record_at(&mut self, memories: &[Memory], steps: &[Step<Kernel>], at: usize) -> Result<usize> {
        let together = match self.record_sequence(memories, steps, at)? {
            0 => self.record_products(memories, steps, at)?,
            steps => steps,
        };
        if together > 0 {
            return Ok(together);
        }
        let input = |place: &Place| {
            let memory = &memories[place.memory].0.memory;
            Input::at(memory, place.offset, place.elements, place.dtype, place.packing)
        };
        let step = &steps[at];
        let inputs: Vec<Input<'_>> = step.inputs.iter().map(input).collect();
        let mut outputs: Vec<Output<'_>> = step.outputs.iter().map(input).map(Output::of).collect();
        self.encode(&step.kernel, &inputs, &mut outputs)?;
        Ok(1)
    }

    /// Encodes steps that own kernels run together, if there are such at `at`; how many.
    fn record_sequence(&mut self, memories: &[Memory], steps: &[Step<Kernel>], at: usize) -> Result<usize> {
        let shared = self.device.shared().clone();
        let op = |kernel: &Kernel| *kernel.op();
        // What a layer alone is quickest with says nothing of a layer that takes others in.
        let own = |sequence: &Sequence| {
            let mut steps = steps[at..at + sequence.steps].iter();
            let together = sequence.steps > 1;
            steps.all(|step| {
                step.kernel.engine() == FUSED || (together && matches!(op(&step.kernel), Op::LoraLinear(_)))
            })
        };
        let Some(sequence) = candlewick_kernels::sequence(steps, at, op, &shared.chip.limits()).filter(own) else {
            return Ok(0);
        };
        let Sequence { steps: count, program, inputs, outputs } = sequence;
        let address = |place: &Option<Place>| place.map_or(0, |place| memories[place.memory].address(place.offset));
        let addresses: Addresses = inputs.iter().chain(&outputs).map(address).collect();
        if !addresses.iter().all(|address| address.is_multiple_of(program.alignment.into())) {
            return Ok(0);
        }
        let mut build = Build::new(&shared, &mut self.blas_workspace);
        let workspace = build.workspace(program.workspace_bytes)?;
        let place = |place| match place {
            Of::Input(index) => usize::from(index),
            Of::Output(index) => inputs.len() + usize::from(index),
            Of::Workspace => 0,
        };
        let launches = fused::launches(&program.into(), workspace, place, &build)?;
        let memory = build.into_memory();
        self.record_together(&steps[at..at + count], &[launches], &addresses, FUSED, memory)?;
        Ok(count)
    }

    /// Encodes products of cuBLASLt's and what goes with them, if that is what stands at `at`; how many steps.
    fn record_products(&mut self, memories: &[Memory], steps: &[Step<Kernel>], at: usize) -> Result<usize> {
        let shared = self.device.shared().clone();
        let mut build = Build::new(&shared, &mut self.blas_workspace);
        let together = match siblings(steps, at, &mut build)? {
            None => residual(steps, at, &mut build)?,
            siblings => siblings,
        };
        let Some(Together { steps: count, work, places, alignment }) = together else { return Ok(0) };
        let memory = build.into_memory();
        let addresses: Addresses = places.iter().map(|place| memories[place.memory].address(place.offset)).collect();
        let bits = addresses.iter().fold(0, |bits, address| bits | address);
        if !bits.is_multiple_of(alignment) {
            return Ok(0);
        }
        self.record_together(&steps[at..at + count], work.steps(bits), &addresses, CUBLASLT, memory)?;
        Ok(count)
    }

    /// Gives the driver what several steps have become.
    fn record_together(
        &mut self,
        steps: &[Step<Kernel>],
        work: &[ops::Step],
        addresses: &Addresses,
        engine: Engine,
        memory: Vec<Arc<memory::Memory>>,
    ) -> Result<()> {
        self.bind()?;
        for step in steps {
            self.history.add(Given::Op(step.kernel.op().name(), engine));
            if let Some(recording) = &mut self.recording {
                recording.add(step.kernel.clone(), memory.iter().cloned());
            }
        }
        let shared = self.device.shared();
        let stream = self.progress.stream();
        work.iter().try_for_each(|part| part.submit(&shared.context, stream, addresses, &self.history))
    }

    pub(crate) fn replay_tape(&mut self, tape: &Tape) -> Result<()> {
        if tape.stream != self.id {
            return Err(Error::of_another_stream("replay", "the tape", tape.stream, self.id));
        }
        tape.graph.as_ref().map_or(Ok(()), |graph| graph.launch(self))
    }
}

/// The steps with one number for each memory, however often it is listed.
fn one_number_each(memories: &[Memory], mut steps: Vec<Step<Kernel>>) -> Vec<Step<Kernel>> {
    let mut first = HashMap::new();
    let number: Vec<usize> =
        memories.iter().enumerate().map(|(i, memory)| *first.entry(memory.address(0)).or_insert(i)).collect();
    for step in &mut steps {
        for place in step.inputs.iter_mut().chain(&mut step.outputs) {
            place.memory = number[place.memory];
        }
    }
    steps
}
