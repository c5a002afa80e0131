//! What a model of the Llama family is: its sizes, its rotary embedding, its biases and norms.

mod gguf;
mod hugging_face;
mod rope;

pub use rope::{Rope, Scaling};

use crate::{Error, Result};
use std::fmt;
use std::path::Path;

/// The families, which differ in biases, norms and tokenizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 1 to 3, SmolLM2. GGUF files of Mistral say this too.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen2 and 2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: RMSNorm on each head of q and k.
    Qwen3,
}

impl Family {
    const ALL: [Family; 4] = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3];

    /// The name in `config.json` (`model_type`) and in GGUF (`general.architecture`).
    pub const fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
        }
    }

    fn named(name: &str) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.name() == name)
    }
}

/// A model of the Llama family: pre-norm layers of attention and a gated MLP (SiLU), RMSNorm, rotary embedding.
///
/// Everything here changes results; a field of a file that would change them otherwise is an error that names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The family.
    pub family: Family,
    /// How many layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Heads of q.
    pub heads: usize,
    /// Heads of k and v; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head; q is `heads` · `head_dim` wide, which need not be `hidden`.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// The most tokens that a sequence may have. Where the model has a sliding window this is at most the window: within
    /// it, its attention is the plain causal one.
    pub context: usize,
    /// Epsilon of every RMSNorm.
    pub norm_eps: f32,
    /// The rotary embedding.
    pub rope: Rope,
    /// The head is the embedding.
    pub tied: bool,
    /// Which linear layers have a bias.
    pub biases: Biases,
    /// Each head of q and k passes an RMSNorm with a weight `[head_dim]` before it is rotated.
    pub qk_norm: bool,
    /// Fields that are not known here, and that the models of these families do not read.
    pub unknown: Vec<String>,
}

/// Which linear layers have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// q, k and v.
    pub qkv: bool,
    /// The output of attention.
    pub output: bool,
    /// gate, up and down.
    pub mlp: bool,
}

impl Config {
    /// Reads a Hugging Face `config.json`.
    pub fn from_json(path: &Path, text: &str) -> Result<Config> {
        hugging_face::read(path, text)?.checked(path)
    }

    /// Reads the metadata of a GGUF file.
    pub fn from_gguf(file: &crate::gguf::Gguf) -> Result<Config> {
        gguf::read(file)?.checked(file.path())
    }

    /// Width of q.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of k, and of v.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Sizes that fit each other, and no product of them overflows.
    fn checked(self, path: &Path) -> Result<Config> {
        const MOST: usize = 1 << 28;
        let sizes = [
            ("number of layers", self.layers),
            ("hidden size", self.hidden),
            ("intermediate size", self.intermediate),
            ("number of heads", self.heads),
            ("number of key-value heads", self.kv_heads),
            ("head size", self.head_dim),
            ("vocabulary size", self.vocab),
            ("context length", self.context),
        ];
        for (name, size) in sizes {
            if !(1..=MOST).contains(&size) {
                return Err(Error::damaged(path, name, format!("{size} is not between 1 and {MOST}")));
            }
        }
        let wrong = |field: &str, problem: String| Err(Error::damaged(path, field, problem));
        if self.heads.checked_mul(self.head_dim).is_none_or(|width| width > MOST) {
            return wrong("head size", format!("{} heads of {} elements are too many", self.heads, self.head_dim));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let problem = format!("{} do not divide {} heads", self.kv_heads, self.heads);
            return wrong("number of key-value heads", problem);
        }
        if !self.head_dim.is_multiple_of(2) {
            return wrong("head size", format!("{} is odd, and elements turn in pairs", self.head_dim));
        }
        if !(self.norm_eps >= 0.0 && self.norm_eps < 1.0) {
            return wrong("epsilon of RMSNorm", format!("{} is not between 0 and 1", self.norm_eps));
        }
        if !(self.rope.theta > 0.0 && self.rope.theta.is_finite()) {
            return wrong("rope theta", format!("{} is not a positive number", self.rope.theta));
        }
        self.rope.scaling.check(path, self.head_dim)?;
        Ok(self)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, context, .. } = self;
        write!(f, "{}: {layers} layers, hidden {hidden}, MLP {intermediate}, ", self.family.name())?;
        write!(f, "{heads} heads of {head_dim} ({kv_heads} for k and v), {vocab} tokens, context {context}")
    }
}
