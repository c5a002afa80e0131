//! candlewick-candle on Metal tensors: what its tests share.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_on_the_emulator::assert_nothing_new;
use metal_emulator::{Settings, watch};
use numbers::{assert_close, numbers as values, tensor, through_transpose, weighted_sum, with_gaps};

#[path = "../../../crates/candlewick-candle/tests/numbers/mod.rs"]
pub mod numbers;

/// Candle's Metal device: one for the process, as in a program.
pub fn metal() -> Device {
    static DEVICE: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    DEVICE.get_or_init(|| Device::new_metal(0).expect("the emulator has one")).clone()
}

/// The tensor on Metal: its memory is moved as it is, so a view stays one.
pub fn to_metal(tensor: &Tensor) -> Tensor {
    tensor.to_device(&metal()).expect("it is moved")
}

/// How an input lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lies {
    /// Without gaps.
    Plain,
    /// With a gap before it and between its rows.
    Gaps,
    /// Transposed.
    Transposed,
}

impl Lies {
    /// The same tensor, lying so.
    pub fn view(self, tensor: &Tensor) -> Tensor {
        match self {
            Lies::Plain => tensor.clone(),
            Lies::Gaps => with_gaps(tensor),
            Lies::Transposed => through_transpose(tensor),
        }
    }
}

/// What two roundings and another order of sums make of a result, relative to its largest element.
pub fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-5,
        DType::F16 => 3e-3,
        _ => 2.4e-2,
    }
}

/// An operation on some tensors.
pub type Operation<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Runs an operation on the CPU and on Metal, and compares results and gradients of every input. Inputs have a shape and
/// lie so.
pub fn compare(what: &str, inputs: &[(&[usize], Lies)], dtype: DType, operation: Operation<'_>) {
    let tensors: Vec<Tensor> =
        inputs.iter().enumerate().map(|(seed, (shape, _))| tensor(seed as u64 + 1, shape, dtype)).collect();
    let run = |device: &Device| -> Result<(Tensor, Vec<Var>, GradStore)> {
        let variables = tensors.iter().map(|tensor| Var::from_tensor(&tensor.to_device(device)?));
        let variables = variables.collect::<Result<Vec<_>>>()?;
        let views: Vec<Tensor> = variables.iter().zip(inputs).map(|(var, (_, lies))| lies.view(var)).collect();
        let y = operation(&views)?;
        let weights = tensor(77, y.dims(), dtype).to_device(device)?;
        let gradients = weighted_sum(&y, &weights).backward()?;
        Ok((y, variables, gradients))
    };
    let (cpu_y, cpu_variables, cpu) = run(&Device::Cpu).unwrap_or_else(|error| panic!("{what} on the CPU: {error}"));
    let (y, variables, gpu) = run(&metal()).unwrap_or_else(|error| panic!("{what} on Metal: {error}"));
    assert_eq!(y.dims(), cpu_y.dims(), "{what}");
    let what = format!("{what} {dtype:?} {inputs:?}");
    let host = |tensor: &Tensor| tensor.to_device(&Device::Cpu).unwrap();
    assert_close(&host(&y), &values(&cpu_y), bound(dtype), &what);
    for (i, (variable, cpu_variable)) in variables.iter().zip(&cpu_variables).enumerate() {
        let what = format!("{what}: gradient of input {i}");
        let expected = cpu.get(cpu_variable).unwrap_or_else(|| panic!("{what}: none on the CPU"));
        let found = gpu.get(variable).unwrap_or_else(|| panic!("{what}: none on Metal"));
        assert_close(&host(found), &values(expected), bound(dtype), &what);
    }
}

/// Runs a test under several orders of what Metal leaves unordered, and fails on what the emulator finds.
pub fn shuffled(seeds: std::ops::Range<u64>, test: impl Fn()) {
    for seed in seeds {
        let watch = watch(Settings::seeded(seed));
        test();
        metal().synchronize().expect("nothing failed");
        assert_nothing_new(&watch);
    }
}
