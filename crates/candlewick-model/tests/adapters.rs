//! Adapters read, written, compared and fitted.

use candlewick_core::DType;
use candlewick_core::op::Pairs;
use candlewick_model::testing::{TinyModel, safetensors_bytes, tiny_config};
use candlewick_model::weights::interleave_rows;
use candlewick_model::{
    Adapter, AdapterFormat, Error, Family, Format, Linear, Lora, Module, PeftConfig, Tensor, Weights,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn model() -> TinyModel {
    TinyModel::new(tiny_config(Family::Llama), Format::Float(DType::F32), 5)
}

fn peft_config() -> Value {
    // As PEFT 0.17 writes it for LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]).
    json!({
        "alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": "tiny", "bias": "none", "corda_config": null,
        "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
        "init_lora_weights": true, "layer_replication": null, "layers_pattern": null, "layers_to_transform": null,
        "loftq_config": {}, "lora_alpha": 8, "lora_bias": false, "lora_dropout": 0.0, "megatron_config": null,
        "megatron_core": "megatron.core", "modules_to_save": null, "peft_type": "LORA", "qalora_group_size": 16, "r": 4,
        "rank_pattern": {}, "revision": null, "target_modules": ["v_proj", "q_proj"], "target_parameters": null,
        "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_dora": false, "use_qalora": false,
        "use_rslora": false,
    })
}

fn parse(json: &Value) -> Result<PeftConfig, Error> {
    PeftConfig::parse(Path::new("adapter_config.json"), &json.to_string())
}

fn with(mut json: Value, name: &str, value: Value) -> Value {
    json[name] = value;
    json
}

/// A PEFT folder with A and B of these keys: (module, suffix of A and B before `.weight`, rank).
fn write_peft(folder: &Path, config: &Value, keys: &[(&str, &str, usize)]) {
    let mut tensors = Vec::new();
    for (module, adapter, rank) in keys {
        let [out, input] = Module::named(module).map_or([64, 64], |module| module.role().shape(&model().config));
        let a: Vec<f32> = (0..rank * input).map(|i| i as f32 / 100.0).collect();
        let b: Vec<f32> = (0..out * rank).map(|i| 1.0 - i as f32 / 50.0).collect();
        let key = |side: &str| format!("base_model.model.{module}.lora_{side}{adapter}.weight");
        tensors.push((key("A"), Tensor::from_f32(&[*rank, input], DType::F32, &a)));
        tensors.push((key("B"), Tensor::from_f32(&[out, *rank], DType::F32, &b)));
    }
    fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    fs::write(folder.join("adapter_model.safetensors"), safetensors_bytes(&tensors)).unwrap();
}

const Q0: &str = "model.layers.0.self_attn.q_proj";
const V1: &str = "model.layers.1.self_attn.v_proj";

#[test]
fn peft_folders_both_ways_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let config = with(peft_config(), "rank_pattern", json!({"layers.1.self_attn.v_proj": 2}));
    let config = with(config, "alpha_pattern", json!({"q_proj": 3.5}));
    write_peft(folder.path(), &config, &[(Q0, "", 4), (V1, ".default", 2)]);
    let adapter = Adapter::open(folder.path()).unwrap();
    assert_eq!(adapter.format, AdapterFormat::Peft);
    let [q, v] = [Q0, V1].map(|name| &adapter.modules[&Module::named(name).unwrap()]);
    assert_eq!((q.rank(), q.scale, v.rank(), v.scale), (4, 3.5 / 4.0, 2, 4.0));
    assert_eq!(q.a.to_f32()[..3], [0.0, 0.01, 0.02]);
    let copy = folder.path().join("copy");
    adapter.write(&copy).unwrap();
    let again = Adapter::open(&copy).unwrap();
    assert_eq!((&again.modules, &again.config), (&adapter.modules, &adapter.config));
    assert!(adapter.diff(&again).is_equal());
    let text: Value = serde_json::from_str(&fs::read_to_string(copy.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(text, config, "every field, also those that are not read");
    // Over an adapter that is there.
    again.write(&copy).unwrap();
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn scales_and_targets_are_pefts() {
    let rslora = parse(&with(peft_config(), "use_rslora", json!(true))).unwrap();
    assert_eq!(rslora.scale_of(Q0), 4.0);
    let list = parse(&peft_config()).unwrap();
    assert!(list.targets(Q0) && list.targets(V1) && !list.targets("model.layers.0.self_attn.k_proj"));
    assert!(!list.targets("model.layers.0.self_attn.xq_proj"), "an end is after a dot");
    let regex = parse(&with(peft_config(), "target_modules", json!(r".*\.(0|1)\.self_attn\.(q|v)_proj"))).unwrap();
    assert!(regex.targets(Q0) && regex.targets(V1) && !regex.targets("model.layers.10.self_attn.q_proj"));
    assert!(!regex.targets(&format!("{Q0}.more")), "the whole name");
    let all = parse(&with(peft_config(), "target_modules", json!("all-linear"))).unwrap();
    assert!(all.targets(Q0) && !all.targets("lm_head"));
    let excluded = parse(&with(peft_config(), "exclude_modules", json!(["layers.0.self_attn.q_proj"]))).unwrap();
    assert!(!excluded.targets(Q0) && excluded.targets(V1));
    let layers = parse(&with(peft_config(), "layers_to_transform", json!([1]))).unwrap();
    assert!(!layers.targets(Q0) && layers.targets(V1));
    let named = with(with(peft_config(), "layers_to_transform", json!(0)), "layers_pattern", json!("layers"));
    let named = parse(&named).unwrap();
    assert!(named.targets(Q0) && !named.targets(V1));
    let wrong = with(with(peft_config(), "layers_to_transform", json!(0)), "layers_pattern", json!(["blocks"]));
    assert!(!parse(&wrong).unwrap().targets(Q0));
    // The first pattern that matches counts, in the file's order.
    let text = peft_config()
        .to_string()
        .replace(r#""rank_pattern":{}"#, r#""rank_pattern":{"q_proj":9,"0.self_attn.q_proj":5}"#);
    let config = PeftConfig::parse(Path::new("x"), &text).unwrap();
    assert_eq!((config.rank_of(Q0), config.rank_of(V1)), (9, 4));
    let again = PeftConfig::parse(Path::new("x"), &config.to_json()).unwrap();
    assert_eq!(again.rank_of(Q0), 9, "and writing keeps the order");
}

#[test]
fn what_would_change_results_is_refused_by_name() {
    for (name, value) in [
        ("peft_type", json!("IA3")),
        ("use_dora", json!(true)),
        ("lora_bias", json!(true)),
        ("use_qalora", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("loftq")),
        ("layer_replication", json!([[0, 4], [2, 5]])),
        ("trainable_token_indices", json!([1, 2])),
        ("alora_invocation_tokens", json!([5])),
        ("megatron_config", json!({"x": 1})),
        ("target_parameters", json!(["experts"])),
        ("arrow_config", json!({"top_k": 2})),
        ("something_of_tomorrow", json!("on")),
        ("bias", json!("some")),
    ] {
        let error = parse(&with(peft_config(), name, value)).expect_err(name).to_string();
        assert!(error.contains(&format!("{name} = ")) && error.contains("not supported"), "{error}");
    }
    for (name, value) in [
        ("r", json!(0)),
        ("r", json!(1u64 << 40)),
        ("r", Value::Null),
        ("lora_alpha", json!("8")),
        ("target_modules", Value::Null),
        ("target_modules", json!("(")),
        ("target_modules", json!([1])),
        ("rank_pattern", json!({"q_proj": 0})),
        ("rank_pattern", json!({"q_proj(": 1})),
        ("alpha_pattern", json!([])),
        ("layers_to_transform", json!("all")),
        ("use_rslora", json!(1)),
    ] {
        let error = parse(&with(peft_config(), name, value)).expect_err(name).to_string();
        assert!(error.contains("adapter_config.json: "), "{error}");
    }
    assert!(parse(&with(peft_config(), "something_of_tomorrow", json!(null))).is_ok());
}

#[test]
fn folders_that_contradict_themselves_are_refused() {
    let open = |config: &Value, keys: &[(&str, &str, usize)]| {
        let folder = tempfile::tempdir().unwrap();
        write_peft(folder.path(), config, keys);
        Adapter::open(folder.path()).map(|_| ()).unwrap_err().to_string()
    };
    let config = peft_config();
    assert!(open(&config, &[(Q0, "", 3)]).contains("r, rank_pattern: says 4"));
    assert!(open(&config, &[("model.layers.0.mlp.up_proj", "", 4)]).contains("target_modules: does not name"));
    assert!(open(&config, &[(Q0, "", 4), (Q0, ".other", 4)]).contains("several adapters"));
    assert!(open(&config, &[("transformer.h.0.attn.q_proj", "", 4)]).contains("another family"));
    assert!(open(&config, &[]).contains("every lora_A"));
    let folder = tempfile::tempdir().unwrap();
    write_peft(folder.path(), &config, &[(Q0, "", 4)]);
    let only_a =
        vec![(format!("base_model.model.{Q0}.lora_A.weight"), Tensor::from_f32(&[4, 1], DType::F32, &[0.; 4]))];
    fs::write(folder.path().join("adapter_model.safetensors"), safetensors_bytes(&only_a)).unwrap();
    assert!(Adapter::open(folder.path()).unwrap_err().to_string().contains("lora_B"));
    for (key, word) in [("lora_magnitude_vector", "DoRA"), ("bias", "bias"), ("weight", "lora_A")] {
        let tensors = vec![(format!("base_model.model.{Q0}.{key}"), Tensor::from_f32(&[2], DType::F32, &[0.; 2]))];
        fs::write(folder.path().join("adapter_model.safetensors"), safetensors_bytes(&tensors)).unwrap();
        let error = Adapter::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    fs::remove_file(folder.path().join("adapter_model.safetensors")).unwrap();
    fs::write(folder.path().join("adapter_model.bin"), b"pickle").unwrap();
    assert!(Adapter::open(folder.path()).unwrap_err().to_string().contains("safe_serialization"));
}

#[test]
fn biases_are_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    write_peft(folder.path(), &with(peft_config(), "bias", json!("lora_only")), &[(Q0, "", 4)]);
    let mut adapter = Adapter::open(folder.path()).unwrap();
    let bias = Tensor::from_f32(&[64], DType::BF16, &[0.5; 64]);
    adapter.biases.insert(Module::named(Q0).unwrap(), bias.clone());
    adapter.write(folder.path()).unwrap();
    let again = Adapter::open(folder.path()).unwrap();
    assert_eq!(again.biases[&Module::named(Q0).unwrap()], bias);
    assert!(again.fit(&model().config).unwrap_err().to_string().contains("bias"), "the model has none");
    let mut config = model().config;
    config.biases.qkv = true;
    assert_eq!(again.fit(&config).unwrap().biases.len(), 1);
}

#[test]
fn mlx_folders_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"fine_tune_type": "lora", "num_layers": 2, "model": "tiny", "batch_size": 4,
        "lora_parameters": {"rank": 3, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}});
    let a: Vec<f32> = (0..64 * 3).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..3 * 64).map(|i| -(i as f32)).collect();
    let tensors = vec![
        (format!("{Q0}.lora_a"), Tensor::from_f32(&[64, 3], DType::F32, &a)),
        (format!("{Q0}.lora_b"), Tensor::from_f32(&[3, 64], DType::F32, &b)),
    ];
    let put = |config: &Value| fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
    put(&config);
    fs::write(folder.path().join("adapters.safetensors"), safetensors_bytes(&tensors)).unwrap();
    let out = folder.path().join("peft");
    let adapter = Adapter::convert(folder.path(), &out).unwrap();
    assert_eq!((adapter.format, adapter.config.base()), (AdapterFormat::Mlx, Some("tiny")));
    let peft = Adapter::open(&out).unwrap();
    let lora = &peft.modules[&Module::named(Q0).unwrap()];
    assert_eq!((lora.scale, lora.rank(), lora.shape()), (20.0, 3, [64, 64]));
    assert_eq!(lora.a.to_f32()[..2], [0.0, 3.0], "A is transposed");
    assert_eq!(lora.b.to_f32()[..3], [0.0, -64.0, -128.0], "B is transposed");
    assert!(peft.diff(&adapter).is_equal());
    for (changed, word) in [
        (with(config.clone(), "fine_tune_type", json!("dora")), "fine_tune_type"),
        (with(config.clone(), "lora_parameters", json!({"rank": 3, "scale": 20.0, "alpha": 16})), "alpha"),
        (with(config.clone(), "lora_parameters", json!({"rank": 4, "scale": 20.0})), "rank 4"),
        (with(config.clone(), "lora_parameters", json!({"rank": 3})), "scale"),
        (with(config.clone(), "lora_parameters", Value::Null), "lora_parameters"),
    ] {
        put(&changed);
        let error = Adapter::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn descriptions_give_back_every_rank_and_scale() {
    let [low, high] = [Linear::Query, Linear::Down].map(|linear| Module::Layer(1, linear));
    let lora = |rank: usize, scale: f64| Lora {
        a: Tensor::from_f32(&[rank, 2], DType::F32, &vec![0.5; 2 * rank]),
        b: Tensor::from_f32(&[2, rank], DType::F32, &vec![0.5; 2 * rank]),
        scale,
    };
    for scale in [1.0 / 3.0, 2.0, 20.0, 0.5] {
        let modules = BTreeMap::from([(low, lora(3, scale)), (high, lora(8, 2.0))]);
        let adapter = Adapter::new("a", Some("base"), modules).unwrap();
        assert_eq!(adapter.config.scale_of(&low.name()), scale);
        assert_eq!(adapter.config.rank_of(&low.name()), 3);
        assert_eq!((adapter.config.scale_of(&high.name()), adapter.config.rank_of(&high.name())), (2.0, 8));
        assert!(adapter.config.targets(&low.name()) && !adapter.config.targets(Q0), "only layer 1");
        let folder = tempfile::tempdir().unwrap();
        adapter.write(folder.path()).unwrap();
        assert!(Adapter::open(folder.path()).unwrap().diff(&adapter).is_equal());
    }
    // No alpha divided by 3 is exactly 0.1: the nearest one has to do.
    let adapter = Adapter::new("a", None, BTreeMap::from([(low, lora(3, 0.1))])).unwrap();
    assert!((adapter.config.scale_of(&low.name()) - 0.1).abs() < 3e-17);
}

#[test]
fn info_and_diff_say_what_there_is() {
    let model = model();
    let left = Adapter::new("left", Some("tiny"), model.adapter_modules(4, DType::F32, 1)).unwrap();
    let info = left.info();
    assert_eq!(info.modules["q_proj"], 2);
    let text = info.to_string();
    assert!(text.contains("rank        4") && text.contains("scale       2\n") && text.contains("tiny"), "{text}");
    let mut modules = model.adapter_modules(4, DType::F32, 1);
    let key = Module::Layer(0, Linear::Up);
    let numbers = modules[&key].b.to_f32();
    let mut changed = numbers.clone();
    changed[0] += 1.0;
    modules.get_mut(&key).unwrap().b = Tensor::from_f32(&[96, 4], DType::F32, &changed);
    modules.remove(&Module::Layer(1, Linear::Down));
    let right = Adapter::new("right", None, modules).unwrap();
    let diff = left.diff(&right);
    assert!(!diff.is_equal());
    assert_eq!(diff.only[0], [Module::Layer(1, Linear::Down)]);
    // The difference is scale · 1 · (first row of A).
    let row = &left.modules[&key].a.to_f32()[..64];
    let expected = 2.0 * row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let found = diff.both.iter().find(|module| module.module == key).unwrap();
    assert!((found.distance.unwrap() - expected).abs() < 1e-6 * expected, "{found:?} {expected}");
    let text = diff.to_string();
    assert!(text.contains("only in left") && text.contains("12 of 13 common modules are equal"), "{text}");
}

#[test]
fn adapters_fit_their_model_alone() {
    let model = model();
    let adapter = Adapter::new("a", Some("tiny"), model.adapter_modules(4, DType::F16, 2)).unwrap();
    assert_eq!(adapter.fit(&model.config).unwrap().modules, adapter.modules);
    // In a GGUF file the rows of q and k are interleaved, and B's with them.
    let mut config = model.config.clone();
    config.rope.pairs = Pairs::Interleaved;
    let fitted = adapter.fit(&config).unwrap();
    for (linear, heads) in [(Linear::Query, 4), (Linear::Key, 2)] {
        let key = Module::Layer(0, linear);
        assert_eq!(fitted.modules[&key].b.bytes, interleave_rows(&adapter.modules[&key].b.bytes, heads, 16));
        assert_ne!(fitted.modules[&key].b.bytes, adapter.modules[&key].b.bytes);
    }
    let key = Module::Layer(0, Linear::Value);
    assert_eq!(fitted.modules[&key], adapter.modules[&key]);
    for (change, word) in [
        ((|config| config.layers = 1) as fn(&mut candlewick_model::Config), "a model of 1 layers"),
        (|config| config.hidden = 32, "another model: its configuration names tiny"),
    ] {
        let mut other = model.config.clone();
        change(&mut other);
        let error = adapter.fit(&other).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Weights::open(&folder.path().join("none")), Err(Error::Io { .. })));
}
