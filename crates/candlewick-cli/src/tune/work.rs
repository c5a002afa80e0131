//! Any operation on any engine, as work that can be timed.

use crate::bench::timing::Timed;
use candlewick::{Buffer, DType, Device, Element, Engine, Kernel, Op, Stream};
use half::{bf16, f16};

/// A prepared operation with operands of its own.
pub(crate) struct Work<'a> {
    stream: &'a mut Stream,
    kernel: Kernel,
    inputs: Vec<Buffer>,
    outputs: Vec<Buffer>,
}

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
        Ok(Work { outputs: outputs.collect::<Result<_, _>>()?, stream, kernel, inputs })
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
        let inputs: Vec<_> = self.inputs.iter().map(Into::into).collect();
        let mut outputs: Vec<_> = self.outputs.iter_mut().map(Into::into).collect();
        self.stream.encode(&self.kernel, &inputs, &mut outputs).map_err(|error| error.to_string())
    }

    fn wait(&mut self) -> Result<(), String> {
        self.stream.wait().map_err(|error| error.to_string())
    }
}
