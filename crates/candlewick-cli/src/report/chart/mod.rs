//! Charts as SVG, written by hand: no script, colours from the page's style, details in tooltips.

mod bars;
mod lines;
mod scale;

use super::grid::escape;
use crate::bench::contenders::Maker;
use std::fmt::Write as _;

pub use bars::{LEGEND as BARS_LEGEND, bars};
pub use lines::lines;

/// An SVG being written.
struct Svg {
    width: f64,
    height: f64,
    label: String,
    body: String,
}

/// Which point of a text is given.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    fn new(width: f64, height: f64, label: &str) -> Self {
        Svg { width, height, label: label.to_owned(), body: String::new() }
    }

    fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(self.body, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
    }

    fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(self.body, r#"<polyline class="{class}" points="{}"/>"#, points.join(" "));
    }

    fn dot(&mut self, class: &str, (x, y): (f64, f64), tooltip: &str) {
        let _ = writeln!(
            self.body,
            r#"<circle class="dot {class}" cx="{x:.1}" cy="{y:.1}" r="3.5"><title>{}</title></circle>"#,
            escape(tooltip)
        );
    }

    fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), tooltip: &str) {
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"><title>{}</title></rect>"#,
            escape(tooltip)
        );
    }

    fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.body,
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
            escape(text)
        );
    }

    fn finish(self) -> String {
        let Svg { width, height, label, body } = self;
        format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{}\">\n{body}</svg>\n",
            escape(&label)
        )
    }
}

/// The class that colours a library, whatever the chart.
const fn class_of(maker: Maker) -> &'static str {
    match maker {
        Maker::Candlewick => "candlewick",
        Maker::Adapter => "adapter",
        Maker::Candle => "candle",
        Maker::PyTorch => "pytorch",
        Maker::Mlx => "mlx",
    }
}

/// The rules that these classes need.
pub const STYLE: &str = "
svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
svg text.faint { fill: var(--faint); } svg text.small { font-size: 11px; } svg text.title { font-weight: 600; }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .axis { stroke: var(--faint); stroke-width: 1; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .one { stroke-dasharray: 2 4; stroke-linecap: round; } svg .limit { stroke: var(--faint); stroke-dasharray: 7 4; stroke-width: 1.5; fill: none; }
svg .candlewick { stroke: var(--candlewick); } svg .adapter { stroke: var(--adapter); } svg .candle { stroke: var(--candle); } svg .pytorch { stroke: var(--pytorch); } svg .mlx { stroke: var(--mlx); }
svg circle.dot { fill: var(--page); stroke-width: 2; }
svg rect.part-limit { fill: var(--part-limit); } svg rect.part-wake { fill: var(--part-wake); } svg rect.part-contract { fill: var(--part-contract); }
svg rect.part-lookup { fill: var(--part-lookup); } svg rect.part-rest { fill: var(--part-rest); }
";
