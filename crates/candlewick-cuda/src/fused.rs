//! The engine `cuda/fused`: programs of `candlewick-kernels`, whose source Metal runs too. Every operation has one.

use crate::FUSED;
use crate::chip::Chip;
use crate::ops::{Build, Step, Work, unlisted};
use crate::program::Program;
use candlewick_core::backend::Engine;
use candlewick_core::{Op, Result};
use candlewick_kernels::{Alignment, Place};

/// `op` by own kernels: for tensors at multiples of 16 bytes, and for any.
///
/// # Errors
/// What the compiler says, or no such kernels.
pub(crate) fn work(op: &Op, build: &mut Build<'_>) -> Result<Work> {
    let any = program(op, Alignment::Element, build)?;
    let sixteen = program(op, Alignment::Sixteen, build)?;
    let sixteen = (sixteen.alignment > any.alignment).then_some(sixteen);
    works(op, sixteen, any, build)
}

/// This engine, if there are kernels for `op`.
pub(crate) fn engines(op: &Op, chip: &Chip) -> Vec<Engine> {
    let program = candlewick_kernels::program(op, &chip.limits(), Alignment::Element);
    program.map_or_else(Vec::new, |_| vec![FUSED])
}

/// A program for aligned tensors, if it makes a difference, and one for any.
///
/// # Errors
/// What the compiler says.
pub(crate) fn works(op: &Op, aligned: Option<Program>, any: Program, build: &mut Build<'_>) -> Result<Work> {
    let inputs = op.operands()?.inputs.len();
    // A kernel is encoded by one thread at a time, in order: programs that do not count can share the workspace.
    let shares = aligned.as_ref().filter(|program| !program.counts);
    let bytes = any.workspace_bytes.max(shares.map_or(0, |program| program.workspace_bytes));
    let workspace = build.workspace(bytes)?;
    let counted = match &aligned {
        Some(program) if program.counts => build.zeroed_workspace(program.workspace_bytes)?,
        _ => workspace,
    };
    let place = |place| match place {
        Place::Input(index) => usize::from(index),
        Place::Output(index) => inputs + usize::from(index),
        Place::Workspace => 0,
    };
    let variant = aligned.as_ref().unwrap_or(&any).variant;
    let aligned = match aligned {
        Some(program) => Some((program.alignment.into(), vec![launches(&program, counted, place, build)?])),
        None => None,
    };
    Ok(Work { variant, aligned, any: vec![launches(&any, workspace, place, build)?] })
}

/// The best guess of `candlewick-kernels`.
///
/// # Errors
/// No such kernels.
pub(crate) fn program(op: &Op, alignment: Alignment, build: &Build<'_>) -> Result<Program> {
    let program = candlewick_kernels::program(op, &build.chip().limits(), alignment);
    program.map(Program::from).ok_or_else(|| unlisted(op, FUSED, build))
}

/// A program as launches; `place` says which tensor of the call an operand is.
///
/// # Errors
/// What the compiler says.
pub(crate) fn launches(
    program: &Program,
    workspace: u64,
    place: impl Fn(Place) -> usize,
    build: &Build<'_>,
) -> Result<Step> {
    let launches = program.launches.iter().map(|launch| build.launch(launch, workspace, &place));
    Ok(Step::Launches(launches.collect::<Result<_>>()?))
}
