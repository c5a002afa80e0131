//! The engine `metal/msl`: programs of `candlewick-kernels`, translated once.

use crate::ops::{Build, Work, unlisted};
use crate::runtime::dispatch::{Dispatch, line};
use crate::runtime::hazard::Access;
use crate::runtime::pipeline::Source;
use candlewick_core::backend::Engine;
use candlewick_core::{Op, Result};
use candlewick_kernels::{Alignment, GpuLimits, Memory, Place, Program, program};

/// `op` by own kernels: for tensors at multiples of 16 bytes, and for any.
///
/// # Errors
/// What the compiler says, or no such kernels.
pub(crate) fn work(op: &Op, build: &mut Build<'_>) -> Result<Work> {
    let limits = build.gpu();
    let find = |alignment| program(op, &limits, alignment).ok_or_else(|| unlisted(op, crate::MSL));
    let (any, sixteen) = (find(Alignment::Element)?, find(Alignment::Sixteen)?);
    let inputs = op.operands()?.inputs.len();
    // A kernel is encoded by one thread at a time, in order: both programs can share the workspace.
    let bytes = any.workspace_bytes.max(sixteen.workspace_bytes) as usize;
    let workspace = if bytes > 0 { Some(build.own(bytes)?) } else { None };
    let sixteen = (sixteen.alignment > any.alignment).then(|| dispatches(&sixteen, inputs, workspace, build));
    Ok(Work::Dispatches { sixteen: sixteen.transpose()?, any: dispatches(&any, inputs, workspace, build)? })
}

/// This engine, if there are kernels for `op`: on every GPU or on none.
pub(crate) fn engines(op: &Op) -> Vec<Engine> {
    let program = program(op, &GpuLimits::apple(8), Alignment::Element);
    program.map_or_else(Vec::new, |_| vec![crate::MSL])
}

/// A program with so many inputs, and its workspace by number.
///
/// # Errors
/// What the compiler says.
pub(crate) fn dispatches(
    program: &Program,
    inputs: usize,
    workspace: Option<usize>,
    build: &mut Build<'_>,
) -> Result<Vec<Dispatch>> {
    program.dispatches.iter().map(|dispatch| translate(dispatch, inputs, workspace, build)).collect()
}

fn translate(
    dispatch: &candlewick_kernels::Dispatch,
    inputs: usize,
    workspace: Option<usize>,
    build: &mut Build<'_>,
) -> Result<Dispatch> {
    let mut bindings = Vec::with_capacity(dispatch.bindings.len());
    for binding in &dispatch.bindings {
        let access = match binding.access {
            candlewick_kernels::Access::Read => Access::Read,
            candlewick_kernels::Access::Write | candlewick_kernels::Access::ReadWrite => Access::Write,
        };
        let Memory { place, offset, bytes } = binding.memory;
        let mut slot = match (place, workspace) {
            (Place::Input(index), _) => Build::tensor(index.into(), access, bytes as usize),
            (Place::Output(index), _) => Build::tensor(inputs + usize::from(index), access, bytes as usize),
            (Place::Workspace, Some(workspace)) => build.owned(workspace, access, bytes as usize),
            // A slot that this launch does not use.
            (Place::Workspace, None) => Build::unused(),
        };
        slot.offset = offset as usize;
        bindings.push(slot);
    }
    let entry = (Source::Shared(dispatch.entry.file, dispatch.entry.dtype), dispatch.entry.name);
    let (groups, threads) = (line(dispatch.groups as usize), dispatch.threads as usize);
    build.dispatch(entry, bindings, dispatch.params.bytes(), groups, threads)
}
