//! Ten steps of a tiny model on the emulated GPU: the CPU's losses within rounding, and one command buffer a step.

// The data and the settings of candlewick-lm's own tests.
#[path = "../../../crates/candlewick-lm/tests/train/tiny.rs"]
#[allow(dead_code, missing_docs, reason = "some of it is for other tests")]
mod tiny;

use candlewick::Device;
use candlewick_lm::train::{Event, Housekeeping, Length, Recipe, Trainer};
use metal_emulator::{Settings, region, watch};
use models_on_the_emulator as _;
use std::ops::ControlFlow;

const STEPS: u64 = 10;

/// Each step's loss.
fn losses(device: &Device, place: &tiny::Place, out: &str, steps: u64) -> Vec<f64> {
    let recipe = Recipe { length: Length::Steps(steps), validation: 0.0, ..tiny::recipe() };
    let keeping = Housekeeping { save_every: 1000, validate_every: 1000, ..place.keeping(out) };
    let mut losses = Vec::new();
    let mut trainer = Trainer::new(device, place.sources(), recipe).unwrap();
    let ran = trainer.run(&keeping, &mut |event| {
        if let Event::Stepped(step) = event {
            losses.push(step.loss);
        }
        ControlFlow::Continue(())
    });
    ran.unwrap();
    losses
}

#[test]
fn ten_steps_are_the_cpus_steps() {
    let place = tiny::Place::new();
    let expected = losses(&Device::cpu_with_threads(1), &place, "cpu", STEPS);
    let watch = watch(Settings::seeded(2));
    let metal = Device::metal().unwrap();
    let (counted, found) = region(|| losses(&metal, &place, "metal", STEPS));
    // The same without half of the steps: what is left are the steps' own.
    let (fewer, _) = region(|| losses(&metal, &place, "fewer", STEPS / 2));
    watch.assert_clean();
    assert_eq!(found.len() as u64, STEPS);
    for (nth, (expected, found)) in expected.iter().zip(&found).enumerate() {
        assert!((expected - found).abs() < 1e-4 * expected.abs(), "step {nth}: {found} and {expected} on the CPU");
    }
    let buffers = counted.gpu.command_buffers - fewer.gpu.command_buffers;
    assert_eq!(buffers, STEPS / 2, "one command buffer a step");
}
