//! Heat maps: which engine wins at which sizes, and how near it comes to the machine's limit.

use crate::report::grid::escape;
use candlewick::profile::Row;
use std::collections::BTreeSet;
use std::fmt::Write as _;

const CELL: (f64, f64) = (54.0, 30.0);
const LEFT: f64 = 118.0;
const TOP: f64 = 40.0;

/// Colours of engines, by their place in the legend: distinct in light and dark, and for the colour-blind (Okabe and Ito).
pub(super) const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999"];

/// One map: rows of one operation and dtype with the same third and fourth size. Down: the first size; across: the second.
pub(super) fn map(title: &str, axes: [&str; 2], rows: &[&Row], engines: &[&str]) -> String {
    let sizes = |at: usize| rows.iter().map(|row| row.bucket[at]).collect::<BTreeSet<u8>>();
    let (downs, acrosses) = (sizes(0), sizes(1));
    let (width, height) = (LEFT + acrosses.len() as f64 * CELL.0 + 8.0, TOP + downs.len() as f64 * CELL.1 + 8.0);
    let mut body = format!("<text class=\"title\" x=\"0\" y=\"13\">{}</text>\n", escape(title));
    let _ = writeln!(
        body,
        "<text class=\"faint\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{} \\ {}</text>",
        LEFT - 8.0,
        TOP - 8.0,
        axes[0],
        axes[1]
    );
    for (i, across) in acrosses.iter().enumerate() {
        let x = LEFT + (i as f64 + 0.5) * CELL.0;
        let _ = writeln!(
            body,
            "<text class=\"faint\" x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            TOP - 8.0,
            1u64 << across
        );
    }
    for (j, down) in downs.iter().enumerate() {
        let y = TOP + j as f64 * CELL.1;
        let _ = writeln!(
            body,
            "<text class=\"faint\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + CELL.1 / 2.0 + 4.0,
            1u64 << down
        );
        for (i, across) in acrosses.iter().enumerate() {
            let Some(row) = rows.iter().find(|row| (row.bucket[0], row.bucket[1]) == (*down, *across)) else {
                continue;
            };
            cell(&mut body, (LEFT + i as f64 * CELL.0, y), row, engines);
        }
    }
    format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" style=\"max-width:{width:.0}px\" role=\"img\" aria-label=\"{}\">\n{body}</svg>\n",
        escape(title)
    )
}

/// Coloured by the winner, the stronger the nearer it is to the limit, which its number says too.
fn cell(body: &mut String, (x, y): (f64, f64), row: &Row, engines: &[&str]) {
    let best = &row.times[0];
    let at = engines.iter().position(|engine| **engine == best.engine).unwrap_or(usize::MAX);
    let colour = COLOURS.get(at).copied().unwrap_or("#999999");
    let share = (row.limit / best.microseconds).min(1.0);
    let times: Vec<String> = row
        .times
        .iter()
        .map(|time| format!("{} {:.2} µs ({} samples)", time.engine, time.microseconds, time.samples))
        .collect();
    let tooltip = format!("{}: {}; limit {:.2} µs", row.shape, times.join(", "), row.limit);
    let _ = writeln!(
        body,
        "<g><title>{}</title><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\" fill=\"{colour}\" fill-opacity=\"{:.2}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0}</text></g>",
        escape(&tooltip),
        x + 1.0,
        y + 1.0,
        CELL.0 - 2.0,
        CELL.1 - 2.0,
        0.25 + 0.6 * share,
        x + CELL.0 / 2.0,
        y + CELL.1 / 2.0 + 4.0,
        100.0 * share,
    );
}
