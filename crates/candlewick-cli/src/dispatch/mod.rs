//! `candlewick dispatch`: which engine runs an operation and why, and whether the choices hold.

pub(crate) mod args;
mod check;
mod explain;

use args::{DispatchArgs, DispatchCommand};
use candlewick::DeviceInfo;
use candlewick::profile::{Profile, Source};
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

/// A profile and where it comes from.
pub(crate) type Found = (Profile, Source);

/// Where a device's choices come from, in words.
pub(crate) fn origin(info: &DeviceInfo, found: Option<&Found>) -> String {
    match found {
        Some((profile, Source::Measured(path))) => format!("measured here, {}: {}", profile.date, path.display()),
        Some((profile, Source::BuiltIn(name))) => format!("built in, measured on this chip, {}: {name}", profile.date),
        None if info.id == "metal" => {
            "the defaults that Apple documents: no Apple chip was measured; `candlewick tune \
                                       --device metal` measures this one"
                .into()
        }
        None => format!("the backend's own order; `candlewick tune --device {}` measures", info.id),
    }
}
