//! A plan as it is rewritten beside the same as it was recorded.

use candlewick::op::Quant;
use candlewick::plan::{Recorder, Rewrites, Tensor};
use candlewick::{DType, Device, Op, Plan, Result};
use half::{bf16, f16};

pub const F32: DType = DType::F32;
pub const BF16: DType = DType::BF16;

pub fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let hash = |i: usize| ((i * 2_654_435_761 + seed * 40_503 + 12_345) ^ (seed * 977)) % 100_003;
    // Numbers that 16 bits hold, so that a reference in f64 has the same.
    (0..count).map(|i| bf16::from_f32(hash(i) as f32 / 50_001.5 - 1.0).to_f32()).collect()
}

/// Blocks of any bytes with scales of a sane size.
pub fn blocks(format: Quant, count: usize, seed: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..count * format.bytes()).map(|i| ((i * 7919 + seed * 131) % 251) as u8).collect();
    for (i, block) in bytes.chunks_exact_mut(format.bytes()).enumerate() {
        let scale = f16::from_f32(0.002 + 0.0003 * ((i + seed) % 7) as f32).to_le_bytes();
        let places: &[usize] = match format {
            Quant::Q4_1 | Quant::Q4K => &[0, 2],
            Quant::Q6K => &[208],
            _ => &[0],
        };
        places.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&scale));
    }
    bytes
}

/// What a closure made: every tensor that has numbers, and what is read.
#[derive(Default)]
pub struct Made {
    pub floats: Vec<(Tensor, DType, Vec<f32>)>,
    pub bytes: Vec<(Tensor, Vec<u8>)>,
    pub words: Vec<(Tensor, Vec<u32>)>,
    pub outputs: Vec<Tensor>,
}

/// A recorder that gives what it declares its numbers.
pub struct Maker<'a> {
    pub p: &'a mut Recorder,
    pub dtype: DType,
    pub made: Made,
}

impl Maker<'_> {
    pub fn input(&mut self, rows: usize, cols: usize) -> Tensor {
        let tensor = self.p.input("x", rows, cols, self.dtype);
        self.made.floats.push((tensor, self.dtype, numbers(rows * cols, self.made.floats.len())));
        tensor
    }

    pub fn constant(&mut self, rows: usize, cols: usize) -> Tensor {
        let tensor = self.p.constant("w", rows, cols, self.dtype);
        self.made.floats.push((tensor, self.dtype, numbers(rows * cols, self.made.floats.len())));
        tensor
    }

    pub fn quantised(&mut self, rows: usize, cols: usize, format: Quant) -> Result<Tensor> {
        let tensor = self.p.quantised("q", rows, cols, format)?;
        let count = rows * cols / format.block();
        self.made.bytes.push((tensor, blocks(format, count, self.made.bytes.len())));
        Ok(tensor)
    }

    pub fn words(&mut self, numbers: &[u32]) -> Tensor {
        let tensor = self.p.input("words", 1, numbers.len(), DType::U32);
        self.made.words.push((tensor, numbers.to_vec()));
        tensor
    }

    /// A temporary with the numbers of an input: what no rewrite may take for an input.
    pub fn temporary(&mut self, x: Tensor) -> Result<Tensor> {
        let (_, cols) = self.p.shape(x);
        let zeros = self.p.filled(0.0, 1, cols, self.dtype);
        self.p.add_row(x, zeros)
    }

    pub fn output(&mut self, tensor: Tensor) -> Result<()> {
        self.made.outputs.push(self.p.output(tensor)?);
        Ok(())
    }
}

pub struct Ran {
    pub outputs: Vec<Vec<f64>>,
    pub rewrites: Rewrites,
    pub operations: usize,
    pub described: String,
}

pub fn set(plan: &mut Plan, tensor: Tensor, numbers: &[f32], dtype: DType, load: bool) -> Result<()> {
    match (dtype, load) {
        (F32, true) => plan.load(tensor, numbers),
        (F32, false) => plan.write(tensor, numbers),
        (_, true) => plan.load(tensor, &numbers.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()),
        (_, false) => plan.write(tensor, &numbers.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()),
    }
}

pub fn run(dtype: DType, rewrites: bool, make: &dyn Fn(&mut Maker<'_>) -> Result<()>) -> Ran {
    let (mut plan, (made, shapes)) = Plan::record(&Device::cpu(), |p| {
        if !rewrites {
            p.without_rewrites();
        }
        let mut maker = Maker { p, dtype, made: Made::default() };
        make(&mut maker)?;
        let made = maker.made;
        let shapes: Vec<_> = made.outputs.iter().map(|&y| (p.shape(y), p.dtype(y))).collect();
        Ok((made, shapes))
    })
    .unwrap();
    for (tensor, dtype, numbers) in &made.floats {
        // One of both: constants are loaded, inputs are written.
        set(&mut plan, *tensor, numbers, *dtype, true)
            .or_else(|_| set(&mut plan, *tensor, numbers, *dtype, false))
            .unwrap();
    }
    made.bytes.iter().for_each(|(tensor, bytes)| plan.load(*tensor, bytes).unwrap());
    made.words.iter().for_each(|(tensor, words)| plan.write(*tensor, words).unwrap());
    // Twice: what is accumulated must begin anew.
    plan.run().unwrap();
    plan.run().unwrap();
    let outputs = made.outputs.iter().zip(shapes).map(|(&y, ((rows, cols), dtype))| {
        if dtype == F32 {
            let mut numbers = vec![0f32; rows * cols];
            plan.read(y, &mut numbers).unwrap();
            numbers.into_iter().map(f64::from).collect()
        } else {
            let mut numbers = vec![bf16::ZERO; rows * cols];
            plan.read(y, &mut numbers).unwrap();
            numbers.into_iter().map(f64::from).collect()
        }
    });
    Ran {
        outputs: outputs.collect(),
        rewrites: plan.rewrites(),
        operations: plan.operations(),
        described: plan.describe(),
    }
}

pub fn close(found: &[f64], expected: &[f64], bound: f64, what: &str) {
    let largest = expected.iter().fold(0f64, |max, x| max.max(x.abs()));
    let error = found.iter().zip(expected).fold(0f64, |max, (x, y)| max.max((x - y).abs()));
    assert_eq!(found.len(), expected.len());
    assert!(largest > 1e-3, "{what}: results of nothing show nothing");
    assert!(error <= bound * largest, "{what}: {error:e} of {largest:e} is beyond {bound:e}");
}

/// Runs a plan as it is rewritten and as it was recorded; both agree. What the rewritten one was.
pub fn both(dtype: DType, bound: f64, make: impl Fn(&mut Maker<'_>) -> Result<()>) -> Ran {
    let (rewritten, recorded) = (run(dtype, true, &make), run(dtype, false, &make));
    assert_eq!(recorded.rewrites, Rewrites::default());
    let saved = rewritten.rewrites.saved();
    assert_eq!(recorded.operations, rewritten.operations + saved, "{}", rewritten.described);
    for (found, expected) in rewritten.outputs.iter().zip(&recorded.outputs) {
        close(found, expected, bound, "rewritten and recorded");
    }
    rewritten
}

/// Two engines may each be that far from the truth, and a result between two operations is rounded once more.
pub fn bound(op: impl Into<Op>) -> f64 {
    let op: Op = op.into();
    2.0 * op.error_bound() + 2.0 * op.dtype().unit_roundoff()
}

/// x Wᵀ in f64.
pub fn product(x: &[f32], w: &[f32], rows: usize, k: usize, outs: usize) -> Vec<f64> {
    let at = |i: usize, o: usize| (0..k).map(|p| f64::from(x[i * k + p]) * f64::from(w[o * k + p])).sum();
    (0..rows).flat_map(|i| (0..outs).map(move |o| at(i, o))).collect()
}
