//! The frequencies of the rotary embedding, with the scalings of long contexts.

use crate::{Error, Result};
use candlewick_core::op::Pairs;
use std::f64::consts::TAU;
use std::path::Path;

/// The rotary embedding of a model: all elements of a head turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base of the frequencies.
    pub theta: f64,
    /// How they are scaled.
    pub scaling: Scaling,
    /// Which two elements of a head turn together, given how this file orders the rows of q and k.
    ///
    /// Hugging Face's files need [`Pairs::Halves`]. GGUF files of the architecture `llama` have the rows of q and k permuted
    /// (`LlamaModel.permute` in llama.cpp's `convert_hf_to_gguf.py`), and need [`Pairs::Interleaved`]; those of `qwen2` and
    /// `qwen3` are not, and need [`Pairs::Halves`]. An adapter for such a q or k needs its rows permuted alike: see
    /// [`crate::weights::interleave_rows`].
    pub pairs: Pairs,
}

/// How the frequencies of a rotary embedding are scaled (`modeling_rope_utils.py` of transformers).
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// They are not.
    None,
    /// All are divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3: low ones are divided, high ones kept, those between interpolated.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths above `original_context / low` are divided.
        low: f64,
        /// Wavelengths below `original_context / high` are kept.
        high: f64,
        /// The context that the model was first trained with.
        original_context: f64,
    },
    /// Each is divided by its own factor: GGUF's `rope_freqs.weight`, `head_dim / 2` numbers.
    Factors(Vec<f32>),
}

impl Rope {
    /// One frequency per pair of elements, `head_dim / 2` of them. Rounded to f32 where transformers rounds them, so that
    /// both turn by the same angles.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let plain = (0..head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / (f64::from(self.theta as f32).powf(exponent.into()) as f32)
        });
        plain.enumerate().map(|(i, frequency)| self.scaling.scale(i, frequency)).collect()
    }
}

impl Scaling {
    fn scale(&self, i: usize, frequency: f32) -> f32 {
        match self {
            Scaling::None => frequency,
            Scaling::Linear { factor } => frequency / *factor as f32,
            Scaling::Factors(factors) => factors.get(i).map_or(frequency, |factor| frequency / factor),
            &Scaling::Llama3 { factor, low, high, original_context } => {
                let wavelength = (TAU as f32) / frequency;
                let (context, factor) = (original_context as f32, factor as f32);
                if wavelength < context / high as f32 {
                    frequency
                } else if wavelength > context / low as f32 {
                    frequency / factor
                } else {
                    let smooth = (context / wavelength - low as f32) / (high as f32 - low as f32);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }

    pub(super) fn check(&self, path: &Path, head_dim: usize) -> Result<()> {
        let positive = |name: &str, value: f64| {
            let good = value > 0.0 && value.is_finite();
            if good { Ok(()) } else { Err(Error::damaged(path, name, format!("{value} is not a positive number"))) }
        };
        match self {
            Scaling::None => Ok(()),
            Scaling::Linear { factor } => positive("factor of the rope scaling", *factor),
            &Scaling::Llama3 { factor, low, high, original_context } => {
                positive("factor of the rope scaling", factor)?;
                positive("low_freq_factor", low)?;
                positive("original_max_position_embeddings", original_context)?;
                positive("high_freq_factor less low_freq_factor", high - low)
            }
            Scaling::Factors(factors) if factors.len() != head_dim / 2 => {
                let problem = format!("has {} factors, and a head has {} pairs", factors.len(), head_dim / 2);
                Err(Error::damaged(path, "rope_freqs.weight", problem))
            }
            Scaling::Factors(factors) => {
                factors.iter().try_for_each(|&factor| positive("rope_freqs.weight", factor.into()))
            }
        }
    }
}
