//! One trial in words: a descriptor and what its tensors hold, made from a seed and a number.

use crate::cases::{self, Draw};
use crate::rng::Rng;
use candlewick::op::OpClass;
use candlewick::{DType, Device, Op};
use std::fmt;

/// What the inputs hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Numbers of magnitude one; outputs hold NaN before, wherever the operation may not read them.
    Ordinary,
    /// NaN, both infinities and zeros among them.
    NonFinite,
    /// One input holds very large numbers.
    Huge,
    /// One input holds numbers below the smallest normal one.
    Subnormal,
    /// Whole rows of zeros, and for softmax of -inf.
    Degenerate,
}

/// Where the tensors live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Slices of larger slices of the caller's, at odd offsets. Where a device cannot read those, as [`Storage::Buffers`].
    Slices,
    /// Parts of larger buffers, at odd offsets.
    Buffers,
    /// Parts of larger buffers, at multiples of 64 elements: what kernels that read 16 bytes at once need.
    AlignedBuffers,
}

/// Whose kernels the shapes are drawn for: each kind has edges of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// The caller's slices are legal, and large cases are cheap.
    Cpu,
    /// The CPU's fixed cases and those at the edges of the GPU kernels; smaller random ones, in buffers.
    Gpu,
}

impl Hardware {
    /// What a device is.
    pub fn of(device: &Device) -> Self {
        match device {
            Device::Cpu(_) | Device::Empty(_) => Hardware::Cpu,
            _ => Hardware::Gpu,
        }
    }
}

/// One trial: a descriptor and what its tensors hold.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Of the random numbers, together with the index, class and dtype.
    pub seed: u64,
    /// The case's number within its class and dtype.
    pub index: usize,
    /// The operation.
    pub op: Op,
    /// What the inputs hold.
    pub values: Values,
    /// Where the tensors live.
    pub storage: Storage,
}

impl Case {
    /// Case `index` of a class: the fixed ones first, then random ones without end. A function of its arguments.
    ///
    /// # Panics
    /// For a class that has no file in `cases/`.
    pub fn new(seed: u64, class: OpClass, dtype: DType, index: usize, hardware: Hardware) -> Self {
        let mut rng = Rng::new(&[seed, class as u64, dtype as u64, index as u64]);
        let storage = rng.pick(match hardware {
            Hardware::Cpu => &[Storage::Slices, Storage::Buffers],
            Hardware::Gpu => &[Storage::AlignedBuffers, Storage::Buffers],
        });
        if let Some(&op) = fixed(class, dtype, hardware).get(index) {
            return Case { seed, index, op, values: Values::Ordinary, storage };
        }
        let values = match rng.below(10) {
            0 => Values::Huge,
            1 => Values::Subnormal,
            2 => Values::Degenerate,
            3 | 4 => Values::NonFinite,
            _ => Values::Ordinary,
        };
        let op = cases::of(class).random(&mut Draw { rng, dtype, values, hardware });
        Case { seed, index, op, values, storage }
    }

    /// A sequence for what the tensors hold.
    pub(crate) fn rng(&self) -> Rng {
        Rng::new(&[self.seed, self.op.class() as u64, self.op.dtype() as u64, self.index as u64, 1])
    }

    /// What the case costs where time is dear: its floating-point operations and the bytes that it moves, added.
    pub fn cost(&self) -> u64 {
        (self.op.flops() + self.op.bytes()) as u64
    }

    /// The command line that runs this case alone, on every engine of `device`.
    pub fn rerun(&self, device: &str) -> String {
        let (op, dtype) = (self.op.name(), self.op.dtype());
        let (seed, index) = (self.seed, self.index);
        format!("candlewick verify --ops {op} --dtype {dtype} --seed {seed} --case {index} --device {device}")
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op.shape())?;
        match self.values {
            Values::Ordinary => {}
            Values::NonFinite => f.write_str(" nan/inf")?,
            Values::Huge => f.write_str(" huge")?,
            Values::Subnormal => f.write_str(" subnormal")?,
            Values::Degenerate => f.write_str(" degenerate")?,
        }
        write!(f, " #{}", self.index)
    }
}

/// The dtypes that a class has cases in: those of [`Op::dtype`].
pub fn dtypes(class: OpClass) -> &'static [DType] {
    cases::of(class).dtypes()
}

/// How many fixed cases a class has; the random ones follow.
///
/// # Panics
/// For a class that has no file in `cases/`.
pub fn fixed_count(class: OpClass, hardware: Hardware) -> usize {
    fixed(class, dtypes(class)[0], hardware).len()
}

/// How many of a GPU's fixed cases lie at the edges of its kernels: they come first.
///
/// # Panics
/// For a class that has no file in `cases/`.
pub fn gpu_edge_count(class: OpClass) -> usize {
    cases::of(class).gpu_edges(dtypes(class)[0]).len()
}

/// For a GPU its own edges come first, so that a short run sees them.
fn fixed(class: OpClass, dtype: DType, hardware: Hardware) -> Vec<Op> {
    let operation = cases::of(class);
    let mut everywhere = operation.fixed(dtype);
    match hardware {
        Hardware::Cpu => everywhere,
        Hardware::Gpu => {
            let mut ops = operation.gpu_edges(dtype);
            everywhere.retain(|op| !ops.contains(op));
            ops.append(&mut everywhere);
            ops
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_cases_and_every_descriptor_is_legal() {
        for class in OpClass::ALL {
            let dtype = *dtypes(class).last().unwrap();
            for hardware in [Hardware::Cpu, Hardware::Gpu] {
                assert!(fixed_count(class, hardware) > 5, "{class} has no fixed cases");
                for index in 0..400 {
                    let case = Case::new(7, class, dtype, index, hardware);
                    assert_eq!(case.op.class(), class);
                    assert_eq!(case.op.dtype(), dtype);
                    if let Err(error) = case.op.operands() {
                        panic!("{} ({hardware:?}): {error}", case.rerun("cpu"));
                    }
                }
            }
        }
    }

    #[test]
    fn a_gpu_has_the_fixed_cases_of_the_cpu_and_its_own() {
        for class in OpClass::ALL {
            let dtype = dtypes(class)[0];
            let (cpu, gpu) = (fixed(class, dtype, Hardware::Cpu), fixed(class, dtype, Hardware::Gpu));
            assert!(cpu.iter().all(|op| gpu.contains(op)), "{class}");
            assert!(gpu.len() > cpu.len(), "{class} has no case at the edges of the GPU kernels");
        }
    }
}
