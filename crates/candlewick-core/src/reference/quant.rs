//! What the bytes of a block mean, after `dequantize_row_*` of ggml's `ggml-quants.c`.

use crate::op::Quant;
use crate::{Dequantize, QuantLinear};
use half::f16;

/// The numbers of one block, in f32 with ggml's own operations: `block` has [`Quant::bytes`], `y` [`Quant::block`].
///
/// # Panics
/// Where the slices are shorter.
pub fn decode_block(format: Quant, block: &[u8], y: &mut [f32]) {
    let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let (low, high) = (|byte: u8| f32::from(byte & 15), |byte: u8| f32::from(byte >> 4));
    match format {
        // d, then 16 bytes: the first half of the numbers in the low nibbles, the second in the high ones.
        Quant::Q4_0 => {
            for j in 0..16 {
                y[j] = (low(block[2 + j]) - 8.0) * half(0);
                y[j + 16] = (high(block[2 + j]) - 8.0) * half(0);
            }
        }
        Quant::Q4_1 => {
            for j in 0..16 {
                y[j] = low(block[4 + j]) * half(0) + half(2);
                y[j + 16] = high(block[4 + j]) * half(0) + half(2);
            }
        }
        Quant::Q8_0 => (0..32).for_each(|j| y[j] = f32::from(block[2 + j] as i8) * half(0)),
        // d, dmin, 12 bytes of scales and minima, 128 bytes: 32 of them hold 64 numbers, two groups of 32.
        Quant::Q4K => {
            for group in 0..8 {
                let (scale, min) = scale_and_min(group, &block[4..16]);
                let (d, m) = (half(0) * f32::from(scale), half(2) * f32::from(min));
                for j in 0..32 {
                    let byte = block[16 + group / 2 * 32 + j];
                    let q = if group % 2 == 0 { low(byte) } else { high(byte) };
                    y[group * 32 + j] = d * q - m;
                }
            }
        }
        // 128 bytes of low nibbles, 64 of high pairs of bits, 16 signed scales, d. Two halves of 128 numbers.
        Quant::Q6K => {
            for (part, j) in (0..2).flat_map(|part| (0..32).map(move |j| (part, j))) {
                for quarter in 0..4 {
                    let nibbles = block[part * 64 + quarter % 2 * 32 + j];
                    let nibble = if quarter < 2 { nibbles & 15 } else { nibbles >> 4 };
                    let pair = block[128 + part * 32 + j] >> (2 * quarter) & 3;
                    let scale = block[192 + part * 8 + quarter * 2 + j / 16] as i8;
                    let q = i32::from(nibble | pair << 4) - 32;
                    y[part * 128 + quarter * 32 + j] = half(208) * f32::from(scale) * q as f32;
                }
            }
        }
    }
}

/// The scale and the minimum of a group of 32 numbers of a Q4K block, 6 bits each (ggml's `get_scale_min_k4`).
fn scale_and_min(group: usize, packed: &[u8]) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        ((low & 15) | (packed[group - 4] >> 6) << 4, (low >> 4) | (packed[group] >> 6) << 4)
    }
}

pub(super) fn dequantize(op: &Dequantize, blocks: &[f64], y: &mut [f64]) {
    decode_all(op.format, op.rows * op.cols, blocks, |at, value| y[at] = value);
}

pub(super) fn linear(op: &QuantLinear, x: &[f64], w: &[f64], y: &mut [f64]) {
    let mut plain = vec![0.0; op.out_features * op.in_features];
    decode_all(op.format, plain.len(), w, |at, value| plain[at] = value);
    for row in 0..op.rows {
        for o in 0..op.out_features {
            let products = (0..op.in_features).map(|p| x[row * op.x_row + p] * plain[o * op.in_features + p]);
            let y = &mut y[row * op.y_row + o];
            *y = products.sum::<f64>() + if op.accumulate { *y } else { 0.0 };
        }
    }
}

/// Hands over the numbers of blocks, one by one.
pub(super) fn decode_all(format: Quant, elements: usize, bytes: &[f64], mut put: impl FnMut(usize, f64)) {
    let mut numbers = vec![0.0; format.block()];
    for (nth, block) in bytes.chunks_exact(format.bytes()).take(elements / format.block()).enumerate() {
        let block: Vec<u8> = block.iter().map(|&byte| byte as u8).collect();
        decode_block(format, &block, &mut numbers);
        for (j, &number) in numbers.iter().enumerate() {
            put(nth * format.block() + j, f64::from(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(format: Quant, block: &[u8]) -> Vec<f32> {
        let mut y = vec![0.0; format.block()];
        assert_eq!(block.len(), format.bytes());
        decode_block(format, block, &mut y);
        y
    }

    #[test]
    fn blocks_of_32() {
        let (one, two) = (f16::from_f32(1.0).to_le_bytes(), f16::from_f32(2.0).to_le_bytes());
        let mut q4_0 = vec![two[0], two[1]];
        q4_0.extend((0..16u8).map(|j| j | (15 - j) << 4));
        let y = decoded(Quant::Q4_0, &q4_0);
        assert_eq!((y[0], y[15], y[16], y[31]), (-16.0, 14.0, 14.0, -16.0));
        let mut q4_1 = vec![two[0], two[1], one[0], one[1]];
        q4_1.extend((0..16u8).map(|j| j | (15 - j) << 4));
        let y = decoded(Quant::Q4_1, &q4_1);
        assert_eq!((y[0], y[15], y[16], y[31]), (1.0, 31.0, 31.0, 1.0));
        let mut q8_0 = vec![two[0], two[1]];
        q8_0.extend((0..32u8).map(|j| j.wrapping_sub(16)));
        let y = decoded(Quant::Q8_0, &q8_0);
        assert_eq!((y[0], y[16], y[31]), (-32.0, 0.0, 30.0));
    }

    /// Every field at its largest in one place and zero in the others shows where it is read.
    #[test]
    fn blocks_of_256() {
        let one = f16::from_f32(1.0).to_le_bytes();
        let mut q4k = vec![0u8; 144];
        q4k[..2].copy_from_slice(&one);
        q4k[2..4].copy_from_slice(&one);
        q4k[4] = 63 | 0b10 << 6; // scale of group 0, high bits of the scale of group 4
        q4k[8] = 5; // minimum of group 0
        q4k[12] = 3 | 2 << 4; // low bits of scale and minimum of group 4
        q4k[16] = 7 | 9 << 4; // first number of groups 0 and 1
        q4k[16 + 64] = 4; // first number of group 4
        let y = decoded(Quant::Q4K, &q4k);
        assert_eq!((y[0], y[1], y[32]), (63.0 * 7.0 - 5.0, -5.0, 0.0));
        assert_eq!((y[128], y[129]), (35.0 * 4.0 - 2.0, -2.0));
        let mut q6k = vec![0u8; 210];
        q6k[208..].copy_from_slice(&one);
        q6k[192] = 2; // numbers 0..16
        q6k[192 + 7] = 0xff; // -1, numbers 112..128
        q6k[0] = 15;
        q6k[128] = 3;
        let y = decoded(Quant::Q6K, &q6k);
        assert_eq!((y[0], y[1], y[16], y[112]), (2.0 * 31.0, 2.0 * -32.0, 0.0, 32.0));
    }
}
