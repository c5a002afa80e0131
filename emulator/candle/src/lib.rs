//! Unmodified Candle on the emulated Metal: what agrees is in `tests/`, what an operation costs is here.

use std::fmt::Write as _;

use candle_core::{D, DType, Device, Result, Tensor};
use metal_emulator::{Counts, Report, Rule, Watch, region};

/// What the emulator finds in Candle 0.11.1 as it is: the rule, what its report names, and what it is.
pub const KNOWN: &[(Rule, &str, &str)] = &[
    (
        Rule::Race,
        "wrote; threads of different threadgroups",
        "elementwise kernels give the last threads of the grid elements that earlier threads write too, with the same \
         value (affine.metal, line 47: `tid` is not bounded by `step`)",
    ),
    (
        Rule::Race,
        "of threadgroup memory `md_total`",
        "softmax publishes maximum and sum in threadgroup memory behind threadgroup_barrier(mem_flags::mem_none), which \
         orders execution and no memory (reduce.metal, line 886; MSL specification, \"Threadgroup and SIMD-group \
         synchronization functions\")",
    ),
    (
        Rule::Race,
        "of threadgroup memory `shared`",
        "block_reducer, behind every reduction, has mem_none in all its barriers (reduce.metal, lines 519, 525, 531)",
    ),
];

/// The reports that are not [`KNOWN`].
pub fn unknown(reports: Vec<Report>) -> Vec<Report> {
    let known =
        |report: &Report| KNOWN.iter().any(|(rule, name, _)| report.rule == *rule && report.text.contains(name));
    reports.into_iter().filter(|report| !known(report)).collect()
}

/// Panics if the watch found anything that is not [`KNOWN`].
pub fn assert_nothing_new(watch: &Watch) {
    let reports = unknown(watch.reports());
    assert!(reports.is_empty(), "{} reports:\n{}", reports.len(), metal_emulator::report::list(&reports));
}

/// What one operation costs once everything it caches is cached.
pub struct Cost {
    /// The operation, as Candle calls it.
    pub name: &'static str,
    /// What it sent, made and encoded on the calling thread.
    pub counts: Counts,
}

/// Numbers that repeat only after a while, between -1 and 1.
pub fn numbers(shape: &[usize], step: usize, device: &Device) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|index| (index * step % 1009) as f32 / 504.5 - 1.0).collect();
    Tensor::from_vec(values, shape, device)
}

type Operation = (&'static str, Box<dyn Fn() -> Result<Tensor>>);

fn operations(device: &Device) -> Result<Vec<Operation>> {
    let x = numbers(&[64, 64], 37, device)?;
    let y = numbers(&[64, 64], 91, device)?;
    let weight = numbers(&[64], 7, device)?;
    let (a16, b16) = (x.to_dtype(DType::F16)?, y.to_dtype(DType::F16)?);
    let heads = numbers(&[1, 2, 8, 64], 53, device)?;
    let (lora_a, lora_b) = (numbers(&[8, 64], 11, device)?, numbers(&[64, 8], 13, device)?);
    let pair = |f: fn(&Tensor, &Tensor) -> Result<Tensor>| {
        let (x, y) = (x.clone(), y.clone());
        Box::new(move || f(&x, &y)) as Box<dyn Fn() -> Result<Tensor>>
    };
    let norm = {
        let (x, weight) = (x.clone(), weight.clone());
        Box::new(move || candle_nn::ops::rms_norm(&x, &weight, 1e-5))
    };
    let layer_norm = {
        let (x, weight) = (x.clone(), weight.clone());
        Box::new(move || candle_nn::ops::layer_norm(&x, &weight, &weight, 1e-5))
    };
    let lora = {
        let (x, w) = (x.clone(), y.clone());
        Box::new(move || {
            let delta = x.matmul(&lora_a.t()?)?.matmul(&lora_b.t()?)?;
            x.matmul(&w.t()?)? + (delta * 2.0)?
        })
    };
    Ok(vec![
        ("exp", pair(|x, _| x.exp())),
        ("add", pair(|x, y| x + y)),
        ("affine (2 x + 1)", pair(|x, _| x.affine(2.0, 1.0))),
        ("cast f32 to f16", pair(|x, _| x.to_dtype(DType::F16))),
        ("transpose, contiguous", pair(|x, _| x.t()?.contiguous())),
        ("sum over the last dimension", pair(|x, _| x.sum(D::Minus1))),
        ("softmax_last_dim", pair(|x, _| candle_nn::ops::softmax_last_dim(x))),
        ("rms_norm", norm),
        ("layer_norm", layer_norm),
        ("matmul f32 64x64x64", pair(|x, y| x.matmul(y))),
        ("matmul f16 64x64x64", Box::new(move || a16.matmul(&b16))),
        (
            "sdpa, 2 heads of 64",
            Box::new(move || candle_nn::ops::sdpa(&heads, &heads, &heads, None, false, 0.125, 1.0)),
        ),
        ("LoRA layer 64x64x64 r8, by hand", lora),
    ])
}

/// Measures every operation: two calls fill the caches and open an encoder, the third is counted.
pub fn costs(device: &Device) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    for (name, operation) in operations(device)? {
        device.synchronize()?;
        drop((operation()?, operation()?));
        let (counts, result) = region(&*operation);
        drop(result?);
        device.synchronize()?;
        costs.push(Cost { name, counts });
    }
    Ok(costs)
}

/// The costs as a Markdown table.
pub fn table(costs: &[Cost]) -> String {
    let mut text = String::from(
        "| operation | messages | retains | autoreleases | objects | buffers | encoders | dispatches | barriers | bindings | bytes copied |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for Cost { name, counts } in costs {
        let (runtime, gpu) = (&counts.runtime, &counts.gpu);
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            runtime.messages,
            runtime.retains,
            runtime.autoreleases,
            runtime.objects_made,
            gpu.buffers,
            gpu.encoders,
            gpu.dispatches,
            gpu.barriers,
            gpu.bindings,
            gpu.bytes_copied,
        )
        .expect("writing to a string");
    }
    text
}
