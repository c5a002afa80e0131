//! `config.json`, as transformers 4 and 5 write it.

use super::{Biases, Config, Family, Rope, Scaling};
use crate::{Error, Result};
use candlewick_core::op::Pairs;
use serde_json::{Map, Value};
use std::path::Path;

/// Fields that say nothing about a forward pass: names, versions, dtypes, what training or generating does.
const WITHOUT_EFFECT: &[&str] = &[
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "_attn_implementation_autoset",
    "auto_map",
    "bos_token_id",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "max_length",
    "max_window_layers",
    "mlp_dropout",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "return_dict",
    "task_specific_params",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
];

/// Fields of related models that change the forward pass, which none of these families has: each must be neutral.
const MUST_BE_NEUTRAL: &[(&str, f64)] = &[
    ("attention_multiplier", 1.0),
    ("attn_logit_softcapping", 0.0),
    ("clip_qkv", 0.0),
    ("embedding_multiplier", 1.0),
    ("final_logit_softcapping", 0.0),
    ("logit_scale", 1.0),
    ("logits_scaling", 1.0),
    ("num_experts", 0.0),
    ("num_experts_per_tok", 0.0),
    ("num_local_experts", 0.0),
    ("partial_rotary_factor", 1.0),
    ("residual_multiplier", 1.0),
    ("rope_interleaved", 0.0),
    ("rotary_pct", 1.0),
    ("use_parallel_residual", 0.0),
    ("use_qk_norm", 0.0),
];

/// Fields that must not be there, unless they are null, false or empty.
const MUST_BE_ABSENT: &[&str] = &["no_rope_layers", "quantization_config", "compression_config", "mlp_layer_types"];

/// Takes field after field out of the object; what is left was not understood.
struct Fields<'a> {
    path: &'a Path,
    map: Map<String, Value>,
}

impl Fields<'_> {
    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, value: &Value, what: &str) -> Error {
        Error::damaged(self.path, name, format!("{} is not {what}", brief(value)))
    }

    fn size(&mut self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.map(Some).ok_or_else(|| self.wrong(name, &value, "a size"))
    }

    fn needed_size(&mut self, name: &str) -> Result<usize> {
        let remedy = "the file must be a model's config.json, as transformers writes it";
        self.size(name)?.ok_or_else(|| Error::missing(self.path, name, remedy))
    }

    fn number(&mut self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(name, &value, "a number"))
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(name, &value, "true or false"))
    }

    fn unsupported(&self, name: &str, value: impl ToString, remedy: &str) -> Error {
        Error::unsupported(self.path, name, value, remedy)
    }
}

pub(super) fn read(path: &Path, text: &str) -> Result<Config> {
    let map = serde_json::from_str(text).map_err(|error| Error::damaged(path, "JSON", error.to_string()))?;
    let mut fields = Fields { path, map };
    let family = family(&mut fields)?;
    activation(&mut fields)?;
    let hidden = fields.needed_size("hidden_size")?;
    let heads = fields.needed_size("num_attention_heads")?;
    let head_dim = match fields.size("head_dim")? {
        Some(size) => size,
        None if family == Family::Qwen3 => 128, // Qwen3Config's own default.
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(Error::damaged(path, "hidden_size", format!("{hidden} is not {heads} heads of one size"))),
    };
    let kv_heads = match fields.size("num_key_value_heads")? {
        Some(count) => count,
        None if family == Family::Llama => heads,
        None => {
            return Err(Error::missing(path, "num_key_value_heads", "say it: its default differs between versions"));
        }
    };
    let trained = fields.needed_size("max_position_embeddings")?;
    let layers = fields.needed_size("num_hidden_layers")?;
    let config = Config {
        family,
        layers,
        hidden,
        intermediate: fields.needed_size("intermediate_size")?,
        heads,
        kv_heads,
        head_dim,
        vocab: fields.needed_size("vocab_size")?,
        context: context(&mut fields, family, trained)?,
        norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        rope: rope(&mut fields)?,
        tied: fields.flag("tie_word_embeddings")?.unwrap_or(false),
        biases: biases(&mut fields, family)?,
        qk_norm: family == Family::Qwen3,
        unknown: Vec::new(),
    };
    let unknown = rest(fields)?;
    Ok(Config { unknown, ..config })
}

fn family(fields: &mut Fields<'_>) -> Result<Family> {
    let Some(value) = fields.take("model_type") else {
        return Err(Error::missing(fields.path, "model_type", "the file must be a model's config.json"));
    };
    let name = value.as_str().unwrap_or_default();
    Family::named(name)
        .ok_or_else(|| fields.unsupported("model_type", brief(&value), "llama, mistral, qwen2 and qwen3 are"))
}

fn activation(fields: &mut Fields<'_>) -> Result<()> {
    match fields.take("hidden_act") {
        None => Ok(()),
        Some(value) if matches!(value.as_str(), Some("silu" | "swish")) => Ok(()),
        Some(value) => Err(fields.unsupported("hidden_act", brief(&value), "the families' own, silu, is")),
    }
}

fn biases(fields: &mut Fields<'_>, family: Family) -> Result<Biases> {
    let attention = fields.flag("attention_bias")?;
    let mlp = fields.flag("mlp_bias")?;
    Ok(match family {
        Family::Llama => {
            let attention = attention.unwrap_or(false);
            Biases { qkv: attention, output: attention, mlp: mlp.unwrap_or(false) }
        }
        Family::Qwen3 => Biases { qkv: attention.unwrap_or(false), output: attention.unwrap_or(false), mlp: false },
        // These models do not read the fields.
        Family::Mistral => Biases::default(),
        Family::Qwen2 => Biases { qkv: true, ..Biases::default() },
    })
}

/// The context, which a sliding window limits: up to its width the window shows every earlier token.
fn context(fields: &mut Fields<'_>, family: Family, trained: usize) -> Result<usize> {
    let window = fields.size("sliding_window")?;
    let used = fields.flag("use_sliding_window")?;
    let kinds = fields.take("layer_types");
    let slides = match (&kinds, family) {
        (Some(Value::Array(kinds)), _) => {
            let known = |kind: &&Value| matches!(kind.as_str(), Some("full_attention" | "sliding_attention"));
            if let Some(kind) = kinds.iter().find(|kind| !known(kind)) {
                return Err(fields.unsupported("layer_types", brief(kind), "full and sliding attention are"));
            }
            kinds.iter().any(|kind| kind == "sliding_attention")
        }
        (Some(value), _) => return Err(fields.wrong("layer_types", value, "a list")),
        (None, Family::Mistral) => window.is_some(),
        (None, Family::Qwen2 | Family::Qwen3) => used.unwrap_or(false),
        (None, Family::Llama) => false,
    };
    match window {
        Some(window) if slides => Ok(trained.min(window)),
        None if slides => Err(Error::missing(fields.path, "sliding_window", "layers with a window must say its width")),
        _ => Ok(trained),
    }
}

/// transformers 4: `rope_theta` and `rope_scaling`; transformers 5: both in `rope_parameters`.
fn rope(fields: &mut Fields<'_>) -> Result<Rope> {
    let mut theta = fields.number("rope_theta")?;
    let mut scaling = Scaling::None;
    for name in ["rope_parameters", "rope_scaling"] {
        let object = match fields.take(name) {
            None => continue,
            Some(Value::Object(object)) => object,
            Some(value) => return Err(fields.wrong(name, &value, "an object")),
        };
        let mut inner = Fields { path: fields.path, map: object };
        theta = inner.number("rope_theta")?.or(theta);
        scaling = read_scaling(&mut inner)?;
        if inner.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(inner.unsupported("partial_rotary_factor", "other than 1", "heads that turn whole are"));
        }
        if let Some((field, value)) = inner.map.iter().find(|(_, value)| !is_neutral(value)) {
            return Err(inner.unsupported(&format!("{name}.{field}"), brief(value), "remove it if it has no effect"));
        }
    }
    Ok(Rope { theta: theta.unwrap_or(10_000.0), scaling, pairs: Pairs::Halves })
}

fn read_scaling(fields: &mut Fields<'_>) -> Result<Scaling> {
    let kind = fields.take("rope_type").or(fields.take("type"));
    fields.map.remove("type");
    let kind = match &kind {
        None => "default",
        Some(value) => value.as_str().ok_or_else(|| fields.wrong("rope_type", value, "a name"))?,
    };
    let mut needed = |name: &str| {
        let value = fields.number(name)?;
        value.ok_or_else(|| Error::missing(fields.path, name, format!("rope_type {kind} needs it")))
    };
    match kind {
        "default" => Ok(Scaling::None),
        "linear" => Ok(Scaling::Linear { factor: needed("factor")? }),
        "llama3" => Ok(Scaling::Llama3 {
            factor: needed("factor")?,
            low: needed("low_freq_factor")?,
            high: needed("high_freq_factor")?,
            original_context: needed("original_max_position_embeddings")?,
        }),
        _ => Err(fields.unsupported("rope_type", kind, "default, linear and llama3 are")),
    }
}

/// Refuses what changes results, and returns the names of what nobody here knows.
fn rest(mut fields: Fields<'_>) -> Result<Vec<String>> {
    for &(name, neutral) in MUST_BE_NEUTRAL {
        if let Some(value) = fields.take(name) {
            let number = value.as_f64().or(value.as_bool().map(|flag| f64::from(u8::from(flag))));
            if number != Some(neutral) && !is_neutral(&value) {
                return Err(fields.unsupported(name, brief(&value), "the model's results would not be its own"));
            }
        }
    }
    for &name in MUST_BE_ABSENT {
        if let Some(value) = fields.take(name)
            && !is_neutral(&value)
        {
            return Err(fields.unsupported(name, brief(&value), "use the model's plain float weights, or a GGUF file"));
        }
    }
    Ok(fields.map.into_iter().map(|(name, _)| name).filter(|name| !WITHOUT_EFFECT.contains(&&**name)).collect())
}

/// Null, false, and empty things.
fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn brief(value: &Value) -> String {
    value.to_string()
}
