//! Lines to tokens, and which of the tokens are learned.

use super::{BadLines, Record};
use crate::train::{Error, Result};
use candlewick_model::{Message, Tokenizer};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Which tokens the loss is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossOn {
    /// Completions, and what the assistant says in a chat; all of a plain text.
    #[default]
    Completions,
    /// Every token but the first of each document.
    Everything,
}

/// The tokens of a line, or of a part of a long text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Two at least.
    pub tokens: Vec<u32>,
    /// Whether the loss counts each of them. The first has nothing before it, and never counts.
    pub counts: Vec<bool>,
}

/// A file's documents, and what became of its lines.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// In the order of the file.
    pub all: Vec<Document>,
    /// Completions and chats whose end was cut off, because they are longer than a row.
    pub cut: usize,
    /// Those of which nothing to learn was left then.
    pub dropped: usize,
}

/// Makes documents of lines.
///
/// Truncation: a completion or a chat longer than a row is cut at its end, and left out where nothing to learn is left; a
/// plain text goes on in further documents, each of which begins anew.
#[derive(Debug)]
pub struct Reader<'a> {
    /// The model's.
    pub tokenizer: &'a Tokenizer,
    /// Which tokens are learned.
    pub loss_on: LossOn,
    /// Positions of a row.
    pub sequence: usize,
}

impl Reader<'_> {
    /// Reads a file of lines, in memory.
    ///
    /// # Errors
    /// Lines that cannot be used: all are checked, and the first few named. A file without documents.
    pub fn read(&self, path: &Path, bytes: &[u8]) -> Result<Documents> {
        let (mut documents, mut bad) = (Documents::default(), BadLines::none(path.to_owned()));
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        for (at, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            bad.lines += 1;
            let record = std::str::from_utf8(line).map_err(|error| format!("is no UTF-8: {error}"));
            let added = record.and_then(Record::parse).and_then(|record| self.add(&mut documents, &record));
            if let Err(problem) = added {
                bad.add(at + 1, problem);
            }
        }
        if bad.count > 0 {
            return Err(bad.into());
        }
        if documents.all.is_empty() {
            let dropped = documents.dropped;
            let problem = match dropped {
                0 => "has no lines: give one JSON object a line, like {\"prompt\": \"..\", \"completion\": \"..\"}"
                    .into(),
                _ => format!("every prompt is longer than a row of {} tokens: give longer rows", self.sequence),
            };
            return Err(Error::Empty { path: path.to_owned(), problem });
        }
        Ok(documents)
    }

    /// Adds the documents of a line.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn add(&self, documents: &mut Documents, record: &Record) -> Result<(), String> {
        let document = match record {
            Record::Completion { prompt, completion } => self.completion(prompt, completion)?,
            Record::Chat(messages) => self.chat(messages)?,
            Record::Text(text) => self.text(text)?,
        };
        // A row of n positions holds n + 1 tokens: the last is only a label.
        let most = self.sequence + 1;
        if matches!(record, Record::Text(_)) {
            let Document { tokens, counts } = document;
            let parts = tokens.chunks(most).zip(counts.chunks(most)).filter(|(tokens, _)| tokens.len() > 1);
            let part = |(tokens, counts): (&[u32], &[bool])| Document::new(tokens.to_vec(), counts.to_vec());
            documents.all.extend(parts.map(part));
            return Ok(());
        }
        let mut document = document;
        if document.tokens.len() > most {
            document.tokens.truncate(most);
            document.counts.truncate(most);
            documents.cut += 1;
        }
        if document.counts.contains(&true) {
            documents.all.push(document);
        } else {
            documents.dropped += 1;
        }
        Ok(())
    }

    /// Prompt and completion are encoded apart, as they are when the model is asked.
    fn completion(&self, prompt: &str, completion: &str) -> Result<Document, String> {
        let mut tokens = self.beginning(prompt)?;
        let given = tokens.len();
        tokens.extend(self.encode(completion)?);
        tokens.extend(self.tokenizer.stops().first());
        let everything = self.loss_on == LossOn::Everything;
        let counts = (0..tokens.len()).map(|at| everything || at >= given).collect();
        Ok(Document::new(tokens, counts))
    }

    fn text(&self, text: &str) -> Result<Document, String> {
        let mut tokens = self.beginning(text)?;
        tokens.extend(self.tokenizer.stops().first());
        let counts = vec![true; tokens.len()];
        Ok(Document::new(tokens, counts))
    }

    /// What stands before each of the assistant's answers ends where the model is asked for it; so the pieces are encoded
    /// apart there.
    fn chat(&self, messages: &[Message]) -> Result<Document, String> {
        let template = self.tokenizer.chat().ok_or("is a chat, and the model has no chat template: use \"prompt\"")?;
        let render = |messages: &[Message], answer| template.render(messages, answer).map_err(|e| e.to_string());
        let whole = render(messages, false)?;
        if self.loss_on == LossOn::Everything {
            let tokens = self.encode(&whole)?;
            let counts = vec![true; tokens.len()];
            return Ok(Document::new(tokens, counts));
        }
        let answers: Vec<usize> = (0..messages.len()).filter(|&i| messages[i].role == "assistant").collect();
        if answers.is_empty() {
            return Err("no message has the role \"assistant\": there is nothing to learn".into());
        }
        let (mut tokens, mut counts, mut done) = (Vec::new(), Vec::new(), 0);
        for answer in answers {
            let before = if answer == 0 { String::new() } else { render(&messages[..answer], true)? };
            let after = render(&messages[..=answer], false)?;
            let extends = |from: &str, to: &str| to.starts_with(from);
            if before.len() < done || !extends(&before, &after) || !extends(&after, &whole) {
                return Err("the model's chat template changes earlier messages when later ones follow, so that the \
                            assistant's part cannot be told apart: give one exchange per line, or learn everything"
                    .into());
            }
            let given = self.encode(&before[done..])?;
            counts.extend(vec![false; given.len()]);
            tokens.extend(given);
            let said = self.encode(&after[before.len()..])?;
            let stop = said.iter().position(|token| self.tokenizer.stops().contains(token));
            // What the template puts behind the end of the answer is not the assistant's.
            counts.extend((0..said.len()).map(|at| stop.is_none_or(|stop| at <= stop)));
            tokens.extend(said);
            done = after.len();
        }
        Ok(Document::new(tokens, counts))
    }

    /// The tokens of a text at its beginning: with what the model wants before it, without what it wants behind.
    fn beginning(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut whole = self.tokenizer.encode(text, true).map_err(|error| error.to_string())?;
        let bare = self.encode(text)?;
        let behind = (0..=whole.len().saturating_sub(bare.len())).find(|&at| whole[at..].starts_with(&bare));
        if let Some(at) = behind {
            whole.truncate(at + bare.len());
        }
        Ok(whole)
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        self.tokenizer.encode(text, false).map_err(|error| error.to_string())
    }
}

impl Document {
    fn new(tokens: Vec<u32>, mut counts: Vec<bool>) -> Document {
        if let Some(first) = counts.first_mut() {
            *first = false;
        }
        Document { tokens, counts }
    }

    /// Positions that it takes in a row: its last token is only a label.
    pub fn positions(&self) -> usize {
        self.tokens.len() - 1
    }
}
