//! Small random models beside transformers and PEFT, whose results are in `fixtures/transformers.json`:
//! `scripts/parity/tiny.py` makes it.

use candlewick::{DType, Device};
use candlewick_lm::generate::{Generator, Options, Request};
use candlewick_model::testing::{TinyModel, tiny_config};
use candlewick_model::{Adapter, Family, Format};
use serde::Deserialize;
use std::collections::HashMap;

#[derive(Deserialize)]
struct Fixture {
    prompt: Vec<u32>,
    families: HashMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    logits: Vec<f32>,
    adapted_logits: Vec<f32>,
    greedy: Vec<u32>,
    margin: f32,
}

/// The largest difference, relative to the largest number.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |largest, number| largest.max(number.abs()));
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0f32, f32::max) / largest
}

#[test]
fn logits_and_tokens_are_those_of_transformers_and_peft() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/transformers.json")).unwrap();
    for family in [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3] {
        let expected = &fixture.families[family.name()];
        let model = TinyModel::new(tiny_config(family), Format::Float(DType::F32), 3);
        let folder = tempfile::tempdir().unwrap();
        model.write_folder(folder.path(), DType::F32, 1);
        let adapter = Adapter::new("adapter", None, model.adapter_modules(4, DType::F32, 11)).unwrap();
        let mut generator = Generator::open(folder.path(), &Device::cpu(), Options::default()).unwrap();
        let adapter = generator.load_adapter(&adapter, 1.0).unwrap();
        for (adapter, expected) in [(None, &expected.logits), (Some(adapter), &expected.adapted_logits)] {
            let found = generator.logits(&fixture.prompt, adapter).unwrap();
            let distance = distance(&found, expected);
            assert!(distance < 1e-5, "{family:?}: {distance:.1e}");
        }
        assert!(expected.margin > 1e-4, "{family:?}: this prompt leaves a tie");
        let max_tokens = expected.greedy.len();
        let request = Request { max_tokens, ignore_end: true, ..Request::new(fixture.prompt.clone()) };
        let output = generator.generate(&[request], &mut |_, _| ()).unwrap();
        assert_eq!(output.completions[0].tokens, expected.greedy, "{family:?}");
    }
}
