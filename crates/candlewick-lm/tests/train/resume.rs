//! Runs that are stopped or killed go on to the same bits.

use crate::tiny::{Place, recipe, train};
use candlewick_lm::train::metrics::{self, Metric};
use candlewick_lm::train::{Checkpoints, End, Event, Housekeeping, Length, Recipe};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Every loss, rate and norm of a run, in bits, and the trained numbers.
fn traces(out: &Path) -> (Vec<[u64; 4]>, candlewick_lm::train::State) {
    let bits = |metric: Metric| match metric {
        Metric::Step(step) => {
            [step.step, step.loss.to_bits(), step.gradient_norm.to_bits(), step.learning_rate.to_bits()]
        }
        Metric::Validation(found) | Metric::Test(found) => {
            [found.step, found.loss.to_bits(), found.right as u64, u64::MAX]
        }
    };
    let lines = metrics::read(&out.join("metrics.jsonl")).unwrap().into_iter().map(bits).collect();
    let (_, _, state) = Checkpoints::in_folder(&out.join("checkpoints")).last().unwrap().unwrap();
    (lines, state)
}

fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (traces(one), traces(other));
    assert_eq!(one.0, other.0);
    assert!(one.1 == other.1, "the trained numbers differ");
}

#[test]
fn stopped_anywhere_it_goes_on_to_the_same_bits() {
    let place = Place::new();
    let long = Recipe { length: Length::Steps(23), ..recipe() };
    train(place.sources(), long.clone(), &place.keeping("whole"), |_| ControlFlow::Continue(())).unwrap();
    let mut ends = Vec::new();
    for stop in [2, 3, 9, 9, 10, 30] {
        let mut steps = 0;
        let summary = train(place.sources(), long.clone(), &place.keeping("parts"), |event| {
            steps += usize::from(matches!(event, Event::Stepped(_)));
            if steps == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        ends.push(summary.unwrap().end);
        assert!(place.path("parts/adapter_model.safetensors").is_file(), "there is an adapter at every end");
    }
    assert_eq!(ends, [End::Stopped, End::Stopped, End::Stopped, End::Complete, End::Complete, End::Complete]);
    assert_same(&place.path("whole"), &place.path("parts"));
    let adapter = |out: &str| std::fs::read(place.path(out).join("adapter_model.safetensors")).unwrap();
    assert!(adapter("whole") == adapter("parts"));
}

const CHILD: &str = "CANDLEWICK_TEST_FOLDER";

fn killed_recipe() -> (Recipe, u64) {
    let steps = 400;
    (Recipe { length: Length::Steps(steps), accumulation: 2, dropout: 0.1, ..recipe() }, steps)
}

fn killed_keeping(folder: &Path, out: &str) -> Housekeeping {
    Housekeeping { out: folder.join(out), save_every: 3, keep: 2, validate_every: 7, patience: 0 }
}

/// What the child process does; without its variable, nothing.
#[test]
fn child() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let folder = Path::new(&folder);
    let (model, data) = (folder.join("model"), folder.join("data.jsonl"));
    let sources = candlewick_lm::train::Sources { model, data, validation: None, test: None, adapter: None };
    train(sources, killed_recipe().0, &killed_keeping(folder, "killed"), |_| ControlFlow::Continue(())).unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "starts processes")]
fn killed_at_any_moment_it_goes_on_to_the_same_bits() {
    let place = Place::new();
    let (recipe, steps) = killed_recipe();
    let keeping = killed_keeping(place.folder.path(), "whole");
    train(place.sources(), recipe, &keeping, |_| ControlFlow::Continue(())).unwrap();
    let mut killed = 0;
    let mut random = candlewick_model::testing::Random(std::process::id().into());
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "resume::child", "--nocapture"])
            .env(CHILD, place.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(5 + random.bits() % 120));
        // The kill of Unix is SIGKILL: nothing of the child runs any more.
        child.kill().unwrap();
        let finished = child.wait().unwrap().success();
        killed += usize::from(!finished);
        let last = Checkpoints::in_folder(&place.path("killed/checkpoints")).last().unwrap();
        if finished || killed > 200 || last.is_some_and(|(_, progress, _)| progress.step == steps) {
            break;
        }
    }
    // Once more, undisturbed: whatever was cut off at the very end.
    let keeping = killed_keeping(place.folder.path(), "killed");
    train(place.sources(), killed_recipe().0, &keeping, |_| ControlFlow::Continue(())).unwrap();
    assert!(killed > 0, "the child was too quick to be killed");
    println!("killed {killed} times");
    assert_same(&place.path("whole"), &place.path("killed"));
}

/// Two runs of the same seed, and nothing grows.
#[test]
#[ignore = "2000 steps, twice: half a minute"]
fn soak() {
    let place = Place::new();
    let long = Recipe { length: Length::Steps(2000), learning_rate: 1e-3, warmup: 20, ..recipe() };
    let mut memory = Vec::new();
    for out in ["one", "two"] {
        let keeping = Housekeeping { save_every: 100, validate_every: 100, ..place.keeping(out) };
        train(place.sources(), long.clone(), &keeping, |event| {
            if let Event::Stepped(step) = event
                && step.step % 500 == 0
            {
                memory.push(resident());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    assert_same(&place.path("one"), &place.path("two"));
    println!("resident KiB at every 500th step: {memory:?}");
    if let [Some(early), .., Some(late)] = memory[..4] {
        assert!(late < early + 2048, "{memory:?}");
    }
}

/// KiB of this process in memory, where the system says so.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}
