//! Deliberately wrong results: a verifier that lets one of them pass verifies nothing.

use super::*;
use crate::case::{Hardware, Values};
use candlewick::op::{Attention, CrossEntropyLoss, OpClass};
use candlewick::{DType, MatMul};
use half::bf16;

const REFERENCE: Engine = Engine::new("cpu", "reference");

/// A strided product, run by the reference engine, whose result is right until a test changes it.
fn trial(dtype: DType, values: Values, beta: f32) -> (Trial, Memory) {
    let mut op = MatMul::new(5, 7, 9, dtype).scaled(1.0, beta);
    op.ldc = 11;
    let mut case = Case::new(1, OpClass::MatMul, dtype, 0, Hardware::Cpu);
    (case.op, case.values, case.storage) = (op.into(), values, Storage::Slices);
    let trial = Trial::new(&case).unwrap();
    let device = Device::cpu_with_threads(1);
    let run = trial.run(&device, &mut device.stream().unwrap(), REFERENCE).unwrap();
    assert!(trial.judge(&run.memory).unwrap().share() <= 1.0, "the result is right to begin with");
    (trial, run.memory)
}

fn changed(dtype: DType, change: impl FnOnce(&Trial, &mut Memory)) -> Fault {
    let (trial, mut memory) = trial(dtype, Values::Ordinary, 0.0);
    change(&trial, &mut memory);
    trial.judge(&memory).unwrap_err()
}

#[test]
fn one_wrong_element_is_found() {
    let wrong = |trial: &Trial, memory: &mut Memory| memory[0][trial.outputs[0].start + 2 * 11 + 3] += 1e-4;
    assert!(matches!(changed(DType::F32, wrong), Fault::Error { output: "c", at: 25, .. }));
    let wrong = |trial: &Trial, memory: &mut Memory| {
        let element = &mut memory[0][trial.outputs[0].start + 3];
        *element = DType::BF16.round(*element + 0.1);
    };
    assert!(matches!(changed(DType::BF16, wrong), Fault::Error { output: "c", at: 3, .. }));
}

#[test]
fn an_element_that_was_not_written_is_found() {
    let unwritten = |trial: &Trial, memory: &mut Memory| {
        let last = trial.outputs[0].start + trial.outputs[0].span - 1;
        memory[0][last] = trial.outputs[0].memory[last];
    };
    assert!(matches!(changed(DType::F32, unwritten), Fault::Class { at: 50, found, .. } if found.is_nan()));
}

#[test]
fn an_element_that_was_not_written_is_found_where_nan_is_right() {
    let (trial, mut memory) = trial(DType::F32, Values::NonFinite, 0.0);
    let nan = trial.expected[0].iter().position(|x| x.is_nan());
    let at = nan.expect("this seed puts a NaN or an infinity into the inputs");
    let start = trial.outputs[0].start;
    memory[0][start + at] = trial.outputs[0].memory[start + at];
    assert!(matches!(trial.judge(&memory), Err(Fault::Class { found, .. }) if found.is_finite()));
}

#[test]
fn a_touched_gap_is_found_before_between_and_after_the_rows() {
    for at in [-1isize, 7, 10, 51] {
        let touched = |trial: &Trial, memory: &mut Memory| {
            memory[0][(trial.outputs[0].start as isize + at) as usize] = 0.0;
        };
        assert_eq!(changed(DType::F32, touched), Fault::Outside { output: "c", at, found: 0.0 });
    }
}

#[test]
fn a_leaked_nan_and_a_wrong_infinity_are_found() {
    for leaked in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let leak = |trial: &Trial, memory: &mut Memory| memory[0][trial.outputs[0].start] = leaked;
        assert!(matches!(changed(DType::F32, leak), Fault::Class { output: "c", at: 0, .. }));
    }
}

#[test]
fn a_dropped_old_value_is_found_where_the_operation_adds() {
    let (adding, _) = trial(DType::F32, Values::Ordinary, 1.0);
    let (mut writing, memory) = trial(DType::F32, Values::Ordinary, 0.0);
    writing.expected = adding.expected;
    assert!(matches!(writing.judge(&memory), Err(Fault::Error { .. })));
}

#[test]
fn an_infinity_is_allowed_where_rounding_to_f16_overflows_and_nowhere_else() {
    let (mut trial, mut memory) = trial(DType::F16, Values::Ordinary, 0.0);
    let start = trial.outputs[0].start;
    trial.expected[0][0] = 65_519.9;
    memory[0][start] = f64::INFINITY;
    assert!(trial.judge(&memory).is_ok(), "65519.9 is within the bound of 65520, which rounds to infinity");
    trial.expected[0][0] = 60_000.0;
    assert!(matches!(trial.judge(&memory), Err(Fault::Class { .. })));
}

#[test]
fn another_rounding_is_found_where_only_one_will_do() {
    let case = Case {
        op: MatMul::new(4, 4, 1, DType::BF16).into(),
        ..Case::new(1, OpClass::MatMul, DType::BF16, 0, Hardware::Cpu)
    };
    let trial = Trial::new(&case).unwrap();
    let device = Device::cpu_with_threads(1);
    let mut memory = trial.run(&device, &mut device.stream().unwrap(), REFERENCE).unwrap().memory;
    trial.judge_exactly(&memory).unwrap();
    let element = &mut memory[0][trial.outputs[0].start + 5];
    *element = bf16::from_bits(bf16::from_f64(*element).to_bits() + 1).into();
    trial.judge(&memory).unwrap();
    assert!(matches!(trial.judge_exactly(&memory), Err(Fault::Rounding { output: "c", at: 5, .. })));
}

/// Runs ordinary values on the reference engine.
fn right(op: Op) -> (Trial, Memory) {
    let case = Case { op, ..Case::new(1, op.class(), op.dtype(), 0, Hardware::Cpu) };
    let trial = Trial::new(&case).unwrap();
    let device = Device::cpu_with_threads(1);
    let memory = trial.run(&device, &mut device.stream().unwrap(), REFERENCE).unwrap().memory;
    trial.judge(&memory).unwrap();
    (trial, memory)
}

#[test]
fn a_wrong_mean_is_found_beside_a_large_count() {
    let (trial, mut memory) = right(CrossEntropyLoss::new(4096, 100).into());
    memory[0][trial.outputs[0].start] += 0.01;
    assert!(matches!(trial.judge(&memory), Err(Fault::Error { output: "loss", at: 0, .. })));
}

#[test]
fn an_output_in_f32_is_judged_as_f32_beside_bf16() {
    let (trial, mut memory) = right(Attention::new(3, 5, 2, 1, 8, DType::BF16).into());
    memory[1][trial.outputs[1].start] *= 1.001;
    assert!(matches!(trial.judge(&memory), Err(Fault::Error { output: "lse", at: 0, .. })));
}
