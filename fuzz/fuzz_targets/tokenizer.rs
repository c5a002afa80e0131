//! `tokenizer.json` and chat templates: `cargo +nightly fuzz run tokenizer`.
#![no_main]

use candlewick_model::{ChatTemplate, Message, Tokenizer};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    if let Ok(tokenizer) = Tokenizer::from_json(Path::new("fuzz.json"), text)
        && let Ok(tokens) = tokenizer.encode("The year 2024: naïve\n  日本", true)
    {
        let _ = tokenizer.decode(&tokens, true);
        let mut stream = tokenizer.stream();
        for token in tokens {
            let _ = stream.push(token);
        }
        let _ = stream.finish();
    }
    if let Ok(template) = ChatTemplate::new(Path::new("fuzz.jinja"), "template", text, "<s>", "</s>") {
        let _ = template.render(&[Message::new("user", "Hello"), Message::new("assistant", "")], true);
    }
});
