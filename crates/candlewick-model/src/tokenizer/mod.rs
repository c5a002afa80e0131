//! Text to tokens and back: a `tokenizer.json`, or the tokenizer that a GGUF file carries.

mod chat;
mod folder;
mod ggml;
mod json;
mod stream;

pub use chat::{ChatTemplate, Message};
pub use stream::TokenStream;

use crate::gguf::Gguf;
use crate::{Config, Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};

/// Text to tokens and back, with the tokens that begin and end a text and the template of a chat.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    /// What encoding puts around a text, where `inner` does not do so itself.
    before: Vec<u32>,
    after: Vec<u32>,
    bos: Option<u32>,
    stops: Vec<u32>,
    chat: Option<ChatTemplate>,
}

impl Tokenizer {
    /// Opens a model's tokenizer: `tokenizer.json` of a folder (with its chat template and its tokens that end a text), or
    /// that of a GGUF file.
    pub fn open(path: &Path) -> Result<Tokenizer> {
        if path.is_dir() { folder::open(path) } else { Tokenizer::from_gguf(&Gguf::open(path)?) }
    }

    /// The tokenizer of an open GGUF file.
    pub fn from_gguf(file: &Gguf) -> Result<Tokenizer> {
        ggml::read(file)
    }

    /// The text of a `tokenizer.json` alone, with neither template nor tokens that end a text.
    pub fn from_json(path: &Path, text: &str) -> Result<Tokenizer> {
        Ok(Tokenizer::plain(json::read(path, text)?, path))
    }

    fn plain(inner: tokenizers::Tokenizer, path: &Path) -> Tokenizer {
        let (before, after, stops) = (Vec::new(), Vec::new(), Vec::new());
        Tokenizer { inner, path: path.to_owned(), before, after, bos: None, stops, chat: None }
    }

    /// The tokens of a text. Special tokens written out in it become those tokens. With `special`, the tokens that the model
    /// wants around every text (like its BOS) are added; a rendered chat has its own.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, special);
        let encoding = encoding.map_err(|error| failed("encode", error))?;
        if !special || (self.before.is_empty() && self.after.is_empty()) {
            return Ok(encoding.get_ids().to_vec());
        }
        Ok([&self.before, encoding.get_ids(), &self.after].concat())
    }

    /// The text of tokens, without special ones unless asked for. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// Where a token is not of the vocabulary.
    pub fn decode(&self, tokens: &[u32], special: bool) -> Result<String> {
        for &token in tokens {
            if self.inner.id_to_token(token).is_none() {
                let problem = format!("{token} is no token of the {} that there are", self.vocab());
                return Err(Error::Text { what: "decode", problem });
            }
        }
        self.inner.decode(tokens, !special).map_err(|error| failed("decode", error))
    }

    /// Decodes tokens as they come, in whole characters.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream::new(self)
    }

    /// How many tokens there are, special ones too. The model's embedding may have more rows.
    pub fn vocab(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token written like this, as the vocabulary spells it.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// How the vocabulary spells a token.
    pub fn spelling(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// The token that begins a text, where the model has one; [`Tokenizer::encode`] adds it where the model wants it.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that end a text: generation stops at any of them. The first is the one to train with.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// The model's chat template, if it has one.
    pub fn chat(&self) -> Option<&ChatTemplate> {
        self.chat.as_ref()
    }

    /// Renders a chat with the model's template and encodes it. With `answer`, the assistant's turn is begun.
    pub fn encode_chat(&self, messages: &[Message], answer: bool) -> Result<Vec<u32>> {
        let remedy = "give the prompt as plain text, or use a model that was trained to chat";
        let chat = self.chat().ok_or_else(|| Error::missing(&self.path, "a chat template", remedy))?;
        self.encode(&chat.render(messages, answer)?, false)
    }

    /// Every token has a row in the model's embedding.
    pub fn check(&self, config: &Config) -> Result<()> {
        let ids = self.inner.get_vocab(true).into_values().chain(self.stops.iter().copied()).chain(self.bos);
        match ids.max() {
            Some(largest) if largest as usize >= config.vocab => Err(Error::Mismatch {
                what: format!("{}", self.path.display()),
                left: format!("a tokenizer with token {largest}"),
                right: format!("an embedding of {} rows", config.vocab),
                remedy: "use the tokenizer of this very model".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Adds a token that ends a text, once.
    fn stop_at(&mut self, token: Option<u32>) {
        if let Some(token) = token.filter(|token| !self.stops.contains(token)) {
            self.stops.push(token);
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tokenizer { path, before, after, bos, stops, .. } = self;
        let mut form = f.debug_struct("Tokenizer");
        form.field("path", path).field("vocab", &self.vocab()).field("before", before).field("after", after);
        form.field("bos", bos).field("stops", stops).finish_non_exhaustive()
    }
}

fn failed(what: &'static str, error: impl ToString) -> Error {
    Error::Text { what, problem: error.to_string() }
}
