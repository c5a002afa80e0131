//! How two adapters differ in what they add to the model's weights.

use super::{Adapter, Lora};
use crate::Module;
use std::collections::BTreeSet;
use std::fmt;

/// How two adapters differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Diff {
    /// Their names.
    pub names: [String; 2],
    /// Modules that only one of them adapts.
    pub only: [Vec<Module>; 2],
    /// Modules that both adapt, and how they differ.
    pub both: Vec<ModuleDiff>,
    /// The biases that they replace are the same.
    pub equal_biases: bool,
}

/// How two adapters differ in one module. Norms are Frobenius norms of scale · B A.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModuleDiff {
    /// The module.
    pub module: Module,
    /// A, B and the scale are the same, bit for bit.
    pub equal: bool,
    /// Their ranks.
    pub ranks: [usize; 2],
    /// Their norms.
    pub norms: [f64; 2],
    /// The norm of their difference; none where the shapes differ. Below 1e-7 of the norms it is rounding.
    pub distance: Option<f64>,
}

impl Adapter {
    /// How another adapter differs from this one.
    pub fn diff(&self, other: &Adapter) -> Diff {
        let keys = |adapter: &Adapter| adapter.modules.keys().copied().collect::<BTreeSet<_>>();
        let (mine, theirs) = (keys(self), keys(other));
        let both =
            mine.intersection(&theirs).map(|module| compare(*module, &self.modules[module], &other.modules[module]));
        Diff {
            names: [self.name.clone(), other.name.clone()],
            only: [mine.difference(&theirs).copied().collect(), theirs.difference(&mine).copied().collect()],
            both: both.collect(),
            equal_biases: self.biases == other.biases,
        }
    }
}

fn compare(module: Module, left: &Lora, right: &Lora) -> ModuleDiff {
    ModuleDiff {
        module,
        equal: left == right,
        ranks: [left.rank(), right.rank()],
        norms: [norm(&[(left, 1.0)]), norm(&[(right, 1.0)])],
        distance: (left.shape() == right.shape()).then(|| norm(&[(left, 1.0), (right, -1.0)])),
    }
}

/// The norm of a sum of deltas, without forming it: ||B A||² is the sum of (Bᵀ B) * (A Aᵀ), elementwise.
fn norm(sum: &[(&Lora, f64)]) -> f64 {
    let [out, input] = sum[0].0.shape();
    // Columns of all B, with their scales, and rows of all A.
    let (mut b, mut a) = (Vec::new(), Vec::new());
    for (lora, sign) in sum {
        let (rank, numbers) = (lora.rank(), lora.b.to_f32());
        for k in 0..rank {
            b.push((0..out).map(|o| sign * lora.scale * f64::from(numbers[o * rank + k])).collect::<Vec<f64>>());
        }
        a.extend(lora.a.to_f32().chunks(input).map(|row| row.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>()));
    }
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let pairs = (0..a.len()).flat_map(|i| (0..a.len()).map(move |j| (i, j)));
    let square: f64 = pairs.map(|(i, j)| dot(&b[i], &b[j]) * dot(&a[i], &a[j])).sum();
    square.max(0.0).sqrt()
}

impl Diff {
    /// Nothing differs, bit for bit.
    pub fn is_equal(&self) -> bool {
        self.equal_biases && self.only.iter().all(Vec::is_empty) && self.both.iter().all(|module| module.equal)
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [left, right] = &self.names;
        if self.is_equal() {
            return write!(f, "{left} and {right} are equal, bit for bit");
        }
        for (name, only) in self.names.iter().zip(&self.only) {
            for module in only {
                writeln!(f, "{:<36} only in {name}", module.name())?;
            }
        }
        for ModuleDiff { module, ranks, norms, distance, .. } in self.both.iter().filter(|module| !module.equal) {
            write!(
                f,
                "{:<36} rank {} / {}, norm {:.4e} / {:.4e}, ",
                module.name(),
                ranks[0],
                ranks[1],
                norms[0],
                norms[1]
            )?;
            match distance {
                Some(distance) => writeln!(f, "distance {distance:.4e}")?,
                None => writeln!(f, "shapes differ")?,
            }
        }
        let equal = self.both.iter().filter(|module| module.equal).count();
        if !self.equal_biases {
            writeln!(f, "biases differ")?;
        }
        write!(f, "{left} / {right}: {equal} of {} common modules are equal", self.both.len())
    }
}
