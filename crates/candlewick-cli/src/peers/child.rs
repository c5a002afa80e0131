//! A peer as its parent sees it.

use super::{Hello, Reply, Request};
use crate::args::Library;
use crate::bench::cases::Case;
use crate::bench::runner::{Prepared, Runner};
use crate::bench::timing::Regime;
use clap::ValueEnum as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

/// A running child process.
pub struct Child {
    name: String,
    process: std::process::Child,
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    /// Why it ended, once it has.
    ended: Option<String>,
    replays: bool,
}

impl Child {
    /// This binary again, serving a library on a device with at most so many threads, or as many as it takes when left
    /// alone.
    ///
    /// # Errors
    /// A process that cannot be started.
    pub fn of_library(library: Library, device: &str, threads: Option<usize>) -> Result<Self, String> {
        let name = library.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let this = std::env::current_exe().map_err(|error| format!("{name}: this program cannot be found: {error}"))?;
        let mut command = Command::new(this);
        command.args(["peer", &name, "--device", device]);
        for variable in ["RAYON_NUM_THREADS", "CANDLEWICK_THREADS"] {
            match threads {
                Some(threads) => command.env(variable, threads.to_string()),
                None => command.env_remove(variable),
            };
        }
        Self::start(name, command)
    }

    /// A library of Python's, [`super::PYTORCH`] or [`super::MLX`], on `python` and on a device in its words, with at most
    /// so many threads, or as many as it takes when left alone.
    ///
    /// # Errors
    /// A process that cannot be started.
    pub fn of_python(
        name: &str,
        program: &str,
        python: &Path,
        device: &str,
        threads: Option<usize>,
    ) -> Result<Self, String> {
        let mut command = Command::new(python);
        command.args(["-c", program, device]);
        command.args(threads.map(|threads| threads.to_string()));
        command.env_remove("OMP_NUM_THREADS").env_remove("MKL_NUM_THREADS");
        Self::start(name.into(), command)
    }

    fn start(name: String, mut command: Command) -> Result<Self, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().map_err(|error| {
            format!("{name}: {} cannot be started: {error}", command.get_program().to_string_lossy())
        })?;
        let (requests, replies) = (process.stdin.take(), process.stdout.take());
        let replies = replies.ok_or_else(|| format!("{name}: its output cannot be read"))?;
        Ok(Child { name, process, requests, replies: BufReader::new(replies), ended: None, replays: false })
    }

    /// What it says at its start; waits until it is ready.
    ///
    /// # Errors
    /// A peer that ended, and its last words.
    pub fn hello(&mut self) -> Result<Hello, String> {
        match self.listen()? {
            Reply::Hello(hello) => {
                self.replays = hello.replays;
                Ok(hello)
            }
            other => Err(self.out_of_turn(other)),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply, String> {
        let mut line = serde_json::to_string(request).map_err(|error| error.to_string())?;
        line.push('\n');
        let sent = self.requests.as_mut().map(|requests| requests.write_all(line.as_bytes()));
        if !matches!(sent, Some(Ok(()))) {
            return Err(self.last_words());
        }
        self.listen()
    }

    fn listen(&mut self) -> Result<Reply, String> {
        let mut line = String::new();
        match self.replies.read_line(&mut line) {
            Ok(length) if length > 0 => {
                serde_json::from_str(&line).map_err(|error| format!("{}: {error} in its answer", self.name))
            }
            _ => Err(self.last_words()),
        }
    }

    fn out_of_turn(&self, reply: Reply) -> String {
        match reply {
            Reply::Error(message) => message,
            reply => format!("{}: an answer to nothing that was asked: {reply:?}", self.name),
        }
    }

    /// Why it ended: the last line that it wrote to stderr.
    fn last_words(&mut self) -> String {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        self.requests = None;
        let mut words = String::new();
        if let Some(mut stderr) = self.process.stderr.take() {
            let _ = stderr.read_to_string(&mut words);
        }
        let status = self.process.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let last = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        self.ended.insert(format!("{} ended ({status}): {}", self.name, last.trim())).clone()
    }
}

impl Runner for Child {
    fn prepare(&mut self, case: &Case) -> Result<Prepared, String> {
        match self.ask(&Request::Prepare(case.to_string()))? {
            Reply::Prepared(prepared) => Ok(prepared),
            other => Err(self.out_of_turn(other)),
        }
    }

    fn measure(&mut self, regime: Regime, seconds: f64) -> Result<Vec<f64>, String> {
        match self.ask(&Request::Measure(regime, seconds))? {
            Reply::Samples(samples) => Ok(samples),
            other => Err(self.out_of_turn(other)),
        }
    }

    fn replays(&self) -> bool {
        self.replays
    }

    fn outputs(&mut self, counts: &[usize]) -> Result<Vec<Vec<f64>>, String> {
        match self.ask(&Request::Outputs(counts.to_vec()))? {
            Reply::Outputs(outputs) => Ok(outputs),
            other => Err(self.out_of_turn(other)),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It only waits for requests, and holds nothing that must be saved.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_cannot_start_or_dies_is_a_message() {
        let error = Child::of_python("pytorch", "", Path::new("/no/such/python"), "cpu", None).err().unwrap();
        assert!(error.contains("/no/such/python"), "{error}");
        let mut command = Command::new("sh");
        command.args(["-c", "echo the end >&2; exit 3"]);
        let error = Child::start("sh".into(), command).unwrap().hello().unwrap_err();
        assert!(error.contains("exit status: 3") && error.contains("the end"), "{error}");
    }
}
