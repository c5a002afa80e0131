//! Gradients within a budget of activations: the same bits in less memory.

use candlewick::op::{Attention, Rope};
use candlewick::plan::{Activations, Budget, Recorder, Session, Tensor};
use candlewick::{DType, Device, Plan, Result};

const F32: DType = DType::F32;
const TOKENS: usize = 12;
const VOCAB: usize = 20;
const WIDTH: usize = 32;
const HEADS: usize = 4;
const HEAD: usize = WIDTH / HEADS;
const HIDDEN: usize = 80;
const RANK: usize = 3;
const BLOCKS: usize = 8;

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

/// What a model of some blocks reads and gives.
struct Model {
    constants: Vec<(Tensor, Vec<f32>)>,
    adapters: Vec<Tensor>,
    integers: Vec<(Tensor, Vec<u32>)>,
    loss: Tensor,
    gradients: Vec<Tensor>,
}

impl Model {
    fn record(p: &mut Recorder, budget: Option<usize>) -> Result<Self> {
        let mut model = Model {
            constants: vec![],
            adapters: vec![],
            integers: vec![],
            loss: p.filled(0.0, 1, 1, F32),
            gradients: vec![],
        };
        let tokens = TOKENS as u32;
        let ids = model.integers(p, 1, (0..tokens).map(|i| i * 7 % VOCAB as u32).collect());
        let labels = model.integers(p, 1, (0..tokens).map(|i| i * 5 % VOCAB as u32).collect());
        let positions = model.integers(p, 1, (0..tokens).collect());
        let spans = model.integers(p, 1, vec![0, tokens, 0, tokens]);
        let table = model.constant(p, VOCAB, WIDTH, 1.0);
        let frequencies = model.constant(p, 1, HEAD / 2, 0.5);
        let mut x = p.embedding(ids, table)?;
        for _ in 0..BLOCKS {
            let norm = model.constant(p, 1, WIDTH, 1.0);
            let normed = p.rms_norm(x, norm, 1e-5)?;
            let (q, k, v) =
                (model.linear(p, normed, WIDTH)?, model.linear(p, normed, WIDTH)?, model.linear(p, normed, WIDTH)?);
            let rope = Rope::new(TOKENS, HEADS, HEAD, F32);
            let (q, k) = (p.rope(q, positions, frequencies, rope)?, p.rope(k, positions, frequencies, rope)?);
            let y = p.attention(q, k, v, spans, Attention::new(TOKENS, TOKENS, HEADS, HEADS, HEAD, F32))?;
            let out = model.linear(p, y, WIDTH)?;
            x = p.add(x, out)?;
            let norm = model.constant(p, 1, WIDTH, 1.0);
            let normed = p.rms_norm(x, norm, 1e-5)?;
            let (gate, up) = (model.linear(p, normed, HIDDEN)?, model.linear(p, normed, HIDDEN)?);
            let hidden = p.silu_mul(gate, up)?;
            let out = model.linear(p, hidden, WIDTH)?;
            x = p.add(x, out)?;
        }
        let loss = p.cross_entropy(x, table, labels, 8)?;
        model.loss = p.output(loss)?;
        model.gradients = match budget {
            Some(bytes) => p.grad_within(loss, &model.adapters, Budget::bytes(bytes))?,
            None => p.grad(loss, &model.adapters)?,
        };
        model.gradients.iter().try_for_each(|&gradient| p.output(gradient).map(drop))?;
        Ok(model)
    }

    fn constant(&mut self, p: &mut Recorder, rows: usize, cols: usize, scale: f32) -> Tensor {
        let tensor = p.constant("constant", rows, cols, F32);
        self.constants.push((tensor, numbers(rows * cols, 31 + self.constants.len(), scale)));
        tensor
    }

    fn integers(&mut self, p: &mut Recorder, rows: usize, values: Vec<u32>) -> Tensor {
        let tensor = p.input("integers", rows, values.len() / rows, DType::U32);
        self.integers.push((tensor, values));
        tensor
    }

    fn linear(&mut self, p: &mut Recorder, x: Tensor, out: usize) -> Result<Tensor> {
        let (_, width) = p.shape(x);
        let w = self.constant(p, out, width, 0.3);
        let (a, b) = (p.state("a", RANK, width, F32)?, p.state("b", out, RANK, F32)?);
        self.adapters.extend([a, b]);
        p.lora_linear(x, w, None, a, b, 0.5)
    }
}

/// The bits of the loss and of every gradient, and the plan.
fn run(budget: Option<usize>) -> (Vec<u32>, Plan) {
    let session = Session::new(&here()).unwrap();
    let (mut plan, model) = session.record(|p| Model::record(p, budget)).unwrap();
    model.constants.iter().for_each(|(tensor, values)| plan.load(*tensor, values).unwrap());
    model.integers.iter().for_each(|(tensor, values)| plan.write(*tensor, values).unwrap());
    let shape = |at: usize| match at % 14 {
        0 | 2 | 4 | 6 | 8 | 10 => RANK * WIDTH,
        12 => RANK * HIDDEN,
        9 | 11 => HIDDEN * RANK,
        _ => WIDTH * RANK,
    };
    for (at, &adapter) in model.adapters.iter().enumerate() {
        plan.write(adapter, &numbers(shape(at), 7 + at, 0.4)).unwrap();
    }
    plan.run().unwrap();
    let mut bits = Vec::new();
    let mut read = |tensor: Tensor, count: usize| {
        let mut numbers = vec![0f32; count];
        plan.read(tensor, &mut numbers).unwrap();
        bits.extend(numbers.iter().map(|number| number.to_bits()));
    };
    read(model.loss, 2);
    model.gradients.iter().enumerate().for_each(|(at, &gradient)| read(gradient, shape(at)));
    (bits, plan)
}

#[test]
fn a_smaller_budget_means_less_memory_and_the_same_bits() {
    let (expected, all) = run(None);
    assert!(expected.iter().any(|&bits| f32::from_bits(bits).abs() > 1e-3));
    assert!(all.activations().is_empty());
    let (_, roomy) = run(Some(usize::MAX));
    let needed = roomy.activations()[0].alive_if_kept;
    assert_eq!(roomy.operations(), all.operations(), "what fits is not computed again");
    assert_eq!(roomy.arena_bytes(), all.arena_bytes());
    let mut last = (all.arena_bytes(), all.operations());
    println!("all: {} operations, {} bytes of {needed}", all.operations(), all.arena_bytes());
    for share in [0.8, 0.6, 0.4, 0.3] {
        let budget = (needed as f64 * share) as usize;
        let (bits, plan) = run(Some(budget));
        assert!(bits == expected, "other bits within {budget} bytes");
        let activations = plan.activations()[0];
        println!("{share}: {} operations, {} bytes\n{activations}", plan.operations(), plan.arena_bytes());
        assert!(activations.alive <= budget && activations.kept <= budget, "{activations}");
        assert!(plan.arena_bytes() < last.0, "{}", plan.describe());
        assert!(plan.operations() > last.1, "{}", plan.describe());
        last = (plan.arena_bytes(), plan.operations());
    }
}

#[test]
fn a_budget_that_cannot_be_met_is_met_as_nearly_as_can_be() {
    let (expected, all) = run(None);
    let (bits, plan) = run(Some(0));
    assert!(bits == expected);
    let Activations { budget, alive, alive_if_kept, operations, .. } = plan.activations()[0];
    println!("{}", plan.activations()[0]);
    assert!(budget == 0 && alive > 0 && alive < alive_if_kept / 3 && operations > 0);
    println!("{} bytes, and {} if all were kept", plan.arena_bytes(), all.arena_bytes());
    assert!(plan.arena_bytes() < all.arena_bytes() / 2);
    let text = plan.describe();
    assert!(text.contains("KiB recomputed by") && text.contains("cannot be met"), "{text}");
}

/// The cheapest go first, and of a chain of blocks what lies between blocks stays.
#[test]
fn norms_and_gates_go_before_products() {
    let (_, roomy) = run(Some(usize::MAX));
    let needed = roomy.activations()[0].alive_if_kept;
    let again = |share: f64| {
        let (_, plan) = run(Some((needed as f64 * share) as usize));
        let (all, text) = (roomy.describe(), plan.describe());
        move |name: &str| text.matches(name).count() - all.matches(name).count()
    };
    let little = again(0.85);
    assert_eq!(little("lora_linear 12x32x80"), 0);
    assert!(little("rms_norm") + little("silu_mul") > 0);
    let much = again(0.35);
    assert!(much("rms_norm ") >= BLOCKS && much("lora_linear 12x32x80") > BLOCKS, "blocks are computed again");
}

/// What an operation read and another overwrote since cannot be read again.
#[test]
fn what_was_overwritten_is_not_computed_again() {
    let record = |budget: Option<Budget>| {
        let session = Session::new(&here()).unwrap();
        let (mut plan, (x, state, loss, gradient)) = session
            .record(|p| {
                let (x, state) = (p.input("x", 4, 16, F32), p.state("state", 4, 16, F32)?);
                let first = p.add(x, state)?;
                // The state changes between the first use and the gradient.
                p.op_into(candlewick::Softmax::new(4, 16, F32), &[first], &[state])?;
                let y = p.silu_mul(first, first)?;
                let y = p.silu_mul(y, first)?;
                let ones = p.filled(1.0, 1, 4, F32);
                let column = p.filled(1.0, 16, 1, F32);
                let row = p.matmul(ones, y)?;
                let loss = p.matmul(row, column)?;
                let loss = p.output(loss)?;
                let gradient = match budget {
                    Some(budget) => p.grad_within(loss, &[x], budget)?[0],
                    None => p.grad(loss, &[x])?[0],
                };
                Ok((x, state, loss, p.output(gradient)?))
            })
            .unwrap();
        plan.write(x, &numbers(64, 3, 1.0)).unwrap();
        plan.write(state, &numbers(64, 4, 1.0)).unwrap();
        let mut found = Vec::new();
        for _ in 0..2 {
            plan.run().unwrap();
            let (mut of_loss, mut of_gradient) = ([0f32], [0f32; 64]);
            plan.read(loss, &mut of_loss).unwrap();
            plan.read(gradient, &mut of_gradient).unwrap();
            found.extend(of_loss.iter().chain(&of_gradient).map(|x| x.to_bits()));
        }
        found
    };
    assert_eq!(record(None), record(Some(Budget::bytes(0))));
}
