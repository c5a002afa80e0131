//! The `candlewick` command: benchmarks beside Candle and PyTorch, verification, devices.

mod args;
mod bench;
mod devices;
mod peers;
mod report;
mod verify;

use args::{Cli, Command};
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Peer { library } => peers::serve_library(library),
    }
}
