//! Recorded sequences: one graph, one launch. Steps that follow each other become one kernel where
//! [`candlewick_kernels::sequence`] knows one, or fewer launches and products as `together` says.

use crate::kernel::Kernel;
use crate::ops::{self, Build};
use crate::runtime::graph::Graph;
use crate::runtime::history::Given;
use crate::runtime::launch::Addresses;
use crate::stream::Stream;
use crate::together::{Hidden, Together, together};
use crate::{Buffer, FUSED, Input, Output, fused, memory};
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

/// Steps of a tape as the work of one.
struct Part {
    steps: usize,
    work: Vec<ops::Step>,
    addresses: Addresses,
    engine: Engine,
    /// That the work needs.
    memory: Vec<Arc<memory::Memory>>,
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
        // Ahead of the capture, which whoever loads a module meanwhile could disturb.
        let (mut parts, mut kept) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < steps.len() {
            let part = match self.sequence(memories, &steps, at)? {
                None => self.together(memories, &steps, at, &mut kept)?,
                sequence => sequence,
            };
            at += part.as_ref().map_or(1, |part| part.steps);
            parts.push(part);
        }
        let graph = match steps.is_empty() {
            true => None,
            false => Some(self.capture(|stream| {
                let mut rest = &steps[..];
                for part in parts {
                    let (these, behind) = rest.split_at(part.as_ref().map_or(1, |part| part.steps));
                    match part {
                        None => stream.encode_step(memories, &these[0])?,
                        Some(part) => stream.give(these, part)?,
                    }
                    rest = behind;
                }
                Ok(())
            })?),
        };
        Ok(Tape { stream: self.id, graph, _memories: memories.to_vec() })
    }

    fn encode_step(&mut self, memories: &[Memory], step: &Step<Kernel>) -> Result<()> {
        let input = |place: &Place| {
            let memory = &memories[place.memory].0.memory;
            Input::at(memory, place.offset, place.elements, place.dtype, place.packing)
        };
        let inputs: Vec<Input<'_>> = step.inputs.iter().map(input).collect();
        let mut outputs: Vec<Output<'_>> = step.outputs.iter().map(input).map(Output::of).collect();
        self.encode(&step.kernel, &inputs, &mut outputs)
    }

    /// Steps that own kernels run together, if there are such at `at`.
    fn sequence(&mut self, memories: &[Memory], steps: &[Step<Kernel>], at: usize) -> Result<Option<Part>> {
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
            return Ok(None);
        };
        let Sequence { steps, program, inputs, outputs } = sequence;
        let address = |place: &Option<Place>| place.map_or(0, |place| memories[place.memory].address(place.offset));
        let addresses: Addresses = inputs.iter().chain(&outputs).map(address).collect();
        if !addresses.iter().all(|address| address.is_multiple_of(program.alignment.into())) {
            return Ok(None);
        }
        let mut build = Build::new(&shared, &mut self.blas_workspace);
        let workspace = build.workspace(program.workspace_bytes)?;
        let place = |place| match place {
            Of::Input(index) => usize::from(index),
            Of::Output(index) => inputs.len() + usize::from(index),
            Of::Workspace => 0,
        };
        let work = vec![fused::launches(&program.into(), workspace, place, &build)?];
        Ok(Some(Part { steps, work, addresses, engine: FUSED, memory: build.into_memory() }))
    }

    /// Steps that go together, if that is what stands at `at`.
    fn together(
        &mut self,
        memories: &[Memory],
        steps: &[Step<Kernel>],
        at: usize,
        kept: &mut Vec<Hidden>,
    ) -> Result<Option<Part>> {
        let shared = self.device.shared().clone();
        let mut build = Build::new(&shared, &mut self.blas_workspace);
        let Some(found) = together(steps, at, kept, &mut build)? else { return Ok(None) };
        let Together { steps, work, engine, places, alignment, keeps } = found;
        let addresses: Addresses = places.iter().map(|place| memories[place.memory].address(place.offset)).collect();
        let bits = addresses.iter().fold(0, |bits, address| bits | address);
        if !bits.is_multiple_of(alignment) {
            return Ok(None);
        }
        kept.extend(keeps);
        Ok(Some(Part { steps, work: work.into_steps(bits), addresses, engine, memory: build.into_memory() }))
    }

    /// Gives the driver what several steps have become.
    fn give(&mut self, steps: &[Step<Kernel>], part: Part) -> Result<()> {
        let Part { work, addresses, engine, memory, .. } = part;
        self.bind()?;
        for step in steps {
            self.history.add(Given::Op(step.kernel.op().name(), engine));
            if let Some(recording) = &mut self.recording {
                recording.add(step.kernel.clone(), memory.iter().cloned());
            }
        }
        let shared = self.device.shared();
        let stream = self.progress.stream();
        work.iter().try_for_each(|part| part.submit(&shared.context, stream, &addresses, &self.history))
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
