//! Every backward of the reference against finite differences of its forward.

use candlewick_core::op::{Dequantize, Gradient, MatMulOperand, Quant, QuantLinear, Span};
use candlewick_core::{
    Add, Attention, CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats, DType, Embedding, LoraDelta,
};
use candlewick_core::{LoraLinear, MatMul, Op, Pairs, RmsNorm, Rope, SiluMul, Softmax, reference};

/// Numbers in -1..1, the same for the same seed.
fn random(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// All outputs of `op`, as long as they span, over garbage.
fn run(op: &Op, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let operands = op.operands().unwrap();
    let mut outputs: Vec<Vec<f64>> = operands.outputs.iter().map(|output| vec![0.25; output.span]).collect();
    let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let mut slices: Vec<&mut [f64]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    reference::run(op, &inputs, &mut slices).unwrap();
    outputs
}

/// Random inputs as long as they span.
fn inputs(op: &Op) -> Vec<Vec<f64>> {
    let operands = op.operands().unwrap();
    operands.inputs.iter().enumerate().map(|(i, operand)| random(operand.span, i as u64 + 1)).collect()
}

/// `gradients[j]` is that of `inputs[which[j]]`, where the loss is the product of `loss` of the inputs with dy.
fn compare(name: &str, x: &[Vec<f64>], which: &[usize], gradients: &[Vec<f64>], loss: impl Fn(&[Vec<f64>]) -> f64) {
    let step = 1e-5;
    assert_eq!(which.len(), gradients.len(), "{name}");
    for (&input, gradient) in which.iter().zip(gradients) {
        assert!(gradient.iter().any(|g| g.abs() > 1e-3), "{name}: the gradient of input {input} is zero");
        for i in 0..x[input].len() {
            let mut moved = x.to_vec();
            moved[input][i] += step;
            let above = loss(&moved);
            moved[input][i] -= 2.0 * step;
            let slope = (above - loss(&moved)) / (2.0 * step);
            // Elements between rows belong to nothing and keep their 0.25.
            if slope == 0.0 && gradient[i] == 0.25 {
                continue;
            }
            let off = (slope - gradient[i]).abs();
            assert!(
                off < 1e-7 * (1.0 + slope.abs()),
                "{name}: input {input}, element {i}: {} for {slope}",
                gradient[i]
            );
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The sum of y times dy over the elements of y, not those between its rows.
fn product(op: &Op, x: &[Vec<f64>], dy: &[f64]) -> f64 {
    let y = &run(op, x)[0];
    y.iter().zip(dy).filter(|(y, _)| **y != 0.25).map(|(y, dy)| y * dy).sum()
}

/// A forward with one output whose backward takes (inputs.., dy) and gives the gradients of `which`.
fn check(forward: Op, backward: Op, x: Vec<Vec<f64>>, which: &[usize]) {
    let dy = random(forward.operands().unwrap().outputs[0].span, 77);
    let mut of_backward = x.clone();
    of_backward.push(dy.clone());
    let gradients = run(&backward, &of_backward);
    compare(backward.name(), &x, which, &gradients, |x| product(&forward, x, &dy));
}

#[test]
fn lora() {
    let op = LoraLinear { x_row: 6, y_row: 5, ..LoraLinear::new(3, 5, 4, 2, 1.5, DType::F32) };
    check(op.into(), Op::LoraLinearBackward(op), inputs(&op.into()), &[0, 2, 3]);
    let op = LoraDelta { x_row: 7, y_row: 6, ..LoraDelta::new(3, 5, 4, 2, -0.5, DType::F32) };
    check(op.into(), Op::LoraDeltaBackward(op), inputs(&op.into()), &[0, 1, 2]);
    let op = LoraDelta::new(3, 5, 4, 2, 1.5, DType::F32);
    check(op.into(), Op::LoraDeltaBackward(op), inputs(&op.into()), &[0, 1, 2]);
}

#[test]
fn matmul() {
    let square = MatMul { lda: 9, ldb: 8, ldc: 7, ..MatMul::new(5, 4, 6, DType::F32).scaled(1.5, 0.0) };
    let views = [square, square.trans_a(), square.trans_b(), square.trans_a().trans_b()];
    // One B for all of a batch: its gradient is a sum.
    let mut shared = MatMul::new(3, 2, 4, DType::F32).batched(3);
    shared.batch.b[2] = 0;
    for op in views.into_iter().chain([MatMul::new(3, 2, 4, DType::F32).batched(3), shared]) {
        let forward = Op::from(op);
        let x = inputs(&forward);
        let dy = random(forward.operands().unwrap().outputs[0].span, 77);
        let gradient = |gradient: Gradient| {
            let of = |operand| match operand {
                MatMulOperand::A => x[0].clone(),
                MatMulOperand::B => x[1].clone(),
                MatMulOperand::GradC => dy.clone(),
            };
            run(&gradient.op.into(), &[of(gradient.a), of(gradient.b)]).remove(0)
        };
        let gradients = [gradient(op.grad_a()), gradient(op.grad_b())];
        compare("matmul", &x, &[0, 1], &gradients, |x| product(&forward, x, &dy));
    }
}

/// Backwards that are other operations: a sum passes dy on, a product with blocks becomes one with their numbers. (A cast
/// rounds in the reference too, and has no slope.)
#[test]
fn add_and_quantised_products() {
    let op = Add::new(3, 4, DType::F32);
    let (x, dy) = (inputs(&op.into()), random(12, 77));
    compare("add", &x, &[0, 1], &[dy.clone(), dy.clone()], |x| dot(&run(&op.into(), x)[0], &dy));
    for format in [Quant::Q4_0, Quant::Q8_0] {
        let (rows, width, out) = (3, 64, 5);
        let op = Op::from(QuantLinear::new(rows, width, out, format, DType::F32));
        let mut blocks: Vec<f64> = (0..out * format.row_bytes(width)).map(|i| (i * 37 % 251) as f64).collect();
        // A scale of 2^-6, in f16.
        blocks.chunks_mut(format.bytes()).for_each(|block| block[..2].copy_from_slice(&[0.0, 36.0]));
        let w = run(&Dequantize::new(out, width, format, DType::F32).into(), std::slice::from_ref(&blocks)).remove(0);
        let (x, dy) = (vec![random(rows * width, 1), blocks], random(rows * out, 77));
        let dx = run(&MatMul::new(rows, width, out, DType::F32).into(), &[dy.clone(), w]);
        compare("quant_linear", &x, &[0], &dx, |x| dot(&run(&op, x)[0], &dy));
    }
}

#[test]
fn rms_norm() {
    let op = RmsNorm { x_row: 8, ..RmsNorm::new(3, 7, 1e-3, DType::F32) };
    check(op.into(), Op::RmsNormBackward(op), inputs(&op.into()), &[0, 1]);
}

#[test]
fn softmax() {
    let op = Softmax::new(4, 5, DType::F32).scaled(1.5).causal(4);
    let forward = Op::from(op);
    let x = inputs(&forward);
    let dy = random(20, 77);
    let gradients = run(&Op::SoftmaxBackward(op), &[run(&forward, &x).remove(0), dy.clone()]);
    compare("softmax", &x, &[0], &gradients, |x| dot(&run(&forward, x)[0], &dy));
}

#[test]
fn silu_mul() {
    let op = SiluMul { gate_row: 6, up_row: 7, y_row: 8, ..SiluMul::new(3, 5, DType::F32) };
    let mut x = inputs(&op.into());
    x[0].iter_mut().for_each(|gate| *gate *= 4.0);
    check(op.into(), Op::SiluMulBackward(op), x, &[0, 1]);
}

#[test]
fn embedding() {
    let op = Embedding::new(5, 4, 3, DType::F32);
    let x = vec![vec![2.0, 0.0, 2.0, 3.0, 2.0], random(12, 1)];
    let dy = random(15, 2);
    let gradients = run(&Op::EmbeddingBackward(op), &[x[0].clone(), dy.clone()]);
    assert_eq!(gradients[0][3..6], [0.0; 3], "no token has id 1");
    compare("embedding", &x, &[1], &gradients, |x| dot(&run(&op.into(), x)[0], &dy));
    // An id beyond the vocabulary shows in the forward and is nobody's in the backward.
    let beyond = vec![vec![2.0, 0.0, 4.0, 3.0, f64::from(u32::MAX)], x[1].clone()];
    let y = run(&op.into(), &beyond).remove(0);
    assert!(y[6..9].iter().chain(&y[12..]).all(|y| y.is_nan()) && y[..6].iter().all(|y| y.is_finite()));
    assert!(run(&Op::EmbeddingBackward(op), &[beyond[0].clone(), dy])[0].iter().all(|g| g.is_finite()));
}

#[test]
fn rope() {
    for pairs in [Pairs::Halves, Pairs::Interleaved] {
        let op = Rope { rotary: 6, pairs, x_row: 17, y_row: 19, ..Rope::new(3, 2, 8, DType::F32) };
        let x = vec![random(17 * 2 + 16, 1), vec![0.0, 3.0, 131072.0], vec![1.0, 0.1, 0.01]];
        let dy = random(19 * 2 + 16, 2);
        let gradients = run(&Op::RopeBackward(op), &[dy.clone(), x[1].clone(), x[2].clone()]);
        compare("rope", &x, &[0], &gradients, |x| product(&op.into(), x, &dy));
        let y = &run(&op.into(), &x)[0];
        assert_eq!(y[..16], x[0][..16], "position 0 does not turn");
        let (a, b) = op.pairs.elements(0, op.rotary);
        let (row, sin, cos) = (&x[0][34..], 131072f64.sin(), 131072f64.cos());
        assert!((y[38 + a] - (row[a] * cos - row[b] * sin)).abs() < 1e-12);
        assert_eq!(y[38 + 6..38 + 8], row[6..8], "beyond rotary");
    }
}

#[test]
fn attention() {
    for causal in [false, true] {
        let op = Attention {
            sequences: 3,
            q_row: 13,
            k_row: 7,
            v_row: 8,
            y_row: 14,
            causal,
            ..Attention::new(7, 9, 4, 2, 3, DType::F32)
        };
        // Two documents, the second with more keys than queries and a key in common with the first; query 6 in none.
        let spans = vec![0.0, 2.0, 0.0, 3.0, 2.0, 4.0, 2.0, 6.0, 9.0, 5.0, 0.0, 4.0];
        assert_eq!(op.span([2, 4, 2, 6]), Span { query: 2, queries: 4, key: 2, keys: 6 });
        let forward = Op::from(op);
        let mut x = inputs(&forward);
        x[3] = spans.clone();
        let outputs = run(&forward, &x);
        let dy = random(outputs[0].len(), 5);
        let mut of_backward = x.clone();
        of_backward.extend([outputs[0].clone(), outputs[1].clone(), dy.clone()]);
        let gradients = run(&Op::AttentionBackward(op), &of_backward);
        compare("attention", &x, &[0, 1, 2], &gradients, |x| product(&forward, x, &dy));
        assert!(outputs[0][6 * 14..].iter().all(|y| *y == 0.0), "query 6 is in no span");
        assert!(outputs[1][6 * 4..].iter().all(|lse| *lse == f64::NEG_INFINITY));
        assert!(gradients[1][8 * 7..].iter().all(|g| *g == 0.0), "nobody sees key 8");
        // Against softmax and two products, for the second document's last query and head 3.
        let seen: Vec<usize> = (2..8).collect();
        let row = |t: &[f64], row: usize, stride: usize, head: usize| t[row * stride + head * 3..][..3].to_vec();
        let scores: Vec<f64> =
            seen.iter().map(|&key| dot(&row(&x[0], 5, 13, 3), &row(&x[1], key, 7, 1)) / 3f64.sqrt()).collect();
        let sum: f64 = scores.iter().map(|s| s.exp()).sum();
        for j in 0..3 {
            let y: f64 = seen.iter().zip(&scores).map(|(&key, s)| s.exp() / sum * row(&x[2], key, 8, 1)[j]).sum();
            // 1 / sqrt(3) is an f32 in the descriptor.
            assert!((outputs[0][5 * 14 + 9 + j] - y).abs() < 1e-6);
        }
    }
}

/// The loss of logits that come in chunks, as a function of the logits.
fn chunked_loss(logits: &[f64], labels: &[f64], chunks: &[(usize, usize)], rows: usize, vocab: usize) -> [Vec<f64>; 2] {
    let mut stats = vec![9.0; 3 * rows];
    for (nth, &(first, cols)) in chunks.iter().enumerate() {
        let op = CrossEntropyStats {
            first,
            begin: nth == 0,
            logits_row: vocab,
            ..CrossEntropyStats::new(rows, cols, DType::F32)
        };
        reference::run(&op.into(), &[&logits[first..], labels], &mut [&mut stats]).unwrap();
    }
    let mut loss = vec![9.0; 2];
    reference::run(&CrossEntropyLoss::new(rows, vocab).into(), &[&stats, labels], &mut [&mut loss]).unwrap();
    [stats, loss]
}

#[test]
fn cross_entropy() {
    let (rows, vocab) = (4, 7);
    let labels = vec![2.0, f64::from(u32::MAX), 6.0, 7.0];
    let x = vec![random(rows * vocab, 1)];
    let chunks = [(3, 2), (0, 3), (5, 2)];
    let [stats, loss] = chunked_loss(&x[0], &labels, &chunks, rows, vocab);
    assert_eq!(loss[1], 2.0, "two labels are ignored");
    let direct = |row: usize, label: usize| {
        let logits = &x[0][row * vocab..][..vocab];
        logits.iter().map(|l| l.exp()).sum::<f64>().ln() - logits[label]
    };
    assert!((loss[0] - (direct(0, 2) + direct(2, 6)) / 2.0).abs() < 1e-12);
    let mut gradient = vec![0.0; rows * vocab];
    for (first, cols) in chunks {
        let op = CrossEntropyGrad { first, cols, ..CrossEntropyGrad::new(rows, vocab, DType::F32) };
        let inputs: [&[f64]; 5] = [&x[0][first..], &labels, &stats, &loss, &[0.5]];
        reference::run(&op.into(), &inputs, &mut [&mut gradient[first..]]).unwrap();
    }
    compare("cross_entropy", &x, &[0], &[gradient], |x| 0.5 * chunked_loss(&x[0], &labels, &chunks, rows, vocab)[1][0]);
    let [_, loss] = chunked_loss(&x[0], &[9.0; 4], &chunks, rows, vocab);
    assert_eq!(loss, [0.0, 0.0], "no row counts");
}
