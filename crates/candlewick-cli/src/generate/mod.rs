//! `candlewick generate`: text from a model, with adapters, as it comes.

pub(crate) mod adapter_flag;
mod args;
mod chat;
pub(crate) mod model;
mod prompts;

pub use args::GenerateArgs;

use candlewick_lm::generate::{AdapterId, Finish, Generator, Output, Request, Statistics};
use candlewick_lm::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use prompts::Prompt;
use serde_json::json;
use std::io::{self, IsTerminal as _, Write as _};

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let prompts = prompts::read(args)?;
    if prompts.is_empty() && !args.chat {
        let remedy = "give --prompt, --prompts or --chat";
        return Err(Error::Refused {
            what: "generate".into(),
            problem: "there is no prompt".into(),
            remedy: remedy.into(),
        });
    }
    let variants = args.adapters.len().max(1);
    let batch = args.batch.unwrap_or((prompts.len().max(1) * variants).clamp(1, 8));
    let mut generator = model::open(args, batch)?;
    let adapters = model::adapters(args, &mut generator)?;
    if prompts.is_empty() {
        return chat::run(args, &mut generator, &adapters);
    }
    let mut asked = Vec::new();
    for prompt in &prompts {
        let tokens = prompt.tokens(args, generator.tokenizer())?;
        let chosen = match &prompt.adapter {
            Some(name) => vec![named(&generator, &adapters, name)?],
            None if adapters.is_empty() => vec![None],
            None => adapters.clone(),
        };
        asked.extend(chosen.into_iter().map(|adapter| (prompt, request(args, tokens.clone(), adapter))));
    }
    let requests: Vec<Request> = asked.iter().map(|(_, request)| request.clone()).collect();
    let output = match &requests[..] {
        [one] if !args.json => stream(&mut generator, one)?,
        several => {
            let output = with_bar(&mut generator, several)?;
            for ((prompt, request), completion) in asked.iter().zip(&output.completions) {
                let adapter = request.adapter.map(|id| generator.adapter_name(id)).transpose()?;
                if args.json {
                    let finish = finish(completion.finish);
                    let line = json!({
                        "prompt": prompt.shown(), "adapter": adapter, "text": completion.text,
                        "tokens": completion.tokens, "finish": finish,
                        "first_token_seconds": completion.first_token.as_secs_f64(),
                    });
                    println!("{line}");
                } else {
                    let adapter = adapter.map_or_else(String::new, |name| format!(" [{name}]"));
                    println!("--- {}{adapter}\n{}\n", prompt.shown(), completion.text.trim_end());
                }
            }
            output
        }
    };
    summary(&generator, &output);
    Ok(())
}

fn request(args: &GenerateArgs, prompt: Vec<u32>, adapter: Option<AdapterId>) -> Request {
    let (sampling, max_tokens, stop, ignore_end) =
        (args.sampling(), args.max_tokens, args.stop.clone(), args.ignore_end);
    Request { prompt, sampling, max_tokens, stop, ignore_end, adapter }
}

/// The adapter of that name.
fn named(generator: &Generator, adapters: &[Option<AdapterId>], name: &str) -> Result<Option<AdapterId>> {
    if name == "none" {
        return Ok(None);
    }
    let known =
        |id: &&Option<AdapterId>| id.is_some_and(|id| generator.adapter_name(id).is_ok_and(|known| known == name));
    adapters.iter().find(known).copied().ok_or_else(|| Error::Refused {
        what: format!("adapter {name}"),
        problem: "a prompt asks for it, and it is not loaded".into(),
        remedy: "give its folder with --adapter".into(),
    })
}

/// One text, shown as it comes.
fn stream(generator: &mut Generator, request: &Request) -> Result<Output> {
    let mut out = io::stdout();
    let output = generator.generate(std::slice::from_ref(request), &mut |_, text| {
        // Whoever closes the pipe has read enough.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    })?;
    println!();
    Ok(output)
}

/// Several texts, with a bar on the terminal.
fn with_bar(generator: &mut Generator, requests: &[Request]) -> Result<Output> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {len} texts, {pos} characters, {elapsed}") {
        bar.set_style(style);
    }
    let mut characters = 0;
    bar.set_length(requests.len() as u64);
    let output = generator.generate(requests, &mut |_, text| {
        characters += text.chars().count() as u64;
        bar.set_position(characters);
    });
    bar.finish_and_clear();
    output
}

/// What it took, on stderr.
fn summary(generator: &Generator, output: &Output) {
    let statistics = &output.statistics;
    let mut parts = vec![rates(statistics)];
    if let [one] = &output.completions[..] {
        parts.push(format!("first token after {:.0} ms", 1e3 * one.first_token.as_secs_f64()));
        parts.push(format!("ended by {}", finish(one.finish)));
    }
    let device = generator.decoder().session().device().info().id;
    parts.push(format!("{device} {}", generator.decoder().dtype()));
    if io::stderr().is_terminal() {
        eprintln!();
    }
    eprintln!("{}", parts.join(", "));
}

/// `12 prompt tokens at 431/s, 64 tokens at 167/s, prepared in 0.4 s`.
fn rates(statistics: &Statistics) -> String {
    let rate = |rate: Option<f64>| rate.map_or_else(String::new, |rate| format!(" at {rate:.0}/s"));
    let Statistics { prompt_tokens, decoded_tokens, preparation, .. } = statistics;
    format!(
        "{prompt_tokens} prompt tokens{}, {decoded_tokens} tokens{}, prepared in {:.1} s",
        rate(statistics.prompt_rate()),
        rate(statistics.decode_rate()),
        preparation.as_secs_f64()
    )
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::End => "end",
        Finish::StopString => "stop string",
        Finish::MaxTokens => "max tokens",
        Finish::Context => "context",
    }
}

impl Prompt {
    /// Its first line, shortened.
    fn shown(&self) -> String {
        let text = self.last().lines().next().unwrap_or_default();
        if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(77).collect::<String>() + "..." }
    }
}
