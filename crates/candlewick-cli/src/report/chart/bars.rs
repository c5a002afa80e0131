//! What an operation's time is made of, Candlewick's beside Candle's.

use super::{Anchor, Svg};
use crate::bench::contenders::Maker;
use crate::bench::rounds::{Entry, Measured};
use crate::bench::rows::limits_of;
use crate::bench::session::Session;
use crate::bench::timing::Regime;
use crate::report::figure::{percent, time};
use crate::report::tables::Block;

const WIDTH: f64 = 440.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 372.0;
const BAR: f64 = 13.0;

/// One library's time.
struct Bar {
    name: &'static str,
    parts: Vec<Part>,
}

/// A share of a bar.
struct Part {
    class: &'static str,
    name: &'static str,
    micros: f64,
}

/// What the colours mean: class and text.
pub const LEGEND: [(&str, &str); 5] = [
    ("part-limit", "the machine's limit: the arithmetic or the data, whichever takes longer"),
    ("part-wake", "Candlewick waking its threads, measured without work"),
    ("part-contract", "Candlewick's host side, measured on a device that does nothing"),
    ("part-lookup", "Candle asking how many threads there are, before every product"),
    ("part-rest", "the rest: memory, kernels short of the limit, and whatever else a library does"),
];

/// The bars of an operation; none where Candle was not measured or nothing is known of the limit.
pub fn bars(session: &Session, block: &Block<'_>) -> Option<String> {
    let pairs: Vec<(&Measured, [Bar; 2])> =
        block.cases.iter().filter_map(|&measured| Some((measured, pair(session, measured)?))).collect();
    if pairs.is_empty() {
        return None;
    }
    let height = 26.0 + pairs.len() as f64 * 58.0;
    let mut svg = Svg::new(WIDTH, height, &format!("What the time of {} is made of", block.title));
    svg.text("title", (0.0, 13.0), Anchor::Start, &block.title);
    svg.text("faint small", (WIDTH, 13.0), Anchor::End, "full width: the slower of the two");
    for (index, (measured, bars)) in pairs.iter().enumerate() {
        let top = 26.0 + index as f64 * 58.0;
        svg.text("faint small", (0.0, top + 12.0), Anchor::Start, &measured.case.shape.to_string());
        let longest = bars.iter().map(Bar::micros).fold(f64::MIN_POSITIVE, f64::max);
        for (row, bar) in bars.iter().enumerate() {
            let y = top + 18.0 + row as f64 * (BAR + 4.0);
            svg.text("small", (LEFT - 8.0, y + 10.5), Anchor::End, bar.name);
            let mut x = LEFT;
            for part in &bar.parts {
                let width = part.micros / longest * (RIGHT - LEFT);
                let tooltip = format!("{}: {} ({})", part.name, time(part.micros), percent(part.micros / bar.micros()));
                svg.rect(part.class, (x, y), (width, BAR), &tooltip);
                x += width;
            }
            svg.text("small", (x + 6.0, y + 10.5), Anchor::Start, &time(bar.micros()));
        }
    }
    Some(svg.finish())
}

impl Bar {
    fn micros(&self) -> f64 {
        self.parts.iter().map(|part| part.micros).sum()
    }
}

/// Both libraries as they come.
fn pair(session: &Session, measured: &Measured) -> Option<[Bar; 2]> {
    let (ours, candle) = (as_it_comes(measured, Maker::Candlewick)?, as_it_comes(measured, Maker::Candle)?);
    let threaded = ours.threads_used.is_some_and(|threads| threads > 1);
    let wake = limits_of(&session.limits, ours).map_or(0.0, |limits| limits.wake * 1e6);
    let (forward, backward) = measured.case.ops();
    let wakes = if threaded { (forward.len() + backward.len()) as f64 } else { 0.0 };
    let ours_known = [
        Part { class: "part-wake", name: "waking threads", micros: wake * wakes },
        Part { class: "part-contract", name: "host side", micros: measured.contract.unwrap_or(0.0) },
    ];
    let lookups = session.thread_lookup().unwrap_or(0.0) * measured.case.products() as f64;
    let candle_known = [Part { class: "part-lookup", name: "thread look-up", micros: lookups }];
    Some([
        Bar { name: "Candlewick", parts: parts(session, measured, ours, ours_known)? },
        Bar { name: "Candle", parts: parts(session, measured, candle, candle_known)? },
    ])
}

fn as_it_comes(measured: &Measured, maker: Maker) -> Option<&Entry> {
    let mut entries = measured.entries.iter().filter(|entry| entry.maker == maker);
    entries.clone().find(|entry| !entry.one_thread).or_else(|| entries.next())
}

/// The limit, the costs that are known, and the rest, which add up to the latency.
fn parts<const N: usize>(session: &Session, measured: &Measured, entry: &Entry, known: [Part; N]) -> Option<Vec<Part>> {
    let mut left = entry.times.get(&Regime::Latency)?.median;
    let limit = measured.case.limit_seconds(limits_of(&session.limits, entry)?) * 1e6;
    let limit = Some(limit).filter(|limit| limit.is_finite())?;
    let mut parts = Vec::new();
    for part in [Part { class: "part-limit", name: "limit", micros: limit }].into_iter().chain(known) {
        let micros = part.micros.min(left);
        left -= micros;
        parts.push(Part { micros, ..part });
    }
    parts.push(Part { class: "part-rest", name: "the rest", micros: left });
    Some(parts)
}
