//! Ten steps of a tiny model on the emulated GPU: the CPU's losses within rounding, and one command buffer a step.

// The data and the settings of candlewick-lm's own tests.
#[path = "../../../crates/candlewick-lm/tests/train/tiny.rs"]
#[allow(dead_code, missing_docs, reason = "some of it is for other tests")]
mod tiny;

use candlewick::Device;
use candlewick_lm::train::{Event, Length, Trainer};
use metal_emulator::{Settings, counts, watch};
use models_on_the_emulator as _;
use std::ops::ControlFlow;

const STEPS: u64 = 10;

/// Each step's loss, and the command buffers that were made up to its end.
fn losses(device: &Device, place: &tiny::Place, out: &str) -> Vec<(f64, u64)> {
    let recipe = candlewick_lm::train::Recipe { length: Length::Steps(STEPS), validation: 0.0, ..tiny::recipe() };
    let keeping = candlewick_lm::train::Housekeeping { save_every: 1000, validate_every: 1000, ..place.keeping(out) };
    let mut losses = Vec::new();
    Trainer::new(device, place.sources(), recipe)
        .unwrap()
        .run(&keeping, &mut |event| {
            if let Event::Stepped(step) = event {
                losses.push((step.loss, counts().command_buffers));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    losses
}

#[test]
fn ten_steps_are_the_cpus_steps() {
    let place = tiny::Place::new();
    let expected = losses(&Device::cpu_with_threads(1), &place, "cpu");
    let watch = watch(Settings::seeded(2));
    let found = losses(&Device::metal().unwrap(), &place, "metal");
    watch.assert_clean();
    assert_eq!(found.len() as u64, STEPS);
    for (nth, ((expected, _), (found, _))) in expected.iter().zip(&found).enumerate() {
        assert!((expected - found).abs() < 1e-4 * expected.abs(), "step {nth}: {found} and {expected} on the CPU");
    }
    for pair in found.windows(2).skip(1) {
        assert_eq!(pair[1].1 - pair[0].1, 1, "one command buffer a step");
    }
}
