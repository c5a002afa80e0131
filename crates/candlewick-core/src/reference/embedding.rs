use super::{part, part_mut, quant};
use crate::Embedding;

pub(super) fn forward(op: &Embedding, ids: &[f64], table: &[f64], y: &mut [f64]) {
    for (token, id) in ids[..op.tokens].iter().map(|id| *id as usize).enumerate() {
        let y = part_mut(y, token * op.width, op.width);
        if id >= op.vocab {
            y.fill(f64::NAN);
        } else if let Some(format) = op.quant {
            let bytes = format.row_bytes(op.width);
            quant::decode_all(format, op.width, part(table, id * bytes, bytes), |at, value| y[at] = value);
        } else {
            y.copy_from_slice(part(table, id * op.width, op.width));
        }
    }
}

pub(super) fn backward(op: &Embedding, ids: &[f64], dy: &[f64], dtable: &mut [f64]) {
    dtable[..op.vocab * op.width].fill(0.0);
    for (token, id) in ids[..op.tokens].iter().map(|id| *id as usize).enumerate() {
        if id < op.vocab {
            for j in 0..op.width {
                dtable[id * op.width + j] += dy[token * op.width + j];
            }
        }
    }
}
