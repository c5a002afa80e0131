//! What users type behind `candlewick generate`.

use super::adapter_flag::AdapterFlag;
use candlewick::DType;
use candlewick_lm::generate::Sampling;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;

/// Flags of `generate`.
#[derive(Args)]
#[command(after_long_help = "\
A model is a Hugging Face folder (config.json, safetensors, tokenizer.json) or a GGUF file, of the Llama family: Llama,
Mistral, SmolLM2, Qwen2, Qwen2.5, Qwen3. Quantised weights stay quantised. Without --chat a prompt is continued as it is;
with --chat it is a message that the model answers, by its own template.

Several adapters are loaded beside one base, and each prompt is answered with each of them, in one batch. `none` stands for
the base alone.

A file of prompts has one per line; one that ends in .jsonl has an object per line, with `prompt` or `messages`, and
`adapter` (its folder's name) where it wants one.

Text goes to stdout, everything else to stderr.

Examples:
  candlewick generate --model smollm2 --prompt 'The capital of France is' --max-tokens 8
  candlewick generate --model smollm2 --chat
  candlewick generate --model smollm2 --chat --prompt 'Tell me a joke.' --temperature 0.8 --top-p 0.95 --seed 7
  candlewick generate --model ./Llama-3.2-1B --adapter my-adapter=0.7 --adapter none --prompt 'Dear Sir,'
  candlewick generate --model smollm2 --prompts questions.txt --batch 8 --json > answers.jsonl
  candlewick generate --model smollm2 --device cpu:2 --prompt 'Once' --ignore-end --max-tokens 128
                                           tokens per second of two threads")]
pub struct GenerateArgs {
    /// A model's folder or GGUF file, or the name of one that `candlewick fetch` got
    #[arg(long, value_name = "PATH|NAME")]
    pub model: PathBuf,
    /// A text to continue, or a message to answer with --chat
    #[arg(long, value_name = "TEXT", conflicts_with = "prompts")]
    pub prompt: Option<String>,
    /// A file of prompts, generated in batches
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Chat with the model: its template around each message, from the terminal where no prompt is given
    #[arg(long)]
    pub chat: bool,
    /// What the model is told before a chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub system: Option<String>,
    /// An adapter and how much of it (1 as it was trained); may be given several times
    #[arg(long = "adapter", value_name = "FOLDER[=STRENGTH]|none")]
    pub adapters: Vec<AdapterFlag>,
    /// Device: best (a GPU where there is one), cpu, cpu:N (at most N threads), metal, cuda (cuda:1: the second)
    #[arg(long, default_value = "best")]
    pub device: String,
    /// Number format to compute with: by default f32 on the CPU and on Metal, bf16 on CUDA
    #[arg(long, value_parser = dtype())]
    pub dtype: Option<DType>,
    /// Turn quantised weights into numbers when they are loaded
    #[arg(long)]
    pub dequantise: bool,
    /// Multiply quantised weights with numbers as they are: by default a CPU rounds those to 8 bits first, as llama.cpp does
    #[arg(long)]
    pub exact: bool,
    /// The most tokens of a text, prompt included: by default the model's context, at most 4096
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// How many texts are generated at a time: by default as many as there are, at most 8
    #[arg(long, value_name = "TEXTS")]
    pub batch: Option<usize>,
    /// The most tokens to generate
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    pub max_tokens: usize,
    /// Go on behind the token that ends a text: for measurements
    #[arg(long)]
    pub ignore_end: bool,
    /// A string that ends the text and is not part of it; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// 0 takes the likeliest token always, 1 draws from the model's own distribution, more is wilder
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Draw from so many of the likeliest tokens
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// Draw from tokens that are at least this times as likely as the likeliest
    #[arg(long, default_value_t = 0.0)]
    pub min_p: f32,
    /// Makes tokens that were said less likely: 1 is none, 1.1 a little
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// The same seed draws the same text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print a JSON object per text, with its tokens and why it ended
    #[arg(long)]
    pub json: bool,
}

impl GenerateArgs {
    pub(super) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        }
    }
}

fn dtype() -> impl TypedValueParser<Value = DType> {
    PossibleValuesParser::new(DType::ALL.map(DType::name))
        .map(|name| DType::ALL.into_iter().find(|dtype| dtype.name() == name).expect("clap lets only these names pass"))
}
