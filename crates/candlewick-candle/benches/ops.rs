//! The operations on tensors, beside Candle's own and beside the library on slices: what the adapter itself costs.
//!
//! Candle asks for the number of cores in every product unless `RAYON_NUM_THREADS` is set, which costs about 26 us on
//! Linux: run this with and without it.

use candle_core::{D, DType, Device, Module, Tensor};
use candle_nn::Linear;
use candlewick::{MatMul, lora};
use candlewick_candle::{LoraConfig, LoraLinear, matmul, rms_norm, softmax};
use criterion::{Criterion, criterion_group, criterion_main};

fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn products(c: &mut Criterion) {
    let mut stream = candlewick::Device::cpu().stream().unwrap();
    for n in [64, 256, 512] {
        let mut group = c.benchmark_group(format!("matmul {n}"));
        let (a, b) = (random(&[n, n]), random(&[n, n]));
        group.bench_function("candlewick-candle", |bencher| bencher.iter(|| matmul(&a, &b).unwrap()));
        group.bench_function("candle", |bencher| bencher.iter(|| a.matmul(&b).unwrap()));
        let kernel = stream.prepare(MatMul::new(n, n, n, candlewick::DType::F32)).unwrap();
        let (a, b, mut c) = (numbers(&a), numbers(&b), vec![0f32; n * n]);
        group.bench_function("candlewick on slices", |bencher| {
            bencher.iter(|| {
                stream.encode(&kernel, &[a[..].into(), b[..].into()], &mut [c[..].as_mut().into()]).unwrap();
            });
        });
    }
}

/// The layer in Candle's own operations.
fn candles(base: &Linear, x: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
    let delta = x.matmul(&a.t().unwrap()).unwrap().matmul(&b.t().unwrap()).unwrap();
    (base.forward(x).unwrap() + (delta * 2.0).unwrap()).unwrap()
}

fn lora_layers(c: &mut Criterion) {
    let device = candlewick::Device::cpu();
    let mut stream = device.stream().unwrap();
    for (rows, n, rank) in [(32, 512, 8), (256, 512, 8), (64, 1024, 16)] {
        let base = Linear::new(random(&[n, n]), None);
        let variable = |shape: &[usize]| candle_core::Var::from_tensor(&random(shape)).unwrap().into_inner();
        let (x, a, b) = (random(&[rows, n]), variable(&[rank, n]), variable(&[n, rank]));
        let config = LoraConfig::new(rank, 2.0 * rank as f32);
        let layer = LoraLinear::from_tensors(&base, config, a.clone(), b.clone()).unwrap();

        let mut group = c.benchmark_group(format!("lora {rows}x{n}x{n} r{rank}"));
        group.bench_function("candlewick-candle", |bencher| bencher.iter(|| layer.forward(&x).unwrap()));
        group.bench_function("candle", |bencher| bencher.iter(|| candles(&base, &x, &a, &b)));
        let shape = candlewick::LoraLinear::new(rows, n, n, rank, 2.0, candlewick::DType::F32);
        let (w, a_numbers, b_numbers) = (numbers(base.weight()), numbers(&a), numbers(&b));
        let on_slices = lora::Layer::new(&device, &mut stream, shape, &w, None, &a_numbers, &b_numbers).unwrap();
        let (x_numbers, mut y) = (numbers(&x), vec![0f32; rows * n]);
        group.bench_function("candlewick on slices", |bencher| {
            bencher.iter(|| on_slices.forward(&mut stream, rows, x_numbers[..].into(), y[..].as_mut().into()).unwrap());
        });
        drop(group);

        let mut group = c.benchmark_group(format!("lora {rows}x{n}x{n} r{rank} forward + backward"));
        let x = candle_core::Var::from_tensor(&x).unwrap().into_inner();
        let backward = |y: Tensor| y.backward().unwrap();
        group.bench_function("candlewick-candle", |bencher| bencher.iter(|| backward(layer.forward(&x).unwrap())));
        group.bench_function("candle", |bencher| bencher.iter(|| backward(candles(&base, &x, &a, &b))));
    }
}

fn rows(c: &mut Criterion) {
    let (x, weight) = (random(&[128, 4096]), Tensor::ones(4096, DType::F32, &Device::Cpu).unwrap());
    let mut group = c.benchmark_group("softmax 128x4096");
    group.bench_function("candlewick-candle", |bencher| bencher.iter(|| softmax(&x, 1.0).unwrap()));
    group.bench_function("candle, no gradient", |bencher| {
        bencher.iter(|| candle_nn::ops::softmax_last_dim(&x).unwrap());
    });
    group.bench_function("candle, with gradient", |bencher| {
        bencher.iter(|| candle_nn::ops::softmax(&x, D::Minus1).unwrap());
    });
    drop(group);
    let mut group = c.benchmark_group("rms_norm 128x4096");
    group.bench_function("candlewick-candle", |bencher| bencher.iter(|| rms_norm(&x, &weight, 1e-6).unwrap()));
    group.bench_function("candle, no gradient", |bencher| {
        bencher.iter(|| candle_nn::ops::rms_norm(&x, &weight, 1e-6).unwrap());
    });
}

criterion_group!(benches, products, lora_layers, rows);
criterion_main!(benches);
