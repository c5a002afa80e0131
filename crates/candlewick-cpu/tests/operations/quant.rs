//! `dequantize` and `quant_linear`.

use crate::engines::{Random, check};
use candlewick_core::{DType, Dequantize, Embedding, Op, Quant, QuantLinear};
use half::f16;

fn blocks(format: Quant, count: usize, rng: &mut Random) -> Vec<f64> {
    let mut bytes: Vec<f64> = (0..count * format.bytes()).map(|_| rng.below(256) as f64).collect();
    let halves: &[usize] = match format {
        Quant::Q4_0 | Quant::Q8_0 => &[0],
        Quant::Q4_1 | Quant::Q4K => &[0, 2],
        Quant::Q6K => &[208],
    };
    for block in 0..count {
        for &at in halves {
            let scale = f16::from_f64(rng.unit() * 0.01).to_le_bytes();
            bytes[block * format.bytes() + at] = f64::from(scale[0]);
            bytes[block * format.bytes() + at + 1] = f64::from(scale[1]);
        }
    }
    bytes
}

#[test]
fn quantised_weights() {
    let mut rng = Random(15);
    for format in Quant::ALL {
        for dtype in DType::ALL {
            for (rows, per_row) in [(0, 2), (2, 0), (1, 1), (3, 2), (37, 5)] {
                let cols = per_row * format.block();
                check(Dequantize::new(rows, cols, format, dtype), &[blocks(format, rows * per_row, &mut rng)], &[]);
            }
            for (rows, per_row, out) in
                [(0, 1, 3), (1, 0, 3), (2, 0, 3), (1, 1, 1), (1, 3, 37), (1, 2, 300), (5, 2, 70)]
            {
                let k = per_row * format.block();
                let op = QuantLinear { x_row: k + 3, y_row: out + 2, ..QuantLinear::new(rows, k, out, format, dtype) };
                let x = rng.units(Op::from(op).operands().unwrap().inputs[0].span);
                check(op, &[x, blocks(format, out * per_row, &mut rng)], &[]);
            }
            for (tokens, vocab, per_row) in [(5, 7, 3), (300, 2, 1), (0, 3, 1), (3, 0, 1), (3, 2, 0)] {
                let op = Embedding::new(tokens, vocab, per_row * format.block(), dtype).quantised(format);
                let ids =
                    (0..tokens).map(|i| if i == 1 { vocab as f64 } else { rng.below(vocab + 1) as f64 }).collect();
                check(op, &[ids, blocks(format, vocab * per_row, &mut rng)], &[]);
            }
        }
        let table = Embedding::new(1, 1, format.block(), DType::F32).quantised(format);
        let error = Op::EmbeddingBackward(table).operands().unwrap_err();
        assert!(error.to_string().contains("take no gradient"), "{error}");
        // Scales of zero, below the normal numbers, infinite and not a number.
        for (bits, nth) in [0u16, 1, 0x3ff, 0x8001, 0x7c00, 0xfc00, 0x7e00].into_iter().zip(0..) {
            let mut bytes = blocks(format, 1, &mut rng);
            let at = if format == Quant::Q6K { 208 } else { 0 };
            bytes[at] = f64::from(bits & 255);
            bytes[at + 1] = f64::from(bits >> 8);
            if nth < 4 {
                check(Dequantize::new(1, format.block(), format, DType::F32), &[bytes], &[]);
            } else {
                let op = QuantLinear::new(1, format.block(), 1, format, DType::F32);
                check(op, &[vec![1.0; format.block()], bytes], &[]);
            }
        }
        let error = Op::from(QuantLinear::new(1, 33, 1, format, DType::F32)).operands().unwrap_err();
        assert!(error.to_string().contains("whole blocks"), "{error}");
    }
}
