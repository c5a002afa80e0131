//! Candle on the emulated Metal agrees with Candle on the CPU, in every order, with no report.

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{D, DType, Device, Module, Result, Tensor};
use candle_nn::ops;
use candle_on_the_emulator::{assert_nothing_new, numbers};
use metal_emulator::{Fill, Settings, watch};

fn metal() -> Device {
    Device::new_metal(0).expect("the emulated device")
}

/// Largest difference, relative to 1 + the expected number.
fn difference(got: &Tensor, expected: &Tensor) -> Result<f32> {
    assert_eq!(got.shape(), expected.shape());
    let flat = |tensor: &Tensor| tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
    let (got, expected) = (flat(got)?, flat(expected)?);
    let one = |(got, expected): (&f32, &f32)| {
        if got == expected || (got.is_nan() && expected.is_nan()) {
            0.0
        } else {
            (got - expected).abs() / (1.0 + expected.abs())
        }
    };
    Ok(got
        .iter()
        .zip(&expected)
        .map(one)
        .fold(0.0, |most: f32, d| if d.is_nan() { f32::INFINITY } else { most.max(d) }))
}

/// Runs `operation` on tensors on the CPU and on Metal, under several seeds, and compares.
fn agree(name: &str, inputs: &[&Tensor], bound: f32, operation: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let cpu: Vec<Tensor> = inputs.iter().map(|tensor| (*tensor).clone()).collect();
    let expected = operation(&cpu).unwrap_or_else(|error| panic!("{name} on the CPU: {error}"));
    against(name, inputs, &expected, bound, operation);
}

/// Runs `operation` on Metal, under several seeds, and compares with what is expected.
fn against(
    name: &str,
    inputs: &[&Tensor],
    expected: &Tensor,
    bound: f32,
    operation: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    for seed in [0, 1, 2] {
        let watch = watch(Settings { fill: Fill::Nan, ..Settings::seeded(seed) });
        let device = metal();
        let moved: Vec<Tensor> = inputs.iter().map(|tensor| tensor.to_device(&device).unwrap()).collect();
        let got = operation(&moved).unwrap_or_else(|error| panic!("{name} on Metal: {error}"));
        let error = difference(&got, expected).unwrap();
        assert!(error <= bound, "{name}, seed {seed}: off by {error:e}, at most {bound:e} expected");
        assert_nothing_new(&watch);
    }
}

fn cpu(shape: &[usize], step: usize) -> Tensor {
    numbers(shape, step, &Device::Cpu).unwrap()
}

#[test]
fn elementwise() {
    let x = cpu(&[5, 97], 37);
    let positive = (x.abs().unwrap() + 0.1).unwrap();
    type Unary = fn(&Tensor) -> Result<Tensor>;
    let unary: &[(&str, Unary)] = &[
        ("exp", Tensor::exp),
        ("sin", Tensor::sin),
        ("cos", Tensor::cos),
        ("tanh", Tensor::tanh),
        ("neg", Tensor::neg),
        ("abs", Tensor::abs),
        ("sqr", Tensor::sqr),
        ("floor", Tensor::floor),
        ("ceil", Tensor::ceil),
        ("round", Tensor::round),
        ("gelu", Tensor::gelu),
        ("gelu_erf", Tensor::gelu_erf),
        ("erf", Tensor::erf),
        ("relu", Tensor::relu),
        ("silu", Tensor::silu),
    ];
    for (name, f) in unary {
        agree(name, &[&x], 1e-5, |t| f(&t[0]));
        agree(name, &[&x.t().unwrap()], 1e-5, |t| f(&t[0]));
        for kind in [DType::F16, DType::BF16] {
            agree(name, &[&x.to_dtype(kind).unwrap()], 2e-2, |t| f(&t[0]));
        }
    }
    for (name, f) in [("log", Tensor::log as Unary), ("sqrt", Tensor::sqrt), ("recip", Tensor::recip)] {
        agree(name, &[&positive], 1e-5, |t| f(&t[0]));
    }
    agree("sign", &[&x], 0.0, |t| t[0].sign());
    agree("affine", &[&x], 1e-6, |t| t[0].affine(2.5, -1.0));
    agree("powf", &[&positive], 1e-5, |t| t[0].powf(1.5));
    agree("elu", &[&x], 1e-5, |t| t[0].elu(0.7));
}

#[test]
fn binary_and_comparisons() {
    let (x, y) = (cpu(&[6, 33], 37), cpu(&[6, 33], 91));
    let row = cpu(&[1, 33], 17);
    agree("add", &[&x, &y], 0.0, |t| &t[0] + &t[1]);
    agree("sub", &[&x, &y], 0.0, |t| &t[0] - &t[1]);
    agree("mul", &[&x, &y], 1e-7, |t| &t[0] * &t[1]);
    agree("div", &[&x, &(y.abs().unwrap() + 0.5).unwrap()], 1e-6, |t| &t[0] / &t[1]);
    agree("broadcast_add", &[&x, &row], 0.0, |t| t[0].broadcast_add(&t[1]));
    agree("transposed add", &[&x.t().unwrap(), &y.t().unwrap()], 0.0, |t| &t[0] + &t[1]);
    agree("maximum", &[&x, &y], 0.0, |t| t[0].maximum(&t[1]));
    agree("minimum", &[&x, &y], 0.0, |t| t[0].minimum(&t[1]));
    agree("lt", &[&x, &y], 0.0, |t| t[0].lt(&t[1]));
    agree("where", &[&x, &y], 0.0, |t| t[0].gt(&t[1])?.where_cond(&t[0], &t[1]));
}

#[test]
fn casts_and_copies() {
    let x = (cpu(&[7, 40], 37) * 50.0).unwrap();
    for kind in [DType::F16, DType::BF16, DType::U8, DType::U32, DType::I64] {
        let positive = x.abs().unwrap();
        agree("cast", &[&positive], 0.0, |t| t[0].to_dtype(kind)?.to_dtype(DType::F32));
    }
    agree("contiguous", &[&x], 0.0, |t| t[0].t()?.contiguous());
    agree("narrow", &[&x], 0.0, |t| t[0].narrow(1, 3, 20)?.contiguous());
    agree("cat", &[&x, &x], 0.0, |t| Tensor::cat(&[&t[0], &t[1]], 1));
    agree("permute", &[&cpu(&[3, 4, 5], 7)], 0.0, |t| t[0].permute((2, 0, 1))?.contiguous());
}

#[test]
fn reductions() {
    for shape in [&[4usize, 96][..], &[3, 7, 33], &[2, 1025]] {
        let x = cpu(shape, 37);
        agree("sum", &[&x], 1e-4, |t| t[0].sum(D::Minus1));
        agree("sum over the first dimension", &[&x], 1e-4, |t| t[0].sum(0));
        agree("max", &[&x], 0.0, |t| t[0].max(D::Minus1));
        agree("min", &[&x], 0.0, |t| t[0].min(D::Minus1));
        agree("argmax", &[&x], 0.0, |t| t[0].argmax(D::Minus1));
        agree("argmin", &[&x], 0.0, |t| t[0].argmin(D::Minus1));
        agree("mean", &[&x], 1e-5, |t| t[0].mean_keepdim(D::Minus1));
    }
}

#[test]
fn softmax_and_norms() {
    for columns in [1usize, 31, 96, 257, 1024] {
        let x = (cpu(&[5, columns], 37) * 8.0).unwrap();
        let (weight, bias) = (cpu(&[columns], 7), cpu(&[columns], 11));
        agree("softmax", &[&x], 1e-5, |t| ops::softmax_last_dim(&t[0]));
        agree("log_softmax", &[&x], 1e-5, |t| ops::log_softmax(&t[0], D::Minus1));
        agree("rms_norm", &[&x, &weight], 1e-5, |t| ops::rms_norm(&t[0], &t[1], 1e-5));
        agree("layer_norm", &[&x, &weight, &bias], 1e-4, |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5));
    }
    let x = cpu(&[4, 96], 37).to_dtype(DType::F16).unwrap();
    agree("softmax f16", &[&x], 2e-3, |t| ops::softmax_last_dim(&t[0]));
}

#[test]
fn products() {
    for (m, n, k) in [(1, 1, 1), (4, 5, 96), (33, 70, 50), (64, 64, 64), (1, 128, 200), (72, 40, 17)] {
        let (a, b) = (cpu(&[2, m, k], 37), cpu(&[2, k, n], 91));
        agree("matmul", &[&a, &b], 1e-4, |t| t[0].matmul(&t[1]));
        let transposed = b.transpose(1, 2).unwrap().contiguous().unwrap();
        agree("matmul with B transposed", &[&a, &transposed], 1e-4, |t| t[0].matmul(&t[1].transpose(1, 2)?));
        let expected = a.matmul(&b).unwrap();
        for (kind, bound) in [(DType::F16, 2e-2), (DType::BF16, 1e-1)] {
            let inputs = [&a.to_dtype(kind).unwrap(), &b.to_dtype(kind).unwrap()];
            against("matmul in 16 bits", &inputs, &expected, bound, |t| t[0].matmul(&t[1]));
        }
    }
}

#[test]
fn attention() {
    let (q, k, v) = (cpu(&[1, 4, 8, 64], 37), cpu(&[1, 2, 8, 64], 91), cpu(&[1, 2, 8, 64], 17));
    let spread =
        |tensor: &Tensor| -> Result<Tensor> { tensor.unsqueeze(2)?.repeat((1, 1, 2, 1, 1))?.reshape((1, 4, 8, 64)) };
    let plain = |q: &Tensor| -> Result<Tensor> {
        let scores = (q.matmul(&spread(&k)?.t()?)? * 0.125)?;
        ops::softmax_last_dim(&scores)?.matmul(&spread(&v)?)
    };
    let sdpa = |t: &[Tensor]| ops::sdpa(&t[0], &t[1], &t[2], None, false, 0.125, 1.0);
    against("attention over 8 queries", &[&q, &k, &v], &plain(&q).unwrap(), 1e-4, sdpa);
    let one = q.narrow(2, 0, 1).unwrap().contiguous().unwrap();
    against("attention of one query", &[&one, &k, &v], &plain(&one).unwrap(), 1e-4, sdpa);
}

#[test]
fn quantised_products() {
    let (w, x) = (cpu(&[64, 256], 53), cpu(&[3, 256], 29));
    for kind in [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ] {
        let restored = QTensor::quantize(&w, kind).unwrap().dequantize(&Device::Cpu).unwrap();
        let expected = x.matmul(&restored.t().unwrap()).unwrap();
        against(&format!("product with {kind:?}"), &[&w, &x], &expected, 1e-2, |t| {
            QMatMul::from_qtensor(QTensor::quantize(&t[0], kind)?)?.forward(&t[1])
        });
    }
}

#[test]
fn indexing() {
    let x = cpu(&[9, 12], 37);
    let rows = Tensor::new(&[3u32, 0, 8, 3], &Device::Cpu).unwrap();
    agree("index_select", &[&x, &rows], 0.0, |t| t[0].index_select(&t[1], 0));
    let columns = Tensor::new(&[[1u32, 4], [0, 11], [7, 7]], &Device::Cpu).unwrap();
    let three = cpu(&[3, 12], 5);
    agree("gather", &[&three, &columns], 0.0, |t| t[0].gather(&t[1], 1));
    agree("embedding", &[&x, &rows], 0.0, |t| t[0].embedding(&t[1]));
}
