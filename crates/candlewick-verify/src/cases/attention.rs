//! y = softmax(scale q kᵀ) v by sequences and heads, and its backward.

use super::{Draw, Operation, Terms, finite_largest, uniform};
use crate::case::{Hardware, Values};
use crate::rng::Rng;
use crate::trial::run_reference;
use candlewick::op::{Attention, Operand, Span};
use candlewick::{DType, Op, Scalar};

/// Forward or backward, by what a descriptor becomes.
pub(crate) struct Heads(pub(crate) fn(Attention) -> Op);

/// Queries, keys, heads, heads of keys, elements of a head, sequences.
type Sizes = (usize, usize, usize, usize, usize, usize);

/// Decoding with long keys, prompts, packed documents, more queries than keys, one of each, none of each.
const SIZES: [Sizes; 17] = [
    (1, 2049, 9, 3, 64, 1),
    (4, 1500, 8, 2, 64, 4),
    (1, 700, 4, 1, 128, 1),
    (129, 129, 3, 3, 64, 1),
    (70, 200, 6, 2, 80, 1),
    (130, 130, 2, 1, 33, 5),
    (200, 17, 2, 2, 16, 1),
    (65, 300, 2, 1, 32, 7),
    (257, 257, 1, 1, 8, 1),
    (9, 9, 32, 4, 5, 1),
    (1, 1, 1, 1, 1, 1),
    (3, 5, 2, 1, 256, 1),
    (0, 5, 2, 1, 8, 1),
    (5, 0, 2, 1, 8, 1),
    (5, 5, 0, 1, 8, 1),
    (5, 5, 2, 2, 0, 1),
    (5, 5, 2, 2, 8, 0),
];

/// The same where the GPU kernels share keys or rows among more threads.
const GPU_SIZES: [Sizes; 10] = [
    (1, 520, 4, 2, 64, 1),
    (2, 257, 2, 1, 128, 2),
    (33, 33, 2, 1, 64, 1),
    (8, 64, 3, 3, 32, 1),
    (9, 65, 2, 2, 40, 3),
    (40, 16, 1, 1, 16, 1),
    (17, 17, 4, 1, 7, 2),
    (1, 1, 3, 1, 64, 1),
    (2, 31, 1, 1, 256, 1),
    (3, 1025, 1, 1, 8, 1),
];

fn attention((queries, keys, heads, kv_heads, head, sequences): Sizes, dtype: DType) -> Attention {
    Attention { sequences, ..Attention::new(queries, keys, heads, kv_heads, head, dtype) }
}

impl Heads {
    fn causal_and_not(&self, sizes: &[Sizes], dtype: DType) -> Vec<Op> {
        let causal = sizes.iter().map(|&sizes| attention(sizes, dtype));
        let whole = causal.clone().map(|op| Attention { causal: false, ..op });
        causal.chain(whole).map(self.0).collect()
    }
}

impl Operation for Heads {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        self.causal_and_not(&SIZES, dtype)
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        self.causal_and_not(&GPU_SIZES, dtype)
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let kv_heads = draw.rng.pick(&[1, 1, 2, 3]);
        let heads = kv_heads * draw.rng.pick(&[1, 1, 2, 3, 4]);
        let budget = if draw.hardware == Hardware::Cpu { 1 << 17 } else { 1 << 18 };
        let [mut queries, keys, head] = draw.sizes(budget / heads);
        if draw.rng.chance(20) {
            queries = queries.min(1);
        }
        let sequences = draw.rng.pick(&[1, 1, 1, 2, 3, 5]);
        let mut op = attention((queries, keys, heads, kv_heads, head, sequences), draw.dtype);
        (op.q_row, op.y_row) = (draw.stride(heads * head), draw.stride(heads * head));
        (op.k_row, op.v_row) = (draw.stride(kv_heads * head), draw.stride(kv_heads * head));
        op.causal = draw.rng.chance(60);
        if draw.rng.chance(20) {
            op.scale = Scalar(op.scale.get() * draw.rng.pick(&[-1.0, 0.0, 2.0]));
        }
        self.0(op)
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let op = heads(op);
        let (wide, narrow) = (op.heads * op.head, op.kv_heads * op.head);
        match operand {
            "q" | "dq" => vec![(op.queries, op.q_row), (wide, 1)],
            "k" | "dk" => vec![(op.keys, op.k_row), (narrow, 1)],
            "v" | "dv" => vec![(op.keys, op.v_row), (narrow, 1)],
            "y" | "dy" => vec![(op.queries, op.y_row), (wide, 1)],
            "spans" => vec![(op.sequences, 4), (4, 1)],
            _ => vec![(op.queries, op.heads), (op.heads, 1)],
        }
    }

    fn ordinary(&self, op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        match operand.name {
            "spans" => spans(heads(op), rng).into_iter().flatten().map(f64::from).collect(),
            // Scores of magnitude four at most.
            "q" | "k" => uniform(0.0, 2.0, count, rng),
            _ => uniform(0.0, 1.0, count, rng),
        }
    }

    /// Scores are numbers that exponentials tell apart: what is large is v or dy.
    fn takes(&self, _op: &Op, operand: &Operand, values: Values) -> bool {
        match operand.name {
            "q" | "k" => values != Values::Huge,
            "v" | "dy" => true,
            _ => false,
        }
    }

    fn huge(&self, dtype: DType) -> f64 {
        // Its products with k and with the length of a sum are numbers.
        if dtype == DType::F16 { 1e3 } else { 1e25 }
    }

    /// Nobody reads keys that no query sees; y and lse are those of the forward pass.
    fn derive(&self, op: &Op, inputs: &mut [Vec<f64>]) {
        let descriptor = heads(op);
        let seen = seen_keys(descriptor, &inputs[3]);
        let narrow = descriptor.kv_heads * descriptor.head;
        for (input, row) in [(1, descriptor.k_row), (2, descriptor.v_row)] {
            for key in (0..descriptor.keys).filter(|&key| narrow > 0 && !seen[key]) {
                inputs[input][key * row..][..narrow].fill(f64::NAN);
            }
        }
        if let Op::AttentionBackward(op) = op {
            let outputs = vec![inputs[4].clone(), inputs[5].clone()];
            let outputs = run_reference(&Op::Attention(*op), &inputs[..4], outputs).expect("it is legal");
            for (input, output) in [4, 5].into_iter().zip(outputs) {
                inputs[input] = output;
            }
        }
    }

    fn terms(&self, op: &Op, inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        let largest = |input: usize| finite_largest(&inputs[input]);
        match op {
            Op::AttentionBackward(op) => {
                // ds = scale p (dp - D) with dp and D as large as `head` products of random signs, and p below one.
                let (dp, scale) = ((op.head as f64).sqrt() * largest(2) * largest(6), f64::from(op.scale.get()).abs());
                let seen = (op.group() * op.queries) as f64;
                let ds = 2.0 * scale * dp;
                Terms::Magnitudes(vec![ds * largest(1), ds * largest(0), seen.sqrt().min(4.0) * largest(6)])
            }
            // lse is a score and the logarithm of their number.
            _ => Terms::Magnitudes(vec![largest(2), 1.0]),
        }
    }
}

fn heads(op: &Op) -> &Attention {
    match op {
        Op::Attention(op) | Op::AttentionBackward(op) => op,
        _ => unreachable!("{op} is no attention"),
    }
}

/// First query, queries, first key, keys of each sequence.
pub(crate) fn spans(op: &Attention, rng: &mut Rng) -> Vec<[u32; 4]> {
    let (queries, keys, count) = (op.queries as u32, op.keys as u32, op.sequences as u32);
    // Part `i` of so many rows: all of them together are the whole.
    let part = |rows: u32, i: u32| (rows * i / count, rows * (i + 1) / count - rows * i / count);
    let below = |rng: &mut Rng, end: u32| rng.below(end as usize + 1) as u32;
    let kind = rng.below(6);
    let span = |i: u32, rng: &mut Rng| {
        let ((query, queries_of), (key, keys_of)) = (part(queries, i), part(keys, i));
        match kind {
            // Side by side: packed documents, or one sequence of everything.
            0 | 1 => [query, queries_of, key, keys_of],
            // A cache of which each sequence fills a part.
            2 => [query, queries_of, key, below(rng, keys_of)],
            // All share the keys.
            3 => [query, queries_of, 0, keys],
            // Anywhere, over each other, empty too.
            4 => [below(rng, queries), below(rng, queries), below(rng, keys), below(rng, keys)],
            // Beyond the tensors.
            _ => [
                rng.pick(&[query, queries, u32::MAX]),
                rng.pick(&[queries_of, queries + 1, u32::MAX]),
                rng.pick(&[key, keys, u32::MAX]),
                rng.pick(&[keys_of, keys + 7, u32::MAX]),
            ],
        }
    };
    (0..count).map(|i| span(i, rng)).collect()
}

/// Which keys some query sees. A query belongs to the first of its spans.
fn seen_keys(op: &Attention, spans: &[f64]) -> Vec<bool> {
    let (mut seen, mut taken) = (vec![false; op.keys], vec![false; op.queries]);
    for row in spans.chunks_exact(4).take(op.sequences) {
        let span: Span = op.span([0, 1, 2, 3].map(|i| row[i] as u32));
        for (i, taken) in taken[span.query..][..span.queries].iter_mut().enumerate() {
            if !std::mem::replace(taken, true) {
                let visible = op.visible(&span, i);
                seen[span.key..span.key + visible].fill(true);
            }
        }
    }
    seen
}
