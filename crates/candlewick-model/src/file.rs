//! Files as bytes: memory-mapped, small ones read, written so that nobody ever sees half of one.

use crate::{Error, Result};
use memmap2::Mmap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The bytes of a file, with its name for messages.
///
/// A mapped file must not be changed or cut while it is open: no system offers a mapping that is safe from that. Files that
/// this crate writes are replaced by renaming, which leaves open mappings alone.
#[derive(Debug)]
pub(crate) struct Bytes {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps a file. Nothing of it is read yet.
    pub fn map(path: &Path) -> Result<Bytes> {
        let file = fs::File::open(path).map_err(Error::io(path, "open the file"))?;
        let length = file.metadata().map_err(Error::io(path, "ask for the file's length"))?.len();
        let content = if length == 0 {
            Content::Owned(Vec::new()) // Some systems refuse to map nothing.
        } else {
            // SAFETY: the mapping is read-only and lives as long as every slice of it. That nobody cuts or rewrites the
            // file meanwhile is the caller's part, as this type says.
            Content::Mapped(unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map the file"))?)
        };
        Ok(Bytes { path: path.to_owned(), content })
    }

    pub fn owned(name: &str, bytes: Vec<u8>) -> Bytes {
        Bytes { path: name.into(), content: Content::Owned(bytes) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(map) => map,
            Content::Owned(bytes) => bytes,
        }
    }
}

/// A small text file, of at most `limit` bytes; none if it is not there.
pub(crate) fn read_text(path: &Path, limit: usize) -> Result<Option<String>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, "open the file")(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(Error::io(path, "read the file"))?;
    if bytes.len() > limit {
        return Err(Error::damaged(path, "length", format!("more than {limit} bytes, too many for such a file")));
    }
    String::from_utf8(bytes).map(Some).map_err(|error| Error::damaged(path, "text", error.to_string()))
}

/// The same, of a file that has to be there.
pub(crate) fn read_needed_text(path: &Path, limit: usize, remedy: &str) -> Result<String> {
    read_text(path, limit)?.ok_or_else(|| Error::missing(path, "the file", remedy))
}

/// Writes a file beside its place and renames it: whoever reads it sees the old content or the new one.
///
/// # Errors
/// What the system says; the old content is kept then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(folder, "make a file"))?;
    file.write_all(bytes).map_err(Error::io(path, "write the file"))?;
    persist(file, path)
}

/// Gives a finished temporary file its name, once its bytes are on the disk.
pub(crate) fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    file.as_file().sync_all().map_err(Error::io(path, "write the file"))?;
    share(file.as_file()).map_err(Error::io(path, "set the file's permissions"))?;
    file.persist(path).map_err(|error| Error::io(path, "rename the file into place")(error.error))?;
    Ok(())
}

/// Temporary files are their owner's alone; what they become is readable like any other file.
#[cfg(unix)]
fn share(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn share(_: &fs::File) -> std::io::Result<()> {
    Ok(())
}
