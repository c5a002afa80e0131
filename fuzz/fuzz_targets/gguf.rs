//! GGUF files: `cargo +nightly fuzz run gguf`. What is taken can be read to its end, as a model and as a tokenizer.
#![no_main]

use candlewick_model::gguf::Gguf;
use candlewick_model::{Role, Tokenizer, Weights};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Gguf::from_bytes("fuzz.gguf", bytes.to_vec()) else { return };
    for key in file.metadata().keys() {
        let _ = file.strings(key).map(|strings| strings.map(|strings| strings.map(str::len).sum::<usize>()));
        let _ = file.floats(key).map(|numbers| numbers.map(|numbers| numbers.sum::<f64>()));
    }
    for tensor in file.tensors() {
        let (_, bytes) = file.tensor(&tensor.name).expect("one of its names");
        assert_eq!(tensor.format.row_bytes(tensor.cols()).map(|row| row * tensor.rows()), Some(bytes.len()));
    }
    if let Ok(tokenizer) = Tokenizer::from_gguf(&file) {
        let tokens = tokenizer.encode("The year 2024: naïve\n  日本", true);
        let _ = tokens.map(|tokens| tokenizer.decode(&tokens, true));
    }
    if let Ok(weights) = Weights::from_gguf(file) {
        let config = weights.config();
        assert_eq!(config.rope.frequencies(config.head_dim).len(), config.head_dim / 2);
        Role::all(config).for_each(|role| assert!(weights.get(role).is_ok()));
    }
});
