//! Small random models as files, for tests: the same model as a Hugging Face folder and as a GGUF file.

mod gguf;
mod tokenizer;

pub use gguf::{GgufWriter, Item};

use crate::weights::interleave_rows;
use crate::{Biases, Config, Family, Format, Linear, Lora, Module, Part, Role, Rope, Scaling, Tensor};
use candlewick_core::DType;
use candlewick_core::op::{Pairs, Quant};
use candlewick_core::reference;
use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Numbers that look random and are always the same (SplitMix64, Steele et al., 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ x >> 31
    }

    /// Between -1 and 1.
    pub fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

/// A small random model.
#[derive(Clone, Debug)]
pub struct TinyModel {
    /// What it is, as in its Hugging Face folder.
    pub config: Config,
    weights: Vec<TinyWeight>,
}

#[derive(Clone, Debug)]
struct TinyWeight {
    role: Role,
    format: Format,
    bytes: Vec<u8>,
    numbers: Vec<f32>,
}

/// Two layers, 4 heads of 16 (2 for k and v), hidden 64, MLP 96, 320 tokens, context 128: every row is whole blocks of 32.
pub fn tiny_config(family: Family) -> Config {
    Config {
        family,
        layers: 2,
        hidden: 64,
        intermediate: 96,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        vocab: tokenizer::SIZE,
        context: 128,
        norm_eps: 1e-5,
        rope: Rope { theta: 10_000.0, scaling: Scaling::None, pairs: Pairs::Halves },
        tied: false,
        biases: Biases { qkv: family == Family::Qwen2, ..Biases::default() },
        qk_norm: family == Family::Qwen3,
        unknown: Vec::new(),
    }
}

impl TinyModel {
    /// A model whose matrices are stored in `format`, and whose vectors in f32.
    ///
    /// # Panics
    /// Where rows are not whole blocks.
    pub fn new(config: Config, format: Format, seed: u64) -> TinyModel {
        let mut random = Random(seed);
        let weights = Role::all(&config).map(|role| TinyWeight::new(&config, role, format, &mut random)).collect();
        TinyModel { config, weights }
    }

    /// A weight's numbers, in the order of Hugging Face's rows.
    pub fn numbers(&self, role: Role) -> &[f32] {
        let weight = self.weights.iter().find(|weight| weight.role == role);
        weight.map(|weight| &*weight.numbers).expect("a weight of the model")
    }

    /// Writes the Hugging Face folder, in `shards` files, with every number in `dtype`; its tokenizer too.
    pub fn write_folder(&self, folder: &Path, dtype: DType, shards: usize) {
        fs::create_dir_all(folder).expect("the folder can be made");
        let put = |name: &str, text: String| fs::write(folder.join(name), text).expect("the file can be written");
        put("config.json", self.config_json().to_string());
        put("tokenizer.json", tokenizer::json().to_string());
        put("tokenizer_config.json", tokenizer::config_json().to_string());
        let each = self.weights.len().div_ceil(shards);
        let mut index = BTreeMap::new();
        for (nth, weights) in self.weights.chunks(each).enumerate() {
            let file = match shards {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{shards:05}.safetensors", nth + 1),
            };
            let tensors: Vec<(String, Tensor)> =
                weights.iter().map(|weight| (weight.role.hugging_face(), self.tensor(weight, dtype))).collect();
            tensors.iter().for_each(|(name, _)| _ = index.insert(name.clone(), file.clone()));
            fs::write(folder.join(file), safetensors_bytes(&tensors)).expect("the file can be written");
        }
        if shards > 1 {
            put("model.safetensors.index.json", json!({"metadata": {}, "weight_map": index}).to_string());
        }
    }

    /// The GGUF file's bytes, with its tokenizer. Rows of q and k of the `llama` architecture are interleaved.
    pub fn gguf(&self) -> Vec<u8> {
        let mut file = GgufWriter::default();
        let arch = if self.config.family == Family::Mistral { "llama" } else { self.config.family.name() };
        file.put("general.architecture", Item::Text(arch));
        let number = |size: usize| Item::U32(u32::try_from(size).expect("a small model"));
        for (key, size) in [
            ("block_count", self.config.layers),
            ("context_length", self.config.context),
            ("embedding_length", self.config.hidden),
            ("feed_forward_length", self.config.intermediate),
            ("attention.head_count", self.config.heads),
            ("attention.head_count_kv", self.config.kv_heads),
            ("attention.key_length", self.config.head_dim),
            ("attention.value_length", self.config.head_dim),
            ("rope.dimension_count", self.config.head_dim),
        ] {
            file.put(&format!("{arch}.{key}"), number(size));
        }
        file.put(&format!("{arch}.rope.freq_base"), Item::F32(self.config.rope.theta as f32));
        file.put(&format!("{arch}.attention.layer_norm_rms_epsilon"), Item::F32(self.config.norm_eps));
        tokenizer::put(&mut file);
        for weight in &self.weights {
            let [rows, cols] = weight.role.shape(&self.config);
            let heads = match weight.role {
                Role::Layer(_, Part::Weight(Linear::Query) | Part::Bias(Linear::Query)) => Some(self.config.heads),
                Role::Layer(_, Part::Weight(Linear::Key) | Part::Bias(Linear::Key)) => Some(self.config.kv_heads),
                _ => None,
            };
            let bytes = match heads.filter(|_| arch == "llama") {
                Some(heads) => interleave_rows(&weight.bytes, heads, self.config.head_dim),
                None => weight.bytes.clone(),
            };
            let dims = if weight.role.is_vector() { vec![cols] } else { vec![cols, rows] };
            file.tensor(&weight.role.gguf(), &dims, weight.format, &bytes);
        }
        file.bytes()
    }

    /// A random adapter of every linear layer of the layers.
    pub fn adapter_modules(&self, rank: usize, dtype: DType, seed: u64) -> BTreeMap<Module, Lora> {
        let mut random = Random(seed);
        let layers = (0..self.config.layers).flat_map(|layer| Linear::ALL.map(|linear| Module::Layer(layer, linear)));
        let lora = |module: Module| {
            let [out, input] = module.role().shape(&self.config);
            let mut tensor = |shape: [usize; 2], size: f32| {
                let numbers: Vec<f32> = (0..shape[0] * shape[1]).map(|_| size * random.number()).collect();
                Tensor::from_f32(&shape, dtype, &numbers)
            };
            let (a, b) = (tensor([rank, input], 0.1), tensor([out, rank], 0.1));
            (module, Lora { a, b, scale: 2.0 })
        };
        layers.map(lora).collect()
    }

    fn tensor(&self, weight: &TinyWeight, dtype: DType) -> Tensor {
        let [rows, cols] = weight.role.shape(&self.config);
        let shape = if weight.role.is_vector() { vec![cols] } else { vec![rows, cols] };
        Tensor::from_f32(&shape, dtype, &weight.numbers)
    }

    fn config_json(&self) -> serde_json::Value {
        let config = &self.config;
        json!({
            "architectures": ["TinyForCausalLM"],
            "model_type": config.family.name(),
            "hidden_act": "silu",
            "hidden_size": config.hidden,
            "intermediate_size": config.intermediate,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads,
            "head_dim": config.head_dim,
            "vocab_size": config.vocab,
            "max_position_embeddings": config.context,
            "rms_norm_eps": f64::from(config.norm_eps),
            "rope_theta": config.rope.theta,
            "rope_scaling": null,
            "tie_word_embeddings": config.tied,
            "attention_bias": config.biases.output,
            "mlp_bias": config.biases.mlp,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "float32",
        })
    }
}

impl TinyWeight {
    fn new(config: &Config, role: Role, format: Format, random: &mut Random) -> TinyWeight {
        let [rows, cols] = role.shape(config);
        let format = if role.is_vector() { Format::Float(DType::F32) } else { format };
        let (bytes, numbers) = match format {
            Format::Float(dtype) => {
                // Norms are around one, everything else around zero.
                let is_norm = role.is_vector() && !matches!(role, Role::Layer(_, Part::Bias(_)));
                let middle = if is_norm { 1.0 } else { 0.0 };
                let numbers: Vec<f32> = (0..rows * cols).map(|_| middle + 0.2 * random.number()).collect();
                let tensor = Tensor::from_f32(&[rows, cols], dtype, &numbers);
                let numbers = tensor.to_f32();
                (tensor.bytes, numbers)
            }
            Format::Quant(quant) => random_blocks(quant, rows * cols, random),
        };
        TinyWeight { role, format, bytes, numbers }
    }
}

/// Blocks of random bytes with small scales, and what they mean.
fn random_blocks(quant: Quant, count: usize, random: &mut Random) -> (Vec<u8>, Vec<f32>) {
    assert!(count.is_multiple_of(quant.block()), "rows are whole blocks");
    let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
    for _ in 0..count / quant.block() {
        let mut block: Vec<u8> = (0..quant.bytes()).map(|_| random.bits() as u8).collect();
        let mut scale = |at: usize, value: f32| block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
        match quant {
            Quant::Q4_0 => scale(0, 0.03),
            Quant::Q4_1 => (scale(0, 0.03), scale(2, -0.22)).1,
            Quant::Q8_0 => scale(0, 0.002),
            Quant::Q4K => (scale(0, 0.001), scale(2, 0.007)).1,
            Quant::Q6K => scale(208, 0.0001),
        }
        let mut decoded = vec![0.0; quant.block()];
        reference::decode_block(quant, &block, &mut decoded);
        bytes.extend(block);
        numbers.extend(decoded);
    }
    (bytes, numbers)
}

/// A safetensors file of these tensors.
pub fn safetensors_bytes(tensors: &[(String, Tensor)]) -> Vec<u8> {
    let view = |(name, tensor): &'_ (String, Tensor)| {
        let dtype = match tensor.dtype {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::U32 => Dtype::U32,
            DType::U8 => Dtype::U8,
        };
        let bytes = tensor.bytes.clone();
        (name.clone(), dtype, tensor.shape.clone(), bytes)
    };
    let owned: Vec<_> = tensors.iter().map(view).collect();
    let views = owned.iter().map(|(name, dtype, shape, bytes)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("as many bytes as the shape says"))
    });
    safetensors::serialize(views, None).expect("tensors of a small model")
}
