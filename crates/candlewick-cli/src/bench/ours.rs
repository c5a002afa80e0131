//! Candlewick as one of the libraries that are measured.

use super::cases::{Case, Family, Pass};
use super::operands::{Operand, operands, output};
use super::replay::{Recorded, Replay};
use super::runner::{Prepared, Runner};
use super::timing::{RECORDED, Regime, Timed, measure};
use candlewick::op::MatMulOperand;
use candlewick::{Buffer, DType, Device, Element, Engine, Input, Kernel, Op, Output, Stream};
use half::{bf16, f16};

/// Candlewick on a device, on the engine that the dispatcher chooses or on a forced one.
pub struct Candlewick {
    device: Device,
    engine: Option<Engine>,
    stream: Stream,
    loaded: Option<Loaded>,
}

/// A case, ready to be encoded.
pub(super) struct Loaded {
    dtype: DType,
    pub(super) forward: Option<Step>,
    pub(super) backward: Vec<Step>,
    pub(super) inputs: Vec<Buffer>,
    pub(super) y: Buffer,
    pub(super) gradients: Vec<Buffer>,
}

/// A prepared operation and where its inputs are.
pub(super) struct Step {
    pub(super) kernel: Kernel,
    /// Whether the forward's output is its first input.
    pub(super) reads_y: bool,
    pub(super) inputs: Vec<usize>,
}

impl Step {
    /// The input whose packed copy it reads: W, the second operand of every operation that has one.
    pub(super) fn plain_of_packed(&self) -> usize {
        1
    }
}

impl Candlewick {
    /// A stream on `device`.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(device: Device, engine: Option<Engine>) -> candlewick::Result<Self> {
        let stream = device.stream()?;
        Ok(Candlewick { device, engine, stream, loaded: None })
    }

    fn load(&mut self, case: &Case) -> candlewick::Result<Loaded> {
        let operands = operands(case);
        let mut inputs =
            operands.iter().map(|operand| self.upload(operand, case.dtype)).collect::<Result<Vec<_>, _>>()?;
        let (rows, cols) = output(case);
        let mut y = self.device.alloc(case.dtype, rows * cols)?;

        let (forward_ops, backward_ops) = case.ops();
        let mut forward = None;
        for op in &forward_ops {
            let places = (0..op.operands()?.inputs.len()).collect();
            forward = Some(self.step(op, false, places, &mut inputs)?);
        }
        let mut backward = Vec::new();
        let mut gradients = Vec::new();
        for (index, op) in backward_ops.iter().enumerate() {
            let places = match case.family {
                Family::MatMul if index == 0 => product_operands(case.matmul().grad_a()),
                Family::MatMul => product_operands(case.matmul().grad_b()),
                // dy; y comes before it.
                Family::Softmax => vec![operands.len() - 1],
                _ => (0..operands.len()).collect(),
            };
            backward.push(self.step(op, case.family == Family::Softmax, places, &mut inputs)?);
            for gradient in op.operands()?.outputs {
                gradients.push(self.device.alloc(case.dtype, gradient.span)?);
            }
        }
        if case.family == Family::Softmax && case.pass == Pass::Backward {
            self.stream.run(case.softmax(), &[(&inputs[0]).into()], &mut [(&mut y).into()])?;
        }
        Ok(Loaded { dtype: case.dtype, forward, backward, inputs, y, gradients })
    }

    /// Prepares `op`, and packs a copy of its frozen operand where it has one.
    fn step(
        &mut self,
        op: &Op,
        reads_y: bool,
        mut places: Vec<usize>,
        inputs: &mut Vec<Buffer>,
    ) -> candlewick::Result<Step> {
        let kernel = match self.engine {
            Some(engine) => self.stream.prepare_with(*op, engine)?,
            None => self.stream.prepare(*op)?,
        };
        if let Some(packed) = op.packed_factor() {
            let place = &mut places[packed.input];
            let buffer = self.stream.pack(&kernel, (&inputs[*place]).into())?;
            *place = inputs.len();
            inputs.push(buffer);
        }
        Ok(Step { kernel, reads_y, inputs: places })
    }

    fn upload(&mut self, operand: &Operand, dtype: DType) -> candlewick::Result<Buffer> {
        let count = operand.elements();
        let mut buffer = self.device.alloc(dtype, count)?;
        match dtype {
            DType::F32 => self.stream.write(&mut buffer, &operand.values::<f32>(count))?,
            DType::F16 => self.stream.write(&mut buffer, &operand.values::<f16>(count))?,
            DType::BF16 => self.stream.write(&mut buffer, &operand.values::<bf16>(count))?,
            DType::U32 | DType::U8 => unreachable!("no operation computes in integers"),
        }
        Ok(buffer)
    }
}

/// Where the operands of a gradient of a product are: A, B and dC are the first three inputs.
fn product_operands(gradient: candlewick::op::Gradient) -> Vec<usize> {
    let place = |operand| match operand {
        MatMulOperand::A => 0,
        MatMulOperand::B => 1,
        MatMulOperand::GradC => 2,
    };
    vec![place(gradient.a), place(gradient.b)]
}

/// The arguments of a case, borrowed once as in a caller's own loop.
struct Calls<'a> {
    stream: &'a mut Stream,
    forward: Option<Call<'a>>,
    y: &'a mut Buffer,
    backward: Vec<Call<'a>>,
}

struct Call<'a> {
    kernel: &'a Kernel,
    reads_y: bool,
    inputs: Vec<Input<'a>>,
    outputs: Vec<Output<'a>>,
}

impl Loaded {
    fn calls<'a>(&'a mut self, stream: &'a mut Stream) -> Calls<'a> {
        let mut gradients = self.gradients.iter_mut().map(Output::from);
        let mut call = |step: &'a Step, outputs| Call {
            kernel: &step.kernel,
            reads_y: step.reads_y,
            inputs: step.inputs.iter().map(|&place| (&self.inputs[place]).into()).collect(),
            outputs: gradients.by_ref().take(outputs).collect(),
        };
        let forward = self.forward.as_ref().map(|step| call(step, 0));
        let outputs = |step: &Step| step.kernel.op().operands().map_or(0, |operands| operands.outputs.len());
        let backward = self.backward.iter().map(|step| call(step, outputs(step))).collect();
        Calls { stream, forward, y: &mut self.y, backward }
    }
}

impl Timed for Calls<'_> {
    #[inline]
    fn submit(&mut self) -> Result<(), String> {
        if let Some(call) = &self.forward {
            self.stream.encode(call.kernel, &call.inputs, &mut [(&mut *self.y).into()]).map_err(in_words)?;
        }
        for call in &mut self.backward {
            if call.reads_y {
                let inputs = [(&*self.y).into(), call.inputs[0]];
                self.stream.encode(call.kernel, &inputs, &mut call.outputs).map_err(in_words)?;
            } else {
                self.stream.encode(call.kernel, &call.inputs, &mut call.outputs).map_err(in_words)?;
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), String> {
        self.stream.wait().map_err(in_words)
    }
}

#[cold]
pub(super) fn in_words(error: candlewick::Error) -> String {
    error.to_string()
}

impl Runner for Candlewick {
    fn prepare(&mut self, case: &Case) -> Result<Prepared, String> {
        // Before the next one, so that two cases never take memory at once.
        self.loaded = None;
        let loaded = self.load(case).map_err(in_words)?;
        let steps = || loaded.forward.iter().chain(&loaded.backward);
        let mut engines: Vec<String> = steps().map(|step| step.kernel.engine().to_string()).collect();
        engines.dedup();
        let threads = steps().map(|step| step.kernel.threads()).max();
        self.loaded = Some(loaded);
        Ok(Prepared { engine: engines.join(" + "), threads, note: None })
    }

    fn measure(&mut self, regime: Regime, seconds: f64) -> Result<Vec<f64>, String> {
        let loaded = self.loaded.as_mut().ok_or("no case was prepared")?;
        if regime == Regime::Replay {
            let recorded = Recorded::new(loaded, &mut self.stream).map_err(in_words)?;
            let samples = measure(regime, seconds, &mut Replay(recorded, &mut self.stream))?;
            return Ok(samples.into_iter().map(|sample| sample / RECORDED as f64).collect());
        }
        measure(regime, seconds, &mut loaded.calls(&mut self.stream))
    }

    fn replays(&self) -> bool {
        true
    }

    fn outputs(&mut self, counts: &[usize]) -> Result<Vec<Vec<f64>>, String> {
        let Candlewick { stream, loaded: Some(loaded), .. } = self else { return Err("no case was prepared".into()) };
        let mut calls = loaded.calls(stream);
        calls.submit()?;
        calls.wait()?;
        let y = loaded.forward.is_some().then_some(&loaded.y);
        y.into_iter()
            .chain(&loaded.gradients)
            .zip(counts)
            .map(|(buffer, &count)| match loaded.dtype {
                DType::F32 => beginning::<f32>(stream, buffer, count),
                DType::F16 => beginning::<f16>(stream, buffer, count),
                DType::BF16 => beginning::<bf16>(stream, buffer, count),
                DType::U32 | DType::U8 => unreachable!("no operation computes in integers"),
            })
            .collect()
    }
}

/// The first `count` numbers of a buffer.
fn beginning<T: Element>(stream: &mut Stream, buffer: &Buffer, count: usize) -> Result<Vec<f64>, String> {
    let mut numbers = vec![T::default(); buffer.elements()];
    stream.read(buffer, &mut numbers).map_err(in_words)?;
    Ok(numbers.into_iter().take(count).map(T::to_f64).collect())
}
