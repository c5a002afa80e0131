//! What a device computes for small random models, beside what the CPU does: for the tests here, on a GPU's machine, and on
//! the emulator.

use crate::decoder::{self, Quantised};
use crate::generate::{Generator, Options, Request, Sampling};
use crate::{Decoder, Error, Result};
use candlewick::op::Quant;
use candlewick::{DType, Device};
use candlewick_model::gguf::Gguf;
use candlewick_model::testing::{TinyModel, tiny_config};
use candlewick_model::{Adapter, Family, Format, Tokenizer, Weights};
use std::sync::Arc;

/// Compares a device with the CPU, both in f32: the logits of every family, with blocks kept and with adapters, and the
/// tokens of batches, greedy and drawn. The error says where they differ.
///
/// # Errors
/// The first difference; what fails on the device.
pub fn same_as_cpu(device: &Device) -> Result<()> {
    let q8 = Format::Quant(Quant::Q8_0);
    for (family, format) in
        [(Family::Llama, Format::Float(DType::F32)), (Family::Llama, q8), (Family::Qwen2, q8), (Family::Qwen3, q8)]
    {
        let model = TinyModel::new(tiny_config(family), format, 3);
        let (mut here, mut there) = (open(&model, &Device::cpu())?, open(&model, device)?);
        let (expected, found) = (outcome(&model, &mut here)?, outcome(&model, &mut there)?);
        let what = format!("{} in {format} on {}", family.name(), device.info().id);
        let largest = expected.logits.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
        let differences = found.logits.iter().zip(&expected.logits).map(|(a, b)| (a - b).abs());
        // NaN is a difference.
        let worst = differences.fold(0f32, |worst, it| if it > worst || it.is_nan() { it } else { worst }) / largest;
        if worst.is_nan() || worst > 1e-4 {
            return Err(Error::refused(
                what,
                format!("logits differ by {worst:.1e}"),
                "1e-4 is what rounding explains",
            ));
        }
        if found.tokens != expected.tokens {
            let problem = format!("tokens {:?} instead of {:?}", found.tokens, expected.tokens);
            return Err(Error::refused(what, problem, "they are the same on every device"));
        }
    }
    Ok(())
}

struct Outcome {
    logits: Vec<f32>,
    tokens: Vec<Vec<u32>>,
}

fn open(model: &TinyModel, device: &Device) -> Result<Generator> {
    let file = Gguf::from_bytes("tiny.gguf", model.gguf())?;
    let tokenizer = Tokenizer::from_gguf(&file)?;
    let decoder = decoder::Options { dtype: Some(DType::F32), quantised: Quantised::Keep, int8: false };
    let options = Options { decoder, sequences: 3, context: None };
    Generator::new(Decoder::load(device, Arc::new(Weights::from_gguf(file)?), decoder)?, tokenizer, options)
}

fn outcome(model: &TinyModel, generator: &mut Generator) -> Result<Outcome> {
    let prompt = |length: u32, step: u32| (0..length).map(|i| (i * step + 7) % 300).collect::<Vec<u32>>();
    let mut logits = generator.logits(&prompt(21, 37), None)?;
    let mut ids = vec![None];
    for (rank, seed) in [(4, 11), (6, 12)] {
        let adapter = Adapter::new("tiny", None, model.adapter_modules(rank, DType::F32, seed))?;
        ids.push(Some(generator.load_adapter(&adapter, 0.7)?));
    }
    for &id in &ids {
        logits.extend(generator.logits(&prompt(11, 41), id)?);
    }
    let hot = Sampling { temperature: 1.3, top_p: 0.9, seed: 5, ..Sampling::default() };
    let requests: Vec<Request> = (0..5)
        .map(|nth| Request {
            sampling: if nth % 2 == 0 { Sampling::default() } else { hot },
            max_tokens: 6,
            ignore_end: true,
            adapter: ids[nth % ids.len()],
            ..Request::new(prompt(4 + 3 * nth as u32, 31))
        })
        .collect();
    let output = generator.generate(&requests, &mut |_, _| ())?;
    Ok(Outcome { logits, tokens: output.completions.into_iter().map(|completion| completion.tokens).collect() })
}
