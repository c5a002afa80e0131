//! The loss curve as SVG, readable on its own: white page, axes with units, a legend, the settings.

use super::metrics::Metric;
use std::fmt::Write as _;

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = HEIGHT - 56.0;
/// A curve has as many points at most: more than a screen shows.
const MOST: usize = 600;

const STYLE: &str = "text{font:13px system-ui,-apple-system,sans-serif;fill:#333}\
.title{font-size:16px;font-weight:600;fill:#111}.faint{fill:#666}.small{font-size:12px}\
.grid{stroke:#e6e6e6}.axis{stroke:#999}path,line{fill:none;stroke-width:1}\
.each{stroke:#b9cdea;stroke-width:1}.smooth{stroke:#1f5fb4;stroke-width:2.2}\
.validation{stroke:#c8501e;stroke-width:2.2}.dot{fill:#c8501e;stroke:#fff;stroke-width:1}";

/// Draws the losses of a run. `title` says what it is of, `settings` how it was trained, in one line each.
pub fn svg(title: &str, settings: &str, metrics: &[Metric]) -> String {
    let train: Vec<(f64, f64)> = metrics.iter().filter_map(train).collect();
    let validation: Vec<(f64, f64)> = metrics.iter().filter_map(validation).collect();
    let smooth = smoothed(&train);
    let steps = train.iter().chain(&validation).map(|point| point.0).fold(1.0, f64::max);
    // Single steps may be far off: what is drawn is what the smoothed curve and the validation need, and most steps.
    let mut each: Vec<f64> = train.iter().map(|point| point.1).collect();
    each.sort_by(f64::total_cmp);
    let usual = [0.02, 0.98].map(|share| each.get((each.len() as f64 * share) as usize).copied());
    let drawn = smooth.iter().chain(&validation).map(|point| point.1).chain(usual.into_iter().flatten());
    let (low, high) = drawn.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    let (low, high) = match low < high {
        true => (low, high),
        false if low.is_finite() => (low - 0.5, low + 0.5),
        false => (0.0, 1.0),
    };
    let y_ticks = ticks(low - 0.04 * (high - low), high + 0.04 * (high - low), 6);
    let (low, high) = (low.min(y_ticks[0]), high.max(y_ticks[y_ticks.len() - 1]));
    let x = |step: f64| LEFT + step / steps * (RIGHT - LEFT);
    let y = |loss: f64| BOTTOM - (loss.clamp(low, high) - low) / (high - low) * (BOTTOM - TOP);
    let place = |points: &[(f64, f64)]| points.iter().map(|&(step, loss)| (x(step), y(loss))).collect::<Vec<_>>();

    let mut svg = Svg::default();
    svg.text("title", (LEFT, 26.0), "start", title);
    svg.text("faint small", (LEFT, 46.0), "start", settings);
    for &tick in &y_ticks {
        svg.line("grid", (LEFT, y(tick)), (RIGHT, y(tick)));
        svg.text("faint small", (LEFT - 8.0, y(tick) + 4.0), "end", &short(tick));
    }
    svg.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    for tick in ticks(0.0, steps, 8).into_iter().filter(|tick| *tick <= steps) {
        svg.line("axis", (x(tick), BOTTOM), (x(tick), BOTTOM + 5.0));
        svg.text("faint small", (x(tick), BOTTOM + 20.0), "middle", &short(tick));
    }
    svg.text("faint", ((LEFT + RIGHT) / 2.0, BOTTOM + 42.0), "middle", "step");
    svg.text("faint small", (LEFT, TOP - 14.0), "start", "loss, nats per token");
    svg.path("each", &place(&thinned(&train)));
    svg.path("smooth", &place(&thinned(&smooth)));
    svg.path("validation", &place(&validation));
    for (point, &(step, loss)) in place(&validation).into_iter().zip(&validation) {
        svg.dot(point, &format!("step {step}: {loss:.4}"));
    }
    let mut legend = vec![("each", "each step"), ("smooth", "smoothed")];
    if !validation.is_empty() {
        legend.push(("validation", "validation"));
    }
    let mut at = RIGHT - 118.0 * legend.len() as f64 + 24.0;
    for (class, name) in legend {
        svg.path(class, &[(at, TOP - 18.0), (at + 24.0, TOP - 18.0)]);
        svg.text("small", (at + 30.0, TOP - 14.0), "start", name);
        at += 118.0;
    }
    svg.finish(title)
}

fn train(metric: &Metric) -> Option<(f64, f64)> {
    if let Metric::Step(step) = metric { Some((step.step as f64, step.loss)) } else { None }
}

fn validation(metric: &Metric) -> Option<(f64, f64)> {
    if let Metric::Validation(validation) = metric { Some((validation.step as f64, validation.loss)) } else { None }
}

/// An exponential mean over about a fortieth of the run, corrected for its beginning as Adam's is.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 40.0).clamp(1.0, 50.0);
    let (mut mean, mut weight) = (0.0, 0.0);
    let next = |&(step, loss): &(f64, f64)| {
        (mean, weight) = (keep * mean + (1.0 - keep) * loss, keep * weight + (1.0 - keep));
        (step, mean / weight)
    };
    points.iter().map(next).collect()
}

/// Means of successive points, where there are more than are shown.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |part: &[(f64, f64)]| {
        let (x, y) = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (x / part.len() as f64, y / part.len() as f64)
    };
    points.chunks(points.len().div_ceil(MOST).max(1)).map(mean).collect()
}

/// Round numbers that cover a range, about `count` of them.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count as f64;
    let decade = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|mantissa| mantissa * decade).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * decade);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last.max(first)).map(|nth| nth as f64 * step).collect()
}

/// Without digits that say nothing.
fn short(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[derive(Default)]
struct Svg(String);

impl Svg {
    fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(self.0, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
    }

    fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        if !points.is_empty() {
            let _ = writeln!(self.0, r#"<path class="{class}" d="M{}"/>"#, points.join("L"));
        }
    }

    fn dot(&mut self, (x, y): (f64, f64), tooltip: &str) {
        let tooltip = escaped(tooltip);
        let _ =
            writeln!(self.0, r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="4"><title>{tooltip}</title></circle>"#);
    }

    fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
        let text = escaped(text);
        let _ = writeln!(self.0, r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
    }

    fn finish(self, label: &str) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\" aria-label=\"{}\">\n<style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" \
             fill=\"#fff\"/>\n{}</svg>\n",
            escaped(label),
            self.0
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::metrics::{Step, Validation};
    use super::*;

    pub(crate) fn run(steps: u64) -> Vec<Metric> {
        let loss =
            |step: u64| 0.4 + 3.0 * (-(step as f64) / 60.0).exp() + 0.3 * ((step * 7919 % 101) as f64 / 101.0 - 0.5);
        let mut metrics = Vec::new();
        for step in 1..=steps {
            let (gradient_norm, learning_rate, epoch) = (1.0, 1e-4, 0);
            let (tokens, learned, seconds) = (256, 90, 0.2);
            let loss = loss(step);
            metrics.push(Metric::Step(Step {
                step,
                loss,
                gradient_norm,
                learning_rate,
                epoch,
                tokens,
                learned,
                seconds,
            }));
            if step % 50 == 0 {
                let (loss, right, learned, right_answers, answers) = (loss + 0.1, 1, 2, 3, 4);
                metrics.push(Metric::Validation(Validation {
                    step,
                    loss,
                    right,
                    learned,
                    right_answers,
                    answers,
                    seconds,
                }));
            }
        }
        metrics
    }

    #[test]
    fn the_curve_is_within_its_axes() {
        for steps in [0, 1, 2, 300, 5000] {
            let text = svg("Loss of a <test>", "rank 8", &run(steps));
            assert!(text.contains("Loss of a &lt;test&gt;") && text.contains("nats per token"));
            assert!(!text.contains("NaN") && !text.contains("\"inf"), "{steps} steps: {text}");
            let numbers = text.split(r#" d="M"#).skip(1).flat_map(|path| path.split('"').next().unwrap().split('L'));
            for point in numbers {
                let (x, y) = point.split_once(' ').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((0.0..=WIDTH).contains(&x) && (0.0..=BOTTOM + 0.1).contains(&y), "{point}");
            }
            assert!(text.len() < 60_000, "{} bytes", text.len());
        }
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 300.0, 8), [0.0, 50.0, 100.0, 150.0, 200.0, 250.0, 300.0]);
        assert_eq!(
            ticks(0.31, 1.02, 6).iter().map(|&tick| short(tick)).collect::<Vec<_>>(),
            ["0.4", "0.6", "0.8", "1"]
        );
    }

    #[test]
    fn a_smoothed_constant_is_itself() {
        let flat: Vec<(f64, f64)> = (0..100).map(|step| (step as f64, 2.0)).collect();
        assert!(smoothed(&flat).iter().all(|point| (point.1 - 2.0).abs() < 1e-12));
        assert_eq!(thinned(&(0..1300).map(|i| (i as f64, 1.0)).collect::<Vec<_>>()).len(), 434);
    }
}
