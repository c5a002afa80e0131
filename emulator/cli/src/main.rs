//! The `candlewick` command with an emulated Apple GPU: `verify --device metal`, `devices`, `bench --device metal --anatomy`.
//!
//! The environment decides how the emulator behaves (`METAL_EMULATOR_SEED`, `METAL_EMULATOR_DROP`, ..: see
//! `emulator/README.md`). What it finds is printed at the end, and makes the command fail.

use candlewick_cli::Counts;
use metal_emulator::{Settings, account, watch};
use std::process::ExitCode;

/// What this thread has asked of the emulator.
fn counts() -> Counts {
    let account::Counts { runtime, gpu } = account::counts();
    Counts {
        messages: runtime.messages,
        objects: runtime.objects_made,
        command_buffers: gpu.command_buffers,
        waits: gpu.waits,
    }
}

/// Reports beyond these are counted alone.
const PRINTED: usize = 20;

fn main() -> ExitCode {
    let watch = watch(Settings::from_environment());
    let code = candlewick_cli::main_counted(counts);
    let reports = watch.reports();
    for report in reports.iter().take(PRINTED) {
        eprintln!("emulator: {report}");
    }
    if reports.is_empty() {
        return code;
    }
    eprintln!("emulator: {} reports", reports.len());
    ExitCode::FAILURE
}
