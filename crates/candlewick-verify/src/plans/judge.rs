//! Every operation of a plan against the f64 reference, given what the device itself made of its operands.

use super::generate::Generated;
use super::given::Given;
use crate::trial::{Fault, Trial};
use candlewick::op::OpClass;
use candlewick::plan::{Operation, Origin, Recording, Tensor};
use candlewick::{Op, Result};
use std::collections::HashMap;

/// Bounds are for operands of magnitude one. Within plans they are a few times larger, and so are the errors of exponents.
const SLACK: f64 = 4.0;

/// As much more where an operand could not be read, because it was overwritten in the same run.
const UNSEEN: f64 = 4.0;

/// The numbers of a storage, and which of them the device itself showed.
#[derive(Clone)]
struct Numbers {
    values: Vec<f64>,
    seen: Vec<bool>,
}

/// What is wrong within a plan.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// Which operation, counted from 0.
    pub at: usize,
    /// What it is.
    pub op: Op,
    /// What is wrong with its result.
    pub fault: Fault,
}

/// The class and the error of each operation, or the first that is wrong.
pub(crate) type Judged = std::result::Result<Vec<(OpClass, f64)>, Box<Wrong>>;

/// Judges one run: what was given to it, and the numbers of every tensor after it. The error of each operation, as a share
/// of what it may be.
pub(crate) fn judge(
    generated: &Generated,
    before: &HashMap<Tensor, Vec<f64>>,
    after: &HashMap<Tensor, Vec<f64>>,
) -> Result<Judged> {
    let recording = &generated.recording;
    let operations: Vec<Operation> = recording.operations().collect();
    let mut storages = first(recording, &generated.given, before);
    let finals = last(recording, &operations, after);
    let writers = writers(recording, &operations)?;
    let mut judged = Vec::with_capacity(operations.len());
    for (at, operation) in operations.iter().enumerate() {
        let operands = operation.op.operands()?;
        let part = |tensor: Tensor, span: usize, storages: &[Numbers]| {
            let (storage, offset) = recording.place(tensor);
            let range = if span == 0 { 0..0 } else { offset..offset + span };
            (storages[storage].values[range.clone()].to_vec(), storages[storage].seen[range].iter().all(|seen| *seen))
        };
        let read = operation.inputs.iter().zip(&operands.inputs);
        let (inputs, seen): (Vec<_>, Vec<bool>) =
            read.map(|(&tensor, operand)| part(tensor, operand.span, &storages)).unzip();
        let kept = operation.outputs.iter().zip(&operands.outputs);
        let (outputs, shown): (Vec<_>, Vec<bool>) =
            kept.map(|(&tensor, operand)| part(tensor, operand.span, &storages)).unzip();
        let reads_unseen = seen.contains(&false)
            || shown.iter().enumerate().any(|(index, shown)| operation.op.keeps_output(index) && !shown);
        let slack = if reads_unseen { SLACK * UNSEEN } else { SLACK };
        let trial = Trial::given(operation.op, &inputs, &outputs, slack, !reads_unseen)?;
        let mut memory = trial.fresh();
        for (index, &tensor) in operation.outputs.iter().enumerate() {
            let (storage, offset) = recording.place(tensor);
            let places = trial.outputs()[index].places.clone();
            let dtype = trial.outputs()[index].dtype;
            for place in places {
                let element = offset + place;
                let last = writers[storage][element] == Some(at);
                let value = match finals.get(&storage) {
                    Some(values) if last => values[element],
                    // Somebody writes it again, and nobody can read it in between.
                    _ => dtype.round(trial.expected()[index][place]),
                };
                memory[index][place] = value;
                storages[storage].values[element] = value;
                storages[storage].seen[element] = last;
            }
        }
        match trial.judge(&memory) {
            Ok(deviation) => judged.push((operation.op.class(), deviation.share())),
            Err(fault) => return Ok(Err(Box::new(Wrong { at, op: operation.op, fault }))),
        }
    }
    Ok(Ok(judged))
}

/// What lies in every storage before a run.
fn first(recording: &Recording, given: &[Given], before: &HashMap<Tensor, Vec<f64>>) -> Vec<Numbers> {
    let mut storages: Vec<Numbers> = recording
        .storages()
        .map(|storage| {
            let value = if let Origin::Filled(value) = storage.origin { f64::from(value) } else { f64::NAN };
            let values = vec![storage.dtype.round(value); storage.elements];
            Numbers { seen: vec![true; values.len()], values }
        })
        .collect();
    for given in given {
        let (storage, _) = recording.place(given.tensor);
        storages[storage].values.clone_from(&before[&given.tensor]);
    }
    storages
}

/// What lies in every storage that operations write after a run. A tensor with gaps shows only its places.
fn last(
    recording: &Recording,
    operations: &[Operation],
    after: &HashMap<Tensor, Vec<f64>>,
) -> HashMap<usize, Vec<f64>> {
    let sizes: Vec<usize> = recording.storages().map(|storage| storage.elements).collect();
    let mut finals: HashMap<usize, Vec<f64>> = HashMap::new();
    for &tensor in operations.iter().flat_map(|operation| &operation.outputs) {
        let (storage, offset) = recording.place(tensor);
        let (rows, cols, row) = recording.layout(tensor);
        let values = finals.entry(storage).or_insert_with(|| vec![f64::NAN; sizes[storage]]);
        for (i, value) in after[&tensor].iter().enumerate().take(rows * cols) {
            values[offset + i / cols * row + i % cols] = *value;
        }
    }
    finals
}

/// The operation that writes each element of each storage last.
fn writers(recording: &Recording, operations: &[Operation]) -> Result<Vec<Vec<Option<usize>>>> {
    let mut writers: Vec<Vec<Option<usize>>> =
        recording.storages().map(|storage| vec![None; storage.elements]).collect();
    for (at, operation) in operations.iter().enumerate() {
        let operands = operation.op.operands()?;
        for (&tensor, operand) in operation.outputs.iter().zip(&operands.outputs) {
            let (storage, offset) = recording.place(tensor);
            for place in Trial::places(&operation.op, operand) {
                writers[storage][offset + place] = Some(at);
            }
        }
    }
    Ok(writers)
}
