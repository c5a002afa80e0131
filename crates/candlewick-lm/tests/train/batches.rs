//! What a step computes does not depend on how its documents are arranged.

use crate::tiny::{Place, bf16, difference, documents, recipe, stepper};
use candlewick::DType;
use candlewick::op::Quant;
use candlewick_lm::train::data::Feed;
use candlewick_lm::train::{Outcome, Recipe};
use candlewick_model::testing::{TinyModel, tiny_config};
use candlewick_model::{Family, Format};
use std::path::Path;

const LENGTHS: [usize; 6] = [20, 9, 14, 30, 6, 25];

/// One step over all documents.
fn step(model: &Path, recipe: &Recipe, share: bool) -> (Outcome, Vec<f32>, Vec<f32>) {
    let mut feed = Feed::new(documents(&LENGTHS), recipe.sequence, share, None);
    let (mut stepper, parameters) = stepper(model, recipe, &feed);
    let batches: Vec<_> = (0..recipe.accumulation).map(|_| feed.next(recipe.batch)).collect();
    assert_eq!(batches.iter().map(|batch| batch.documents.len()).sum::<usize>(), LENGTHS.len());
    let outcome = stepper.run(&batches, 1e-3, 1).unwrap();
    let gradient = stepper.gradient().unwrap();
    assert_eq!(gradient.len(), parameters.elements);
    (outcome, gradient, stepper.state().unwrap().master)
}

fn close(one: &Outcome, other: &Outcome, within: f64) {
    assert!((one.loss - other.loss).abs() < within * one.loss, "{one:?} {other:?}");
    assert!((one.gradient_norm - other.gradient_norm).abs() < within * one.gradient_norm, "{one:?} {other:?}");
}

#[test]
fn documents_that_share_a_row_do_not_see_each_other() {
    let place = Place::new();
    let (together, apart) = (Recipe { batch: 3, ..recipe() }, Recipe { batch: 6, ..recipe() });
    let (one, gradient, after) = step(&place.path("model"), &together, true);
    let (other, gradient_apart, after_apart) = step(&place.path("model"), &apart, false);
    close(&one, &other, 1e-5);
    assert!(difference(&gradient, &gradient_apart) < 1e-5);
    assert!(difference(&after, &after_apart) < 1e-3, "AdamW's first step is the gradient's sign, mostly");
}

/// Each label weighs the same, whatever its micro-batch.
#[test]
fn accumulated_gradients_are_those_of_one_batch() {
    let place = Place::new();
    for precision in [recipe(), bf16(&recipe())] {
        let whole = Recipe { batch: 3, ..precision.clone() };
        let parts = Recipe { batch: 1, accumulation: 3, ..precision.clone() };
        let (one, ..) = step(&place.path("model"), &whole, true);
        let (other, ..) = step(&place.path("model"), &parts, true);
        close(&one, &other, if precision == recipe() { 1e-5 } else { 0.02 });
    }
}

#[test]
fn accumulation_begins_anew_after_each_update() {
    let place = Place::new();
    let (whole, parts) = (Recipe { batch: 3, ..recipe() }, Recipe { batch: 1, accumulation: 3, ..recipe() });
    let run = |recipe: &Recipe| {
        let feed = Feed::new(documents(&LENGTHS), recipe.sequence, true, None);
        let (mut stepper, _) = stepper(&place.path("model"), recipe, &feed);
        let mut losses = Vec::new();
        for step in 1..=5 {
            let mut feed = feed.clone();
            let batches: Vec<_> = (0..recipe.accumulation).map(|_| feed.next(recipe.batch)).collect();
            losses.push(stepper.run(&batches, 1e-2, step).unwrap());
        }
        losses
    };
    let (one, other) = (run(&whole), run(&parts));
    assert!(one[4].loss < 0.98 * one[0].loss, "it learns: {one:?}");
    one.iter().zip(&other).for_each(|(one, other)| close(one, other, 1e-3));
}

#[test]
fn bf16_is_close_to_f32() {
    let place = Place::new();
    let whole = Recipe { batch: 3, ..recipe() };
    let (one, gradient, _) = step(&place.path("model"), &whole, true);
    let (other, rounded, after) = step(&place.path("model"), &bf16(&whole), true);
    close(&one, &other, 0.03);
    assert!(difference(&gradient, &rounded) < 0.1);
    let masters = after.iter().filter(|x| half::bf16::from_f32(**x).to_f32() != **x).count();
    assert!(masters > after.len() / 4, "masters are f32, not rounded");
}

/// The frozen base stays quantised, and its adapters get the same gradients as on the numbers that it stands for.
#[test]
fn a_quantised_base_is_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let config = tiny_config(Family::Qwen2);
    let model = TinyModel::new(config, Format::Quant(Quant::Q8_0), 3);
    std::fs::write(path("model.gguf"), model.gguf()).unwrap();
    model.write_folder(&path("model"), DType::F32, 1);
    let recipe = Recipe { batch: 3, ..recipe() };
    let (one, gradient, _) = step(&path("model"), &recipe, true);
    let (other, quantised, _) = step(&path("model.gguf"), &recipe, true);
    // Products with quantised weights round their inputs to 8 bits.
    close(&one, &other, 0.02);
    assert!(difference(&gradient, &quantised) < 0.05, "{}", difference(&gradient, &quantised));
}

#[test]
fn validation_knows_the_loss_and_what_is_right() {
    let place = Place::new();
    let recipe = Recipe { batch: 3, ..recipe() };
    let mut feed = Feed::new(documents(&LENGTHS), recipe.sequence, true, None);
    let (mut stepper, _) = stepper(&place.path("model"), &recipe, &feed);
    let before = stepper.validate(feed.all(3)).unwrap();
    let learned: usize = LENGTHS.iter().map(|length| (1..*length).filter(|at| at % 3 != 0).count()).sum();
    assert_eq!((before.learned, before.answers), (learned, LENGTHS.len()));
    let batch = feed.next(3);
    let mut first = None;
    for step in 1..=150 {
        let outcome = stepper.run(std::slice::from_ref(&batch), 2e-2, step).unwrap();
        first.get_or_insert(outcome.loss);
    }
    assert!((before.mean() - first.unwrap()).abs() < 1e-5, "{before:?}, {first:?}");
    let after = stepper.validate(feed.all(3)).unwrap();
    assert!(before.right < learned / 4, "{before:?}");
    assert!(after.right > learned * 9 / 10 && after.right_answers >= 4, "learned by heart: {after:?}");
}

/// What is computed again is the same.
#[test]
fn a_budget_of_activations_changes_no_bit() {
    let place = Place::new();
    let all = Recipe { batch: 3, dropout: 0.1, ..recipe() };
    let few = Recipe { activations: Some(0), ..all.clone() };
    assert!(step(&place.path("model"), &all, true) == step(&place.path("model"), &few, true));
    let feed = Feed::new(documents(&LENGTHS), all.sequence, true, None);
    let bytes = [all, few].map(|recipe| {
        let (stepper, _) = stepper(&place.path("model"), &recipe, &feed);
        (stepper.arena_bytes(), stepper.activations())
    });
    let activations = bytes[1].1.expect("there is a budget");
    assert!(bytes[0].1.is_none() && bytes[1].0 < bytes[0].0 && activations.recomputed > 0, "{bytes:?}");
}

/// Dropping nothing is no dropout; what is dropped changes from step to step, and validation drops nothing.
#[test]
fn dropout_drops_anew_in_every_step() {
    let place = Place::new();
    let recipe = Recipe { batch: 3, learning_rate: 1e-9, ..recipe() };
    let losses = |dropout: f32| {
        let recipe = Recipe { dropout, ..recipe.clone() };
        let mut feed = Feed::new(documents(&LENGTHS), recipe.sequence, true, None);
        let (mut stepper, _) = stepper(&place.path("model"), &recipe, &feed);
        let validation = stepper.validate(feed.all(3)).unwrap().mean();
        let batch = [feed.next(3)];
        let losses: Vec<f64> = (1..=20).map(|step| stepper.run(&batch, 1e-12, step).unwrap().loss).collect();
        (losses, validation)
    };
    let ((none, without), (tiny, _), (half, with)) = (losses(0.0), losses(1e-7), losses(0.5));
    assert!(none.iter().zip(&tiny).all(|(none, tiny)| (none - tiny).abs() < 1e-4 * none), "{none:?} {tiny:?}");
    assert!((without - with).abs() < 1e-5 * without);
    assert!(half.windows(2).all(|pair| pair[0] != pair[1]), "{half:?}");
    assert_eq!(half, losses(0.5).0, "the seed decides");
}
