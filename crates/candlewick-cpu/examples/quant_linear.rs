//! A measurement of ours, not an example to begin with.
//!
//! Times products with quantised weights at the sizes of SmolLM2-135M, one row and many, on every engine:
//! `cargo run --release --example quant_linear [rows]`.
//!
//! A decode step reads every weight once, so there are as many copies of W as make a hundred megabytes: what is read comes
//! from where a model's weights come from, and not from the innermost caches.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, Op, Quant, QuantLinear};
use candlewick_cpu::{Buffer, Device, Input, Output, Stream, engine_of, simd::Isa};
use std::time::Instant;

/// Inputs, outputs, format.
const SIZES: [(usize, usize, Quant); 9] = [
    (576, 576, Quant::Q4_1),
    (576, 192, Quant::Q4_1),
    (576, 1536, Quant::Q4_1),
    (1536, 576, Quant::Q4_1),
    (576, 49152, Quant::Q8_0),
    (576, 1536, Quant::Q4_0),
    (576, 1536, Quant::Q8_0),
    (768, 1536, Quant::Q4K),
    (768, 1536, Quant::Q6K),
];

fn main() {
    let rows: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    for rows in if rows.is_empty() { vec![1, 512] } else { rows } {
        for (k, n, format) in SIZES {
            let op = QuantLinear::new(rows, k, n, format, DType::F32).packed();
            for threads in [1, usize::MAX] {
                let device = Device::with_threads(threads);
                let mut stream = device.stream().expect("a stream");
                let mut weights = Weights::new(&mut stream, op, if rows <= 16 { 100 << 20 } else { 1 });
                for isa in [Isa::Avx512Vnni, Isa::AvxVnni, Isa::Avx512, Isa::Avx2, Isa::NeonDot, Isa::Neon] {
                    if isa.is_available() {
                        weights.time(&mut stream, op.int8(), isa);
                    }
                }
                if let Some(isa) =
                    Isa::available().filter(|isa| matches!(isa, Isa::Avx512 | Isa::Avx2 | Isa::Neon)).last()
                {
                    weights.time(&mut stream, op, isa);
                }
            }
        }
    }
}

/// Copies of W.
struct Weights(Vec<Buffer>);

impl Weights {
    fn new(stream: &mut Stream, op: QuantLinear, bytes: usize) -> Self {
        let kernel = stream.prepare(&op.into(), None).expect("a kernel");
        let size = op.format.row_bytes(op.in_features) * op.out_features;
        let mut state = 1u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let mut plain: Vec<u8> = (0..size).map(|_| byte()).collect();
        // No scale that is not a number.
        plain.chunks_exact_mut(2).for_each(|pair| pair[1] &= 0x3b);
        let copies = bytes.div_ceil(size).max(1);
        Weights((0..copies).map(|_| stream.pack(&kernel, plain.as_slice().into()).expect("memory")).collect())
    }

    fn time(&mut self, stream: &mut Stream, op: QuantLinear, isa: Isa) {
        let op = Op::from(op);
        let kernel = stream.prepare(&op, Some(engine_of(isa))).expect("a kernel");
        let operands = op.operands().expect("operands");
        let x: Vec<f32> = (0..operands.inputs[0].span).map(|i| (i % 17) as f32 * 0.05 - 0.4).collect();
        let mut y = vec![0f32; operands.outputs[0].span];
        let (mut best, start) = (f64::INFINITY, Instant::now());
        while start.elapsed().as_secs_f64() < 0.05 {
            let pass = Instant::now();
            for w in &self.0 {
                let mut outputs = [Output::from(y.as_mut_slice())];
                stream.encode(&kernel, &[Input::from(x.as_slice()), w.into()], &mut outputs).expect("it runs");
            }
            best = best.min(pass.elapsed().as_secs_f64() / self.0.len() as f64);
        }
        println!(
            "{:46} {:16} {:2} threads {:10.2} us {:8.1} GOP/s {:7.2} GB/s",
            op.to_string(),
            kernel.engine().to_string(),
            kernel.threads(),
            best * 1e6,
            op.flops() / best * 1e-9,
            operands.inputs[1].span as f64 / best * 1e-9,
        );
    }
}
