//! What runs programs.

use candlewick_kernels::Program;

/// An operand in the midst of a larger piece of memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The memory.
    pub memory: Vec<u8>,
    /// Where the operand starts, in bytes: a multiple of what the program asks for.
    pub start: usize,
}

/// Something that runs a program's dispatches.
pub trait Gpu {
    /// Runs all of them, in order, with the operands' memory as it comes, and leaves the outputs there.
    ///
    /// # Errors
    /// Whatever the kernels did that they may not do, in words.
    fn run(&mut self, program: &Program, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), String>;
}
