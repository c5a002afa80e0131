//! Which field of a descriptor says how far apart an operand's rows are.

use super::uses::Side::{self, In, Out};
use crate::Op;
use crate::op::Batch;

/// The field with the row stride of an operand, and the other operand that has the same field, if there is one. Nothing
/// where the operand's rows always follow each other.
pub(super) fn row_stride(op: &mut Op, side: Side) -> Option<(&mut usize, Option<Side>)> {
    let alone = |field| Some((field, None));
    // A gradient has the strides of what it is the gradient of.
    let paired = |field, other| Some((field, Some(other)));
    match (op, side) {
        (Op::MatMul(op), side) if op.batch == Batch::ONE => match side {
            In(0) => alone(&mut op.lda),
            In(_) => alone(&mut op.ldb),
            Out(_) => alone(&mut op.ldc),
        },
        (Op::Softmax(op), In(0)) => alone(&mut op.x_row),
        (Op::Softmax(op), Out(0)) => alone(&mut op.y_row),
        (Op::SoftmaxBackward(op), In(0)) => paired(&mut op.y_row, In(1)),
        (Op::SoftmaxBackward(op), In(1)) => paired(&mut op.y_row, In(0)),
        (Op::SoftmaxBackward(op), Out(0)) => alone(&mut op.x_row),
        (Op::RmsNorm(op), In(0)) => alone(&mut op.x_row),
        (Op::RmsNorm(op), Out(0)) => alone(&mut op.y_row),
        (Op::RmsNormBackward(op), In(0)) => paired(&mut op.x_row, Out(0)),
        (Op::RmsNormBackward(op), Out(0)) => paired(&mut op.x_row, In(0)),
        (Op::RmsNormBackward(op), In(2)) => alone(&mut op.y_row),
        (Op::LoraLinear(op), In(0)) => alone(&mut op.x_row),
        (Op::LoraLinear(op), Out(0)) => alone(&mut op.y_row),
        (Op::LoraLinearBackward(op), In(0)) => paired(&mut op.x_row, Out(0)),
        (Op::LoraLinearBackward(op), Out(0)) => paired(&mut op.x_row, In(0)),
        (Op::LoraLinearBackward(op), In(4)) => alone(&mut op.y_row),
        (Op::LoraDelta(op), In(0)) => alone(&mut op.x_row),
        (Op::LoraDelta(op), Out(0)) => alone(&mut op.y_row),
        (Op::LoraDeltaBackward(op), In(0)) => paired(&mut op.x_row, Out(0)),
        (Op::LoraDeltaBackward(op), Out(0)) => paired(&mut op.x_row, In(0)),
        (Op::LoraDeltaBackward(op), In(3)) => alone(&mut op.y_row),
        (Op::QuantLinear(op), In(0)) => alone(&mut op.x_row),
        (Op::QuantLinear(op), Out(0)) => alone(&mut op.y_row),
        (Op::SiluMul(op), In(0)) => alone(&mut op.gate_row),
        (Op::SiluMul(op), In(1)) => alone(&mut op.up_row),
        (Op::SiluMul(op), Out(0)) => alone(&mut op.y_row),
        (Op::SiluMulBackward(op), In(0)) => paired(&mut op.gate_row, Out(0)),
        (Op::SiluMulBackward(op), In(1)) => paired(&mut op.up_row, Out(1)),
        (Op::SiluMulBackward(op), In(2)) => alone(&mut op.y_row),
        (Op::SiluMulBackward(op), Out(0)) => paired(&mut op.gate_row, In(0)),
        (Op::SiluMulBackward(op), Out(1)) => paired(&mut op.up_row, In(1)),
        (Op::Add(op), side) => match side {
            In(0) => alone(&mut op.a_row),
            In(_) => (op.b_row != 0).then_some((&mut op.b_row, None)),
            Out(_) => alone(&mut op.y_row),
        },
        (Op::Rope(op), In(0)) => alone(&mut op.x_row),
        (Op::Rope(op), Out(0)) => alone(&mut op.y_row),
        (Op::RopeBackward(op), In(0)) => alone(&mut op.y_row),
        (Op::RopeBackward(op), Out(0)) => alone(&mut op.x_row),
        (Op::Attention(op), In(0)) => alone(&mut op.q_row),
        (Op::Attention(op), In(1)) => alone(&mut op.k_row),
        (Op::Attention(op), In(2)) => alone(&mut op.v_row),
        (Op::Attention(op), Out(0)) => alone(&mut op.y_row),
        (Op::AttentionBackward(op), In(0)) => paired(&mut op.q_row, Out(0)),
        (Op::AttentionBackward(op), In(1)) => paired(&mut op.k_row, Out(1)),
        (Op::AttentionBackward(op), In(2)) => paired(&mut op.v_row, Out(2)),
        (Op::AttentionBackward(op), In(4)) => paired(&mut op.y_row, In(6)),
        (Op::AttentionBackward(op), In(6)) => paired(&mut op.y_row, In(4)),
        (Op::AttentionBackward(op), Out(0)) => paired(&mut op.q_row, In(0)),
        (Op::AttentionBackward(op), Out(1)) => paired(&mut op.k_row, In(1)),
        (Op::AttentionBackward(op), Out(2)) => paired(&mut op.v_row, In(2)),
        (Op::CopyRows(op), In(0)) => alone(&mut op.x_row),
        (Op::CrossEntropyStats(op), In(0)) => alone(&mut op.logits_row),
        _ => None,
    }
}
