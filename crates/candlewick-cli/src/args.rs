//! What users type.

use crate::adapter::AdapterArgs;
use crate::bench::cases::{self, Shape};
use crate::dispatch::args::DispatchArgs;
use crate::fetch::FetchArgs;
use crate::generate::GenerateArgs;
use crate::merge::MergeArgs;
use crate::train::TrainArgs;
use crate::tune::args::TuneArgs;
use candlewick::DType;
use candlewick::op::OpClass;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Language models with LoRA adapters, and the small operations behind them, at hardware speed.
#[derive(Parser)]
#[command(
    name = "candlewick",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  candlewick fetch smollm2                 a small model to begin with, 98 MB
  candlewick generate --model smollm2 --chat
                                           talk to it
  candlewick generate --model smollm2 --adapter my-adapter --prompt 'Once upon a time'
                                           with a LoRA adapter of PEFT or mlx-lm
  candlewick bench --quick                 what the operations cost here, beside Candle, in 20 seconds
  candlewick bench --report bench.html     everything, with charts
  candlewick verify                        every operation against its f64 reference
  candlewick devices                       cores, instruction sets, GPUs and their measured limits
  candlewick train --model M --data D.jsonl --out FOLDER
                                           fine-tune a language model with LoRA"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Generate text with a model and LoRA adapters, streaming to the terminal.
    Generate(GenerateArgs),
    /// Look into LoRA adapters, convert and compare them.
    Adapter(AdapterArgs),
    /// Merge LoRA adapters into a model's weights, or take them out again.
    Merge(MergeArgs),
    /// Get a small model to begin with.
    Fetch(FetchArgs),
    /// Time every operation beside Candle, with the share of this machine's measured limit.
    Bench(BenchArgs),
    /// Check every operation, dtype, layout and odd shape against the f64 reference.
    Verify(VerifyArgs),
    /// Show what is here: cores, instruction sets, GPUs, engines, measured limits.
    Devices(DevicesArgs),
    /// Measure which engine is fastest at which sizes here, for the dispatcher.
    Tune(TuneArgs),
    /// Explain or check what the dispatcher chooses.
    Dispatch(DispatchArgs),
    /// Fine-tune a language model with LoRA adapters: forward, backward and optimizer of a step in one submission.
    Train(Box<TrainArgs>),
    /// Serve measurements of another library over stdin and stdout; `bench` starts these.
    #[command(hide = true)]
    Peer {
        /// The library.
        library: Library,
        /// Where: `cpu`, `metal`, `cuda:0`.
        #[arg(long, default_value = "cpu")]
        device: String,
    },
}

/// A library that a child process of this binary measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Library {
    /// Candle itself.
    Candle,
    /// Candlewick's operations on Candle's tensors.
    CandlewickCandle,
}

/// Which engines `bench` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engines {
    /// The one that the dispatcher chooses.
    Auto,
    /// Every engine of the device, each forced.
    All,
}

/// Flags of `bench`.
#[derive(Args)]
#[command(after_long_help = "\
Regimes, because a figure without its regime means nothing:
  latency    wall time of one operation, waited for
  pipelined  wall time per operation over a long run closed by one wait
  enqueue    host time per operation, nothing waited for (only where the device is asynchronous)
  replay     wall time per operation of a sequence of 200 that was recorded once and is resubmitted (Candlewick's plans,
             CUDA graphs of PyTorch and of Candle; MLX records nothing, and evaluates 200 calls at once)

Each call has the tensors of the one before. On NVIDIA GPUs Candlewick launches what comes again like that as a graph of its
own; with CANDLEWICK_CUDA_REPEATS=off every call is launched anew, as with other tensors each time.

Every engine of a case is measured in turns within the same run, so that a noisy machine disturbs all alike. Candle is
measured as it comes and with RAYON_NUM_THREADS=1, and ratios are against the better of the two.

Examples:
  candlewick bench --quick
  candlewick bench --ops matmul,lora_linear --dtype all
  candlewick bench --shapes 64x64x64,32x512x512r8,128x4096
  candlewick bench --ops lora_linear+backward --pytorch ~/venv/bin/python --report bench.html
  candlewick bench --device metal --anatomy --ops matmul --shapes 64x64x64
                                           where the time of one small product goes on a Mac
  candlewick bench --device empty          the host cost of Candlewick itself, without any work")]
pub struct BenchArgs {
    /// Operations to measure, separated by commas; all by default
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = PossibleValuesParser::new(cases::op_names()))]
    pub ops: Vec<String>,
    /// Shapes instead of the built-in ones, each for the operations that it fits: 64x64x64 (m x n x k) for matmul,
    /// 128x4096 (rows x columns) for softmax and rms_norm, 32x512x512r8 (rows x in x out, rank) for LoRA
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub shapes: Vec<Shape>,
    /// Number format
    #[arg(long, default_value = "f32", value_parser = dtypes(true))]
    pub dtype: String,
    /// Device: cpu, cpu:N (at most N threads), metal, cuda (cuda:1: the second), or empty (does nothing, so what is left is Candlewick's own cost)
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// A selection of cases, in less than 20 seconds
    #[arg(long)]
    pub quick: bool,
    /// Take one product of Metal Performance Shaders apart, stage by stage, as naive code and as Candlewick runs it
    #[arg(long)]
    pub anatomy: bool,
    /// Engines to show: the dispatcher's choice, or every one of the device
    #[arg(long, value_enum, default_value = "auto")]
    pub engines: Engines,
    /// Measure PyTorch too, with this Python, which has torch installed
    #[arg(long, value_name = "PYTHON")]
    pub pytorch: Option<PathBuf>,
    /// Measure MLX too, with this Python, which has mlx and numpy installed
    #[arg(long, value_name = "PYTHON")]
    pub mlx: Option<PathBuf>,
    /// Write every row to FILE as a JSON array
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write one self-contained HTML page with the tables and charts to FILE
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Print the summary as a Markdown table, to be pasted
    #[arg(long)]
    pub markdown: bool,
}

/// Flags of `verify`.
#[derive(Args)]
#[command(after_help = "\
Exits with 0 where every engine holds its bound, with 1 where one does not.

Examples:
  candlewick verify --quick
  candlewick verify --ops softmax,rms_norm --dtype bf16
  candlewick verify --plans 1000 --device cuda")]
pub struct VerifyArgs {
    /// Device: cpu, cpu:N (at most N threads), metal, cuda (cuda:1: the second)
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Operations to check, separated by commas; all by default
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = op_classes())]
    pub ops: Vec<OpClass>,
    /// Number format
    #[arg(long, default_value = "all", value_parser = dtypes(true))]
    pub dtype: String,
    /// Fewer shapes
    #[arg(long)]
    pub quick: bool,
    /// Give every tensor of a GPU memory of its own, for compute-sanitizer and Metal's validation
    #[arg(long)]
    pub unpooled: bool,
    /// Leave out cases that cost more floating-point operations and bytes than this
    #[arg(long, value_name = "COST")]
    pub largest: Option<u64>,
    /// Seed of the random numbers, to repeat a failure
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Check so many random plans instead, with seeds from --seed on: sequences of operations, gradients and states that
    /// share memory
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["ops", "dtype", "quick", "largest", "case"])]
    pub plans: Option<usize>,
    /// One case alone, by the number that follows its `#`
    #[arg(long, value_name = "NUMBER")]
    pub case: Option<usize>,
}

/// Flags of `devices`.
#[derive(Args)]
pub struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub(crate) fn dtypes(all: bool) -> PossibleValuesParser {
    DType::ALL.map(DType::name).into_iter().chain(all.then_some("all")).collect::<Vec<_>>().into()
}

pub(crate) fn op_classes() -> impl TypedValueParser<Value = OpClass> {
    PossibleValuesParser::new(OpClass::ALL.map(OpClass::name)).map(|name| {
        let class = OpClass::ALL.into_iter().find(|class| class.name() == name);
        class.expect("clap lets only these names pass")
    })
}

/// The dtypes that `--dtype` names.
pub fn dtypes_named(name: &str) -> Vec<DType> {
    DType::ALL.into_iter().filter(|dtype| name == "all" || name == dtype.name()).collect()
}
