//! `candlewick merge`: adapters into a model's weights, and out again.

use crate::generate::adapter_flag::AdapterFlag;
use candlewick_lm::{Error, Result};
use candlewick_model::Adapter;
use candlewick_model::merge::{merge_folder, unmerge_folder};
use clap::Args;
use indicatif::ProgressBar;
use std::path::PathBuf;

/// Flags of `merge`.
#[derive(Args)]
#[command(after_help = "\
The result has the base's number formats: W' = W + scale * B A, summed in f64 and rounded once. With --undo it keeps what
gives every bit of W back, in a file as large as the weights that were merged into.

Examples:
  candlewick merge --model llama --adapter my-adapter --out merged
  candlewick merge --model llama --adapter a=0.5 --adapter b --out merged --undo
  candlewick merge --unmerge merged --out llama-again")]
pub struct MergeArgs {
    /// The base model: a Hugging Face folder with float weights
    #[arg(long, value_name = "FOLDER", required_unless_present = "unmerge")]
    pub model: Option<PathBuf>,
    /// An adapter, and how much of it; may be given several times
    #[arg(long = "adapter", value_name = "FOLDER[=STRENGTH]", required_unless_present = "unmerge")]
    pub adapters: Vec<AdapterFlag>,
    /// The folder to write
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Keep what gives the base's weights back
    #[arg(long)]
    pub undo: bool,
    /// Take the adapters out of a folder that was merged with --undo
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["model", "adapters", "undo"])]
    pub unmerge: Option<PathBuf>,
}

pub(crate) fn run(args: &MergeArgs) -> Result<()> {
    let bar = ProgressBar::new_spinner();
    let progress = |name: &str| {
        bar.set_message(name.to_owned());
        bar.tick();
    };
    match (&args.unmerge, &args.model) {
        (Some(merged), _) => unmerge_folder(merged, &args.out, &progress)?,
        (None, Some(model)) => {
            let opened = args.adapters.iter().map(|flag| match &flag.folder {
                Some(folder) => Ok((Adapter::open(folder)?, flag.strength)),
                None => {
                    let remedy = "name the adapters to merge";
                    Err(Error::Refused { what: "merge".into(), problem: "none".into(), remedy: remedy.into() })
                }
            });
            let adapters = opened.collect::<Result<Vec<(Adapter, f64)>>>()?;
            let adapters: Vec<(&Adapter, f64)> =
                adapters.iter().map(|(adapter, strength)| (adapter, *strength)).collect();
            merge_folder(model, &adapters, &args.out, args.undo, &progress)?;
        }
        (None, None) => unreachable!("clap asks for one of them"),
    }
    bar.finish_and_clear();
    println!("{}", args.out.display());
    Ok(())
}
