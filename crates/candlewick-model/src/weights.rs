//! The weights of a model by role, from a Hugging Face folder or a GGUF file: bytes in a mapped file, and their format.

use crate::file::read_needed_text;
use crate::gguf::Gguf;
use crate::safetensors::Safetensors;
use crate::{Config, Error, Format, Result, Role};
use candlewick_core::DType;
use safetensors::tensor::Dtype;
use std::collections::HashSet;
use std::path::Path;

/// Larger than any config.json that there is.
const MOST_CONFIG: usize = 16 << 20;

/// An open model: its config and all of its weights, checked against each other.
#[derive(Debug)]
pub struct Weights {
    config: Config,
    source: Source,
}

/// Where the weights are.
#[derive(Debug)]
pub enum Source {
    /// Hugging Face's: `config.json` and safetensors.
    Folder(Safetensors),
    /// One GGUF file.
    Gguf(Gguf),
}

/// A weight, in its file.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// Rows: `out` of a matrix W [out, in], 1 of a vector.
    pub rows: usize,
    /// Columns: `in` of a matrix W [out, in], the length of a vector.
    pub cols: usize,
    /// How the numbers are stored.
    pub format: Format,
    /// Row after row, contiguous, little-endian. Aligned to 32 in GGUF files, to nothing in safetensors.
    pub bytes: &'a [u8],
}

impl Weights {
    /// Opens a model: a folder with `config.json` and safetensors, or a GGUF file. Nothing of it is copied, and it must
    /// not be changed while it is open.
    pub fn open(path: &Path) -> Result<Weights> {
        if !path.is_dir() {
            return Weights::from_gguf(Gguf::open(path)?);
        }
        let config_path = path.join("config.json");
        let remedy = "a model is a folder with config.json and safetensors, or a GGUF file";
        let config = Config::from_json(&config_path, &read_needed_text(&config_path, MOST_CONFIG, remedy)?)?;
        Weights::checked(config, Source::Folder(Safetensors::open_folder(path)?), path)
    }

    /// A model in an open GGUF file.
    pub fn from_gguf(file: Gguf) -> Result<Weights> {
        let (config, path) = (Config::from_gguf(&file)?, file.path().to_owned());
        Weights::checked(config, Source::Gguf(file), &path)
    }

    /// The model's config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The files behind it.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// A weight. The head of a model whose head is tied is its embedding.
    ///
    /// # Errors
    /// Where the model has no such weight: a bias, a norm of q, a layer too many.
    pub fn get(&self, role: Role) -> Result<Weight<'_>> {
        let role = if role == Role::Head && self.config.tied { Role::Embedding } else { role };
        self.source.find(role, &self.config)
    }

    /// Every weight is there, with the shape that the config says, and no other weight is.
    fn checked(config: Config, source: Source, path: &Path) -> Result<Weights> {
        let mut known = HashSet::new();
        for role in Role::all(&config) {
            source.find(role, &config)?;
            known.insert(source.name(role));
        }
        if config.tied {
            known.insert(source.name(Role::Head)); // Some files keep a copy of the embedding.
        }
        if let Some(name) = source.names().find(|name| !known.contains(*name) && !has_no_effect(name)) {
            let remedy = "the config says of no such weight, and without it the results would not be the model's";
            return Err(Error::unsupported(path, "a tensor", name, remedy));
        }
        Ok(Weights { config, source })
    }
}

/// Tables that old files keep, and that are computed from the config; factors that [`crate::Scaling`] has read.
fn has_no_effect(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || name == "rope_freqs.weight" || name.ends_with(".attn_rot_embd")
}

impl Source {
    fn name(&self, role: Role) -> String {
        match self {
            Source::Folder(_) => role.hugging_face(),
            Source::Gguf(_) => role.gguf(),
        }
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Source::Folder(files) => Box::new(files.names()),
            Source::Gguf(file) => Box::new(file.tensors().iter().map(|tensor| &*tensor.name)),
        }
    }

    fn find(&self, role: Role, config: &Config) -> Result<Weight<'_>> {
        let name = self.name(role);
        let [rows, cols] = role.shape(config);
        let missing = |path: &Path| {
            let remedy = "the config says that the model has it: the file is not complete, or another model's";
            Error::missing(path, &*name, remedy)
        };
        let (path, dims, format, bytes) = match self {
            Source::Folder(files) => {
                let folder = files.paths().next().unwrap_or(Path::new("model"));
                let tensor = files.get(&name).ok_or_else(|| missing(folder))?;
                let dtype = float(tensor.path, &name, tensor.dtype)?;
                (tensor.path, tensor.shape.to_vec(), Format::Float(dtype), tensor.bytes)
            }
            Source::Gguf(file) => {
                let (tensor, bytes) = file.tensor(&name).ok_or_else(|| missing(file.path()))?;
                (file.path(), tensor.dims.iter().rev().copied().collect(), tensor.format, bytes)
            }
        };
        let expected = if role.is_vector() { vec![cols] } else { vec![rows, cols] };
        if dims != expected {
            let problem = format!("has shape {dims:?}, and the config says {expected:?}");
            return Err(Error::damaged(path, name, problem));
        }
        if role.is_vector() && matches!(format, Format::Quant(_)) {
            return Err(Error::unsupported(path, format!("type of {name}"), format, "norms and biases are floats"));
        }
        Ok(Weight { rows, cols, format, bytes })
    }
}

/// A safetensors dtype that operations compute with.
pub(crate) fn float(path: &Path, name: &str, dtype: Dtype) -> Result<DType> {
    match dtype {
        Dtype::F32 => Ok(DType::F32),
        Dtype::F16 => Ok(DType::F16),
        Dtype::BF16 => Ok(DType::BF16),
        other => {
            let remedy = "f32, f16 and bf16 are: convert the weights";
            Err(Error::unsupported(path, format!("dtype of {name}"), format!("{other:?}"), remedy))
        }
    }
}

/// Reorders the rows of a q or k projection, or of an adapter's B for it, from Hugging Face's order to that of GGUF files of
/// the architecture `llama`: in each head, row i and row i + head_dim / 2 become rows 2 i and 2 i + 1.
///
/// `rows` is whole rows of bytes. See [`crate::Rope::pairs`].
///
/// # Panics
/// Where `rows` is not `heads` · `head_dim` rows of one size, or `head_dim` is odd.
pub fn interleave_rows(rows: &[u8], heads: usize, head_dim: usize) -> Vec<u8> {
    assert!(head_dim.is_multiple_of(2) && rows.len().is_multiple_of(heads * head_dim), "whole rows of whole heads");
    let row = rows.len() / (heads * head_dim);
    let mut interleaved = Vec::with_capacity(rows.len());
    for (head, i) in (0..heads).flat_map(|head| (0..head_dim / 2).map(move |i| (head, i))) {
        for from in [head * head_dim + i, head * head_dim + i + head_dim / 2] {
            interleaved.extend_from_slice(&rows[from * row..(from + 1) * row]);
        }
    }
    interleaved
}

/// What [`interleave_rows`] does, undone: for an adapter that was trained on a model of interleaved rows.
///
/// # Panics
/// As that.
pub fn deinterleave_rows(rows: &[u8], heads: usize, head_dim: usize) -> Vec<u8> {
    assert!(head_dim.is_multiple_of(2) && rows.len().is_multiple_of(heads * head_dim), "whole rows of whole heads");
    let row = rows.len() / (heads * head_dim);
    let mut halves = Vec::with_capacity(rows.len());
    for (head, i) in (0..heads).flat_map(|head| (0..head_dim).map(move |i| (head, i))) {
        let from = head * head_dim + 2 * (i % (head_dim / 2)) + i / (head_dim / 2);
        halves.extend_from_slice(&rows[from * row..(from + 1) * row]);
    }
    halves
}
