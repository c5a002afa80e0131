//! The LoRA layer with a packed W, its delta, and their backwards: `cargo bench -p candlewick-candle --bench lora`.

use candlewick::{Buffer, DType, Device, Input, LoraDelta, LoraLinear, Op};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn lora(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lora");
    for (threads, device) in [("1 thread", Device::cpu_with_threads(1)), ("all threads", Device::cpu())] {
        let mut stream = device.stream().expect("a stream of the CPU");
        for (rows, features, rank) in [(1, 4096, 16), (32, 512, 8), (64, 1024, 16), (128, 2048, 32), (256, 512, 8)] {
            let layer = LoraLinear::new(rows, features, features, rank, 2.0, DType::F32).packed();
            let delta = LoraDelta::new(rows, features, features, rank, 2.0, DType::F32);
            for op in [Op::from(layer), Op::LoraLinearBackward(layer), Op::from(delta), Op::LoraDeltaBackward(delta)] {
                let kernel = stream.prepare(op).expect("a legal operation");
                let operands = op.operands().expect("a legal operation");
                let inputs: Vec<Vec<f32>> = operands.inputs.iter().map(|operand| vec![0.5; operand.span]).collect();
                let mut outputs: Vec<Vec<f32>> =
                    operands.outputs.iter().map(|operand| vec![0.0; operand.span]).collect();
                let packed: Option<Buffer> = op
                    .packed_factor()
                    .map(|factor| stream.pack(&kernel, inputs[factor.input][..].into()).expect("a whole W"));
                group.throughput(Throughput::Elements(op.flops() as u64));
                group.bench_function(BenchmarkId::new(format!("{} {threads}", op.name()), op.shape()), |bencher| {
                    let mut inputs: Vec<Input<'_>> = inputs.iter().map(|input| input[..].into()).collect();
                    if let (Some(factor), Some(packed)) = (op.packed_factor(), &packed) {
                        inputs[factor.input] = packed.into();
                    }
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

criterion_group!(benches, lora);
criterion_main!(benches);
