//! The shape rules on arbitrary sizes and strides: never a panic, and no element outside its span.

use candlewick_core::op::{Batch, Format, Operand};
use candlewick_core::{DType, Error, Layout, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};
use proptest::collection::vec;
use proptest::prelude::*;

/// Small, at the edges of overflow, or anything.
fn size() -> impl Strategy<Value = usize> {
    let edges = prop::sample::select(vec![usize::MAX, usize::MAX - 1, usize::MAX / 2, isize::MAX as usize, 1 << 32]);
    prop_oneof![8 => 0..9usize, 1 => edges, 1 => any::<usize>()]
}

/// Sizes and strides of a tensor, any number of dimensions.
fn tensor() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    (0..6usize).prop_flat_map(|rank| (vec(size(), rank), vec(size(), rank)))
}

/// Two tensors that often fit each other: contiguous, permuted or broadcast.
fn fitting() -> impl Strategy<Value = [(Vec<usize>, Vec<usize>); 2]> {
    let batch = vec((1..4usize, any::<[bool; 2]>()), 0..4);
    let matrix = (0..5usize, 0..5usize, 0..5usize, any::<[bool; 2]>(), 0..3usize);
    (batch, matrix).prop_map(|(batch, (m, n, k, transposed, gap))| {
        let strides = |shape: &[usize], transposed: bool| {
            let mut strides = vec![0; shape.len()];
            let mut next = 1;
            let mut order: Vec<usize> = (0..shape.len()).rev().collect();
            if transposed {
                order.swap(0, 1);
            }
            for (nth, i) in order.into_iter().enumerate() {
                strides[i] = next;
                next = next * shape[i].max(1) + if nth == 0 { gap } else { 0 };
            }
            strides
        };
        [(0, m, k), (1, k, n)].map(|(side, rows, cols)| {
            let shape: Vec<usize> =
                batch.iter().map(|(size, one)| if one[side] { 1 } else { *size }).chain([rows, cols]).collect();
            let strides = strides(&shape, transposed[side]);
            (shape, strides)
        })
    })
}

/// Elements from the first to the last, from sizes and strides alone.
fn span(layout: Layout<'_>) -> u128 {
    if layout.shape.contains(&0) {
        return 0;
    }
    let last = |(&size, &stride): (&usize, &usize)| (size as u128 - 1) * stride as u128;
    layout.shape.iter().zip(layout.strides).map(last).sum::<u128>() + 1
}

/// The offset after the last element that each operand of a product touches, batch by batch.
fn ends(op: &MatMul) -> [usize; 3] {
    let matrix = |rows: usize, row: usize, cols: usize| {
        if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row + cols }
    };
    let a = if op.trans_a { matrix(op.k, op.lda, op.m) } else { matrix(op.m, op.lda, op.k) };
    let b = if op.trans_b { matrix(op.n, op.ldb, op.k) } else { matrix(op.k, op.ldb, op.n) };
    let c = matrix(op.m, op.ldc, op.n);
    let mut ends = [0; 3];
    for index in 0..op.batch.count() {
        let (a0, b0, c0) = op.batch.offsets(index);
        for (end, (offset, matrix)) in ends.iter_mut().zip([(a0, a), (b0, b), (c0, c)]) {
            *end = (*end).max(if matrix == 0 { 0 } else { offset + matrix });
        }
    }
    ends
}

fn spans(operands: &[Operand]) -> Vec<usize> {
    operands.iter().map(|operand| operand.span).collect()
}

/// Errors of the caller's shapes name the operation and print.
fn is_typed(error: &Error) -> bool {
    let named = matches!(
        error,
        Error::ShapeMismatch { .. }
            | Error::Shape { .. }
            | Error::Strides { .. }
            | Error::Descriptor { .. }
            | Error::TooLarge { .. }
    );
    named && !error.to_string().is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_product_of_any_two_tensors_is_a_descriptor_or_a_typed_error(a in tensor(), b in tensor()) {
        match MatMul::of(Layout::new(&a.0, &a.1), Layout::new(&b.0, &b.1), DType::F32) {
            Ok((op, _)) => {
                for op in [op, op.grad_a().op, op.grad_b().op] {
                    let op = Op::from(op);
                    if let Err(error) = op.operands() {
                        prop_assert!(is_typed(&error), "{error:?}");
                    }
                    let _ = (op.flops(), op.bytes(), op.error_bound(), op.to_string());
                }
            }
            Err(error) => {
                prop_assert!(is_typed(&error), "{error:?}");
                let text = error.to_string();
                prop_assert!(text.starts_with("matmul: "), "{text}");
                if let Error::ShapeMismatch { .. } = error {
                    let named = |shape: &[usize]| text.contains(&format!("{shape:?}"));
                    prop_assert!(named(&a.0) && named(&b.0), "{text}");
                }
            }
        }
    }

    #[test]
    fn a_product_of_fitting_tensors_stays_within_them([a, b] in fitting()) {
        let (a, b) = (Layout::new(&a.0, &a.1), Layout::new(&b.0, &b.1));
        match MatMul::of(a, b, DType::F32) {
            Ok((op, shape)) => {
                let operands = Op::from(op).operands().map_err(|error| TestCaseError::fail(error.to_string()))?;
                let [end_a, end_b, end_c] = ends(&op);
                prop_assert_eq!(spans(&operands.inputs), [end_a, end_b]);
                prop_assert_eq!(spans(&operands.outputs), [end_c]);
                // Never beyond the tensors that it was made from, and the whole of a contiguous C.
                if !shape.contains(&0) && op.k > 0 {
                    prop_assert!(end_a as u128 <= span(a) && end_b as u128 <= span(b));
                }
                prop_assert_eq!(end_c, shape.iter().product::<usize>());
                prop_assert_eq!(op.m * op.n * op.batch.count(), shape.iter().product::<usize>());
                prop_assert_eq!(*shape.last().unwrap(), op.n);
            }
            // More batch dimensions than a descriptor has, that do not join.
            Err(error) => prop_assert!(matches!(error, Error::Strides { .. }), "{error}"),
        }
    }

    #[test]
    fn gradients_of_a_product_read_what_it_wrote_and_write_what_it_read([a, b] in fitting()) {
        use candlewick_core::op::MatMulOperand::{A, B, GradC};
        let Ok((op, shape)) = MatMul::of(Layout::new(&a.0, &a.1), Layout::new(&b.0, &b.1), DType::F32) else {
            return Ok(());
        };
        if shape.contains(&0) || op.k == 0 {
            return Ok(());
        }
        let [end_a, end_b, end_c] = ends(&op);
        for (gradient, written) in [(op.grad_a(), end_a), (op.grad_b(), end_b)] {
            let operands = Op::from(gradient.op).operands();
            let operands = operands.map_err(|error| TestCaseError::fail(format!("{op:?}: {error}")))?;
            let end = |operand| match operand {
                A => end_a,
                B => end_b,
                GradC => end_c,
            };
            prop_assert_eq!(spans(&operands.inputs), [end(gradient.a), end(gradient.b)]);
            prop_assert_eq!(spans(&operands.outputs), [written]);
            prop_assert_eq!(Op::from(gradient.op).flops(), Op::from(op).flops());
        }
    }

    #[test]
    fn any_descriptor_has_operands_or_a_typed_error(
        sizes in [size(), size(), size(), size()],
        strides in [size(), size(), size()],
        batch in [[size(), size(), size()], [size(), size(), size()], [size(), size(), size()], [size(), size(), size()]],
        flags in any::<[bool; 3]>(),
        scalar in any::<f32>(),
    ) {
        let [m, n, k, rank] = sizes;
        let [x_row, y_row, queries] = strides;
        let dtype = DType::BF16;
        let packed = if flags[2] { Format::Packed } else { Format::Plain };
        let product = MatMul {
            batch: Batch { dims: batch[0], a: batch[1], b: batch[2], c: batch[3] },
            trans_a: flags[0],
            trans_b: flags[1],
            lda: x_row,
            ldb: y_row,
            ldc: queries,
            b_format: packed,
            ..MatMul::new(m, n, k, dtype).scaled(scalar, scalar)
        };
        let softmax = Softmax { x_row, y_row, ..Softmax::new(m, n, dtype).scaled(scalar) };
        let masked = softmax.causal(queries);
        let norm = RmsNorm { x_row, y_row, ..RmsNorm::new(m, n, scalar, dtype) };
        let linear = LoraLinear { x_row, y_row, w_format: packed, ..LoraLinear::new(m, n, k, rank, scalar, dtype) };
        let delta = LoraDelta { x_row, y_row, accumulate: flags[0], ..LoraDelta::new(m, n, k, rank, scalar, dtype) };
        for op in [
            Op::MatMul(product),
            Op::MatMul(product.grad_a().op),
            Op::MatMul(product.grad_b().op),
            Op::Softmax(softmax),
            Op::Softmax(masked),
            Op::SoftmaxBackward(masked),
            Op::RmsNorm(norm),
            Op::RmsNormBackward(norm),
            Op::LoraLinear(linear),
            Op::LoraLinearBackward(linear),
            Op::LoraDelta(delta),
            Op::LoraDeltaBackward(delta),
        ] {
            match op.operands() {
                Ok(operands) => {
                    for operand in operands.inputs.iter().chain(&operands.outputs) {
                        prop_assert!(operand.span.checked_mul(dtype.bytes()).is_some(), "{op:?}");
                    }
                }
                Err(error) => {
                    prop_assert!(is_typed(&error), "{error:?}");
                    prop_assert!(error.to_string().starts_with(op.name()), "{error}");
                }
            }
            let _ = (op.flops(), op.bytes(), op.error_bound(), op.to_string(), op.packed_factor());
            let _ = candlewick_core::dispatch::Bucket::of(&op);
        }
    }

    #[test]
    fn rows_of_any_layout_lie_within_it((shape, strides) in tensor()) {
        let layout = Layout::new(&shape, &strides);
        if let Some((rows, cols, row)) = layout.rows()
            && rows > 0 && cols > 0
        {
            prop_assert_eq!((rows as u128 - 1) * row as u128 + cols as u128, span(layout));
        }
    }
}
