//! Tokens to text as they come: a character may be spread over several tokens, and is shown when it is whole.

use super::Tokenizer;
use crate::Result;

/// A character has at most four bytes, and a token at least one: what is not whole by then is not UTF-8.
const LONGEST: usize = 8;

/// Decodes tokens one after another. What it returns, put together, is what [`Tokenizer::decode`] returns for all of them.
#[derive(Debug)]
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The last tokens: some already shown, for decoders that treat the first token of a text otherwise; the rest not yet.
    tokens: Vec<u32>,
    shown: usize,
    /// The text of the shown ones.
    before: String,
}

impl<'a> TokenStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        TokenStream { tokenizer, tokens: Vec::new(), shown: 0, before: String::new() }
    }

    /// The text that this token completes; empty while a character is not whole, and for special tokens.
    pub fn push(&mut self, token: u32) -> Result<String> {
        self.tokens.push(token);
        let text = self.tokenizer.decode(&self.tokens, false)?;
        // U+FFFD at the end stands for the first bytes of a character, unless too many tokens have passed.
        if text.ends_with('\u{FFFD}') && self.tokens.len() - self.shown < LONGEST {
            return Ok(String::new());
        }
        self.show(text)
    }

    /// What is left at the end: U+FFFD for a character that never became whole.
    pub fn finish(mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.tokens, false)?;
        self.show(text)
    }

    fn show(&mut self, text: String) -> Result<String> {
        let new = text.strip_prefix(&*self.before).unwrap_or_default().to_owned();
        if !new.is_empty() {
            self.tokens.drain(..self.shown);
            self.before = self.tokenizer.decode(&self.tokens, false)?;
        } else {
            self.before = text;
        }
        self.shown = self.tokens.len();
        Ok(new)
    }
}
