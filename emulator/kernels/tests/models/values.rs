//! What the operands of a case hold.

use candlewick_core::op::{Operand, Quant};
use candlewick_core::{CrossEntropyStats, DType, Element, Embedding, Op, reference};

/// What inputs are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Numbers of magnitude one.
    Ordinary,
    /// NaN and infinities among them.
    NonFinite,
}

/// Random numbers, the same from the same seed (Marsaglia's xorshift, 2003).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Within -1..1.
    pub fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// In the dtype, and back.
pub fn round(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f32::from_f64(value).to_f64(),
        DType::F16 => half::f16::from_f64(value).to_f64(),
        DType::BF16 => half::bf16::from_f64(value).to_f64(),
        DType::U32 => u32::from_f64(value).to_f64(),
        DType::U8 => u8::from_f64(value).to_f64(),
    }
}

/// The stored rows of an operand: how many, of how many elements, how far apart.
pub fn rows(operand: &Operand) -> (usize, usize, usize) {
    match operand.shape.sizes() {
        &[rows, cols] if rows > 1 && operand.span > 0 => (rows, cols, (operand.span - cols) / (rows - 1)),
        &[rows, cols] => (rows, cols, cols),
        sizes => (1, sizes[0], sizes[0]),
    }
}

/// Every input of `op`; `spans` are those of attention.
pub fn inputs(op: &Op, values: Values, spans: &[u32], rng: &mut Rng) -> Vec<Vec<f64>> {
    let operands = op.operands().expect("cases are legal").inputs;
    let mut inputs: Vec<Vec<f64>> = operands.iter().map(|operand| input(op, operand, spans, rng)).collect();
    if values == Values::NonFinite {
        for (input, operand) in inputs.iter_mut().zip(&operands) {
            let plain = operand.dtype == op.dtype() && !["frequencies", "stats", "loss"].contains(&operand.name);
            if plain && !input.is_empty() {
                for _ in 0..1 + rng.below(2) {
                    let at = rng.below(input.len());
                    input[at] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][rng.below(3)];
                }
            }
        }
    }
    dependent(op, &mut inputs);
    inputs
}

fn input(op: &Op, operand: &Operand, spans: &[u32], rng: &mut Rng) -> Vec<f64> {
    let count = operand.span;
    let some = |rng: &mut Rng, end: usize| if rng.below(8) == 0 { u32::MAX as f64 } else { rng.below(end) as f64 };
    match (op, operand.name) {
        (Op::Embedding(op) | Op::EmbeddingBackward(op), "ids") => (0..count)
            .map(|i| if i == 0 && op.vocab > 0 { (op.vocab - 1) as f64 } else { some(rng, op.vocab + 1) })
            .collect(),
        (_, "positions") => (0..count)
            .map(|_| [rng.below(10), rng.below(5000), rng.below(1 << 20), rng.below(1 << 32)][rng.below(4)] as f64)
            .collect(),
        (_, "frequencies") => {
            (0..count).map(|i| f64::from((10000f64.powf(-(i as f64) / count as f64)) as f32)).collect()
        }
        (Op::LoraRows(op), "slots") => (0..count).map(|_| some(rng, op.adapters + 1)).collect(),
        (Op::CopyRows(op), "slots") => {
            let mut slots: Vec<usize> = (0..op.capacity.max(count)).collect();
            for i in 0..slots.len() {
                slots.swap(i, rng.below(i + 1));
            }
            slots[..count].iter().map(|&slot| if rng.below(6) == 0 { u32::MAX as f64 } else { slot as f64 }).collect()
        }
        (Op::CrossEntropyStats(op), "labels") => (0..count).map(|_| some(rng, op.first + op.cols + 3)).collect(),
        (Op::CrossEntropyLoss(op), "labels") => (0..count).map(|_| some(rng, op.vocab + 1)).collect(),
        (Op::CrossEntropyGrad(op), "labels") => (0..count).map(|_| some(rng, op.vocab + 1)).collect(),
        (Op::CrossEntropyLoss(_), "stats") => {
            (0..count).map(|i| round(if i % 3 == 1 { 3.0 + rng.unit() } else { rng.unit() }, DType::F32)).collect()
        }
        (_, "spans") => spans.iter().map(|&number| f64::from(number)).collect(),
        (_, "seed") => (0..count).map(|_| rng.below(1 << 32) as f64).collect(),
        (_, "sum_squares") => vec![round(4.0 + rng.unit(), DType::F32)],
        // The first steps are where the powers of the decays are closest to one.
        (_, "schedule") => {
            let most = [3, 2000][rng.below(2)];
            vec![if most == 3 { 1.0 } else { f64::from(0.01f32) }, (1 + rng.below(most)) as f64]
        }
        (Op::Dequantize(op), "blocks") => blocks(op.format, count, rng),
        (Op::QuantLinear(op), "w") => blocks(op.format, count, rng),
        (Op::Embedding(Embedding { quant: Some(format), .. }), "table") => blocks(*format, count, rng),
        _ => (0..count).map(|_| round(rng.unit(), operand.dtype)).collect(),
    }
}

/// Bytes of blocks, whose scales are f16 numbers of magnitude one.
fn blocks(format: Quant, count: usize, rng: &mut Rng) -> Vec<f64> {
    let mut bytes: Vec<u8> = (0..count).map(|_| rng.below(256) as u8).collect();
    let scales: &[usize] = match format {
        Quant::Q4_0 | Quant::Q8_0 => &[0],
        Quant::Q4_1 | Quant::Q4K => &[0, 2],
        Quant::Q6K => &[208],
    };
    for block in bytes.chunks_exact_mut(format.bytes()) {
        for &at in scales {
            block[at..at + 2].copy_from_slice(&half::f16::from_f64(rng.unit() / 8.0).to_le_bytes());
        }
    }
    bytes.into_iter().map(f64::from).collect()
}

/// Inputs that follow from other inputs.
fn dependent(op: &Op, inputs: &mut [Vec<f64>]) {
    match op {
        Op::CrossEntropyGrad(op) => {
            // As if the chunk were all of the vocabulary, so that probabilities are at most one.
            let stats =
                CrossEntropyStats { logits_row: op.logits_row, ..CrossEntropyStats::new(op.rows, op.cols, op.dtype) };
            let (logits, labels) = (inputs[0].clone(), inputs[1].clone());
            reference::run(&stats.into(), &[&logits, &labels], &mut [&mut inputs[2]]).expect("legal");
            inputs[2].iter_mut().for_each(|x| *x = round(*x, DType::F32));
            inputs[3] = vec![0.5, labels.iter().filter(|&&label| (label as usize) < op.vocab).count() as f64];
        }
        Op::AttentionBackward(op) => {
            let [q, k, v, spans, y, lse, ..] = inputs else { unreachable!("seven inputs") };
            reference::run(&(*op).into(), &[q, k, v, spans], &mut [y, lse]).expect("legal");
            y.iter_mut().for_each(|x| *x = round(*x, op.dtype));
            lse.iter_mut().for_each(|x| *x = round(*x, DType::F32));
        }
        _ => {}
    }
}

/// What output `index` holds before: what the operation reads, or what it must not.
pub fn before(op: &Op, index: usize, operand: &Operand, rng: &mut Rng) -> Vec<f64> {
    if !op.keeps_output(index) {
        return vec![f64::NAN; operand.span];
    }
    (0..operand.span)
        .map(|i| {
            let positive =
                operand.name == "v" || operand.name == "sum_squares" || (operand.name == "stats" && i % 3 == 1);
            let x = rng.unit();
            let x = if positive { x.abs() + 1e-3 } else { x };
            // As small as the moments are at first.
            let moment = matches!(op, Op::AdamW(_)) && ["m", "v"].contains(&operand.name);
            round(if moment { x / 1000.0 } else { x }, operand.dtype)
        })
        .collect()
}
