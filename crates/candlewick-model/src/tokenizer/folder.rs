//! The tokenizer of a Hugging Face folder: `tokenizer.json`, and what the files beside it say.

use super::{ChatTemplate, Tokenizer, json};
use crate::file::{read_needed_text, read_text};
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Configs list every added token, and are still far smaller.
const LARGEST: usize = 16 << 20;

pub(super) fn open(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("tokenizer.json");
    let remedy = "save the tokenizer with transformers' PreTrainedTokenizerFast; other formats are not read";
    let mut tokenizer = Tokenizer::from_json(&path, &read_needed_text(&path, json::LARGEST, remedy)?)?;
    let config_path = folder.join("tokenizer_config.json");
    let config = object(&config_path)?;
    let spelled = |name: &str| spelling(&config_path, &config, name);
    let (bos, eos) = (spelled("bos_token")?, spelled("eos_token")?);
    tokenizer.bos = bos.as_deref().and_then(|bos| tokenizer.token(bos));
    tokenizer.stop_at(eos.as_deref().and_then(|eos| tokenizer.token(eos)));
    for name in ["generation_config.json", "config.json"] {
        let path = folder.join(name);
        for token in tokens(&path, &object(&path)?)? {
            tokenizer.stop_at(Some(token));
        }
    }
    let (bos, eos) = (bos.unwrap_or_default(), eos.unwrap_or_default());
    let own = folder.join("chat_template.jinja");
    tokenizer.chat = match (read_text(&own, LARGEST)?, template(&config_path, &config)?) {
        (Some(source), _) => Some(ChatTemplate::new(&own, "chat template", &source, &bos, &eos)?),
        (None, Some(source)) => Some(ChatTemplate::new(&config_path, "chat_template", source, &bos, &eos)?),
        (None, None) => None,
    };
    Ok(tokenizer)
}

/// A JSON object; null if the file is not there.
fn object(path: &Path) -> Result<Value> {
    let Some(text) = read_text(path, LARGEST)? else { return Ok(Value::Null) };
    let value: Value = serde_json::from_str(&text).map_err(|error| Error::damaged(path, "JSON", error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(Error::damaged(path, "JSON", "is not an object")) }
}

/// A special token: its text, or an object with its text.
fn spelling(path: &Path, config: &Value, name: &str) -> Result<Option<String>> {
    match &config[name] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Object(token) => Ok(token.get("content").and_then(Value::as_str).map(str::to_owned)),
        other => Err(Error::damaged(path, name, format!("{other} is no token"))),
    }
}

/// `eos_token_id`: one, several or none.
fn tokens(path: &Path, config: &Value) -> Result<Vec<u32>> {
    let list = match &config["eos_token_id"] {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => &list[..],
        one => std::slice::from_ref(one),
    };
    let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
    let wrong = |value: &Value| Error::damaged(path, "eos_token_id", format!("{value} is no token"));
    list.iter().map(|value| token(value).ok_or_else(|| wrong(value))).collect()
}

/// The template: one, or the one named `default` of several.
fn template<'a>(path: &Path, config: &'a Value) -> Result<Option<&'a str>> {
    match &config["chat_template"] {
        Value::Null => Ok(None),
        Value::String(source) => Ok(Some(source)),
        Value::Array(list) => {
            let default = list.iter().find(|entry| entry["name"] == "default");
            Ok(default.and_then(|entry| entry["template"].as_str()))
        }
        _ => Err(Error::damaged(path, "chat_template", "is neither a template nor a list of them")),
    }
}
