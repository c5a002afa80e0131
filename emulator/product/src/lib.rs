//! Candlewick's Metal backend on the emulator: what its tests share.
//!
//! The cases are those of `candlewick verify`, and so is how results are judged; only what runs them is written here.

use metal_emulator as _;

#[path = "../../../crates/candlewick-cli/src/verify/cases.rs"]
#[allow(dead_code, reason = "what only the command prints")]
mod cases;
#[path = "../../../crates/candlewick-cli/src/verify/rng.rs"]
mod rng;
#[path = "../../../crates/candlewick-cli/src/verify/tensors.rs"]
mod tensors;
mod trial;

use candlewick::backend::{Device as _, Engine, Stream as _};
use candlewick::op::{OpClass, Operand};
use candlewick::{DType, Element, Op, Result};
use candlewick_metal::{Buffer, Device, Kernel, Stream};
use cases::Case;
use half::{bf16, f16};
use trial::Trial;

/// What one engine made of one case.
pub struct Outcome {
    /// The operation and what its tensors hold.
    pub case: String,
    /// Who ran it.
    pub engine: Engine,
    /// The error relative to the output, or what is wrong.
    pub verdict: std::result::Result<f64, String>,
}

/// Runs case `index` of a class on every engine that the device lists for it.
pub fn verify(
    device: &Device,
    stream: &mut Stream,
    class: OpClass,
    dtype: DType,
    seed: u64,
    index: usize,
) -> Vec<Outcome> {
    let case = Case::new(seed, class, dtype, index);
    match dtype {
        DType::F32 => verify_as::<f32>(device, stream, &case),
        DType::F16 => verify_as::<f16>(device, stream, &case),
        DType::BF16 => verify_as::<bf16>(device, stream, &case),
    }
}

/// How many cases of a class come from the fixed list, and are large; the random ones follow.
pub fn fixed_count(class: OpClass) -> usize {
    cases::fixed_count(class)
}

fn verify_as<T: Element>(device: &Device, stream: &mut Stream, case: &Case) -> Vec<Outcome> {
    let trial = Trial::<T>::new(case).unwrap_or_else(|error| panic!("{case}: {error}"));
    let run = |engine| {
        let verdict = trial.run(device, stream, engine).map_err(|error| format!("refused: {error}"));
        let verdict = verdict.and_then(|memory| trial.judge(&memory));
        Outcome { case: format!("{} {case} {:?}", case.op, case.op), engine, verdict }
    };
    device.engines(&case.op).into_iter().map(run).collect()
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
    }
    Ok(buffer)
}
