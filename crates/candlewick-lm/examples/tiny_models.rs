//! A tool of our tests, not an example to begin with.
//!
//! The small random models of the tests as Hugging Face folders, each with an adapter: what `scripts/parity/tiny.py` runs
//! transformers on.
//!
//! `tiny_models FOLDER` writes FOLDER/llama and FOLDER/llama/adapter, and so on for each family.

use candlewick::DType;
use candlewick_model::testing::{TinyModel, tiny_config};
use candlewick_model::{Adapter, Family, Format};
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let Some(folder) = std::env::args().nth(1).map(PathBuf::from) else {
        println!("usage: tiny_models FOLDER");
        return Ok(());
    };
    for family in [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3] {
        let model = TinyModel::new(tiny_config(family), Format::Float(DType::F32), 3);
        let path = folder.join(family.name());
        model.write_folder(&path, DType::F32, 1);
        Adapter::new("adapter", None, model.adapter_modules(4, DType::F32, 11))?.write(&path.join("adapter"))?;
    }
    Ok(())
}
