//! What fails later: whose error it may be, and what comes after.

mod stub;

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, MatMul, Op, RmsNorm, Softmax};
use candlewick_cuda::{Buffer, Device, FUSED, Stream};
use stub::{Lib, Stub};

fn run(device: &Device, stream: &mut Stream, op: &Op) -> candlewick_core::Result<()> {
    let kernel = stream.prepare(op, Some(FUSED))?;
    let operands = op.operands()?;
    let alloc = |operand: &candlewick_core::op::Operand| device.alloc(operand.dtype, operand.span);
    let inputs = operands.inputs.iter().map(alloc).collect::<Result<Vec<Buffer>, _>>()?;
    let mut output = alloc(&operands.outputs[0])?;
    let inputs: Vec<_> = inputs.iter().map(Into::into).collect();
    stream.encode(&kernel, &inputs, &mut [(&mut output).into()])
}

fn softmax() -> Op {
    Softmax::new(4, 64, DType::F32).into()
}

fn norm() -> Op {
    RmsNorm::new(4, 64, 1e-5, DType::F32).into()
}

#[test]
fn an_asynchronous_error_names_the_operations_since_the_last_wait() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    run(&device, &mut stream, &Op::from(MatMul::new(8, 8, 8, DType::F32))).unwrap();
    stream.wait().unwrap();
    run(&device, &mut stream, &softmax()).unwrap();
    run(&device, &mut stream, &norm()).unwrap();
    stub.fail(Lib::Cuda, "cuStreamQuery", 1, 700);
    let error = stream.wait().unwrap_err().to_string();
    assert_eq!(
        error,
        "cuda:0: cuStreamQuery: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered); of the 2 operations \
         since the last wait, one of: rms_norm on cuda/fused, softmax on cuda/fused. This process can use the device no more: \
         start it again"
    );
}

#[test]
fn after_a_lost_context_nothing_is_called_and_every_call_says_why() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let (mut stream, mut other) = (device.stream().unwrap(), device.stream().unwrap());
    let mut buffer = device.alloc(DType::F32, 16).unwrap();
    let (x, mut y) = (device.alloc(DType::F32, 256).unwrap(), device.alloc(DType::F32, 256).unwrap());
    let kernel = other.prepare(&softmax(), Some(FUSED)).unwrap();
    run(&device, &mut other, &norm()).unwrap();
    run(&device, &mut stream, &softmax()).unwrap();
    stub.break_with(719);
    assert!(stream.wait().is_err());
    stub.clear();
    let told = |error: candlewick_core::Error| {
        let error = error.to_string();
        assert!(
            error.contains("an earlier failure: cuStreamQuery") && error.contains("softmax on cuda/fused"),
            "{error}"
        );
    };
    told(stream.wait().unwrap_err());
    told(other.wait().unwrap_err());
    told(other.flush().unwrap_err());
    told(device.alloc(DType::F32, 16).unwrap_err());
    told(stream.write(&mut buffer, &[0f32; 16]).unwrap_err());
    told(stream.read(&buffer, &mut [0f32; 16]).unwrap_err());
    told(device.stream().err().unwrap());
    told(stream.prepare(&Op::from(MatMul::new(8, 8, 8, DType::F32)), Some(FUSED)).err().unwrap());
    told(other.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap_err());
    drop(kernel);
    drop((stream, other, buffer, x, y, device));
    let calls: Vec<String> = stub.calls();
    assert_eq!(calls, Vec::<String>::new(), "the driver was called after it was lost");
}

#[test]
fn an_error_of_a_launch_is_the_operations_and_no_others() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    run(&device, &mut stream, &softmax()).unwrap();
    stub.fail(Lib::Cuda, "cuLaunchKernelEx", 1, 701);
    let error = run(&device, &mut stream, &norm()).unwrap_err().to_string();
    assert!(error.contains("cuLaunchKernel: CUDA_ERROR_STUB (as told)") && error.contains("rms_norm"), "{error}");
    stream.wait().unwrap();
    run(&device, &mut stream, &norm()).unwrap();
    stream.wait().unwrap();
}

#[test]
fn a_reader_hears_of_it() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let buffer = device.alloc(DType::F32, 16).unwrap();
    run(&device, &mut stream, &norm()).unwrap();
    stub.fail(Lib::Cuda, "cuStreamQuery", 1, 716);
    let error = stream.read(&buffer, &mut [0f32; 16]).unwrap_err().to_string();
    assert!(error.contains("rms_norm on cuda/fused"), "{error}");
}

#[test]
fn whoever_meets_the_error_first_the_stream_knows_its_operations() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    run(&device, &mut stream, &softmax()).unwrap();
    stub.break_with(700);
    assert!(device.alloc(DType::F32, 64 << 20).is_err());
    let error = stream.wait().unwrap_err().to_string();
    assert!(error.contains("an earlier failure: cu") && error.contains("one of: softmax on cuda/fused"), "{error}");
}
