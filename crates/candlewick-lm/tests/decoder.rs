//! The forward pass against its definition in f64, for every family and both formats of files.

mod definition;

use candlewick::op::Quant;
use candlewick::{DType, Device};
use candlewick_lm::decoder::{Options, Plain, Quantised, Rows};
use candlewick_lm::{Decoder, Error};
use candlewick_model::gguf::Gguf;
use candlewick_model::testing::{TinyModel, tiny_config};
use candlewick_model::{Biases, Family, Format, Weights};
use std::sync::Arc;

const TOKENS: [u32; 11] = [1, 77, 300, 5, 5, 42, 311, 0, 319, 18, 256];

/// The logits of a sequence without a cache.
fn logits(decoder: &Decoder, tokens: &[u32]) -> Vec<f32> {
    let count = tokens.len();
    let (mut plan, (rows, logits)) = decoder
        .session()
        .record(|p| {
            let rows = Rows::uncached(p, count, 1);
            let hidden = decoder.record(p, &rows, &mut Plain)?;
            let logits = decoder.head(p, hidden, &mut Plain)?;
            Ok((rows, p.output(logits)?))
        })
        .unwrap();
    plan.write(rows.ids, tokens).unwrap();
    plan.write(rows.positions, &(0..count as u32).collect::<Vec<_>>()).unwrap();
    plan.write(rows.spans, &[0, count as u32, 0, count as u32]).unwrap();
    plan.run().unwrap();
    let mut found = vec![0.0; count * decoder.config().vocab];
    plan.read(logits, &mut found).unwrap();
    found
}

fn from_gguf(model: &TinyModel) -> Arc<Weights> {
    Arc::new(Weights::from_gguf(Gguf::from_bytes("tiny.gguf", model.gguf()).unwrap()).unwrap())
}

fn from_folder(model: &TinyModel, dtype: DType) -> Arc<Weights> {
    let folder = tempfile::tempdir().unwrap();
    model.write_folder(folder.path(), dtype, 2);
    Arc::new(Weights::open(folder.path()).unwrap())
}

#[test]
fn every_family_computes_what_its_definition_says() -> Result<(), Error> {
    for family in [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3] {
        for tied in [false, true] {
            let mut config = tiny_config(family);
            config.tied = tied;
            if family == Family::Llama {
                config.biases = Biases { qkv: true, output: true, mlp: true };
            }
            let model = TinyModel::new(config, Format::Float(DType::F32), 3);
            let expected = definition::logits(&model, &TOKENS, &[]);
            for weights in [from_folder(&model, DType::F32), from_gguf(&model)] {
                let decoder = Decoder::load(&Device::cpu(), weights, Options::default())?;
                let distance = definition::distance(&logits(&decoder, &TOKENS), &expected);
                assert!(distance < 1e-5, "{family:?}, tied {tied}: {distance:.1e}");
            }
        }
    }
    Ok(())
}

#[test]
fn quantised_weights_are_kept_or_dequantised() -> Result<(), Error> {
    for quant in [Quant::Q4_0, Quant::Q4_1, Quant::Q8_0, Quant::Q4K, Quant::Q6K] {
        let mut config = tiny_config(Family::Llama);
        config.tied = quant == Quant::Q4_1;
        if quant.block() == 256 {
            (config.hidden, config.intermediate, config.heads, config.head_dim) = (256, 512, 4, 64);
        }
        let model = TinyModel::new(config, Format::Quant(quant), 7);
        let expected = definition::logits(&model, &TOKENS, &[]);
        for quantised in [Quantised::Keep, Quantised::Dequantise] {
            let options = Options { quantised, ..Options::default() };
            let decoder = Decoder::load(&Device::cpu(), from_gguf(&model), options)?;
            let distance = definition::distance(&logits(&decoder, &TOKENS), &expected);
            assert!(distance < 2e-5, "{quant} {quantised:?}: {distance:.1e}");
        }
    }
    Ok(())
}

#[test]
fn sixteen_bits_are_as_near_as_they_can_be() -> Result<(), Error> {
    let model = TinyModel::new(tiny_config(Family::Qwen3), Format::Float(DType::F32), 5);
    let expected = definition::logits(&model, &TOKENS, &[]);
    for (dtype, bound) in [(DType::F16, 1e-2), (DType::BF16, 6e-2)] {
        let options = Options { dtype: Some(dtype), ..Options::default() };
        let decoder = Decoder::load(&Device::cpu(), from_folder(&model, DType::F32), options)?;
        let (count, vocab) = (TOKENS.len(), decoder.config().vocab);
        let (mut plan, (rows, y)) = decoder.session().record(|p| {
            let rows = Rows::uncached(p, count, 1);
            let hidden = decoder.record(p, &rows, &mut Plain)?;
            let logits = decoder.head(p, hidden, &mut Plain)?;
            let wide = p.op(candlewick::op::Cast::new(count * vocab, dtype, DType::F32), &[logits])?[0];
            Ok((rows, p.output(wide)?))
        })?;
        plan.write(rows.ids, &TOKENS)?;
        plan.write(rows.positions, &(0..count as u32).collect::<Vec<_>>())?;
        plan.write(rows.spans, &[0, count as u32, 0, count as u32])?;
        plan.run()?;
        let mut found = vec![0f32; count * vocab];
        plan.read(y, &mut found)?;
        let distance = definition::distance(&found, &expected);
        assert!(distance < bound && distance > 1e-6, "{dtype}: {distance:.1e}");
    }
    Ok(())
}
