//! The same from a GGUF file's metadata (keys: ggml's `docs/gguf.md` and llama.cpp's `llama-arch.cpp`).

use super::{Biases, Config, Family, Rope, Scaling};
use crate::gguf::{Gguf, Value};
use crate::{Error, Format, Result};
use candlewick_core::DType;
use candlewick_core::op::Pairs;

/// Keys of the architecture that are read here, or that say nothing about a forward pass.
const KNOWN: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "vocab_size",
];

/// Keys that change the forward pass of related models: each must have the value that changes nothing.
const MUST_BE_NEUTRAL: &[(&str, f64)] = &[
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.scale", 0.0),
    ("attn_logit_softcapping", 0.0),
    ("embedding_scale", 1.0),
    ("expert_count", 0.0),
    ("expert_used_count", 0.0),
    ("final_logit_softcapping", 0.0),
    ("logit_scale", 1.0),
    ("residual_scale", 1.0),
    ("rope.scale_linear", 1.0),
    ("rope.scaling.attn_factor", 1.0),
    ("use_parallel_residual", 0.0),
];

pub(super) fn read(file: &Gguf) -> Result<Config> {
    let path = file.path();
    let family = family(file)?;
    let arch = family.name();
    let size = |key: &str| -> Result<Option<usize>> {
        let key = format!("{arch}.{key}");
        if let Some(Value::Array(_)) = file.metadata().get(&key) {
            return Err(Error::unsupported(path, key, "one number per layer", "models whose layers are alike are"));
        }
        let number = file.unsigned(&key)?;
        number
            .map(|number| usize::try_from(number).map_err(|_| Error::damaged(path, &*key, "is too large")))
            .transpose()
    };
    let needed = |key: &str| {
        let missing = || Error::missing(path, format!("{arch}.{key}"), "the file must hold a whole model");
        size(key)?.ok_or_else(missing)
    };
    let (hidden, heads) = (needed("embedding_length")?, needed("attention.head_count")?);
    let head_dim = match size("attention.key_length")? {
        Some(size) => size,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(Error::damaged(path, "embedding_length", format!("{hidden} is not {heads} equal heads"))),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = size(key)?.filter(|&other| other != head_dim) {
            let remedy = format!("heads whose {head_dim} elements are all alike are");
            return Err(Error::unsupported(path, format!("{arch}.{key}"), other, remedy));
        }
    }
    let trained = needed("context_length")?;
    let context = size("attention.sliding_window")?.filter(|&window| window > 0).unwrap_or(trained).min(trained);
    let eps = format!("{arch}.attention.layer_norm_rms_epsilon");
    let norm_eps = file.float(&eps)?.ok_or_else(|| Error::missing(path, eps, "the file must hold a whole model"))?;
    let vocab = match (size("vocab_size")?, file.tensor("token_embd.weight")) {
        (Some(vocab), _) => vocab,
        (None, Some((embedding, _))) => embedding.rows(),
        (None, None) => return Err(Error::missing(path, "token_embd.weight", "the file must hold a whole model")),
    };
    let has = |name: &str| file.tensor(name).is_some();
    Ok(Config {
        family,
        layers: needed("block_count")?,
        hidden,
        intermediate: needed("feed_forward_length")?,
        heads,
        kv_heads: size("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        vocab,
        context,
        norm_eps: norm_eps as f32,
        rope: rope(file, family)?,
        tied: !has("output.weight"),
        biases: Biases {
            qkv: has("blk.0.attn_q.bias"),
            output: has("blk.0.attn_output.bias"),
            mlp: has("blk.0.ffn_gate.bias"),
        },
        qk_norm: has("blk.0.attn_q_norm.weight"),
        unknown: rest(file, arch)?,
    })
}

fn family(file: &Gguf) -> Result<Family> {
    let path = file.path();
    let name = file.string("general.architecture")?;
    let name = name.ok_or_else(|| Error::missing(path, "general.architecture", "the file must hold a model"))?;
    if let Some(parts) = file.unsigned("split.count")?.filter(|&parts| parts > 1) {
        return Err(Error::unsupported(path, "split.count", parts, "join the parts: llama-gguf-split --merge"));
    }
    if let Some(kind) = file.string("general.type")?.filter(|&kind| kind != "model") {
        return Err(Error::unsupported(path, "general.type", kind, "a whole model is; adapters are PEFT folders"));
    }
    match Family::named(name) {
        Some(family) if family != Family::Mistral => Ok(family),
        _ => Err(Error::unsupported(path, "general.architecture", name, "llama, qwen2 and qwen3 are")),
    }
}

fn rope(file: &Gguf, family: Family) -> Result<Rope> {
    let (path, arch) = (file.path(), family.name());
    let factor = file.float(&format!("{arch}.rope.scaling.factor"))?;
    let kind = format!("{arch}.rope.scaling.type");
    let scaling = match (file.string(&kind)?, file.tensor("rope_freqs.weight")) {
        (None | Some("none"), None) => Scaling::None,
        (None | Some("none"), Some((tensor, bytes))) if tensor.format == Format::Float(DType::F32) => {
            let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            Scaling::Factors(numbers.collect())
        }
        (Some("linear"), None) => {
            let missing = || Error::missing(path, format!("{arch}.rope.scaling.factor"), "linear scaling needs it");
            Scaling::Linear { factor: factor.ok_or_else(missing)? }
        }
        (Some("none" | "linear") | None, Some((tensor, _))) => {
            let remedy = "factors in f32 are, without another scaling";
            return Err(Error::unsupported(path, "rope_freqs.weight", tensor.format, remedy));
        }
        (Some(other), _) => return Err(Error::unsupported(path, kind, other, "none and linear are")),
    };
    let pairs = if family == Family::Llama { Pairs::Interleaved } else { Pairs::Halves };
    let theta = file.float(&format!("{arch}.rope.freq_base"))?.unwrap_or(10_000.0);
    Ok(Rope { theta, scaling, pairs })
}

/// Refuses what changes results, and returns the keys of the architecture that nobody here knows.
fn rest(file: &Gguf, arch: &str) -> Result<Vec<String>> {
    let mut unknown = Vec::new();
    for key in file.metadata().keys() {
        let Some(name) = key.strip_prefix(arch).and_then(|rest| rest.strip_prefix('.')) else { continue };
        if let Some((_, neutral)) = MUST_BE_NEUTRAL.iter().find(|(known, _)| *known == name) {
            let value = match file.bool(key) {
                Ok(Some(flag)) => f64::from(u8::from(flag)),
                _ => file.float(key)?.unwrap_or(*neutral),
            };
            if value != *neutral {
                let remedy = "the model's results would not be its own";
                return Err(Error::unsupported(file.path(), key, value, remedy));
            }
        } else if !KNOWN.contains(&name) {
            unknown.push(key.clone());
        }
    }
    Ok(unknown)
}
