//! Which cases run, on which engines.

use crate::case::{Case, Hardware, dtypes, fixed_count};
use crate::report::Report;
use crate::trial::{Fault, Trial};
use candlewick::op::OpClass;
use candlewick::{DType, Device, Result, Stream};

/// What is verified.
#[derive(Clone, Debug)]
pub struct Options {
    /// The operations, in this order.
    pub classes: Vec<OpClass>,
    /// The dtypes of each, but for those that it does not have.
    pub dtypes: Vec<DType>,
    /// Of the random numbers.
    pub seed: u64,
    /// Random cases per operation and dtype, after the fixed ones.
    pub sweep: usize,
    /// This case alone, by its number within its operation and dtype: neither `sweep`, `largest` nor `shard` counts then.
    pub only: Option<usize>,
    /// Leaves out cases of a larger [`Case::cost`]: for emulators and sanitizers.
    pub largest: Option<u64>,
    /// Which part of the cases runs.
    pub shard: Shard,
}

/// One of several equal parts of the cases, so that several runs share them: of every operation and dtype those whose
/// number leaves the remainder `index` when divided by `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, below `count`.
    pub index: usize,
    /// How many parts there are; 0 counts as 1.
    pub count: usize,
}

impl Shard {
    /// Every case.
    pub const ALL: Shard = Shard { index: 0, count: 1 };
}

impl Default for Options {
    /// Everything: some 3000 cases per operation and dtype.
    fn default() -> Self {
        Options {
            classes: OpClass::ALL.to_vec(),
            dtypes: DType::ALL.to_vec(),
            seed: 0,
            sweep: 3000,
            only: None,
            largest: None,
            shard: Shard::ALL,
        }
    }
}

impl Options {
    /// Every fixed case, and fewer random ones: seconds on a CPU or a GPU.
    pub fn quick() -> Self {
        Options { sweep: 150, ..Self::default() }
    }

    /// Every operation, dtype and engine on an emulated GPU, where a multiplication takes as long as a thousand: the fixed
    /// cases but for the largest, and a few random ones. A minute or two.
    pub fn emulated() -> Self {
        Options { sweep: 20, largest: Some(5_000_000), ..Self::default() }
    }
}

/// How far [`verify`] is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What runs now.
    pub class: OpClass,
    /// In which dtype.
    pub dtype: DType,
    /// Cases behind it.
    pub done: usize,
    /// Cases in all.
    pub total: usize,
}

/// Runs every case that the options choose on every engine of a device, and judges the results. `on_progress` is called
/// before the first case and after each.
///
/// # Errors
/// A stream that cannot be opened. What an engine says is a failure in the report.
///
/// # Panics
/// For a class that has no file in `cases/`.
pub fn verify(device: &Device, options: &Options, on_progress: &mut dyn FnMut(Progress)) -> Result<Report> {
    let hardware = Hardware::of(device);
    let mut lanes = lanes(device)?;
    let mut groups = Vec::new();
    for &class in &options.classes {
        for &dtype in options.dtypes.iter().filter(|dtype| dtypes(class).contains(dtype)) {
            groups.push((class, dtype, indices(class, options, hardware)));
        }
    }
    let total = groups.iter().map(|(.., indices)| indices.len()).sum();
    let mut report = Report::new(device.info().id);
    let mut done = 0;
    for (class, dtype, indices) in groups {
        on_progress(Progress { class, dtype, done, total });
        for index in indices {
            let case = Case::new(options.seed, class, dtype, index, hardware);
            if options.only.is_none() && options.largest.is_some_and(|largest| case.cost() > largest) {
                report.leave_out();
            } else {
                check(&case, &mut lanes, &mut report)?;
            }
            done += 1;
            on_progress(Progress { class, dtype, done, total });
        }
    }
    Ok(report)
}

/// The numbers of the cases of one class and dtype.
fn indices(class: OpClass, options: &Options, hardware: Hardware) -> Vec<usize> {
    match options.only {
        Some(index) => vec![index],
        None => {
            let Shard { index, count } = options.shard;
            (index..fixed_count(class, hardware) + options.sweep).step_by(count.max(1)).collect()
        }
    }
}

/// A device as it is used here: with a number of threads.
struct Lane {
    device: Device,
    stream: Stream,
}

/// The device with all its threads, and with one.
fn lanes(device: &Device) -> Result<Vec<Lane>> {
    let lane = |device: Device| Ok(Lane { stream: device.stream()?, device });
    match device {
        Device::Cpu(_) => Ok(vec![lane(device.clone())?, lane(Device::cpu_with_threads(1))?]),
        device => Ok(vec![lane(device.clone())?]),
    }
}

/// Runs a case on every engine.
fn check(case: &Case, lanes: &mut [Lane], report: &mut Report) -> Result<()> {
    let trial = Trial::new(case)?;
    let engines = lanes.first().map_or_else(Vec::new, |lane| lane.device.engines(case.op));
    if engines.is_empty() {
        report.record(case, None, 0, Err(Fault::NoEngine));
    }
    for engine in engines {
        for (index, lane) in lanes.iter_mut().enumerate() {
            let run = trial.run(&lane.device, &mut lane.stream, engine);
            let threads = run.as_ref().map_or(1, |run| run.threads);
            let verdict = match run {
                Ok(run) => trial.judge(&run.memory),
                Err(error) => Err(Fault::Refused(error.to_string())),
            };
            report.record(case, Some(engine), threads, verdict);
            for pair in trial.in_place() {
                let verdict = match trial.run_in_place(&mut lane.stream, engine, pair) {
                    Ok(memory) => trial.judge(&memory),
                    Err(error) => Err(Fault::Refused(error.to_string())),
                };
                let verdict = verdict.map_err(|fault| trial.fault_in_place(pair, fault));
                report.record(case, Some(engine), threads, verdict);
            }
            if index == 0 && threads == 1 {
                // Nothing was left to other threads: one thread does exactly the same.
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_all_cases_and_no_case_twice() {
        let options = |index, count| Options { sweep: 20, shard: Shard { index, count }, ..Options::default() };
        let indices = |options: &Options| indices(OpClass::Softmax, options, Hardware::Gpu);
        let mut shared: Vec<usize> = (0..5).flat_map(|index| indices(&options(index, 5))).collect();
        shared.sort_unstable();
        assert_eq!(shared, indices(&options(0, 1)));
        assert_eq!(shared.len(), fixed_count(OpClass::Softmax, Hardware::Gpu) + 20);
    }

    #[test]
    fn every_operation_and_dtype_is_verified_and_large_cases_are_left_out() {
        let options = Options { sweep: 2, largest: Some(20_000), ..Options::default() };
        let mut last = None;
        let report = verify(&Device::cpu(), &options, &mut |progress| last = Some(progress)).unwrap();
        assert!(report.failures().is_empty(), "{}", report.failures()[0]);
        for class in OpClass::ALL {
            for &dtype in dtypes(class) {
                assert!(report.rows().iter().any(|row| row.class == class && row.dtype == dtype), "{class} {dtype}");
            }
        }
        let last = last.unwrap();
        assert!(report.left_out() > 0 && report.left_out() < last.total);
        assert_eq!(last.done, last.total);
    }

    /// The device that does nothing leaves what was there before.
    #[test]
    fn a_device_that_does_nothing_fails() {
        let options = Options { sweep: 5, largest: Some(200_000), ..Options::default() };
        let report = verify(&Device::open("empty").unwrap(), &options, &mut |_| {}).unwrap();
        assert_eq!(report.rows().len(), OpClass::ALL.iter().map(|&class| dtypes(class).len()).sum::<usize>());
        for row in report.rows() {
            assert!(row.failed > 0, "{} {}", row.class, row.dtype);
        }
    }
}
