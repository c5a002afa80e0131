//! Other libraries, each in a process of its own, so that its settings (threads, features) are its alone and it costs
//! nothing while it waits. A peer says [`Hello`], then answers one [`Request`] after the other, a line of JSON each.

mod candle;
mod candlewick_candle;
mod child;
#[cfg(feature = "candle-cuda")]
mod cuda_graph;
mod tensors;

pub use child::Child;
pub use tensors::Tensors;

use crate::args::Library;
use crate::bench::runner::{Prepared, Runner};
use crate::bench::timing::Regime;
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;

/// The PyTorch peer, run by a Python that has torch.
pub const PYTORCH: &str = concat!(include_str!("protocol.py"), include_str!("pytorch.py"));
/// The MLX peer, run by a Python that has mlx.
pub const MLX: &str = concat!(include_str!("protocol.py"), include_str!("mlx.py"));

/// What a peer says first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// `Candle`, `PyTorch`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How it was built, as far as that decides its speed.
    pub built: String,
    /// Threads that it uses.
    pub threads: usize,
    /// Microseconds that it spends before every product, finding out how many threads there are.
    #[serde(default)]
    pub thread_lookup_us: Option<f64>,
    /// Whether it can record a sequence and replay it.
    #[serde(default)]
    pub replays: bool,
}

/// What a peer is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make the operands of this case.
    Prepare(String),
    /// Time it in a regime for this many seconds.
    Measure(Regime, f64),
    /// The first numbers of every output, as many as are asked for.
    Outputs(Vec<usize>),
}

/// What a peer answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// At its start.
    Hello(Hello),
    /// To `Prepare`.
    Prepared(Prepared),
    /// To `Measure`: microseconds.
    Samples(Vec<f64>),
    /// To `Outputs`.
    Outputs(Vec<Vec<f64>>),
    /// To anything: what the library says.
    Error(String),
}

/// Candlewick's operations on Candle's tensors, in this process, and how its Candle was built.
///
/// # Errors
/// A device that this binary's Candle does not have.
pub fn on_candle_tensors(device: &str) -> Result<(Tensors, String), String> {
    let device = tensors::device(device)?;
    let built = format!("{} with {}", candle::VERSION, candle::built(&device));
    Ok((Tensors::new("candlewick-candle", candlewick_candle::forward, device), built))
}

/// Serves a library on a device until stdin ends.
pub fn serve_library(library: Library, device: &str) -> ExitCode {
    let device = match tensors::device(device) {
        Ok(device) => device,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let (hello, engine, forward): (Hello, _, tensors::MakeForward) = match library {
        Library::Candle => (candle::hello(&device), "candle", candle::forward),
        Library::CandlewickCandle => {
            (candlewick_candle::hello(&device), "candlewick-candle", candlewick_candle::forward)
        }
    };
    let runner = Tensors::new(engine, forward, device);
    serve(&Hello { replays: runner.replays(), ..hello }, runner)
}

fn serve(hello: &Hello, mut runner: impl Runner) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let mut say = |reply: &Reply| -> std::io::Result<()> {
        serde_json::to_writer(&mut out, reply)?;
        writeln!(out)?;
        out.flush()
    };
    let mut talk = || -> std::io::Result<()> {
        say(&Reply::Hello(hello.clone()))?;
        for line in std::io::stdin().lock().lines() {
            say(&answer(&line?, &mut runner))?;
        }
        Ok(())
    };
    // A broken pipe is the parent's end, not an error of ours.
    if talk().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn answer(line: &str, runner: &mut impl Runner) -> Reply {
    let request = serde_json::from_str(line).map_err(|error| error.to_string());
    let reply = request.and_then(|request| match request {
        Request::Prepare(case) => runner.prepare(&case.parse()?).map(Reply::Prepared),
        Request::Measure(regime, seconds) => runner.measure(regime, seconds).map(Reply::Samples),
        Request::Outputs(counts) => runner.outputs(&counts).map(Reply::Outputs),
    });
    reply.unwrap_or_else(Reply::Error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_form_that_the_python_peer_speaks() {
        let text = |request: &Request| serde_json::to_string(request).unwrap();
        assert_eq!(text(&Request::Prepare("matmul 64x64x64 f32".into())), r#"{"prepare":"matmul 64x64x64 f32"}"#);
        assert_eq!(text(&Request::Measure(Regime::Latency, 0.5)), r#"{"measure":["latency",0.5]}"#);
        assert_eq!(text(&Request::Outputs(vec![1, 2])), r#"{"outputs":[1,2]}"#);
        let reply = serde_json::from_str(r#"{"hello":{"name":"PyTorch","version":"2","built":"-","threads":2}}"#);
        assert!(matches!(reply.unwrap(), Reply::Hello(Hello { threads: 2, thread_lookup_us: None, .. })));
    }

    #[test]
    fn the_candle_peer_answers() {
        let mut runner = Tensors::new("candle", candle::forward, candle_core::Device::Cpu);
        let mut ask = |line: &str| answer(line, &mut runner);
        assert!(matches!(ask("{}"), Reply::Error(_)));
        assert!(matches!(ask(r#"{"prepare":"matmul 64x64 f32"}"#), Reply::Error(_)));
        assert!(matches!(ask(r#"{"measure":["latency",0.01]}"#), Reply::Error(_)));
        assert!(matches!(ask(r#"{"prepare":"softmax_backward 4x4 f32"}"#), Reply::Error(_)));
        assert!(matches!(ask(r#"{"prepare":"matmul 4x5x6 f32"}"#), Reply::Prepared(_)));
        assert!(matches!(ask(r#"{"measure":["latency",0.01]}"#), Reply::Samples(samples) if !samples.is_empty()));
        assert!(matches!(ask(r#"{"outputs":[3]}"#), Reply::Outputs(outputs) if outputs[0].len() == 3));
    }

    #[test]
    #[cfg(not(feature = "candle-cuda"))]
    fn a_candle_without_cuda_says_how_to_build_it() {
        let message = tensors::device("cuda:0").unwrap_err();
        assert!(message.contains("candle-cuda"), "{message}");
    }

    #[test]
    fn candle_agrees_with_the_reference() {
        let mut runner = Tensors::new("candle", candle::forward, candle_core::Device::Cpu);
        for op in ["matmul 9x7x5", "softmax 3x9", "rms_norm 3x9", "lora_linear 5x7x9r2", "lora_delta 5x7x9r2"] {
            for pass in ["", "+backward"] {
                let case = (op.replacen(' ', &format!("{pass} "), 1) + " f32").parse().unwrap();
                let expected = crate::bench::check::expected(&case).unwrap();
                runner.prepare(&case).unwrap();
                let counts: Vec<usize> = expected.iter().map(Vec::len).collect();
                let error = crate::bench::check::error(&expected, &runner.outputs(&counts).unwrap());
                assert!(error < 1e-5, "{case}: {error}");
            }
        }
    }
}
