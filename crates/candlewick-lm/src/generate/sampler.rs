//! The next token from logits: greedy, or drawn from what temperature and cuts leave.

use crate::{Error, Result};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

/// How the next token is chosen. The default is greedy: always the likeliest token.
///
/// In this order, as in transformers: the repetition penalty, the temperature, `top_k`, `top_p`, `min_p`, the draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 is greedy.
    pub temperature: f32,
    /// Only so many of the likeliest tokens; nothing for all.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens whose probabilities together reach it (Holtzman et al., 2020); 1 for all.
    pub top_p: f32,
    /// Only tokens at least this times as likely as the likeliest (Nguyen et al., 2024); 0 for all.
    pub min_p: f32,
    /// Logits of tokens that are in the text already: divided by it where positive, multiplied where negative (Keskar et
    /// al., 2019); 1 for none.
    pub repetition_penalty: f32,
    /// Of the generator, Xoshiro256++ (Blackman and Vigna, 2021): the same seed draws the same tokens from the same logits.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: None, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    pub(super) fn check(&self) -> Result<()> {
        let rules = [
            ("temperature", self.temperature, self.temperature >= 0.0, "0 is greedy, 1 the model's own distribution"),
            (
                "top_p",
                self.top_p,
                self.top_p > 0.0 && self.top_p <= 1.0,
                "it is above 0 and at most 1, which keeps all",
            ),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "it is between 0, which keeps all, and 1"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0.0, "1 is none, 1.1 a little"),
        ];
        for (what, value, good, remedy) in rules {
            if !(good && value.is_finite()) {
                return Err(Error::refused(what, format!("{value} makes no distribution"), remedy));
            }
        }
        if self.top_k == Some(0) {
            return Err(Error::refused("top_k", "0 leaves no token", "1 is greedy; leave it out to keep all"));
        }
        Ok(())
    }
}

/// A sequence's sampler.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: Xoshiro256PlusPlus,
    /// Logits that the penalty has changed; then candidates and their probabilities.
    logits: Vec<f32>,
    candidates: Vec<(u32, f64)>,
}

impl Sampler {
    /// Seeded anew.
    ///
    /// # Errors
    /// Numbers that make no distribution.
    pub fn new(sampling: Sampling) -> Result<Sampler> {
        sampling.check()?;
        let random = Xoshiro256PlusPlus::seed_from_u64(sampling.seed);
        Ok(Sampler { sampling, random, logits: Vec::new(), candidates: Vec::new() })
    }

    /// The next token, given the logits of the vocabulary and the tokens so far.
    ///
    /// # Errors
    /// Where there is no largest logit: NaN.
    pub fn next(&mut self, logits: &[f32], tokens: &[u32]) -> Result<u32> {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        if self.sampling.repetition_penalty != 1.0 {
            let penalty = self.sampling.repetition_penalty;
            for &token in tokens {
                // From the model's own logits, so that a token that occurs twice is penalised once.
                if let (Some(to), Some(&logit)) = (self.logits.get_mut(token as usize), logits.get(token as usize)) {
                    *to = if logit > 0.0 { logit / penalty } else { logit * penalty };
                }
            }
        }
        let best = likeliest(&self.logits)?;
        if self.sampling.temperature == 0.0 || self.sampling.top_k == Some(1) {
            return Ok(best);
        }
        self.weigh(self.logits[best as usize]);
        self.cut();
        let total: f64 = self.candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.random::<f64>() * total;
        for &(token, weight) in &self.candidates {
            left -= weight;
            if left < 0.0 {
                return Ok(token);
            }
        }
        Ok(self.candidates.last().map_or(best, |&(token, _)| token))
    }

    /// Every token with its weight, exp((logit - largest) / temperature): 1 for the likeliest.
    fn weigh(&mut self, largest: f32) {
        let temperature = f64::from(self.sampling.temperature);
        let weight = |logit: f32| (f64::from(logit - largest) / temperature).exp();
        self.candidates.clear();
        self.candidates.extend(self.logits.iter().zip(0..).map(|(&logit, token)| (token, weight(logit))));
    }

    /// Leaves the tokens that may be drawn.
    fn cut(&mut self) {
        let Sampling { top_k, top_p, min_p, .. } = self.sampling;
        let candidates = &mut self.candidates;
        // Likeliest first; of equals, the first of the vocabulary.
        let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if let Some(k) = top_k.filter(|&k| k < candidates.len()) {
            candidates.select_nth_unstable_by(k - 1, order);
            candidates.truncate(k);
        }
        if top_p < 1.0 {
            let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
            // All tokens below this together are less likely than 1 - top_p: no need to sort them.
            let surely_out = total * (1.0 - f64::from(top_p)) / candidates.len() as f64;
            candidates.retain(|&(_, weight)| weight >= surely_out);
            candidates.sort_unstable_by(order);
            let mut sum = 0.0;
            let before = |(_, weight): &(u32, f64)| {
                sum += weight;
                sum - weight < total * f64::from(top_p)
            };
            let kept = candidates.iter().map(before).take_while(|&kept| kept).count();
            candidates.truncate(kept.max(1));
        }
        candidates.retain(|&(_, weight)| weight >= f64::from(min_p));
        // The draw goes through them in the vocabulary's order, however they were cut.
        candidates.sort_unstable_by_key(|&(token, _)| token);
    }
}

/// The token of the largest logit; of equals, the first.
fn likeliest(logits: &[f32]) -> Result<u32> {
    let mut best = (0, f32::NEG_INFINITY);
    for (&logit, token) in logits.iter().zip(0..) {
        if logit > best.1 {
            best = (token, logit);
        } else if logit.is_nan() {
            let remedy = "compute in f32 (f16 overflows with some models), or check that the model's files are whole";
            return Err(Error::refused("sampling", format!("the logit of token {token} is NaN"), remedy));
        }
    }
    Ok(best.0)
}
