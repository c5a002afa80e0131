//! `MPSMatrixMultiplication` as naive code calls it: everything made anew, and waited for. It is here to be compared with,
//! stage by stage.

use super::product::{Shape, runs_matmul};
use crate::runtime::dispatch::{Place, Places};
use crate::runtime::objects::{DEVICE, MetalDevice, some};
use crate::{Device, Input, Output};
use candlewick_core::backend::Signature;
use candlewick_core::{Error, MatMul, Op, Result};
use objc2::rc::autoreleasepool;
use objc2_metal::{MTLCommandBuffer, MTLCommandQueue, MTLDevice};

/// What one naive product consists of, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// A new command queue.
    Queue,
    /// A new command buffer.
    CommandBuffer,
    /// A new kernel object.
    Kernel,
    /// Three descriptors.
    Descriptors,
    /// Three matrices.
    Matrices,
    /// Encoding the kernel.
    Encode,
    /// Committing the command buffer.
    Commit,
    /// Waiting for it.
    Wait,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 8] = [
        Stage::Queue,
        Stage::CommandBuffer,
        Stage::Kernel,
        Stage::Descriptors,
        Stage::Matrices,
        Stage::Encode,
        Stage::Commit,
        Stage::Wait,
    ];

    /// As tables print it.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::CommandBuffer => "command buffer",
            Stage::Kernel => "kernel object",
            Stage::Descriptors => "descriptors",
            Stage::Matrices => "matrices",
            Stage::Encode => "encode",
            Stage::Commit => "commit",
            Stage::Wait => "wait",
        }
    }
}

/// Runs one naive product, telling `after` when each stage is over: for `bench --anatomy`.
///
/// # Errors
/// A product that MPS does not run, wrong arguments, what the driver says.
pub fn naive_product(
    device: &Device,
    op: &MatMul,
    inputs: &[Input<'_>; 2],
    output: &mut Output<'_>,
    after: &mut dyn FnMut(Stage),
) -> Result<()> {
    let descriptor = Op::MatMul(*op);
    Signature::new(&descriptor, None)?.check(inputs, std::slice::from_ref(output))?;
    if !runs_matmul(op) {
        return Err(crate::ops::unlisted(&descriptor, crate::NAIVE_MPS));
    }
    let places: Places<'_> = [inputs[0].place(), inputs[1].place(), output.as_input().place()].into_iter().collect();
    NaiveProduct::new(op).run(device.shared().metal(), &places, after)
}

/// A product that keeps nothing but its sizes.
pub(crate) struct NaiveProduct(Shape);

impl NaiveProduct {
    pub(crate) fn new(op: &MatMul) -> Self {
        NaiveProduct(Shape::of(op))
    }

    /// As an operation: C is zeroed first where beta is 0, by the CPU, as naive code that fears a NaN there does.
    pub(crate) fn run_cleared(&self, device: &MetalDevice, places: &Places<'_>) -> Result<()> {
        let (layout, element) = (&self.0.result, self.0.dtype.bytes());
        let c = places[2].block.contents().wrapping_add(places[2].offset);
        for row in (0..layout.matrices * layout.rows).filter(|_| self.0.beta == 0.0) {
            let at = row / layout.rows * layout.matrix_bytes + row % layout.rows * layout.row_bytes;
            // SAFETY: the row lies within C, which the call borrows alone, and nothing of the GPU's is pending.
            unsafe { c.add(at).write_bytes(0, layout.columns * element) };
        }
        self.run(device, places, &mut |_| {})
    }

    /// Runs it and waits. Whatever else uses its memory is done.
    pub(crate) fn run(&self, device: &MetalDevice, places: &Places<'_>, after: &mut dyn FnMut(Stage)) -> Result<()> {
        autoreleasepool(|_| {
            let shape = &self.0;
            let queue = some("command queue", device.newCommandQueue())?;
            after(Stage::Queue);
            let commands = some("command buffer", queue.commandBuffer())?;
            after(Stage::CommandBuffer);
            let kernel = shape.kernel(device);
            after(Stage::Kernel);
            let layouts = [shape.left, shape.right, shape.result];
            let descriptors = layouts.map(|layout| layout.descriptor());
            after(Stage::Descriptors);
            let matrix = |i: usize| {
                let Place { block, offset } = places[i];
                layouts[i].matrix(Place { block, offset }, &descriptors[i])
            };
            let [left, right, result] = [0, 1, 2].map(matrix);
            after(Stage::Matrices);
            // SAFETY: the matrices have the shapes that the kernel was made for.
            unsafe {
                kernel.encodeToCommandBuffer_leftMatrix_rightMatrix_resultMatrix(&commands, &left, &right, &result);
            }
            after(Stage::Encode);
            commands.commit();
            after(Stage::Commit);
            commands.waitUntilCompleted();
            after(Stage::Wait);
            match commands.error() {
                None => Ok(()),
                Some(error) => {
                    let message = format!("naive product: {}", error.localizedDescription());
                    Err(Error::Backend { device: DEVICE.into(), message })
                }
            }
        })
    }
}
