//! LoRA adapters: PEFT folders read and written, mlx-lm folders read.

mod config;
mod diff;
mod fit;
mod info;
mod mlx;
mod peft;
mod targets;
pub(crate) mod tensor;

pub use config::PeftConfig;
pub use diff::{Diff, ModuleDiff};
pub use fit::Fitted;
pub use info::Info;
pub use tensor::Tensor;

use crate::{Error, Module, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// A LoRA adapter, as its files say it: nothing is converted or rounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// What users call it: its folder's name.
    pub name: String,
    /// Where it comes from.
    pub format: AdapterFormat,
    /// PEFT's configuration; made up for an adapter of mlx-lm.
    pub config: PeftConfig,
    /// The modules that it adapts.
    pub modules: BTreeMap<Module, Lora>,
    /// Biases that replace those of the model (PEFT's `bias`).
    pub biases: BTreeMap<Module, Tensor>,
}

/// What an adapter adds to one module: y += scale · (x Aᵀ) Bᵀ.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// [rank, in].
    pub a: Tensor,
    /// [out, rank].
    pub b: Tensor,
    /// alpha / rank, alpha / sqrt(rank) (rslora), or mlx-lm's own `scale`.
    pub scale: f64,
}

impl Lora {
    /// Columns of x Aᵀ.
    pub fn rank(&self) -> usize {
        self.a.shape[0]
    }

    /// [out, in] of the module.
    pub fn shape(&self) -> [usize; 2] {
        [self.b.shape[0], self.a.shape[1]]
    }
}

/// The formats of adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterFormat {
    /// Hugging Face's PEFT: `adapter_config.json` and `adapter_model.safetensors`.
    Peft,
    /// Apple's mlx-lm: `adapter_config.json` and `adapters.safetensors`.
    Mlx,
}

impl fmt::Display for AdapterFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            AdapterFormat::Peft => "PEFT",
            AdapterFormat::Mlx => "mlx-lm",
        })
    }
}

impl Adapter {
    /// Reads an adapter's folder, of either format.
    pub fn open(folder: &Path) -> Result<Adapter> {
        let name =
            folder.canonicalize().ok().and_then(|path| path.file_name().map(|name| name.to_string_lossy().into()));
        let name = name.unwrap_or_else(|| "adapter".to_owned());
        if folder.join(peft::WEIGHTS).is_file() {
            peft::read(folder, name)
        } else if folder.join(mlx::WEIGHTS).is_file() {
            mlx::read(folder, name)
        } else if folder.join("adapter_model.bin").is_file() {
            let remedy = "it is a pickle, which can run code: save it anew with safe_serialization=True";
            Err(Error::unsupported(folder, "format", "adapter_model.bin", remedy))
        } else {
            let what = format!("{} (PEFT) or {} (mlx-lm)", peft::WEIGHTS, mlx::WEIGHTS);
            Err(Error::missing(folder, what, "an adapter is a folder with weights and adapter_config.json"))
        }
    }

    /// An adapter of these modules, with a configuration that says the same. `base` names the model that it is for.
    pub fn new(name: &str, base: Option<&str>, modules: BTreeMap<Module, Lora>) -> Result<Adapter> {
        let config = PeftConfig::describe(base, &modules)?;
        let biases = BTreeMap::new();
        Ok(Adapter { name: name.to_owned(), format: AdapterFormat::Peft, config, modules, biases })
    }

    /// Writes a PEFT folder, which need not exist. Each of its two files is replaced as a whole, the weights first.
    pub fn write(&self, folder: &Path) -> Result<()> {
        peft::write(self, folder)
    }

    /// Reads an adapter of either format and writes it as a PEFT folder, numbers unchanged.
    pub fn convert(from: &Path, to: &Path) -> Result<Adapter> {
        let adapter = Adapter::open(from)?;
        adapter.write(to)?;
        Ok(adapter)
    }
}
