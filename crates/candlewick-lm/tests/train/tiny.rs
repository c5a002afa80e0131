//! A tiny model, data for it, and what runs are told.

use candlewick::{DType, Device};
use candlewick_lm::decoder::{Decoder, Options};
use candlewick_lm::train::data::{Document, Feed};
use candlewick_lm::train::{Event, Trainer};
use candlewick_lm::train::{Housekeeping, Length, Parameters, Precision, Recipe, Schedule, Sources, State, Stepper};
use candlewick_model::testing::{Random, TinyModel, tiny_config};
use candlewick_model::{Family, Format, Weights};
use std::fmt::Write as _;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A folder with a model, as a folder and as a GGUF file, and data.
pub struct Place {
    pub folder: TempDir,
}

impl Place {
    pub fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        Place::fill(folder.path());
        Place { folder }
    }

    pub fn fill(folder: &Path) {
        let model = TinyModel::new(tiny_config(Family::Llama), Format::Float(DType::F32), 7);
        model.write_folder(&folder.join("model"), DType::F32, 1);
        fs::write(folder.join("model.gguf"), model.gguf()).unwrap();
        fs::write(folder.join("data.jsonl"), data(24)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn sources(&self) -> Sources {
        Sources {
            model: self.path("model"),
            data: self.path("data.jsonl"),
            validation: None,
            test: None,
            adapter: None,
        }
    }

    pub fn keeping(&self, out: &str) -> Housekeeping {
        Housekeeping { out: self.path(out), save_every: 4, keep: 2, validate_every: 5, patience: 0 }
    }
}

/// Lines that can be learned: a letter, and the one that follows.
pub fn data(lines: usize) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz";
    let mut text = String::new();
    for nth in 0..lines {
        let (one, two) = (letters[nth % 25] as char, letters[nth % 25 + 1] as char);
        let _ = match nth % 3 {
            0 => writeln!(text, r#"{{"prompt": "after {one} comes ", "completion": "{two}"}}"#),
            1 => writeln!(
                text,
                r#"{{"messages": [{{"role": "user", "content": "after {one}?"}}, {{"role": "assistant", "content": "{two}"}}]}}"#
            ),
            _ => writeln!(text, r#"{{"text": "{one} {two}"}}"#),
        };
    }
    text
}

pub fn recipe() -> Recipe {
    Recipe {
        rank: 4,
        targets: "q_proj,v_proj,down_proj".parse().unwrap(),
        sequence: 48,
        batch: 2,
        length: Length::Steps(12),
        learning_rate: 2e-3,
        schedule: Schedule::Linear,
        warmup: 2,
        validation: 0.2,
        seed: 5,
        ..Recipe::default()
    }
}

/// A run from its beginning or its checkpoint; `on` may break it off.
pub fn train(
    sources: Sources,
    recipe: Recipe,
    keeping: &Housekeeping,
    mut on: impl FnMut(&Event<'_>) -> ControlFlow<()>,
) -> candlewick_lm::train::Result<candlewick_lm::train::Summary> {
    Trainer::new(&Device::cpu_with_threads(1), sources, recipe)?.run(keeping, &mut |event| on(&event))
}

/// The plans of a recipe over a model's file, with adapters whose B is not zero, so that every gradient is something.
pub fn stepper(model: &Path, recipe: &Recipe, feed: &Feed) -> (Stepper, Parameters) {
    let weights = Arc::new(Weights::open(model).unwrap());
    let parameters = Parameters::new(weights.config(), recipe).unwrap();
    let options = Options { dtype: Some(recipe.precision.dtype()), ..Options::default() };
    let decoder = Decoder::load(&Device::cpu_with_threads(1), weights, options).unwrap();
    let sizes = feed.sizes(recipe.batch);
    let mut stepper = Stepper::new(&decoder, &parameters, recipe, sizes, Some(sizes)).unwrap();
    let mut random = Random(3);
    let mut master = vec![0.0; parameters.elements];
    for trained in &parameters.modules {
        for range in [trained.a(), trained.b()] {
            master[range].fill_with(|| 0.1 * random.number());
        }
    }
    let zeros = vec![0.0; parameters.elements];
    stepper.set(&State { master, m: zeros.clone(), v: zeros }).unwrap();
    (stepper, parameters)
}

/// Documents of random tokens, some of which do not count.
pub fn documents(lengths: &[usize]) -> Vec<Document> {
    let mut random = Random(11);
    let mut document = |length: usize| {
        let tokens: Vec<u32> = (0..length).map(|_| 3 + (random.bits() % 256) as u32).collect();
        let counts = (0..length).map(|at| at > 0 && at % 3 != 0).collect();
        Document { tokens, counts }
    };
    lengths.iter().map(|&length| document(length)).collect()
}

/// The largest difference of two vectors, as a share of the largest number.
pub fn difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    let most = |numbers: &mut dyn Iterator<Item = f32>| numbers.fold(0f32, |most, x| most.max(x.abs()));
    most(&mut one.iter().zip(other).map(|(a, b)| a - b)) / most(&mut one.iter().copied()).max(f32::MIN_POSITIVE)
}

pub fn bf16(recipe: &Recipe) -> Recipe {
    Recipe { precision: Precision::Bf16, ..recipe.clone() }
}
