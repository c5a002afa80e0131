//! A chat on the terminal. What was said stays in the cache: only what is new is computed.

use super::{GenerateArgs, request, stream, summary};
use candlewick_lm::Result;
use candlewick_lm::generate::{AdapterId, Generator};
use candlewick_model::Message;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

pub(super) fn run(args: &GenerateArgs, generator: &mut Generator, adapters: &[Option<AdapterId>]) -> Result<()> {
    let adapter = adapters.first().copied().flatten();
    let mut messages: Vec<Message> = args.system.iter().map(|text| Message::new("system", text)).collect();
    if io::stdin().is_terminal() {
        eprintln!("An empty line ends the chat.");
    }
    loop {
        if io::stdin().is_terminal() {
            eprint!("> ");
            let _ = io::stderr().flush();
        }
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line).unwrap_or(0);
        if read == 0 || line.trim().is_empty() {
            return Ok(());
        }
        messages.push(Message::new("user", line.trim_end()));
        let tokens = generator.tokenizer().encode_chat(&messages, true)?;
        let output = stream(generator, &request(args, tokens, adapter))?;
        summary(generator, &output);
        messages.extend(output.completions.into_iter().map(|completion| Message::new("assistant", completion.text)));
    }
}
