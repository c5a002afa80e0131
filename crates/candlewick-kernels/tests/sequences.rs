//! Steps of a tape that run as one.

use candlewick_core::tape::{Place, Step};
use candlewick_core::{CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats, DType, Op};
use candlewick_kernels::{GpuLimits, sequence};

/// A tensor starts at a multiple of so many bytes.
const APART: usize = 1 << 30;

fn step(op: Op, inputs: &[usize], outputs: &[usize]) -> Step<Op> {
    let operands = op.operands().unwrap();
    let place = |(&tensor, operand): (&usize, &candlewick_core::op::Operand)| Place {
        memory: 0,
        offset: tensor * APART,
        elements: operand.span,
        dtype: operand.dtype,
        packing: None,
    };
    let inputs = inputs.iter().zip(&operands.inputs).map(place).collect();
    let outputs = outputs.iter().zip(&operands.outputs).map(place).collect();
    Step::new(op, inputs, outputs)
}

/// Logits, labels, stats, the loss, dloss, and where the gradient goes.
fn loss_and_gradient(rows: usize, vocab: usize, chunk: usize, to: usize) -> [Step<Op>; 3] {
    let stats = CrossEntropyStats::new(rows, chunk, DType::BF16);
    let grad = CrossEntropyGrad { cols: chunk, logits_row: chunk, ..CrossEntropyGrad::new(rows, vocab, DType::BF16) };
    [
        step(stats.into(), &[0, 1], &[2]),
        step(CrossEntropyLoss::new(rows, vocab).into(), &[2, 1], &[3]),
        step(grad.into(), &[0, 1, 2, 3, 4], &[to]),
    ]
}

#[test]
fn a_loss_goes_with_its_gradient_where_the_vocabulary_is_one_chunk() {
    let limits = GpuLimits::nvidia(132);
    let found = |steps: &[Step<Op>]| sequence(steps, 0, |op| *op, &limits);
    for to in [0, 5] {
        let sequence = found(&loss_and_gradient(4096, 49152, 49152, to)).expect("a sequence");
        let entries: Vec<&str> = sequence.program.dispatches.iter().map(|dispatch| dispatch.entry.name).collect();
        assert_eq!(entries, ["cross_entropy_count_bf16", "cross_entropy_both_bf16_wide", "cross_entropy_loss_bf16"]);
        assert_eq!(sequence.steps, 3);
        // The gradient needs the count, the loss every row's stats.
        let after: Vec<u16> = sequence.program.dispatches.iter().map(|dispatch| dispatch.after).collect();
        assert_eq!(after, [0, 0b1, 0b11]);
    }
    let narrow = found(&loss_and_gradient(4096, 50_257, 50_257, 0)).expect("a sequence");
    assert_eq!(narrow.program.dispatches[1].entry.name, "cross_entropy_both_bf16");
    // A chunk of it; fewer rows than cores; a gradient on what is read still.
    for (rows, chunk, to) in [(4096, 24576, 0), (64, 49152, 0), (4096, 49152, 1)] {
        assert!(found(&loss_and_gradient(rows, 49152, chunk, to)).is_none(), "{rows} rows, {chunk} columns, to {to}");
    }
    // Other labels.
    let mut steps = loss_and_gradient(4096, 49152, 49152, 0);
    steps[2].inputs[1].offset = 6 * APART;
    assert!(found(&steps).is_none());
}
