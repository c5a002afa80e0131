//! Which modules an adapter is for: PEFT's rules (`check_target_module_exists`, `get_pattern_key` in `tuners_utils.py`).

use crate::{Error, Result};
use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::path::Path;

/// Steps of a regular expression before it is given up.
const BACKTRACKS: usize = 100_000;

/// Modules by name.
#[derive(Clone, Debug)]
pub(super) enum Names {
    /// Every linear layer but the output layer.
    AllLinear,
    /// The whole name matches.
    Regex(Regex),
    /// The name, or its end after a dot.
    List(Vec<String>),
}

impl Names {
    pub fn read(path: &Path, field: &str, value: &Value) -> Result<Option<Names>> {
        match value {
            Value::Null => Ok(None),
            Value::String(text) if text.eq_ignore_ascii_case("all-linear") => Ok(Some(Names::AllLinear)),
            Value::String(text) => Ok(Some(Names::Regex(regex(path, field, &format!(r"\A(?:{text})\z"))?))),
            Value::Array(list) => {
                let name = |value: &Value| value.as_str().map(str::to_owned);
                let names: Option<Vec<String>> = list.iter().map(name).collect();
                names.map(|names| Some(Names::List(names))).ok_or_else(|| wrong(path, field, value))
            }
            other => Err(wrong(path, field, other)),
        }
    }

    pub fn has(&self, module: &str) -> bool {
        match self {
            Names::AllLinear => module != "lm_head",
            // An expression that takes too long matches nothing: the module is then refused by name.
            Names::Regex(regex) => regex.is_match(module).unwrap_or(false),
            Names::List(names) => names
                .iter()
                .any(|name| module.strip_suffix(&**name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))),
        }
    }
}

/// Layers by number: `layers_to_transform`, and where the number is in a name: `layers_pattern`.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    numbers: Vec<u64>,
    patterns: Vec<Regex>,
}

impl Layers {
    pub fn read(path: &Path, numbers: &Value, patterns: &Value) -> Result<Option<Layers>> {
        let field = "layers_to_transform";
        let numbers = match numbers {
            Value::Null => return Ok(None),
            Value::Array(list) => {
                let list: Option<Vec<u64>> = list.iter().map(Value::as_u64).collect();
                list.ok_or_else(|| wrong(path, field, numbers))?
            }
            one => vec![one.as_u64().ok_or_else(|| wrong(path, field, one))?],
        };
        let field = "layers_pattern";
        let patterns: Vec<&str> = match patterns {
            Value::Null => Vec::new(),
            Value::String(one) => vec![one],
            Value::Array(list) => {
                let list: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                list.ok_or_else(|| wrong(path, field, patterns))?
            }
            other => return Err(wrong(path, field, other)),
        };
        let patterns = if patterns.iter().all(|pattern| pattern.is_empty()) {
            vec![regex(path, field, r"\A.*?\.[^.]*\.(\d+)\.")?]
        } else {
            let all = patterns.iter().map(|pattern| regex(path, field, &format!(r"\A.*\.{pattern}\.(\d+)\.")));
            all.collect::<Result<_>>()?
        };
        Ok(Some(Layers { numbers, patterns }))
    }

    pub fn has(&self, module: &str) -> bool {
        let number = self.patterns.iter().find_map(|pattern| {
            let found = pattern.captures(module).ok()??;
            found.iter().last()??.as_str().parse().ok()
        });
        number.is_some_and(|number| self.numbers.contains(&number))
    }
}

/// Values for the modules whose name, or its end after a dot, a regular expression matches: the first that does.
#[derive(Clone, Debug)]
pub(super) struct Patterns<T>(Vec<(Regex, T)>);

impl<T: Copy> Patterns<T> {
    pub fn read<'a>(path: &Path, field: &str, entries: impl Iterator<Item = (&'a String, T)>) -> Result<Patterns<T>> {
        let entries = entries.map(|(key, value)| Ok((regex(path, field, &format!(r"\A(?:.*\.)?(?:{key})\z"))?, value)));
        entries.collect::<Result<_>>().map(Patterns)
    }

    pub fn get(&self, module: &str) -> Option<T> {
        self.0.iter().find(|(regex, _)| regex.is_match(module).unwrap_or(false)).map(|&(_, value)| value)
    }
}

fn regex(path: &Path, field: &str, pattern: &str) -> Result<Regex> {
    const LONGEST: usize = 1 << 16;
    if pattern.len() > LONGEST {
        return Err(Error::damaged(path, field, format!("has {} bytes, more than {LONGEST}", pattern.len())));
    }
    let regex = RegexBuilder::new(pattern).backtrack_limit(BACKTRACKS).delegate_size_limit(1 << 20).build();
    regex.map_err(|error| Error::damaged(path, field, format!("is no regular expression: {error}")))
}

fn wrong(path: &Path, field: &str, value: &Value) -> Error {
    Error::damaged(
        path,
        field,
        format!("{} is not what PEFT writes here", value.to_string().chars().take(60).collect::<String>()),
    )
}
