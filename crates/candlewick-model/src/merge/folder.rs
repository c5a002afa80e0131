//! Whole models merged and unmerged: a Hugging Face folder in, another one out.

use super::{merge, xor};
use crate::safetensors::{Safetensors, View};
use crate::{Adapter, Error, Fitted, Lora, Module, Result, Source, Weight, Weights};
use safetensors::tensor::Dtype;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// The file of a merged folder that gives the base's weights back.
pub const UNDO: &str = "candlewick_unmerge.safetensors";
/// A prefix in the metadata of [`UNDO`]: the hash of a tensor before it was merged.
const HASH: &str = "sha256:";

/// Merges adapters, each times its strength, into a model's folder and writes the result as a new folder, in the same
/// formats and shards, with the same tokenizer. `progress` is told the name of each tensor as it is written.
///
/// With `undo`, the folder can be unmerged ([`unmerge_folder`]).
pub fn merge_folder(
    base: &Path,
    adapters: &[(&Adapter, f64)],
    out: &Path,
    undo: bool,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<()> {
    let weights = Weights::open(base)?;
    let Source::Folder(files) = weights.source() else {
        let remedy = "merge into the Hugging Face folder that the file was made from";
        return Err(Error::unsupported(base, "format", "GGUF", remedy));
    };
    let fitted = fit(&weights, adapters)?;
    let mut deltas: BTreeMap<String, Vec<(&Lora, f64)>> = BTreeMap::new();
    for (adapter, strength) in &fitted {
        for (module, lora) in &adapter.modules {
            deltas.entry(module.role().hugging_face()).or_default().push((lora, *strength));
        }
    }
    let merged = |name: &str, view: View<'_>| -> Option<Vec<u8>> {
        let deltas = deltas.get(name)?;
        let (&[rows, cols], Ok(dtype)) = (view.shape, crate::weights::float(view.path, name, view.dtype)) else {
            return None; // `Weights::open` has refused such a model.
        };
        let weight = Weight { rows, cols, format: crate::Format::Float(dtype), bytes: view.bytes };
        merge(weight, deltas).ok() // `fit` has compared the shapes.
    };
    let change = |name: &str, view: View<'_>| {
        progress(name);
        merged(name, view)
    };
    let new = NewFolder::beside(out)?;
    new.copy_companions(base)?;
    for path in files.paths() {
        new.write_tensors(files, path, files.metadata(), &change)?;
    }
    if undo {
        let mut metadata = BTreeMap::from([("adapters".to_owned(), names(&fitted))]);
        for name in deltas.keys() {
            let view = files.get(name).expect("a weight of the model");
            metadata.insert(format!("{HASH}{name}"), hash(view.bytes));
        }
        let difference = |name: &str, view: View<'_>| merged(name, view).map(|merged| xor(view.bytes, &merged));
        new.write(UNDO, files, deltas.keys().map(String::as_str), &metadata, &difference)?;
    }
    new.finish()
}

/// Takes the adapters out of a folder that [`merge_folder`] wrote, and writes the base's weights, bit for bit, as a new
/// folder.
///
/// # Errors
/// Where the folder has no record of what was merged, or its weights were changed since.
pub fn unmerge_folder(merged: &Path, out: &Path, progress: &(dyn Fn(&str) + Sync)) -> Result<()> {
    let path = merged.join(UNDO);
    if !path.is_file() {
        return Err(Error::missing(&path, "the record of the merge", "use the base model that was merged into"));
    }
    let record = Safetensors::open(&path)?;
    let files = Safetensors::open_folder(merged)?;
    for name in record.names() {
        let (xored, now) = (record.get(name), files.get(name));
        let (Some(xored), Some(now)) = (xored, now) else {
            return Err(Error::missing(merged, name, "it was merged, and must be unmerged"));
        };
        let original = (xored.bytes.len() == now.bytes.len()).then(|| hash(&xor(xored.bytes, now.bytes)));
        if original.as_ref() != record.metadata().get(&format!("{HASH}{name}")) {
            return Err(Error::Mismatch {
                what: "unmerge".to_owned(),
                left: format!("{name} of {}", merged.display()),
                right: format!("its record in {UNDO}"),
                remedy: "the weights were changed after the merge: use the base model".to_owned(),
            });
        }
    }
    let new = NewFolder::beside(out)?;
    new.copy_companions(merged)?;
    let change = |name: &str, view: View<'_>| {
        progress(name);
        record.get(name).map(|xored| xor(view.bytes, xored.bytes))
    };
    for path in files.paths() {
        new.write_tensors(&files, path, files.metadata(), &change)?;
    }
    new.finish()
}

/// The adapters for this model, if they can be merged.
fn fit(weights: &Weights, adapters: &[(&Adapter, f64)]) -> Result<Vec<(Fitted, f64)>> {
    let mut fitted = Vec::with_capacity(adapters.len());
    for (adapter, strength) in adapters {
        let refuse = |left: &str, right: &str, remedy: &str| {
            let (left, right, remedy) = (left.to_owned(), right.to_owned(), remedy.to_owned());
            Err(Error::Mismatch { what: format!("merge adapter {}", adapter.name), left, right, remedy })
        };
        if !adapter.biases.is_empty() {
            return refuse("an adapter with biases", "a merged model", "keep the adapter beside the model");
        }
        if weights.config().tied && adapter.modules.contains_key(&Module::Head) {
            let remedy = "merging would change the embedding too: keep the adapter beside the model";
            return refuse("an adapter of lm_head", "a model whose head is its embedding", remedy);
        }
        fitted.push((adapter.fit(weights.config())?, *strength));
    }
    Ok(fitted)
}

fn names(adapters: &[(Fitted, f64)]) -> String {
    let name = |(adapter, strength): &(Fitted, f64)| format!("{} x {strength}", adapter.name);
    adapters.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What becomes of a tensor: none leaves it as it is.
type Change<'a> = &'a dyn Fn(&str, View<'_>) -> Option<Vec<u8>>;

/// A folder that is written elsewhere and renamed when it is complete.
struct NewFolder {
    temporary: tempfile::TempDir,
    path: PathBuf,
}

impl NewFolder {
    fn beside(path: &Path) -> Result<NewFolder> {
        if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::unsupported(path, "the new folder", "not empty", "name a folder that does not exist"));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(Error::io(parent, "make the folder"))?;
        let temporary = tempfile::Builder::new().prefix(".merging-").tempdir_in(parent);
        Ok(NewFolder { temporary: temporary.map_err(Error::io(parent, "make a folder"))?, path: path.to_owned() })
    }

    /// Copies everything small and readable that is not a weight: configuration, tokenizer, licence, index.
    fn copy_companions(&self, from: &Path) -> Result<()> {
        for entry in fs::read_dir(from).map_err(Error::io(from, "read the folder"))? {
            let path = entry.map_err(Error::io(from, "read the folder"))?.path();
            let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
            let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
            if matches!(kind, "json" | "jinja" | "txt" | "md" | "model")
                || name.to_string_lossy().starts_with("LICENSE")
            {
                fs::copy(&path, self.temporary.path().join(name)).map_err(Error::io(&path, "copy the file"))?;
            }
        }
        Ok(())
    }

    /// Writes one of the files anew, with its tensors changed.
    fn write_tensors(
        &self,
        files: &Safetensors,
        path: &Path,
        metadata: &BTreeMap<String, String>,
        change: Change<'_>,
    ) -> Result<()> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("model.safetensors");
        let of_file = files.names().filter(|name| files.get(name).is_some_and(|view| view.path == path));
        self.write(name, files, of_file, metadata, change)
    }

    fn write<'a>(
        &self,
        file: &str,
        files: &Safetensors,
        names: impl Iterator<Item = &'a str>,
        metadata: &BTreeMap<String, String>,
        change: Change<'_>,
    ) -> Result<()> {
        let path = self.temporary.path().join(file);
        let tensor = |name: &'a str| (name, Changed { name, view: files.get(name).expect("one of its names"), change });
        let metadata: HashMap<String, String> = metadata.clone().into_iter().collect();
        safetensors::serialize_to_file(names.map(tensor).collect::<Vec<_>>(), Some(metadata), &path)
            .map_err(|error| Error::damaged(&path, "tensors", error.to_string()))
    }

    fn finish(self) -> Result<()> {
        // An empty folder may be there.
        let _ = fs::remove_dir(&self.path);
        let temporary = self.temporary.keep();
        // Temporary folders are their owner's alone; what they become is like any other.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&temporary, mode).map_err(Error::io(&temporary, "set the folder's permissions"))?;
        }
        fs::rename(&temporary, &self.path).map_err(Error::io(&self.path, "rename the folder into place"))
    }
}

/// A tensor whose bytes are computed when they are written, so that only one is in memory.
struct Changed<'a> {
    name: &'a str,
    view: View<'a>,
    change: Change<'a>,
}

impl safetensors::View for Changed<'_> {
    fn dtype(&self) -> Dtype {
        self.view.dtype
    }

    fn shape(&self) -> &[usize] {
        self.view.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        (self.change)(self.name, self.view).map_or(Cow::Borrowed(self.view.bytes), Cow::Owned)
    }

    fn data_len(&self) -> usize {
        self.view.bytes.len()
    }
}
