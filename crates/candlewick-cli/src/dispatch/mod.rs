//! `candlewick dispatch`: which engine runs an operation and why, and whether the choices hold.

pub(crate) mod args;
mod check;
mod explain;

use args::{DispatchArgs, DispatchCommand};
use std::process::ExitCode;

pub(crate) fn run(args: &DispatchArgs) -> ExitCode {
    let done = match &args.command {
        DispatchCommand::Explain(args) => explain::run(args).map(|()| true),
        DispatchCommand::Check(args) => check::run(args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
