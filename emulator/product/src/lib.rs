//! Candlewick's Metal backend on the emulator: what its tests share.

use metal_emulator as _;

use candlewick_core::backend::{Device as _, Engine, Stream as _};
use candlewick_core::op::Operand;
use candlewick_core::{DType, Element, Op, Result};
use candlewick_metal::{Buffer, Device, Kernel, Options, Stream};
use half::{bf16, f16};

/// The emulated GPU as `candlewick verify` takes it. Every tensor has a Metal buffer of its own, so that the emulator sees
/// where it ends.
///
/// # Errors
/// What the backend says.
pub fn metal() -> Result<candlewick::Device> {
    let device = Device::with_options(Options { block_bytes: 0, ..Options::default() })?;
    Ok(candlewick::Device::Metal(device))
}

/// An operation with buffers of its own, filled with numbers between -1 and 1.
pub struct Prepared {
    /// The kernel.
    pub kernel: Kernel,
    /// In the order of the operation.
    pub inputs: Vec<Buffer>,
    /// In the order of the operation.
    pub outputs: Vec<Buffer>,
}

impl Prepared {
    /// Prepares `op` on an engine, or on the one that the backend chooses.
    ///
    /// # Errors
    /// What the backend says.
    pub fn new(device: &Device, stream: &mut Stream, op: &Op, engine: Option<Engine>) -> Result<Self> {
        let operands = op.operands()?;
        let kernel = stream.prepare(op, engine)?;
        let mut inputs = Vec::new();
        for (step, operand) in operands.inputs.iter().enumerate() {
            inputs.push(numbers(device, stream, operand, step + 3)?);
        }
        let outputs = operands.outputs.iter().map(|operand| device.alloc(operand.dtype, operand.span));
        Ok(Prepared { kernel, inputs, outputs: outputs.collect::<Result<_>>()? })
    }

    /// Encodes it once: without an allocation of this function's own for up to eight tensors.
    ///
    /// # Errors
    /// What the backend says.
    pub fn encode(&mut self, stream: &mut Stream) -> Result<()> {
        let Prepared { kernel, inputs, outputs } = self;
        match (&inputs[..], &mut outputs[..]) {
            ([x], [y]) => stream.encode(kernel, &[x.into()], &mut [y.into()]),
            ([x, w], [y]) => stream.encode(kernel, &[x.into(), w.into()], &mut [y.into()]),
            ([x, a, b], [y]) => stream.encode(kernel, &[x.into(), a.into(), b.into()], &mut [y.into()]),
            ([x, w, a, b], [y]) => stream.encode(kernel, &[x.into(), w.into(), a.into(), b.into()], &mut [y.into()]),
            (inputs, outputs) => {
                let inputs: Vec<_> = inputs.iter().map(Into::into).collect();
                let mut outputs: Vec<_> = outputs.iter_mut().map(Into::into).collect();
                stream.encode(kernel, &inputs, &mut outputs)
            }
        }
    }
}

/// A buffer for an operand, of numbers that repeat only after a while.
///
/// # Errors
/// What the backend says.
pub fn numbers(device: &Device, stream: &mut Stream, operand: &Operand, step: usize) -> Result<Buffer> {
    let mut buffer = device.alloc(operand.dtype, operand.span)?;
    let values = (0..operand.span).map(|i| (i * step % 1009) as f64 / 504.5 - 1.0);
    match operand.dtype {
        DType::F32 => stream.write(&mut buffer, &values.map(f32::from_f64).collect::<Vec<_>>())?,
        DType::F16 => stream.write(&mut buffer, &values.map(f16::from_f64).collect::<Vec<_>>())?,
        DType::BF16 => stream.write(&mut buffer, &values.map(bf16::from_f64).collect::<Vec<_>>())?,
        DType::U32 => {
            stream.write(&mut buffer, &(0..operand.span).map(|i| (i * step % 1009) as u32).collect::<Vec<_>>())?
        }
        DType::U8 => {
            stream.write(&mut buffer, &(0..operand.span).map(|i| (i * step % 251) as u8).collect::<Vec<_>>())?
        }
    }
    Ok(buffer)
}
