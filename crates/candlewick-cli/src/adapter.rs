//! `candlewick adapter`: what adapters are, as PEFT has them, and how they differ.

use candlewick_lm::Result;
use candlewick_model::Adapter;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Flags of `adapter`.
#[derive(Args)]
#[command(after_help = "\
An adapter is a folder: of PEFT (adapter_config.json and adapter_model.safetensors) or of mlx-lm (adapters.safetensors).

Examples:
  candlewick adapter info my-adapter
  candlewick adapter convert from-mlx to-peft
  candlewick adapter diff before after")]
pub struct AdapterArgs {
    #[command(subcommand)]
    command: AdapterCommand,
}

#[derive(Subcommand)]
enum AdapterCommand {
    /// Show what an adapter adapts: modules, ranks, scales, its base model.
    Info {
        /// Folders of adapters
        #[arg(required = true)]
        folders: Vec<PathBuf>,
    },
    /// Write an adapter of either format as a PEFT folder, its numbers unchanged.
    Convert {
        /// The adapter
        from: PathBuf,
        /// The folder to write
        to: PathBuf,
    },
    /// Compare what two adapters add to a model, module by module.
    Diff {
        /// One
        left: PathBuf,
        /// The other
        right: PathBuf,
    },
}

pub(crate) fn run(args: &AdapterArgs) -> Result<()> {
    match &args.command {
        AdapterCommand::Info { folders } => {
            for folder in folders {
                println!("{}", Adapter::open(folder)?.info());
            }
        }
        AdapterCommand::Convert { from, to } => {
            let adapter = Adapter::convert(from, to)?;
            println!("{} ({}) written to {} as PEFT's", adapter.name, adapter.format, to.display());
        }
        AdapterCommand::Diff { left, right } => {
            println!("{}", Adapter::open(left)?.diff(&Adapter::open(right)?));
        }
    }
    Ok(())
}
