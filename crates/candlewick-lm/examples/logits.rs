//! A tool of our tests, not an example to begin with.
//!
//! The logits of the token that follows each of some prompts, for the scripts that compare them with other libraries'.
//!
//! `logits MODEL [--adapter FOLDER] [--device NAME] [--dequantise] < prompts > logits`: a JSON array of tokens per line in,
//! a JSON array of logits per line out.

use candlewick::Device;
use candlewick_lm::decoder::{self, Quantised};
use candlewick_lm::generate::{Generator, Options};
use candlewick_model::Adapter;
use std::error::Error;
use std::io::{self, Write as _};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut model, mut adapter, mut device, mut quantised) = (None, None, "cpu".to_owned(), Quantised::Keep);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match &*arg {
            "--adapter" => adapter = args.next(),
            "--device" => device = args.next().ok_or("--device wants a name")?,
            "--dequantise" => quantised = Quantised::Dequantise,
            _ => model = Some(arg),
        }
    }
    let decoder = decoder::Options { quantised, ..decoder::Options::default() };
    let options = Options { decoder, ..Options::default() };
    let Some(model) = model else {
        println!("usage: logits MODEL [--adapter FOLDER] [--device NAME] [--dequantise] < prompts");
        return Ok(());
    };
    let mut generator = Generator::open(model.as_ref(), &Device::open(&device)?, options)?;
    let adapter = match adapter {
        Some(folder) => Some(generator.load_adapter(&Adapter::open(folder.as_ref())?, 1.0)?),
        None => None,
    };
    for line in io::stdin().lines() {
        let prompt: Vec<u32> = serde_json::from_str(&line?)?;
        let logits = generator.logits(&prompt, adapter)?;
        writeln!(io::stdout(), "{}", serde_json::to_string(&logits)?)?;
    }
    Ok(())
}
