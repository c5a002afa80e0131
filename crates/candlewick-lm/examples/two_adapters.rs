//! Two adapters in one batch: every row of a step names its own, and the base's weights are read once for all of them.
//!
//! `cargo run --release -p candlewick-lm --example two_adapters` makes a tiny random model with two adapters, whose text is
//! noise; `-- MODEL ADAPTER ADAPTER PROMPT` takes yours.

use candlewick::{DType, Device};
use candlewick_lm::generate::{Generator, Options, Request};
use candlewick_model::testing::{TinyModel, tiny_config};
use candlewick_model::{Adapter, Family, Format};
use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let made = tempfile::tempdir()?;
    let ([model, first, second], prompt) = match &*arguments {
        [] => (tiny_model(made.path())?, "the sea"),
        [model, first, second, prompt] => ([model, first, second].map(PathBuf::from), prompt.as_str()),
        _ => return Err("usage: two_adapters, or two_adapters MODEL ADAPTER ADAPTER PROMPT".into()),
    };

    // Three sequences at a time, the adapters beside the base.
    let options = Options { sequences: 3, ..Options::default() };
    let mut generator = Generator::open(&model, &Device::cpu(), options)?;
    let one = generator.load_adapter(&Adapter::open(&first)?, 1.0)?;
    let other = generator.load_adapter(&Adapter::open(&second)?, 1.0)?;

    // One batch: the base alone, and each adapter.
    let prompt = generator.tokenizer().encode(prompt, true)?;
    let request = Request { max_tokens: 16, ignore_end: true, ..Request::new(prompt) };
    let requests = [None, Some(one), Some(other)].map(|adapter| Request { adapter, ..request.clone() });
    let output = generator.generate(&requests, &mut |_, _| ())?;
    for (name, completion) in ["base", "first adapter", "second adapter"].iter().zip(&output.completions) {
        println!("{name:>14}: {:?} {:?}", completion.tokens, completion.text);
    }

    // What a row's adapter says does not depend on who is beside it.
    for (request, together) in requests.iter().zip(&output.completions) {
        let alone = generator.generate(std::slice::from_ref(request), &mut |_, _| ())?;
        assert_eq!(alone.completions[0].tokens, together.tokens);
    }
    println!("each row alone gives the same tokens");
    Ok(())
}

/// A model of 64 numbers per token, and two adapters, as folders.
fn tiny_model(folder: &Path) -> Result<[PathBuf; 3], Box<dyn Error>> {
    let [path, first, second] = ["model", "first", "second"].map(|name| folder.join(name));
    let model = TinyModel::new(tiny_config(Family::Llama), Format::Float(DType::F32), 3);
    model.write_folder(&path, DType::F32, 1);
    for (path, seed) in [(&first, 11), (&second, 12)] {
        Adapter::new("adapter", None, model.adapter_modules(4, DType::F32, seed))?.write(path)?;
    }
    Ok([path, first, second])
}
