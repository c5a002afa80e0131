//! Lines of JSON: prompt and completion, a chat, or plain text.

use candlewick_model::Message;
use serde_json::{Map, Value};
use std::fmt;
use std::path::PathBuf;

/// What a line of a data file says. Further fields of a line (ids, sources) are left alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// `{"prompt": "..", "completion": ".."}`: two texts, as they are, without a chat template.
    Completion {
        /// What is given.
        prompt: String,
        /// What is to be answered. Where the prompt ends without a space, it begins with one, if there is to be one.
        completion: String,
    },
    /// `{"messages": [{"role": "user", "content": ".."}, ..]}`: a chat, through the model's template.
    Chat(Vec<Message>),
    /// `{"text": ".."}`: plain text.
    Text(String),
}

/// Lines of a file that cannot be used: how many, and the first few of them.
#[derive(Clone, Debug, PartialEq)]
pub struct BadLines {
    /// The file.
    pub path: PathBuf,
    /// Line, counted from 1, and what is wrong with it; the first ones.
    pub first: Vec<(usize, String)>,
    /// All bad ones.
    pub count: usize,
    /// All lines that are not empty.
    pub lines: usize,
}

/// More would push the first one out of sight.
const SHOWN: usize = 5;

impl BadLines {
    pub(super) fn none(path: PathBuf) -> Self {
        BadLines { path, first: Vec::new(), count: 0, lines: 0 }
    }

    pub(super) fn add(&mut self, line: usize, problem: String) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push((line, problem));
        }
    }
}

impl fmt::Display for BadLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} lines cannot be used:", self.path.display(), self.count, self.lines)?;
        for (line, problem) in &self.first {
            write!(f, "\n  line {line}: {problem}")?;
        }
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl std::error::Error for BadLines {}

impl Record {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(line: &str) -> Result<Record, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| format!("is no JSON: {error}"))?;
        let Value::Object(fields) = value else {
            return Err(format!("is {}, not an object with \"prompt\" and \"completion\"", kind(&value)));
        };
        let has = |name: &str| fields.contains_key(name);
        match (has("prompt") || has("completion"), has("messages"), has("text")) {
            (true, false, false) => {
                let (prompt, completion) = (text(&fields, "prompt")?, text(&fields, "completion")?);
                if completion.is_empty() {
                    return Err("\"completion\" is empty: there is nothing to learn".into());
                }
                Ok(Record::Completion { prompt, completion })
            }
            (false, true, false) => chat(&fields["messages"]).map(Record::Chat),
            (false, false, true) => match text(&fields, "text")? {
                empty if empty.is_empty() => Err("\"text\" is empty".into()),
                text => Ok(Record::Text(text)),
            },
            (false, false, false) => {
                let names: Vec<&str> = fields.keys().map(String::as_str).collect();
                let found = if names.is_empty() { "no fields".to_owned() } else { names.join(", ") };
                Err(format!("has {found}: expected \"prompt\" and \"completion\", or \"messages\", or \"text\""))
            }
            _ => Err("has more than one of \"prompt\", \"messages\" and \"text\": leave one".into()),
        }
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<String, String> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("\"{name}\" is {}, not a text", kind(other))),
        None => Err(format!("\"{name}\" is missing")),
    }
}

fn chat(messages: &Value) -> Result<Vec<Message>, String> {
    let Value::Array(list) = messages else {
        return Err(format!("\"messages\" is {}, not a list", kind(messages)));
    };
    if list.is_empty() {
        return Err("\"messages\" is empty".into());
    }
    let turn = |(nth, message): (usize, &Value)| {
        let Value::Object(fields) = message else {
            return Err(format!("message {} is {}, not an object", nth + 1, kind(message)));
        };
        let of = |name| text(fields, name).map_err(|problem| format!("message {}: {problem}", nth + 1));
        Ok(Message::new(of("role")?, of("content")?))
    };
    list.iter().enumerate().map(turn).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_of_three_kinds() {
        let pair = Record::parse(r#"{"id": 7, "prompt": "2 + 2 =", "completion": " 4"}"#).unwrap();
        assert_eq!(pair, Record::Completion { prompt: "2 + 2 =".into(), completion: " 4".into() });
        assert_eq!(Record::parse(r#"{"text": "é"}"#).unwrap(), Record::Text("é".into()));
        let chat = Record::parse(r#"{"messages": [{"role": "user", "content": "hi"}]}"#).unwrap();
        assert_eq!(chat, Record::Chat(vec![Message::new("user", "hi")]));
    }

    #[test]
    fn a_bad_line_says_what_is_wrong() {
        for (line, part) in [
            ("{", "is no JSON"),
            ("[1]", "is a list, not an object"),
            (r#"{"prompt": "a"}"#, "\"completion\" is missing"),
            (r#"{"prompt": "a", "completion": ""}"#, "nothing to learn"),
            (r#"{"prompt": 1, "completion": "b"}"#, "\"prompt\" is a number, not a text"),
            (r#"{"instruction": "a"}"#, "has instruction: expected"),
            (r#"{"text": "a", "messages": []}"#, "more than one"),
            (r#"{"messages": []}"#, "is empty"),
            (r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}"#, "message 2: \"content\""),
        ] {
            let problem = Record::parse(line).unwrap_err();
            assert!(problem.contains(part), "{line}: {problem}");
        }
    }

    #[test]
    fn the_first_bad_lines_are_shown_and_the_rest_counted() {
        let mut bad = BadLines::none("data.jsonl".into());
        bad.lines = 9;
        (2..9).for_each(|line| bad.add(line, "is no JSON".into()));
        let text = bad.to_string();
        assert!(text.starts_with("data.jsonl: 7 of 9 lines cannot be used:\n  line 2: is no JSON"), "{text}");
        assert!(text.ends_with("line 6: is no JSON\n  and 2 more"), "{text}");
    }
}
