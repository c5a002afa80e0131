//! Draws against the distributions that they are to come from.

use candlewick_lm::generate::{Sampler, Sampling};

const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, -1.0, 2.5, 0.0];

/// How often each token was drawn.
fn frequencies(sampling: Sampling, tokens: &[u32]) -> [f64; 6] {
    const DRAWS: usize = 40_000;
    let mut sampler = Sampler::new(sampling).unwrap();
    let mut counts = [0f64; 6];
    (0..DRAWS).for_each(|_| counts[sampler.next(&LOGITS, tokens).unwrap() as usize] += 1.0);
    counts.map(|count| count / DRAWS as f64)
}

fn softmax(logits: [f32; 6], temperature: f64, kept: &[usize]) -> [f64; 6] {
    let weight = |i: usize| if kept.contains(&i) { (f64::from(logits[i]) / temperature).exp() } else { 0.0 };
    let weights = [0, 1, 2, 3, 4, 5].map(weight);
    let total: f64 = weights.iter().sum();
    weights.map(|weight| weight / total)
}

/// Five standard deviations of 40000 draws at most.
fn assert_near(found: [f64; 6], expected: [f64; 6]) {
    for (found, expected) in found.iter().zip(expected) {
        let deviation = (expected * (1.0 - expected) / 40_000.0).sqrt();
        assert!((found - expected).abs() <= 5.0 * deviation + 1e-9, "{found} of {expected}");
    }
}

const ALL: [usize; 6] = [0, 1, 2, 3, 4, 5];

#[test]
fn temperature_shapes_the_distribution() {
    for temperature in [0.3, 1.0, 2.0] {
        let sampling = Sampling { temperature, seed: 7, ..Sampling::default() };
        assert_near(frequencies(sampling, &[]), softmax(LOGITS, temperature.into(), &ALL));
    }
    assert_eq!(frequencies(Sampling::default(), &[]).map(|it| it > 0.5), [false, true, false, false, false, false]);
}

#[test]
fn cuts_leave_what_they_say() {
    let one = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
    let near = |sampling, kept: &[usize]| assert_near(frequencies(sampling, &[]), softmax(LOGITS, 1.0, kept));
    near(Sampling { top_k: Some(3), ..one }, &[1, 4, 2]);
    near(Sampling { top_k: Some(60), ..one }, &ALL);
    // Probabilities, likeliest first: 0.445, 0.270, 0.164, 0.060, 0.022, 0.008 over 0.97 or so.
    let p = softmax(LOGITS, 1.0, &ALL);
    near(Sampling { top_p: (p[1] + p[4] - 0.01) as f32, ..one }, &[1, 4]);
    near(Sampling { top_p: (p[1] + p[4] + 0.01) as f32, ..one }, &[1, 4, 2]);
    near(Sampling { top_p: 1e-6, ..one }, &[1]);
    near(Sampling { min_p: 0.3, ..one }, &[1, 4, 2]);
    near(Sampling { min_p: 1.0, ..one }, &[1]);
    near(Sampling { top_k: Some(4), top_p: 0.7, min_p: 0.01, ..one }, &[1, 4]);
}

#[test]
fn what_was_said_is_less_likely_with_a_penalty() {
    let sampling = Sampling { temperature: 1.0, repetition_penalty: 2.0, seed: 5, ..Sampling::default() };
    let penalised = [1.0, 1.5, 2.0, -2.0, 2.5, 0.0];
    assert_near(frequencies(sampling, &[1, 3, 1, 3, 1]), softmax(penalised, 1.0, &ALL));
}

#[test]
fn equals_and_nan() {
    let mut greedy = Sampler::new(Sampling::default()).unwrap();
    assert_eq!(greedy.next(&[1.0, 2.0, 2.0], &[]).unwrap(), 1, "the first of equals");
    let nan = greedy.next(&[1.0, f32::NAN], &[]).unwrap_err().to_string();
    assert!(nan.contains("token 1 is NaN") && nan.contains("f32"), "{nan}");
    let infinite = Sampling { temperature: 1.0, ..Sampling::default() };
    assert_eq!(Sampler::new(infinite).unwrap().next(&[1.0, f32::NEG_INFINITY], &[]).unwrap(), 0);
}
