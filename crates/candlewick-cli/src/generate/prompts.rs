//! Prompts from the command line or a file.

use super::GenerateArgs;
use candlewick_lm::{Error, Result};
use candlewick_model::{Message, Tokenizer};
use serde::Deserialize;
use std::fs;

/// A prompt: a text or a chat, and the adapter that it wants.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Prompt {
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    pub adapter: Option<String>,
}

/// All of them; none in a chat from the terminal.
pub(super) fn read(args: &GenerateArgs) -> Result<Vec<Prompt>> {
    let plain = |text: &str| Prompt { prompt: Some(text.to_owned()), messages: Vec::new(), adapter: None };
    let Some(path) = &args.prompts else { return Ok(args.prompt.iter().map(|text| plain(text)).collect()) };
    let refused = |what: String, problem: String, remedy: &str| Error::Refused { what, problem, remedy: remedy.into() };
    let text = fs::read_to_string(path).map_err(|error| {
        refused(path.display().to_string(), error.to_string(), "a file of prompts is text, one prompt per line")
    })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    if path.extension().is_none_or(|extension| extension != "jsonl") {
        return Ok(lines.map(|(_, line)| plain(line)).collect());
    }
    let parsed = lines.map(|(nth, line)| {
        let what = format!("{}:{}", path.display(), nth + 1);
        let remedy =
            r#"a line is {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}, and "adapter""#;
        let prompt: Prompt =
            serde_json::from_str(line).map_err(|error| refused(what.clone(), error.to_string(), remedy))?;
        if prompt.prompt.is_some() == prompt.messages.is_empty() {
            Ok(prompt)
        } else {
            Err(refused(what, "it has neither prompt nor messages, or both".into(), remedy))
        }
    });
    parsed.collect()
}

impl Prompt {
    /// The tokens that the model continues.
    pub(super) fn tokens(&self, args: &GenerateArgs, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let chat = args.chat || !self.messages.is_empty();
        let text = self.prompt.as_deref().unwrap_or_default();
        if !chat {
            return Ok(tokenizer.encode(text, true)?);
        }
        let system = args.system.iter().map(|text| Message::new("system", text));
        let message = self.prompt.iter().map(|text| Message::new("user", text));
        let messages: Vec<Message> = system.chain(self.messages.iter().cloned()).chain(message).collect();
        Ok(tokenizer.encode_chat(&messages, true)?)
    }

    /// What it says last.
    pub(super) fn last(&self) -> &str {
        self.prompt.as_deref().or(self.messages.last().map(|message| &*message.content)).unwrap_or_default()
    }
}
