//! What `encode` gives to the driver: the launches of the operation and nothing else, without an allocation.

mod allocations;
mod stub;

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, Element, Error, LoraDelta, LoraLinear, Mask, MatMul, Op, RmsNorm, Softmax};
use candlewick_cuda::{Buffer, CUBLASLT, Device, FUSED, Input, MMA, Options, Output, Stream};
use std::time::Instant;
use stub::{Lib, Stub};

/// Every operation.
fn ops(dtype: DType) -> Vec<Op> {
    let softmax = Softmax::new(128, 4096, dtype);
    let norm = RmsNorm::new(128, 4096, 1e-5, dtype);
    let lora = |rows, bias: bool| {
        let op = LoraLinear::new(rows, 512, 384, 8, 2.0, dtype);
        if bias { op.with_bias() } else { op }
    };
    let delta = LoraDelta::new(64, 512, 384, 8, 2.0, dtype);
    vec![
        MatMul::new(64, 64, 64, dtype).into(),
        MatMul::new(1, 512, 512, dtype).trans_b().into(),
        MatMul::new(64, 64, 64, dtype).batched(3).scaled(0.5, 1.0).into(),
        softmax.into(),
        Softmax { mask: Mask::Causal { queries: 128 }, ..softmax }.into(),
        Op::SoftmaxBackward(softmax),
        norm.into(),
        Op::RmsNormBackward(norm),
        lora(1, false).into(),
        lora(32, true).into(),
        lora(512, true).into(),
        Op::LoraLinearBackward(lora(512, false)),
        delta.into(),
        delta.accumulate().into(),
        Op::LoraDeltaBackward(delta),
    ]
}

struct Tensors {
    inputs: Vec<Buffer>,
    outputs: Vec<Buffer>,
}

impl Tensors {
    fn of(device: &Device, op: &Op) -> Self {
        let operands = op.operands().unwrap();
        let alloc = |operands: &[candlewick_core::op::Operand]| {
            operands.iter().map(|operand| device.alloc(operand.dtype, operand.span).unwrap()).collect()
        };
        Tensors { inputs: alloc(&operands.inputs), outputs: alloc(&operands.outputs) }
    }
}

fn encode(stream: &mut Stream, kernel: &candlewick_cuda::Kernel, tensors: &mut Tensors) {
    let inputs: Vec<Input<'_>> = tensors.inputs.iter().map(Into::into).collect();
    let mut outputs: Vec<Output<'_>> = tensors.outputs.iter_mut().map(Into::into).collect();
    let before = allocations::count();
    stream.encode(kernel, &inputs, &mut outputs).unwrap();
    assert_eq!(allocations::count() - before, 0, "{} allocates", kernel.op());
}

/// Where nothing becomes a graph (`tests/repeats.rs` has those).
fn launches_alone(stub: &Stub) -> Device {
    Device::with_options(0, Options { repeats_as_graphs: false, ..stub.options() }).unwrap()
}

#[test]
fn every_operation_is_its_launches_and_nothing_else() {
    let Some(stub) = Stub::all() else { return };
    let device = launches_alone(&stub);
    let mut stream = device.stream().unwrap();
    for op in DType::ALL.into_iter().flat_map(ops) {
        let mut tensors = Tensors::of(&device, &op);
        for engine in device.engines(&op) {
            let kernel = stream.prepare(&op, Some(engine)).unwrap();
            assert!(kernel.dispatches() > 0, "{op} on {engine}");
            encode(&mut stream, &kernel, &mut tensors);
            stub.clear();
            encode(&mut stream, &kernel, &mut tensors);
            let mut calls = stub.calls();
            // What the driver computes for an argument is no work of the GPU's.
            calls.retain(|call| call != "cuTensorMapEncodeTiled");
            calls.extend(
                stub.calls_of(Lib::CublasLt).into_iter().filter(|call| call != "cublasLtMatmulDescSetAttribute"),
            );
            assert_eq!(calls.len(), kernel.dispatches(), "{op} on {engine}: {calls:?}");
            let legal = ["cuLaunchKernel", "cuLaunchKernelEx", "cublasLtMatmul"];
            assert!(calls.iter().all(|call| legal.contains(&call.as_str())), "{op} on {engine}: {calls:?}");
            // A kernel is what it was launched for.
            for launch in stub.launches() {
                let dtype = format!("_{}", op.dtype());
                assert!(engine != FUSED || launch.name().contains(&dtype), "{} for {op}", launch.name());
                assert!(launch.grid.iter().all(|&blocks| blocks > 0) && (1..=1024).contains(&launch.threads));
            }
        }
    }
    assert_eq!(device.module_counters().rejected, 0);
}

#[test]
fn kernels_get_the_addresses_of_their_operands_and_the_parameters() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let op = Op::from(RmsNorm::new(4, 64, 1e-5, DType::F32));
    let kernel = stream.prepare(&op, Some(FUSED)).unwrap();
    let mut tensors = Tensors::of(&device, &op);
    let addresses: Vec<u64> = tensors.inputs.iter().chain(&tensors.outputs).map(Buffer::address).collect();
    stub.read_arguments(3);
    stub.clear();
    encode(&mut stream, &kernel, &mut tensors);
    assert_eq!(stub.launches()[0].arguments[..3], addresses);
}

#[test]
fn tensor_maps_are_of_the_calls_own_addresses() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let op = Op::from(LoraLinear::new(512, 1024, 1024, 16, 2.0, DType::BF16));
    let kernel = stream.prepare(&op, Some(MMA)).unwrap();
    let alloc = |operand: &candlewick_core::op::Operand| device.alloc(operand.dtype, operand.span + 16).unwrap();
    let operands = op.operands().unwrap();
    let inputs: Vec<Buffer> = operands.inputs.iter().map(alloc).collect();
    let mut y = alloc(&operands.outputs[0]);
    stub.read_arguments(5);
    let mut launched = |offset: usize| {
        stub.clear();
        let part = |index: usize| inputs[index].slice(offset..offset + operands.inputs[index].span);
        let mut written = [y.slice_mut(offset..offset + operands.outputs[0].span)];
        stream.encode(&kernel, &[part(0), part(1), part(2), part(3)], &mut written).unwrap();
        stub.launches()[0]
    };
    // Of x, W and A, whose copies need multiples of 16 bytes; then B, and y.
    let at = |index: usize, offset: u64| inputs[index].address() + 2 * offset;
    for offset in [0, 8] {
        let launch = launched(offset);
        assert!(launch.name().starts_with("warp_specialised_"), "{}", launch.name());
        let offset = offset as u64;
        assert_eq!(launch.arguments[..4], [at(0, offset), at(1, offset), at(2, offset), at(3, offset)]);
    }
    stub.read_arguments(0);
    assert!(!launched(1).name().starts_with("warp_specialised_"));
}

/// Blocks of a launch that wait for each other count from zero.
#[test]
fn a_layer_that_counts_is_prepared_with_zeros() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    for (rows, counts) in [(512, true), (128, false)] {
        stub.clear();
        let op = Op::from(LoraLinear::new(rows, 4096, 4096, 16, 2.0, DType::BF16));
        let kernel = stream.prepare(&op, Some(MMA)).unwrap();
        assert_eq!(kernel.variant().contains("stacked"), counts, "{}", kernel.variant());
        let cleared = stub.calls_of(Lib::Cuda).iter().filter(|call| *call == "cuMemsetD8Async").count();
        assert_eq!(cleared, usize::from(counts));
    }
}

#[test]
fn addresses_decide_between_wide_and_narrow_accesses() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let mut name_at = |op: &Op, engine, offset: usize| {
        let kernel = stream.prepare(op, Some(engine)).unwrap();
        let operands = op.operands().unwrap();
        let alloc = |operand: &candlewick_core::op::Operand| device.alloc(operand.dtype, operand.span + 16).unwrap();
        let inputs: Vec<_> = operands.inputs.iter().map(alloc).collect();
        let mut outputs: Vec<_> = operands.outputs.iter().map(alloc).collect();
        stub.clear();
        let part = |buffer: &Buffer| offset..candlewick_core::backend::Argument::elements(buffer);
        let views: Vec<_> = inputs.iter().map(|buffer| buffer.slice(part(buffer))).collect();
        let mut written: Vec<_> = outputs.iter_mut().map(|buffer| buffer.slice_mut(part(buffer))).collect();
        stream.encode(&kernel, &views, &mut written).unwrap();
        if engine == CUBLASLT {
            return stub.launches_of(Lib::CublasLt)[0].shared.to_string();
        }
        stub.launches()[0].name().to_string()
    };
    let softmax = Op::from(Softmax::new(8, 4096, DType::BF16));
    assert_eq!(name_at(&softmax, FUSED, 0), "softmax_group_bf16_wide");
    assert_eq!(name_at(&softmax, FUSED, 8), "softmax_group_bf16_wide");
    assert_eq!(name_at(&softmax, FUSED, 1), "softmax_group_bf16");
    let product = Op::from(MatMul::new(64, 64, 64, DType::BF16));
    assert_eq!(name_at(&product, CUBLASLT, 8), "16");
    assert_eq!(name_at(&product, CUBLASLT, 1), "2");
}

#[test]
fn wrong_arguments_reach_no_driver() {
    let (Some(stub), Some(other)) = (Stub::all(), Stub::all()) else { return };
    let (device, elsewhere) = (stub.open(), other.open());
    let mut stream = device.stream().unwrap();
    let op = Op::from(Softmax::new(4, 8, DType::F32));
    let kernel = stream.prepare(&op, None).unwrap();
    let x = device.alloc(DType::F32, 32).unwrap();
    let short = device.alloc(DType::F32, 31).unwrap();
    let foreign = elsewhere.alloc(DType::F32, 32).unwrap();
    let mut y = device.alloc(DType::F32, 32).unwrap();
    stub.clear();
    let mut refused = |stream: &mut Stream, x: &Buffer| {
        stream.encode(&kernel, &[x.into()], &mut [(&mut y).into()]).unwrap_err().to_string()
    };
    assert!(refused(&mut stream, &short).contains("31 were given"));
    let error = refused(&mut stream, &foreign);
    assert!(error.contains("softmax: x belongs to cuda device") && error.contains("open the device once"), "{error}");
    let mut another = device.stream().unwrap();
    stub.clear();
    assert!(refused(&mut another, &x).contains("prepare it on the stream that encodes it"));
    assert_eq!(stub.calls(), Vec::<String>::new());
}

#[test]
fn dependent_launches_carry_their_attribute_and_their_kernels_are_others() {
    let Some(stub) = Stub::all() else { return };
    let op = Op::from(Softmax::new(4, 8, DType::F32));
    let run = |dependent_launch| {
        let device = Device::with_options(0, Options { dependent_launch, ..stub.options() }).unwrap();
        let mut stream = device.stream().unwrap();
        let kernel = stream.prepare(&op, None).unwrap();
        let mut tensors = Tensors::of(&device, &op);
        stub.clear();
        encode(&mut stream, &kernel, &mut tensors);
        let (calls, attributes) = (stub.calls(), stub.launches()[0].attributes);
        (calls, attributes, device.module_counters().compiled)
    };
    assert_eq!(run(false), (vec!["cuLaunchKernel".to_string()], 0, 1));
    assert_eq!(run(true), (vec!["cuLaunchKernelEx".to_string()], 1, 1), "compiled anew, not taken from the cache");
    stub.set_device(1, 8, 0);
    assert_eq!(run(true).1, 0, "not before compute capability 9.0");
}

#[test]
fn numbers_travel_and_packing_launches() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    fn there_and_back<T: Element + PartialEq>(device: &Device, stream: &mut Stream, count: usize) {
        let mut buffer = device.alloc(T::DTYPE, count).unwrap();
        let mut back = vec![T::from_f64(7.0); count];
        stream.read(&buffer, &mut back).unwrap();
        assert!(back.iter().all(|x| x.to_f64() == 0.0), "new memory is zero");
        let numbers: Vec<T> = (0..count).map(|i| T::from_f64((i % 251) as f64)).collect();
        stream.write(&mut buffer, &numbers).unwrap();
        stream.read(&buffer, &mut back).unwrap();
        assert!(back == numbers);
    }
    for count in [0, 1, 1000, 3 << 20] {
        there_and_back::<f32>(&device, &mut stream, count);
        there_and_back::<half::bf16>(&device, &mut stream, count);
    }
    let mut f32s = device.alloc(DType::F32, 8).unwrap();
    assert!(matches!(stream.write(&mut f32s, &[half::f16::ONE; 8]), Err(Error::DType { .. })));
    assert!(matches!(stream.read(&f32s, &mut [0f32; 7]), Err(Error::ShapeMismatch { .. })));

    let op = Op::from(MatMul::new(4, 8, 16, DType::F32).packed_b());
    let kernel = stream.prepare(&op, None).unwrap();
    let b = device.alloc(DType::F32, 128).unwrap();
    stub.clear();
    let packed = stream.pack(&kernel, (&b).into()).unwrap();
    assert_eq!(stub.launches()[0].name(), "copy_rows_f32");
    let (a, mut c) = (device.alloc(DType::F32, 64).unwrap(), device.alloc(DType::F32, 32).unwrap());
    stream.encode(&kernel, &[(&a).into(), (&packed).into()], &mut [(&mut c).into()]).unwrap();
    let error = stream.encode(&kernel, &[(&a).into(), (&b).into()], &mut [(&mut c).into()]).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error}");
}

#[test]
fn the_hosts_part_of_encode() {
    let Some(stub) = Stub::all() else { return };
    for (device, how) in [(launches_alone(&stub), "launches"), (stub.open(), "graphs of what comes again")] {
        println!("{how}");
        hosts_part(&device);
    }
}

fn hosts_part(device: &Device) {
    let mut stream = device.stream().unwrap();
    let dtype = DType::BF16;
    let lora = |rows, side, rank| Op::from(LoraLinear::new(rows, side, side, rank, 2.0, dtype));
    let ops = [
        MatMul::new(64, 64, 64, dtype).into(),
        lora(32, 512, 8),
        lora(512, 1024, 16),
        Op::LoraLinearBackward(LoraLinear::new(512, 1024, 1024, 16, 2.0, dtype)),
        Softmax::new(128, 4096, dtype).into(),
    ];
    for op in ops {
        let Tensors { inputs, mut outputs } = Tensors::of(device, &op);
        let inputs: Vec<Input<'_>> = inputs.iter().map(Into::into).collect();
        let mut outputs: Vec<Output<'_>> = outputs.iter_mut().map(Into::into).collect();
        for engine in device.engines(&op) {
            let kernel = stream.prepare(&op, Some(engine)).unwrap();
            let (times, start) = (5000, Instant::now());
            for _ in 0..times {
                stream.encode(&kernel, &inputs, &mut outputs).unwrap();
            }
            let each = start.elapsed().as_nanos() / times;
            // The stand-in's own part, with its lock, is in it.
            println!("{op} on {engine} ({}, {} launches): {each} ns", kernel.variant(), kernel.dispatches());
            assert!(each < if cfg!(debug_assertions) { 50_000 } else { 5_000 }, "{each} ns");
        }
    }
}
