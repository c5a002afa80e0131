//! PEFT folders: `adapter_config.json` and `adapter_model.safetensors`.

use super::{Adapter, AdapterFormat, Lora, PeftConfig, Tensor};
use crate::file::{read_needed_text, write_atomically};
use crate::safetensors::Safetensors;
use crate::{Error, Module, Result};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
pub(super) const CONFIG: &str = "adapter_config.json";
/// Larger than any adapter_config.json that there is.
pub(super) const LARGEST: usize = 4 << 20;

/// Around the names of modules in PEFT's keys.
const PREFIX: &str = "base_model.model.";

/// What a key of the file is.
enum Kind {
    A,
    B,
    Bias,
}

pub(super) fn read(folder: &Path, name: String) -> Result<Adapter> {
    let config_path = folder.join(CONFIG);
    let text = read_needed_text(&config_path, LARGEST, "a PEFT adapter has its configuration beside its weights")?;
    let config = PeftConfig::parse(&config_path, &text)?;
    let path = folder.join(WEIGHTS);
    let file = Safetensors::open(&path)?;
    let (mut a, mut b, mut biases) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for key in file.names() {
        let (module, kind) = parse_key(&path, key)?;
        let tensor = Tensor::read(key, file.get(key).expect("one of its names"))?;
        let twice = match kind {
            Kind::A => a.insert(module, tensor.check_matrix(&path, key)?),
            Kind::B => b.insert(module, tensor.check_matrix(&path, key)?),
            Kind::Bias if config.has_biases && tensor.shape.len() == 1 => biases.insert(module, tensor),
            Kind::Bias => {
                let problem = "is a bias, and adapter_config.json says bias = none, or it is no vector";
                return Err(Error::damaged(&path, key, problem));
            }
        };
        if twice.is_some() {
            let problem = "names a module a second time: the file holds several adapters; save them one by one";
            return Err(Error::damaged(&path, key, problem));
        }
    }
    let mut modules = BTreeMap::new();
    for (module, a) in a {
        let name = module.name();
        let b = b
            .remove(&module)
            .ok_or_else(|| Error::missing(&path, format!("lora_B of {name}"), "the file is not complete"))?;
        check(&config_path, &config, &name, &a, &b)?;
        modules.insert(module, Lora { a, b, scale: config.scale_of(&name) });
    }
    if let Some((module, _)) = b.first_key_value() {
        return Err(Error::missing(&path, format!("lora_A of {}", module.name()), "the file is not complete"));
    }
    if modules.is_empty() {
        return Err(Error::missing(&path, "every lora_A", "an adapter adapts at least one module"));
    }
    Ok(Adapter { name, format: AdapterFormat::Peft, config, modules, biases })
}

/// The weights of a module are what the configuration says of it.
fn check(path: &Path, config: &PeftConfig, module: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    if !config.targets(module) {
        let problem = format!("does not name {module}, which the weights have: PEFT would ignore them");
        return Err(Error::damaged(path, "target_modules", problem));
    }
    let rank = config.rank_of(module);
    if a.shape[0] != rank || b.shape[1] != rank {
        let problem = format!("says {rank} for {module}, whose A is {:?} and B {:?}", a.shape, b.shape);
        return Err(Error::damaged(path, "r, rank_pattern", problem));
    }
    Ok(())
}

/// `base_model.model.<module>.lora_A.weight`, or with an adapter's name before `.weight`.
fn parse_key(path: &Path, key: &str) -> Result<(Module, Kind)> {
    let unsupported = |remedy: &str| Error::unsupported(path, "a tensor", key, remedy);
    if key.contains(".lora_magnitude_vector") {
        return Err(unsupported("DoRA is not implemented: merge the adapter with PEFT, or train it without"));
    }
    if key.contains(".lora_embedding_") {
        return Err(unsupported("adapters of the embedding are not implemented: merge the adapter with PEFT"));
    }
    let name = key.strip_prefix(PREFIX).unwrap_or(key);
    let found = if let Some((module, rest)) = name.split_once(".lora_A.") {
        (module, rest, Kind::A)
    } else if let Some((module, rest)) = name.split_once(".lora_B.") {
        (module, rest, Kind::B)
    } else if let Some(module) = name.strip_suffix(".bias") {
        (module.strip_suffix(".base_layer").unwrap_or(module), "weight", Kind::Bias)
    } else {
        return Err(unsupported("only lora_A, lora_B and biases are read: merge the adapter with PEFT"));
    };
    let (module, rest, kind) = found;
    let adapter = rest.strip_suffix(".weight");
    if rest != "weight" && adapter.is_none_or(|adapter| adapter.contains('.')) {
        return Err(unsupported("only weights of lora_A and lora_B are read"));
    }
    let module = Module::named(module)
        .ok_or_else(|| unsupported("it names no linear layer of a Llama model: the adapter is for another family"))?;
    Ok((module, kind))
}

pub(super) fn write(adapter: &Adapter, folder: &Path) -> Result<()> {
    let path = folder.join(WEIGHTS);
    let mut tensors = BTreeMap::new();
    for (module, lora) in &adapter.modules {
        let name = module.name();
        check(&folder.join(CONFIG), &adapter.config, &name, &lora.a, &lora.b)?;
        let scale = adapter.config.scale_of(&name);
        if (scale - lora.scale).abs() > 1e-12 * lora.scale.abs() {
            let problem = format!("gives {name} the scale {scale}, and it has {}", lora.scale);
            return Err(Error::damaged(&folder.join(CONFIG), "lora_alpha", problem));
        }
        tensors.insert(format!("{PREFIX}{name}.lora_A.weight"), &lora.a);
        tensors.insert(format!("{PREFIX}{name}.lora_B.weight"), &lora.b);
    }
    for (module, bias) in &adapter.biases {
        // PEFT wraps a layer that it adapts, and keeps the original as its `base_layer`.
        let wrapped = if adapter.modules.contains_key(module) { ".base_layer" } else { "" };
        tensors.insert(format!("{PREFIX}{}{wrapped}.bias", module.name()), bias);
    }
    let wrong = |error: safetensors::SafeTensorError| Error::damaged(&path, "tensors", error.to_string());
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let view = TensorView::new(dtype(tensor), tensor.shape.clone(), &tensor.bytes).map_err(wrong)?;
        views.push((name, view));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(wrong)?;
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
    write_atomically(&path, &bytes)?;
    write_atomically(&folder.join(CONFIG), adapter.config.to_json().as_bytes())
}

fn dtype(tensor: &Tensor) -> Dtype {
    use candlewick_core::DType;
    match tensor.dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::U32 => Dtype::U32,
        DType::U8 => Dtype::U8,
    }
}
