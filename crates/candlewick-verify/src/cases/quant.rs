//! GGUF's quantised blocks: their numbers, and a product with them.

use super::{Draw, Operation, Terms, finite_largest, uniform};
use crate::case::Hardware;
use crate::rng::Rng;
use candlewick::op::{Activations, Dequantize, Format, Operand, Quant, QuantLinear};
use candlewick::{DType, Op, reference};
use half::f16;

/// The numbers of blocks.
pub(crate) struct Numbers;

/// Products with blocks.
pub(crate) struct Linear;

/// Rows, blocks of x, out.
const SIZES: [(usize, usize, usize); 9] =
    [(1, 8, 700), (1, 17, 65), (33, 4, 129), (257, 1, 33), (8, 2, 64), (65, 3, 1), (0, 2, 5), (3, 0, 5), (3, 2, 0)];

const GPU_SIZES: [(usize, usize, usize); 7] =
    [(1, 2, 256), (1, 9, 7), (2, 3, 33), (5, 1, 130), (9, 2, 64), (33, 1, 65), (4, 5, 8)];

/// One of each size in every format, with W as it is, packed, and packed with x rounded, written and added; K formats have
/// fewer blocks, which are larger.
fn products(sizes: &[(usize, usize, usize)], dtype: DType) -> Vec<Op> {
    let op = |&(rows, blocks, out): &(usize, usize, usize), format: Quant| {
        let blocks = if format.block() == 256 { blocks.div_ceil(4) } else { blocks };
        QuantLinear::new(rows, blocks * format.block(), out, format, dtype)
    };
    let products = sizes.iter().flat_map(|sizes| Quant::ALL.map(|format| op(sizes, format)));
    let products = products.flat_map(|op| [op, op.packed(), op.packed().int8()]);
    products.flat_map(|op| [op.into(), op.accumulate().into()]).collect()
}

fn dequantized(sizes: &[(usize, usize)], dtype: DType) -> Vec<Op> {
    let op = |&(rows, blocks): &(usize, usize), format: Quant| {
        Dequantize::new(rows, blocks * format.block(), format, dtype).into()
    };
    sizes.iter().flat_map(|sizes| Quant::ALL.map(|format| op(sizes, format))).collect()
}

/// Any numbers in the blocks; in every `odd` of 100 a scale from `odd_scales`.
pub(crate) fn blocks(format: Quant, count: usize, odd: usize, odd_scales: &[f32], rng: &mut Rng) -> Vec<f64> {
    // Where a scale lies, and the largest number that it multiplies.
    let scales: &[(usize, f64)] = match format {
        Quant::Q4_0 => &[(0, 8.0)],
        Quant::Q4_1 => &[(0, 8.0), (2, 1.0)],
        Quant::Q8_0 => &[(0, 128.0)],
        Quant::Q4K => &[(0, 63.0 * 15.0), (2, 63.0)],
        Quant::Q6K => &[(208, 128.0 * 32.0)],
    };
    let mut bytes: Vec<u8> = (0..count).map(|_| rng.below(256) as u8).collect();
    for block in bytes.chunks_exact_mut(format.bytes()) {
        for &(at, largest) in scales {
            let ordinary = f16::from_f64((1.0 + 0.5 * rng.unit()) / largest * rng.pick(&[1.0, 1.0, -1.0]));
            let scale = if rng.chance(odd) { f16::from_f32(rng.pick(odd_scales)) } else { ordinary };
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes.into_iter().map(f64::from).collect()
}

impl Operation for Numbers {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        dequantized(&[(1, 1), (7, 3), (129, 2), (1, 65), (300, 17), (0, 2), (2, 0)], dtype)
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        dequantized(&[(2, 1), (3, 5), (33, 1), (1, 9), (257, 1)], dtype)
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let format = draw.rng.pick(&Quant::ALL);
        let [rows, blocks] = draw.sizes((1 << 16) / format.block());
        Dequantize::new(rows, blocks * format.block(), format, draw.dtype).into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let Op::Dequantize(op) = op else { unreachable!("{op} dequantizes nothing") };
        let cols = if operand == "blocks" { op.format.row_bytes(op.cols) } else { op.cols };
        vec![(op.rows, cols), (cols, 1)]
    }

    fn ordinary(&self, op: &Op, _operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        let Op::Dequantize(op) = op else { unreachable!("{op} dequantizes nothing") };
        let odd = [0.0, -0.0, 6e-8, -3e-5, 65504.0, -65504.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let share = rng.pick(&[0, 0, 20]);
        blocks(op.format, count, share, &odd, rng)
    }
}

impl Operation for Linear {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        products(&SIZES, dtype)
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        products(&GPU_SIZES, dtype)
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let format = draw.rng.pick(&Quant::ALL);
        let budget = if draw.hardware == Hardware::Cpu { 1 << 16 } else { 1 << 17 };
        let [rows, blocks, out] = draw.sizes(budget / format.block());
        let mut op = QuantLinear::new(rows, blocks * format.block(), out, format, draw.dtype);
        (op.x_row, op.y_row) = (draw.stride(op.in_features), draw.stride(out));
        op.w_format = draw.rng.pick(&[Format::Plain, Format::Packed]);
        op.activations = draw.rng.pick(&[Activations::Exact, Activations::Int8]);
        op.accumulate = draw.rng.chance(40);
        op.into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let op = linear(op);
        match operand {
            "x" => vec![(op.rows, op.x_row), (op.in_features, 1)],
            "w" => {
                let bytes = op.format.row_bytes(op.in_features);
                vec![(op.out_features, bytes), (bytes, 1)]
            }
            _ => vec![(op.rows, op.y_row), (op.out_features, 1)],
        }
    }

    fn ordinary(&self, op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        if operand.name == "x" {
            return uniform(0.0, 1.0, count, rng);
        }
        // An infinite scale is not among them: its product with a sum is not the sum of its products.
        let share = rng.pick(&[0, 0, 10]);
        blocks(linear(op).format, count, share, &[0.0, -0.0, 6e-8, 20.0, f32::NAN], rng)
    }

    /// The root of the largest sum of squared products, and of what y held.
    fn terms(&self, op: &Op, inputs: &[Vec<f64>], outputs: &[Vec<f64>]) -> Terms {
        let op = linear(op);
        let mut row = vec![0.0; op.in_features];
        let mut largest = 0.0f64;
        for bytes in inputs[1].chunks_exact(op.format.row_bytes(op.in_features).max(1)) {
            let bytes: Vec<u8> = bytes.iter().map(|&byte| byte as u8).collect();
            for (block, numbers) in bytes.chunks_exact(op.format.bytes()).zip(row.chunks_exact_mut(op.format.block())) {
                reference::decode_block(op.format, block, numbers);
            }
            for x in inputs[0].chunks(op.x_row.max(1)).take(op.rows) {
                let sum: f64 = x.iter().zip(&row).map(|(x, w)| (x * f64::from(*w)).powi(2)).sum();
                largest = largest.max(finite_largest([&sum]));
            }
        }
        let before = if op.accumulate { finite_largest(&outputs[0]) } else { 0.0 };
        Terms::Magnitudes(vec![largest.sqrt().hypot(before)])
    }
}

fn linear(op: &Op) -> &QuantLinear {
    match op {
        Op::QuantLinear(op) => op,
        _ => unreachable!("{op} is no quantised product"),
    }
}
