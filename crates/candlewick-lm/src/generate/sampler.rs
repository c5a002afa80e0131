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
    /// Kept from token to token for its memory.
    penalised: Vec<f32>,
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
        Ok(Sampler { sampling, random, penalised: Vec::new(), candidates: Vec::new() })
    }

    /// The next token, given the logits of the vocabulary and the tokens so far.
    ///
    /// # Errors
    /// Where there is no largest logit: NaN.
    pub fn next(&mut self, logits: &[f32], tokens: &[u32]) -> Result<u32> {
        let Sampler { sampling, random, penalised, candidates } = self;
        let logits = match sampling.repetition_penalty {
            1.0 => logits,
            penalty => {
                penalise(penalty, logits, tokens, penalised);
                penalised
            }
        };
        let best = likeliest(logits)?;
        if sampling.temperature == 0.0 || sampling.top_k == Some(1) {
            return Ok(best);
        }
        let (temperature, largest) = (f64::from(sampling.temperature), logits[best as usize]);
        candidates.clear();
        let relative = |logit: f32| f64::from(logit - largest) / temperature;
        candidates.extend(logits.iter().zip(0..).map(|(&logit, token)| (token, relative(logit))));
        cut(sampling, candidates);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = random.random::<f64>() * total;
        for &(token, weight) in candidates.iter() {
            left -= weight;
            if left < 0.0 {
                return Ok(token);
            }
        }
        Ok(candidates.last().map_or(best, |&(token, _)| token))
    }
}

/// The logits, with those of tokens that occur made smaller.
fn penalise(penalty: f32, logits: &[f32], tokens: &[u32], penalised: &mut Vec<f32>) {
    penalised.clear();
    penalised.extend_from_slice(logits);
    for &token in tokens {
        // From the model's own logits, so that a token that occurs twice is penalised once.
        if let (Some(to), Some(&logit)) = (penalised.get_mut(token as usize), logits.get(token as usize)) {
            *to = if logit > 0.0 { logit / penalty } else { logit * penalty };
        }
    }
}

/// From logits less the largest over the temperature to the weights of the tokens that may be drawn: 1 for the likeliest.
fn cut(sampling: &Sampling, candidates: &mut Vec<(u32, f64)>) {
    // Likeliest first; of equals, the first of the vocabulary.
    let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if let Some(k) = sampling.top_k.filter(|&k| k < candidates.len()) {
        candidates.select_nth_unstable_by(k - 1, order);
        candidates.truncate(k);
    }
    candidates.iter_mut().for_each(|(_, weight)| *weight = weight.exp());
    if sampling.top_p < 1.0 {
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let wanted = total * f64::from(sampling.top_p);
        // All tokens below this weight together have less than what is left out: no need to sort them.
        let surely_out = (total - wanted) / candidates.len() as f64;
        candidates.retain(|&(_, weight)| weight >= surely_out);
        candidates.sort_unstable_by(order);
        let mut sum = 0.0;
        let enough = candidates.iter().position(|(_, weight)| {
            sum += weight;
            sum >= wanted
        });
        candidates.truncate(enough.map_or(candidates.len(), |last| last + 1));
    }
    candidates.retain(|&(_, weight)| weight >= f64::from(sampling.min_p));
    // The draw goes through them in the vocabulary's order, however they were cut.
    candidates.sort_unstable_by_key(|&(token, _)| token);
}

/// The token of the largest logit; of equals, the first.
fn likeliest(logits: &[f32]) -> Result<u32> {
    const LANES: usize = 16;
    let (mut largest, mut nan) = ([f32::NEG_INFINITY; LANES], [false; LANES]);
    // Branches would cost more than the model's smallest products: this is a vector's maximum.
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            largest[lane] = if chunk[lane] > largest[lane] { chunk[lane] } else { largest[lane] };
            nan[lane] |= chunk[lane].is_nan();
        }
    }
    if nan.contains(&true) || rest.iter().any(|logit| logit.is_nan()) {
        let token = logits.iter().position(|logit| logit.is_nan()).unwrap_or_default();
        let remedy = "compute in f32 (f16 overflows with some models), or check that the model's files are whole";
        return Err(Error::refused("sampling", format!("the logit of token {token} is NaN"), remedy));
    }
    let largest = largest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    Ok(logits.iter().position(|&logit| logit == largest).unwrap_or_default() as u32)
}
