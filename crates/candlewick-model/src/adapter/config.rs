//! PEFT's `adapter_config.json` (`LoraConfig`).

use super::Lora;
use super::targets::{Layers, Names, Patterns};
use crate::{Error, Module, Result};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// Fields without effect on what a trained adapter computes.
const WITHOUT_EFFECT: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Fields that are read here.
const READ: &[&str] = &[
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
];

/// The meaning of an adapter's configuration, with every field of its file.
#[derive(Clone)]
pub struct PeftConfig {
    /// r: the rank of modules without their own.
    pub rank: usize,
    /// lora_alpha of modules without their own.
    pub alpha: f64,
    /// The scale is alpha / sqrt(rank), not alpha / rank.
    pub rslora: bool,
    /// Biases of the model are part of the adapter.
    pub has_biases: bool,
    ranks: Patterns<usize>,
    alphas: Patterns<f64>,
    targets: Names,
    excluded: Option<Names>,
    layers: Option<Layers>,
    /// The file, with its fields in their order.
    fields: IndexMap<String, Value>,
    /// The two objects whose order has a meaning, which `fields` does not keep.
    ordered: Ordered,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Ordered {
    #[serde(default)]
    rank_pattern: Option<IndexMap<String, Value>>,
    #[serde(default)]
    alpha_pattern: Option<IndexMap<String, Value>>,
}

impl PeftConfig {
    /// Reads the text of an `adapter_config.json`; `path` stands for it in messages.
    ///
    /// # Errors
    /// A field that would change results in a way that is not implemented is refused by its name; so is a field that is not
    /// known, unless it is null, false or empty.
    pub fn parse(path: &Path, text: &str) -> Result<PeftConfig> {
        let json = |error: serde_json::Error| Error::damaged(path, "JSON", error.to_string());
        let fields: IndexMap<String, Value> = serde_json::from_str(text).map_err(json)?;
        let ordered: Ordered = serde_json::from_str(text).map_err(json)?;
        refuse(path, &fields)?;
        let get = |name: &str| fields.get(name).unwrap_or(&Value::Null);
        let needed = |name: &str| Error::missing(path, name, "the file must be PEFT's adapter_config.json of LoRA");
        let rank = read_rank(path, "r", fields.get("r").ok_or_else(|| needed("r"))?)?;
        let alpha = read_alpha(path, "lora_alpha", fields.get("lora_alpha").ok_or_else(|| needed("lora_alpha"))?)?;
        let mut ranks = IndexMap::new();
        for (key, value) in ordered.rank_pattern.iter().flatten() {
            ranks.insert(key, read_rank(path, "rank_pattern", value)?);
        }
        let mut alphas = IndexMap::new();
        for (key, value) in ordered.alpha_pattern.iter().flatten() {
            alphas.insert(key, read_alpha(path, "alpha_pattern", value)?);
        }
        let targets = Names::read(path, "target_modules", get("target_modules"))?;
        Ok(PeftConfig {
            rank,
            alpha,
            rslora: flag(path, "use_rslora", get("use_rslora"))?,
            has_biases: bias(path, get("bias"))?,
            ranks: Patterns::read(path, "rank_pattern", ranks.into_iter())?,
            alphas: Patterns::read(path, "alpha_pattern", alphas.into_iter())?,
            targets: targets.ok_or_else(|| needed("target_modules"))?,
            excluded: Names::read(path, "exclude_modules", get("exclude_modules"))?,
            layers: Layers::read(path, get("layers_to_transform"), get("layers_pattern"))?,
            ordered,
            fields,
        })
    }

    /// The configuration that PEFT would need to read these modules.
    pub fn describe(base: Option<&str>, modules: &BTreeMap<Module, Lora>) -> Result<PeftConfig> {
        let path = Path::new("adapter_config.json");
        let alpha = |lora: &Lora| alpha_for(lora.scale, lora.rank());
        let rank = most_common(modules.values().map(Lora::rank))
            .ok_or_else(|| Error::missing(path, "modules", "an adapter adapts at least one module"))?;
        // Bits, as floats have no order.
        let common =
            f64::from_bits(most_common(modules.values().map(|lora| alpha(lora).to_bits())).unwrap_or_default());
        let ranks = modules.iter().filter(|(_, lora)| lora.rank() != rank);
        let ranks: IndexMap<String, Value> = ranks.map(|(module, lora)| (module.name(), json!(lora.rank()))).collect();
        let alphas = modules.iter().filter(|(_, lora)| alpha(lora) != common);
        let alphas: IndexMap<String, Value> =
            alphas.map(|(module, lora)| (module.name(), number(alpha(lora)))).collect();
        let fields = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": rank,
            "lora_alpha": number(common),
            "lora_dropout": 0.0,
            "target_modules": target_names(modules.keys().copied()),
            "rank_pattern": ranks,
            "alpha_pattern": alphas,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "modules_to_save": null,
            "use_dora": false,
            "use_rslora": false,
        });
        PeftConfig::parse(path, &fields.to_string())
    }

    /// The rank that a module has.
    pub fn rank_of(&self, module: &str) -> usize {
        self.ranks.get(module).unwrap_or(self.rank)
    }

    /// What a module's B A is multiplied by.
    pub fn scale_of(&self, module: &str) -> f64 {
        let alpha = self.alphas.get(module).unwrap_or(self.alpha);
        let rank = self.rank_of(module) as f64;
        if self.rslora { alpha / rank.sqrt() } else { alpha / rank }
    }

    /// Whether PEFT would adapt this module.
    pub fn targets(&self, module: &str) -> bool {
        self.targets.has(module)
            && !self.excluded.as_ref().is_some_and(|excluded| excluded.has(module))
            && self.layers.as_ref().is_none_or(|layers| layers.has(module))
    }

    /// The model that the adapter is for, if the file says.
    pub fn base(&self) -> Option<&str> {
        self.fields.get("base_model_name_or_path").and_then(Value::as_str)
    }

    /// A field of the file.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// The file's text: every field that was read, in the same order.
    pub fn to_json(&self) -> String {
        struct File<'a>(&'a PeftConfig);
        impl serde::Serialize for File<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.fields.iter().map(|(name, value)| {
                    let Ordered { rank_pattern, alpha_pattern } = &self.0.ordered;
                    match (&**name, rank_pattern, alpha_pattern) {
                        ("rank_pattern", Some(map), _) | ("alpha_pattern", _, Some(map)) => {
                            (name, Either::Ordered(map))
                        }
                        _ => (name, Either::Plain(value)),
                    }
                }))
            }
        }
        #[derive(serde::Serialize)]
        #[serde(untagged)]
        enum Either<'a> {
            Ordered(&'a IndexMap<String, Value>),
            Plain(&'a Value),
        }
        serde_json::to_string_pretty(&File(self)).expect("JSON has a text") + "\n"
    }
}

impl PartialEq for PeftConfig {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields && self.ordered == other.ordered
    }
}

impl fmt::Debug for PeftConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeftConfig").field(&self.fields).finish()
    }
}

/// Refuses every field that would change results otherwise than is implemented.
fn refuse(path: &Path, fields: &IndexMap<String, Value>) -> Result<()> {
    let remedy = |name: &str| match name {
        "use_dora" => "merge the adapter with PEFT, or train it without DoRA",
        "modules_to_save" | "trainable_token_indices" => {
            "merge the adapter with PEFT: it replaces weights of the model"
        }
        "peft_type" => "LORA is",
        "init_lora_weights" => {
            "it changes the model's own weights: convert it with PEFT (path_initial_model_for_weight_conversion)"
        }
        _ => "its meaning is not implemented, and ignoring it could change results; remove it if it has no effect",
    };
    for (name, value) in fields {
        let good = match &**name {
            "peft_type" => value == "LORA",
            // These start B A at zero, or from the data, and leave the model alone.
            "init_lora_weights" => {
                value.is_null()
                    || value.is_boolean()
                    || matches!(value.as_str(), Some("gaussian" | "eva" | "orthogonal"))
            }
            name => READ.contains(&name) || WITHOUT_EFFECT.contains(&name) || is_neutral(value),
        };
        if !good {
            return Err(Error::unsupported(path, name, value, remedy(name)));
        }
    }
    if fields.contains_key("peft_type") {
        return Ok(());
    }
    Err(Error::missing(path, "peft_type", "the file must be PEFT's adapter_config.json of LoRA"))
}

fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    }
}

fn flag(path: &Path, name: &str, value: &Value) -> Result<bool> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        other => Err(Error::damaged(path, name, format!("{other} is neither true nor false"))),
    }
}

fn bias(path: &Path, value: &Value) -> Result<bool> {
    match value.as_str() {
        None if value.is_null() => Ok(false),
        Some("none") => Ok(false),
        Some("all" | "lora_only") => Ok(true),
        _ => Err(Error::unsupported(path, "bias", value, "none, all and lora_only are")),
    }
}

pub(super) fn read_rank(path: &Path, field: &str, value: &Value) -> Result<usize> {
    const MOST: u64 = 1 << 16;
    let rank = value.as_u64().filter(|rank| (1..=MOST).contains(rank));
    rank.map(|rank| rank as usize)
        .ok_or_else(|| Error::damaged(path, field, format!("{value} is not a rank between 1 and {MOST}")))
}

fn read_alpha(path: &Path, field: &str, value: &Value) -> Result<f64> {
    let alpha = value.as_f64().filter(|alpha| alpha.is_finite());
    alpha.ok_or_else(|| Error::damaged(path, field, format!("{value} is not a number")))
}

/// The alpha whose quotient by the rank is exactly this scale, or the nearest that there is.
fn alpha_for(scale: f64, rank: usize) -> f64 {
    let alpha = scale * rank as f64;
    let near = [alpha, alpha.next_up(), alpha.next_down()];
    near.into_iter().find(|alpha| alpha / rank as f64 == scale).unwrap_or(alpha)
}

/// Whole numbers without a point, as PEFT's own files have them.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

fn most_common<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_insert(0) += 1);
    counts.into_iter().max_by_key(|&(_, count)| count).map(|(value, _)| value)
}

/// Short names where layers 0, 1, .. all have the same modules; else every name in full.
fn target_names(modules: impl Iterator<Item = Module> + Clone) -> Vec<String> {
    let mut layers: BTreeMap<usize, BTreeSet<_>> = BTreeMap::new();
    for module in modules.clone() {
        if let Module::Layer(layer, linear) = module {
            layers.entry(layer).or_default().insert(linear);
        }
    }
    let first = layers.values().next();
    let alike = layers.iter().enumerate().all(|(nth, (&layer, linears))| nth == layer && Some(linears) == first);
    let short = |module: Module| match module {
        Module::Layer(_, linear) => linear.module().rsplit('.').next().unwrap_or_default().to_owned(),
        Module::Head => module.name(),
    };
    let names = modules.map(|module| if alike { short(module) } else { module.name() });
    names.collect::<BTreeSet<_>>().into_iter().collect()
}
