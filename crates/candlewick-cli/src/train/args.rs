//! Flags of `train`.

use candlewick_lm::train::data::LossOn;
use candlewick_lm::train::{Housekeeping, Length, Precision, Recipe, Schedule, Sources, Targets};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Flags of `train`.
#[derive(Args)]
#[command(after_long_help = "\
The data is a file of lines, one JSON object each, of any of these kinds:
  {\"prompt\": \"2 + 2 =\", \"completion\": \" 4\"}       two texts, as they are
  {\"messages\": [{\"role\": \"user\", \"content\": \"..\"}, {\"role\": \"assistant\", \"content\": \"..\"}]}
                                                  a chat, through the model's template
  {\"text\": \"..\"}                                  plain text
What is learned is the completion, the assistant's part, and all of a plain text; --loss-on everything learns prompts too.
Short documents share a row of --sequence positions without seeing each other. A completion or a chat that is longer than a
row is cut at its end; a plain text goes on in the next row.

The folder has afterwards
  adapter_config.json, adapter_model.safetensors   the adapter, as PEFT has it: the best one, where there is validation data
  loss.svg, metrics.jsonl                          the loss curve, and each step's numbers
  checkpoints/                                     what the run needs to go on
Interrupted (Ctrl-C) a run saves and ends; the same command goes on, from wherever it was, to the same numbers bit for bit.

Examples:
  candlewick train --model smollm2 --data facts.jsonl --out facts --dry-run
                                           what it will take: memory by kind, time, without writing anything
  candlewick train --model smollm2 --data facts.jsonl --out facts --validation 0.1 --epochs 5
  candlewick train --model ./Qwen2.5-0.5B --data chats.jsonl --out support --rank 16 --targets q_proj,v_proj
  candlewick train --model ./model --data notes.jsonl --out notes --targets '.*layers\\.(2[0-9])\\..*_proj'
  candlewick train --model ./model --data notes.jsonl --out notes --device cuda --precision bf16 --batch 4 --accumulate 4")]
pub struct TrainArgs {
    /// The model: a Hugging Face folder, a GGUF file (quantised or not), or smollm2, where `fetch` has put it
    #[arg(long, value_name = "PATH", help_heading = "What")]
    pub model: PathBuf,
    /// What to learn: a file of lines of JSON
    #[arg(long, value_name = "FILE", help_heading = "What")]
    pub data: PathBuf,
    /// The adapter's folder
    #[arg(long, value_name = "FOLDER", help_heading = "What")]
    pub out: PathBuf,
    /// Say what it will take (memory by kind, time), and write nothing
    #[arg(long, help_heading = "What")]
    pub dry_run: bool,
    /// Go on from a checkpoint, and fail where there is none; without it a run goes on where it can
    #[arg(long, help_heading = "What", conflicts_with = "restart")]
    pub resume: bool,
    /// Remove the folder's checkpoints and begin anew
    #[arg(long, help_heading = "What")]
    pub restart: bool,
    /// Where: best (a GPU where there is one), cpu, cpu:N (at most N threads), metal, cuda (cuda:1: the second)
    #[arg(long, default_value = "best", help_heading = "What")]
    pub device: String,

    /// Rank of the adapters
    #[arg(long, default_value_t = 8, value_name = "N", help_heading = "Adapter")]
    pub rank: usize,
    /// The delta is multiplied by alpha / rank [default: twice the rank]
    #[arg(long, value_name = "X", help_heading = "Adapter")]
    pub alpha: Option<f64>,
    /// Divide alpha by the root of the rank instead
    #[arg(long, help_heading = "Adapter")]
    pub rslora: bool,
    /// Share of an adapter's inputs that are dropped in a step
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", help_heading = "Adapter")]
    pub dropout: f32,
    /// Linear layers: names with commas between, a regular expression for whole names, or all-linear
    #[arg(long, default_value = "all-linear", value_name = "NAMES", help_heading = "Adapter")]
    pub targets: Targets,
    /// Begin with this adapter instead of random numbers
    #[arg(long, value_name = "FOLDER", help_heading = "Adapter")]
    pub adapter: Option<PathBuf>,

    /// Positions of a row
    #[arg(long, default_value_t = 256, value_name = "N", help_heading = "Data")]
    pub sequence: usize,
    /// Rows of a micro-batch
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Data")]
    pub batch: usize,
    /// Micro-batches whose gradients are added up for an update
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Data")]
    pub accumulate: usize,
    /// What is learned
    #[arg(long, value_enum, default_value = "completions", help_heading = "Data")]
    pub loss_on: LossOnArg,
    /// One document a row
    #[arg(long, help_heading = "Data")]
    pub no_packing: bool,
    /// The order of the file, in every epoch
    #[arg(long, help_heading = "Data")]
    pub no_shuffle: bool,
    /// Validate: with this share of the data (0.1: a tenth), or with this file
    #[arg(long, value_name = "SHARE|FILE", help_heading = "Data")]
    pub validation: Option<String>,
    /// Test with this file, before the first step and at the end: lines that nothing is chosen by, as the best step is by
    /// those of --validation
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub test: Option<PathBuf>,
    /// Of everything that is random
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Data")]
    pub seed: u64,

    /// Passes over the data [default: 1]
    #[arg(long, value_name = "N", help_heading = "Optimizer", conflicts_with = "steps")]
    pub epochs: Option<u64>,
    /// Updates, instead of passes
    #[arg(long, value_name = "N", help_heading = "Optimizer")]
    pub steps: Option<u64>,
    /// The largest learning rate
    #[arg(long, default_value_t = 2e-4, value_name = "X", help_heading = "Optimizer")]
    pub learning_rate: f64,
    /// How the learning rate falls
    #[arg(long, value_enum, default_value = "cosine", help_heading = "Optimizer")]
    pub schedule: ScheduleArg,
    /// Steps in which the learning rate rises
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Optimizer")]
    pub warmup: u64,
    /// AdamW's weight decay
    #[arg(long, default_value_t = 0.01, value_name = "X", help_heading = "Optimizer")]
    pub weight_decay: f32,
    /// AdamW's decay of the mean gradient
    #[arg(long, default_value_t = 0.9, value_name = "X", help_heading = "Optimizer")]
    pub beta1: f32,
    /// AdamW's decay of the mean square
    #[arg(long, default_value_t = 0.999, value_name = "X", help_heading = "Optimizer")]
    pub beta2: f32,
    /// AdamW's epsilon
    #[arg(long, default_value_t = 1e-8, value_name = "X", help_heading = "Optimizer")]
    pub eps: f32,
    /// Largest norm of all gradients together; 0 for any
    #[arg(long, default_value_t = 1.0, value_name = "X", help_heading = "Optimizer")]
    pub clip: f32,
    /// Number format of the passes; adapters and optimizer are f32 always [default: bf16 on NVIDIA, f32 elsewhere]
    #[arg(long, value_enum, help_heading = "Optimizer")]
    pub precision: Option<PrecisionArg>,

    /// Keep so many MiB of activations for the gradient, and compute the rest again; 0: as few as possible [default: all]
    #[arg(long, value_name = "MIB", help_heading = "Optimizer")]
    pub activations: Option<usize>,
    /// Make quantised weights numbers of that format: more memory, quicker steps
    #[arg(long, help_heading = "Optimizer")]
    pub dequantise: bool,

    /// Steps between checkpoints; 0: at the end alone
    #[arg(long, default_value_t = 100, value_name = "N", help_heading = "Housekeeping")]
    pub save_every: u64,
    /// Checkpoints to keep, beside the best
    #[arg(long, default_value_t = 2, value_name = "N", help_heading = "Housekeeping")]
    pub keep: usize,
    /// Steps between validations; 0: before the first and behind the last
    #[arg(long, default_value_t = 50, value_name = "N", help_heading = "Housekeeping")]
    pub validate_every: u64,
    /// End after so many validations without a better loss; 0: never
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Housekeeping")]
    pub patience: u64,
}

/// Which tokens are learned.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LossOnArg {
    /// Completions, and the assistant's part of chats
    Completions,
    /// Prompts too
    Everything,
}

/// How the learning rate falls.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ScheduleArg {
    /// Not at all
    Constant,
    /// In equal steps
    Linear,
    /// Along half a cosine
    Cosine,
}

/// Number format of the passes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PrecisionArg {
    /// 32 bits
    F32,
    /// 16 bits, with sums in f32
    Bf16,
}

impl TrainArgs {
    /// What decides the numbers. `gpu` is an NVIDIA GPU.
    pub fn recipe(&self, gpu: bool) -> Recipe {
        let share = self.validation.as_ref().and_then(|text| text.parse().ok());
        Recipe {
            rank: self.rank,
            alpha: self.alpha.unwrap_or(2.0 * self.rank as f64),
            dropout: self.dropout,
            rslora: self.rslora,
            targets: self.targets.clone(),
            sequence: self.sequence,
            batch: self.batch,
            accumulation: self.accumulate,
            packing: !self.no_packing,
            loss_on: match self.loss_on {
                LossOnArg::Completions => LossOn::Completions,
                LossOnArg::Everything => LossOn::Everything,
            },
            length: self.steps.map_or(Length::Epochs(self.epochs.unwrap_or(1)), Length::Steps),
            shuffle: !self.no_shuffle,
            seed: self.seed,
            validation: share.unwrap_or(0.0),
            learning_rate: self.learning_rate,
            schedule: match self.schedule {
                ScheduleArg::Constant => Schedule::Constant,
                ScheduleArg::Linear => Schedule::Linear,
                ScheduleArg::Cosine => Schedule::Cosine,
            },
            warmup: self.warmup,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay: self.weight_decay,
            max_norm: self.clip,
            precision: match self.precision {
                Some(PrecisionArg::F32) => Precision::F32,
                Some(PrecisionArg::Bf16) => Precision::Bf16,
                None if gpu => Precision::Bf16,
                None => Precision::F32,
            },
            dequantise: self.dequantise,
            activations: self.activations.map(|mib| mib << 20),
        }
    }

    /// The files.
    pub fn sources(&self) -> Sources {
        let file = self.validation.as_ref().filter(|text| text.parse::<f64>().is_err());
        Sources {
            model: self.model.clone(),
            data: self.data.clone(),
            validation: file.map(PathBuf::from),
            test: self.test.clone(),
            adapter: self.adapter.clone(),
        }
    }

    /// Where to write, and how often.
    pub fn housekeeping(&self) -> Housekeeping {
        let (out, save_every, keep) = (self.out.clone(), self.save_every, self.keep);
        Housekeeping { out, save_every, keep, validate_every: self.validate_every, patience: self.patience }
    }
}
