//! The same small model from a Hugging Face folder and from a GGUF file.

use candlewick_core::op::{Pairs, Quant};
use candlewick_core::{DType, reference};
use candlewick_model::gguf::Gguf;
use candlewick_model::testing::{GgufWriter, Item, TinyModel, tiny_config};
use candlewick_model::weights::interleave_rows;
use candlewick_model::{
    Config, Error, Family, Format, Linear, Message, Part, Role, Scaling, Source, Tensor, Tokenizer, Weight, Weights,
};
use serde_json::{Value, json};
use std::path::Path;

fn numbers(weight: &Weight<'_>) -> Vec<f32> {
    match weight.format {
        Format::Float(dtype) => {
            Tensor { shape: vec![weight.rows, weight.cols], dtype, bytes: weight.bytes.to_vec() }.to_f32()
        }
        Format::Quant(quant) => {
            let mut numbers = vec![0.0; weight.rows * weight.cols];
            let blocks = weight.bytes.chunks(quant.bytes()).zip(numbers.chunks_mut(quant.block()));
            blocks.for_each(|(block, numbers)| reference::decode_block(quant, block, numbers));
            numbers
        }
    }
}

fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[test]
fn folders_and_gguf_files_hold_the_same_weights() {
    for (family, quant) in [
        (Family::Llama, Quant::Q4_1),
        (Family::Llama, Quant::Q8_0),
        (Family::Qwen2, Quant::Q4_0),
        (Family::Qwen3, Quant::Q8_0),
        (Family::Llama, Quant::Q4K),
        (Family::Qwen2, Quant::Q6K),
    ] {
        let mut config = tiny_config(family);
        if quant.block() == 256 {
            (config.hidden, config.intermediate, config.heads, config.head_dim) = (256, 512, 4, 64);
        }
        let model = TinyModel::new(config.clone(), Format::Quant(quant), 7);
        let folder = tempfile::tempdir().unwrap();
        model.write_folder(folder.path(), DType::F32, 3);
        let from_folder = Weights::open(folder.path()).unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, model.gguf()).unwrap();
        let from_gguf = Weights::open(&path).unwrap();
        assert_eq!(from_folder.config(), &config);
        let interleaved = family == Family::Llama;
        let mut expected = config.clone();
        expected.rope.pairs = if interleaved { Pairs::Interleaved } else { Pairs::Halves };
        assert_eq!(from_gguf.config(), &expected);
        for role in Role::all(&config) {
            let (plain, packed) = (from_folder.get(role).unwrap(), from_gguf.get(role).unwrap());
            assert_eq!(numbers(&plain), model.numbers(role), "{role:?}");
            let heads = match role {
                Role::Layer(_, Part::Weight(Linear::Query)) => Some(config.heads),
                Role::Layer(_, Part::Weight(Linear::Key)) => Some(config.kv_heads),
                _ => None,
            };
            let in_order = match heads.filter(|_| interleaved) {
                Some(heads) => interleave_rows(&bytes_of(model.numbers(role)), heads, config.head_dim),
                None => bytes_of(model.numbers(role)),
            };
            assert_eq!(bytes_of(&numbers(&packed)), in_order, "{role:?}");
        }
    }
}

#[test]
fn interleaved_rows_are_the_pairs_of_the_paper() {
    // One head of four rows: 0 and 2 turn together in Hugging Face's order, as do 1 and 3.
    assert_eq!(interleave_rows(&[0, 1, 2, 3], 1, 4), [0, 2, 1, 3]);
    assert_eq!(interleave_rows(&[0, 0, 1, 1, 2, 2, 3, 3], 2, 2), [0, 0, 1, 1, 2, 2, 3, 3]);
}

#[test]
fn tokenizers_of_both_agree() {
    let model = TinyModel::new(tiny_config(Family::Llama), Format::Float(DType::F32), 1);
    let folder = tempfile::tempdir().unwrap();
    model.write_folder(folder.path(), DType::F16, 1);
    let gguf = Gguf::from_bytes("tiny.gguf", model.gguf()).unwrap();
    let (a, b) = (Tokenizer::open(folder.path()).unwrap(), Tokenizer::from_gguf(&gguf).unwrap());
    a.check(&model.config).unwrap();
    b.check(&model.config).unwrap();
    let texts = ["", "hello the world 123", "  é ü 日本\n\t", "<|im_start|>user\nhello<|im_end|>", "🙂🙂 1"];
    for text in texts {
        let tokens = a.encode(text, true).unwrap();
        assert_eq!(tokens, b.encode(text, true).unwrap(), "{text:?}");
        for tokenizer in [&a, &b] {
            assert_eq!(tokenizer.decode(&tokens, true).unwrap(), text);
            // Token by token, nothing but whole characters.
            let mut stream = tokenizer.stream();
            let mut streamed = String::new();
            for &token in &tokens {
                let piece = stream.push(token).unwrap();
                assert!(!piece.contains('\u{FFFD}'), "{piece:?} in {text:?}");
                streamed += &piece;
            }
            streamed += &stream.finish().unwrap();
            assert_eq!(streamed, tokenizer.decode(&tokens, false).unwrap());
        }
    }
    assert_eq!(a.encode("hello the", false).unwrap().len(), 3, "hell, o, Ġthe");
    assert_eq!(a.stops(), b.stops()[..1].iter().as_slice());
    assert_eq!(b.stops(), [2, 0], "llama.cpp stops at <|endoftext|> too");
    assert_eq!((a.bos(), b.bos()), (Some(1), Some(1)));
    let chat = [Message::new("user", " hello "), Message::new("assistant", "the")];
    let expected = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nthe<|im_end|>\n<|im_start|>assistant\n";
    for tokenizer in [&a, &b] {
        assert_eq!(tokenizer.chat().unwrap().render(&chat, true).unwrap(), expected);
        assert_eq!(tokenizer.encode_chat(&chat, true).unwrap(), tokenizer.encode(expected, false).unwrap());
        let error = tokenizer.decode(&[99_999], false).unwrap_err().to_string();
        assert!(error.contains("99999"), "{error}");
    }
    // A lonely first byte of a character never becomes whole.
    let byte = a.encode("日", false).unwrap()[0];
    let mut stream = a.stream();
    assert_eq!(stream.push(byte).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
}

#[test]
fn sentence_piece_merges_by_score() {
    // Scores as sentencepiece gives them: the less negative, the earlier the merge.
    let pieces = ["<unk>", "<s>", "</s>", "<0x0A>", "<0xC3>", "<0xA9>", "▁a", "ab", "▁", "a", "b", "▁ab"];
    let scores = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, -2.0, -10.0, -11.0, -12.0, -3.0];
    let kinds = [2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1, 1];
    let mut file = GgufWriter::default();
    file.put("tokenizer.ggml.model", Item::Text("llama"));
    file.put("tokenizer.ggml.tokens", Item::Texts(&pieces.map(str::to_owned)));
    file.put("tokenizer.ggml.scores", Item::F32s(&scores));
    file.put("tokenizer.ggml.token_type", Item::I32s(&kinds));
    file.put("tokenizer.ggml.bos_token_id", Item::U32(1));
    file.put("tokenizer.ggml.eos_token_id", Item::U32(2));
    let tokenizer = Tokenizer::from_gguf(&Gguf::from_bytes("spm", file.bytes()).unwrap()).unwrap();
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [1, 11], "BOS, then ▁a before ab, then ▁ab");
    assert_eq!(tokenizer.encode("bab\né", false).unwrap(), [8, 10, 7, 3, 4, 5], "bytes stand for what is no piece");
    assert_eq!(tokenizer.decode(&[1, 8, 10, 7, 3, 4, 5], false).unwrap(), "bab\né");
    let mut stream = tokenizer.stream();
    let pieces = [8, 10, 11, 4, 5].map(|token| stream.push(token).unwrap());
    assert_eq!(pieces, ["", "b", " ab", "", "é"]);
    assert_eq!(tokenizer.stops(), [2]);
}

fn read(json: &Value) -> Result<Config, Error> {
    Config::from_json(Path::new("config.json"), &json.to_string())
}

fn smollm2() -> Value {
    json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000, "rope_scaling": null,
        "tie_word_embeddings": true, "attention_bias": false, "pretraining_tp": 1, "rope_interleaved": false,
    })
}

fn with(mut json: Value, name: &str, value: Value) -> Value {
    json[name] = value;
    json
}

#[test]
fn configs_of_hugging_face() {
    let config = read(&smollm2()).unwrap();
    assert_eq!((config.head_dim, config.tied, config.context, config.rope.theta), (64, true, 8192, 1e5));
    assert!(config.unknown.is_empty());
    // What transformers 5 writes.
    let rope = json!({"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let mut llama3 = with(smollm2(), "rope_parameters", rope);
    llama3.as_object_mut().unwrap().remove("rope_theta");
    let config = read(&llama3).unwrap();
    assert_eq!(config.rope.theta, 5e5);
    let expected = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 8192.0 };
    assert_eq!(config.rope.scaling, expected);
    let qwen = with(smollm2(), "model_type", json!("qwen2"));
    assert!(read(&qwen).unwrap().biases.qkv);
    let sliding = with(with(qwen.clone(), "sliding_window", json!(4096)), "use_sliding_window", json!(false));
    assert_eq!(read(&sliding).unwrap().context, 8192);
    let mistral = with(with(smollm2(), "model_type", json!("mistral")), "sliding_window", json!(4096));
    assert_eq!(read(&mistral).unwrap().context, 4096, "the window limits the context");
    assert_eq!(read(&with(smollm2(), "some_new_field", json!(3))).unwrap().unknown, ["some_new_field"]);
}

#[test]
fn what_would_change_results_is_refused_by_name() {
    for (name, value) in [
        ("model_type", json!("gemma")),
        ("hidden_act", json!("gelu")),
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0})),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
        ("rope_scaling", json!({"rope_type": "linear", "factor": 4.0, "beta_fast": 3})),
        ("rope_scaling", json!({"rope_type": "linear", "factor": -1.0})),
        ("rope_parameters", json!({"rope_type": "default", "partial_rotary_factor": 0.5})),
        ("partial_rotary_factor", json!(0.5)),
        ("quantization_config", json!({"quant_method": "gptq"})),
        ("layer_types", json!(["full_attention", "linear_attention"])),
        ("logit_scale", json!(0.1)),
        ("attn_logit_softcapping", json!(50.0)),
        ("num_experts", json!(8)),
        ("num_key_value_heads", json!(2)),
        ("num_attention_heads", json!(0)),
        ("num_hidden_layers", json!(-1)),
        ("hidden_size", json!(u64::MAX)),
        ("hidden_size", json!("576")),
        ("head_dim", json!(63)),
        ("rms_norm_eps", json!(-1.0)),
        ("rope_theta", json!(0)),
        ("vocab_size", Value::Null),
    ] {
        let error = read(&with(smollm2(), name, value.clone())).expect_err(&format!("{name} = {value}"));
        assert!(error.to_string().starts_with("config.json: "), "{error}");
    }
    for text in ["", "[]", "{", "{\"model_type\": \"llama\"}", "null"] {
        Config::from_json(Path::new("config.json"), text).unwrap_err();
    }
}

#[test]
fn frequencies_are_those_of_transformers() {
    // `LlamaRotaryEmbedding(config).inv_freq` of transformers 5.23 for a head of 8, printed as f64.
    let mut config = tiny_config(Family::Llama);
    config.rope.theta = 500_000.0;
    let plain = config.rope.frequencies(8);
    let same = |found: &[f32], expected: [f64; 4]| {
        for (&found, expected) in found.iter().zip(expected) {
            assert!((f64::from(found) - expected).abs() <= 1.2e-7 * expected, "{found} is not {expected}");
        }
    };
    same(&plain, [1.0, 0.03760603070259094, 0.001414213445968926, 5.3182957344688475e-05]);
    // The first is kept, the second interpolated, the others are divided.
    config.rope.scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 400.0 };
    let llama3 = [1.0, 0.019991550594568253, 0.00017677668074611574, 6.647869668086059e-06];
    same(&config.rope.frequencies(8), llama3);
    config.rope.scaling = Scaling::Linear { factor: 4.0 };
    assert_eq!(config.rope.frequencies(8), plain.iter().map(|f| f / 4.0).collect::<Vec<_>>());
}

#[test]
fn a_model_whose_weights_are_not_its_configs_is_refused() {
    let model = TinyModel::new(tiny_config(Family::Llama), Format::Float(DType::BF16), 3);
    let folder = tempfile::tempdir().unwrap();
    model.write_folder(folder.path(), DType::BF16, 1);
    assert!(matches!(Weights::open(folder.path()).unwrap().source(), Source::Folder(_)));
    let path = folder.path().join("config.json");
    let config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (name, value, field) in [
        ("num_hidden_layers", json!(3), "model.layers.2.input_layernorm.weight"),
        ("num_hidden_layers", json!(200_000_000), "model.layers.2.input_layernorm.weight"),
        ("num_hidden_layers", json!(1), "model.layers.1."),
        ("intermediate_size", json!(97), "gate_proj"),
        ("attention_bias", json!(true), "q_proj.bias"),
        ("vocab_size", json!(321), "embed_tokens"),
    ] {
        std::fs::write(&path, with(config.clone(), name, value).to_string()).unwrap();
        let error = Weights::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
    std::fs::write(&path, with(config, "tie_word_embeddings", json!(true)).to_string()).unwrap();
    let tied = Weights::open(folder.path()).unwrap();
    assert_eq!(tied.get(Role::Head).unwrap().bytes, tied.get(Role::Embedding).unwrap().bytes);
}
