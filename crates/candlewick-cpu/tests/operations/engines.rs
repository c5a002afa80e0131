//! An operation on every engine of this CPU, beside the f64 reference.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::op::Operand;
use candlewick_core::{DType, Element, Op, reference};
use candlewick_cpu::{Buffer, Device, Input, Output, REFERENCE, Stream};
use half::{bf16, f16};

pub const SENTINEL: f64 = 77.0;
pub const AROUND: usize = 8;

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    /// In -1..1.
    pub fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 52) as f64 - 1.0
    }
    pub fn units(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.unit()).collect()
    }
}

pub fn rounded(dtype: DType, values: &[f64]) -> Vec<f64> {
    values.iter().map(|&v| dtype.round(v)).collect()
}

pub fn upload(device: &Device, stream: &mut Stream, dtype: DType, values: &[f64]) -> Buffer {
    fn write<T: Element>(stream: &mut Stream, buffer: &mut Buffer, values: &[f64]) {
        let values: Vec<T> = values.iter().map(|&v| T::from_f64(v)).collect();
        stream.write(buffer, &values).unwrap();
    }
    let mut buffer = device.alloc(dtype, values.len()).unwrap();
    match dtype {
        DType::F32 => write::<f32>(stream, &mut buffer, values),
        DType::F16 => write::<f16>(stream, &mut buffer, values),
        DType::BF16 => write::<bf16>(stream, &mut buffer, values),
        DType::U32 => write::<u32>(stream, &mut buffer, values),
        DType::U8 => write::<u8>(stream, &mut buffer, values),
    }
    buffer
}

pub fn download(stream: &mut Stream, dtype: DType, buffer: &Buffer, n: usize) -> Vec<f64> {
    fn read<T: Element>(stream: &mut Stream, buffer: &Buffer, n: usize) -> Vec<f64> {
        let mut values = vec![T::default(); n];
        stream.read(buffer, &mut values).unwrap();
        values.into_iter().map(T::to_f64).collect()
    }
    match dtype {
        DType::F32 => read::<f32>(stream, buffer, n),
        DType::F16 => read::<f16>(stream, buffer, n),
        DType::BF16 => read::<bf16>(stream, buffer, n),
        DType::U32 => read::<u32>(stream, buffer, n),
        DType::U8 => read::<u8>(stream, buffer, n),
    }
}

/// Runs `op` on every engine and compares; `before` is what the outputs hold, 0.5 where it is empty.
#[track_caller]
pub fn check(op: impl Into<Op>, inputs: &[Vec<f64>], before: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let op = op.into();
    let operands = op.operands().unwrap();
    let inputs: Vec<Vec<f64>> =
        operands.inputs.iter().zip(inputs).map(|(operand, values)| rounded(operand.dtype, values)).collect();
    let before: Vec<Vec<f64>> = (operands.outputs.iter().enumerate())
        .map(|(i, operand)| match before.get(i) {
            Some(values) => rounded(operand.dtype, values),
            None => vec![0.5; operand.span],
        })
        .collect();
    let mut want = before.clone();
    {
        let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [f64]> = want.iter_mut().map(Vec::as_mut_slice).collect();
        reference::run(&op, &inputs, &mut outputs).unwrap();
    }
    for device in [Device::with_threads(1), Device::new()] {
        for engine in device.engines(&op).into_iter().filter(|&engine| engine != REFERENCE) {
            let mut stream = device.stream().unwrap();
            let mut first_bits: Option<Vec<Vec<u64>>> = None;
            for _ in 0..2 {
                let kernel = stream.prepare(&op, Some(engine)).unwrap();
                let uploaded: Vec<Buffer> = (operands.inputs.iter().zip(&inputs))
                    .map(|(operand, values)| upload(&device, &mut stream, operand.dtype, values))
                    .collect();
                let mut outputs: Vec<Buffer> = (operands.outputs.iter().zip(&before))
                    .map(|(operand, values)| {
                        let mut all = vec![SENTINEL; AROUND];
                        all.extend(values);
                        all.extend([SENTINEL; AROUND]);
                        upload(&device, &mut stream, operand.dtype, &all)
                    })
                    .collect();
                {
                    let inputs: Vec<Input<'_>> = uploaded.iter().map(Input::from).collect();
                    let mut arguments: Vec<Output<'_>> = (outputs.iter_mut().zip(&operands.outputs))
                        .map(|(buffer, operand)| buffer.slice_mut(AROUND..AROUND + operand.span))
                        .collect();
                    stream.encode(&kernel, &inputs, &mut arguments).unwrap();
                }
                let mut bits = Vec::new();
                for ((operand, buffer), want) in operands.outputs.iter().zip(&outputs).zip(&want) {
                    let got = download(&mut stream, operand.dtype, buffer, operand.span + 2 * AROUND);
                    let what = format!("{op} on {engine}, {} threads: {}", device.threads(), operand.name);
                    let (front, rest) = got.split_at(AROUND);
                    let (got, back) = rest.split_at(operand.span);
                    assert!(front.iter().chain(back).all(|&v| v == SENTINEL), "{what}: wrote outside");
                    compare(&op, operand, got, want, &what);
                    bits.push(got.iter().map(|v| v.to_bits()).collect::<Vec<u64>>());
                }
                if let Some(first) = &first_bits {
                    assert_eq!(*first, bits, "{op} on {engine}: other bits the second time");
                }
                first_bits = Some(bits);
            }
        }
    }
    want
}

#[track_caller]
pub fn compare(op: &Op, operand: &Operand, got: &[f64], want: &[f64], what: &str) {
    let largest = want.iter().filter(|v| v.is_finite()).fold(0.0f64, |largest, v| largest.max(v.abs()));
    // Below the smallest normal number of the format, errors are absolute.
    let smallest = match operand.dtype {
        DType::F16 => 2f64.powi(-24),
        _ => 1e-37,
    };
    let allowed = op.error_bound() * largest + smallest;
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        if want.is_nan() || got.is_nan() {
            assert!(want.is_nan() && got.is_nan(), "{what}[{i}]: {got}, expected {want}");
        } else if want.is_infinite() {
            assert_eq!(got, want, "{what}[{i}]");
        } else {
            let off = (got - want).abs();
            assert!(off <= allowed, "{what}[{i}]: {got}, expected {want}, off by {off:e}, allowed {allowed:e}");
        }
    }
}

/// Random numbers for every operand that is of floats, zeros for the others.
pub fn random(op: impl Into<Op>, seed: u64) -> Vec<Vec<f64>> {
    let mut rng = Random(seed * 2 + 1);
    let operands = op.into().operands().unwrap();
    let fill = |operand: &Operand, rng: &mut Random| {
        if operand.dtype.is_float() { rng.units(operand.span) } else { vec![0.0; operand.span] }
    };
    operands.inputs.iter().map(|operand| fill(operand, &mut rng)).collect()
}

pub const SIZES: [(usize, usize); 9] =
    [(0, 5), (3, 0), (1, 1), (1, 7), (3, 16), (2, 33), (5, 130), (1, 9000), (40, 513)];
