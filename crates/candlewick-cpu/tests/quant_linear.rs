//! Products with packed quantised weights on every engine of this CPU, with x as it is and rounded to 8 bits.
//!
//! The bound of rounded x is wide. So results are also compared with the reference of x as it is rounded, made here: what
//! is left then is the accumulation in f32.

use candlewick_core::backend::{Argument as _, Device as _, Engine, Stream as _};
use candlewick_core::{Activations, DType, Element, Op, Quant, QuantLinear, reference};
use candlewick_cpu::{Buffer, Device, Output, Stream};
use half::{bf16, f16};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }
    /// In -1..1.
    fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 52) as f64 - 1.0
    }
    fn units(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.unit()).collect()
    }
}

/// Where the scales of a block are, in f16.
fn scales(format: Quant) -> &'static [usize] {
    match format {
        Quant::Q4_0 | Quant::Q8_0 => &[0],
        Quant::Q4_1 | Quant::Q4K => &[0, 2],
        Quant::Q6K => &[208],
    }
}

/// Blocks of any numbers, or of one byte everywhere, with scales of either sign.
fn blocks(format: Quant, count: usize, byte: Option<u8>, rng: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..count * format.bytes()).map(|_| byte.unwrap_or(rng.next() as u8)).collect();
    for block in bytes.chunks_exact_mut(format.bytes()) {
        for &at in scales(format) {
            block[at..at + 2].copy_from_slice(&f16::from_f64(0.01 * rng.unit()).to_le_bytes());
        }
    }
    bytes
}

/// x as engines round it, by blocks of 32.
fn rounded(op: &QuantLinear, x: &[f64]) -> Vec<f64> {
    let mut x = x.to_vec();
    for row in 0..op.rows {
        for block in x[row * op.x_row..][..op.in_features].chunks_exact_mut(Activations::BLOCK) {
            let largest = block.iter().fold(0f32, |largest, &x| largest.max((x as f32).abs()));
            let (d, inverse) = (largest / 127.0, if largest > 0.0 { 127.0 / largest } else { 0.0 });
            for x in block {
                *x = f64::from(d) * f64::from((*x as f32 * inverse).round_ties_even());
            }
        }
    }
    x
}

fn right(op: &QuantLinear, x: &[f64], w: &[u8]) -> Vec<f64> {
    let w: Vec<f64> = w.iter().map(|&byte| byte.into()).collect();
    let mut y = vec![SENTINEL; Op::from(*op).operands().unwrap().outputs[0].span];
    reference::run(&(*op).into(), &[x, &w], &mut [&mut y]).unwrap();
    y
}

const SENTINEL: f64 = 77.0;
/// Elements before x and y: neither starts on a vector's boundary.
const BEFORE: usize = 3;

fn run_as<T: Element>(stream: &mut Stream, op: &QuantLinear, engine: Engine, x: &[f64], w: &Buffer) -> Vec<f64> {
    let kernel = stream.prepare(&(*op).into(), Some(engine)).unwrap();
    let span = Op::from(*op).operands().unwrap().outputs[0].span;
    let around = [T::from_f64(SENTINEL); BEFORE];
    let x: Vec<T> = around.into_iter().chain(x.iter().map(|&x| T::from_f64(x))).collect();
    let mut y = vec![T::from_f64(SENTINEL); BEFORE + span + BEFORE];
    let mut outputs = [Output::from(&mut y[BEFORE..BEFORE + span])];
    stream.encode(&kernel, &[x[BEFORE..].into(), w.into()], &mut outputs).unwrap();
    let (before, rest) = y.split_at(BEFORE);
    let (y, behind) = rest.split_at(span);
    assert!(before.iter().chain(behind).all(|y| y.to_f64() == SENTINEL), "{op:?} on {engine}: written beside y");
    y.iter().map(|y| y.to_f64()).collect()
}

fn run(stream: &mut Stream, op: &QuantLinear, engine: Engine, x: &[f64], w: &Buffer) -> Vec<f64> {
    match op.dtype {
        DType::F32 => run_as::<f32>(stream, op, engine, x, w),
        DType::F16 => run_as::<f16>(stream, op, engine, x, w),
        _ => run_as::<bf16>(stream, op, engine, x, w),
    }
}

/// The largest distance, relative to the largest term that the sums have.
fn error(found: &[f64], right: &[f64], scale: f64) -> f64 {
    let pairs = found.iter().zip(right);
    pairs.map(|(found, right)| (found - right).abs()).fold(0.0, |largest, error| error.max(largest)) / scale
}

/// Runs on every engine and number of threads, with x as it is and rounded; `ordinary`: no row has to be used as it is.
fn check(op: QuantLinear, x: &[f64], w: &[u8], ordinary: bool) {
    let x: Vec<f64> = x.iter().map(|&x| op.dtype.round(x)).collect();
    let op = op.packed();
    let exact = right(&op, &x, w);
    // The largest magnitude, or what it would be had the terms not cancelled each other.
    let squares: Vec<f64> = x.iter().map(|x| x * x).collect();
    let mut numbers = vec![0f32; op.format.block()];
    let mut scale = exact.iter().filter(|y| **y != SENTINEL).fold(1e-30f64, |largest, y| largest.max(y.abs()));
    for row in w.chunks_exact(op.format.row_bytes(op.in_features).max(1)) {
        for squares in squares.chunks(op.x_row).filter(|row| row.len() >= op.in_features) {
            let mut sum = 0.0;
            for (block, x) in row.chunks_exact(op.format.bytes()).zip(squares.chunks(op.format.block())) {
                reference::decode_block(op.format, block, &mut numbers);
                sum += numbers.iter().zip(x).map(|(w, x)| f64::from(*w).powi(2) * x).sum::<f64>();
            }
            scale = scale.max(sum.sqrt());
        }
    }
    for activations in [Activations::Exact, Activations::Int8] {
        let op = QuantLinear { activations, ..op };
        let tight = Op::from(QuantLinear { activations: Activations::Exact, ..op }).error_bound();
        let as_rounded =
            if activations == Activations::Int8 { right(&op, &rounded(&op, &x), w) } else { exact.clone() };
        for device in [Device::with_threads(1), Device::new()] {
            let mut stream = device.stream().unwrap();
            let mut packed = None;
            for engine in device.engines(&op.into()) {
                let kernel = stream.prepare(&op.into(), Some(engine)).unwrap();
                let packed = packed.get_or_insert_with(|| stream.pack(&kernel, w.into()).unwrap());
                assert_eq!(packed.packing(), kernel.packing(), "one packing serves every engine");
                let y = run(&mut stream, &op, engine, &x, packed);
                let what = format!("{} on {engine}, {} threads", Op::from(op), device.threads());
                let found = error(&y, &exact, scale);
                assert!(found <= Op::from(op).error_bound(), "{what}: {found:.2e}");
                if ordinary {
                    // Sums of positive and negative parts: nibbles from zero on and a minimum.
                    let found = error(&y, &as_rounded, scale);
                    assert!(found <= 4.0 * tight, "{what}: {found:.2e} from rounded x, {tight:.2e}");
                }
            }
        }
    }
}

#[test]
fn every_format_engine_and_shape() {
    let mut rng = Random(21);
    for format in Quant::ALL {
        let sizes = [(1, 1, 1), (1, 5, 37), (2, 3, 16), (3, 2, 15), (4, 1, 300), (5, 3, 17), (13, 2, 31), (37, 4, 49)];
        for (rows, per_row, out) in sizes {
            let k = per_row * format.block();
            for dtype in DType::ALL {
                let op = QuantLinear { x_row: k + 3, y_row: out + 2, ..QuantLinear::new(rows, k, out, format, dtype) };
                let x = rng.units((rows - 1) * (k + 3) + k);
                check(op, &x, &blocks(format, out * per_row, None, &mut rng), true);
            }
        }
        for (rows, per_row, out) in [(0, 2, 3), (2, 0, 3), (2, 2, 0)] {
            let op = QuantLinear::new(rows, per_row * format.block(), out, format, DType::F32);
            let x = rng.units(rows * op.in_features);
            check(op, &x, &blocks(format, out * per_row, None, &mut rng), true);
        }
    }
}

/// Enough rows and columns that x passes by in several parts.
#[test]
fn many_rows() {
    let mut rng = Random(22);
    for format in [Quant::Q4_1, Quant::Q6K] {
        let (rows, k, out) = (530, 2048, 18);
        let op = QuantLinear::new(rows, k, out, format, DType::F32);
        check(op, &rng.units(rows * k), &blocks(format, out * k / format.block(), None, &mut rng), true);
    }
}

/// Every byte of W and of x at its largest magnitude, in the same and in opposite directions: sums of pairs that are kept
/// in 16 bits are as large as they become.
#[test]
fn the_largest_integers() {
    let mut rng = Random(23);
    for format in Quant::ALL {
        for byte in [0x00, 0xff, 0x7f, 0x80, 0x0f, 0xf0] {
            for sign in [1.0, -1.0] {
                let k = 2 * format.block();
                let x: Vec<f64> =
                    (0..6 * k).map(|i| if i < k { sign } else { sign * (-1f64).powi(i as i32 / 2) }).collect();
                let op = QuantLinear::new(6, k, 20, format, DType::F32);
                check(op, &x, &blocks(format, 40, Some(byte), &mut rng), true);
            }
        }
    }
}

#[test]
fn rows_that_cannot_be_rounded_are_used_as_they_are() {
    let mut rng = Random(24);
    for format in Quant::ALL {
        let k = 2 * format.block();
        let w = blocks(format, 2 * 33, None, &mut rng);
        for dtype in [DType::F32, DType::BF16] {
            for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, 1e-35, 0.0] {
                let op = QuantLinear::new(7, k, 33, format, dtype).packed().int8();
                let mut x: Vec<f64> = rng.units(7 * k).into_iter().map(|x| dtype.round(x)).collect();
                // One number among others, a block and a whole row.
                x[2 * k + 40] = odd;
                x[4 * k..4 * k + 32].fill(odd);
                x[5 * k..6 * k].fill(odd);
                let x: Vec<f64> = x.into_iter().map(|x| dtype.round(x)).collect();
                let right = right(&op, &x, &w);
                for device in [Device::with_threads(1), Device::new()] {
                    let mut stream = device.stream().unwrap();
                    for engine in device.engines(&op.into()) {
                        let kernel = stream.prepare(&op.into(), Some(engine)).unwrap();
                        let packed = stream.pack(&kernel, w.as_slice().into()).unwrap();
                        let y = run(&mut stream, &op, engine, &x, &packed);
                        for (row, (y, right)) in y.chunks(33).zip(right.chunks(33)).enumerate() {
                            let largest = right.iter().fold(0f64, |largest, y| largest.max(y.abs()));
                            for (y, right) in y.iter().zip(right) {
                                let same = y == right || (y.is_nan() && right.is_nan());
                                let close = (y - right).abs() <= 2.0 * Op::from(op).error_bound() * largest;
                                assert!(same || close, "{format} {odd} on {engine}, row {row}: {y} and not {right}");
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A block whose numbers vanish beside one of them, and a row of zeros.
#[test]
fn one_number_that_dwarfs_its_block() {
    let mut rng = Random(25);
    for format in Quant::ALL {
        let k = 3 * format.block();
        let mut x = rng.units(5 * k);
        x[k + 7] = 5000.0;
        x[3 * k..4 * k].fill(0.0);
        let op = QuantLinear::new(5, k, 19, format, DType::F32);
        check(op, &x, &blocks(format, 3 * 19, None, &mut rng), true);
    }
}

#[test]
fn a_scale_that_is_not_a_number_reaches_its_output_and_no_other() {
    let mut rng = Random(26);
    for format in Quant::ALL {
        let k = 2 * format.block();
        let mut w = blocks(format, 2 * 20, None, &mut rng);
        let at = 2 * 7 * format.bytes() + scales(format)[0];
        w[at..at + 2].copy_from_slice(&f16::NAN.to_le_bytes());
        for (op, rows) in [1, 9].map(|rows| (QuantLinear::new(rows, k, 20, format, DType::F32).packed(), rows)) {
            let x = rng.units(rows * k);
            for op in [op, op.int8()] {
                let device = Device::new();
                let mut stream = device.stream().unwrap();
                for engine in device.engines(&op.into()) {
                    let kernel = stream.prepare(&op.into(), Some(engine)).unwrap();
                    let packed = stream.pack(&kernel, w.as_slice().into()).unwrap();
                    for (i, y) in run(&mut stream, &op, engine, &x, &packed).into_iter().enumerate() {
                        assert_eq!(y.is_nan(), i % 20 == 7, "{format} on {engine}: y[{i}] is {y}");
                    }
                }
            }
        }
    }
}
