//! Steps of a tape that run as one launch: against the f64 reference of one operation after the other.

use crate::trial::{Emulator, same_class, tensor};
use crate::values::{Rng, round};
use candlewick_core::op::Pairs;
use candlewick_core::tape::{Place, Step};
use candlewick_core::{Add, Attention, CopyRows, DType, LoraLinear, Op, RmsNorm, Rope, SiluMul, reference};
use candlewick_kernels::{GpuLimits, Place as Of, Sequence, sequence};

/// Tensors, each a memory of its own, and steps over them.
struct Tape {
    rng: Rng,
    tensors: Vec<(DType, Vec<f64>)>,
    steps: Vec<Step<Op>>,
}

impl Tape {
    fn new(seed: u64) -> Self {
        Tape { rng: Rng::new(seed), tensors: Vec::new(), steps: Vec::new() }
    }

    fn tensor(&mut self, dtype: DType, values: Vec<f64>) -> usize {
        self.tensors.push((dtype, values));
        self.tensors.len() - 1
    }

    fn random(&mut self, dtype: DType, elements: usize) -> usize {
        let values = (0..elements).map(|_| round(self.rng.unit(), dtype)).collect();
        self.tensor(dtype, values)
    }

    /// A step; operands are tensors and the elements of them that are left out.
    fn step(&mut self, op: impl Into<Op>, inputs: &[(usize, usize)], outputs: &[(usize, usize)], until: usize) {
        let op = op.into();
        let operands = op.operands().expect("legal");
        let place = |(&(memory, first), operand): (&(usize, usize), &candlewick_core::op::Operand)| Place {
            memory,
            offset: first * operand.dtype.bytes(),
            elements: operand.span,
            dtype: operand.dtype,
            packing: None,
        };
        self.steps.push(Step {
            kernel: op,
            inputs: inputs.iter().zip(&operands.inputs).map(place).collect(),
            outputs: outputs.iter().zip(&operands.outputs).map(place).collect(),
            until: vec![until; outputs.len()],
        });
    }

    /// Whether something is written to a tensor that is read.
    fn on_it(&self) -> bool {
        let last = &self.steps[self.steps.len() - 1];
        last.inputs.iter().any(|input| last.outputs.contains(input))
    }

    /// Every tensor after all steps, one operation after the other, in f64.
    fn expected(&self) -> Vec<Vec<f64>> {
        let mut tensors: Vec<Vec<f64>> = self.tensors.iter().map(|(_, values)| values.clone()).collect();
        for step in &self.steps {
            let range = |place: &Place| {
                let first = place.offset / place.dtype.bytes();
                first..first + place.elements
            };
            let inputs: Vec<Vec<f64>> =
                step.inputs.iter().map(|place| tensors[place.memory][range(place)].to_vec()).collect();
            let mut outputs: Vec<Vec<f64>> =
                step.outputs.iter().map(|place| tensors[place.memory][range(place)].to_vec()).collect();
            let read: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
            let mut written: Vec<&mut [f64]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
            reference::run(&step.kernel, &read, &mut written).expect("legal");
            for (place, values) in step.outputs.iter().zip(outputs) {
                tensors[place.memory][range(place)].copy_from_slice(&values);
            }
        }
        tensors
    }

    /// Runs the sequence that all steps are, and compares what it leaves; `passing` are not written.
    fn check(&mut self, gpu: &mut Emulator, passing: &[usize]) {
        let limits = GpuLimits::apple(10);
        let of = |op: &Op| *op;
        let Sequence { steps, program, inputs, outputs } = sequence(&self.steps, 0, of, &limits).expect("one launch");
        assert_eq!(steps, self.steps.len());
        let expected = self.expected();
        let mut memory: Vec<_> =
            self.tensors.iter().map(|(dtype, values)| tensor(values, *dtype, program.alignment as usize)).collect();
        // NaN in every format: nothing may rely on what the workspace held.
        let mut workspace = vec![u128::MAX; (program.workspace_bytes as usize).div_ceil(16)];
        let mut unused = [0u128; 4];
        for dispatch in &program.dispatches {
            let address = |binding: &candlewick_kernels::Binding| {
                let of_step = match binding.memory.place {
                    Of::Input(i) => inputs[usize::from(i)],
                    Of::Output(o) => outputs[usize::from(o)],
                    Of::Workspace => None,
                };
                let base: *mut u8 = match (of_step, binding.memory.place) {
                    (Some(place), _) => memory[place.memory].address().wrapping_add(place.offset),
                    (None, Of::Workspace) => workspace.as_mut_ptr().cast(),
                    _ => {
                        assert_eq!(binding.memory.bytes, 0, "only what is not used has no place");
                        unused.as_mut_ptr().cast()
                    }
                };
                base.wrapping_add(binding.memory.offset as usize)
            };
            let addresses: Vec<*mut u8> = dispatch.bindings.iter().map(address).collect();
            gpu.dispatch(dispatch, &addresses, 1, self.on_it()).expect("no fault");
        }
        for (i, ((dtype, _), expected)) in self.tensors.iter().zip(&expected).enumerate() {
            if passing.contains(&i) {
                continue;
            }
            let found = memory[i].decoded(*dtype);
            let most = expected.iter().filter(|x| x.is_finite()).fold(1e-3f64, |most, x| most.max(x.abs()));
            // What passes between the operations is not rounded, so there is less error than in their bounds.
            let bound = most * if *dtype == DType::F32 { 1e-5 } else { 2.0 * dtype.unit_roundoff() };
            for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                let near =
                    same_class(*found, *expected) && (!expected.is_finite() || (found - expected).abs() <= bound);
                assert!(near, "tensor {i}, {dtype}, [{at}] is {found:e}, not {expected:e} within {bound:e}");
            }
        }
    }
}

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

#[test]
fn a_norm_and_its_layer() {
    for dtype in DTYPES {
        let mut gpu = Emulator::default();
        for (rows, ins, outs, bias) in [(1, 576, 96, false), (1, 8, 3, true), (3, 1536, 40, true), (4, 2600, 7, false)]
        {
            let mut tape = Tape::new(7 + rows as u64);
            let (x, weight, normed) =
                (tape.random(dtype, rows * ins), tape.random(dtype, ins), tape.tensor(dtype, vec![0.5; rows * ins]));
            let (w, b, y) =
                (tape.random(dtype, outs * ins), tape.random(dtype, outs), tape.tensor(dtype, vec![0.5; rows * outs]));
            let linear = LoraLinear { bias, ..LoraLinear::new(rows, ins, outs, 0, 1.0, dtype) };
            tape.step(RmsNorm::new(rows, ins, 1e-5, dtype), &[(x, 0), (weight, 0)], &[(normed, 0)], 2);
            let inputs: &[_] = if bias { &[(normed, 0), (w, 0), (b, 0)] } else { &[(normed, 0), (w, 0)] };
            let none = tape.tensor(dtype, Vec::new());
            let inputs: Vec<_> = inputs.iter().copied().chain([(none, 0), (none, 0)]).collect();
            tape.step(linear, &inputs, &[(y, 0)], usize::MAX);
            tape.check(&mut gpu, &[normed]);
        }
    }
}

#[test]
fn silu_and_its_layer_added_to_what_was_there() {
    for dtype in DTYPES {
        let mut gpu = Emulator::default();
        for (rows, ins, outs) in [(1, 1536, 33), (2, 96, 64)] {
            let mut tape = Tape::new(11);
            let (joined, hidden, w) = (
                tape.random(dtype, rows * 2 * ins),
                tape.tensor(dtype, vec![0.5; rows * ins]),
                tape.random(dtype, outs * ins),
            );
            let (y, none) = (tape.random(dtype, rows * outs), tape.tensor(dtype, Vec::new()));
            let silu = SiluMul { gate_row: 2 * ins, up_row: 2 * ins, ..SiluMul::new(rows, ins, dtype) };
            tape.step(silu, &[(joined, 0), (joined, ins)], &[(hidden, 0)], 2);
            let linear = LoraLinear::new(rows, ins, outs, 0, 1.0, dtype).accumulate();
            tape.step(linear, &[(hidden, 0), (w, 0), (none, 0), (none, 0)], &[(y, 0)], usize::MAX);
            tape.check(&mut gpu, &[hidden]);
        }
    }
}

/// q, k and v of a layer: `heads` and `kv_heads` of `head` elements.
fn layer(dtype: DType, rows: usize, [heads, kv_heads, head]: [usize; 3], slots: &[f64]) -> (Tape, [usize; 3]) {
    let (hidden, capacity) = (64, 9);
    let (width, kv_width) = (heads * head, kv_heads * head);
    let outs = width + 2 * kv_width;
    let mut tape = Tape::new(3);
    let (x, weight) = (tape.random(dtype, rows * hidden), tape.random(dtype, hidden));
    let (w, bias) = (tape.random(dtype, outs * hidden), tape.random(dtype, outs));
    let positions = tape.tensor(DType::U32, (0..rows).map(|row| (5 + 1000 * row) as f64).collect());
    let frequencies =
        tape.tensor(DType::F32, (0..head / 2).map(|i| round(0.6f64.powi(i as i32), DType::F32)).collect());
    let slots = tape.tensor(DType::U32, slots.to_vec());
    let (keys, values) = (tape.random(dtype, capacity * kv_width), tape.random(dtype, capacity * kv_width));
    let passing = [rows * hidden, rows * outs, rows * kv_width].map(|n| tape.tensor(dtype, vec![0.5; n]));
    let [normed, joined, turned_k] = passing;
    let (turned_q, none) = (tape.tensor(dtype, vec![0.5; rows * width]), tape.tensor(dtype, Vec::new()));
    tape.step(RmsNorm::new(rows, hidden, 1e-5, dtype), &[(x, 0), (weight, 0)], &[(normed, 0)], 2);
    let linear = LoraLinear::new(rows, hidden, outs, 0, 1.0, dtype).with_bias();
    tape.step(linear, &[(normed, 0), (w, 0), (bias, 0), (none, 0), (none, 0)], &[(joined, 0)], 6);
    let rope = |heads| Rope { x_row: outs, ..Rope::new(rows, heads, head, dtype) };
    let tables = [(positions, 0), (frequencies, 0)];
    tape.step(rope(heads), &[(joined, 0), tables[0], tables[1]], &[(turned_q, 0)], usize::MAX);
    tape.step(rope(kv_heads), &[(joined, width), tables[0], tables[1]], &[(turned_k, 0)], 5);
    let copy = CopyRows::new(rows, kv_width, capacity, dtype);
    tape.step(copy, &[(turned_k, 0), (slots, 0)], &[(keys, 0)], usize::MAX);
    let copy = CopyRows { x_row: outs, ..copy };
    tape.step(copy, &[(joined, width + kv_width), (slots, 0)], &[(values, 0)], usize::MAX);
    (tape, passing)
}

#[test]
fn a_layer_that_is_turned_and_cached() {
    for dtype in DTYPES {
        let mut gpu = Emulator::default();
        for (rows, heads, slots) in
            [(1, [3, 1, 16], &[4.0][..]), (1, [2, 2, 8], &[4294967295.0]), (4, [4, 2, 64], &[0.0, 8.0, 9.0, 3.0])]
        {
            let (mut tape, passing) = layer(dtype, rows, heads, slots);
            tape.check(&mut gpu, &passing);
        }
    }
}

#[test]
fn few_queries_with_spans_read_early() {
    let (mut gpu, dtype) = (Emulator::default(), DType::BF16);
    let spans = vec![0.0, 1.0, 0.0, 77.0, 1.0, 1.0, 100.0, 100.0];
    attention(dtype, Attention { sequences: 2, ..Attention::new(2, 300, 6, 2, 64, dtype) }, spans, None, &mut gpu);
}

#[test]
fn splits_that_the_next_layer_puts_together() {
    for dtype in DTYPES {
        let mut gpu = Emulator::default();
        let cases = [
            // Splits with keys and without, a query that sees nothing, and a long one.
            (Attention::new(1, 2100, 6, 2, 64, dtype), vec![0.0, 1.0, 5.0, 150.0]),
            (Attention::new(1, 1024, 4, 4, 16, dtype), vec![1.0, 1.0, 0.0, 9.0]),
            (
                Attention { sequences: 2, ..Attention::new(2, 1100, 8, 1, 128, dtype) },
                vec![0.0, 1.0, 0.0, 550.0, 1.0, 1.0, 550.0, 3.0],
            ),
        ];
        for (op, spans) in cases {
            attention(dtype, op, spans, Some(40), &mut gpu);
        }
    }
}

/// Attention, and a layer of so many columns behind it.
fn attention(dtype: DType, op: Attention, spans: Vec<f64>, outs: Option<usize>, gpu: &mut Emulator) {
    let (rows, width, kv_width) = (op.queries, op.heads * op.head, op.kv_heads * op.head);
    let mut tape = Tape::new(5);
    let [q, k, v] = [rows * width, op.keys * kv_width, op.keys * kv_width].map(|n| tape.random(dtype, n));
    let spans = tape.tensor(DType::U32, spans);
    let (y, lse) = (tape.tensor(dtype, vec![0.5; rows * width]), tape.tensor(DType::F32, vec![0.5; rows * op.heads]));
    let until = if outs.is_some() { 2 } else { usize::MAX };
    tape.step(op, &[(q, 0), (k, 0), (v, 0), (spans, 0)], &[(y, 0), (lse, 0)], until);
    let Some(outs) = outs else { return tape.check(gpu, &[]) };
    let (w, to, none) =
        (tape.random(dtype, outs * width), tape.random(dtype, rows * outs), tape.tensor(dtype, Vec::new()));
    let linear = LoraLinear::new(rows, width, outs, 0, 1.0, dtype).accumulate();
    tape.step(linear, &[(y, 0), (w, 0), (none, 0), (none, 0)], &[(to, 0)], usize::MAX);
    tape.check(gpu, &[y, lse]);
}

#[test]
fn two_gradients_of_what_is_normalised() {
    for dtype in DTYPES {
        let mut gpu = Emulator::default();
        // Lanes, a group, a group that walks; the sum in a place of its own, or on its other term.
        for (rows, cols, on_it) in [(5, 64, false), (3, 576, true), (2, 16_400, false)] {
            let mut tape = Tape::new(9);
            let [x, dy, other] = [rows * cols; 3].map(|n| tape.random(dtype, n));
            let (weight, dx) = (tape.random(dtype, cols), tape.tensor(dtype, vec![0.5; rows * cols]));
            let sum = if on_it { other } else { tape.tensor(dtype, vec![0.5; rows * cols]) };
            let norm = RmsNorm { frozen: true, ..RmsNorm::new(rows, cols, 1e-5, dtype) };
            tape.step(Op::RmsNormBackward(norm), &[(x, 0), (weight, 0), (dy, 0)], &[(dx, 0)], 2);
            tape.step(Add::new(rows, cols, dtype), &[(other, 0), (dx, 0)], &[(sum, 0)], usize::MAX);
            tape.check(&mut gpu, &[dx]);
        }
    }
}

#[test]
fn q_and_k_turned_side_by_side() {
    for dtype in DTYPES {
        let mut gpu = Emulator::default();
        for (rows, heads, head, backward) in [(7, [3, 1], 16, false), (70, [9, 3], 64, true), (2, [1, 11], 128, false)]
        {
            let mut tape = Tape::new(13);
            let positions = tape.tensor(DType::U32, (0..rows).map(|row| (11 * row) as f64).collect());
            let frequencies =
                tape.tensor(DType::F32, (0..head / 2).map(|i| round(0.7f64.powi(i as i32), DType::F32)).collect());
            for heads in heads {
                let rope = Rope { y_row: heads * head + 8, ..Rope::new(rows, heads, head, dtype) };
                let op = if backward { Op::RopeBackward(rope) } else { rope.into() };
                let operands = op.operands().expect("legal");
                let x = tape.random(dtype, operands.inputs[0].span);
                let y = tape.tensor(dtype, vec![0.5; operands.outputs[0].span]);
                tape.step(op, &[(x, 0), (positions, 0), (frequencies, 0)], &[(y, 0)], usize::MAX);
            }
            tape.check(&mut gpu, &[]);
        }
    }
}

/// What a case changes of the steps, and how many steps are one launch then.
#[test]
fn what_others_read_or_write_stays_apart() {
    type Change = fn(&mut Vec<Step<Op>>);
    let cases: [(&str, Change, Option<usize>); 7] = [
        ("as it is", |_| (), Some(6)),
        ("the norm is read later", |steps| steps[0].until[0] = 9, None),
        ("the layer's y is an output", |steps| steps[1].until[0] = usize::MAX, Some(2)),
        ("the turned k is read by more", |steps| steps[3].until[0] = 8, Some(2)),
        ("the weights lie askew", |steps| steps[1].inputs[1].offset = 2, None),
        ("another slot for v", |steps| steps[5].inputs[1].memory += 1, Some(2)),
        (
            "pairs side by side",
            |steps| {
                let Op::Rope(rope) = &mut steps[2].kernel else { unreachable!() };
                rope.pairs = Pairs::Interleaved;
            },
            Some(2),
        ),
    ];
    for (name, change, expected) in cases {
        let (mut tape, _) = layer(DType::BF16, 1, [3, 1, 16], &[4.0]);
        change(&mut tape.steps);
        let found = sequence(&tape.steps, 0, |op| *op, &GpuLimits::nvidia(132)).map(|sequence| sequence.steps);
        assert_eq!(found, expected, "{name}");
    }
    // The step ahead writes the weights: they cannot be read before it is done.
    let (tape, _) = layer(DType::BF16, 1, [3, 1, 16], &[4.0]);
    let ahead = Step { outputs: vec![tape.steps[1].inputs[1]], ..tape.steps[0].clone() };
    let steps: Vec<_> = [ahead].into_iter().chain(tape.steps.iter().cloned()).collect();
    assert!(sequence(&steps, 1, |op| *op, &GpuLimits::nvidia(132)).is_none());
}
