//! Damaged and hostile files: an error that names the file, never a panic, never a large allocation.
//!
//! One test, as it watches every allocation of the process.

use candlewick_core::DType;
use candlewick_core::op::Quant;
use candlewick_model::gguf::Gguf;
use candlewick_model::safetensors::Safetensors;
use candlewick_model::testing::{GgufWriter, Item, Random, TinyModel, safetensors_bytes, tiny_config};
use candlewick_model::{
    Adapter, ChatTemplate, Config, Error, Family, Format, Message, PeftConfig, Tensor, Tokenizer, Weights,
};
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The largest single allocation since it was last set to zero.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Runs something that must fail, with a message that names the file, and little memory.
fn refused<T>(what: &str, limit: usize, run: impl FnOnce() -> Result<T, Error>) {
    LARGEST.store(0, Relaxed);
    let error = match run() {
        Ok(_) => panic!("{what}: was taken"),
        Err(error) => error.to_string(),
    };
    let largest = LARGEST.load(Relaxed);
    assert!(largest <= limit, "{what}: allocated {largest} bytes at once");
    assert!(error.starts_with("file"), "{what}: {error}");
}

fn small_gguf() -> Vec<u8> {
    let mut file = GgufWriter::default();
    file.put("general.architecture", Item::Text("llama"));
    file.put("some.flag", Item::Bool(true));
    file.put("some.numbers", Item::F32s(&[1.0, 2.0]));
    file.put("some.texts", Item::Texts(&["a".into(), "é".into()]));
    file.tensor("a.weight", &[2, 2], Format::Float(DType::F16), &[0; 8]);
    file.tensor("b.weight", &[32, 1], Format::Quant(Quant::Q4_1), &[0; 20]);
    let mut bytes = file.bytes();
    bytes.truncate(bytes.len() - 12); // The padding of the last tensor.
    bytes
}

#[test]
fn hostile_files() {
    cut_and_flipped_gguf();
    gguf_headers();
    cut_and_flipped_safetensors();
    shards();
    whole_models();
    tokenizers_files();
    adapters();
    templates();
}

fn cut_and_flipped_gguf() {
    let bytes = small_gguf();
    assert!(Gguf::from_bytes("file", bytes.clone()).is_ok());
    for end in 0..bytes.len() {
        refused(&format!("GGUF cut at {end}"), 4096, || Gguf::from_bytes("file", bytes[..end].to_vec()));
    }
    let mut random = Random(1);
    for round in 0..20_000 {
        let mut bytes = bytes.clone();
        for _ in 0..=random.bits() % 3 {
            let at = random.bits() as usize % bytes.len();
            bytes[at] = if random.bits().is_multiple_of(4) { 0xFF } else { random.bits() as u8 };
        }
        LARGEST.store(0, Relaxed);
        if let Ok(file) = Gguf::from_bytes("file", bytes) {
            // What was taken can be read to the end.
            for key in file.metadata().keys() {
                let _ = file.strings(key).map(|strings| strings.map(|strings| strings.map(str::len).sum::<usize>()));
                let _ = file.floats(key).map(|numbers| numbers.map(|numbers| numbers.sum::<f64>()));
            }
            for tensor in file.tensors() {
                let (_, bytes) = file.tensor(&tensor.name).unwrap();
                assert_eq!(Some(bytes.len()), tensor.format.row_bytes(tensor.cols()).map(|row| row * tensor.rows()));
            }
        }
        assert!(LARGEST.load(Relaxed) <= 1 << 16, "round {round}");
    }
}

/// Headers that claim what the file does not have.
fn gguf_headers() {
    let header = |version: u32, tensors: u64, pairs: u64, rest: &[u8]| {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(pairs.to_le_bytes());
        bytes.extend(rest);
        bytes
    };
    let pair = |kind: u32, value: &[u8]| {
        let mut bytes = 1u64.to_le_bytes().to_vec();
        bytes.push(b'k');
        bytes.extend(kind.to_le_bytes());
        bytes.extend(value);
        bytes
    };
    let array = |kind: u32, count: u64, rest: &[u8]| {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.extend(rest);
        bytes
    };
    let tensor = |name: &str, dims: &[u64], kind: u32, offset: u64| {
        let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
        bytes.extend(name.as_bytes());
        bytes.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.resize(bytes.len() + 128, 0);
        bytes
    };
    let mut nested = array(9, 1, &[]);
    for _ in 0..100_000 {
        nested.extend(array(9, 1, &[]));
    }
    let many = u64::MAX;
    for (what, bytes) in [
        ("another magic", b"GGML\x03\0\0\0".to_vec()),
        ("version 1", header(1, 0, 0, &[])),
        ("big-endian", header(3u32.swap_bytes(), 0, 0, &[])),
        ("version 4", header(4, 0, 0, &[])),
        ("too many tensors", header(3, many, 0, &[])),
        ("too many tensors for the file", header(3, 1 << 30, 0, &[0; 64])),
        ("too many pairs", header(3, 0, many, &[])),
        ("a key of 2^63 bytes", header(3, 0, 1, &(1u64 << 63).to_le_bytes())),
        ("a text of 2^64 bytes", header(3, 0, 1, &pair(8, &many.to_le_bytes()))),
        ("an unknown type", header(3, 0, 1, &pair(99, &[0; 8]))),
        ("an array of 2^64 numbers", header(3, 0, 1, &pair(9, &array(12, many, &[0; 16])))),
        ("an array of 2^61 numbers", header(3, 0, 1, &pair(9, &array(12, 1 << 61, &[0; 16])))),
        ("an array of 2^60 texts", header(3, 0, 1, &pair(9, &array(8, 1 << 60, &[0; 16])))),
        ("arrays in arrays", header(3, 0, 1, &pair(9, &nested))),
        ("a bool of 2", header(3, 0, 1, &pair(7, &[2]))),
        ("a key twice", header(3, 0, 2, &[pair(7, &[1]), pair(7, &[1])].concat())),
        ("no dims", header(3, 1, 0, &tensor("t", &[], 0, 0))),
        ("five dims", header(3, 1, 0, &tensor("t", &[1; 5], 0, 0))),
        ("an empty dim", header(3, 1, 0, &tensor("t", &[0, 4], 0, 0))),
        ("dims whose product overflows", header(3, 1, 0, &tensor("t", &[1 << 32, 1 << 32], 0, 0))),
        ("dims whose bytes overflow", header(3, 1, 0, &tensor("t", &[1 << 62], 0, 0))),
        ("rows of half blocks", header(3, 1, 0, &tensor("t", &[16], 2, 0))),
        ("a type that is not read", header(3, 1, 0, &tensor("t", &[256], 13, 0))),
        ("an offset beyond the file", header(3, 1, 0, &tensor("t", &[4], 0, 1 << 20))),
        ("an offset that overflows", header(3, 1, 0, &tensor("t", &[4], 0, many - 31))),
        ("a crooked offset", header(3, 1, 0, &tensor("t", &[4], 0, 8))),
        ("a tensor twice", header(3, 2, 0, &[&tensor("t", &[4], 0, 0)[..45], &tensor("t", &[4], 0, 0)].concat())),
    ] {
        let limit = bytes.len() * 8 + 4096;
        refused(what, limit, || Gguf::from_bytes("file", bytes));
    }
    let mut file = GgufWriter::default();
    file.put("general.alignment", Item::U32(24));
    refused("a crooked alignment", 4096, || Gguf::from_bytes("file", file.bytes()));
}

fn cut_and_flipped_safetensors() {
    let bytes = safetensors_bytes(&[
        ("a".into(), Tensor::from_f32(&[2, 2], DType::F32, &[1.0; 4])),
        ("b".into(), Tensor::from_f32(&[3], DType::BF16, &[1.0; 3])),
    ]);
    assert_eq!(Safetensors::from_bytes("file", bytes.clone()).unwrap().names().count(), 2);
    for end in 0..bytes.len() {
        refused(&format!("safetensors cut at {end}"), 4096, || Safetensors::from_bytes("file", bytes[..end].to_vec()));
    }
    let mut random = Random(2);
    for _ in 0..20_000 {
        let mut bytes = bytes.clone();
        let at = random.bits() as usize % bytes.len();
        bytes[at] = random.bits() as u8;
        LARGEST.store(0, Relaxed);
        if let Ok(file) = Safetensors::from_bytes("file", bytes) {
            file.names().for_each(|name| _ = file.get(name).unwrap().bytes.len());
        }
        assert!(LARGEST.load(Relaxed) <= 1 << 16);
    }
    let with_header = |length: u64, header: &str| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes
    };
    let end = u64::MAX;
    let huge = format!(r#"{{"a":{{"dtype":"U8","shape":[{end}],"data_offsets":[0,{end}]}}}}"#);
    let wide = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}}"#;
    for (what, length, header) in [
        ("a header of 2^64 bytes", u64::MAX, "{}"),
        ("a header of a gigabyte", 1 << 30, "{}"),
        ("a tensor of 2^64 bytes", huge.len() as u64, &huge),
        ("a shape that overflows", wide.len() as u64, wide),
        ("no JSON", 1, "{"),
        ("no object", 2, "[]"),
    ] {
        refused(what, 4096, || Safetensors::from_bytes("file", with_header(length, header)));
    }
}

fn shards() {
    let folder = tempfile::tempdir().unwrap();
    let put = |index: Value| {
        std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        Safetensors::open_folder(folder.path()).unwrap_err().to_string()
    };
    let error = put(json!({"weight_map": {"a": "../../etc/passwd"}}));
    assert!(error.contains("not a file of the folder"), "{error}");
    let error = put(json!({"weight_map": {"a": "/etc/passwd"}}));
    assert!(error.contains("not a file of the folder"), "{error}");
    assert!(put(json!({"weight_map": {"a": "gone.safetensors"}})).contains("gone.safetensors"));
    assert!(put(json!({})).contains("weight_map"));
    let shard = safetensors_bytes(&[("b".into(), Tensor::from_f32(&[1], DType::F32, &[1.0]))]);
    std::fs::write(folder.path().join("one.safetensors"), &shard).unwrap();
    assert!(put(json!({"weight_map": {"a": "one.safetensors"}})).contains("a is not in one.safetensors"));
    std::fs::write(folder.path().join("two.safetensors"), &shard).unwrap();
    let error = put(json!({"weight_map": {"b": "one.safetensors", "c": "two.safetensors"}}));
    assert!(error.contains("is in two shards"), "{error}");
}

/// A whole model with a byte changed, read as far as it goes.
fn whole_models() {
    let bytes = TinyModel::new(tiny_config(Family::Llama), Format::Quant(Quant::Q4_0), 1).gguf();
    let header = bytes.windows(7).position(|window| window == b"blk.1.f").unwrap();
    let mut random = Random(3);
    for _ in 0..300 {
        let mut bytes = bytes.clone();
        let at = random.bits() as usize % header;
        bytes[at] = random.bits() as u8;
        let Ok(file) = Gguf::from_bytes("file", bytes) else { continue };
        if let Ok(tokenizer) = Tokenizer::from_gguf(&file) {
            let _ = tokenizer.encode("hello the world", true).map(|tokens| tokenizer.decode(&tokens, false));
        }
        if let Ok(weights) = Weights::from_gguf(file) {
            weights.config().rope.frequencies(weights.config().head_dim);
        }
    }
    for end in (0..header).step_by(97) {
        let bytes = bytes[..end].to_vec();
        refused(&format!("a model cut at {end}"), 1 << 17, || Gguf::from_bytes("file", bytes));
    }
}

fn tokenizers_files() {
    let folder = tempfile::tempdir().unwrap();
    TinyModel::new(tiny_config(Family::Llama), Format::Float(DType::F16), 1).write_folder(folder.path(), DType::F16, 1);
    let text = std::fs::read_to_string(folder.path().join("tokenizer.json")).unwrap();
    let parse = |json: &Value| Tokenizer::from_json(Path::new("file"), &json.to_string());
    let good: Value = serde_json::from_str(&text).unwrap();
    parse(&good).unwrap();
    for (what, pointer, value) in [
        ("a model of another kind", "/model/type", json!("Unigram")),
        ("a prefix of subwords", "/model/continuing_subword_prefix", json!("##")),
        ("a merge of unknown tokens", "/model/merges/0", json!("no such")),
        ("a merge into an unknown token", "/model/merges/0", json!(["hell", "hell"])),
        ("a merge of one", "/model/merges/0", json!("alone")),
        ("an added token elsewhere", "/added_tokens/0/id", json!(77)),
        ("an added token far away", "/added_tokens/0/content", json!("new")),
        ("a normalizer nobody needs", "/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ("a decoder nobody needs", "/decoder", json!({"type": "Sequence", "decoders": [{"type": "CTC"}]})),
        (
            "a broken expression",
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
        ),
        ("dropout", "/model/dropout", json!(0.5)),
        ("no vocabulary", "/model/vocab", json!(null)),
        ("a token number that is none", "/model/vocab/a", json!(-1)),
    ] {
        let mut json = good.clone();
        *json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        refused(what, 1 << 22, || parse(&json));
    }
    for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)).step_by(7) {
        refused("a tokenizer cut", 1 << 22, || Tokenizer::from_json(Path::new("file"), &text[..end]));
    }
    let deep = "[".repeat(100_000);
    refused("deep JSON", 1 << 20, || Tokenizer::from_json(Path::new("file"), &deep));
    refused("deep JSON", 1 << 20, || Config::from_json(Path::new("file"), &deep));
}

fn adapters() {
    let parse = |text: &str| PeftConfig::parse(Path::new("file"), text);
    for text in ["", "{}", "[]", "{\"peft_type\":\"LORA\"}", "{\"r\":1}", "nul", "{\"peft_type\":\"LORA\",\"r\":1e300}"]
    {
        refused(text, 1 << 16, || parse(text));
    }
    let folder = tempfile::tempdir().unwrap();
    let model = TinyModel::new(tiny_config(Family::Llama), Format::Float(DType::F16), 1);
    let adapter = Adapter::new("a", None, model.adapter_modules(1, DType::F16, 1)).unwrap();
    adapter.write(folder.path()).unwrap();
    let path = folder.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for end in (0..bytes.len()).step_by(31) {
        std::fs::write(&path, &bytes[..end]).unwrap();
        Adapter::open(folder.path()).unwrap_err();
    }
    // An expression that backtracks without end is given up.
    let slow = json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": r"(?=((.*)*)*x)(\w+\.)*\2y"});
    if let Ok(config) = parse(&slow.to_string()) {
        assert!(!config.targets(&"model.layers.0.self_attn.q_proj".repeat(20)));
    }
}

fn templates() {
    let template = |source: &str| ChatTemplate::new(Path::new("file"), "chat_template", source, "", "");
    refused("a broken template", 1 << 20, || template("{% for x in %}"));
    let long = " ".repeat((1 << 20) + 1);
    refused("a long template", 4096, || template(&long));
    let chat = [Message::new("user", "hello")];
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{{ raise_exception('no') }}",
        "{% include 'chat' %}",
        "{{ no_such_function() }}",
    ] {
        let error = template(source).and_then(|template| template.render(&chat, true)).expect_err(source).to_string();
        assert!(error.contains("chat template") || error.contains("chat_template"), "{error}");
    }
}
