//! Runs from data to adapter.

use crate::tiny::{Place, data, recipe, train};
use candlewick::Device;
use candlewick_lm::train::metrics::{self, Metric};
use candlewick_lm::train::{End, Event, Length, Recipe, Sources, Trainer};
use candlewick_model::Adapter;
use std::fs;
use std::ops::ControlFlow;

fn go(_: &Event<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_run_leaves_an_adapter_metrics_and_a_curve() {
    let place = Place::new();
    let recipe = Recipe { length: Length::Steps(40), learning_rate: 1e-2, ..recipe() };
    let mut seen = Vec::new();
    let summary = train(place.sources(), recipe, &place.keeping("out"), |event| {
        seen.push(match event {
            Event::Stepped(step) => format!("step {}", step.step),
            Event::Validated(found, _) => format!("validated {}", found.step),
            Event::Saved(path) => format!("saved {}", path.file_name().unwrap().display()),
            other => format!("{other:?}"),
        });
        ControlFlow::Continue(())
    });
    let summary = summary.unwrap();
    assert_eq!((summary.end, summary.step), (End::Complete, 40));
    let (first, last) = summary.loss.unwrap();
    assert!(last < 0.7 * first, "{first} {last}");
    assert_eq!(seen[..3], ["validated 0", "step 1", "step 2"]);
    assert_eq!(seen[seen.len() - 3..], ["step 40", "validated 40", "saved step-00000040.safetensors"]);
    let adapter = Adapter::open(&place.path("out")).unwrap();
    assert_eq!(adapter.modules.len(), 6);
    assert!(adapter.modules.values().all(|lora| lora.rank() == 4 && lora.b.to_f32().iter().any(|&b| b != 0.0)));
    let lines = metrics::read(&place.path("out/metrics.jsonl")).unwrap();
    assert_eq!(lines.iter().filter(|line| matches!(line, Metric::Step(_))).count(), 40);
    assert_eq!(lines.len(), 49);
    let curve = fs::read_to_string(place.path("out/loss.svg")).unwrap();
    assert!(curve.contains("model fine-tuned on data.jsonl") && curve.contains("rank 4, alpha 16"), "{curve}");
    let kept: Vec<String> = fs::read_dir(place.path("out/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(kept.len(), 3, "the last two and the best: {kept:?}");
}

/// The same folder again: nothing is left to do, and the adapter is the same.
#[test]
fn a_finished_run_stays_finished() {
    let place = Place::new();
    let keeping = place.keeping("out");
    train(place.sources(), recipe(), &keeping, go).unwrap();
    let adapter = fs::read(place.path("out/adapter_model.safetensors")).unwrap();
    let mut steps = 0;
    let again = train(place.sources(), recipe(), &keeping, |event| {
        steps += usize::from(matches!(event, Event::Stepped(_)));
        ControlFlow::Continue(())
    });
    assert_eq!((again.unwrap().end, steps), (End::Complete, 0));
    assert_eq!(fs::read(place.path("out/adapter_model.safetensors")).unwrap(), adapter);
}

/// Looked at before the first step and once with the adapter that was kept, whoever runs it again.
#[test]
fn test_data_is_looked_at_twice() {
    let place = Place::new();
    let sources = || Sources { test: Some(place.path("data.jsonl")), ..place.sources() };
    let mut lines = Vec::new();
    for _ in 0..2 {
        let summary = train(sources(), recipe(), &place.keeping("out"), go).unwrap();
        let (before, after) = summary.test.unwrap();
        assert_eq!((before.step, after.step), (0, summary.adapter_step));
        assert!(after.loss < before.loss && after.answers == before.answers, "{before:?} {after:?}");
        lines.push(metrics::read(&place.path("out/metrics.jsonl")).unwrap());
    }
    assert_eq!(lines[0].iter().filter(|line| matches!(line, Metric::Test(_))).count(), 2);
    assert_eq!(lines[0], lines[1]);
    let without = place.keeping("without");
    train(place.sources(), recipe(), &without, go).unwrap();
    let adapter = |out: &str| fs::read(place.path(out).join("adapter_model.safetensors")).unwrap();
    assert_eq!(adapter("out"), adapter("without"), "it changes nothing");
}

#[test]
fn an_adapter_can_be_trained_further() {
    let place = Place::new();
    train(place.sources(), recipe(), &place.keeping("first"), go).unwrap();
    let mut sources = place.sources();
    sources.adapter = Some(place.path("first"));
    let (mut before, mut after) = (None, None);
    train(sources, recipe(), &place.keeping("second"), |event| {
        if let Event::Validated(found, _) = event {
            before.get_or_insert(found.loss);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    for line in metrics::read(&place.path("first/metrics.jsonl")).unwrap() {
        if let Metric::Validation(found) = line {
            after = Some(after.map_or(found.loss, |loss: f64| loss.min(found.loss)));
        }
    }
    let (before, after) = (before.unwrap(), after.unwrap());
    assert!((before - after).abs() < 1e-6 * after, "it begins where the other's best was: {before} {after}");
}

#[test]
fn a_run_that_does_not_improve_ends_early_with_its_best() {
    let place = Place::new();
    let wild = Recipe { learning_rate: 0.3, length: Length::Steps(400), warmup: 0, ..recipe() };
    let keeping = candlewick_lm::train::Housekeeping { patience: 3, validate_every: 1, ..place.keeping("out") };
    let summary = train(place.sources(), wild, &keeping, go).unwrap();
    assert_eq!(summary.end, End::Early);
    assert_eq!(summary.step, summary.adapter_step + 3);
    let (_, of_adapter) = summary.validation.unwrap();
    assert_eq!(of_adapter.step, summary.adapter_step);
}

#[test]
fn everything_wrong_is_said_before_the_first_step() {
    let place = Place::new();
    let fails = |recipe: Recipe, text: &str| {
        fs::write(place.path("data.jsonl"), text).unwrap();
        Trainer::new(&Device::cpu(), place.sources(), recipe).err().expect("an error").to_string()
    };
    let good = data(6);
    let bad = good.replacen("\"text\"", "\"texts\"", 1) + "{\"prompt\": 3}\n";
    let error = fails(recipe(), &bad);
    assert!(error.contains("2 of 7 lines cannot be used:\n  line 3: has texts: expected"), "{error}");
    assert!(error.contains("line 7: \"prompt\" is a number"), "{error}");
    assert!(fails(recipe(), "\n\n").contains("has no lines"));
    let error = fails(Recipe { sequence: 4096, ..recipe() }, &good);
    assert!(error.contains("sequence = 4096: the model's context has 128 positions"), "{error}");
    assert!(fails(Recipe { warmup: 12, ..recipe() }, &good).contains("warmup = 12: the run has 12 steps"));
    assert!(fails(Recipe { targets: "q".parse().unwrap(), ..recipe() }, &good).contains("targets = q"));
    let long = format!("{{\"prompt\": \"{}\", \"completion\": \"b\"}}", "a".repeat(60));
    assert!(fails(Recipe { validation: 0.0, ..recipe() }, &long).contains("every prompt is longer than a row"));
    let error = fails(recipe(), "{\"text\": \"only one\"}");
    assert!(error.contains("one document"), "{error}");
}

#[test]
fn a_folder_that_is_not_ours_is_left_alone() {
    let place = Place::new();
    let run = |out: &str| train(place.sources(), recipe(), &place.keeping(out), go).unwrap_err().to_string();
    fs::create_dir(place.path("other")).unwrap();
    fs::write(place.path("other/adapter_config.json"), "{}").unwrap();
    assert!(run("other").contains("another adapter"));
    fs::write(place.path("file"), "").unwrap();
    assert!(run("file").contains("cannot make the folder"));
    train(place.sources(), recipe(), &place.keeping("out"), go).unwrap();
    let error = train(place.sources(), Recipe { rank: 2, ..recipe() }, &place.keeping("out"), go).unwrap_err();
    assert!(error.to_string().contains("rank: the checkpoint has 4, this run 2"), "{error}");
    fs::write(place.path("data.jsonl"), data(25)).unwrap();
    let error = train(place.sources(), recipe(), &place.keeping("out"), go).unwrap_err();
    assert!(error.to_string().contains(": data: the checkpoint has"), "{error}");
}

#[test]
fn an_estimate_says_what_it_takes() {
    let place = Place::new();
    let mut trainer = Trainer::new(&Device::cpu(), place.sources(), recipe()).unwrap();
    let estimate = trainer.estimate(true).unwrap();
    assert_eq!(estimate.trainable, 2 * 4 * ((64 + 64) + (64 + 32) + (96 + 64)));
    assert_eq!((estimate.steps, estimate.tokens_per_step), (12, 96));
    assert!(estimate.memory.weights > 4 * estimate.parameters, "every weight at least once");
    assert!(estimate.memory.activations > 96 * 64 * 4);
    assert!(estimate.step.unwrap().as_nanos() > 0);
    let text = estimate.to_string();
    for part in ["trainable   3,072 numbers in 6 modules", "activations", "tokens/s", "validation  5 documents"] {
        assert!(text.contains(part), "{text}");
    }
}
