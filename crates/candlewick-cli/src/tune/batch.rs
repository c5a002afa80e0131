//! How many operations a Metal command buffer should hold: more cost less per operation, and start the GPU later.

use super::trial::Schedule;
use super::work::Work;
use crate::bench::stats::Micros;
use crate::bench::timing::{Regime, measure};
use candlewick::{DType, Device, LoraLinear, metal};

const COUNTS: [usize; 6] = [16, 32, 50, 100, 200, 400];
/// A larger number is taken only where it is faster by so much.
const CLEARLY: f64 = 0.98;

/// The number that runs a chain of small LoRA layers fastest.
///
/// # Errors
/// What the library says.
pub(super) fn measure_batches(device: &metal::Device, schedule: Schedule) -> Result<usize, String> {
    let op = LoraLinear::new(32, 512, 512, 8, 1.0, DType::F16).packed().into();
    let mut best = (COUNTS[0], f64::INFINITY);
    for operations in COUNTS {
        let device = Device::Metal(device.clone().with_operations_per_command_buffer(operations));
        let mut stream = device.stream().map_err(|error| error.to_string())?;
        let mut work = Work::new(&device, &mut stream, &op, None).map_err(|error| error.to_string())?;
        let mut samples = Vec::new();
        for _ in 0..schedule.rounds {
            samples.extend(measure(Regime::Pipelined, 4.0 * schedule.turn, &mut work)?);
        }
        let median = Micros::of(samples).map_or(f64::INFINITY, |micros| micros.median);
        if median < CLEARLY * best.1 {
            best = (operations, median);
        }
    }
    Ok(best.0)
}
