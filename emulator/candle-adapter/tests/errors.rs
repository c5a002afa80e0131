//! Mistakes with Metal tensors are errors that say what met what.

use candle_adapter_on_the_emulator::metal;
use candle_adapter_on_the_emulator::numbers::{tensor, var};
use candle_core::{DType, Device, Result, Tensor};
use candlewick_candle::metal::{MPS, region};
use candlewick_candle::{lora_linear, matmul, rms_norm, softmax};

#[track_caller]
fn refused<T>(result: Result<T>, parts: &[&str]) {
    let Err(error) = result else { panic!("no error, expected one with {parts:?}") };
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
}

fn on_metal(shape: &[usize]) -> Tensor {
    tensor(1, shape, DType::F32).to_device(&metal()).unwrap()
}

fn on_cpu(shape: &[usize]) -> Tensor {
    tensor(1, shape, DType::F32)
}

#[test]
fn devices_do_not_mix() {
    let elsewhere = Device::new_metal(0).unwrap();
    let other = on_cpu(&[3]).to_device(&elsewhere).unwrap();
    refused(
        matmul(&on_metal(&[2, 3]), &on_cpu(&[3, 2])),
        &["matmul: a is on Metal device", "b is on the CPU", "to_device"],
    );
    refused(rms_norm(&on_metal(&[2, 3]), &other, 1e-5), &["rms_norm", "opened once", "weight", "opened again"]);
    let w = on_cpu(&[4, 3]);
    let (x, a, b) = (on_metal(&[2, 3]), on_metal(&[1, 3]), on_metal(&[4, 1]));
    refused(lora_linear(&x, &w, None, &a, &b, 1.0), &["lora_linear: x is on Metal", "w is on the CPU"]);
}

#[test]
fn shapes_and_dtypes() {
    refused(matmul(&on_metal(&[64, 32]), &on_metal(&[16, 8])), &["matmul: a [64, 32] and b [16, 8]"]);
    refused(softmax(&on_metal(&[]), 1.0), &["softmax: x has shape []", "scalar"]);
    let integers = Tensor::zeros((2, 2), DType::U32, &metal()).unwrap();
    refused(softmax(&integers, 1.0), &["softmax: x is u32"]);
    let halves = on_metal(&[3]).to_dtype(DType::F16).unwrap();
    refused(rms_norm(&on_metal(&[2, 3]), &halves, 1e-5), &["rms_norm: x [2, 3] is f32 and weight [3] is f16"]);
    refused(rms_norm(&on_metal(&[2, 3]), &on_metal(&[3]), -1.0), &["rms_norm", "eps"]);
    let huge = on_metal(&[1]).broadcast_as((1 << 40, 1 << 22)).unwrap();
    refused(softmax(&huge, 1.0), &["softmax: x [1099511627776, 4194304] needs more bytes"]);
}

#[test]
fn regions() {
    let (x, square) = (on_metal(&[2, 3]), on_metal(&[3, 3]));
    refused(region::<0, 0>([], |_, []| Ok([])), &["metal::region: there are no inputs"]);
    refused(region([&on_cpu(&[2])], |_, [x]| Ok([x])), &["input 0 [2] is not on Metal"]);
    refused(region([&x], |_, [x]| Ok([x])), &["result 0 is an input"]);
    refused(
        region([&x, &on_cpu(&[2]).to_device(&Device::new_metal(0).unwrap()).unwrap()], |_, [x, _]| Ok([x])),
        &["input 1 [2] is on another Metal device"],
    );
    let trained = var(1, &[2, 3], DType::F32).to_device(&metal()).unwrap();
    let trained = candle_core::Var::from_tensor(&trained).unwrap();
    refused(region([trained.as_tensor()], |_, [x]| Ok([x])), &["takes part in autograd", "detach"]);
    refused(region([&x], |region, [x]| Ok([region.matmul(&x, &x)?])), &["matmul: a [2, 3] and b [2, 3]"]);
    refused(region([&x, &square], |region, [x, w]| Ok([region.matmul(&x, &w)?.t()?])), &["result 0 is a view"]);
    refused(
        region([&x.t().unwrap()], |region, [x]| Ok([region.softmax(&x, 1.0)?])),
        &["softmax: x [3, 2] has strides [1, 3]", "contiguous"],
    );
    refused(
        region([&x, &on_metal(&[3])], |region, [x, weight]| {
            region.force(Some(MPS));
            Ok([region.rms_norm(&x, &weight, 1e-5)?])
        }),
        &["rms_norm: no engine metal/mps", "metal/msl"],
    );
    let mut escaped = None;
    region([&x, &square], |region, [x, w]| {
        escaped = Some(x.clone());
        Ok([region.matmul(&x, &w)?])
    })
    .unwrap();
    let stranger = escaped.unwrap();
    refused(
        region([&x], |region, [_]| Ok([region.softmax(&stranger, 1.0)?])),
        &["metal::region: x [2, 3] is of another region"],
    );
    // What failed leaves everything usable.
    let [y] = region([&x, &square], |region, [x, w]| Ok([region.matmul(&x, &w)?])).unwrap();
    assert_eq!(y.dims(), [2, 3]);
}
