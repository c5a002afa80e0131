//! `adapter_config.json` and `config.json`: `cargo +nightly fuzz run configs`.
#![no_main]

use candlewick_model::{Config, PeftConfig};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

const MODULES: [&str; 3] = ["model.layers.0.self_attn.q_proj", "model.layers.11.mlp.down_proj", "lm_head"];

fuzz_target!(|text: &str| {
    if let Ok(config) = PeftConfig::parse(Path::new("fuzz.json"), text) {
        let again = PeftConfig::parse(Path::new("fuzz.json"), &config.to_json()).expect("what was read is written so");
        assert_eq!(config, again);
        for module in MODULES {
            assert_eq!(
                (config.rank_of(module), config.targets(module)),
                (again.rank_of(module), again.targets(module))
            );
            assert!(config.rank_of(module) > 0 && !config.scale_of(module).is_nan());
        }
    }
    if let Ok(config) = Config::from_json(Path::new("fuzz.json"), text)
        && config.head_dim <= 1 << 16
    {
        assert_eq!(config.rope.frequencies(config.head_dim).len(), config.head_dim / 2);
    }
});
