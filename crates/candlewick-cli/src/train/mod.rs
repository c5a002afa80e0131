//! `train`: a run on the command line, over `candlewick_lm::train`.

mod args;
mod progress;

pub use args::TrainArgs;

use crate::generate::model;
use candlewick_lm::train::{End, Result, Sources, Summary, Trainer, estimate};
use progress::Bar;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Trains, or says what it would take.
pub fn run(args: &TrainArgs) -> ExitCode {
    match train(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn train(args: &TrainArgs) -> Result<()> {
    let device = model::device(&args.device)?;
    let recipe = args.recipe(device.info().id.starts_with("cuda"));
    let keeping = args.housekeeping();
    let checkpoints = keeping.out.join("checkpoints");
    if args.resume && !checkpoints.is_dir() {
        let remedy = "there is no checkpoint in the folder: leave --resume out to begin";
        return Err(refused("resume", keeping.out.display(), remedy));
    }
    let sources = Sources { model: model::find(&args.model)?, ..args.sources() };
    let mut trainer = Trainer::new(&device, sources, recipe)?;
    anstream::println!("{}", trainer.estimate(args.dry_run)?);
    if args.dry_run {
        return Ok(());
    }
    if args.restart && checkpoints.is_dir() {
        let failed = |error| refused("restart", checkpoints.display(), format!("cannot be removed: {error}"));
        std::fs::remove_dir_all(&checkpoints).map_err(failed)?;
        // Without checkpoints the adapter would be taken for somebody else's.
        let _ = std::fs::remove_file(keeping.out.join("adapter_config.json"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let pressed = stop.clone();
    // A second Ctrl-C does not wait: the last checkpoint is whole in any case.
    let handler = move || {
        if pressed.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        anstream::eprintln!("Ctrl-C will end the run without saving: {error}");
    }
    let mut bar = Bar::new(trainer.steps());
    let summary = trainer.run(&keeping, &mut |event| {
        bar.show(&event);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    bar.finish();
    anstream::println!("{}", told(&summary, &args.model));
    Ok(())
}

fn refused(field: &'static str, value: impl ToString, remedy: impl Into<String>) -> candlewick_lm::train::Error {
    candlewick_lm::train::Error::Option { field, value: value.to_string(), remedy: remedy.into() }
}

/// What a run came to, and what to do with it.
fn told(summary: &Summary, model: &Path) -> String {
    let Summary { end, step, steps, adapter_step, loss, validation, test, .. } = summary;
    let mut text = match end {
        End::Complete => format!("\ntrained {steps} steps"),
        End::Early => format!("\nended early at step {step} of {steps}: the validation loss did not improve any more"),
        End::Stopped => format!("\nstopped at step {step} of {steps}: the same command goes on from here"),
    };
    let time = estimate::duration(summary.seconds);
    text += &format!(" in {time}, {:.0} tokens/s", summary.tokens_per_second);
    if let Some((first, last)) = loss {
        text += &format!("\nloss        {first:.4} -> {last:.4}");
    }
    for (name, (before, after)) in [("validation", validation), ("test", test)]
        .into_iter()
        .filter_map(|(name, looks)| looks.as_ref().map(|looks| (name, looks)))
    {
        text += &format!("\n{name:<10}  {:.4} -> {:.4}", before.loss, after.loss);
        let of =
            |right: usize, all: usize| format!("{right} of {all} ({:.0}%)", 100.0 * right as f64 / all.max(1) as f64);
        let answers = |v: &candlewick_lm::train::metrics::Validation| of(v.right_answers, v.answers);
        text += &format!("\nright       {} -> {} answers", answers(before), answers(after));
    }
    let out = summary.out.display();
    text += &format!("\nadapter     {out} (of step {adapter_step}); curve {out}/loss.svg");
    text + &format!("\nuse it      candlewick generate --model {} --adapter {out} --prompt \"..\"", model.display())
}
