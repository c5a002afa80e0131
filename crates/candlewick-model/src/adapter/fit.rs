//! An adapter made to fit one model's file.

use super::{Adapter, Lora, Tensor};
use crate::weights::interleave_rows;
use crate::{Config, Error, Linear, Module, Part, Result, Role};
use candlewick_core::op::Pairs;
use std::collections::BTreeMap;

/// An adapter whose modules are all of the model, with rows in the order of the model's file.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The adapter's name.
    pub name: String,
    /// The modules that it adapts.
    pub modules: BTreeMap<Module, Lora>,
    /// Biases that replace those of the model.
    pub biases: BTreeMap<Module, Tensor>,
}

impl Adapter {
    /// Checks that the adapter is for such a model, and orders the rows of its q and k as the model's file does: a GGUF
    /// file of the architecture `llama` has them interleaved (see [`crate::Rope::pairs`]).
    pub fn fit(&self, config: &Config) -> Result<Fitted> {
        let mut modules = self.modules.clone();
        for (module, lora) in &mut modules {
            self.check(config, *module, lora.shape())?;
            if let Some(heads) = turned_heads(config, *module) {
                lora.b.bytes = interleave_rows(&lora.b.bytes, heads, config.head_dim);
            }
        }
        let mut biases = self.biases.clone();
        for (module, bias) in &mut biases {
            self.check_bias(config, *module, bias)?;
            if let Some(heads) = turned_heads(config, *module) {
                bias.bytes = interleave_rows(&bias.bytes, heads, config.head_dim);
            }
        }
        Ok(Fitted { name: self.name.clone(), modules, biases })
    }

    fn check(&self, config: &Config, module: Module, shape: [usize; 2]) -> Result<()> {
        let there = !matches!(module, Module::Layer(layer, _) if layer >= config.layers);
        let expected = module.role().shape(config);
        if there && shape == expected {
            return Ok(());
        }
        let right =
            if there { format!("{expected:?} in the model") } else { format!("a model of {} layers", config.layers) };
        Err(self.mismatch(format!("{} of {shape:?}", module.name()), right))
    }

    fn check_bias(&self, config: &Config, module: Module, bias: &Tensor) -> Result<()> {
        let role = match module {
            Module::Layer(layer, linear) => Role::Layer(layer, Part::Bias(linear)),
            Module::Head => return Err(self.mismatch("a bias of lm_head".into(), "a model that has none".into())),
        };
        if Role::all(config).any(|other| other == role) && bias.shape == [role.shape(config)[1]] {
            return Ok(());
        }
        let left = format!("a bias of {} of shape {:?}", module.name(), bias.shape);
        Err(self.mismatch(left, "a model that has none of this shape".into()))
    }

    fn mismatch(&self, left: String, right: String) -> Error {
        let mut remedy = "the adapter was trained for another model".to_owned();
        if let Some(base) = self.config.base() {
            remedy += &format!(": its configuration names {base}");
        }
        Error::Mismatch { what: format!("adapter {}", self.name), left, right, remedy }
    }
}

/// How many heads a module's rows make up, if the file has them interleaved.
fn turned_heads(config: &Config, module: Module) -> Option<usize> {
    match (config.rope.pairs, module) {
        (Pairs::Interleaved, Module::Layer(_, Linear::Query)) => Some(config.heads),
        (Pairs::Interleaved, Module::Layer(_, Linear::Key)) => Some(config.kv_heads),
        _ => None,
    }
}
