//! What users type after `candlewick tune`.

use crate::args::{dtypes, op_classes};
use candlewick::op::OpClass;
use clap::Args;
use std::path::PathBuf;

/// Flags of `tune`.
#[derive(Args)]
#[command(after_long_help = "\
Every engine of the device runs every shape of a grid, in turns; engines that cannot win leave early. The result is a
profile in the user's cache folder (CANDLEWICK_PROFILES names another): the dispatcher of every program that uses
Candlewick reads it when it opens the device. A profile of another machine, driver or version is ignored with a warning;
CANDLEWICK_PROFILE=off ignores it always. An interrupted run goes on where it was.

Examples:
  candlewick tune --quick                          about a minute on a CPU
  candlewick tune --device cuda --report tune.html everything, with heat maps
  candlewick tune --show                           the profile that is in use
  candlewick dispatch explain matmul 64x256x64     what it decides")]
pub struct TuneArgs {
    /// Device: cpu, cpu:N (at most N threads), metal, cuda (cuda:1: the second)
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Fewer shapes, fewer turns
    #[arg(long)]
    pub quick: bool,
    /// Operations to measure, separated by commas; all by default
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = op_classes())]
    pub ops: Vec<OpClass>,
    /// Number format
    #[arg(long, default_value = "all", value_parser = dtypes(true))]
    pub dtype: String,
    /// Begin anew instead of going on with an interrupted run
    #[arg(long)]
    pub fresh: bool,
    /// Measure nothing: print the profile that is in use, and write its report where one is asked for
    #[arg(long, conflicts_with_all = ["quick", "fresh", "ops"])]
    pub show: bool,
    /// Write one self-contained HTML page with heat maps of the winning engines to FILE
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write the profile to FILE too, to keep it or to build it in
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}
