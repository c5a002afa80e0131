//! Recorded sequences: one graph, one launch.

use crate::memory;
use crate::runtime::graph::Graph;
use crate::stream::{Kernel, Stream};
use crate::{Buffer, Input, Output};
use candlewick_core::backend::Stream as _;
use candlewick_core::tape::{self, Step};
use candlewick_core::{Element, Error, Result};
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
            tape::check(step.kernel.signature(), step, &sizes)?;
        }
        let graph = match steps.is_empty() {
            true => None,
            false => Some(self.capture(|stream| {
                let input = |place: &tape::Place| {
                    let memory = &memories[place.memory].0.memory;
                    Input::at(memory, place.offset, place.elements, place.dtype, place.packing)
                };
                for step in &steps {
                    let inputs: Vec<Input<'_>> = step.inputs.iter().map(input).collect();
                    let mut outputs: Vec<Output<'_>> = step.outputs.iter().map(input).map(Output::of).collect();
                    stream.encode(&step.kernel, &inputs, &mut outputs)?;
                }
                Ok(())
            })?),
        };
        Ok(Tape { stream: self.id, graph, _memories: memories.to_vec() })
    }

    pub(crate) fn replay_tape(&mut self, tape: &Tape) -> Result<()> {
        if tape.stream != self.id {
            return Err(Error::of_another_stream("replay", "the tape", tape.stream, self.id));
        }
        tape.graph.as_ref().map_or(Ok(()), |graph| graph.launch(self))
    }
}
