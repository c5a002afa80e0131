//! A case recorded once, many operations long, and replayed whole.

use super::ours::{Loaded, Step, in_words};
use super::timing::{RECORDED, Timed};
use candlewick::{Buffer, DType, Element, Kernel, Memory, Place, Result, Step as Recording, Stream, Tape};
use half::{bf16, f16};

/// The same operations on the same numbers, [`RECORDED`] times.
pub struct Recorded(Tape);

/// A replay on a stream.
pub struct Replay<'a>(pub Recorded, pub &'a mut Stream);

/// Memories that are laid out one after the other.
struct Memories<'a> {
    stream: &'a mut Stream,
    memories: Vec<Memory>,
}

impl Memories<'_> {
    /// A place with a buffer's numbers; packed operands are packed anew, in their place.
    fn copy(&mut self, buffer: &Buffer) -> Result<Place> {
        let (dtype, elements) = (buffer.dtype(), buffer.elements());
        let memory = self.stream.memory(elements * dtype.bytes())?;
        match dtype {
            DType::F32 => self.fill::<f32>(buffer, &memory)?,
            DType::F16 => self.fill::<f16>(buffer, &memory)?,
            DType::BF16 => self.fill::<bf16>(buffer, &memory)?,
            DType::U32 => self.fill::<u32>(buffer, &memory)?,
            DType::U8 => self.fill::<u8>(buffer, &memory)?,
        }
        Ok(self.place(memory, dtype, elements))
    }

    fn fill<T: Element>(&mut self, buffer: &Buffer, memory: &Memory) -> Result<()> {
        let mut numbers = vec![T::default(); buffer.elements()];
        self.stream.read(buffer, &mut numbers)?;
        self.stream.store(memory, 0, &numbers)
    }

    fn place(&mut self, memory: Memory, dtype: DType, elements: usize) -> Place {
        self.memories.push(memory);
        Place { memory: self.memories.len() - 1, offset: 0, elements, dtype, packing: None }
    }

    /// The place of a step's packed operand.
    fn packed(&mut self, kernel: &Kernel, plain: &Buffer) -> Result<Option<Place>> {
        let Some(packing) = kernel.packing() else { return Ok(None) };
        let packed = self.stream.pack(kernel, plain.into())?;
        let memory = self.stream.adopt(packed)?;
        let place = self.place(memory, packing.dtype, packing.k * packing.n);
        Ok(Some(Place { packing: Some(packing), ..place }))
    }
}

impl Recorded {
    /// Records a loaded case.
    ///
    /// # Errors
    /// What the library says.
    pub fn new(loaded: &Loaded, stream: &mut Stream) -> Result<Self> {
        let mut memories = Memories { stream, memories: Vec::new() };
        // What was packed stands behind the plain operands, with the plain one that it was made from.
        let plain: Vec<Option<Place>> = (loaded.inputs.iter())
            .map(|buffer| if buffer.packing().is_none() { memories.copy(buffer).map(Some) } else { Ok(None) })
            .collect::<Result<_>>()?;
        let y = memories.copy(&loaded.y)?;
        let gradients = loaded.gradients.iter().map(|buffer| memories.copy(buffer)).collect::<Result<Vec<_>>>()?;
        let mut gradients = gradients.into_iter();
        let mut steps: Vec<Recording<Kernel>> = Vec::new();
        for step in loaded.forward.iter().chain(&loaded.backward) {
            let Step { kernel, reads_y, inputs } = step;
            let operands = kernel.op().operands()?;
            let mut places: Vec<Place> = if *reads_y { vec![y] } else { Vec::new() };
            for &input in inputs {
                places.push(match plain[input] {
                    Some(place) => place,
                    None => match memories.packed(kernel, &loaded.inputs[step.plain_of_packed()])? {
                        Some(place) => place,
                        None => unreachable!("only a packed operand's buffer is packed"),
                    },
                });
            }
            let is_forward = loaded.forward.as_ref().is_some_and(|forward| std::ptr::eq(forward, step));
            let outputs = match is_forward {
                true => vec![y],
                false => gradients.by_ref().take(operands.outputs.len()).collect(),
            };
            for (place, operand) in places.iter_mut().zip(&operands.inputs).filter(|(place, _)| place.packing.is_none())
            {
                place.elements = operand.span;
            }
            steps.push(Recording::new(kernel.clone(), places, outputs));
        }
        let all: Vec<Recording<Kernel>> = (0..RECORDED).flat_map(|_| steps.iter().cloned()).collect();
        let Memories { stream, memories } = memories;
        stream.record(&memories, &all).map(Recorded)
    }
}

impl Timed for Replay<'_> {
    fn submit(&mut self) -> std::result::Result<(), String> {
        self.1.replay(&mut self.0.0).map_err(in_words)
    }

    fn wait(&mut self) -> std::result::Result<(), String> {
        self.1.wait().map_err(in_words)
    }
}
