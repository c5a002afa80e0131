//! Chat templates: Jinja, as transformers renders it (`apply_chat_template`).

use crate::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Steps of a template before it is stopped: real ones need some hundred per message.
const FUEL: u64 = 2_000_000;
/// Larger than any template that there is.
const LONGEST: usize = 1 << 20;

/// One turn of a chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles a template; `field` of `path` is where it comes from, `bos` and `eos` are the tokens' spellings.
    ///
    /// `strftime_now` is not defined: templates that ask for it fall back to a fixed date, and equal prompts stay equal.
    pub fn new(path: &Path, field: &str, source: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        if source.len() > LONGEST {
            return Err(Error::damaged(path, field, format!("has {} bytes, more than {LONGEST}", source.len())));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| Error::damaged(path, field, error.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> std::result::Result<String, _> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .add_template_owned("chat", source.to_owned())
            .map_err(|error| Error::damaged(path, field, error.to_string()))?;
        Ok(ChatTemplate { environment, source: source.to_owned(), bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The template itself.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The chat as text, to be encoded without further special tokens. With `answer`, the assistant's turn is begun.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String> {
        let text = |problem: minijinja::Error| Error::Text { what: "chat template", problem: problem.to_string() };
        let template = self.environment.get_template("chat").map_err(text)?;
        let turn = |message: &Message| context! { role => message.role.as_str(), content => message.content.as_str() };
        let values = context! {
            messages => messages.iter().map(turn).collect::<Vec<Value>>(),
            add_generation_prompt => answer,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
        };
        template.render(values).map_err(text)
    }
}
