//! Products of the shapes that LoRA meets: `cargo bench -p candlewick-candle --bench matmul`.

use candlewick::{DType, Device, MatMul};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use std::hint::black_box;

fn matmul(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matmul");
    for (threads, device) in [("1 thread", Device::cpu_with_threads(1)), ("all threads", Device::cpu())] {
        let mut stream = device.stream().expect("a stream of the CPU");
        for size in [64, 128, 256, 512, 1024] {
            let flops = 2 * (size * size * size) as u64;
            let f32_product = stream.prepare(MatMul::new(size, size, size, DType::F32)).expect("a legal product");
            let (a, b, mut c) = (vec![0.5f32; size * size], vec![0.5f32; size * size], vec![0f32; size * size]);
            group.throughput(Throughput::Elements(flops));
            group.bench_function(BenchmarkId::new(format!("f32 {threads}"), size), |bencher| {
                bencher.iter(|| {
                    let inputs = [a[..].into(), b[..].into()];
                    stream.encode(&f32_product, &inputs, &mut [c[..].as_mut().into()]).expect("fitting arguments");
                    black_box(&mut c);
                });
            });
            let bf16_product = stream.prepare(MatMul::new(size, size, size, DType::BF16)).expect("a legal product");
            let half = bf16::from_f32(0.5);
            let (a, b, mut c) = (vec![half; size * size], vec![half; size * size], vec![half; size * size]);
            group.bench_function(BenchmarkId::new(format!("bf16 {threads}"), size), |bencher| {
                bencher.iter(|| {
                    let inputs = [a[..].into(), b[..].into()];
                    stream.encode(&bf16_product, &inputs, &mut [c[..].as_mut().into()]).expect("fitting arguments");
                    black_box(&mut c);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, matmul);
criterion_main!(benches);
