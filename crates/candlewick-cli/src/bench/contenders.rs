//! Who is measured, in the order of the tables.

use super::cases::{Case, Pass};
use super::ours::Candlewick;
use super::runner::Runner;
use crate::args::{BenchArgs, Engines, Library};
use crate::peers::{Child, Hello, MLX, PYTORCH};
use candlewick::{Device, Engine};

/// Whose code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Candlewick, on its own buffers.
    Candlewick,
    /// Candlewick, on Candle's tensors.
    Adapter,
    /// Candle.
    Candle,
    /// PyTorch.
    PyTorch,
    /// MLX.
    Mlx,
}

impl Maker {
    /// As tables print it.
    pub const fn name(self) -> &'static str {
        match self {
            Maker::Candlewick => "Candlewick",
            Maker::Adapter => "Candlewick on Candle",
            Maker::Candle => "Candle",
            Maker::PyTorch => "PyTorch",
            Maker::Mlx => "MLX",
        }
    }
}

/// A library with one setting.
pub struct Contender {
    /// Whose.
    pub maker: Maker,
    /// Whether it was told to use one thread, rather than left as it comes.
    pub one_thread: bool,
    /// The engine that Candlewick is forced to use.
    pub forced: Option<Engine>,
    /// Threads that it may use.
    pub threads: usize,
    /// What a peer said of itself.
    pub hello: Option<Hello>,
    /// Runs the cases.
    pub runner: Box<dyn Runner>,
}

impl Contender {
    /// Whether it takes part: Candle's backward cannot be called alone, and the f64 reference takes a second for a
    /// large product.
    pub fn takes(&self, case: &Case) -> bool {
        let too_slow = self.forced.is_some_and(|engine| engine.name() == "reference") && case.flops() > 1e7;
        let alone = matches!(self.maker, Maker::Candlewick | Maker::PyTorch);
        !too_slow && (case.pass != Pass::Backward || alone)
    }
}

/// Everyone that the flags name. Whoever cannot be had becomes a warning.
///
/// # Errors
/// A device that gives no stream.
pub fn assemble(
    args: &BenchArgs,
    device: &Device,
    threads: usize,
) -> candlewick::Result<(Vec<Contender>, Vec<String>)> {
    let ours = |device: Device, forced: Option<Engine>, threads: usize, one_thread: bool| {
        let runner = Box::new(Candlewick::new(device, forced)?);
        Ok(Contender { maker: Maker::Candlewick, one_thread, forced, threads, hello: None, runner })
    };
    let mut contenders = vec![ours(device.clone(), None, threads, threads == 1)?];
    if threads > 1 && matches!(device, Device::Cpu(_)) {
        contenders.push(ours(Device::cpu_with_threads(1), None, 1, true)?);
    }
    if args.engines == Engines::All {
        for engine in device.info().engines {
            contenders.push(ours(device.clone(), Some(engine), threads, threads == 1)?);
        }
    }
    let mut warnings = Vec::new();
    if matches!(device, Device::Empty(_)) {
        // Nobody else can do nothing.
        return Ok((contenders, warnings));
    }
    // All start at once, because some take seconds to do so.
    let started = match device {
        Device::Cpu(_) => on_cpu(args, threads),
        gpu => on_gpu(args, &gpu.info().id),
    };
    for (maker, one_thread, child) in started {
        let greeted = child.and_then(|mut child| child.hello().map(|hello| (child, hello)));
        match greeted {
            Ok((child, hello)) => contenders.push(Contender {
                maker,
                one_thread,
                forced: None,
                threads: hello.threads,
                hello: Some(hello),
                runner: Box::new(child),
            }),
            Err(message) => warnings.push(format!("{} is left out: {message}", maker.name())),
        }
    }
    Ok((contenders, warnings))
}

/// Whose, whether it was told to use one thread, and its process.
type Started = (Maker, bool, Result<Child, String>);

/// On a CPU a library is measured as it comes and with one thread: small operations are faster so.
fn on_cpu(args: &BenchArgs, threads: usize) -> Vec<Started> {
    let library = |library, threads| Child::of_library(library, "cpu", threads);
    let mut started = vec![
        (Maker::Adapter, threads == 1, library(Library::CandlewickCandle, Some(threads))),
        (Maker::Candle, false, library(Library::Candle, None)),
        (Maker::Candle, true, library(Library::Candle, Some(1))),
    ];
    if let Some(python) = &args.pytorch {
        let pytorch = |threads| Child::of_python("pytorch", PYTORCH, python, "cpu", threads);
        started.push((Maker::PyTorch, false, pytorch(None)));
        started.push((Maker::PyTorch, true, pytorch(Some(1))));
    }
    started.extend(mlx(args, "cpu"));
    started
}

fn on_gpu(args: &BenchArgs, device: &str) -> Vec<Started> {
    let library = |library| Child::of_library(library, device, None);
    let mut started = vec![
        (Maker::Adapter, false, library(Library::CandlewickCandle)),
        (Maker::Candle, false, library(Library::Candle)),
    ];
    if let Some(python) = &args.pytorch {
        let device = if device == "metal" { "mps" } else { device };
        started.push((Maker::PyTorch, false, Child::of_python("pytorch", PYTORCH, python, device, None)));
    }
    started.extend(mlx(args, device));
    started
}

/// MLX has one way to run, whatever the threads.
fn mlx(args: &BenchArgs, device: &str) -> Option<Started> {
    let python = args.mlx.as_ref()?;
    Some((Maker::Mlx, false, Child::of_python("mlx", MLX, python, device, None)))
}
