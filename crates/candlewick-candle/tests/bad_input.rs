//! Every mistake is an error that names the operation, both shapes and the remedy; none is a panic.

mod numbers;

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{Linear, VarBuilder, VarMap};
use candlewick_candle::{LoraConfig, LoraLinear, lora_delta, lora_linear, matmul, rms_norm, softmax, softmax_causal};

fn f32(shape: &[usize]) -> Tensor {
    numbers::tensor(1, shape, DType::F32)
}

fn of(dtype: DType, shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).unwrap()
}

#[track_caller]
fn refused<T>(result: Result<T>, parts: &[&str]) {
    let Err(error) = result else { panic!("no error, expected one with {parts:?}") };
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
}

#[test]
fn shapes_of_a_product() {
    refused(matmul(&f32(&[64, 32]), &f32(&[16, 8])), &["matmul: a [64, 32] and b [16, 8]", "columns of a"]);
    refused(matmul(&f32(&[3, 2, 5]), &f32(&[4, 5, 2])), &["matmul: a [3, 2, 5] and b [4, 5, 2]", "leading dimensions"]);
    refused(matmul(&f32(&[4]), &f32(&[4, 2])), &["matmul: a [4] and b [4, 2]", "two dimensions"]);
    refused(matmul(&f32(&[]), &f32(&[])), &["matmul: a [] and b []", "two dimensions"]);
    refused(matmul(&f32(&[0, 3]), &f32(&[2, 0])), &["matmul: a [0, 3] and b [2, 0]"]);
}

#[test]
fn shapes_of_softmax() {
    refused(softmax(&f32(&[]), 1.0), &["softmax: x has shape []", "scalar"]);
    refused(softmax_causal(&f32(&[4]), 1.0), &["softmax: x has shape [4]", "queries"]);
    refused(softmax_causal(&f32(&[5, 4]), 1.0), &["softmax: x has shape [5, 4]", "as many keys as queries"]);
    refused(softmax_causal(&f32(&[]), 1.0), &["softmax: x has shape []"]);
}

#[test]
fn shapes_of_rms_norm() {
    refused(rms_norm(&f32(&[2, 4]), &f32(&[5]), 1e-5), &["rms_norm: x [2, 4] and weight [5]", "[n]"]);
    refused(rms_norm(&f32(&[2, 4]), &f32(&[1, 4]), 1e-5), &["rms_norm: x [2, 4] and weight [1, 4]"]);
    refused(rms_norm(&f32(&[]), &f32(&[1]), 1e-5), &["rms_norm: x [] and weight [1]"]);
    refused(rms_norm(&f32(&[2, 4]), &f32(&[]), 1e-5), &["rms_norm: x [2, 4] and weight []"]);
    refused(rms_norm(&f32(&[2, 4]), &f32(&[4]), -1.0), &["rms_norm", "eps = -1"]);
    refused(rms_norm(&f32(&[2, 4]), &f32(&[4]), f32::NAN), &["rms_norm", "eps"]);
}

#[test]
fn shapes_of_lora() {
    let (x, w, a, b) = (f32(&[3, 5]), f32(&[4, 5]), f32(&[2, 5]), f32(&[4, 2]));
    refused(lora_linear(&f32(&[3, 6]), &w, None, &a, &b, 1.0), &["lora_linear: x [3, 6] and w [4, 5]"]);
    refused(lora_linear(&f32(&[]), &w, None, &a, &b, 1.0), &["lora_linear: x [] and w [4, 5]"]);
    refused(lora_linear(&x, &f32(&[5]), None, &a, &b, 1.0), &["lora_linear: w has shape [5]", "[out, in]"]);
    refused(lora_linear(&x, &w, Some(&f32(&[5])), &a, &b, 1.0), &["lora_linear: w [4, 5] and bias [5]"]);
    refused(lora_linear(&x, &w, None, &f32(&[2, 6]), &b, 1.0), &["lora_linear: x [3, 5] and a [2, 6]"]);
    refused(lora_linear(&x, &w, None, &f32(&[5]), &b, 1.0), &["lora_linear: x [3, 5] and a [5]"]);
    refused(lora_linear(&x, &w, None, &a, &f32(&[4, 3]), 1.0), &["lora_linear: a [2, 5] and b [4, 3]"]);
    refused(lora_linear(&x, &w, None, &a, &f32(&[3, 2]), 1.0), &["lora_linear: w [4, 5] and b [3, 2]"]);
    refused(lora_linear(&x, &w, None, &a, &b, f32::INFINITY), &["lora_linear", "scale", "alpha / rank"]);
    refused(lora_delta(&f32(&[3, 6]), &a, &b, 1.0), &["lora_delta: x [3, 6] and a [2, 5]"]);
    refused(lora_delta(&f32(&[]), &a, &b, 1.0), &["lora_delta: x [] and a [2, 5]"]);
    refused(lora_delta(&x, &a, &f32(&[4, 3]), 1.0), &["lora_delta: a [2, 5] and b [4, 3]"]);
}

#[test]
fn dtypes() {
    for dtype in [DType::F64, DType::U8, DType::U32, DType::I64] {
        let bad = of(dtype, &[4, 4]);
        let name = dtype.as_str();
        let good = f32(&[4, 4]);
        refused(matmul(&bad, &good), &["matmul: a is ", name, "convert"]);
        refused(matmul(&good, &bad), &["matmul: b is ", name, "convert"]);
        refused(softmax(&bad, 1.0), &["softmax: x is ", name]);
        refused(rms_norm(&bad, &f32(&[4]), 1e-5), &["rms_norm: x is ", name]);
        refused(lora_linear(&bad, &good, None, &good, &good, 1.0), &["lora_linear: x is ", name]);
        refused(lora_linear(&good, &bad, None, &good, &good, 1.0), &["lora_linear: w is ", name]);
        refused(lora_linear(&good, &good, Some(&bad), &good, &good, 1.0), &["lora_linear: bias is ", name]);
        refused(lora_delta(&good, &bad, &good, 1.0), &["lora_delta: a is ", name]);
    }
    let (f32, f16) = (f32(&[4, 4]), of(DType::F16, &[4, 4]));
    refused(matmul(&f32, &f16), &["matmul: a [4, 4] is f32 and b [4, 4] is f16", "convert"]);
    refused(lora_delta(&f32, &f32, &f16, 1.0), &["lora_delta: x [4, 4] is f32 and b [4, 4] is f16"]);
    refused(rms_norm(&f32, &of(DType::BF16, &[4]), 1e-5), &["rms_norm: x [4, 4] is f32 and weight [4] is bf16"]);
    refused(lora_linear(&f32, &f16, None, &f32, &f32, 1.0), &["lora_linear: x [4, 4] is f32 and w [4, 4] is f16"]);
}

#[test]
fn layers() -> Result<()> {
    let base = Linear::new(f32(&[4, 5]), None);
    let variables = VarMap::new();
    let builder = || VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let config = LoraConfig::new(2, 4.0);
    refused(
        LoraLinear::new(&base, LoraConfig::new(0, 4.0), builder()),
        &["lora_linear", "rank: 0", "[4, 5]", "at least 1"],
    );
    refused(LoraLinear::new(&base, LoraConfig::new(2, f32::NAN), builder()), &["lora_linear", "alpha: NaN", "finite"]);
    refused(LoraLinear::new(&Linear::new(f32(&[4]), None), config, builder()), &["lora_linear: w has shape [4]"]);
    let layer = |a: &Tensor, b: &Tensor| LoraLinear::from_tensors(&base, config, a.clone(), b.clone());
    refused(layer(&f32(&[3, 5]), &f32(&[4, 2])), &["lora_linear: w [4, 5] and a [3, 5]", "as configured"]);
    refused(layer(&f32(&[2, 5]), &f32(&[4, 3])), &["lora_linear: w [4, 5] and b [4, 3]", "as configured"]);
    refused(layer(&of(DType::I64, &[2, 5]), &f32(&[4, 2])), &["lora_linear: a is i64"]);
    let layer = layer(&f32(&[2, 5]), &f32(&[4, 2]))?;
    refused(layer.forward(&f32(&[3, 4])), &["lora_linear: x [3, 4] and w [4, 5]"]);
    refused(layer.forward(&of(DType::F16, &[3, 5])), &["lora_linear: x [3, 5] is f16 and w [4, 5] is f32"]);
    Ok(())
}

#[test]
fn sizes_beyond_any_memory() -> Result<()> {
    let one = f32(&[1, 1]);
    let huge = 1usize << 40;
    refused(softmax(&one.broadcast_as((huge, huge))?, 1.0), &["softmax: x", "more bytes"]);
    refused(matmul(&f32(&[huge, 0]), &f32(&[0, huge])), &["matmul: c", "more bytes"]);
    Ok(())
}
