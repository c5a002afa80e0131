//! Which linear layers get an adapter, by PEFT's rules.

use super::{Error, Result};
use candlewick_model::{Config, Linear, Module, PeftConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// PEFT's `target_modules`: a list of names (a module's, or its end after a dot), or one text, which is `all-linear` or a
/// regular expression for whole names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// `["q_proj", "v_proj"]`.
    Names(Vec<String>),
    /// `all-linear`, or `.*layers\.(0|1)\..*_proj`.
    Pattern(String),
}

impl Targets {
    /// Every linear layer but the output layer.
    pub fn all_linear() -> Targets {
        Targets::Pattern("all-linear".into())
    }

    /// The modules of a model that they name, in the order that they run.
    ///
    /// # Errors
    /// A name that is no module's, an expression that matches none, the output layer.
    pub fn select(&self, config: &Config) -> Result<Vec<Module>> {
        let layers = (0..config.layers).flat_map(|layer| Linear::ALL.map(|linear| Module::Layer(layer, linear)));
        let all: Vec<Module> = layers.chain([Module::Head]).collect();
        let chosen = |targets: &Value| -> Result<Vec<Module>> {
            let rules = json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": targets});
            let rules = PeftConfig::parse(Path::new("targets"), &rules.to_string())?;
            Ok(all.iter().copied().filter(|module| rules.targets(&module.name())).collect())
        };
        if let Targets::Names(names) = self {
            for name in names {
                if chosen(&json!([name]))?.is_empty() {
                    let known = Linear::ALL.map(|linear| linear.module().rsplit('.').next().unwrap_or_default());
                    let remedy = format!("no linear layer is called that; there are {}", known.join(", "));
                    return Err(Error::option("targets", name, remedy));
                }
            }
        }
        let modules = chosen(&json!(self))?;
        if modules.contains(&Module::Head) {
            let remedy = "the output layer is not adapted: the loss takes its rows in chunks; name other layers";
            return Err(Error::option("targets", self, remedy));
        }
        if modules.is_empty() {
            let name = all[0].name();
            let remedy = format!("matches no linear layer: an expression has to match a whole name like {name}");
            return Err(Error::option("targets", self, remedy));
        }
        Ok(modules)
    }
}

/// As users type it: `all-linear`, names with commas between them, or what has letters that no name has: an expression.
impl FromStr for Targets {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        let expression = text.contains(|letter| "*+?()[]{}|\\^$".contains(letter));
        if expression || text.eq_ignore_ascii_case("all-linear") {
            return Ok(Targets::Pattern(text.to_owned()));
        }
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(Targets::Names(names.map(str::to_owned).collect()))
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Targets::Names(names) => f.pad(&names.join(",")),
            Targets::Pattern(pattern) => f.pad(pattern),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candlewick_model::Family;
    use candlewick_model::testing::tiny_config;

    fn select(text: &str) -> Result<Vec<String>> {
        let targets: Targets = text.parse().unwrap();
        let modules = targets.select(&tiny_config(Family::Llama))?;
        Ok(modules.into_iter().map(Module::name).collect())
    }

    #[test]
    fn names_lists_and_expressions() {
        let q = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"];
        assert_eq!(select("q_proj").unwrap(), q);
        assert_eq!(select("model.layers.1.self_attn.q_proj").unwrap(), q[1..]);
        assert_eq!(select("q_proj, v_proj").unwrap().len(), 4);
        assert_eq!(select(r".*layers\.1\..*(q|v)_proj").unwrap().len(), 2);
        assert_eq!(select("all-linear").unwrap().len(), 14);
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for (text, part) in [
            ("q_proj,qproj", "targets = qproj: no linear layer is called that; there are q_proj"),
            ("q_pro.*", "matches no linear layer"),
            ("lm_head", "the output layer is not adapted"),
            ("", "matches no linear layer"),
            ("(", "is no regular expression"),
        ] {
            let error = select(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
