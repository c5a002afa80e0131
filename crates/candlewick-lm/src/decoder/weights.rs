//! Weights by role as constants of a session, converted when a plan needs them.

use super::{Constant, Quantised};
use crate::Result;
use candlewick::op::Quant;
use candlewick::plan::{Numbers, Session, Shared};
use candlewick::{DType, Element, reference};
use candlewick_model::{Config, Format, Role, Weights};
use half::{bf16, f16};
use std::collections::HashMap;
use std::sync::Arc;

/// Every weight of the model. A tied head is the embedding itself.
pub(super) fn declare(
    session: &Session,
    weights: &Arc<Weights>,
    dtype: DType,
    quantised: Quantised,
) -> Result<HashMap<Role, Constant>> {
    let mut constants = HashMap::new();
    let config = weights.config();
    for role in Role::all(config) {
        let format = weights.get(role)?.format;
        let kept = match format {
            Format::Quant(quant) if quantised == Quantised::Keep && !role.is_vector() => Some(quant),
            _ => None,
        };
        let constant = constant(session, weights, role, kept, dtype)?;
        if role == Role::Embedding && config.tied {
            constants.insert(Role::Head, constant.clone());
        }
        constants.insert(role, constant);
    }
    Ok(constants)
}

/// The frequencies of the rotary embedding, [1, head_dim / 2] in f32.
pub(super) fn frequencies(session: &Session, config: &Config) -> Shared {
    let frequencies = config.rope.frequencies(config.head_dim);
    session.constant_from("frequencies", 1, frequencies.len(), DType::F32, move |_, to| {
        if let Numbers::F32(to) = to {
            to.copy_from_slice(&frequencies);
        }
        Ok(())
    })
}

fn constant(
    session: &Session,
    weights: &Arc<Weights>,
    role: Role,
    kept: Option<Quant>,
    dtype: DType,
) -> Result<Constant> {
    let weight = weights.get(role)?;
    let (rows, cols, name) = (weight.rows, weight.cols, role.hugging_face());
    let (cols, dtype) = kept.map_or((cols, dtype), |quant| (quant.row_bytes(cols), DType::U8));
    let weights = weights.clone();
    let shared = session.constant_from(&name, rows, cols, dtype, move |rows, to| {
        // It was there when the model was declared, and the file has not changed.
        if let Ok(weight) = weights.get(role) {
            let row_bytes = weight.bytes.len() / weight.rows.max(1);
            convert(weight.format, &weight.bytes[rows.start * row_bytes..rows.end * row_bytes], to);
        }
        Ok(())
    });
    Ok(Constant { shared, quant: kept })
}

/// Bytes of a file as numbers of a dtype, or as the bytes that they are.
fn convert(format: Format, bytes: &[u8], to: Numbers<'_>) {
    match to {
        Numbers::F32(to) => convert_to(format, bytes, to, |number| number),
        Numbers::F16(to) => convert_to(format, bytes, to, f16::from_f32),
        Numbers::BF16(to) => convert_to(format, bytes, to, bf16::from_f32),
        Numbers::U8(to) => to.copy_from_slice(bytes),
        Numbers::U32(_) => unreachable!("no weight is declared as integers"),
    }
}

fn convert_to<T: Element>(format: Format, bytes: &[u8], to: &mut [T], round: impl Fn(f32) -> T) {
    match format {
        Format::Float(DType::F32) => {
            let (numbers, _) = bytes.as_chunks();
            to.iter_mut().zip(numbers).for_each(|(to, &b)| *to = round(f32::from_le_bytes(b)));
        }
        Format::Float(DType::F16) => {
            let (numbers, _) = bytes.as_chunks();
            to.iter_mut().zip(numbers).for_each(|(to, &b)| *to = round(f16::from_le_bytes(b).to_f32()));
        }
        Format::Float(DType::BF16) => {
            let (numbers, _) = bytes.as_chunks();
            to.iter_mut().zip(numbers).for_each(|(to, &b)| *to = round(bf16::from_le_bytes(b).to_f32()));
        }
        Format::Float(DType::U32 | DType::U8) => unreachable!("weights are floats: `Weights` has checked them"),
        Format::Quant(quant) => {
            let mut numbers = vec![0.0; quant.block()];
            for (block, to) in bytes.chunks_exact(quant.bytes()).zip(to.chunks_exact_mut(quant.block())) {
                reference::decode_block(quant, block, &mut numbers);
                to.iter_mut().zip(&numbers).for_each(|(to, &number)| *to = round(number));
            }
        }
    }
}
