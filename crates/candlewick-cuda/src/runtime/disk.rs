//! Compiled kernels on disk. An entry is used only if it is whole and is what was asked for; anything else is compiled
//! again and replaced.
//!
//! An entry: the format's name, the digest of what was compiled, the code's length and digest, the code.

use etcetera::{BaseStrategy, choose_base_strategy};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const FORMAT: &[u8; 16] = b"candlewick cuda1";
const HEADER: usize = FORMAT.len() + 32 + 8 + 32;
/// More entries than one version of this library makes for two chips; the oldest go.
const MOST: usize = 256;

/// What an entry's code depends on: the source, the options, the chip and the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// The digest of these parts, in this order.
    pub(crate) fn new(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        Key(digest.finalize().into())
    }
}

/// What a look-up found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// The code.
    Found(Vec<u8>),
    /// No such entry.
    Absent,
    /// An entry that is not whole, or of something else.
    Rejected,
}

/// A folder of entries.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Disk { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, key: &Key) -> PathBuf {
        let name: String = key.0[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(name)
    }

    /// The code of `key`.
    pub(crate) fn load(&self, key: &Key) -> Lookup {
        let Ok(entry) = fs::read(self.path(key)) else { return Lookup::Absent };
        let Some((header, code)) = entry.split_at_checked(HEADER) else { return Lookup::Rejected };
        if header == self::header(key, code) { Lookup::Found(code.to_vec()) } else { Lookup::Rejected }
    }

    /// Keeps the code of `key`. Whoever reads meanwhile sees the old entry or the new one.
    ///
    /// # Errors
    /// What the file system says: the code is compiled again next time.
    pub(crate) fn store(&self, key: &Key, code: &[u8]) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&header(key, code))?;
        file.write_all(code)?;
        file.persist(self.path(key))?;
        self.prune()
    }

    fn prune(&self) -> std::io::Result<()> {
        let mut entries: Vec<(SystemTime, PathBuf)> = fs::read_dir(&self.folder)?
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        if entries.len() > MOST {
            entries.sort();
            for (_, path) in &entries[..entries.len() - MOST] {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn header(key: &Key, code: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(FORMAT);
    header.extend_from_slice(&key.0);
    header.extend_from_slice(&(code.len() as u64).to_le_bytes());
    header.extend_from_slice(&Sha256::digest(code));
    header
}

/// The user's cache folder, where there is one.
pub(crate) fn usual_folder() -> Option<PathBuf> {
    choose_base_strategy().ok().map(|folders| folders.cache_dir().join("candlewick").join("cuda"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_by_what_it_was_made_from() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path().join("new"));
        let key = Key::new(&["source", "sm_90a", "13.0"]);
        assert_eq!(disk.load(&key), Lookup::Absent);
        disk.store(&key, b"code").unwrap();
        assert_eq!(disk.load(&key), Lookup::Found(b"code".to_vec()));
        for other in [["source", "sm_90a", "13.1"], ["source ", "sm_90a", "13.0"], ["sourcesm_90a", "", "13.0"]] {
            assert_eq!(disk.load(&Key::new(&other)), Lookup::Absent);
        }
        assert_eq!(fs::read_dir(disk.folder()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_is_not_whole_or_of_something_else_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path().into());
        let key = Key::new(&["source"]);
        disk.store(&key, b"some code").unwrap();
        let path = disk.path(&key);
        let whole = fs::read(&path).unwrap();
        for i in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[i] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(disk.load(&key), Lookup::Rejected, "byte {i}");
            fs::write(&path, &whole[..i]).unwrap();
            assert_eq!(disk.load(&key), Lookup::Rejected, "the first {i} bytes");
        }
        fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
        assert_eq!(disk.load(&key), Lookup::Rejected);
        let other = Key::new(&["other"]);
        disk.store(&other, b"some code").unwrap();
        fs::copy(disk.path(&other), &path).unwrap();
        assert_eq!(disk.load(&key), Lookup::Rejected, "an entry of another source");
    }

    #[test]
    fn the_oldest_entries_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path().into());
        for i in 0..MOST + 10 {
            disk.store(&Key::new(&[&i.to_string()]), b"code").unwrap();
        }
        assert_eq!(fs::read_dir(disk.folder()).unwrap().count(), MOST);
    }
}
