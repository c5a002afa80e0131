//! mlx-lm's folders: `adapter_config.json` and `adapters.safetensors`, whose A and B are transposed.

use super::config::read_rank;
use super::peft::{CONFIG, LARGEST};
use super::{Adapter, AdapterFormat, Lora, PeftConfig, Tensor};
use crate::file::read_needed_text;
use crate::safetensors::Safetensors;
use crate::{Error, Module, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) const WEIGHTS: &str = "adapters.safetensors";

/// What the configuration says of every module.
pub(crate) struct MlxConfig {
    rank: usize,
    scale: f64,
    base: Option<String>,
}

impl MlxConfig {
    /// Reads the text of an `adapter_config.json`. Besides `lora_parameters` it lists how the adapter was trained.
    pub fn parse(path: &Path, text: &str) -> Result<MlxConfig> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| Error::damaged(path, "JSON", error.to_string()))?;
        match &value["fine_tune_type"] {
            Value::Null => {}
            kind if kind == "lora" => {}
            kind => {
                return Err(Error::unsupported(path, "fine_tune_type", kind, "lora is: fuse the adapter with mlx-lm"));
            }
        }
        if value["use_dora"] == Value::Bool(true) {
            return Err(Error::unsupported(path, "use_dora", "true", "fuse the adapter with mlx-lm"));
        }
        let parameters = value["lora_parameters"].as_object();
        let parameters =
            parameters.ok_or_else(|| Error::missing(path, "lora_parameters", "the file must be mlx-lm's of LoRA"))?;
        for (name, value) in parameters {
            if name == "alpha" {
                // Old versions multiplied the scale by alpha / rank, newer ones do not read it.
                let remedy = "say the whole factor in scale, and remove alpha";
                return Err(Error::unsupported(path, "lora_parameters.alpha", value, remedy));
            }
            if !["rank", "scale", "dropout", "keys"].contains(&&**name) {
                let remedy = "rank, scale, dropout and keys are";
                return Err(Error::unsupported(path, format!("lora_parameters.{name}"), value, remedy));
            }
        }
        let scale = parameters.get("scale").and_then(Value::as_f64).filter(|scale| scale.is_finite());
        Ok(MlxConfig {
            rank: read_rank(path, "lora_parameters.rank", parameters.get("rank").unwrap_or(&Value::Null))?,
            scale: scale
                .ok_or_else(|| Error::missing(path, "lora_parameters.scale", "a finite number multiplies B A"))?,
            base: value["model"].as_str().map(str::to_owned),
        })
    }
}

pub(super) fn read(folder: &Path, name: String) -> Result<Adapter> {
    let config_path = folder.join(CONFIG);
    let text = read_needed_text(&config_path, LARGEST, "an mlx-lm adapter has its configuration beside its weights")?;
    let MlxConfig { rank, scale, base } = MlxConfig::parse(&config_path, &text)?;
    let path = folder.join(WEIGHTS);
    let file = Safetensors::open(&path)?;
    let (mut a, mut b) = (BTreeMap::new(), BTreeMap::new());
    for key in file.names() {
        let (module, side) = key.rsplit_once('.').unwrap_or_default();
        let (into, rank_at) = match side {
            "lora_a" => (&mut a, 1),
            "lora_b" => (&mut b, 0),
            _ => return Err(Error::unsupported(&path, "a tensor", key, "only lora_a and lora_b are read")),
        };
        let module = Module::named(module)
            .ok_or_else(|| Error::unsupported(&path, "a tensor", key, "it names no linear layer of a Llama model"))?;
        let tensor = Tensor::read(key, file.get(key).expect("one of its names"))?.check_matrix(&path, key)?;
        if tensor.shape[rank_at] != rank {
            let problem = format!("has shape {:?}, and the configuration says rank {rank}", tensor.shape);
            return Err(Error::damaged(&path, key, problem));
        }
        into.insert(module, tensor.transposed());
    }
    let mut modules = BTreeMap::new();
    for (module, a) in a {
        let missing = || Error::missing(&path, format!("lora_b of {}", module.name()), "the file is not complete");
        modules.insert(module, Lora { a, b: b.remove(&module).ok_or_else(missing)?, scale });
    }
    if let Some((module, _)) = b.first_key_value() {
        return Err(Error::missing(&path, format!("lora_a of {}", module.name()), "the file is not complete"));
    }
    let config = PeftConfig::describe(base.as_deref(), &modules)?;
    Ok(Adapter { name, format: AdapterFormat::Mlx, config, modules, biases: BTreeMap::new() })
}
