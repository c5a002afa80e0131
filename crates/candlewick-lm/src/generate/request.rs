//! What is asked for, and what comes of it.

use super::{AdapterId, Sampling};
use std::time::Duration;

/// A text to be continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The prompt's tokens: see [`Tokenizer::encode`](candlewick_model::Tokenizer::encode) and
    /// [`Tokenizer::encode_chat`](candlewick_model::Tokenizer::encode_chat).
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// Strings that end the text and are not part of it.
    pub stop: Vec<String>,
    /// Goes on behind tokens that end a text: for measurements.
    pub ignore_end: bool,
    /// Whose deltas are added, if anyone's.
    pub adapter: Option<AdapterId>,
}

impl Request {
    /// Greedy, at most 256 tokens, without an adapter.
    pub fn new(prompt: Vec<u32>) -> Request {
        let (sampling, stop) = (Sampling::default(), Vec::new());
        Request { prompt, sampling, max_tokens: 256, stop, ignore_end: false, adapter: None }
    }
}

/// A text that was generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The text, without what ended it.
    pub text: String,
    /// Its tokens; those of a stop string included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// From the start of [`Generator::generate`](super::Generator::generate) to the first token.
    pub first_token: Duration,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    End,
    /// A stop string appeared.
    StopString,
    /// It has as many tokens as were asked for.
    MaxTokens,
    /// The cache is full.
    Context,
}

/// What a call of [`Generator::generate`](super::Generator::generate) took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Tokens of prompts that were computed; what was still in the cache is not among them.
    pub prompt_tokens: usize,
    /// Time of the steps that computed them.
    pub prompt_time: Duration,
    /// Tokens that were generated from one token each.
    pub decoded_tokens: usize,
    /// Time of the steps that computed them, the choice of the tokens included.
    pub decode_time: Duration,
    /// Time of recording plans and bringing weights to the device, which the first steps need.
    pub preparation: Duration,
}

impl Statistics {
    /// Prompt tokens per second; nothing where there were none.
    pub fn prompt_rate(&self) -> Option<f64> {
        rate(self.prompt_tokens, self.prompt_time)
    }

    /// Generated tokens per second, of all sequences together; nothing where there were none.
    pub fn decode_rate(&self) -> Option<f64> {
        rate(self.decoded_tokens, self.decode_time)
    }
}

fn rate(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}
