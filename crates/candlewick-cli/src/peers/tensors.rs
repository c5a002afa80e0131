//! A library whose operations take Candle's tensors, as a peer.

use crate::bench::cases::{Case, Pass};
use crate::bench::operands::{Operand, operands};
use crate::bench::runner::{Prepared, Runner};
#[cfg(feature = "candle-cuda")]
use crate::bench::timing::RECORDED;
use crate::bench::timing::{Regime, Timed, measure};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use std::hint::black_box;

/// The forward pass of a case, ready to be called again and again.
pub struct Forward {
    /// Computes y.
    pub run: Box<dyn Fn() -> candle_core::Result<Tensor>>,
    /// The tensors that get a gradient, in the order in which [`Runner::outputs`] gives them.
    pub leaves: Vec<Leaf>,
    /// What a reader of the figures must know.
    pub note: Option<String>,
}

/// A tensor that gets a gradient.
pub struct Leaf {
    /// A variable, where there is a backward pass.
    pub tensor: Tensor,
    /// Whether it is the transpose of Candlewick's operand.
    pub transposed: bool,
}

/// How a library makes the forward pass of a case from its operands, which have Candlewick's layout.
pub type MakeForward = fn(&Case, Vec<Tensor>) -> candle_core::Result<Forward>;

/// Candle's device by the name that users type.
///
/// # Errors
/// What Candle says, or a device that it does not have.
pub fn device(name: &str) -> Result<Device, String> {
    match name.split_once(':').map_or((name, "0"), |(backend, number)| (backend, number)) {
        ("cpu", _) => Ok(Device::Cpu),
        ("metal", _) => Device::new_metal(0).map_err(in_words),
        #[cfg(not(feature = "candle-cuda"))]
        ("cuda", _) => Err("this binary's Candle has no CUDA: build it with feature `candle-cuda`, as \
                            scripts/check-candle-cuda.sh --nvcc does"
            .into()),
        #[cfg(feature = "candle-cuda")]
        ("cuda", number) => {
            let number = number.parse().map_err(|_| format!("{name} is no device: cuda:0 is the first"))?;
            Device::new_cuda(number).map_err(in_words)
        }
        _ => Err(format!("Candle has no device {name}")),
    }
}

/// A library on Candle's tensors.
pub struct Tensors {
    engine: &'static str,
    make_forward: MakeForward,
    device: Device,
    loaded: Option<Loaded>,
}

struct Loaded {
    forward: Forward,
    /// Where there is a backward pass.
    dy: Option<Tensor>,
}

impl Tensors {
    /// The library that `make_forward` calls.
    pub fn new(engine: &'static str, make_forward: MakeForward, device: Device) -> Self {
        Tensors { engine, make_forward, device, loaded: None }
    }
}

impl Loaded {
    fn run(&self) -> candle_core::Result<(Tensor, Option<GradStore>)> {
        let y = (self.forward.run)()?;
        let gradients = match &self.dy {
            // The only way into Candle's backward is a scalar, the one whose gradient at y is dy.
            Some(dy) => Some((&y * dy)?.sum_all()?.backward()?),
            None => None,
        };
        Ok((y, gradients))
    }

    fn outputs(&self) -> candle_core::Result<Vec<Tensor>> {
        let (y, gradients) = self.run()?;
        let mut outputs = vec![y];
        if let Some(gradients) = gradients {
            for leaf in &self.forward.leaves {
                let gradient = gradients.get(&leaf.tensor);
                let gradient = gradient.ok_or_else(|| candle_core::Error::msg("a gradient is missing"))?;
                outputs.push(if leaf.transposed { gradient.t()? } else { gradient.clone() });
            }
        }
        Ok(outputs)
    }
}

impl Runner for Tensors {
    fn prepare(&mut self, case: &Case) -> Result<Prepared, String> {
        self.loaded = None;
        if case.pass == Pass::Backward {
            return Err("Candle's backward cannot be called without its forward".into());
        }
        let load = || -> candle_core::Result<Loaded> {
            let mut tensors = Vec::new();
            for operand in operands(case) {
                tensors.push(tensor(&operand, case.dtype, &self.device)?);
            }
            let dy = (case.pass == Pass::Both).then(|| tensors.pop()).flatten();
            Ok(Loaded { forward: (self.make_forward)(case, tensors)?, dy })
        };
        let loaded = load().map_err(in_words)?;
        let note = loaded.forward.note.clone();
        self.loaded = Some(loaded);
        Ok(Prepared { engine: self.engine.into(), threads: None, note })
    }

    fn measure(&mut self, regime: Regime, seconds: f64) -> Result<Vec<f64>, String> {
        let loaded = self.loaded.as_ref().ok_or("no case was prepared")?;
        let mut calls = Calls { loaded, device: &self.device };
        match (regime, &self.device) {
            #[cfg(feature = "candle-cuda")]
            (Regime::Replay, Device::Cuda(device)) => {
                let mut recorded = super::cuda_graph::Recorded::new(device, || calls.submit())?;
                let samples = measure(regime, seconds, &mut recorded)?;
                Ok(samples.into_iter().map(|sample| sample / RECORDED as f64).collect())
            }
            (Regime::Replay, _) => Err("Candle cannot record a sequence here".into()),
            _ => measure(regime, seconds, &mut calls),
        }
    }

    fn replays(&self) -> bool {
        cfg!(feature = "candle-cuda") && self.device.is_cuda()
    }

    fn outputs(&mut self, counts: &[usize]) -> Result<Vec<Vec<f64>>, String> {
        let loaded = self.loaded.as_ref().ok_or("no case was prepared")?;
        let outputs = loaded.outputs().map_err(in_words)?;
        outputs.iter().zip(counts).map(|(output, &count)| beginning(output, count).map_err(in_words)).collect()
    }
}

/// Calls of the loaded case.
struct Calls<'a> {
    loaded: &'a Loaded,
    device: &'a Device,
}

impl Timed for Calls<'_> {
    fn submit(&mut self) -> Result<(), String> {
        self.loaded.run().map(|result| drop(black_box(result))).map_err(in_words)
    }

    fn wait(&mut self) -> Result<(), String> {
        self.device.synchronize().map_err(in_words)
    }
}

/// Candle adds a backtrace where it has one; its first line is what it says.
pub(super) fn in_words(error: candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn tensor(operand: &Operand, dtype: candlewick::DType, device: &Device) -> candle_core::Result<Tensor> {
    let (shape, count) = ((operand.rows, operand.cols), operand.elements());
    match dtype {
        candlewick::DType::F32 => Tensor::from_vec(operand.values::<f32>(count), shape, device),
        candlewick::DType::F16 => Tensor::from_vec(operand.values::<f16>(count), shape, device),
        candlewick::DType::BF16 => Tensor::from_vec(operand.values::<bf16>(count), shape, device),
        candlewick::DType::U32 | candlewick::DType::U8 => unreachable!("operands of peers are floats"),
    }
}

/// The first `count` numbers of a tensor.
fn beginning(tensor: &Tensor, count: usize) -> candle_core::Result<Vec<f64>> {
    let numbers = tensor.contiguous()?.flatten_all()?;
    let count = count.min(numbers.dim(0)?);
    numbers.narrow(0, 0, count)?.to_dtype(candle_core::DType::F64)?.to_vec1()
}
