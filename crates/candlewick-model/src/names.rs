//! The weights of a model by role, and what each format calls them.

use crate::Config;

/// A weight of a model, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// [vocab, hidden]: a row per token.
    Embedding,
    /// A weight of a layer.
    Layer(usize, Part),
    /// `[hidden]`: the RMSNorm after the last layer.
    FinalNorm,
    /// [vocab, hidden]: the output layer. There only where it is not the embedding.
    Head,
}

/// A weight of a layer. Linear layers are W [out, in] with y = x Wᵀ + bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// `[hidden]`: the RMSNorm before attention.
    AttentionNorm,
    /// The weight of a linear layer.
    Weight(Linear),
    /// Its bias, `[out]`.
    Bias(Linear),
    /// `[head_dim]`: the RMSNorm of each head of q.
    QueryNorm,
    /// `[head_dim]`: the RMSNorm of each head of k.
    KeyNorm,
    /// `[hidden]`: the RMSNorm before the MLP.
    MlpNorm,
}

/// A linear layer of a layer: what adapters adapt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Linear {
    /// q: [heads · head_dim, hidden].
    Query,
    /// k: [kv_heads · head_dim, hidden].
    Key,
    /// v: [kv_heads · head_dim, hidden].
    Value,
    /// After attention: [hidden, heads · head_dim].
    Output,
    /// The gate of the MLP, which goes through SiLU: [intermediate, hidden].
    Gate,
    /// What the gate multiplies: [intermediate, hidden].
    Up,
    /// Back to the residual stream: [hidden, intermediate].
    Down,
}

impl Linear {
    /// All of a layer, in the order that they run.
    pub const ALL: [Linear; 7] = {
        use Linear::*;
        [Query, Key, Value, Output, Gate, Up, Down]
    };

    /// [out, in].
    pub fn shape(self, config: &Config) -> [usize; 2] {
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        match self {
            Linear::Query => [config.q_width(), hidden],
            Linear::Key | Linear::Value => [config.kv_width(), hidden],
            Linear::Output => [hidden, config.q_width()],
            Linear::Gate | Linear::Up => [intermediate, hidden],
            Linear::Down => [hidden, intermediate],
        }
    }

    /// What Hugging Face calls it within a layer.
    pub const fn module(self) -> &'static str {
        match self {
            Linear::Query => "self_attn.q_proj",
            Linear::Key => "self_attn.k_proj",
            Linear::Value => "self_attn.v_proj",
            Linear::Output => "self_attn.o_proj",
            Linear::Gate => "mlp.gate_proj",
            Linear::Up => "mlp.up_proj",
            Linear::Down => "mlp.down_proj",
        }
    }

    const fn gguf(self) -> &'static str {
        match self {
            Linear::Query => "attn_q",
            Linear::Key => "attn_k",
            Linear::Value => "attn_v",
            Linear::Output => "attn_output",
            Linear::Gate => "ffn_gate",
            Linear::Up => "ffn_up",
            Linear::Down => "ffn_down",
        }
    }

    const fn has_bias(self, config: &Config) -> bool {
        match self {
            Linear::Query | Linear::Key | Linear::Value => config.biases.qkv,
            Linear::Output => config.biases.output,
            Linear::Gate | Linear::Up | Linear::Down => config.biases.mlp,
        }
    }
}

/// A linear layer of the whole model: what a key of an adapter names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Module {
    /// One of a layer.
    Layer(usize, Linear),
    /// The output layer.
    Head,
}

impl Module {
    /// What Hugging Face, PEFT and mlx-lm call it: `model.layers.3.self_attn.q_proj`, `lm_head`.
    pub fn name(self) -> String {
        match self {
            Module::Layer(layer, linear) => format!("model.layers.{layer}.{}", linear.module()),
            Module::Head => "lm_head".to_owned(),
        }
    }

    /// The module of that name.
    pub fn named(name: &str) -> Option<Module> {
        if name == "lm_head" {
            return Some(Module::Head);
        }
        let (layer, module) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let linear = Linear::ALL.into_iter().find(|linear| linear.module() == module)?;
        // "03" and "+3" are no layers.
        let number = layer.parse().ok().filter(|number: &usize| number.to_string() == layer)?;
        Some(Module::Layer(number, linear))
    }

    /// The role of its weight.
    pub fn role(self) -> Role {
        match self {
            Module::Layer(layer, linear) => Role::Layer(layer, Part::Weight(linear)),
            Module::Head => Role::Head,
        }
    }
}

impl Role {
    /// What Hugging Face's files call it.
    pub fn hugging_face(self) -> String {
        match self {
            Role::Embedding => "model.embed_tokens.weight".to_owned(),
            Role::FinalNorm => "model.norm.weight".to_owned(),
            Role::Head => "lm_head.weight".to_owned(),
            Role::Layer(layer, part) => {
                let part = match part {
                    Part::AttentionNorm => "input_layernorm.weight".to_owned(),
                    Part::MlpNorm => "post_attention_layernorm.weight".to_owned(),
                    Part::QueryNorm => "self_attn.q_norm.weight".to_owned(),
                    Part::KeyNorm => "self_attn.k_norm.weight".to_owned(),
                    Part::Weight(linear) => format!("{}.weight", linear.module()),
                    Part::Bias(linear) => format!("{}.bias", linear.module()),
                };
                format!("model.layers.{layer}.{part}")
            }
        }
    }

    /// What GGUF files call it.
    pub fn gguf(self) -> String {
        match self {
            Role::Embedding => "token_embd.weight".to_owned(),
            Role::FinalNorm => "output_norm.weight".to_owned(),
            Role::Head => "output.weight".to_owned(),
            Role::Layer(layer, part) => {
                let part = match part {
                    Part::AttentionNorm => "attn_norm.weight".to_owned(),
                    Part::MlpNorm => "ffn_norm.weight".to_owned(),
                    Part::QueryNorm => "attn_q_norm.weight".to_owned(),
                    Part::KeyNorm => "attn_k_norm.weight".to_owned(),
                    Part::Weight(linear) => format!("{}.weight", linear.gguf()),
                    Part::Bias(linear) => format!("{}.bias", linear.gguf()),
                };
                format!("blk.{layer}.{part}")
            }
        }
    }

    /// [out, in] of a matrix, [1, length] of a vector.
    pub fn shape(self, config: &Config) -> [usize; 2] {
        match self {
            Role::Embedding | Role::Head => [config.vocab, config.hidden],
            Role::FinalNorm | Role::Layer(_, Part::AttentionNorm | Part::MlpNorm) => [1, config.hidden],
            Role::Layer(_, Part::QueryNorm | Part::KeyNorm) => [1, config.head_dim],
            Role::Layer(_, Part::Weight(linear)) => linear.shape(config),
            Role::Layer(_, Part::Bias(linear)) => [1, linear.shape(config)[0]],
        }
    }

    /// Norms and biases.
    pub const fn is_vector(self) -> bool {
        !matches!(self, Role::Embedding | Role::Head | Role::Layer(_, Part::Weight(_)))
    }

    /// Every weight that a model has, in the order that they run; layers as they come, however many the file claims.
    pub fn all(config: &Config) -> impl Iterator<Item = Role> {
        let mut parts = vec![Part::AttentionNorm];
        let attention = [Linear::Query, Linear::Key, Linear::Value, Linear::Output];
        for linear in Linear::ALL {
            parts.push(Part::Weight(linear));
            if linear.has_bias(config) {
                parts.push(Part::Bias(linear));
            }
            if linear == attention[3] {
                if config.qk_norm {
                    parts.extend([Part::QueryNorm, Part::KeyNorm]);
                }
                parts.push(Part::MlpNorm);
            }
        }
        let layers = (0..config.layers).flat_map(move |layer| {
            let parts = parts.clone();
            parts.into_iter().map(move |part| Role::Layer(layer, part))
        });
        let last = [Some(Role::FinalNorm), (!config.tied).then_some(Role::Head)];
        std::iter::once(Role::Embedding).chain(layers).chain(last.into_iter().flatten())
    }
}
