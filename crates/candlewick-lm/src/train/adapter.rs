//! The trained numbers: all A and B in one vector, how they begin, and the PEFT adapter that they make.

use super::random::{Purpose, random};
use super::{Recipe, Result, Targets};
use candlewick::op::Pairs;
use candlewick_model::weights::deinterleave_rows;
use candlewick_model::{Adapter, AdapterFormat, Config, Linear, Lora, Module, PeftConfig, Tensor};
use rand::RngExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Every A and B begins at a multiple of this: 256 bytes in 16-bit numbers, what GPUs' vectors and bindings ask for.
const ALIGNMENT: usize = 128;

/// Where the numbers of each module lie in the vector of all.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// The modules, in the order that they run.
    pub modules: Vec<Trained>,
    /// Length of the vector, gaps included.
    pub elements: usize,
    /// Factor of every delta.
    pub scale: f64,
}

/// The places of a module's A and B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trained {
    /// Which.
    pub module: Module,
    /// Columns of A.
    pub in_features: usize,
    /// Rows of B.
    pub out_features: usize,
    /// Rows of A, columns of B.
    pub rank: usize,
    a: usize,
    b: usize,
}

impl Trained {
    /// A [rank, in], in the vector.
    pub fn a(&self) -> Range<usize> {
        self.a..self.a + self.rank * self.in_features
    }

    /// B [out, rank], in the vector.
    pub fn b(&self) -> Range<usize> {
        self.b..self.b + self.out_features * self.rank
    }
}

impl Parameters {
    /// Lays out the adapters of a recipe.
    ///
    /// # Errors
    /// Targets that name no module of the model.
    pub fn new(config: &Config, recipe: &Recipe) -> Result<Parameters> {
        let (mut modules, mut elements) = (Vec::new(), 0);
        let mut place = |count: usize| {
            let at = elements;
            elements = (elements + count).next_multiple_of(ALIGNMENT);
            at
        };
        let rank = recipe.rank;
        for module in recipe.targets.select(config)? {
            let [out_features, in_features] = module.role().shape(config);
            let (a, b) = (place(rank * in_features), place(out_features * rank));
            modules.push(Trained { module, in_features, out_features, rank, a, b });
        }
        Ok(Parameters { modules, elements, scale: recipe.scale() })
    }

    /// How many numbers are trained.
    pub fn count(&self) -> usize {
        self.modules.iter().map(|trained| trained.a().len() + trained.b().len()).sum()
    }

    /// Where a module's are, if it is adapted.
    pub fn of(&self, module: Module) -> Option<&Trained> {
        self.modules.iter().find(|trained| trained.module == module)
    }

    /// The first numbers, as PEFT draws them: A uniform between ±1 / sqrt(in) (`kaiming_uniform_` with a = sqrt(5)), B zero.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let mut numbers = vec![0.0; self.elements];
        for (nth, trained) in self.modules.iter().enumerate() {
            let mut random = random(seed, Purpose::Adapter, nth as u64);
            let bound = 1.0 / (trained.in_features as f32).sqrt();
            numbers[trained.a()].fill_with(|| (2.0 * random.random::<f32>() - 1.0) * bound);
        }
        numbers
    }

    /// The numbers of an adapter for this model, in their places.
    ///
    /// # Errors
    /// An adapter with other modules or ranks.
    pub fn gather(&self, config: &Config, adapter: &Adapter) -> Result<Vec<f32>> {
        let fitted = adapter.fit(config)?;
        let mut numbers = vec![0.0; self.elements];
        for trained in &self.modules {
            let name = trained.module.name();
            let lora = fitted.modules.get(&trained.module).filter(|lora| lora.rank() == trained.rank);
            let Some(lora) = lora.filter(|_| fitted.modules.len() == self.modules.len()) else {
                let (what, right) = (format!("adapter {}", adapter.name), format!("{name} of rank {}", trained.rank));
                let (left, remedy) =
                    ("its modules".into(), "it has to adapt the same modules with the same rank".into());
                return Err(candlewick_model::Error::Mismatch { what, left, right, remedy }.into());
            };
            numbers[trained.a()].copy_from_slice(&lora.a.to_f32());
            numbers[trained.b()].copy_from_slice(&lora.b.to_f32());
        }
        Ok(numbers)
    }

    /// The PEFT adapter of these numbers, with rows in the order of Hugging Face's files. `base` names the model.
    ///
    /// # Errors
    /// What PEFT's configuration cannot say.
    pub fn adapter(&self, config: &Config, recipe: &Recipe, base: &str, numbers: &[f32]) -> Result<Adapter> {
        let lora = |trained: &Trained| {
            let a =
                Tensor::from_f32(&[trained.rank, trained.in_features], candlewick::DType::F32, &numbers[trained.a()]);
            let shape = [trained.out_features, trained.rank];
            let mut b = Tensor::from_f32(&shape, candlewick::DType::F32, &numbers[trained.b()]);
            if let Some(heads) = turned_heads(config, trained.module) {
                b.bytes = deinterleave_rows(&b.bytes, heads, config.head_dim);
            }
            (trained.module, Lora { a, b, scale: self.scale })
        };
        let modules: BTreeMap<Module, Lora> = self.modules.iter().map(lora).collect();
        let described = PeftConfig::describe(Some(base), &modules)?;
        let targets = match &recipe.targets {
            Targets::Pattern(pattern) if !pattern.eq_ignore_ascii_case("all-linear") => json!(pattern),
            // PEFT too writes the names that it found.
            _ => described.field("target_modules").cloned().unwrap_or_default(),
        };
        let fields = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": recipe.rank,
            "lora_alpha": if recipe.alpha.fract() == 0.0 { json!(recipe.alpha as i64) } else { json!(recipe.alpha) },
            "lora_dropout": recipe.dropout,
            "target_modules": targets,
            "rank_pattern": {},
            "alpha_pattern": {},
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "modules_to_save": null,
            "use_dora": false,
            "use_rslora": recipe.rslora,
        });
        let config = PeftConfig::parse(Path::new("adapter_config.json"), &fields.to_string())?;
        let (name, format, biases) = ("adapter".into(), AdapterFormat::Peft, BTreeMap::new());
        Ok(Adapter { name, format, config, modules, biases })
    }
}

/// How many heads a module's rows make up, if the model's file has them interleaved.
fn turned_heads(config: &Config, module: Module) -> Option<usize> {
    match (config.rope.pairs, module) {
        (Pairs::Interleaved, Module::Layer(_, Linear::Query)) => Some(config.heads),
        (Pairs::Interleaved, Module::Layer(_, Linear::Key)) => Some(config.kv_heads),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candlewick_model::Family;
    use candlewick_model::testing::tiny_config;

    fn recipe() -> Recipe {
        Recipe { rank: 4, targets: "q_proj,k_proj,down_proj".parse().unwrap(), ..Recipe::default() }
    }

    #[test]
    fn a_is_uniform_b_is_zero_and_the_seed_decides() {
        let parameters = Parameters::new(&tiny_config(Family::Llama), &recipe()).unwrap();
        assert_eq!(parameters.modules.len(), 6);
        assert_eq!(parameters.count(), 2 * 4 * ((64 + 64) + (64 + 32) + (96 + 64)));
        let numbers = parameters.initial(1);
        for trained in &parameters.modules {
            let a = &numbers[trained.a()];
            let bound = 1.0 / (trained.in_features as f32).sqrt();
            let largest = a.iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(largest <= bound && largest > 0.9 * bound);
            let square = a.iter().map(|x| x * x).sum::<f32>() / a.len() as f32;
            assert!((square / (bound * bound / 3.0) - 1.0).abs() < 0.25, "the variance of a uniform number");
            assert!(numbers[trained.b()].iter().all(|&b| b == 0.0));
            assert!(trained.a.is_multiple_of(ALIGNMENT) && trained.b.is_multiple_of(ALIGNMENT));
        }
        assert_eq!(numbers, parameters.initial(1));
        assert_ne!(numbers, parameters.initial(2));
    }

    /// An adapter written from a GGUF file's order and fitted to it again is the same.
    #[test]
    fn the_adapter_is_pefts_and_comes_back() {
        for pairs in [Pairs::Halves, Pairs::Interleaved] {
            let mut config = tiny_config(Family::Llama);
            config.rope.pairs = pairs;
            let recipe = Recipe { rslora: true, alpha: 6.0, ..recipe() };
            let parameters = Parameters::new(&config, &recipe).unwrap();
            let mut numbers = vec![0.0; parameters.elements];
            for trained in &parameters.modules {
                numbers[trained.a()].iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
                numbers[trained.b()].iter_mut().enumerate().for_each(|(i, x)| *x = -(i as f32));
            }
            let folder = tempfile::tempdir().unwrap();
            parameters.adapter(&config, &recipe, "tiny", &numbers).unwrap().write(folder.path()).unwrap();
            let read = Adapter::open(folder.path()).unwrap();
            assert!(read.config.rslora);
            assert_eq!(read.config.base(), Some("tiny"));
            assert_eq!(read.modules[&parameters.modules[0].module].scale, 3.0);
            assert_eq!(parameters.gather(&config, &read).unwrap(), numbers);
            let b = read.modules[&Module::Layer(0, Linear::Query)].b.to_f32();
            let kept = b == numbers[parameters.modules[0].b()];
            assert_eq!(kept, pairs == Pairs::Halves, "rows of q are in the other order in the file");
            let other = Recipe { rank: 2, ..recipe.clone() };
            let error = Parameters::new(&config, &other).unwrap().gather(&config, &read).unwrap_err();
            assert!(error.to_string().contains("of rank 2"), "{error}");
        }
    }
}
