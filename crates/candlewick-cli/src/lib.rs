//! The `candlewick` command as a library: the binary calls [`main`], and so does the emulator's own `candlewick`.
//!
//! | command | it is in |
//! |---|---|
//! | what users type | `args.rs` |
//! | `generate` | `generate/`, over the crate `candlewick-lm` |
//! | `adapter`, `merge`, `fetch` | `adapter.rs`, `merge.rs`, `fetch.rs`, over the crate `candlewick-model` |
//! | `bench` | `bench/`, with the libraries beside it in `peers/` and what is printed in `report/` |
//! | `bench --anatomy` | `bench/anatomy.rs` |
//! | `verify` | `verify/`, over the crate `candlewick-verify` |
//! | `devices` | `devices.rs` |
//! | `tune` | `tune/` |
//! | `dispatch explain`, `dispatch check` | `dispatch/` |
//! | `train` | `train/`, over the crate `candlewick-lm` |
//!
//! ```no_run
//! let code: std::process::ExitCode = candlewick_cli::main();
//! ```

mod adapter;
mod args;
mod bench;
mod devices;
mod dispatch;
mod fetch;
mod generate;
mod merge;
mod peers;
mod report;
mod train;
mod tune;
mod verify;

use args::{Cli, Command};
use clap::Parser as _;
use std::io::IsTerminal as _;
use std::ops::Sub;
use std::process::ExitCode;

/// What code has asked of an emulated GPU since the thread's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Objective-C messages sent.
    pub messages: u64,
    /// Objects made.
    pub objects: u64,
    /// Command buffers made.
    pub command_buffers: u64,
    /// Times that a thread blocked for the GPU.
    pub waits: u64,
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, before: Counts) -> Counts {
        Counts {
            messages: self.messages - before.messages,
            objects: self.objects - before.objects,
            command_buffers: self.command_buffers - before.command_buffers,
            waits: self.waits - before.waits,
        }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    run(None)
}

/// The same where somebody counts, because times mean nothing: on the emulator.
pub fn main_counted(counter: fn() -> Counts) -> ExitCode {
    run(Some(counter))
}

fn run(counter: Option<fn() -> Counts>) -> ExitCode {
    // Warnings of the library are for whoever sits before the terminal.
    let plain = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false);
    let plain = plain.with_ansi(std::io::stderr().is_terminal());
    let _ = plain.with_max_level(tracing::Level::WARN).try_init();
    match Cli::parse().command {
        Command::Generate(args) => ended(generate::run(&args)),
        Command::Adapter(args) => ended(adapter::run(&args)),
        Command::Merge(args) => ended(merge::run(&args)),
        Command::Fetch(args) => ended(fetch::run(&args)),
        Command::Bench(args) => bench::run(&args, counter),
        Command::Verify(args) => verify::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Dispatch(args) => dispatch::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Peer { library, device } => peers::serve_library(library, &device),
    }
}

/// What went wrong, on one line.
fn ended(result: candlewick_lm::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
