//! `tokenizer.json`, through the `tokenizers` crate, after a look at what it would take on trust.

use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// Larger than any tokenizer.json that there is.
pub(super) const LARGEST: usize = 128 << 20;

/// The parts that tokenizers of the Llama family are made of. Others are refused: each is more of somebody else's code for
/// a hostile file to reach.
const PARTS: &[(&str, &[&str])] = &[
    ("normalizer", &["Sequence", "NFC", "NFD", "NFKC", "NFKD", "Prepend", "Replace", "Strip", "Lowercase"]),
    ("pre_tokenizer", &["Sequence", "ByteLevel", "Split", "Digits", "Metaspace", "Punctuation", "WhitespaceSplit"]),
    ("post_processor", &["Sequence", "ByteLevel", "TemplateProcessing"]),
    ("decoder", &["Sequence", "ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"]),
];

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    model: Model<'a>,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(flatten)]
    parts: HashMap<String, Value>,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    dropout: Option<f64>,
    #[serde(borrow)]
    vocab: HashMap<Cow<'a, str>, u32>,
    #[serde(borrow)]
    merges: Vec<Merge<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge<'a> {
    Pair(String, String),
    #[serde(borrow)]
    Line(Cow<'a, str>),
}

pub(super) fn read(path: &Path, text: &str) -> Result<tokenizers::Tokenizer> {
    let wrong = |error: &dyn ToString| Error::damaged(path, "tokenizer", error.to_string());
    let file: File<'_> = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    check_model(path, &file.model)?;
    for (part, known) in PARTS {
        if let Some(value) = file.parts.get(*part) {
            check_part(path, part, known, value)?;
        }
    }
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(text).map_err(|error| wrong(&error))?;
    for Added { id, content } in &file.added_tokens {
        // The crate numbers added tokens anew where the vocabulary has gaps, and only warns.
        let found = tokenizer.token_to_id(content);
        if found != Some(*id) {
            let problem = format!("{content:?} should be token {id}, and is {found:?}");
            return Err(Error::damaged(path, "added_tokens", problem));
        }
    }
    // Files keep what somebody once trained with; prompts are neither cut nor filled up here.
    tokenizer.with_padding(None).with_truncation(None).map_err(|error| wrong(&error))?;
    Ok(tokenizer)
}

/// A BPE whose merges stay within its vocabulary: the crate's builder relies on it.
fn check_model(path: &Path, model: &Model<'_>) -> Result<()> {
    if let Some(kind) = model.kind.as_deref().filter(|&kind| kind != "BPE") {
        return Err(Error::unsupported(path, "model.type", kind, "BPE is, which all models of the family have"));
    }
    for (field, text) in [
        ("model.continuing_subword_prefix", &model.continuing_subword_prefix),
        ("model.end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
            return Err(Error::unsupported(path, field, text, "models of the family have none"));
        }
    }
    if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
        return Err(Error::unsupported(path, "model.dropout", dropout, "equal texts get equal tokens: remove it"));
    }
    for merge in &model.merges {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (&**left, &**right),
            Merge::Line(line) if line.starts_with("#version") => continue,
            Merge::Line(line) => {
                line.split_once(' ').ok_or_else(|| Error::damaged(path, "model.merges", "is not a pair of tokens"))?
            }
        };
        check_merge(path, "model.merges", left, right, |token| model.vocab.contains_key(token))?;
    }
    Ok(())
}

/// Both tokens of a merge, and what they become, are in the vocabulary.
pub(super) fn check_merge(path: &Path, field: &str, left: &str, right: &str, has: impl Fn(&str) -> bool) -> Result<()> {
    let merged = format!("{left}{right}");
    match [left, right, &merged].into_iter().find(|token| !has(token)) {
        None => Ok(()),
        Some(token) => Err(Error::damaged(path, field, format!("{token:?} is not in the vocabulary"))),
    }
}

/// A part and all parts within it are known ones.
fn check_part(path: &Path, part: &str, known: &[&str], value: &Value) -> Result<()> {
    let Some(kind) = value.get("type") else { return Ok(()) };
    match kind.as_str() {
        Some(kind) if known.contains(&kind) => {}
        _ => return Err(Error::unsupported(path, part, kind, format!("these are: {}", known.join(", ")))),
    }
    let inner = ["normalizers", "pretokenizers", "processors", "decoders"].into_iter().filter_map(|key| value.get(key));
    inner.filter_map(Value::as_array).flatten().try_for_each(|value| check_part(path, part, known, value))
}
