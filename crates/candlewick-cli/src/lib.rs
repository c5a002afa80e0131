//! The `candlewick` command as a library: the binary calls [`main`], and so does the emulator's own `candlewick`.
//!
//! | command | it is in |
//! |---|---|
//! | what users type | `args.rs` |
//! | `bench` | `bench/`, with the libraries beside it in `peers/` and what is printed in `report/` |
//! | `bench --anatomy` | `anatomy/` |
//! | `verify` | `verify/`, over the crate `candlewick-verify` |
//! | `devices` | `devices.rs` |

mod args;
mod bench;
mod devices;
mod peers;
mod report;
mod verify;

use args::{Cli, Command};
use clap::Parser as _;
use std::process::ExitCode;

/// Does what the command line says.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Peer { library, device } => peers::serve_library(library, &device),
    }
}
