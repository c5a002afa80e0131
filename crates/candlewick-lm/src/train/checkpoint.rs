//! Checkpoints: everything that a run needs to go on bit for bit, in one file that is there whole or not at all.
//!
//! A file of safetensors with the vectors `master`, `m` and `v` in f32, and a JSON text in its metadata. What is random in a
//! run is a function of seed, purpose and step (`random.rs`), so the seed and the step are its random state.

use super::data::Position;
use super::{Error, Recipe, Result};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Metadata key of the JSON text.
const KEY: &str = "candlewick";
/// Rises when an older program could not read it.
const VERSION: u32 = 1;
/// Of the best checkpoint.
const BEST: &str = "best";

/// What a run is, and how far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Of the format of this file.
    pub version: u32,
    /// What decides the numbers.
    pub recipe: Recipe,
    /// Digests of what the numbers came from, by name: model, data, validation data.
    pub sources: Vec<(String, String)>,
    /// The device, for the reader: results differ between devices in their last bits.
    pub device: String,
    /// Updates done.
    pub step: u64,
    /// The next row of the data.
    pub position: Position,
    /// The best validation so far: its step and loss.
    pub best: Option<(u64, f64)>,
    /// Validations since the best one.
    pub since_best: u64,
}

/// The trained vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Adapters, in f32.
    pub master: Vec<f32>,
    /// AdamW's mean of the gradients.
    pub m: Vec<f32>,
    /// AdamW's mean of their squares.
    pub v: Vec<f32>,
}

/// A folder of checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Progress {
    /// The beginning of a run.
    pub fn new(recipe: &Recipe, sources: &[(String, String)], device: &str) -> Progress {
        Progress {
            version: VERSION,
            recipe: recipe.clone(),
            sources: sources.to_vec(),
            device: device.to_owned(),
            step: 0,
            position: Position::default(),
            best: None,
            since_best: 0,
        }
    }

    /// A checkpoint is of this very run: same recipe, model and data.
    ///
    /// # Errors
    /// The first field that differs, with both values.
    pub fn check_same_run(&self, path: &Path, run: &Progress) -> Result<()> {
        let json = |recipe: &Recipe| serde_json::to_value(recipe).unwrap_or_default();
        let (found, expected) = (json(&self.recipe), json(&run.recipe));
        let fields = expected.as_object().into_iter().flatten();
        let recipe = fields.map(|(field, value)| (field.clone(), found[field].to_string(), value.to_string()));
        let source = |name: &String| self.sources.iter().find(|(other, _)| other == name);
        let sources = run.sources.iter().map(|(name, digest)| {
            let found = source(name).map_or("none".to_owned(), |(_, digest)| digest.clone());
            (name.clone(), found, digest.clone())
        });
        for (field, found, expected) in recipe.chain(sources) {
            if found != expected {
                let remedy = "give what the run began with, or another --out for a new run";
                return Err(Error::Checkpoint { path: path.to_owned(), field, found, expected, remedy });
            }
        }
        Ok(())
    }
}

impl Checkpoints {
    /// Those in a folder, which need not exist.
    pub fn in_folder(folder: &Path) -> Checkpoints {
        Checkpoints { folder: folder.to_owned() }
    }

    /// Makes the folder and finds out whether `bytes` can be written there, so that a full disk is no surprise later.
    ///
    /// # Errors
    /// What the system says.
    pub fn prepare(&self, bytes: u64) -> Result<()> {
        let folder = &self.folder;
        fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
        let mut probe = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(folder, "write into the folder"))?;
        let block: Vec<u8> = (0..1u32 << 18).flat_map(|word| word.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
        let mut left = bytes;
        while left > 0 {
            let part = left.min(block.len() as u64);
            let full = "write as much as the checkpoints will take";
            probe.write_all(&block[..part as usize]).map_err(Error::io(folder, full))?;
            left -= part;
        }
        probe.as_file().sync_all().map_err(Error::io(folder, "write as much as the checkpoints will take"))
    }

    /// Writes the state after a step, and removes all but the last `keep` and the best.
    ///
    /// # Errors
    /// What the system says; the checkpoints before are still there then.
    pub fn save(&self, progress: &Progress, state: &State, keep: usize) -> Result<PathBuf> {
        let path = self.folder.join(format!("step-{:08}.safetensors", progress.step));
        self.write(&path, progress, state)?;
        let mut all = self.numbered()?;
        all.retain(|(step, _)| *step <= progress.step);
        let old = all.len().saturating_sub(keep.max(1));
        for (_, path) in all.into_iter().take(old) {
            fs::remove_file(&path).map_err(Error::io(&path, "remove the old checkpoint"))?;
        }
        Ok(path)
    }

    /// Writes the state as the best one.
    ///
    /// # Errors
    /// What the system says; the best before is still there then.
    pub fn save_best(&self, progress: &Progress, state: &State) -> Result<()> {
        self.write(&self.best_path(), progress, state)
    }

    /// The last checkpoint, if there is one.
    ///
    /// # Errors
    /// A damaged file.
    pub fn last(&self) -> Result<Option<(PathBuf, Progress, State)>> {
        match self.numbered()?.pop() {
            Some((_, path)) => read(&path).map(|(progress, state)| Some((path, progress, state))),
            None => Ok(None),
        }
    }

    /// The best one, if there is one.
    ///
    /// # Errors
    /// A damaged file.
    pub fn best(&self) -> Result<Option<(Progress, State)>> {
        let path = self.best_path();
        if path.is_file() { read(&path).map(Some) } else { Ok(None) }
    }

    fn best_path(&self) -> PathBuf {
        self.folder.join(format!("{BEST}.safetensors"))
    }

    /// By step.
    fn numbered(&self) -> Result<Vec<(u64, PathBuf)>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            // Whether it can be made is another question.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(Error::io(&self.folder, "list the folder")(error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io(&self.folder, "list the folder"))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let step = name.strip_prefix("step-").and_then(|rest| rest.strip_suffix(".safetensors"));
            if let Some(step) = step.and_then(|step| step.parse().ok()) {
                all.push((step, path));
            }
        }
        all.sort();
        Ok(all)
    }

    fn write(&self, path: &Path, progress: &Progress, state: &State) -> Result<()> {
        let text = serde_json::to_string(progress).map_err(|error| damaged(path, KEY, error))?;
        let bytes = [&state.master, &state.m, &state.v]
            .map(|numbers| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>());
        let view = |bytes| TensorView::new(Dtype::F32, vec![state.master.len()], bytes);
        let mut views = Vec::new();
        for (name, bytes) in ["master", "m", "v"].into_iter().zip(&bytes) {
            views.push((name, view(bytes).map_err(|error| damaged(path, name, error))?));
        }
        let metadata = HashMap::from([(KEY.to_owned(), text)]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(|error| damaged(path, "tensors", error))?;
        candlewick_model::write_atomically(path, &file)?;
        sync(&self.folder)
    }
}

/// Renaming is on the disk when the folder is.
#[cfg(unix)]
fn sync(folder: &Path) -> Result<()> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder, "write the folder"))
}

#[cfg(not(unix))]
fn sync(_: &Path) -> Result<()> {
    Ok(())
}

fn read(path: &Path) -> Result<(Progress, State)> {
    let bytes = fs::read(path).map_err(Error::io(path, "read the file"))?;
    let wrong = |error| damaged(path, "safetensors", error);
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(wrong)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(wrong)?;
    let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let text = text.ok_or_else(|| damaged(path, "metadata", "says nothing of a run"))?;
    let version = serde_json::from_str::<Value>(text).map_err(|error| damaged(path, KEY, error))?;
    if version["version"] != VERSION {
        let (found, expected) = (version["version"].to_string(), VERSION.to_string());
        let remedy = "it is of another version of this program";
        return Err(Error::Checkpoint { path: path.to_owned(), field: "version".into(), found, expected, remedy });
    }
    let progress = serde_json::from_str(text).map_err(|error| damaged(path, KEY, error))?;
    let vector = |name: &str| -> Result<Vec<f32>> {
        let tensor = tensors.tensor(name).map_err(|error| damaged(path, name, error))?;
        if tensor.dtype() != Dtype::F32 {
            return Err(damaged(path, name, "is not f32"));
        }
        let numbers = tensor.data().chunks_exact(4);
        Ok(numbers.map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect())
    };
    let state = State { master: vector("master")?, m: vector("m")?, v: vector("v")? };
    if state.m.len() != state.master.len() || state.v.len() != state.master.len() {
        return Err(damaged(path, "m, v", "have another length than master"));
    }
    Ok((progress, state))
}

fn damaged(path: &Path, field: &str, problem: impl ToString) -> Error {
    let (path, field, problem) = (path.to_owned(), field.to_owned(), problem.to_string());
    candlewick_model::Error::Damaged { path, field, problem }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(step: u64) -> Progress {
        let sources = [("model".to_owned(), "abc".to_owned())];
        Progress { step, best: Some((3, 0.1 + 0.2)), ..Progress::new(&Recipe::default(), &sources, "cpu") }
    }

    fn state(seed: f32) -> State {
        let of = |from: f32| (0..300).map(|i| from + i as f32 / 7.0).collect();
        State { master: of(seed), m: of(f32::MIN_POSITIVE), v: of(-0.0) }
    }

    #[test]
    fn the_last_ones_and_the_best_are_kept_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(&folder.path().join("deeper"));
        assert!(checkpoints.last().unwrap().is_none());
        checkpoints.prepare(3 << 20).unwrap();
        assert_eq!(fs::read_dir(&checkpoints.folder).unwrap().count(), 0, "the probe is gone");
        for step in [2, 10, 9, 11] {
            checkpoints.save(&progress(step), &state(step as f32), 2).unwrap();
        }
        checkpoints.save_best(&progress(3), &state(3.0)).unwrap();
        let (path, last, numbers) = checkpoints.last().unwrap().unwrap();
        assert_eq!(path.file_name().unwrap(), "step-00000011.safetensors");
        assert_eq!((last, numbers), (progress(11), state(11.0)));
        assert_eq!(checkpoints.best().unwrap(), Some((progress(3), state(3.0))));
        assert_eq!(checkpoints.numbered().unwrap().iter().map(|(step, _)| *step).collect::<Vec<_>>(), [10, 11]);
    }

    #[test]
    fn another_run_is_refused_by_the_field_that_differs() {
        let (path, found) = (Path::new("step.safetensors"), progress(1));
        found.check_same_run(path, &progress(9)).unwrap();
        let mut other = progress(1);
        other.recipe.learning_rate = 1e-3;
        let error = found.check_same_run(path, &other).unwrap_err().to_string();
        assert!(error.contains("learning_rate: the checkpoint has 0.0002, this run 0.001"), "{error}");
        let mut other = progress(1);
        other.sources[0].1 = "def".into();
        let error = found.check_same_run(path, &other).unwrap_err().to_string();
        assert!(error.contains("model: the checkpoint has abc, this run def"), "{error}");
    }

    #[test]
    fn a_damaged_file_names_itself() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        let path = checkpoints.save(&progress(1), &state(0.0), 1).unwrap();
        let bytes = fs::read(&path).unwrap();
        for cut in [0, 7, 100, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            let error = checkpoints.last().unwrap_err().to_string();
            assert!(error.contains("step-00000001.safetensors"), "{error}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_found_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Checkpoints::in_folder(&file.join("below")).prepare(1).unwrap_err().to_string();
        assert!(error.contains("cannot make the folder"), "{error}");
    }
}
