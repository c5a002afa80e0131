//! The operations that models need, on the emulator: results against the f64 reference, bounds, races, and what each
//! dispatch says it touches; and again with an output on an input, where the operation allows that.
//!
//! `MODELS_SEEDS` sets from how many seeds each case runs.

#[path = "models/sequences.rs"]
mod sequences;
#[path = "models/trial.rs"]
mod trial;
#[path = "models/values.rs"]
mod values;

use candlewick_core::op::{Pairs, Quant};
use candlewick_core::{
    AdamW, Add, Attention, Cast, CopyRows, CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats, DType, Dequantize,
    Dropout, Embedding, LoraRows, Op, QuantLinear, RmsNorm, Rope, Scalar, SiluMul, Softmax, SumSquares,
};
use candlewick_kernels::{Alignment, GpuLimits, programs};
use std::collections::HashMap;
use trial::{Emulator, Trial};
use values::Values;

/// Descriptors with what their spans hold, if they have any.
type Cases = Vec<(Op, Vec<u32>)>;

/// Every case, dtype, alignment and way.
fn check(cases: impl Fn(DType) -> Cases) {
    let seeds = std::env::var("MODELS_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(1u64);
    let (mut failures, mut worst) = (Vec::new(), HashMap::<&str, (usize, f64)>::new());
    for dtype in DType::ALL {
        let mut gpu = Emulator::default();
        for (index, (op, spans)) in cases(dtype).into_iter().enumerate() {
            for (seed, values) in (0..seeds).flat_map(|s| [(s, Values::Ordinary), (s, Values::NonFinite)]) {
                let trial = Trial::new(&op, values, &spans, seed * 1000 + index as u64 + 1);
                for alignment in [Alignment::Sixteen, Alignment::Element] {
                    let programs = programs(&op, &GpuLimits::apple(10), alignment);
                    assert!(!programs.is_empty(), "nothing runs {op:?}");
                    for program in programs {
                        let mut once = |alias| match trial.run(&program, &mut gpu, alias) {
                            Ok(error) => {
                                let way = worst.entry(program.variant).or_default();
                                *way = (way.0 + 1, way.1.max(error / op.error_bound().max(1e-30)));
                            }
                            Err(failure) => failures.push(format!(
                                "{op} {values:?} {alignment:?} {} {alias:?}: {failure}\n  {op:?} {spans:?}",
                                program.variant
                            )),
                        };
                        once(None);
                        let operands = op.operands().expect("cases are legal");
                        for (input, output) in in_place(&op) {
                            if operands.inputs[input].span == operands.outputs[output].span {
                                once(Some((input, output)));
                            }
                        }
                    }
                }
            }
        }
    }
    // Runs of each way, and the largest share of the allowed error.
    println!("{worst:?}");
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures[..failures.len().min(12)].join("\n"));
}

/// Which outputs may lie on which inputs: where the core says so, and where these kernels promise it beyond that.
fn in_place(op: &Op) -> Vec<(usize, usize)> {
    match op {
        Op::Softmax(_) | Op::RmsNorm(_) => vec![(0, 0)],
        Op::SoftmaxBackward(_) => vec![(0, 0), (1, 0)],
        _ => op.in_place().to_vec(),
    }
}

fn plain(ops: impl IntoIterator<Item = Op>) -> Cases {
    ops.into_iter().map(|op| (op, Vec::new())).collect()
}

/// Rows and columns on both sides of shares, teams and groups.
const ROWS: [(usize, usize); 11] =
    [(5, 64), (3, 257), (1, 4096), (2, 2056), (70, 1), (33, 17), (1, 1), (0, 9), (9, 0), (40, 8), (3, 2049)];

#[test]
fn add() {
    check(|dtype| {
        let padded = [
            Add { a_row: 72, b_row: 80, y_row: 64, ..Add::new(5, 64, dtype) },
            Add { a_row: 9, b_row: 9, y_row: 9, ..Add::new(6, 8, dtype) },
        ];
        plain(ROWS.map(|(rows, cols)| Add::new(rows, cols, dtype)).into_iter().chain(padded).map(Op::from))
    });
}

#[test]
fn silu_mul() {
    check(|dtype| {
        let ops = ROWS.map(|(rows, cols)| SiluMul::new(rows, cols, dtype)).into_iter();
        let padded = [
            SiluMul { gate_row: 72, up_row: 72, y_row: 72, ..SiluMul::new(5, 64, dtype) },
            SiluMul { gate_row: 11, up_row: 12, y_row: 13, ..SiluMul::new(6, 8, dtype) },
        ];
        plain(ops.chain(padded).flat_map(|op| [Op::SiluMul(op), Op::SiluMulBackward(op)]))
    });
}

#[test]
fn cast() {
    check(|to| {
        let sizes = [0, 1, 7, 8, 64, 2048, 2049, 5000];
        plain(sizes.into_iter().flat_map(|n| DType::ALL.map(|from| Cast::new(n, from, to).into())))
    });
}

#[test]
fn dropout() {
    check(|dtype| {
        let ops = ROWS.map(|(rows, cols)| Dropout::new(rows, cols, 0.3, 7, dtype)).into_iter();
        let padded = [
            Dropout { x_row: 72, y_row: 80, ..Dropout::new(5, 64, 0.5, u32::MAX, dtype) },
            Dropout { x_row: 11, y_row: 12, ..Dropout::new(6, 9, 0.9, 0, dtype) },
            Dropout { x_row: 72, y_row: 72, ..Dropout::new(5, 64, 0.0, 1, dtype) },
        ];
        plain(ops.chain(padded).map(Op::from))
    });
}

#[test]
fn embedding() {
    check(|dtype| {
        let sizes = [
            (5, 11, 64),
            (3, 4, 257),
            (300, 7, 9),
            (1, 3, 2056),
            (0, 5, 8),
            (4, 0, 8),
            (4, 5, 0),
            (33, 20, 2049),
            (1, 1, 1),
        ];
        plain(sizes.into_iter().flat_map(|(tokens, vocab, width)| {
            let op = Embedding::new(tokens, vocab, width, dtype);
            [Op::Embedding(op), Op::EmbeddingBackward(op)]
        }))
    });
}

#[test]
fn copy_rows() {
    check(|dtype| {
        let sizes = [(5, 64, 9), (3, 257, 3), (40, 9, 20), (1, 2056, 2), (0, 5, 8), (4, 0, 8), (4, 5, 0)];
        let padded = CopyRows { x_row: 72, ..CopyRows::new(6, 64, 6, dtype) };
        plain(
            sizes
                .map(|(rows, width, capacity)| CopyRows::new(rows, width, capacity, dtype))
                .into_iter()
                .chain([padded])
                .map(Op::from),
        )
    });
}

#[test]
fn lora_rows() {
    check(|dtype| {
        let sizes = [
            (5, 64, 40, 8, 2),
            (1, 300, 257, 16, 3),
            (40, 520, 70, 5, 4),
            (300, 8, 16, 4, 1),
            (9, 16, 300, 64, 2),
            (6, 33, 20, 72, 9),
            (7, 2056, 8, 1, 1),
            (0, 8, 8, 4, 2),
            (3, 0, 8, 4, 2),
            (3, 8, 0, 4, 2),
            (3, 8, 8, 0, 2),
            (3, 8, 8, 4, 0),
        ];
        let ops = sizes.map(|(rows, ins, outs, rank, adapters)| LoraRows::new(rows, ins, outs, rank, adapters, dtype));
        let padded = LoraRows { x_row: 72, y_row: 49, ..LoraRows::new(6, 64, 48, 8, 2, dtype) };
        plain(ops.into_iter().chain([padded]).map(Op::from))
    });
}

#[test]
fn rope() {
    check(|dtype| {
        let sizes =
            [(5, 3, 64), (1, 9, 128), (40, 2, 16), (3, 1, 6), (2, 2, 1), (0, 2, 8), (3, 0, 8), (3, 2, 0), (2, 12, 80)];
        let mut ops: Vec<Rope> = sizes
            .into_iter()
            .map(|(rows, heads, head)| Rope { rotary: head / 2 * 2, ..Rope::new(rows, heads, head, dtype) })
            .collect();
        ops.push(Rope { rotary: 16, x_row: 200, y_row: 208, ..Rope::new(5, 3, 64, dtype) });
        ops.push(Rope { rotary: 6, x_row: 33, y_row: 33, ..Rope::new(5, 3, 11, dtype) });
        ops.push(Rope { rotary: 0, ..Rope::new(5, 3, 11, dtype) });
        let turned = ops.clone().into_iter().map(|op| Rope { pairs: Pairs::Interleaved, ..op });
        plain(ops.clone().into_iter().chain(turned).flat_map(|op| [Op::Rope(op), Op::RopeBackward(op)]))
    });
}

#[test]
fn cross_entropy() {
    check(|dtype| {
        let sizes = [(5, 64), (3, 257), (1, 8200), (2, 17000), (33, 7), (0, 9), (4, 0), (1, 1)];
        plain(sizes.into_iter().flat_map(|(rows, cols)| {
            let stats = CrossEntropyStats::new(rows, cols, dtype);
            let grad = CrossEntropyGrad::new(rows, cols, dtype);
            let padded = cols.next_multiple_of(8) + 8;
            [
                stats.into(),
                CrossEntropyStats { logits_row: padded, ..stats }.at(5).into(),
                CrossEntropyLoss::new(rows * 40, cols + 5).into(),
                grad.into(),
                CrossEntropyGrad { first: 3, vocab: cols + 7, logits_row: padded, ..grad }.into(),
            ]
        }))
    });
}

#[test]
fn adamw() {
    check(|dtype| {
        plain([0, 1, 8, 9, 2048, 2500, 70_000, 65_537].into_iter().flat_map(|elements| {
            let (sum, step) = (SumSquares::new(elements, dtype), AdamW::new(elements, dtype));
            let clipped = AdamW { max_norm: Scalar(0.5), beta1: Scalar(0.0), beta2: Scalar(0.95), ..step };
            [sum.into(), sum.accumulate().into(), step.into(), clipped.into()]
        }))
    });
}

#[test]
fn quant() {
    check(|dtype| {
        let sizes = [
            (1, 256, 40),
            (2, 512, 9),
            (4, 1024, 33),
            (9, 256, 5),
            (1, 2816, 3),
            (0, 256, 4),
            (3, 0, 4),
            (3, 256, 0),
            (17, 512, 70),
        ];
        plain(Quant::ALL.into_iter().flat_map(|format| {
            let small = [(1, 32, 3), (5, 96, 33), (8, 160, 130)].into_iter().filter(move |_| format.block() == 32);
            sizes.into_iter().chain(small).flat_map(move |(rows, ins, outs)| {
                let linear = QuantLinear::new(rows, ins, outs, format, dtype);
                let padded = QuantLinear { x_row: ins + 3, y_row: outs + 1, accumulate: true, ..linear };
                let table = Embedding::new(rows, outs, ins, dtype).quantised(format);
                [Op::from(Dequantize::new(outs, ins, format, dtype)), linear.into(), padded.into(), table.into()]
            })
        }))
    });
}

/// Attention with heads of several sizes and groups, over sequences that lie in every way.
fn attentions(dtype: DType) -> Vec<(Attention, Vec<u32>)> {
    let one = |op: Attention| (op, vec![0, op.queries as u32, 0, op.keys as u32]);
    let mut cases: Vec<(Attention, Vec<u32>)> = [
        (1, 40, 2, 2, 16),
        (1, 300, 6, 2, 64),
        (2, 700, 3, 1, 128),
        (40, 40, 2, 1, 32),
        (33, 70, 3, 3, 8),
        (9, 9, 8, 1, 24),
        (5, 3, 2, 2, 5),
        (3, 37, 2, 1, 256),
        (3, 35, 1, 1, 300),
        (70, 70, 10, 1, 7),
        (0, 5, 2, 1, 8),
        (3, 0, 2, 1, 8),
        (3, 5, 2, 1, 0),
        (1, 1, 1, 1, 1),
    ]
    .into_iter()
    .map(|(queries, keys, heads, kv_heads, head)| one(Attention::new(queries, keys, heads, kv_heads, head, dtype)))
    .collect();
    let padded = Attention::new(20, 50, 4, 2, 16, dtype);
    cases.push(one(Attention { causal: false, q_row: 72, k_row: 40, v_row: 48, y_row: 64, ..padded }));
    cases.push(one(Attention { q_row: 65, k_row: 33, v_row: 34, y_row: 67, scale: Scalar(0.5), ..padded }));
    // Packed documents, a query in no span, one in two, more queries than keys.
    let packed = Attention { sequences: 4, ..Attention::new(50, 60, 2, 1, 16, dtype) };
    cases.push((packed, vec![0, 13, 0, 13, 13, 20, 20, 30, 30, 10, 50, 4, 41, u32::MAX, 55, u32::MAX]));
    // A cache with a capacity per sequence.
    let cache = Attention { sequences: 3, ..Attention::new(3, 300, 4, 2, 32, dtype) };
    cases.push((cache, vec![0, 1, 0, 77, 1, 1, 100, 1, 2, 1, 200, 100]));
    let many = Attention { sequences: 70, causal: false, ..Attention::new(70, 140, 1, 1, 8, dtype) };
    cases.push((many, (0..70).flat_map(|i| [69 - i, 1, 2 * i, 2]).collect()));
    cases
}

#[test]
fn attention() {
    check(|dtype| attentions(dtype).into_iter().map(|(op, spans)| (op.into(), spans)).collect());
}

#[test]
fn attention_backward() {
    check(|dtype| attentions(dtype).into_iter().map(|(op, spans)| (Op::AttentionBackward(op), spans)).collect());
}

#[test]
fn rows_in_place() {
    check(|dtype| {
        let sizes = [(5, 64), (3, 257), (2, 2048), (1, 20_480), (2, 17_001)];
        plain(sizes.into_iter().flat_map(|(rows, cols)| {
            let softmax = Softmax::new(rows, cols, dtype);
            [softmax.into(), Op::SoftmaxBackward(softmax), RmsNorm::new(rows, cols, 1e-5, dtype).into()]
        }))
    });
}
