//! What users type after `candlewick dispatch`.

use crate::args::dtypes;
use crate::bench::cases::{self, Shape};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

/// Flags of `dispatch`.
#[derive(Args)]
pub struct DispatchArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DispatchCommand,
}

/// The commands.
#[derive(Subcommand)]
pub enum DispatchCommand {
    /// Which engine runs an operation and why: the candidates, their times, where the numbers come from.
    Explain(ExplainArgs),
    /// Measure whether the choices hold: every engine alone against the dispatcher, at the shapes of `bench`.
    Check(CheckArgs),
}

/// Flags of `dispatch explain`.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  candlewick dispatch explain matmul 64x256x64
  candlewick dispatch explain lora_linear 32x512x512r8 --device cuda --dtype bf16
  candlewick dispatch explain softmax 128x4096 --dtype all")]
pub struct ExplainArgs {
    /// The operation
    #[arg(value_parser = PossibleValuesParser::new(cases::op_names()))]
    pub op: String,
    /// 64x64x64 (m x n x k) for matmul, 128x4096 (rows x columns), 32x512x512r8 (rows x in x out, rank) for LoRA
    pub shape: Shape,
    /// Device: cpu, cpu:N (at most N threads), metal, cuda (cuda:1: the second)
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Number format
    #[arg(long, default_value = "f32", value_parser = dtypes(true))]
    pub dtype: String,
}

/// Flags of `dispatch check`.
#[derive(Args)]
pub struct CheckArgs {
    /// Device: cpu, cpu:N (at most N threads), metal, cuda (cuda:1: the second)
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Number format
    #[arg(long, default_value = "f32", value_parser = dtypes(true))]
    pub dtype: String,
    /// The shapes of `bench --quick`
    #[arg(long)]
    pub quick: bool,
}
