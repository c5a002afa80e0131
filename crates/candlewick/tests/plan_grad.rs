//! Gradients of plans, against differences of the plan's own loss.

use candlewick::op::{Attention, Pairs, Rope};
use candlewick::plan::{Recorder, Session, Shared, Tensor};
use candlewick::{DType, Device, Plan, Result};

const F32: DType = DType::F32;
const TOKENS: usize = 7;
const VOCAB: usize = 11;
const WIDTH: usize = 16;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = 4;
const RANK: usize = 3;
const HIDDEN: usize = 24;

fn device() -> Device {
    Device::cpu()
}

/// Where the tests run: the emulator's tests include this file, and have another `device`.
#[allow(unused_qualifications, reason = "it is unnecessary where this file is the root")]
fn here() -> Device {
    crate::device()
}

fn numbers(count: usize, seed: usize, scale: f32) -> Vec<f32> {
    let hash = |i: usize| ((i * 2_654_435_761 + seed * 40_503 + 12_345) ^ (seed * 977)) % 100_003;
    (0..count).map(|i| (hash(i) as f32 / 50_001.5 - 1.0) * scale).collect()
}

/// A block of a small model, with adapters where gradients are wanted.
struct Block {
    loss: Tensor,
    gradients: Vec<Tensor>,
    constants: Vec<(Tensor, Vec<f32>)>,
    ids: Tensor,
    positions: Tensor,
    spans: Tensor,
    labels: Tensor,
}

fn block(p: &mut Recorder, adapters: &[Shared], fused: bool) -> Result<Block> {
    let mut constants = Vec::new();
    let mut constant = |p: &mut Recorder, name: &str, rows: usize, cols: usize, scale: f32| {
        let tensor = p.constant(name, rows, cols, F32);
        constants.push((tensor, numbers(rows * cols, 31 + constants.len(), scale)));
        tensor
    };
    let ids = p.input("ids", 1, TOKENS, DType::U32);
    let positions = p.input("positions", 1, TOKENS, DType::U32);
    let spans = p.input("spans", 2, 4, DType::U32);
    let labels = p.input("labels", 1, TOKENS, DType::U32);
    let adapters = adapters.iter().map(|shared| p.shared(shared)).collect::<Result<Vec<_>>>()?;
    let table = constant(p, "table", VOCAB, WIDTH, 1.0);
    let frequencies = constant(p, "frequencies", 1, HEAD / 2, 0.5);
    let (norm1, norm2) = (constant(p, "norm1", 1, WIDTH, 1.0), constant(p, "norm2", 1, WIDTH, 1.0));
    let x = p.embedding(ids, table)?;
    let normed = p.rms_norm(x, norm1, 1e-5)?;
    let (wide, narrow) = (HEADS * HEAD, KV_HEADS * HEAD);
    let (q, k, v) = if fused {
        let w = constant(p, "qkv", wide + 2 * narrow, WIDTH, 0.4);
        let all = p.lora_linear(normed, w, None, adapters[0], adapters[1], 0.7)?;
        let parts = [0..wide, wide..wide + narrow, wide + narrow..wide + 2 * narrow];
        let [q, k, v] = parts.map(|part| p.columns(all, part));
        (q?, k?, v?)
    } else {
        let (wq, wk, wv) = (
            constant(p, "q", wide, WIDTH, 0.4),
            constant(p, "k", narrow, WIDTH, 0.4),
            constant(p, "v", narrow, WIDTH, 0.4),
        );
        let q = p.lora_linear(normed, wq, None, adapters[0], adapters[1], 0.7)?;
        (q, p.linear(normed, wk, None)?, p.lora_linear(normed, wv, None, adapters[2], adapters[3], 1.3)?)
    };
    let rope = |heads| Rope { pairs: Pairs::Halves, ..Rope::new(TOKENS, heads, HEAD, F32) };
    let q = p.rope(q, positions, frequencies, rope(HEADS))?;
    let k = p.rope(k, positions, frequencies, rope(KV_HEADS))?;
    let attention = Attention { sequences: 2, ..Attention::new(TOKENS, TOKENS, HEADS, KV_HEADS, HEAD, F32) };
    let y = p.attention(q, k, v, spans, attention)?;
    let wo = constant(p, "o", WIDTH, wide, 0.4);
    let out = p.linear(y, wo, None)?;
    let x = p.add(x, out)?;
    let normed = p.rms_norm(x, norm2, 1e-5)?;
    let (gate, up) = (constant(p, "gate", HIDDEN, WIDTH, 0.5), constant(p, "up", HIDDEN, WIDTH, 0.5));
    let down = constant(p, "down", WIDTH, HIDDEN, 0.5);
    let (gate, up) = (p.linear(normed, gate, None)?, p.linear(normed, up, None)?);
    let hidden = p.silu_mul(gate, up)?;
    let out = p.linear(hidden, down, None)?;
    let x = p.add(x, out)?;
    let loss = p.cross_entropy(x, table, labels, 4)?;
    let loss = p.output(loss)?;
    let gradients = p.grad(loss, &adapters)?;
    gradients.iter().try_for_each(|&gradient| p.output(gradient).map(drop))?;
    Ok(Block { loss, gradients, constants, ids, positions, spans, labels })
}

fn check(fused: bool) {
    let session = Session::new(&here()).unwrap();
    let out = if fused { (HEADS + 2 * KV_HEADS) * HEAD } else { HEADS * HEAD };
    let mut shapes = vec![(RANK, WIDTH), (out, RANK)];
    if !fused {
        shapes.extend([(RANK, WIDTH), (KV_HEADS * HEAD, RANK)]);
    }
    let adapters: Vec<Shared> =
        shapes.iter().map(|&(rows, cols)| session.state("adapter", rows, cols, F32).unwrap()).collect();
    let mut values: Vec<Vec<f32>> =
        shapes.iter().enumerate().map(|(i, &(rows, cols))| numbers(rows * cols, 7 + i, 0.5)).collect();
    let (mut plan, block) = session.record(|p| block(p, &adapters, fused)).unwrap();
    for (tensor, numbers) in &block.constants {
        plan.load(*tensor, numbers).unwrap();
    }
    plan.write(block.ids, &[1u32, 5, 3, 9, 2, 2, 7]).unwrap();
    plan.write(block.positions, &[0u32, 1, 2, 3, 0, 1, 2]).unwrap();
    // Two documents of 4 and 3 tokens.
    plan.write(block.spans, &[0u32, 4, 0, 4, 4, 3, 4, 3]).unwrap();
    plan.write(block.labels, &[5u32, 3, 9, u32::MAX, 2, 7, 0]).unwrap();
    let loss = |values: &[Vec<f32>], plan: &mut Plan| {
        for (state, numbers) in adapters.iter().zip(values) {
            session.store(state, numbers).unwrap();
        }
        plan.run().unwrap();
        let mut loss = [0f32; 2];
        plan.read(block.loss, &mut loss).unwrap();
        assert_eq!(loss[1], 6.0, "one label is ignored");
        f64::from(loss[0])
    };
    let start = loss(&values, &mut plan);
    assert!((1.0..6.0).contains(&start), "{start}");
    let gradients: Vec<Vec<f32>> = (block.gradients.iter().zip(&shapes))
        .map(|(&gradient, &(rows, cols))| {
            let mut numbers = vec![0f32; rows * cols];
            plan.read(gradient, &mut numbers).unwrap();
            numbers
        })
        .collect();
    for (which, gradient) in gradients.iter().enumerate() {
        let largest = gradient.iter().fold(0f32, |max, x| max.max(x.abs()));
        assert!(largest > 1e-3, "a gradient of nothing shows nothing");
        for at in (0..gradient.len()).step_by(3) {
            let value = values[which][at];
            let step = 1e-2;
            values[which][at] = value + step;
            let above = loss(&values, &mut plan);
            values[which][at] = value - step;
            let below = loss(&values, &mut plan);
            values[which][at] = value;
            let expected = (above - below) / f64::from(2.0 * step);
            let error = (expected - f64::from(gradient[at])).abs() / f64::from(largest);
            assert!(error < 0.01, "adapter {which}, element {at}: {} and not {expected}", gradient[at]);
        }
    }
}

#[test]
fn gradients_of_a_block_are_those_of_its_loss() {
    check(false);
}

/// q, k and v as columns of one product: their gradients are gathered.
#[test]
fn gradients_of_parts_are_gathered() {
    check(true);
}

/// What was dropped has no gradient, and the rest one that is larger.
#[test]
fn the_gradient_of_dropout_has_its_mask() {
    let (rows, cols) = (5, 40);
    let (mut plan, (x, seed, dy, y, dx)) = Plan::record(&Device::cpu(), |p| {
        let (x, seed) = (p.input("x", rows, 2 * cols, F32), p.input("seed", 1, 2, DType::U32));
        let dy = p.input("dy", rows, cols, F32);
        let half = p.columns(x, cols..2 * cols)?;
        let y = p.dropout(half, seed, 0.25, 3)?;
        let dx = p.grad_from(&[(y, dy)], &[x])?[0];
        Ok((x, seed, dy, p.output(y)?, p.output(dx)?))
    })
    .unwrap();
    plan.write(x, &vec![1f32; 2 * rows * cols]).unwrap();
    plan.write(dy, &numbers(rows * cols, 3, 1.0)).unwrap();
    let mut masks = Vec::new();
    for step in 0..2 {
        plan.write(seed, &[7u32, step]).unwrap();
        plan.run().unwrap();
        let (mut m, mut found) = (vec![0f32; rows * cols], vec![0f32; 2 * rows * cols]);
        plan.read(y, &mut m).unwrap();
        plan.read(dx, &mut found).unwrap();
        assert!(m.iter().all(|&m| m == 0.0 || m == 1.0 / 0.75), "{m:?}");
        assert!((20..80).contains(&m.iter().filter(|&&m| m == 0.0).count()), "{m:?}");
        let expected = numbers(rows * cols, 3, 1.0).into_iter().zip(&m).map(|(dy, m)| dy * m);
        for (i, expected) in expected.enumerate() {
            let row = &found[i / cols * 2 * cols..][..2 * cols];
            assert_eq!((row[i % cols], row[cols + i % cols]), (0.0, expected), "element {i}");
        }
        masks.push(m);
    }
    assert_ne!(masks[0], masks[1], "another step, another mask");
}

#[test]
fn what_has_no_gradient_says_so() {
    let error = Plan::record(&here(), |p| {
        let (x, w) = (p.input("x", 2, 4, F32), p.constant("w", 4, 4, F32));
        let other = p.input("other", 1, 4, F32);
        let y = p.linear(x, w, None)?;
        p.grad_from(&[(y, y)], &[other])
    });
    assert!(error.err().unwrap().to_string().contains("does not depend on it"));
    let error = Plan::record(&Device::cpu(), |p| {
        let (x, w) = (p.input("x", 2, 4, F32), p.constant("w", 4, 4, F32));
        let (a, b) = (p.input("a", 3, 4, F32), p.input("b", 12, 1, F32));
        let (scales, slots) = (p.input("scales", 1, 3, F32), p.input("slots", 1, 2, DType::U32));
        let y = p.linear(x, w, None)?;
        p.lora_rows(x, [a, b, scales], slots, y)?;
        p.grad_from(&[(y, y)], &[x])
    });
    let message = error.err().unwrap().to_string();
    assert!(message.contains("lora_rows") && message.contains("no gradient"), "{message}");
}
