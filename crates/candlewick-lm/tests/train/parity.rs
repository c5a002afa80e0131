//! The same losses and gradients as PyTorch with PEFT. `scripts/parity/peft_train.py fixture` wrote the numbers.

use candlewick::{DType, Device};
use candlewick_lm::decoder::{Decoder, Options};
use candlewick_lm::train::data::{Document, Feed};
use candlewick_lm::train::{Length, Parameters, Recipe, Schedule, State, Stepper};
use candlewick_model::testing::{Random, TinyModel, tiny_config};
use candlewick_model::{Family, Format, Weights};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
struct Fixture {
    /// Of every step.
    losses: Vec<f64>,
    /// Of every step, before clipping.
    gradient_norms: Vec<f64>,
    /// Of the first step: name of a module, A and B.
    gradients: Vec<(String, Vec<f32>, Vec<f32>)>,
}

/// Documents of a step: lengths go round, tokens and what counts are drawn.
fn documents(random: &mut Random) -> Vec<Document> {
    let document = |length: usize, random: &mut Random| {
        let tokens = (0..length).map(|_| (random.bits() % 320) as u32).collect();
        let counts = (0..length).map(|at| at > 0 && at % 4 != 3).collect();
        Document { tokens, counts }
    };
    [21, 12, 17, 8, 26].map(|length| document(length, random)).into()
}

#[test]
fn losses_and_gradients_are_pefts() {
    let fixture: Fixture = serde_json::from_str(include_str!("../fixtures/peft.json")).unwrap();
    let steps = fixture.losses.len() as u64;
    let recipe = Recipe {
        rank: 4,
        alpha: 8.0,
        targets: "q_proj,v_proj,down_proj".parse().unwrap(),
        sequence: 48,
        batch: 2,
        length: Length::Steps(steps),
        learning_rate: 1e-2,
        schedule: Schedule::Linear,
        weight_decay: 0.1,
        max_norm: 0.5,
        ..Recipe::default()
    };
    let folder = tempfile::tempdir().unwrap();
    TinyModel::new(tiny_config(Family::Llama), Format::Float(DType::F32), 1).write_folder(folder.path(), DType::F32, 1);
    let weights = Arc::new(Weights::open(folder.path()).unwrap());
    let parameters = Parameters::new(weights.config(), &recipe).unwrap();
    let options = Options { dtype: Some(DType::F32), ..Options::default() };
    let decoder = Decoder::load(&Device::cpu_with_threads(1), weights, options).unwrap();
    let mut random = Random(2);
    let mut master = vec![0.0; parameters.elements];
    for trained in &parameters.modules {
        master[trained.a()].fill_with(|| 0.125 * random.number());
        master[trained.b()].fill_with(|| 0.0625 * random.number());
    }
    let batches: Vec<_> = {
        let mut random = Random(3);
        let batch = |_| Feed::new(documents(&mut random), recipe.sequence, true, None);
        (0..5).map(batch).map(|feed| (feed.sizes(2), feed.all(2).next().unwrap())).collect()
    };
    let mut stepper = Stepper::new(&decoder, &parameters, &recipe, batches[0].0, None).unwrap();
    let zeros = vec![0.0; parameters.elements];
    stepper.set(&State { master, m: zeros.clone(), v: zeros }).unwrap();
    // Five batches, again and again.
    for (at, (_, batch)) in batches.iter().cycle().take(steps as usize).enumerate() {
        let step = at as u64 + 1;
        let rate = recipe.learning_rate * recipe.schedule.share(step, 0, steps);
        let outcome = stepper.run(std::slice::from_ref(batch), rate, step).unwrap();
        let share = |found: f64, expected: f64| (found / expected - 1.0).abs();
        assert!(share(outcome.loss, fixture.losses[at]) < 0.01, "step {step}: {outcome:?}, {}", fixture.losses[at]);
        let norm = fixture.gradient_norms[at];
        assert!(share(outcome.gradient_norm, norm) < 0.02, "step {step}: {outcome:?}, {norm}");
        if step == 1 {
            assert!(share(outcome.loss, fixture.losses[0]) < 1e-5);
            let gradient = stepper.gradient().unwrap();
            assert_eq!(fixture.gradients.len(), parameters.modules.len());
            for (trained, (name, a, b)) in parameters.modules.iter().zip(&fixture.gradients) {
                assert_eq!(trained.module.name(), *name);
                for (found, expected) in [(&gradient[trained.a()], a), (&gradient[trained.b()], b)] {
                    let error = crate::tiny::difference(expected, found);
                    assert!(error < 1e-4, "{name}: {error}");
                }
            }
        }
    }
}
