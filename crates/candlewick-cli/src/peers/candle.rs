//! Candle, as its users call it.

use super::Hello;
use super::tensors::{Forward, Leaf};
use crate::bench::cases::{Case, EPS, Family, LORA_SCALE, Pass};
use candle_core::{Device, Result, Tensor, Var};
use candle_nn::ops;
use std::time::Instant;

/// The version that this binary is built with.
pub const VERSION: &str = "0.11.1";

/// What Candle says of itself on a device.
pub fn hello(device: &Device) -> Hello {
    let (threads, thread_lookup_us) = match device {
        Device::Cpu => (candle_core::utils::get_num_threads(), Some(thread_lookup())),
        // One submits, and no product asks how many there are.
        _ => (1, None),
    };
    let name = "Candle".into();
    Hello { name, version: VERSION.into(), built: built(device), threads, thread_lookup_us, replays: false }
}

/// What decides its speed on a device.
pub fn built(device: &Device) -> String {
    match device {
        Device::Cpu => {}
        Device::Cuda(_) => return "its CUDA kernels and cuBLAS".into(),
        Device::Metal(_) => return "its Metal kernels".into(),
    }
    let gemm = if cfg!(feature = "candle-avx512") { "gemm with x86-v4 (AVX-512)" } else { "gemm without x86-v4" };
    let target = if cfg!(target_feature = "avx512f") {
        "avx512f"
    } else if cfg!(target_feature = "avx2") {
        "avx2"
    } else {
        "the baseline of its architecture"
    };
    format!("{gemm}, compiled for {target}")
}

/// Median microseconds of the question that every product asks first.
fn thread_lookup() -> f64 {
    let mut times: Vec<f64> = (0..51)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(candle_core::utils::get_num_threads());
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The forward pass in Candle's own operations, which is what `candle_ops.rs` of the published figures measures.
pub fn forward(case: &Case, tensors: Vec<Tensor>) -> Result<Forward> {
    let mut leaves = Vec::new();
    let mut leaf = |tensor: &Tensor, transposed: bool| -> Result<Tensor> {
        let tensor = if transposed { tensor.t()?.contiguous()? } else { tensor.clone() };
        // A variable is tracked, which is no cost that a forward alone should pay.
        let tensor = if case.pass == Pass::Forward { tensor } else { Var::from_tensor(&tensor)?.as_tensor().clone() };
        leaves.push(Leaf { tensor: tensor.clone(), transposed });
        Ok(tensor)
    };
    let mut note = None;
    let differentiable = case.pass != Pass::Forward;
    let run: Box<dyn Fn() -> Result<Tensor>> = match (case.family, tensors.as_slice()) {
        (Family::MatMul, [a, b]) => {
            let (a, b) = (leaf(a, false)?, leaf(b, false)?);
            Box::new(move || a.matmul(&b))
        }
        (Family::Softmax, [x]) => {
            let x = leaf(x, false)?;
            if differentiable {
                note = Some("candle_nn::ops::softmax: softmax_last_dim has no gradient".into());
                Box::new(move || ops::softmax(&x, candle_core::D::Minus1))
            } else {
                Box::new(move || ops::softmax_last_dim(&x))
            }
        }
        (Family::RmsNorm, [x, weight]) => {
            let (x, weight) = (leaf(x, false)?, leaf(&weight.flatten_all()?, false)?);
            if differentiable {
                note = Some("candle_nn::ops::rms_norm_slow: rms_norm has no gradient".into());
                Box::new(move || ops::rms_norm_slow(&x, &weight, EPS))
            } else {
                Box::new(move || ops::rms_norm(&x, &weight, EPS))
            }
        }
        (Family::LoraLinear, [x, w, a, b]) => {
            let (x, a, b) = (leaf(x, false)?, leaf(a, true)?, leaf(b, true)?);
            let w = w.t()?.contiguous()?;
            if differentiable {
                note = Some("computes dW of the frozen W too".into());
            }
            Box::new(move || x.matmul(&w)? + (x.matmul(&a)?.matmul(&b)? * f64::from(LORA_SCALE))?)
        }
        (Family::LoraDelta, [x, a, b]) => {
            let (x, a, b) = (leaf(x, false)?, leaf(a, true)?, leaf(b, true)?);
            Box::new(move || x.matmul(&a)?.matmul(&b)? * f64::from(LORA_SCALE))
        }
        _ => return Err(candle_core::Error::msg("the operands do not fit the operation")),
    };
    Ok(Forward { run, leaves, note })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_printed_version_is_the_one_that_is_built() {
        // The workspace's, or the one that a package has.
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let lock = ["../../Cargo.lock", "Cargo.lock"].map(|name| std::fs::read_to_string(here.join(name)));
        let lock = lock.into_iter().find_map(Result::ok).expect("a lock file");
        let candle = lock.split("[[package]]").find(|package| package.contains("name = \"candle-core\"")).unwrap();
        assert!(candle.contains(&format!("version = \"{}\"", super::VERSION)), "{candle}");
    }
}
