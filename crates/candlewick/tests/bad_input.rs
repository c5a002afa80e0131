//! Wrong descriptors and arguments: each is a typed error that names the operation, what met what, and the remedy.

use candlewick::op::{Format, Operand};
use candlewick::{
    Buffer, DType, Device, Error, Input, Kernel, Layout, LoraDelta, LoraLinear, MatMul, Op, Output, Result, RmsNorm,
    Softmax, Stream, lora,
};
use half::{bf16, f16};

const F32: DType = DType::F32;

/// An error whose message holds every one of these words.
#[track_caller]
fn assert_says<T>(result: Result<T>, words: &[&str]) {
    let text = match result {
        Ok(_) => panic!("accepted; expected an error that says {words:?}"),
        Err(error) => error.to_string(),
    };
    for word in words {
        assert!(text.contains(word), "`{text}` does not say `{word}`");
    }
}

fn descriptor(op: impl Into<Op>) -> Result<Kernel> {
    Device::cpu().stream()?.prepare(op)
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let of = |a: &[usize], b: &[usize]| {
        let strides =
            |shape: &[usize]| -> Vec<usize> { (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect() };
        MatMul::of(Layout::new(a, &strides(a)), Layout::new(b, &strides(b)), F32)
    };
    assert_says(of(&[64, 32], &[16, 8]), &["matmul", "[64, 32]", "[16, 8]", "columns of a"]);
    assert_says(of(&[3, 4, 5], &[2, 5, 6]), &["matmul", "[3, 4, 5]", "[2, 5, 6]", "leading dimensions"]);
    assert_says(of(&[4], &[4, 4]), &["matmul", "a has shape [4]", "two dimensions"]);
    assert_says(of(&[4, 4], &[]), &["matmul", "b has shape []", "two dimensions"]);
    let strided = MatMul::of(Layout::new(&[4, 4], &[8, 2]), Layout::new(&[4, 4], &[4, 1]), F32);
    assert_says(strided, &["matmul", "[4, 4]", "[8, 2]", "contiguous"]);
}

#[test]
fn descriptors_that_contradict_themselves_are_named() {
    let product = MatMul::new(4, 6, 5, F32);
    let mut overlapping = product.batched(2);
    overlapping.batch.c[2] = 5;
    let norm = |eps| RmsNorm::new(2, 4, eps, F32);
    let softmax = Softmax::new(6, 4, F32);
    let linear = LoraLinear::new(2, 4, 6, 2, 1.0, F32);
    assert_says(descriptor(MatMul { lda: 4, ..product }), &["matmul", "lda = 4", "columns"]);
    assert_says(descriptor(MatMul { ldb: 5, ..product }), &["matmul", "ldb = 5"]);
    assert_says(descriptor(MatMul { ldc: 0, ..product }), &["matmul", "ldc = 0"]);
    assert_says(descriptor(overlapping), &["matmul", "c [2, 4, 6]", "overlap"]);
    assert_says(descriptor(product.batched(2).packed_b()), &["matmul", "b_format", "plain"]);
    assert_says(descriptor(MatMul::new(usize::MAX, 2, usize::MAX, F32)), &["matmul", "address"]);
    assert_says(descriptor(norm(-1.0)), &["rms_norm", "eps = -1", "zero or more"]);
    assert_says(descriptor(norm(f32::NAN)), &["rms_norm", "eps = NaN"]);
    assert_says(descriptor(Op::RmsNormBackward(norm(-1.0))), &["rms_norm_backward", "eps"]);
    assert_says(descriptor(softmax.causal(4)), &["softmax", "mask", "divide"]);
    assert_says(descriptor(softmax.causal(0)), &["softmax", "mask"]);
    assert_says(descriptor(softmax.causal(6)), &["softmax", "mask", "at least as many columns"]);
    assert_says(descriptor(Softmax { x_row: 3, ..softmax }), &["softmax", "x_row = 3"]);
    assert_says(descriptor(Op::SoftmaxBackward(Softmax { y_row: 0, ..softmax })), &["softmax_backward", "y_row = 0"]);
    assert_says(descriptor(LoraLinear { x_row: 3, ..linear }), &["lora_linear", "x_row = 3"]);
    assert_says(descriptor(LoraLinear { scale: f32::INFINITY.into(), ..linear }), &["lora_linear", "scale = inf"]);
    let delta = LoraDelta::new(2, 4, 6, 0, f32::NAN, F32);
    assert_says(descriptor(delta), &["lora_delta", "scale = NaN", "rank"]);
    assert_says(descriptor(Op::LoraDeltaBackward(delta)), &["lora_delta_backward", "scale = NaN"]);
    assert_says(descriptor(LoraLinear::new(1, usize::MAX, 2, 1, 1.0, F32)), &["lora_linear", "address"]);
}

#[test]
fn an_engine_that_is_not_there_is_named_with_those_that_are() {
    let mut stream = Device::cpu().stream().unwrap();
    let elsewhere = Device::open("empty").unwrap().info().engines[0];
    let error = stream.prepare_with(MatMul::new(2, 2, 2, F32), elsewhere);
    assert_says(error, &["matmul", &elsewhere.to_string(), "2x2x2", "cpu/portable"]);
    assert_says(Device::open("gpu:0").map(|_| ()), &["gpu:0", "cpu:N", "cuda:N"]);
}

/// Every operation of small sizes, packed ones too.
fn ops() -> Vec<Op> {
    let linear = LoraLinear::new(3, 4, 6, 2, 1.0, F32);
    let softmax = Softmax::new(3, 5, F32);
    let norm = RmsNorm::new(3, 5, 1e-5, F32);
    let delta = LoraDelta::new(3, 4, 6, 2, 1.0, F32);
    vec![
        MatMul::new(3, 4, 5, F32).into(),
        MatMul::new(3, 4, 5, F32).packed_b().into(),
        softmax.into(),
        Op::SoftmaxBackward(softmax),
        norm.into(),
        Op::RmsNormBackward(norm),
        linear.with_bias().into(),
        linear.packed().into(),
        Op::LoraLinearBackward(linear),
        Op::LoraLinearBackward(linear.packed()),
        delta.into(),
        Op::LoraDeltaBackward(delta),
    ]
}

/// A kernel with right arguments, of which a test makes one wrong.
struct Call {
    stream: Stream,
    device: Device,
    kernel: Kernel,
    inputs: Vec<Buffer>,
    outputs: Vec<Buffer>,
}

impl Call {
    fn new(op: Op) -> Self {
        let device = Device::cpu();
        let mut stream = device.stream().unwrap();
        let kernel = stream.prepare(op).unwrap();
        let operands = op.operands().unwrap();
        let alloc = |operand: &Operand| device.alloc(operand.dtype, operand.span).unwrap();
        let mut inputs: Vec<Buffer> = operands.inputs.iter().map(alloc).collect();
        let outputs = operands.outputs.iter().map(alloc).collect();
        if let Some(factor) = op.packed_factor() {
            inputs[factor.input] = stream.pack(&kernel, (&inputs[factor.input]).into()).unwrap();
        }
        Call { stream, device, kernel, inputs, outputs }
    }

    fn encode(&mut self) -> Result<()> {
        let inputs: Vec<Input<'_>> = self.inputs.iter().map(Into::into).collect();
        let mut outputs: Vec<Output<'_>> = self.outputs.iter_mut().map(Into::into).collect();
        self.stream.encode(&self.kernel, &inputs, &mut outputs)
    }
}

#[test]
fn every_wrong_argument_of_every_operation_is_named() {
    for op in ops() {
        let name = op.name();
        let operands = op.operands().unwrap();
        Call::new(op).encode().unwrap_or_else(|error| panic!("the right arguments of {op}: {error}"));
        let all = operands.inputs.iter().map(|operand| (operand, true)).enumerate();
        let all: Vec<_> = all.chain(operands.outputs.iter().map(|operand| (operand, false)).enumerate()).collect();
        for (i, (operand, read)) in all {
            let wrong = |argument: &dyn Fn(&mut Call) -> Buffer| {
                let mut call = Call::new(op);
                let argument = argument(&mut call);
                *(if read { &mut call.inputs[i] } else { &mut call.outputs[i] }) = argument;
                call.encode()
            };
            let shape = operand.shape.to_string();
            let (span, short) = (operand.span.to_string(), (operand.span - 1).to_string());
            let packed = operand.format == Format::Packed;
            for dtype in [DType::F16, DType::BF16] {
                let other = wrong(&|call| call.device.alloc(dtype, operand.span).unwrap());
                let says = if packed { [name, operand.name, "packed"] } else { [name, operand.name, dtype.name()] };
                assert_says(other, &says);
            }
            let too_short = wrong(&|call| call.device.alloc(F32, operand.span - 1).unwrap());
            if packed {
                assert_says(too_short, &[name, operand.name, "not packed", "Stream::pack"]);
            } else {
                assert_says(too_short, &[name, operand.name, &shape, &span, &short]);
                assert_says(wrong(&|call| call.device.alloc(F32, 0).unwrap()), &[name, operand.name, "0 were given"]);
                assert_says(wrong(&packed_elsewhere), &[name, operand.name, "[5, 4] packed", "not packed"]);
            }
        }
        for (missing, role) in [(true, "inputs"), (false, "outputs")] {
            let mut call = Call::new(op);
            drop(if missing { call.inputs.pop() } else { call.outputs.pop() });
            let names = if missing { &operands.inputs } else { &operands.outputs };
            assert_says(call.encode(), &[name, role, "expected", names[0].name]);
            let mut call = Call::new(op);
            for _ in 0..20 {
                let extra = call.device.alloc(F32, 100).unwrap();
                if missing { call.inputs.push(extra) } else { call.outputs.push(extra) }
            }
            assert_says(call.encode(), &[name, role, "expected", names[0].name]);
        }
    }
}

/// B of a 3x4x5 product, packed.
fn packed_elsewhere(call: &mut Call) -> Buffer {
    let kernel = call.stream.prepare(MatMul::new(3, 4, 5, F32).packed_b()).unwrap();
    call.stream.pack(&kernel, [0f32; 20][..].into()).unwrap()
}

#[test]
fn a_factor_packed_for_another_shape_or_dtype_is_refused() {
    let op = MatMul::new(3, 4, 6, F32).packed_b();
    let mut call = Call::new(op.into());
    call.inputs[1] = packed_elsewhere(&mut call);
    assert_says(call.encode(), &["matmul", "b is f32 [5, 4] packed", "f32 [6, 4] packed", "Stream::pack"]);
    // Of the same size as [6, 4], and not the same.
    let kernel = call.stream.prepare(MatMul::new(3, 6, 4, F32).packed_b()).unwrap();
    call.inputs[1] = call.stream.pack(&kernel, [0f32; 24][..].into()).unwrap();
    assert_says(call.encode(), &["matmul", "[4, 6]", "[6, 4]"]);
    let kernel = call.stream.prepare(MatMul::new(3, 4, 6, DType::BF16).packed_b()).unwrap();
    call.inputs[1] = call.stream.pack(&kernel, [bf16::ZERO; 24][..].into()).unwrap();
    assert_says(call.encode(), &["matmul", "bf16", "f32"]);
}

#[test]
fn what_cannot_be_packed_is_named() {
    let mut stream = Device::cpu().stream().unwrap();
    let plain = stream.prepare(MatMul::new(3, 4, 5, F32)).unwrap();
    assert_says(stream.pack(&plain, [0f32; 20][..].into()), &["matmul", "Plain", "Packed"]);
    let kernel = stream.prepare(MatMul::new(3, 4, 5, F32).packed_b()).unwrap();
    assert_says(stream.pack(&kernel, [0f32; 19][..].into()), &["matmul", "b [5, 4]", "20", "19"]);
    assert_says(stream.pack(&kernel, [f16::ZERO; 20][..].into()), &["matmul", "b is f16", "f32"]);
    let packed = stream.pack(&kernel, [0f32; 20][..].into()).unwrap();
    assert_says(stream.pack(&kernel, (&packed).into()), &["matmul", "b is", "not packed"]);
    assert_says(stream.read(&packed, &mut [0f32; 20]), &["read", "packed"]);
}

#[test]
fn kernels_and_buffers_of_elsewhere_are_named() {
    let (cpu, empty) = (Device::cpu(), Device::open("empty").unwrap());
    let op = Softmax::new(1, 4, F32);
    let (mut here, mut there) = (cpu.stream().unwrap(), cpu.stream().unwrap());
    let kernel = there.prepare(op).unwrap();
    let (x, mut y) = ([0f32; 4], [0f32; 4]);
    assert_says(here.encode(&kernel, &[x[..].into()], &mut [y[..].as_mut().into()]), &["softmax", "stream", "prepare"]);
    let elsewhere = empty.stream().unwrap().prepare(op).unwrap();
    assert_says(here.encode(&elsewhere, &[x[..].into()], &mut [y[..].as_mut().into()]), &["softmax", "device"]);
    let kernel = here.prepare(op).unwrap();
    let mut buffer = empty.alloc(F32, 4).unwrap();
    assert_says(here.encode(&kernel, &[(&buffer).into()], &mut [y[..].as_mut().into()]), &["softmax", "device"]);
    assert_says(here.encode(&kernel, &[x[..].into()], &mut [(&mut buffer).into()]), &["softmax", "device"]);
    assert_says(here.pack(&elsewhere, x[..].into()), &["softmax", "device"]);
    assert_says(here.write(&mut buffer, &x), &["write", "device"]);
    assert_says(here.read(&buffer, &mut y), &["read", "device"]);
}

#[test]
fn copies_of_another_length_or_dtype_are_named() {
    let device = Device::cpu();
    let mut stream = device.stream().unwrap();
    let mut buffer = device.alloc(F32, 4).unwrap();
    assert_says(stream.write(&mut buffer, &[0f32; 3]), &["write", "[4]", "[3]", "equal"]);
    assert_says(stream.write(&mut buffer, &[f16::ZERO; 4]), &["write", "f16", "f32"]);
    assert_says(stream.read(&buffer, &mut [0f32; 5]), &["read", "[4]", "[5]"]);
    assert_says(stream.read(&buffer, &mut [bf16::ZERO; 4]), &["read", "bf16", "f32"]);
    assert_says(device.alloc(F32, usize::MAX).map(|_| ()), &["cpu", "bytes"]);
}

#[test]
fn parts_that_leave_their_buffer_are_too_short() {
    let device = Device::cpu();
    let mut stream = device.stream().unwrap();
    let kernel = stream.prepare(Softmax::new(1, 4, F32)).unwrap();
    let (x, mut y) = (device.alloc(F32, 8).unwrap(), device.alloc(F32, 8).unwrap());
    let reversed = std::ops::Range { start: 6, end: 2 };
    for range in [5..9, 8..12, 100..104, reversed, usize::MAX - 1..usize::MAX] {
        let read = stream.encode(&kernel, &[x.slice(range.clone())], &mut [(&mut y).into()]);
        assert_says(read, &["softmax", "x [1, 4]", "were given"]);
        let written = stream.encode(&kernel, &[x.slice(0..4)], &mut [y.slice_mut(range)]);
        assert_says(written, &["softmax", "y [1, 4]", "were given"]);
    }
}

#[test]
fn a_layer_of_wrong_sizes_is_named() {
    let device = Device::cpu();
    let mut stream = device.stream().unwrap();
    let shape = LoraLinear::new(0, 4, 6, 2, 1.0, F32);
    let (w, a, b, bias) = ([0f32; 24], [0f32; 8], [0f32; 12], [0f32; 6]);
    let mut layer = |shape, w: &[f32], bias: Option<&[f32]>, a: &[f32], b: &[f32]| {
        lora::Layer::new(&device, &mut stream, shape, w, bias, a, b)
    };
    assert_says(layer(shape, &w[1..], None, &a, &b), &["lora_linear", "w [6, 4]", "[23]"]);
    assert_says(layer(shape, &w, Some(&bias[1..]), &a, &b), &["lora_linear", "bias [1, 6]", "[5]"]);
    assert_says(layer(shape, &w, None, &a[1..], &b), &["lora_linear", "a [2, 4]", "[7]"]);
    assert_says(layer(shape, &w, None, &a, &b[1..]), &["lora_linear", "b [6, 2]", "[11]"]);
    let huge = LoraLinear { in_features: usize::MAX, x_row: usize::MAX, ..shape };
    assert_says(layer(huge, &w, None, &a, &b), &["lora_linear", "address"]);
    let half = LoraLinear { dtype: DType::F16, ..shape };
    assert_says(layer(half, &w, None, &a, &b), &["f32", "f16"]);
    let layer = layer(shape, &w, Some(&bias), &a, &b).unwrap();
    let (x, mut y, mut da, mut db) = ([0f32; 8], [0f32; 12], [0f32; 8], [0f32; 12]);
    let forward = layer.forward(&mut stream, 3, x[..].into(), y[..].as_mut().into());
    assert_says(forward, &["lora_linear", "x [3, 4]", "12", "8"]);
    let gradients = [y[..].as_mut().into(), da[..].as_mut().into(), db[..].as_mut().into()];
    let backward = layer.backward(&mut stream, 2, x[..].into(), b[..].into(), gradients);
    assert_says(backward, &["lora_linear_backward", "w", "trainable"]);
}

#[test]
fn nothing_is_written_when_encode_refuses() {
    let mut stream = Device::cpu().stream().unwrap();
    let kernel = stream.prepare(MatMul::new(2, 2, 2, F32)).unwrap();
    let mut c = [7f32; 4];
    let refused = stream.encode(&kernel, &[[1f32; 4][..].into(), [1f32; 3][..].into()], &mut [c[..].as_mut().into()]);
    assert!(matches!(refused, Err(Error::TooShort { operand: "b", needed: 4, found: 3, .. })));
    assert_eq!(c, [7.0; 4]);
}
