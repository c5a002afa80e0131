//! RMSNorm by rows: `cargo bench -p candlewick-candle --bench rms_norm`.

use candlewick::{DType, Device, Op, RmsNorm};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn rms_norm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rms_norm");
    for (threads, device) in [("1 thread", Device::cpu_with_threads(1)), ("all threads", Device::cpu())] {
        let mut stream = device.stream().expect("a stream of the CPU");
        for (rows, cols) in [(1, 4096), (32, 512), (128, 4096)] {
            let op = RmsNorm::new(rows, cols, 1e-5, DType::F32);
            for (pass, op) in [("forward", Op::RmsNorm(op)), ("backward", Op::RmsNormBackward(op))] {
                let kernel = stream.prepare(op).expect("a legal operation");
                let operands = op.operands().expect("a legal operation");
                let inputs: Vec<Vec<f32>> = operands.inputs.iter().map(|operand| vec![0.5; operand.span]).collect();
                let mut outputs: Vec<Vec<f32>> =
                    operands.outputs.iter().map(|operand| vec![0.0; operand.span]).collect();
                group.throughput(Throughput::Bytes(op.bytes() as u64));
                group.bench_function(BenchmarkId::new(format!("{pass} {threads}"), op.shape()), |bencher| {
                    let inputs: Vec<_> = inputs.iter().map(|input| input[..].into()).collect();
                    let mut outputs: Vec<_> = outputs.iter_mut().map(|output| output[..].as_mut().into()).collect();
                    bencher.iter(|| {
                        stream.encode(&kernel, &inputs, &mut outputs).expect("fitting arguments");
                        black_box(&mut outputs);
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, rms_norm);
criterion_main!(benches);
