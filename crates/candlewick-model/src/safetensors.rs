//! Safetensors: one file, or a folder of shards with an index; mapped, and checked before anything is read.

use crate::file::{Bytes, read_text};
use crate::{Error, Result};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path};

/// Headers and indices of real models have a few megabytes; a parsed one takes several times its length.
const MOST_HEADER: usize = 64 << 20;

/// The tensors of one file, or of all shards of a model.
#[derive(Debug, Default)]
pub struct Safetensors {
    files: Vec<Bytes>,
    tensors: BTreeMap<String, Info>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Info {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// A tensor, with its bytes in the mapped file.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Its format; of the `safetensors` crate, which knows more than there are operations for.
    pub dtype: Dtype,
    /// Its sizes, the one that varies slowest first.
    pub shape: &'a [usize],
    /// Little-endian, contiguous, not always aligned.
    pub bytes: &'a [u8],
    /// The file that holds it.
    pub path: &'a Path,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Safetensors {
    /// Maps and checks one file.
    pub fn open(path: &Path) -> Result<Safetensors> {
        let mut all = Safetensors::default();
        all.add(Bytes::map(path)?)?;
        Ok(all)
    }

    /// The same of bytes in memory; `name` stands for the file in messages.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Safetensors> {
        let mut all = Safetensors::default();
        all.add(Bytes::owned(name, bytes))?;
        Ok(all)
    }

    /// A model's folder: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    pub fn open_folder(folder: &Path) -> Result<Safetensors> {
        let single = folder.join("model.safetensors");
        if single.is_file() {
            return Safetensors::open(&single);
        }
        let path = folder.join("model.safetensors.index.json");
        let Some(text) = read_text(&path, MOST_HEADER)? else {
            let remedy = "a model's folder has model.safetensors, or shards and model.safetensors.index.json";
            return Err(Error::missing(folder, "model.safetensors", remedy));
        };
        let index: Index =
            serde_json::from_str(&text).map_err(|error| Error::damaged(&path, "weight_map", error.to_string()))?;
        let mut all = Safetensors::default();
        for shard in index.weight_map.values().collect::<BTreeSet<_>>() {
            // A shard lies in the folder: an index may not send its reader elsewhere.
            if !matches!(Path::new(shard).components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
                return Err(Error::damaged(&path, "weight_map", format!("{shard:?} is not a file of the folder")));
            }
            all.add(Bytes::map(&folder.join(shard))?)?;
        }
        for (name, shard) in &index.weight_map {
            let there =
                all.get(name).is_some_and(|tensor| tensor.path.file_name().is_some_and(|file| file == &**shard));
            if !there {
                return Err(Error::damaged(&path, "weight_map", format!("{name} is not in {shard}")));
            }
        }
        Ok(all)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor, if it is there.
    pub fn get(&self, name: &str) -> Option<View<'_>> {
        let info = self.tensors.get(name)?;
        let file = &self.files[info.file];
        Some(View { dtype: info.dtype, shape: &info.shape, bytes: &file[info.bytes.clone()], path: file.path() })
    }

    /// The strings that a header may hold beside the tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The files, in the order of their names.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(Bytes::path)
    }

    fn add(&mut self, file: Bytes) -> Result<()> {
        let path = file.path();
        let damaged = |problem: String| Error::damaged(path, "header", problem);
        let length = file.first_chunk::<8>().ok_or_else(|| damaged("the file has not even its 8 bytes".into()))?;
        let length = u64::from_le_bytes(*length);
        let start = usize::try_from(length).ok().filter(|&length| length <= MOST_HEADER).map(|length| length + 8);
        let Some(start) = start.filter(|&start| start <= file.len()) else {
            let problem = format!("claims {length} bytes; the file has {}, and {MOST_HEADER} are allowed", file.len());
            return Err(damaged(problem));
        };
        // The crate checks offsets against shapes, dtypes and each other. Its own reader adds lengths without care for
        // overflow, so that the comparison with the file is here.
        let header: Metadata = serde_json::from_slice(&file[8..start])
            .map_err(|error| damaged(SafeTensorError::InvalidHeaderDeserialization(error).to_string()))?;
        if header.data_len() != file.len() - start {
            let have = file.len() - start;
            return Err(damaged(format!("describes {} bytes of data, and the file has {have}", header.data_len())));
        }
        for (name, info) in header.tensors() {
            let bytes = info.data_offsets.0 + start..info.data_offsets.1 + start;
            let info = Info { file: self.files.len(), dtype: info.dtype, shape: info.shape.clone(), bytes };
            if self.tensors.insert(name.clone(), info).is_some() {
                return Err(Error::damaged(path, name, "is in two shards"));
            }
        }
        self.metadata.extend(header.metadata().clone().unwrap_or_default());
        self.files.push(file);
        Ok(())
    }
}
