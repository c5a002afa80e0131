//! A tape against its steps one by one: the same bits, whatever runs at once.

use crate::{Device, Memory, Stream};
use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::tape::{Place, Step};
use candlewick_core::{Add, DType, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};
use proptest::prelude::*;

const F32: DType = DType::F32;
/// f32 of the memory that all steps share.
const SIZE: usize = 1 << 19;

/// An operation, and where its operands begin: in cache lines.
type Case = (Op, Vec<usize>);

/// Places one after the other from `starts` on, moved until no output meets another operand.
fn step(stream: &mut Stream, (op, starts): &Case) -> Step<crate::Kernel> {
    let operands = op.operands().unwrap();
    let mut places: Vec<Place> = Vec::new();
    for (operand, start) in operands.inputs.iter().chain(&operands.outputs).zip(starts.iter().cycle()) {
        let lines = SIZE / 16 - operand.span.div_ceil(16);
        let is_input = places.len() < operands.inputs.len();
        let place = (0..=lines).map(|moved| Place {
            memory: 0,
            offset: (start + moved * 61) % (lines + 1) * 64,
            elements: operand.span,
            dtype: operand.dtype,
            packing: None,
        });
        let mut place = place;
        places.push(place.find(|place| is_input || !places.iter().any(|other| other.meets(place))).unwrap());
    }
    let outputs = places.split_off(operands.inputs.len());
    Step::new(stream.prepare(op, None).unwrap(), places, outputs)
}

fn memory(stream: &mut Stream) -> Memory {
    let memory = stream.memory(SIZE * 4).unwrap();
    let numbers: Vec<f32> = (0..SIZE).map(|i| (i * 7919 % 1009) as f32 / 10090.0 - 0.05).collect();
    stream.store(&memory, 0, &numbers).unwrap();
    memory
}

fn bits(stream: &mut Stream, memory: &Memory) -> Vec<u32> {
    let mut numbers = vec![0f32; SIZE];
    stream.load(memory, 0, &mut numbers).unwrap();
    numbers.into_iter().map(f32::to_bits).collect()
}

/// Records the cases as one tape and as a tape each: whether a few replays leave the same memory.
fn check(cases: &[Case]) -> usize {
    let device = Device::new();
    let (mut together, mut apart) = (device.stream().unwrap(), device.stream().unwrap());
    let (one, other) = (memory(&mut together), memory(&mut apart));
    let steps: Vec<_> = cases.iter().map(|case| step(&mut together, case)).collect();
    let mut tape = together.record(std::slice::from_ref(&one), steps).unwrap();
    let mut record_one = |case| {
        let step = step(&mut apart, case);
        apart.record(std::slice::from_ref(&other), vec![step]).unwrap()
    };
    let mut tapes: Vec<_> = cases.iter().map(&mut record_one).collect();
    for _ in 0..3 {
        together.replay(&mut tape).unwrap();
        tapes.iter_mut().for_each(|tape| apart.replay(tape).unwrap());
        assert!(bits(&mut together, &one) == bits(&mut apart, &other), "{cases:?}");
    }
    tape.waves.iter().filter(|&&count| count > 1).count()
}

/// q, k and v of one x on several threads each, two sums on one, and what needs them all.
#[test]
#[cfg_attr(miri, ignore)]
fn calls_that_do_not_meet_run_together() {
    let width = 320;
    let linear = |starts: [usize; 5]| (LoraLinear::new(1, width, width, 8, 1.0, F32).into(), starts.to_vec());
    let add = |starts: [usize; 3]| (Add::new(64, 512, F32).into(), starts.to_vec());
    let quarter = SIZE / 64;
    let cases = [
        linear([0, quarter, 10, 50, 3 * quarter]),
        linear([0, quarter, 20, 60, 3 * quarter + 40]),
        linear([0, quarter, 30, 70, 3 * quarter + 80]),
        add([3 * quarter, 3 * quarter + 40, 2 * quarter]),
        add([3 * quarter, 3 * quarter + 80, 2 * quarter + quarter / 2]),
    ];
    let waves = check(&cases);
    let cores = Device::new().threads();
    assert!(cores == 1 || waves == 2, "{waves} waves on {cores} threads");
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::from(LoraLinear::new(1, 256, 320, 8, 0.5, F32))),
        Just(LoraDelta::new(64, 64, 256, 8, 0.5, F32).accumulate().into()),
        Just(MatMul::new(64, 128, 128, F32).into()),
        Just(Add::new(64, 512, F32).into()),
        Just(RmsNorm::new(128, 512, 1e-5, F32).into()),
        Just(Softmax::new(1, 64, F32).into()),
        Just(Op::RmsNormBackward(RmsNorm::new(64, 256, 1e-5, F32))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    #[cfg_attr(miri, ignore)]
    fn a_tape_leaves_what_its_steps_leave_one_by_one(
        cases in prop::collection::vec((op(), prop::collection::vec(0..SIZE / 16, 7)), 1..24)
    ) {
        check(&cases);
    }
}
