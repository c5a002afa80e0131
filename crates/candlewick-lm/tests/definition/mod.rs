//! The forward pass in f64, written plainly, from the numbers of a small model.

use candlewick_model::testing::TinyModel;
use candlewick_model::{Linear, Lora, Module, Part, Role, Tensor};
use std::collections::BTreeMap;

/// What an adapter adds, with the rows of Hugging Face's order.
pub type Adapter = BTreeMap<Module, Lora>;

/// Biases instead of the model's.
pub type Biases = BTreeMap<Module, Tensor>;

/// The logits [tokens, vocab] of one sequence, with `strength` times each adapter.
pub fn logits(model: &TinyModel, tokens: &[u32], adapters: &[(&Adapter, f64)]) -> Vec<f64> {
    logits_with_biases(model, tokens, adapters, &Biases::new())
}

/// The same with other biases.
pub fn logits_with_biases(
    model: &TinyModel,
    tokens: &[u32],
    adapters: &[(&Adapter, f64)],
    biases: &Biases,
) -> Vec<f64> {
    let config = &model.config;
    let (hidden, head) = (config.hidden, config.head_dim);
    let table = numbers(model, Role::Embedding);
    let mut x: Vec<f64> =
        tokens.iter().flat_map(|&token| &table[token as usize * hidden..][..hidden]).copied().collect();
    let linear = |layer: usize, linear: Linear, x: &[f64]| {
        let module = Module::Layer(layer, linear);
        let mut y = product(x, &numbers(model, module.role()), linear.shape(config)[1]);
        let bias = Role::Layer(layer, Part::Bias(linear));
        if Role::all(config).any(|role| role == bias) {
            let bias = biases.get(&module).map_or_else(|| numbers(model, bias), wide);
            y.chunks_mut(bias.len()).for_each(|y| y.iter_mut().zip(&bias).for_each(|(y, bias)| *y += bias));
        }
        for (adapter, strength) in adapters {
            let Some(lora) = adapter.get(&module) else { continue };
            let h = product(x, &wide(&lora.a), lora.shape()[1]);
            let delta = product(&h, &wide(&lora.b), lora.rank());
            y.iter_mut().zip(delta).for_each(|(y, delta)| *y += strength * lora.scale * delta);
        }
        y
    };
    for layer in 0..config.layers {
        let part = |part| numbers(model, Role::Layer(layer, part));
        let normed = norm(&x, &part(Part::AttentionNorm), config.norm_eps);
        let [mut q, mut k, v] = [Linear::Query, Linear::Key, Linear::Value].map(|it| linear(layer, it, &normed));
        if config.qk_norm {
            q = norm(&q, &part(Part::QueryNorm), config.norm_eps);
            k = norm(&k, &part(Part::KeyNorm), config.norm_eps);
        }
        let frequencies = config.rope.frequencies(head);
        turn(&mut q, config.heads, head, &frequencies);
        turn(&mut k, config.kv_heads, head, &frequencies);
        let attended = attention(&q, &k, &v, [tokens.len(), config.heads, config.kv_heads, head]);
        add(&mut x, &linear(layer, Linear::Output, &attended));
        let normed = norm(&x, &part(Part::MlpNorm), config.norm_eps);
        let (gate, up) = (linear(layer, Linear::Gate, &normed), linear(layer, Linear::Up, &normed));
        let both: Vec<f64> = gate.iter().zip(&up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
        add(&mut x, &linear(layer, Linear::Down, &both));
    }
    let normed = norm(&x, &numbers(model, Role::FinalNorm), config.norm_eps);
    product(&normed, &numbers(model, if config.tied { Role::Embedding } else { Role::Head }), hidden)
}

/// The largest difference, relative to the largest number.
pub fn distance(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |largest, number| largest.max(number.abs()));
    let differences = found.iter().zip(expected).map(|(&found, expected)| (f64::from(found) - expected).abs());
    differences
        .fold(0.0, |worst, difference| if difference > worst || difference.is_nan() { difference } else { worst })
        / largest
}

fn numbers(model: &TinyModel, role: Role) -> Vec<f64> {
    model.numbers(role).iter().map(|&number| number.into()).collect()
}

fn wide(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f32().into_iter().map(f64::from).collect()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// x Wᵀ for W [out, in].
fn product(x: &[f64], w: &[f64], input: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum();
    x.chunks(input).flat_map(|x| w.chunks(input).map(move |w| dot(x, w))).collect()
}

fn norm(x: &[f64], weight: &[f64], eps: f32) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        x.iter().zip(weight).map(|(x, weight)| x / (mean + f64::from(eps)).sqrt() * weight).collect()
    };
    x.chunks(weight.len()).flat_map(row).collect()
}

/// Hugging Face's order: element i turns with element i + head / 2.
fn turn(x: &mut [f64], heads: usize, head: usize, frequencies: &[f32]) {
    for (position, row) in x.chunks_mut(heads * head).enumerate() {
        for x in row.chunks_mut(head) {
            for (i, frequency) in frequencies.iter().enumerate() {
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                let (a, b) = (x[i], x[i + head / 2]);
                (x[i], x[i + head / 2]) = (a * cos - b * sin, a * sin + b * cos);
            }
        }
    }
}

fn attention(q: &[f64], k: &[f64], v: &[f64], [rows, heads, kv_heads, size]: [usize; 4]) -> Vec<f64> {
    let mut y = vec![0.0; q.len()];
    for (row, head) in (0..rows).flat_map(|row| (0..heads).map(move |head| (row, head))) {
        let of =
            |x: &'_ [f64], heads: usize, row: usize, head: usize| x[(row * heads + head) * size..][..size].to_vec();
        let (q, kv) = (of(q, heads, row, head), head / (heads / kv_heads));
        let score = |key: usize| -> f64 {
            let k = of(k, kv_heads, key, kv);
            q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (size as f64).sqrt()
        };
        let scores: Vec<f64> = (0..=row).map(score).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for (key, weight) in weights.iter().enumerate() {
            let v = of(v, kv_heads, key, kv);
            let y = &mut y[(row * heads + head) * size..][..size];
            y.iter_mut().zip(v).for_each(|(y, v)| *y += weight / sum * v);
        }
    }
    y
}
