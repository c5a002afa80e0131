//! Reading numbers and strings one after another, never past the end.

use crate::{Error, Result};
use std::path::Path;

/// A place in the bytes of a file. Every read says which field it is for.
pub(super) struct Cursor<'a> {
    pub path: &'a Path,
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn take(&mut self, count: usize, field: &str) -> Result<&'a [u8]> {
        if count > self.left() {
            let problem = format!("needs {count} bytes at {}, and the file has {} left", self.at, self.left());
            return Err(self.damaged(field, problem));
        }
        self.at += count;
        Ok(&self.bytes[self.at - count..self.at])
    }

    pub fn u32(&mut self, field: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub fn u64(&mut self, field: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A length in the file: a number that fits this machine.
    pub fn length(&mut self, field: &str) -> Result<usize> {
        let length = self.u64(field)?;
        usize::try_from(length).map_err(|_| self.damaged(field, format!("{length} is more than can be addressed")))
    }

    /// How many things follow, each of at least `least` bytes: never more than the file can hold.
    pub fn count(&mut self, field: &str, least: usize) -> Result<usize> {
        let count = self.length(field)?;
        if count > self.left() / least {
            let problem = format!("{count} do not fit the {} bytes that follow", self.left());
            return Err(self.damaged(field, problem));
        }
        Ok(count)
    }

    pub fn string(&mut self, field: &str) -> Result<&'a str> {
        let length = self.length(field)?;
        let bytes = self.take(length, field)?;
        std::str::from_utf8(bytes).map_err(|error| self.damaged(field, format!("is not UTF-8: {error}")))
    }

    pub fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    pub fn damaged(&self, field: &str, problem: impl Into<String>) -> Error {
        Error::damaged(self.path, field, problem)
    }
}
