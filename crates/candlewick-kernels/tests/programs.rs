//! What holds for every program, whatever runs it.

use candlewick_core::op::{Format, OpClass, Quant};
use candlewick_core::{
    AdamW, Add, Attention, Cast, CopyRows, CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats, DType, Dequantize,
    Dropout, Embedding, LoraDelta, LoraLinear, LoraRows, MatMul, Op, QuantLinear, RmsNorm, Rope, SiluMul, Softmax,
    SumSquares,
};
use candlewick_kernels::{Access, Alignment, GpuLimits, Place, Program, pack, packing, program, programs, variant};

/// Operations of every class, with sizes on both sides of every choice.
fn ops(dtype: DType) -> Vec<Op> {
    let mut ops = Vec::new();
    for rows in [1, 3, 500] {
        for cols in [1, 64, 257, 4096, 8193, 100_000] {
            let (softmax, norm) = (Softmax::new(rows, cols, dtype), RmsNorm::new(rows, cols, 1e-5, dtype));
            let padded = Softmax { x_row: cols + 3, ..softmax };
            ops.extend([Op::from(softmax), padded.into(), Op::SoftmaxBackward(softmax)]);
            ops.extend([Op::from(norm), Op::RmsNormBackward(norm)]);
        }
    }
    for (m, n, k) in [(1, 4096, 4096), (4096, 1, 256), (7, 65, 300), (64, 64, 64), (512, 512, 2048), (3, 5, 0)] {
        let product = MatMul::new(m, n, k, dtype);
        let mut summed = product.batched(6);
        summed.batch.c[2] = 0;
        ops.extend(
            [product, product.trans_a(), product.trans_b(), product.packed_b(), product.batched(6)].map(Op::from),
        );
        ops.extend([Op::from(summed), product.scaled(0.5, 2.0).into()]);
    }
    for (rows, ins, outs, rank) in [(1, 4096, 4096, 16), (8, 512, 300, 8), (300, 129, 512, 33), (64, 64, 64, 0)] {
        let linear = LoraLinear::new(rows, ins, outs, rank, 2.0, dtype);
        let delta = LoraDelta::new(rows, ins, outs, rank, 2.0, dtype);
        ops.extend([Op::from(linear), linear.with_bias().packed().into(), Op::LoraLinearBackward(linear)]);
        ops.extend([Op::from(delta), delta.accumulate().into(), Op::LoraDeltaBackward(delta)]);
        ops.extend([0, 1, 16].map(|adapters| Op::from(LoraRows::new(rows, ins, outs, rank, adapters, dtype))));
    }
    ops.extend(of_models(dtype));
    ops
}

/// The operations that models need.
fn of_models(dtype: DType) -> Vec<Op> {
    let mut ops = Vec::new();
    for (rows, cols) in [(1, 64), (3, 257), (500, 4096), (2, 100_000), (7, 0), (0, 8)] {
        let (add, silu) = (Add::new(rows, cols, dtype), SiluMul::new(rows, cols, dtype));
        ops.extend([Op::from(add), Add { a_row: cols + 3, ..add }.into(), silu.into(), Op::SiluMulBackward(silu)]);
        let dropout = Dropout::new(rows, cols, 0.1, 3, dtype);
        ops.extend([Op::from(dropout), Dropout { x_row: cols + 3, ..dropout }.into()]);
        let embedding = Embedding::new(rows, 1000, cols, dtype);
        ops.extend([Op::from(embedding), Op::EmbeddingBackward(embedding), CopyRows::new(rows, cols, 9, dtype).into()]);
        let stats = CrossEntropyStats::new(rows, cols, dtype);
        ops.extend([Op::from(stats), stats.at(5).into(), CrossEntropyGrad::new(rows, cols, dtype).into()]);
        ops.extend([Op::from(SumSquares::new(rows * cols, dtype)), AdamW::new(rows * cols, dtype).into()]);
        ops.extend(DType::ALL.map(|from| Op::from(Cast::new(rows * cols, from, dtype))));
    }
    if dtype == DType::F32 {
        ops.extend([0, 5, 5000].map(|rows| Op::from(CrossEntropyLoss::new(rows, 1000))));
    }
    for (rows, heads, head) in [(1, 32, 128), (500, 3, 64), (3, 1, 6)] {
        let rope = Rope::new(rows, heads, head, dtype);
        ops.extend([Op::from(rope), Op::RopeBackward(rope)]);
    }
    for (queries, keys, heads, kv_heads, head) in
        [(1, 4096, 32, 8, 128), (512, 512, 9, 3, 64), (4, 9000, 16, 1, 256), (3, 5, 2, 2, 300), (7, 0, 1, 1, 8)]
    {
        let attention = Attention::new(queries, keys, heads, kv_heads, head, dtype);
        ops.extend([Op::from(attention), Op::AttentionBackward(attention)]);
    }
    for format in Quant::ALL {
        for (rows, ins, outs) in [(1, 4096, 4096), (3, 256, 70), (40, 512, 512)] {
            let linear = QuantLinear::new(rows, ins, outs, format, dtype);
            ops.extend([Op::from(linear), Dequantize::new(outs, ins, format, dtype).into()]);
        }
    }
    ops
}

fn every_program(mut check: impl FnMut(&Op, &Program, &GpuLimits)) {
    for dtype in DType::ALL {
        for op in ops(dtype) {
            for limits in [GpuLimits::apple(8), GpuLimits::apple(40), GpuLimits::nvidia(132)] {
                for alignment in [Alignment::Sixteen, Alignment::Element] {
                    let programs = programs(&op, &limits, alignment);
                    assert!(!programs.is_empty(), "nothing runs {op}");
                    programs.iter().for_each(|program| check(&op, program, &limits));
                }
            }
        }
    }
}

#[test]
fn every_class_has_a_program() {
    for class in OpClass::ALL {
        assert!(ops(DType::F32).iter().any(|op| op.class() == class), "{class}");
    }
}

#[test]
fn launches_are_within_what_a_gpu_takes() {
    every_program(|op, program, limits| {
        for dispatch in &program.dispatches {
            assert!(dispatch.groups >= 1 && dispatch.groups <= i32::MAX as u32, "{op} {}", program.variant);
            assert!(dispatch.threads.is_multiple_of(32), "{op}: {}", dispatch.threads);
            assert!((32..=limits.threads_per_group).contains(&dispatch.threads), "{op}: {}", dispatch.threads);
            assert_eq!(dispatch.entry.dtype, op.dtype());
        }
    });
}

/// The bytes of an operand as a program reads it.
fn span(op: &Op, place: Place) -> u64 {
    let operands = op.operands().unwrap();
    let operand = match place {
        Place::Input(i) => &operands.inputs[usize::from(i)],
        Place::Output(i) => &operands.outputs[usize::from(i)],
        Place::Workspace => unreachable!("a workspace is no operand"),
    };
    let elements = match operand.format {
        Format::Plain => operand.span,
        Format::Packed => operand.shape.elements().unwrap(),
    };
    (elements * operand.dtype.bytes()) as u64
}

#[test]
fn bindings_stay_within_their_places() {
    every_program(|op, program, _| {
        for binding in program.dispatches.iter().flat_map(|dispatch| &dispatch.bindings) {
            let memory = binding.memory;
            let end = match memory.place {
                Place::Workspace => program.workspace_bytes,
                place => span(op, place),
            };
            assert!(memory.offset + memory.bytes <= end, "{op} {}: {memory:?} of {end}", program.variant);
            let written = binding.access != Access::Read && memory.bytes > 0;
            assert!(!(written && matches!(memory.place, Place::Input(_))), "{op} writes an input");
        }
    });
}

/// Every output is written whole by some dispatch.
#[test]
fn every_output_is_written() {
    every_program(|op, program, _| {
        for (i, operand) in op.operands().unwrap().outputs.iter().enumerate() {
            let place = Place::Output(i as u8);
            let mut bindings = program.dispatches.iter().flat_map(|dispatch| &dispatch.bindings);
            let whole = bindings.any(|binding| {
                let memory = binding.memory;
                binding.access != Access::Read && memory.place == place && memory.bytes == span(op, place)
            });
            let none = operand.span == 0 || op.keeps_output(i);
            assert!(whole || none, "{op} {}: nothing writes {}", program.variant, operand.name);
        }
    });
}

/// Whoever reads what another dispatch writes says so, and nobody waits for a dispatch that comes later.
#[test]
fn dependencies_are_exactly_those_of_the_bindings() {
    every_program(|op, program, _| {
        for (i, dispatch) in program.dispatches.iter().enumerate() {
            assert_eq!(dispatch.after >> i, 0, "{op}: waits for what comes later");
            for (j, earlier) in program.dispatches[..i].iter().enumerate() {
                let meet = dispatch.bindings.iter().any(|mine| {
                    earlier.bindings.iter().any(|theirs| {
                        let (a, b) = (mine.memory, theirs.memory);
                        a.place == b.place
                            && a.offset.max(b.offset) < (a.offset + a.bytes).min(b.offset + b.bytes)
                            && (mine.access != Access::Read || theirs.access != Access::Read)
                    })
                });
                assert_eq!(dispatch.after >> j & 1 == 1, meet, "{op} {}: {i} after {j}", program.variant);
            }
        }
    });
}

#[test]
fn variants_have_names_of_their_own() {
    every_program(|op, program, limits| {
        let alignment = if program.alignment == 16 { Alignment::Sixteen } else { Alignment::Element };
        let found = variant(op, limits, alignment, program.variant).expect("it was listed");
        assert_eq!(found.dispatches.len(), program.dispatches.len());
    });
    let limits = GpuLimits::apple(10);
    for op in ops(DType::F32) {
        let mut names: Vec<_> = programs(&op, &limits, Alignment::Sixteen).iter().map(|p| p.variant).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{op}: {names:?}");
    }
}

#[test]
fn only_what_may_be_aligned_asks_for_sixteen_bytes() {
    every_program(|op, program, _| assert!([op.dtype().bytes() as u32, 16].contains(&program.alignment), "{op}"));
    let limits = GpuLimits::apple(10);
    let alignment = |op: Op, alignment| program(&op, &limits, alignment).unwrap().alignment;
    let rows = Softmax::new(4, 1024, DType::F16);
    assert_eq!(alignment(rows.into(), Alignment::Sixteen), 16);
    assert_eq!(alignment(rows.into(), Alignment::Element), 2);
    assert_eq!(alignment(Softmax { x_row: 1025, ..rows }.into(), Alignment::Sixteen), 2, "rows at odd places");
}

#[test]
fn few_rows_do_not_go_through_tiles() {
    let limits = GpuLimits::nvidia(132);
    let best = |op: Op| program(&op, &limits, Alignment::Sixteen).unwrap().variant;
    assert_eq!(best(MatMul::new(1, 4096, 4096, DType::BF16).trans_b().into()), "dots");
    assert_eq!(best(MatMul::new(1, 4096, 4096, DType::BF16).into()), "columns");
    assert_eq!(best(MatMul::new(512, 512, 512, DType::BF16).into()), "tiled");
    assert_eq!(best(Attention::new(1, 4096, 32, 8, 128, DType::BF16).into()), "decode");
    assert_eq!(best(Attention::new(512, 512, 32, 8, 128, DType::BF16).into()), "tiled");
    assert_eq!(best(LoraLinear::new(1, 4096, 4096, 16, 1.0, DType::BF16).into()), "one_launch");
}

#[test]
fn a_packed_operand_keeps_its_order_and_loses_its_gaps() {
    let op = Op::from(MatMul { ldb: 72, ..MatMul::new(4, 64, 32, DType::F16).packed_b() });
    let packing = packing(&op).unwrap();
    assert_eq!((packing.k, packing.n, packing.panel), (32, 64, 64));
    let program = pack(&op).unwrap();
    assert_eq!(program.dispatches[0].bindings[1].memory.bytes, 2 * 32 * 64);
    assert!(pack(&MatMul::new(4, 64, 32, DType::F16).into()).is_none());
}

#[test]
fn sizes_beyond_what_kernels_count_are_refused() {
    let limits = GpuLimits::apple(10);
    let op = Op::from(Softmax::new(1, 1 << 31, DType::F16));
    assert!(program(&op, &limits, Alignment::Sixteen).is_none());
}
