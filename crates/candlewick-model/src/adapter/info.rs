//! What an adapter is, to be printed.

use super::{Adapter, AdapterFormat};
use crate::Module;
use candlewick_core::DType;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What an adapter is.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub format: AdapterFormat,
    /// The model that it is for, if its files say.
    pub base: Option<String>,
    /// Every rank that a module has.
    pub ranks: BTreeSet<usize>,
    /// The smallest and the largest scale of a module.
    pub scales: (f64, f64),
    /// How many layers have each linear layer adapted, by its name.
    pub modules: BTreeMap<String, usize>,
    /// Numbers in all A, B and biases.
    pub parameters: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// Every dtype that a tensor has.
    pub dtypes: BTreeSet<DType>,
    /// Biases of the model that it replaces.
    pub biases: usize,
}

impl Adapter {
    /// What this adapter is.
    pub fn info(&self) -> Info {
        let tensors = self.modules.values().flat_map(|lora| [&lora.a, &lora.b]).chain(self.biases.values());
        let mut modules = BTreeMap::new();
        for module in self.modules.keys() {
            let name = match module {
                Module::Layer(_, linear) => linear.module().rsplit('.').next().unwrap_or_default().to_owned(),
                Module::Head => module.name(),
            };
            *modules.entry(name).or_insert(0) += 1;
        }
        let scales = self.modules.values().map(|lora| lora.scale);
        Info {
            name: self.name.clone(),
            format: self.format,
            base: self.config.base().map(str::to_owned),
            ranks: self.modules.values().map(|lora| lora.rank()).collect(),
            scales: scales.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), s| (low.min(s), high.max(s))),
            modules,
            parameters: tensors.clone().map(|tensor| tensor.bytes.len() / tensor.dtype.bytes()).sum(),
            bytes: tensors.clone().map(|tensor| tensor.bytes.len()).sum(),
            dtypes: tensors.map(|tensor| tensor.dtype).collect(),
            biases: self.biases.len(),
        }
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: Vec<String>| items.join(", ");
        writeln!(f, "{} ({})", self.name, self.format)?;
        writeln!(f, "  base        {}", self.base.as_deref().unwrap_or("not said"))?;
        writeln!(f, "  rank        {}", list(self.ranks.iter().map(usize::to_string).collect()))?;
        let (low, high) = self.scales;
        if low == high {
            writeln!(f, "  scale       {low}")?
        } else {
            writeln!(f, "  scale       {low} to {high}")?
        }
        let modules = self.modules.iter().map(|(name, count)| format!("{count} x {name}"));
        writeln!(f, "  modules     {}", list(modules.collect()))?;
        if self.biases > 0 {
            writeln!(f, "  biases      {}", self.biases)?;
        }
        let dtypes = list(self.dtypes.iter().map(DType::to_string).collect());
        write!(f, "  parameters  {} ({dtypes}, {:.1} MB)", self.parameters, self.bytes as f64 / 1e6)
    }
}
