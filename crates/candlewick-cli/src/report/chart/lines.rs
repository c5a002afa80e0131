//! Time against size, both logarithmic, a line per engine and one for the machine's limit.

use super::scale::LogScale;
use super::{Anchor, Svg, class_of};
use crate::bench::cases::Case;
use crate::bench::contenders::Maker;
use crate::bench::rounds::{Entry, Measured};
use crate::bench::session::Session;
use crate::bench::timing::Regime;
use crate::report::figure::{arithmetic, data, time};
use crate::report::tables::Block;

const WIDTH: f64 = 440.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 268.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 424.0;
const LEGEND_ROW: f64 = 18.0;
const LABEL_ROW: f64 = 13.0;

struct Series<'a> {
    maker: Maker,
    one_thread: bool,
    name: String,
    points: Vec<(&'a Case, f64)>,
}

/// The chart of an operation; none where there are fewer than two sizes.
pub fn lines(session: &Session, block: &Block<'_>) -> Option<String> {
    let mut cases: Vec<&Measured> = block.cases.clone();
    cases.sort_by(|one, other| size(&one.case).total_cmp(&size(&other.case)));
    if cases.len() < 2 || size(&cases[0].case) == size(&cases[cases.len() - 1].case) {
        return None;
    }
    let series = series(&cases);
    let limits: Vec<(&Case, f64)> =
        cases.iter().filter_map(|measured| Some((&measured.case, limit(session, measured)?))).collect();

    let x = LogScale::around(cases.iter().map(|measured| size(&measured.case)), LEFT, RIGHT)?;
    let times = series.iter().flat_map(|series| &series.points).chain(&limits).map(|(_, micros)| *micros);
    let y = LogScale::around(times, BOTTOM, TOP)?;
    let legend_rows = (series.len() + 1).div_ceil(2) as f64;
    let levels = shape_labels(&cases, &x);
    let below = BOTTOM + 22.0 + levels.iter().map(|label| label.level).max().unwrap_or(0) as f64 * LABEL_ROW;
    let height = below + 34.0 + legend_rows * LEGEND_ROW;
    let mut svg = Svg::new(WIDTH, height, &format!("Time against size of {}", block.title));

    svg.text("title", (0.0, 13.0), Anchor::Start, &block.title);
    svg.text("faint small", (RIGHT, 13.0), Anchor::End, "latency, median (log)");
    for tick in y.ticks() {
        svg.line("grid", (LEFT, y.at(tick)), (RIGHT, y.at(tick)));
        svg.text("faint small", (LEFT - 6.0, y.at(tick) + 4.0), Anchor::End, &tick_label(tick));
    }
    svg.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    for measured in &cases {
        let at = x.at(size(&measured.case));
        svg.line("axis", (at, BOTTOM), (at, BOTTOM + 4.0));
    }
    for label in &levels {
        let y = BOTTOM + 17.0 + LABEL_ROW * label.level as f64;
        svg.text("faint small", (label.middle, y), Anchor::Middle, &label.text);
    }
    svg.text("faint small", ((LEFT + RIGHT) / 2.0, below + 12.0), Anchor::Middle, &range(&cases));

    let place = |(case, micros): &(&Case, f64)| (x.at(size(case)), y.at(*micros));
    svg.path("limit", &limits.iter().map(place).collect::<Vec<_>>());
    for series in &series {
        let class = class(series);
        svg.path(&class, &series.points.iter().map(place).collect::<Vec<_>>());
    }
    for series in &series {
        for point in &series.points {
            let tooltip = format!("{}, {}: {}", series.name, point.0.shape, time(point.1));
            svg.dot(class_of(series.maker), place(point), &tooltip);
        }
    }
    let limit_threads = session.limits.first().filter(|_| !limits.is_empty()).map(|limits| limits.threads);
    legend(&mut svg, below + 32.0, &series, limit_threads);
    Some(svg.finish())
}

/// What a shape costs: its arithmetic, or its data where that is what it is about.
fn size(case: &Case) -> f64 {
    if case.moves_data() { case.bytes() } else { case.flops() }
}

fn limit(session: &Session, measured: &Measured) -> Option<f64> {
    let micros = measured.case.limit_seconds(session.limits.first()?) * 1e6;
    (micros > 0.0 && micros.is_finite()).then_some(micros)
}

fn series<'a>(cases: &[&'a Measured]) -> Vec<Series<'a>> {
    let mut all: Vec<Series<'a>> = Vec::new();
    for measured in cases {
        for entry in &measured.entries {
            let Some(micros) = entry.times.get(&Regime::Latency) else { continue };
            let name = name(entry);
            let point = (&measured.case, micros.median);
            match all.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push(point),
                None => {
                    let Entry { maker, one_thread, .. } = *entry;
                    all.push(Series { maker, one_thread, name, points: vec![point] });
                }
            }
        }
    }
    // Each library beside itself with one thread; the one that has no such twin beside the limit.
    all.sort_by_key(|series| series.maker == Maker::Adapter);
    all
}

fn name(entry: &Entry) -> String {
    let name = if entry.forced { &entry.engine } else { entry.maker.name() };
    format!("{name}{}", if entry.one_thread { ", 1 thread" } else { "" })
}

fn class(series: &Series<'_>) -> String {
    format!("{}{}", class_of(series.maker), if series.one_thread { " one" } else { "" })
}

fn tick_label(micros: f64) -> String {
    match micros {
        micros if micros < 0.9995 => format!("{:.0} ns", micros * 1e3),
        micros if micros < 999.5 => format!("{micros:.0} µs"),
        micros => format!("{:.0} ms", micros / 1e3),
    }
}

struct ShapeLabel {
    text: String,
    middle: f64,
    level: usize,
}

/// Shapes as labels of the axis, on lower levels where they are close, and left out where even that would overlap.
fn shape_labels(cases: &[&Measured], x: &LogScale) -> Vec<ShapeLabel> {
    let mut free = [f64::MIN; 3];
    let mut labels = Vec::new();
    for measured in cases {
        let text = measured.case.shape.to_string();
        let half = text.chars().count() as f64 * 3.4;
        let middle = x.at(size(&measured.case)).min(WIDTH - half - 2.0);
        if let Some(level) = free.iter().position(|free| middle - half > *free) {
            free[level] = middle + half + 6.0;
            labels.push(ShapeLabel { text, middle, level });
        }
    }
    labels
}

/// What the axis measures, from its first case to its last.
fn range(cases: &[&Measured]) -> String {
    let (first, last) = (&cases[0].case, &cases[cases.len() - 1].case);
    if first.moves_data() {
        format!("data moved: {} to {} (log)", data(first.bytes()), data(last.bytes()))
    } else {
        format!("arithmetic: {} to {} (log)", arithmetic(first.flops()), arithmetic(last.flops()))
    }
}

fn legend(svg: &mut Svg, top: f64, series: &[Series<'_>], limit_threads: Option<usize>) {
    let limit = limit_threads.map(|threads| {
        let text = if threads == 1 { "limit, 1 thread".to_owned() } else { format!("limit, {threads} threads") };
        ("limit".to_owned(), text)
    });
    let entries = series.iter().map(|series| (class(series), series.name.clone())).chain(limit);
    for (index, (class, name)) in entries.enumerate() {
        let x = if index % 2 == 0 { 8.0 } else { WIDTH / 2.0 + 8.0 };
        let y = top + (index / 2) as f64 * LEGEND_ROW;
        svg.path(&class, &[(x, y), (x + 24.0, y)]);
        svg.text("", (x + 31.0, y + 4.0), Anchor::Start, &name);
    }
}
