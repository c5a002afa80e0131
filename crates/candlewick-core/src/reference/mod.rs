//! Every operation in f64, one plain loop per formula: the definition that every engine is tested against.
//!
//! Slices hold the operands as [`crate::Op::operands`] describes them, with offsets zero and the descriptor's strides. A packed
//! operand is given plain: packing is a backend's own business.

mod lora;
mod matmul;
mod rms_norm;
mod softmax;

use crate::{Error, Op, Result};

/// Runs `op` in f64.
///
/// # Errors
/// A descriptor that contradicts itself, or slices that are too few or too short.
pub fn run(op: &Op, inputs: &[&[f64]], outputs: &mut [&mut [f64]]) -> Result<()> {
    let operands = op.operands()?;
    let lengths = |role, expected: &[crate::op::Operand], found: Vec<usize>| -> Result<()> {
        if found.len() != expected.len() {
            let names: Vec<&str> = expected.iter().map(|operand| operand.name).collect();
            return Err(Error::ArgumentCount {
                op: op.name(),
                role,
                expected: expected.len(),
                found: found.len(),
                names: names.join(", "),
            });
        }
        for (operand, found) in expected.iter().zip(found) {
            if found < operand.span {
                return Err(Error::TooShort {
                    op: op.name(),
                    operand: operand.name,
                    shape: operand.shape.clone(),
                    needed: operand.span,
                    found,
                });
            }
        }
        Ok(())
    };
    lengths("inputs", &operands.inputs, inputs.iter().map(|input| input.len()).collect())?;
    lengths("outputs", &operands.outputs, outputs.iter().map(|output| output.len()).collect())?;
    match (op, inputs, outputs) {
        (Op::MatMul(op), [a, b], [c]) => matmul::forward(op, a, b, c),
        (Op::Softmax(op), [x], [y]) => softmax::forward(op, x, y),
        (Op::SoftmaxBackward(op), [y, dy], [dx]) => softmax::backward(op, y, dy, dx),
        (Op::RmsNorm(op), [x, weight], [y]) => rms_norm::forward(op, x, weight, y),
        (Op::RmsNormBackward(op), [x, weight, dy], [dx, dweight]) => rms_norm::backward(op, x, weight, dy, dx, dweight),
        (Op::LoraLinear(op), [x, w, bias, a, b], [y]) => lora::linear(op, x, w, Some(bias), a, b, y),
        (Op::LoraLinear(op), [x, w, a, b], [y]) => lora::linear(op, x, w, None, a, b, y),
        (Op::LoraLinearBackward(op), [x, w, a, b, dy], [dx, da, db]) => {
            lora::linear_backward(op, x, w, a, b, dy, dx, da, db)
        }
        (Op::LoraDelta(op), [x, a, b], [y]) => lora::delta(op, x, a, b, y),
        (Op::LoraDeltaBackward(op), [x, a, b, dy], [dx, da, db]) => lora::delta_backward(op, x, a, b, dy, dx, da, db),
        _ => unreachable!("the operand counts were checked above"),
    }
    Ok(())
}
