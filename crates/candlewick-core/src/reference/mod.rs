//! Every operation in f64, one plain loop per formula: the definition that every engine is tested against.
//!
//! Slices hold the operands as [`crate::Op::operands`] describes them, with offsets zero and the descriptor's strides. A packed
//! operand is given plain: packing is a backend's own business.

mod adamw;
mod add;
mod attention;
mod cast;
mod copy_rows;
mod cross_entropy;
mod dropout;
mod embedding;
mod lora;
mod lora_rows;
mod matmul;
mod quant;
mod rms_norm;
mod rope;
mod silu_mul;
mod softmax;

pub use quant::decode_block;

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
        (Op::RmsNormBackward(op), [x, weight, dy], [dx]) => {
            rms_norm::backward(op, x, weight, dy, dx, &mut vec![0.0; op.cols])
        }
        (Op::RmsNormBackward(op), [x, weight, dy], [dx, dweight]) => rms_norm::backward(op, x, weight, dy, dx, dweight),
        (Op::LoraLinear(op), [x, w, bias, a, b], [y]) => lora::linear(op, x, w, Some(bias), a, b, y),
        (Op::LoraLinear(op), [x, w, a, b], [y]) => lora::linear(op, x, w, None, a, b, y),
        (Op::LoraLinearBackward(op), [x, w, a, b, dy], [dx, da, db]) => {
            lora::linear_backward(op, x, w, a, b, dy, dx, da, db)
        }
        (Op::LoraDelta(op), [x, a, b], [y]) => lora::delta(op, x, a, b, y),
        (Op::LoraDeltaBackward(op), [x, a, b, dy], [dx, da, db]) => lora::delta_backward(op, x, a, b, dy, dx, da, db),
        (Op::LoraRows(op), &[x, a, b, scales, slots], [y]) => lora_rows::forward(op, [x, a, b, scales, slots], y),
        (Op::Embedding(op), [ids, table], [y]) => embedding::forward(op, ids, table, y),
        (Op::EmbeddingBackward(op), [ids, dy], [dtable]) => embedding::backward(op, ids, dy, dtable),
        (Op::Rope(op), [x, positions, frequencies], [y]) => rope::forward(op, x, positions, frequencies, y),
        (Op::RopeBackward(op), [dy, positions, frequencies], [dx]) => {
            rope::backward(op, dy, positions, frequencies, dx)
        }
        (Op::Attention(op), [q, k, v, spans], [y, lse]) => attention::forward(op, q, k, v, spans, y, lse),
        (Op::AttentionBackward(op), &[q, k, v, spans, y, lse, dy], [dq, dk, dv]) => {
            attention::backward(op, [q, k, v, spans, y, lse, dy], dq, dk, dv)
        }
        (Op::SiluMul(op), [gate, up], [y]) => silu_mul::forward(op, gate, up, y),
        (Op::SiluMulBackward(op), [gate, up, dy], [dgate, dup]) => silu_mul::backward(op, gate, up, dy, dgate, dup),
        (Op::Add(op), [a, b], [y]) => add::forward(op, a, b, y),
        (Op::Cast(op), [x], [y]) => cast::forward(op, x, &mut y[..op.elements]),
        (Op::Dropout(op), [x, seed], [y]) => dropout::forward(op, x, seed, y),
        (Op::CrossEntropyStats(op), [logits, labels], [stats]) => cross_entropy::stats(op, logits, labels, stats),
        (Op::CrossEntropyLoss(op), [stats, labels], [loss]) => cross_entropy::loss(op, stats, labels, loss),
        (Op::CrossEntropyGrad(op), &[logits, labels, stats, loss, dloss], [dlogits]) => {
            cross_entropy::grad(op, [logits, labels, stats, loss, dloss], dlogits)
        }
        (Op::SumSquares(op), [x], [sum]) => adamw::sum_squares(op, x, sum),
        (Op::AdamW(op), &[grad, sum, schedule], [master, m, v, param]) => {
            adamw::step(op, [grad, sum, schedule], [master, m, v, &mut param[..op.elements]])
        }
        (Op::CopyRows(op), [x, slots], [cache]) => copy_rows::forward(op, x, slots, cache),
        (Op::Dequantize(op), [blocks], [y]) => quant::dequantize(op, blocks, y),
        (Op::QuantLinear(op), [x, w], [y]) => quant::linear(op, x, w, y),
        _ => unreachable!("the operand counts were checked above"),
    }
    Ok(())
}

/// Elements `first..first + len`, none of them where `len` is 0: an empty operand has no element to begin at.
fn part(numbers: &[f64], first: usize, len: usize) -> &[f64] {
    if len == 0 { &[] } else { &numbers[first..][..len] }
}

/// As [`part`], to be written.
fn part_mut(numbers: &mut [f64], first: usize, len: usize) -> &mut [f64] {
    if len == 0 { &mut [] } else { &mut numbers[first..][..len] }
}
