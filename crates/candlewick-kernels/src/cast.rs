//! `kernels/cast.h`: y = x in another dtype.

use crate::elements;
use crate::program::{Alignment, Kernel, Memory, Place, Program, names, params};
use crate::source::File;
use candlewick_core::{Cast, DType};

params! {
    struct CastParams {
        elements: u64,
    }
}

/// A thread casts eight elements.
pub(crate) fn forward(op: &Cast, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("elements", op.to);
    let bytes = |dtype: DType| (op.elements * dtype.bytes()) as u64;
    let (x, y) = (Memory::whole(Place::Input(0), bytes(op.from)), Memory::whole(Place::Output(0), bytes(op.to)));
    let names = match op.from {
        DType::F32 => names!("cast_f32_to"),
        DType::F16 => names!("cast_f16_to"),
        DType::BF16 => names!("cast_bf16_to"),
        _ => return None,
    };
    let wide = elements::vector_wide(alignment, op.elements);
    let kernel = Kernel { file: File::Cast, names, dtype: op.to, wide };
    let grid = elements::vector(op.elements);
    let params = CastParams { elements: op.elements as u64 };
    program.launch(kernel, &params, [x.read(), y.write()], grid.groups, grid.threads)?;
    Some(program)
}
