//! Any operation on any engine, as work that can be timed.

use crate::bench::timing::{Regime, Timed, measure};
use candlewick::{Buffer, DType, Device, Element, Engine, Kernel, Memory, Op, Place, Step, Stream, Tape};
use half::{bf16, f16};

/// A prepared operation with operands of its own.
pub(crate) struct Work<'a> {
    stream: &'a mut Stream,
    kernel: Kernel,
    calls: Calls,
}

/// How it is submitted.
enum Calls {
    /// One call.
    Encoded { inputs: Vec<Buffer>, outputs: Vec<Buffer> },
    /// Recorded so many times, and replayed.
    Recorded { tape: Box<Tape>, operations: usize },
}

/// Floating-point operations of a recording, and how many operations it has at least and at most.
const RECORDED_FLOPS: f64 = 2e11;
const RECORDED: (usize, usize) = (10, 100);

impl<'a> Work<'a> {
    /// Prepares `op` on `engine`, or on the dispatcher's choice.
    ///
    /// # Errors
    /// What the library says.
    pub fn new(device: &Device, stream: &'a mut Stream, op: &Op, engine: Option<Engine>) -> candlewick::Result<Self> {
        let kernel = match engine {
            Some(engine) => stream.prepare_with(*op, engine)?,
            None => stream.prepare(*op)?,
        };
        let operands = op.operands()?;
        let packed = op.packed_factor().map(|factor| factor.input);
        let mut inputs = Vec::new();
        for (index, operand) in operands.inputs.iter().enumerate() {
            let mut buffer = device.alloc(operand.dtype, operand.span)?;
            fill(stream, &mut buffer, op, operand.name)?;
            if packed == Some(index) && kernel.packing().is_some() {
                buffer = stream.pack(&kernel, (&buffer).into())?;
            }
            inputs.push(buffer);
        }
        let outputs = operands.outputs.iter().map(|operand| device.alloc(operand.dtype, operand.span));
        let outputs = outputs.collect::<Result<_, _>>()?;
        Ok(Work { stream, kernel, calls: Calls::Encoded { inputs, outputs } })
    }

    /// The same as it is used: on a device that works by itself one of many in a recording, where calls of its own would
    /// time the host.
    ///
    /// # Errors
    /// What the library says.
    pub fn as_used(
        device: &Device,
        stream: &'a mut Stream,
        op: &Op,
        engine: Option<Engine>,
    ) -> candlewick::Result<Self> {
        let work = Work::new(device, stream, op, engine)?;
        if device.info().asynchronous { work.recorded() } else { Ok(work) }
    }

    fn recorded(self) -> candlewick::Result<Self> {
        let Work { stream, kernel, calls: Calls::Encoded { inputs, outputs } } = self else { return Ok(self) };
        let mut memories: Vec<Memory> = Vec::new();
        let mut place = |buffer: Buffer| {
            let (dtype, elements, packing) = (buffer.dtype(), buffer.elements(), buffer.packing());
            memories.push(stream.adopt(buffer)?);
            Ok(Place { memory: memories.len() - 1, offset: 0, elements, dtype, packing })
        };
        let inputs = inputs.into_iter().map(&mut place).collect::<candlewick::Result<_>>()?;
        let outputs = outputs.into_iter().map(&mut place).collect::<candlewick::Result<_>>()?;
        let operations = ((RECORDED_FLOPS / kernel.op().flops()) as usize).clamp(RECORDED.0, RECORDED.1);
        let steps = vec![Step::new(kernel.clone(), inputs, outputs); operations];
        let tape = Box::new(stream.record(&memories, &steps)?);
        Ok(Work { stream, kernel, calls: Calls::Recorded { tape, operations } })
    }

    /// Microseconds of an operation, gathered in about so many seconds.
    ///
    /// # Errors
    /// What the library says.
    pub fn times(&mut self, seconds: f64) -> Result<Vec<f64>, String> {
        let (regime, operations) = match self.calls {
            Calls::Encoded { .. } => (Regime::Latency, 1),
            Calls::Recorded { operations, .. } => (Regime::Pipelined, operations),
        };
        let samples = measure(regime, seconds, self)?;
        Ok(samples.into_iter().map(|sample| sample / operations as f64).collect())
    }

    /// What runs it.
    pub fn engine(&self) -> Engine {
        self.kernel.engine()
    }
}

/// Small numbers of both signs; integers are zero, which every operation takes, but for attention's spans.
fn fill(stream: &mut Stream, buffer: &mut Buffer, op: &Op, name: &str) -> candlewick::Result<()> {
    fn numbers<T: Element>(count: usize) -> Vec<T> {
        (0..count as u32)
            .map(|i| T::from_f64(f64::from(i.wrapping_mul(0x9E37_79B1) >> 8) / f64::from(1 << 23) - 1.0))
            .collect()
    }
    let count = buffer.elements();
    match (buffer.dtype(), op) {
        (DType::F32, _) => stream.write(buffer, &numbers::<f32>(count)),
        (DType::F16, _) => stream.write(buffer, &numbers::<f16>(count)),
        (DType::BF16, _) => stream.write(buffer, &numbers::<bf16>(count)),
        (DType::U32, Op::Attention(op) | Op::AttentionBackward(op)) if name == "spans" => {
            let mut spans = vec![0; count];
            spans[..4].copy_from_slice(&[0, op.queries as u32, 0, op.keys as u32]);
            stream.write(buffer, &spans)
        }
        (DType::U32 | DType::U8, _) => Ok(()),
    }
}

impl Timed for Work<'_> {
    fn submit(&mut self) -> Result<(), String> {
        let done = match &mut self.calls {
            Calls::Encoded { inputs, outputs } => {
                let inputs: Vec<_> = inputs.iter().map(Into::into).collect();
                let mut outputs: Vec<_> = outputs.iter_mut().map(Into::into).collect();
                self.stream.encode(&self.kernel, &inputs, &mut outputs)
            }
            Calls::Recorded { tape, .. } => self.stream.replay(tape),
        };
        done.map_err(|error| error.to_string())
    }

    fn wait(&mut self) -> Result<(), String> {
        self.stream.wait().map_err(|error| error.to_string())
    }
}
