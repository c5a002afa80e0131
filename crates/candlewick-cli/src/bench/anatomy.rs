//! `candlewick bench --device metal --anatomy`: what one product through Metal Performance Shaders is made of, as naive code
//! runs it and as Candlewick does, and the two regimes in which "148 times slower" was measured.
//!
//! Where somebody counts (the emulator), counts stand instead of times.

use super::cases::{Case, Family};
use super::operands::operands;
use super::timing::{Regime, Timed, measure};
use crate::Counts;
use crate::report::grid::{Cell, Grid};
use candlewick::metal::anatomy::{self, Share, Stage, StageTime};
use candlewick::metal::{self, MPS, MPS_NDARRAY, NAIVE_MPS, SIMDGROUP};
use candlewick::{Buffer, DType, Device, Engine, Kernel, Result, Stream};
use half::{bf16, f16};
use std::io::Write as _;

/// Who counts messages and objects, if anybody does.
pub(super) type Counter = Option<fn() -> Counts>;

/// Calls of a regime, counted.
const CALLS: usize = 100;
/// Products of a stage's median.
const SAMPLES: usize = 51;

/// Prints the stages of one product and the regimes side by side, for every product among the cases.
///
/// # Errors
/// What the library says.
pub(super) fn print(device: &Device, cases: &[Case], counter: Counter) -> std::result::Result<(), String> {
    let Device::Metal(metal) = device else {
        return Err("--anatomy takes a product of Metal Performance Shaders apart: --device metal".into());
    };
    let products: Vec<&Case> = cases.iter().filter(|case| case.family == Family::MatMul).collect();
    if products.is_empty() {
        return Err("--anatomy takes products apart, and there is none: --ops matmul, --shapes 64x64x64".into());
    }
    for case in products {
        let mut product = Product::new(device, case).map_err(in_words)?;
        let text = product.stages(metal, counter).map_err(in_words)? + &product.regimes(counter)?;
        // Whoever closes the pipe has read enough.
        let _ = writeln!(anstream::stdout().lock(), "{case}\n\n{text}");
    }
    Ok(())
}

/// A product with its matrices.
struct Product {
    op: candlewick::MatMul,
    stream: Stream,
    a: Buffer,
    b: Buffer,
    c: Buffer,
}

impl Product {
    fn new(device: &Device, case: &Case) -> Result<Self> {
        let mut stream = device.stream()?;
        let mut buffers = Vec::new();
        for operand in operands(case) {
            let count = operand.elements();
            let mut buffer = device.alloc(case.dtype, count)?;
            match case.dtype {
                DType::F32 => stream.write(&mut buffer, &operand.values::<f32>(count))?,
                DType::F16 => stream.write(&mut buffer, &operand.values::<f16>(count))?,
                DType::BF16 => stream.write(&mut buffer, &operand.values::<bf16>(count))?,
                DType::U32 | DType::U8 => unreachable!("products are of floats"),
            }
            buffers.push(buffer);
        }
        let op = case.matmul();
        let c = device.alloc(case.dtype, op.m * op.n)?;
        stream.wait()?;
        let (b, a) = (buffers.pop(), buffers.pop());
        let (Some(a), Some(b)) = (a, b) else { unreachable!("a product has two operands") };
        Ok(Product { op, stream, a, b, c })
    }

    /// The stages of naive code, then of every engine.
    fn stages(&mut self, metal: &metal::Device, counter: Counter) -> Result<String> {
        let mut text = String::from("One product, stage by stage\n");
        let Product { op, a, b, c, .. } = self;
        let (Buffer::Metal(a), Buffer::Metal(b), Buffer::Metal(c)) = (&*a, &*b, c) else {
            unreachable!("they were allocated on this device")
        };
        let inputs = [a.into(), b.into()];
        let mut run = |engine: Engine, calls: usize| -> Result<Vec<Measured>> {
            let mut output = c.into();
            observe(counter, |after| match engine {
                NAIVE_MPS => anatomy::naive(metal, op, &inputs, &mut output, after),
                engine => anatomy::ours(metal, op, engine, &inputs, &mut output, calls, after),
            })
        };
        for engine in [NAIVE_MPS, MPS, MPS_NDARRAY, SIMDGROUP] {
            let calls = metal.operations_per_command_buffer();
            // The first meets cold caches: Metal compiles, and so do we.
            if let Err(error) = run(engine, calls) {
                text += &format!("\n{engine}: left out: {error}\n");
                continue;
            }
            let samples = if counter.is_some() { 1 } else { SAMPLES };
            let samples = (0..samples).map(|_| run(engine, calls)).collect::<Result<Vec<_>>>()?;
            let (meaning, calls) = match engine {
                NAIVE_MPS => ("everything made anew, and waited for".into(), 1),
                _ => (format!("as Candlewick runs it, {calls} calls"), calls),
            };
            let grid = table(&medians(samples), counter.is_some(), calls);
            text += &format!("\n{engine}: {meaning}\n{}", grid.to_terminal());
        }
        Ok(text)
    }

    /// A product waited for, and one of many with a single wait, per engine.
    fn regimes(&mut self, counter: Counter) -> std::result::Result<String, String> {
        let of = if counter.is_some() { "per product, of 100" } else { "µs" };
        let mut text = format!("\nThe same product in two regimes ({of})\n\n");
        let columns: &[&str] = if counter.is_some() {
            &["messages", "waits", "command buffers", "messages", "waits", "command buffers"]
        } else {
            &["latency: each waited for", "pipelined: one wait for all"]
        };
        let mut grid = Grid::new(&["engine"], columns);
        for engine in [NAIVE_MPS, MPS, MPS_NDARRAY, SIMDGROUP] {
            let Ok(kernel) = self.stream.prepare_with(self.op, engine) else { continue };
            let mut calls = Calls { product: self, kernel };
            let mut row = vec![Cell::from(engine.to_string())];
            for regime in [Regime::Latency, Regime::Pipelined] {
                match counter {
                    Some(counter) => row.extend(count(&mut calls, regime, counter)?),
                    None => {
                        let mut samples = measure(regime, 0.3, &mut calls)?;
                        samples.sort_by(f64::total_cmp);
                        row.push(format!("{:.2}", samples[samples.len() / 2]).into());
                    }
                }
            }
            grid.push(row);
        }
        text += &grid.to_terminal();
        text += if counter.is_some() {
            "\nThe first three columns: each product waited for (latency). The others: one wait for all (pipelined).\n\
             A wait looks at the event for up to 50 µs before it blocks, and every look is a message.\n"
        } else {
            ""
        };
        text += "Comparing one library's latency with another's pipelined time compares a wait with no wait.\n";
        Ok(text)
    }
}

/// A stage with what it cost.
#[derive(Clone, Copy)]
struct Measured {
    time: StageTime,
    counts: Counts,
}

/// Runs a product, counting between its stages.
fn observe(
    counter: Counter,
    run: impl FnOnce(&mut dyn FnMut(Stage)) -> Result<Vec<StageTime>>,
) -> Result<Vec<Measured>> {
    let now = || counter.map_or_else(Counts::default, |counter| counter());
    let (mut before, mut counts) = (now(), Vec::new());
    let times = run(&mut |_| {
        counts.push(now() - before);
        before = now();
    })?;
    Ok(times.into_iter().zip(counts).map(|(time, counts)| Measured { time, counts }).collect())
}

/// Stage by stage the median of the times.
fn medians(samples: Vec<Vec<Measured>>) -> Vec<Measured> {
    let mut stages = samples[0].clone();
    for (i, stage) in stages.iter_mut().enumerate() {
        let mut seconds: Vec<f64> = samples.iter().map(|sample| sample[i].time.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        stage.time.seconds = seconds[seconds.len() / 2];
    }
    stages
}

/// Messages that fall to one call, in the long run. Encoding was counted for all calls of a command buffer together.
fn messages_per_call(time: &StageTime, counts: &Counts, calls: usize) -> f64 {
    let calls = if time.stage == Stage::Encode { calls } else { 1 };
    match time.share {
        Share::Call => counts.messages as f64 / calls as f64,
        Share::CommandBuffer(operations) => counts.messages as f64 / operations as f64,
        Share::Once | Share::Life => 0.0,
    }
}

fn table(stages: &[Measured], counted: bool, calls: usize) -> Grid {
    let columns: &[&str] =
        if counted { &["messages", "objects", "messages per call"] } else { &["µs", "µs per call"] };
    let mut grid = Grid::new(&["stage", "how often"], columns);
    for Measured { time, counts } in stages {
        let mut row = vec![Cell::from(time.stage.name().to_owned()), time.share.name().into()];
        if counted {
            row.extend([counts.messages, counts.objects].map(|count| Cell::from(count.to_string())));
            row.push(format!("{:.2}", messages_per_call(time, counts, calls)).into());
        } else {
            row.extend([time.seconds, time.seconds_per_call()].map(|it| Cell::from(format!("{:.2}", it * 1e6))));
        }
        grid.push(row);
    }
    let mut row = vec![Cell::from("together".to_owned()), String::new().into()];
    if counted {
        let sum = |of: fn(&Counts) -> u64| stages.iter().map(|stage| of(&stage.counts)).sum::<u64>().to_string();
        row.extend([Cell::from(sum(|counts| counts.messages)), sum(|counts| counts.objects).into()]);
        let each = stages.iter().map(|Measured { time, counts }| messages_per_call(time, counts, calls));
        row.push(format!("{:.2}", each.sum::<f64>()).into());
    } else {
        let all: f64 = stages.iter().map(|stage| stage.time.seconds).sum();
        let per_call: f64 = stages.iter().map(|stage| stage.time.seconds_per_call()).sum();
        row.extend([all, per_call].map(|it| Cell::from(format!("{:.2}", it * 1e6))));
    }
    grid.push(row);
    grid
}

/// Calls of one kernel.
struct Calls<'a> {
    product: &'a mut Product,
    kernel: Kernel,
}

impl Timed for Calls<'_> {
    fn submit(&mut self) -> std::result::Result<(), String> {
        let Product { stream, a, b, c, .. } = &mut *self.product;
        stream.encode(&self.kernel, &[(&*a).into(), (&*b).into()], &mut [c.into()]).map_err(in_words)
    }

    fn wait(&mut self) -> std::result::Result<(), String> {
        self.product.stream.wait().map_err(in_words)
    }
}

/// Messages, waits and command buffers of one product.
fn count(calls: &mut Calls<'_>, regime: Regime, counter: fn() -> Counts) -> std::result::Result<Vec<Cell>, String> {
    calls.submit()?;
    calls.wait()?;
    let before = counter();
    for _ in 0..CALLS {
        calls.submit()?;
        if regime == Regime::Latency {
            calls.wait()?;
        }
    }
    calls.wait()?;
    let Counts { messages, waits, command_buffers, .. } = counter() - before;
    let each = |count: u64| Cell::from(format!("{:.2}", count as f64 / CALLS as f64));
    Ok(vec![each(messages), each(waits), each(command_buffers)])
}

fn in_words(error: candlewick::Error) -> String {
    error.to_string()
}
