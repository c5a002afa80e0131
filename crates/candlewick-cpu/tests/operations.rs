//! The operations that models need, on every engine of this CPU, one thread and all, against the f64 reference: odd
//! sizes, strides, every dtype, special numbers, nothing at all. What lies around an output stays as it was.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::op::Operand;
use candlewick_core::reference;
use candlewick_core::{AdamW, Add, Attention, Cast, CopyRows, CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats};
use candlewick_core::{
    DType, Dequantize, Dropout, Element, Embedding, LoraRows, Op, Pairs, Quant, QuantLinear, Rope, SiluMul, SumSquares,
};
use candlewick_cpu::{Buffer, Device, Input, Output, REFERENCE, Stream};
use half::{bf16, f16};

const SENTINEL: f64 = 77.0;
const AROUND: usize = 8;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    /// In -1..1.
    fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 52) as f64 - 1.0
    }
    fn units(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.unit()).collect()
    }
}

fn rounded(dtype: DType, values: &[f64]) -> Vec<f64> {
    values.iter().map(|&v| dtype.round(v)).collect()
}

fn upload(device: &Device, stream: &mut Stream, dtype: DType, values: &[f64]) -> Buffer {
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

fn download(stream: &mut Stream, dtype: DType, buffer: &Buffer, n: usize) -> Vec<f64> {
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
fn check(op: impl Into<Op>, inputs: &[Vec<f64>], before: &[Vec<f64>]) -> Vec<Vec<f64>> {
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
fn compare(op: &Op, operand: &Operand, got: &[f64], want: &[f64], what: &str) {
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
fn random(op: impl Into<Op>, seed: u64) -> Vec<Vec<f64>> {
    let mut rng = Random(seed * 2 + 1);
    let operands = op.into().operands().unwrap();
    let fill = |operand: &Operand, rng: &mut Random| {
        if operand.dtype.is_float() { rng.units(operand.span) } else { vec![0.0; operand.span] }
    };
    operands.inputs.iter().map(|operand| fill(operand, &mut rng)).collect()
}

const SIZES: [(usize, usize); 9] = [(0, 5), (3, 0), (1, 1), (1, 7), (3, 16), (2, 33), (5, 130), (1, 9000), (40, 513)];

#[test]
fn add_silu_mul_and_its_gradients() {
    for dtype in DType::ALL {
        for (rows, cols) in SIZES {
            for gap in [0, 3] {
                let op = Add { a_row: cols + gap, b_row: cols + 2 * gap, ..Add::new(rows, cols, dtype) };
                check(op, &random(op, 1), &[]);
                let op = SiluMul { gate_row: cols + gap, y_row: cols + 2 * gap, ..SiluMul::new(rows, cols, dtype) };
                let mut x = random(op, 2);
                x[0].iter_mut().for_each(|gate| *gate *= 8.0);
                check(op, &x, &[]);
                let backward = Op::SiluMulBackward(op);
                let mut x = random(backward, 3);
                x[0].iter_mut().for_each(|gate| *gate *= 8.0);
                check(backward, &x, &[]);
            }
        }
    }
    let special = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -200.0, 200.0, 0.0, -0.0, 1.0];
    let op = SiluMul::new(1, 8, DType::F32);
    check(op, &[special.clone(), vec![1.0; 8]], &[]);
    check(Add::new(1, 8, DType::F32), &[special.clone(), special], &[]);
}

#[test]
fn casts_between_all_formats() {
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, -7e4, 65519.0, 1e-7, 1e-9, 0.0, 1.0 / 3.0];
    for (from, to) in DType::ALL.into_iter().flat_map(|from| DType::ALL.map(|to| (from, to))) {
        for n in [0, 1, 15, 33, 20_000] {
            let op = Cast::new(n, from, to);
            let want = check(op, &random(op, 4), &[]);
            assert_eq!(want[0], rounded(to, &rounded(from, &random(op, 4)[0])));
        }
        check(Cast::new(special.len(), from, to), &[special.to_vec()], &[]);
    }
    assert!(Op::from(Cast::new(1, DType::U8, DType::F32)).operands().unwrap_err().to_string().contains("u8"));
    assert!(Op::from(Cast::new(1, DType::F32, DType::U32)).operands().unwrap_err().to_string().contains("u32"));
}

#[test]
fn embedding_and_its_gradient() {
    let mut rng = Random(9);
    for dtype in DType::ALL {
        for (tokens, vocab, width) in [(0, 4, 3), (5, 0, 3), (4, 3, 0), (1, 7, 1), (33, 5, 17), (300, 1000, 64)] {
            let op = Embedding::new(tokens, vocab, width, dtype);
            let mut ids: Vec<f64> = (0..tokens).map(|_| rng.below(vocab + 1) as f64).collect();
            if let Some(last) = ids.last_mut() {
                *last = f64::from(u32::MAX);
            }
            check(op, &[ids.clone(), rng.units(vocab * width)], &[]);
            let mut dy = rng.units(tokens * width);
            if dy.len() > 40 {
                dy[20] = f64::NAN;
            }
            check(Op::EmbeddingBackward(op), &[ids, dy], &[]);
        }
    }
}

#[test]
fn dropped_elements() {
    for dtype in DType::ALL {
        for (rows, cols) in SIZES {
            for rate in [0.0, 0.1, 0.5, 0.999_999_94] {
                let op = Dropout::new(rows, cols, rate, 5, dtype);
                for op in [op, Dropout { x_row: cols + 3, y_row: cols + 1, ..op }] {
                    let mut inputs = random(op, 17);
                    inputs[1] = vec![f64::from(u32::MAX), 3.0];
                    let want = check(op, &inputs, &[]);
                    if rate == 0.0 && op.x_row == cols {
                        assert_eq!(want[0], rounded(dtype, &inputs[0]), "a copy");
                    }
                }
            }
        }
    }
    let special = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1.0, f64::INFINITY, f64::NAN, 0.0];
    check(Dropout::new(1, 8, 0.5, 0, DType::F32), &[special, vec![1.0, 2.0]], &[]);
}

#[test]
fn rope_forward_and_back() {
    let mut rng = Random(10);
    for dtype in DType::ALL {
        for pairs in [Pairs::Halves, Pairs::Interleaved] {
            for (rows, heads, head, rotary) in [
                (0, 2, 8, 8),
                (3, 0, 8, 8),
                (1, 1, 2, 2),
                (5, 3, 10, 6),
                (7, 2, 64, 64),
                (200, 3, 80, 40),
                (2, 2, 6, 0),
            ] {
                let width = heads * head;
                let shape = Rope::new(rows, heads, head, dtype);
                let op = Rope { rotary, pairs, x_row: width + 5, y_row: width + 2, ..shape };
                let positions: Vec<f64> =
                    (0..rows).map(|i| if i % 2 == 0 { i as f64 } else { 131072.0 - i as f64 }).collect();
                let frequencies: Vec<f64> =
                    (0..rotary / 2).map(|i| 1e4f64.powf(-2.0 * i as f64 / rotary as f64)).collect();
                let span = |operand: &Operand| operand.span;
                let n = span(&Op::from(op).operands().unwrap().inputs[0]);
                check(op, &[rng.units(n), positions.clone(), frequencies.clone()], &[]);
                let n = span(&Op::RopeBackward(op).operands().unwrap().inputs[0]);
                check(Op::RopeBackward(op), &[rng.units(n), positions, frequencies], &[]);
            }
        }
    }
    assert!(Op::from(Rope { rotary: 3, ..Rope::new(1, 1, 8, DType::F32) }).operands().is_err());
    assert!(Op::from(Rope { rotary: 10, ..Rope::new(1, 1, 8, DType::F32) }).operands().is_err());
}

#[test]
fn copied_rows() {
    let mut rng = Random(11);
    for dtype in DType::ALL {
        for (rows, width, capacity) in [(0, 3, 4), (3, 0, 4), (3, 2, 0), (1, 1, 1), (5, 17, 8), (70, 64, 300)] {
            let op = CopyRows { x_row: width + 1, ..CopyRows::new(rows, width, capacity, dtype) };
            // Different slots in no order, and some that are skipped.
            let slots: Vec<f64> = (0..rows)
                .map(|i| if i % 5 == 4 { f64::from(u32::MAX) } else { ((i * 7 + 3) % capacity.max(71)) as f64 })
                .collect();
            let x = rng.units(Op::from(op).operands().unwrap().inputs[0].span);
            check(op, &[x, slots], &[rng.units(capacity * width)]);
        }
    }
}

#[test]
fn rows_with_adapters_of_their_own() {
    let mut rng = Random(14);
    for dtype in DType::ALL {
        for (rows, ins, outs, rank, adapters) in [
            (0, 3, 4, 2, 3),
            (3, 0, 4, 2, 3),
            (3, 4, 0, 2, 3),
            (3, 4, 5, 0, 3),
            (3, 4, 5, 2, 0),
            (1, 1, 1, 1, 1),
            (5, 17, 33, 3, 2),
            (64, 130, 260, 16, 16),
            (37, 64, 129, 64, 4),
            (20, 700, 300, 8, 300),
        ] {
            let op =
                LoraRows { x_row: ins + 3, y_row: outs + 1, ..LoraRows::new(rows, ins, outs, rank, adapters, dtype) };
            // None, all of one adapter, and any.
            for most in [0, 1, adapters + 1] {
                let slots = (0..rows).map(|_| match most {
                    0 => f64::from(u32::MAX),
                    1 => adapters as f64 - 1.0,
                    most => rng.below(most) as f64,
                });
                let slots: Vec<f64> = slots.map(|slot| slot.max(0.0)).collect();
                let mut inputs = random(op, 15);
                inputs[4] = slots;
                let y = rng.units(Op::from(op).operands().unwrap().outputs[0].span);
                check(op, &inputs, &[y]);
            }
        }
    }
}

/// A row's bits do not depend on the rows beside it, on their adapters, or on the number of threads.
#[test]
fn a_row_with_an_adapter_has_the_same_bits_in_any_batch() {
    let (ins, outs, rank, adapters) = (530, 300, 16, 4);
    for dtype in DType::ALL {
        let batch = LoraRows::new(33, ins, outs, rank, adapters, dtype);
        let inputs: Vec<Vec<f64>> = random(batch, 16);
        let run = |device: &Device, rows: std::ops::Range<usize>, slots: &dyn Fn(usize) -> f64| {
            let op = Op::from(LoraRows { rows: rows.len(), ..batch });
            let mut stream = device.stream().unwrap();
            let kernel = stream.prepare(&op, None).unwrap();
            let values = [
                inputs[0][rows.start * ins..rows.end * ins].to_vec(),
                inputs[1].clone(),
                inputs[2].clone(),
                inputs[3].clone(),
                rows.clone().map(slots).collect(),
            ];
            let dtypes = [dtype, dtype, dtype, DType::F32, DType::U32];
            let buffers: Vec<Buffer> =
                values.iter().zip(dtypes).map(|(values, dtype)| upload(device, &mut stream, dtype, values)).collect();
            let mut y = upload(device, &mut stream, dtype, &vec![0.25; rows.len() * outs]);
            let arguments: Vec<Input<'_>> = buffers.iter().map(Input::from).collect();
            stream.encode(&kernel, &arguments, &mut [Output::from(&mut y)]).unwrap();
            download(&mut stream, dtype, &y, rows.len() * outs)
        };
        let mixed = |row: usize| ((row * 7 + 2) % (adapters + 1)) as f64;
        let together = run(&Device::new(), 0..33, &mixed);
        for row in 0..33 {
            let alone = run(&Device::with_threads(1), row..row + 1, &mixed);
            assert_eq!(alone, together[row * outs..(row + 1) * outs], "{dtype} row {row}");
            let slot = mixed(row);
            let crowd = run(&Device::new(), 0..33, &|_| slot);
            assert_eq!(alone, crowd[row * outs..(row + 1) * outs], "{dtype} row {row} among rows of its adapter");
        }
    }
}

/// Spans, and the operation's other inputs.
fn attention_inputs(op: Attention, spans: &[[u32; 4]], seed: u64) -> Vec<Vec<f64>> {
    let mut inputs = random(op, seed);
    inputs[3] = spans.iter().flatten().map(|&n| f64::from(n)).collect();
    // Scores that are not all alike.
    inputs[0].iter_mut().for_each(|q| *q *= 3.0);
    inputs
}

fn attention_and_gradients(op: Attention, spans: &[[u32; 4]], special: Option<(usize, usize, f64)>) {
    let op = Attention { sequences: spans.len(), ..op };
    let mut inputs = attention_inputs(op, spans, 12);
    if let Some((input, at, value)) = special {
        inputs[input][at] = value;
    }
    let outputs = check(op, &inputs, &[]);
    let mut rng = Random(13);
    inputs.extend([outputs[0].clone(), outputs[1].clone(), rng.units(outputs[0].len())]);
    check(Op::AttentionBackward(op), &inputs, &[]);
}

#[test]
fn attention_of_one_sequence() {
    for dtype in DType::ALL {
        for causal in [false, true] {
            for (queries, keys, heads, kv_heads, head) in [
                (1, 1, 1, 1, 1),
                (1, 512, 9, 3, 64),
                (1, 700, 2, 1, 80),
                (5, 5, 4, 2, 7),
                (25, 70, 6, 2, 33),
                (100, 100, 3, 3, 16),
                (130, 65, 2, 1, 8),
                (3, 200, 32, 1, 40),
            ] {
                let shape = Attention::new(queries, keys, heads, kv_heads, head, dtype);
                let op = Attention {
                    causal,
                    q_row: shape.q_row + 3,
                    k_row: shape.k_row + 1,
                    v_row: shape.v_row + 2,
                    y_row: shape.y_row + 5,
                    ..shape
                };
                attention_and_gradients(op, &[[0, u32::MAX, 0, u32::MAX]], None);
            }
        }
    }
}

#[test]
fn attention_of_sequences_and_of_nothing() {
    for dtype in DType::ALL {
        for causal in [false, true] {
            let op = Attention { causal, ..Attention::new(60, 150, 4, 2, 24, dtype) };
            // A cache of capacity 50: lengths 50, 1 and 30; and a query that nobody has.
            attention_and_gradients(op, &[[0, 1, 0, 50], [1, 1, 50, 1], [2, 30, 100, 30]], None);
            // Documents in a row; one of them overlaps the one before and keeps what is left; shared keys; no keys.
            attention_and_gradients(op, &[[0, 20, 0, 20], [15, 20, 10, 60], [40, 10, 0, 0], [50, 99, 140, 99]], None);
            attention_and_gradients(op, &[], None);
            attention_and_gradients(op, &[[70, 5, 200, 5]], None);
        }
        for (queries, keys, heads, head) in [(0, 5, 2, 4), (5, 0, 2, 4), (5, 5, 0, 4), (5, 5, 2, 0)] {
            let op = Attention::new(queries, keys, heads, 1, head, dtype);
            attention_and_gradients(op, &[[0, 5, 0, 5]], None);
        }
    }
}

#[test]
fn attention_keeps_what_is_not_a_number_where_it_is_seen() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for causal in [false, true] {
            let op = Attention { causal, ..Attention::new(40, 90, 2, 1, 20, DType::F32) };
            for input in 0..3 {
                // Key 60 is on the diagonal of the second tile, query 10 sees keys up to 60.
                let at = if input == 0 { 10 * 40 + 3 } else { 60 * 20 + 3 };
                let outputs = check(
                    op,
                    &{
                        let mut inputs = attention_inputs(op, &[[0, 40, 0, 90]], 14);
                        inputs[input][at] = value;
                        inputs
                    },
                    &[],
                );
                if input == 2 && causal {
                    assert!(outputs[0][..10 * 40].iter().all(|y| y.is_finite()), "earlier queries do not see key 60");
                }
            }
        }
    }
    // All scores -inf: 0 / 0, as in softmax.
    let op = Attention { causal: false, ..Attention::new(1, 70, 1, 1, 1, DType::F32) };
    let outputs = check(op, &[vec![1.0], vec![f64::NEG_INFINITY; 70], vec![1.0; 70], vec![0.0, 1.0, 0.0, 70.0]], &[]);
    assert!(outputs[0][0].is_nan() && outputs[1][0].is_nan());
}

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

#[test]
fn cross_entropy() {
    let mut rng = Random(16);
    for dtype in DType::ALL {
        for (rows, vocab, chunk) in [(1, 1, 1), (3, 40, 17), (5, 1000, 1000), (70, 300, 128), (0, 3, 3), (4, 0, 1)] {
            let row = chunk + 3;
            let labels: Vec<f64> =
                (0..rows).map(|i| if i % 4 == 3 { f64::from(u32::MAX) } else { rng.below(vocab + 1) as f64 }).collect();
            let mut stats = vec![0.5; 3 * rows];
            let firsts: Vec<usize> = (0..vocab).step_by(chunk).collect();
            let logits: Vec<Vec<f64>> =
                firsts.iter().map(|_| rng.units(rows * row).iter().map(|x| 10.0 * x).collect::<Vec<f64>>()).collect();
            for (&first, logits) in firsts.iter().zip(&logits) {
                let cols = chunk.min(vocab - first);
                let op = CrossEntropyStats {
                    first,
                    begin: first == 0,
                    logits_row: row,
                    ..CrossEntropyStats::new(rows, cols, dtype)
                };
                stats = check(op, &[logits.clone(), labels.clone()], &[stats]).remove(0);
            }
            let loss = check(CrossEntropyLoss::new(rows, vocab), &[stats.clone(), labels.clone()], &[]).remove(0);
            for (&first, logits) in firsts.iter().zip(&logits) {
                let cols = chunk.min(vocab - first);
                let op = CrossEntropyGrad { rows, cols, first, vocab, logits_row: row, dtype };
                let inputs = [logits.clone(), labels.clone(), stats.clone(), loss.clone(), vec![0.7]];
                check(op, &inputs, &[]);
            }
        }
    }
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let logits = [[nan, 1.0, 2.0], [inf, 1.0, 2.0], [-inf, -inf, -inf], [-inf, 1.0, 2.0]].concat();
    let labels = vec![0.0, 0.0, 0.0, 1.0];
    let op = CrossEntropyStats::new(4, 3, DType::F32);
    let stats = check(op, &[logits.clone(), labels.clone()], &[]).remove(0);
    // The same chunk again, after one of all -inf, and after one with NaN.
    check(op.at(3), &[logits, labels.clone()], std::slice::from_ref(&stats));
    check(CrossEntropyLoss::new(4, 3), &[stats, labels], &[]);
}

#[test]
fn the_optimizer() {
    let mut rng = Random(17);
    for dtype in DType::ALL {
        for n in [0, 1, 19, 16384, 50_000] {
            let op = SumSquares::new(n, dtype);
            let x = rng.units(n);
            check(op, std::slice::from_ref(&x), &[]);
            let sum = check(op.accumulate(), std::slice::from_ref(&x), &[vec![3.0]]).remove(0);
            for (max_norm, step) in [(0.0, 1.0), (1.0, 1000.0)] {
                let op = AdamW { max_norm: f32::into(max_norm), ..AdamW::new(n, dtype) };
                let v: Vec<f64> = rng.units(n).iter().map(|v| v * v).collect();
                let before = [rng.units(n), rng.units(n), v, vec![0.5; n]];
                check(op, &[x.clone(), sum.clone(), vec![1e-3, step]], &before);
            }
        }
    }
    let error = Op::from(AdamW { beta1: 1.0.into(), ..AdamW::new(1, DType::F32) }).operands().unwrap_err();
    assert!(error.to_string().contains("beta1 = 1"), "{error}");
}

/// Two steps of `torch.optim.AdamW([1.0, -2.0], lr=0.1, weight_decay=0.1)` with gradients (0.5, -0.25), clipped to a norm
/// of 0.1, and (0.1, 0.2), not clipped: worked out by PyTorch's formulas in double precision.
#[test]
fn adamw_of_two_numbers_worked_out_by_hand() {
    let mut master = [1.0f64, -2.0];
    let (mut m, mut v) = ([0.0f64; 2], [0.0f64; 2]);
    let mut state = [master.to_vec(), m.to_vec(), v.to_vec(), vec![0.0; 2]];
    for (step, grad) in [[0.5, -0.25], [0.1 / 3.0, 0.2 / 3.0]].into_iter().enumerate() {
        let norm = f64::sqrt(grad[0] * grad[0] + grad[1] * grad[1]);
        let clip = (0.1 / (norm + 1e-6)).min(1.0);
        let (correction1, correction2) = (1.0 - 0.9f64.powi(step as i32 + 1), 1.0 - 0.999f64.powi(step as i32 + 1));
        for i in 0..2 {
            let g = grad[i] * clip;
            master[i] *= 1.0 - 0.1 * 0.1;
            m[i] += (g - m[i]) * (1.0 - 0.9);
            v[i] = 0.999 * v[i] + (1.0 - 0.999) * g * g;
            master[i] -= 0.1 / correction1 * m[i] / (v[i].sqrt() / correction2.sqrt() + 1e-8);
        }
        let op = AdamW { weight_decay: 0.1.into(), max_norm: 0.1.into(), ..AdamW::new(2, DType::F32) };
        let schedule = vec![0.1, step as f64 + 1.0];
        let after = check(op, &[grad.to_vec(), vec![norm * norm], schedule], &state);
        for i in 0..2 {
            assert!((after[0][i] - master[i]).abs() < 1e-6, "step {step}: {} for {}", after[0][i], master[i]);
            assert!((after[3][i] - master[i]).abs() < 1e-6);
        }
        state = after.try_into().unwrap();
    }
}

#[test]
fn storage_dtypes_are_written_and_read_and_computed_with_by_nothing() {
    let device = Device::new();
    let mut stream = device.stream().unwrap();
    let mut ids = device.alloc(DType::U32, 3).unwrap();
    stream.write(&mut ids, &[1u32, u32::MAX, 7]).unwrap();
    let mut read = [0u32; 3];
    stream.read(&ids, &mut read).unwrap();
    assert_eq!(read, [1, u32::MAX, 7]);
    assert!(stream.read(&ids, &mut [0f32; 3]).unwrap_err().to_string().contains("u32"));
    for dtype in [DType::U32, DType::U8] {
        let error = stream.prepare(&Op::from(Add::new(1, 1, dtype)), None).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(dtype.name()), "{error}");
    }
}
