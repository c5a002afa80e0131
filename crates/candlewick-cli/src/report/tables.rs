//! The tables of a session.

use super::figure::{percent, ratio, three_digits};
use super::grid::{Cell, Grid, Tone};
use crate::bench::contenders::Maker;
use crate::bench::rounds::{Entry, Measured};
use crate::bench::rows::{better_candle, share_of_limit};
use crate::bench::session::Session;
use crate::bench::timing::Regime;

/// One operation in one dtype.
pub struct Block<'a> {
    /// `lora_linear f32`.
    pub title: String,
    /// What the shapes mean.
    pub meaning: &'static str,
    /// Its cases, in order.
    pub cases: Vec<&'a Measured>,
}

/// The results by operation and dtype.
pub fn blocks(session: &Session) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    for measured in session.results.iter().filter(|measured| !measured.entries.is_empty()) {
        let case = &measured.case;
        let title = format!("{} {}", case.op_name(), case.dtype);
        match blocks.iter_mut().find(|block| block.title == title) {
            Some(block) => block.cases.push(measured),
            None => blocks.push(Block { title, meaning: case.shape_meaning(), cases: vec![measured] }),
        }
    }
    blocks
}

/// Every engine of every shape.
pub fn block(session: &Session, block: &Block<'_>) -> Grid {
    let data = block.cases.iter().all(|measured| measured.case.moves_data());
    let rate = if data { "GB/s" } else { "GFLOP/s" };
    let mut grid = Grid::new(
        &["shape", "engine", "threads"],
        &["latency µs", "min..p90", "pipelined", "enqueue", "replay", rate, "limit", "error", "vs Candle"],
    );
    for measured in &block.cases {
        for entry in &measured.entries {
            grid.push(row(session, measured, entry));
        }
    }
    grid.without_empty_columns()
}

fn row(session: &Session, measured: &Measured, entry: &Entry) -> Vec<Cell> {
    let case = &measured.case;
    let median = |regime| entry.times.get(&regime).map(|micros| micros.median);
    let cell = |regime| median(regime).map_or_else(String::new, three_digits);
    let latency = entry.times.get(&Regime::Latency);
    let range = latency
        .map_or_else(String::new, |micros| format!("{}..{}", three_digits(micros.min), three_digits(micros.p90)));
    let amount = if case.moves_data() { case.bytes() } else { case.flops() };
    let computes = share_of_limit(measured, entry, &session.limits, 1.0).is_some();
    let rate = latency.filter(|_| computes).map(|micros| three_digits(amount / micros.median / 1e3));
    let share = latency.and_then(|micros| share_of_limit(measured, entry, &session.limits, micros.median));
    let tone = if entry.maker == Maker::Candlewick { Tone::Strong } else { Tone::Plain };
    vec![
        case.shape.to_string().into(),
        Cell::new(engine(entry), if entry.maker == Maker::Candlewick { Tone::Strong } else { Tone::Plain }),
        Cell::new(threads(entry), Tone::Faint),
        Cell::new(cell(Regime::Latency), tone),
        Cell::new(range, Tone::Faint),
        cell(Regime::Pipelined).into(),
        cell(Regime::Enqueue).into(),
        cell(Regime::Replay).into(),
        rate.unwrap_or_default().into(),
        share.map_or_else(String::new, percent).into(),
        error(entry),
        latency.map_or_else(Cell::default, |micros| against_candle(measured, entry, micros.median)),
    ]
}

/// Candlewick's own engines by their names, others by their maker's.
fn engine(entry: &Entry) -> String {
    match entry.maker {
        Maker::Candlewick => entry.engine.clone(),
        // It says which GPU it is on.
        Maker::Mlx => entry.engine.replacen("mlx", Maker::Mlx.name(), 1),
        maker => maker.name().to_owned(),
    }
}

fn threads(entry: &Entry) -> String {
    match entry.threads_used {
        Some(used) if used < entry.threads_allowed => format!("{used} of {}", entry.threads_allowed),
        used => used.unwrap_or(entry.threads_allowed).to_string(),
    }
}

fn error(entry: &Entry) -> Cell {
    match entry.error {
        None => Cell::default(),
        Some(error) if error.is_nan() => Cell::new("NaN", Tone::Bad),
        Some(error) => Cell::new(format!("{error:.0e}"), if error > WRONG { Tone::Bad } else { Tone::Plain }),
    }
}

/// Beyond any rounding: what a library that adds up thousands of numbers in bf16 arrives at.
const WRONG: f64 = 0.1;

fn against_candle(measured: &Measured, entry: &Entry, median: f64) -> Cell {
    match better_candle(&measured.entries, Regime::Latency) {
        Some(candle) if entry.maker != Maker::Candle => gain(candle / median),
        _ => Cell::default(),
    }
}

fn gain(times: f64) -> Cell {
    let tone = match times {
        times if times >= 1.05 => Tone::Good,
        times if times < 0.95 => Tone::Bad,
        _ => Tone::Plain,
    };
    Cell::new(ratio(times), tone)
}

/// The regimes that are summed up: on a GPU what is waited for says little of what is not.
pub fn summed_up(session: &Session) -> Vec<Regime> {
    let all = [Regime::Latency, Regime::Enqueue, Regime::Replay];
    all.into_iter().filter(|&regime| session.device.asynchronous || regime == Regime::Latency).collect()
}

/// Medians of Candlewick as it comes beside both settings of every peer.
pub fn summary(session: &Session, regime: Regime) -> Grid {
    let mut grid = Grid::new(
        &["operation", "shape"],
        &[
            "Candlewick",
            "1 thread",
            "Candle",
            "1 thread",
            "PyTorch",
            "1 thread",
            "MLX",
            "vs Candle",
            "vs PyTorch",
            "vs MLX",
        ],
    );
    let dtypes = session.results.iter().any(|measured| measured.case.dtype != session.results[0].case.dtype);
    for measured in &session.results {
        let median = |maker, one_thread| {
            let wanted = |entry: &&Entry| entry.maker == maker && entry.one_thread == one_thread && !entry.forced;
            let entry = measured.entries.iter().find(wanted)?;
            Some(entry.times.get(&regime)?.median)
        };
        let cell = |time: Option<f64>| time.map_or_else(String::new, three_digits).into();
        let ours = median(Maker::Candlewick, false).or(median(Maker::Candlewick, true));
        let single = median(Maker::Candlewick, true).filter(|_| median(Maker::Candlewick, false).is_some());
        let against = |maker| {
            let better = [false, true].into_iter().filter_map(|one_thread| median(maker, one_thread));
            match (ours, better.min_by(f64::total_cmp)) {
                (Some(ours), Some(better)) => gain(better / ours),
                _ => Cell::default(),
            }
        };
        let name = measured.case.op_name();
        let name = if dtypes { format!("{name} {}", measured.case.dtype) } else { name.to_owned() };
        grid.push(vec![
            name.into(),
            measured.case.shape.to_string().into(),
            Cell::new(ours.map_or_else(String::new, three_digits), Tone::Strong),
            cell(single),
            cell(median(Maker::Candle, false)),
            cell(median(Maker::Candle, true)),
            cell(median(Maker::PyTorch, false)),
            cell(median(Maker::PyTorch, true)),
            cell(median(Maker::Mlx, false)),
            against(Maker::Candle),
            against(Maker::PyTorch),
            against(Maker::Mlx),
        ]);
    }
    grid.without_empty_columns()
}

/// What the summary's figures are.
pub fn summary_meaning(session: &Session, regime: Regime) -> String {
    let against = if session.settings.is_empty() {
        ""
    } else if session.device.asynchronous {
        " Ratios are against each peer in the same regime."
    } else {
        " Each peer as it comes and with one thread; ratios are against the faster of the two, so that beating a slow \
         setting counts for nothing."
    };
    let what = match regime {
        Regime::Latency => "latency",
        Regime::Pipelined => "time in a long run closed by one wait",
        Regime::Enqueue => "host time per operation, nothing waited for",
        Regime::Replay => "time per operation of a sequence of 200 that was recorded once",
    };
    format!("Median {what}, in microseconds.{against}")
}

/// What a reader of the figures must know: of each library, where it does something else than one would think.
pub fn notes(session: &Session) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |text: String| {
        if !notes.contains(&text) {
            notes.push(text);
        }
    };
    for measured in &session.results {
        for entry in &measured.entries {
            if let Some(error) = entry.error.filter(|error| *error > WRONG) {
                let (maker, case) = (entry.maker.name(), &measured.case);
                note(format!("{maker} is wrong in {case}: by {} of the largest number.", percent(error)));
            }
            if let Some(text) = &entry.note {
                note(format!("{} in {}: {text}.", entry.maker.name(), measured.case.op_name()));
            }
        }
    }
    notes
}

/// What the columns of the tables are.
pub fn columns(session: &Session) -> Vec<String> {
    let mut columns =
        vec!["pipelined, enqueue, replay: microseconds as well; `candlewick bench --help` says what they are.".into()];
    if !session.device.asynchronous {
        columns.push(format!(
            "No enqueue column: on {} an operation runs inside the call, so enqueuing it is running it.",
            session.device.id
        ));
    }
    if session.limits.iter().any(|limits| !limits.bandwidth.is_empty()) {
        columns.push(
            "limit: the least time that this machine can take, for the arithmetic or the data, over the latency."
                .into(),
        );
        columns.push("error: largest difference from the f64 reference, relative to its largest number.".into());
    }
    columns
}
