//! Lines to documents: which tokens are learned, and what becomes of long ones.

use crate::tiny::Place;
use candlewick_lm::train::data::{Document, Documents, LossOn, Reader};
use candlewick_model::Tokenizer;
use std::path::Path;

const CHAT: &str = r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "one"},
    {"role": "user", "content": "and?"}, {"role": "assistant", "content": "two"}]}"#;

fn read(loss_on: LossOn, sequence: usize, lines: &str) -> (Tokenizer, Documents) {
    let tokenizer = Tokenizer::open(&Place::new().path("model")).unwrap();
    let reader = Reader { tokenizer: &tokenizer, loss_on, sequence };
    let documents = reader.read(Path::new("data.jsonl"), lines.replace("\n    ", " ").as_bytes()).unwrap();
    (tokenizer, documents)
}

/// The text of all tokens, and of those that count.
fn texts(tokenizer: &Tokenizer, document: &Document) -> [String; 2] {
    let learned = document.tokens.iter().zip(&document.counts).filter(|(_, counts)| **counts);
    let learned: Vec<u32> = learned.map(|(&token, _)| token).collect();
    [&document.tokens, &learned].map(|tokens| tokenizer.decode(tokens, true).unwrap())
}

#[test]
fn completions_count_up_to_their_end() {
    let lines = "{\"prompt\": \"the word: \", \"completion\": \"hello\"}\r\n\n{\"text\": \"all of it\"}";
    let (tokenizer, documents) = read(LossOn::Completions, 64, lines);
    assert_eq!(texts(&tokenizer, &documents.all[0]), ["the word: hello<|im_end|>", "hello<|im_end|>"]);
    let [whole, learned] = texts(&tokenizer, &documents.all[1]);
    assert_eq!(whole, "all of it<|im_end|>");
    assert!(whole.ends_with(&learned) && learned.len() + 1 == whole.len(), "all but the first: {learned}");
    let (tokenizer, documents) = read(LossOn::Everything, 64, lines);
    let [whole, learned] = texts(&tokenizer, &documents.all[0]);
    assert!(whole.ends_with(&learned) && learned.starts_with("he word: "), "all but the first: {learned}");
}

#[test]
fn of_a_chat_the_assistants_part_counts() {
    let (tokenizer, documents) = read(LossOn::Completions, 200, CHAT);
    let [whole, learned] = texts(&tokenizer, &documents.all[0]);
    let turn = |role: &str, text: &str| format!("<|im_start|>{role}\n{text}<|im_end|>\n");
    let turns = [turn("user", "hi"), turn("assistant", "one"), turn("user", "and?"), turn("assistant", "two")];
    assert_eq!(whole, turns.concat());
    assert_eq!(learned, "one<|im_end|>two<|im_end|>");
    let (tokenizer, documents) = read(LossOn::Everything, 200, CHAT);
    assert_eq!(texts(&tokenizer, &documents.all[0])[1], turns.concat()["<|im_start|>".len()..]);
}

#[test]
fn what_is_too_long_is_cut_or_goes_on() {
    let long = "abcdefghij".repeat(3);
    let lines = format!(
        "{{\"prompt\": \"ab\", \"completion\": \"{long}\"}}\n{{\"prompt\": \"{long}\", \"completion\": \"ab\"}}\n{{\"text\": \"{long}\"}}"
    );
    let (tokenizer, documents) = read(LossOn::Completions, 10, &lines);
    assert_eq!((documents.cut, documents.dropped), (2, 1));
    assert!(documents.all.iter().all(|document| document.positions() <= 10));
    assert_eq!(texts(&tokenizer, &documents.all[0]), ["ababcdefghi", "abcdefghi"]);
    let text: Vec<String> = documents.all[1..].iter().map(|part| texts(&tokenizer, part)[0].clone()).collect();
    assert_eq!(text, ["abcdefghija", "bcdefghijab", "cdefghij<|im_end|>"]);
}

#[test]
fn a_chat_without_an_answer_is_refused() {
    let tokenizer = Tokenizer::open(&Place::new().path("model")).unwrap();
    let reader = Reader { tokenizer: &tokenizer, loss_on: LossOn::Completions, sequence: 64 };
    let line = r#"{"messages": [{"role": "user", "content": "hi"}]}"#;
    let error = reader.read(Path::new("data.jsonl"), line.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("line 1: no message has the role \"assistant\""), "{error}");
    let error = reader.read(Path::new("data.jsonl"), b"{\"text\": \"a\xFF\"}").unwrap_err().to_string();
    assert!(error.contains("line 1: is no UTF-8"), "{error}");
}
