//! What a run will take, before it is begun.

use candlewick::plan::Activations;
use std::fmt;
use std::time::Duration;

/// What a run will take.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The model, in a line.
    pub model: String,
    /// Where it runs.
    pub device: String,
    /// Numbers that are trained.
    pub trainable: usize,
    /// Numbers of the model.
    pub parameters: usize,
    /// Modules that are adapted.
    pub modules: usize,
    /// Documents to learn from, and to validate with.
    pub documents: (usize, usize),
    /// Positions that documents take in an epoch, and the labels among them that are learned.
    pub tokens: (usize, usize),
    /// The share of positions that documents take: the rest is filled with nothing.
    pub filled: f64,
    /// Documents whose end was cut off, and those that were left out then.
    pub cut: (usize, usize),
    /// Updates.
    pub steps: u64,
    /// Positions of an update.
    pub tokens_per_step: usize,
    /// Device memory by kind, in bytes.
    pub memory: Memory,
    /// What became of the activations, where there is a budget.
    pub activations: Option<Activations>,
    /// Bytes on the disk at the end.
    pub disk: u64,
    /// Of one step, measured, where it was.
    pub step: Option<Duration>,
}

/// Device memory by kind, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The model's weights, in every order in which the passes read them.
    pub weights: usize,
    /// The adapters in f32, and in the dtype of the passes.
    pub adapters: usize,
    /// Gradients of the adapters.
    pub gradients: usize,
    /// AdamW's two means.
    pub optimizer: usize,
    /// What the passes keep for a time: activations, their gradients, logits.
    pub activations: usize,
}

impl Memory {
    /// All together.
    pub fn total(&self) -> usize {
        let Memory { weights, adapters, gradients, optimizer, activations } = *self;
        weights + adapters + gradients + optimizer + activations
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Estimate { documents, tokens, cut, steps, memory, .. } = self;
        writeln!(f, "model       {}", self.model)?;
        writeln!(f, "device      {}", self.device)?;
        let share = 100.0 * self.trainable as f64 / self.parameters.max(1) as f64;
        let (trainable, modules) = (grouped(self.trainable), self.modules);
        writeln!(f, "trainable   {trainable} numbers in {modules} modules, {share:.2}% of the model's")?;
        write!(
            f,
            "data        {} documents, {} tokens, {} learned",
            grouped(documents.0),
            grouped(tokens.0),
            grouped(tokens.1)
        )?;
        writeln!(f, "; rows are {:.0}% full", 100.0 * self.filled)?;
        if documents.1 > 0 {
            writeln!(f, "validation  {} documents", grouped(documents.1))?;
        }
        if cut.0 > 0 || cut.1 > 0 {
            writeln!(f, "too long    {} documents cut at their end, {} left out", grouped(cut.0), grouped(cut.1))?;
        }
        writeln!(f, "steps       {} of {} positions", grouped(*steps as usize), grouped(self.tokens_per_step))?;
        let kinds = [
            ("weights", memory.weights),
            ("adapters", memory.adapters),
            ("gradients", memory.gradients),
            ("optimizer", memory.optimizer),
            ("activations", memory.activations),
        ];
        writeln!(f, "memory      {}", size(memory.total() as f64))?;
        for (kind, bytes) in kinds {
            writeln!(f, "  {kind:<12}{:>10}", size(bytes as f64))?;
        }
        if let Some(activations) = &self.activations {
            writeln!(f, "budget      {activations}")?;
        }
        write!(f, "disk        {}", size(self.disk as f64))?;
        if let Some(step) = self.step {
            let (seconds, whole) = (step.as_secs_f64(), step.as_secs_f64() * *steps as f64);
            let rate = self.tokens_per_step as f64 / seconds;
            write!(f, "\ntime        {} ({seconds:.3} s a step, {rate:.0} tokens/s)", duration(whole))?;
        }
        Ok(())
    }
}

/// `1,234,567`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.5 MiB`.
pub fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 1024.0 => format!("{bytes:.0} B"),
        bytes if bytes < 1024.0 * 1024.0 => format!("{:.1} KiB", bytes / 1024.0),
        bytes if bytes < 1024f64.powi(3) => format!("{:.1} MiB", bytes / 1024f64.powi(2)),
        bytes => format!("{:.2} GiB", bytes / 1024f64.powi(3)),
    }
}

/// `2 h 05 min`, `3 min 20 s`, `4.2 s`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 59.95 => format!("{seconds:.1} s"),
        seconds if seconds < 3599.5 => {
            format!("{} min {:02} s", seconds.round() as u64 / 60, seconds.round() as u64 % 60)
        }
        seconds => {
            format!("{} h {:02} min", (seconds / 60.0).round() as u64 / 60, (seconds / 60.0).round() as u64 % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([12.0, 2048.0, 1.5 * 1048576.0].map(size), ["12 B", "2.0 KiB", "1.5 MiB"]);
        assert_eq!([4.21, 59.96, 200.0, 7500.0].map(duration), ["4.2 s", "1 min 00 s", "3 min 20 s", "2 h 05 min"]);
    }
}
