//! Compiled libraries on disk, found by what they were made from.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// What an entry was made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// The key of these parts; 128 bits, so that no two sources meet.
    pub fn of(parts: &[&str]) -> Self {
        let mut name = String::new();
        for salt in 0..2u8 {
            let mut hasher = DefaultHasher::new();
            (salt, parts).hash(&mut hasher);
            let _ = write!(name, "{:016x}", hasher.finish());
        }
        Key(name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A folder of entries, for any number of processes at once.
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// `$METAL_EMULATOR_CACHE`, else `metal-emulator` in `$XDG_CACHE_HOME` or `~/.cache`.
    pub fn open() -> io::Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = variable("METAL_EMULATOR_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("metal-emulator")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/metal-emulator")))
            .unwrap_or_else(|| std::env::temp_dir().join("metal-emulator"));
        fs::create_dir_all(&folder)?;
        Ok(Cache { folder: fs::canonicalize(folder)? })
    }

    /// A folder inside.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The file of a key. If there is none or it is damaged, `build` makes it at the path it is given.
    pub fn file<E: From<io::Error>>(
        &self,
        key: &Key,
        extension: &str,
        build: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let path = self.folder.join(format!("{}.{extension}", key.0));
        let seal = path.with_extension(format!("{extension}.seal"));
        if is_whole(&path, &seal) {
            return Ok(path);
        }
        // One process builds, the others wait; the lock ends with the file handle, however that comes.
        let lock = File::create(path.with_extension(format!("{extension}.lock")))?;
        lock.lock()?;
        if is_whole(&path, &seal) {
            return Ok(path);
        }
        let temporary = path.with_extension(format!("{extension}.tmp"));
        build(&temporary)?;
        let checksum = checksum(&fs::read(&temporary)?);
        fs::rename(&temporary, &path)?;
        fs::write(&seal, checksum)?;
        Ok(path)
    }
}

fn is_whole(path: &Path, seal: &Path) -> bool {
    match (fs::read(path), fs::read_to_string(seal)) {
        (Ok(bytes), Ok(seal)) => seal == checksum(&bytes),
        _ => false,
    }
}

fn checksum(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{} {:016x}", bytes.len(), hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_built_once_and_rebuilt_when_damaged() {
        let folder = std::env::temp_dir().join(format!("metal-emulator-cache-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let cache = Cache { folder: folder.clone() };
        let key = Key::of(&["a"]);
        let mut builds = 0;
        let mut get = |expected: usize| {
            let path = cache.file::<io::Error>(&key, "txt", |path| {
                builds += 1;
                fs::write(path, "content")
            });
            assert_eq!(builds, expected);
            path.unwrap()
        };
        let path = get(1);
        get(1);
        fs::write(&path, "cont").unwrap();
        get(2);
        assert_eq!(fs::read_to_string(path).unwrap(), "content");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn keys_tell_parts_apart() {
        assert_ne!(Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
    }
}
