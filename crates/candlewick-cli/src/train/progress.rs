//! How a run is shown: a bar on a terminal, a line now and then elsewhere.

use candlewick_lm::train::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

const TEMPLATE: &str = "{bar:30} {pos}/{len}  {msg}  {eta} left";
/// Between lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows a run.
pub struct Bar {
    bar: ProgressBar,
    /// None on a terminal.
    last_line: Option<Instant>,
    steps: u64,
    /// Mean over about the last twenty steps.
    loss: Option<f64>,
    rate: Option<f64>,
}

impl Bar {
    pub fn new(steps: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Bar { bar, last_line: (!terminal).then(Instant::now), steps, loss: None, rate: None }
    }

    pub fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Stepped(step) => {
                let smooth = |mean: Option<f64>, new: f64| Some(mean.map_or(new, |mean| 0.95 * mean + 0.05 * new));
                self.loss = smooth(self.loss, step.loss);
                self.rate = smooth(self.rate, step.tokens as f64 / step.seconds.max(1e-9));
                let (loss, rate) = (self.loss.unwrap_or_default(), self.rate.unwrap_or_default());
                let message = format!("loss {loss:.4}  {rate:.0} tokens/s");
                if self.last_line.is_some_and(|last| last.elapsed() >= PAUSE) {
                    self.last_line = Some(Instant::now());
                    anstream::eprintln!("step {} of {}  {message}", step.step, self.steps);
                }
                self.bar.set_message(message);
                self.bar.set_position(step.step);
            }
            Event::Validated(found, best) => {
                let mark = if *best { ", the best so far" } else { "" };
                let (right, answers) = (found.right_answers, found.answers);
                let told = format!("validation {:.4}, {right} of {answers} answers right{mark}", found.loss);
                self.line(&format!("step {}: {told}", found.step));
            }
            Event::Tested(found) => {
                let (right, answers) = (found.right_answers, found.answers);
                let told = format!("test {:.4}, {right} of {answers} answers right", found.loss);
                self.line(&format!("step {}: {told}", found.step));
            }
            Event::Resumed(step) => {
                self.bar.set_position(*step);
                self.bar.reset_eta();
                self.line(&format!("goes on behind step {step}"));
            }
            Event::OtherDevice(device) => {
                self.line(&format!(
                    "the checkpoint was made on {device}: the last bits will differ from an undisturbed run's"
                ));
            }
            Event::Saved(_) => {}
        }
    }

    /// A line above the bar.
    fn line(&self, text: &str) {
        match self.last_line {
            None => self.bar.println(text),
            Some(_) => anstream::eprintln!("{text}"),
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
