//! Finding clang.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest clang that the headers in `include/` are written for.
pub const OLDEST_CLANG: u32 = 17;

/// The newest clang that is looked for by name.
const NEWEST_CLANG: u32 = 23;

/// The environment variable that names the clang++ to use.
pub const CLANG_VARIABLE: &str = "METAL_EMULATOR_CLANG";

/// A clang++ on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clang {
    /// The program, as it is to be started.
    pub path: PathBuf,
    /// The major version: 19 for 19.1.7.
    pub version: u32,
    /// The full version: precompiled headers belong to one.
    pub full_version: String,
}

/// There is no clang that could be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: install clang-{} (17 or newer will do), or set METAL_EMULATOR_CLANG to a clang++", PREFERRED_CLANG)]
pub struct MissingClang {
    /// What was tried.
    pub reason: String,
}

/// The version that this package is tested with, and that is taken when several are installed.
const PREFERRED_CLANG: u32 = 19;

/// Finds clang++: `$METAL_EMULATOR_CLANG` if it is set, else clang++-19, else the newest from 17 on, else `clang++`.
pub fn clang() -> Result<Clang, MissingClang> {
    if let Some(named) = std::env::var_os(CLANG_VARIABLE) {
        let path = PathBuf::from(named);
        return match probe(&path) {
            Some(clang) if clang.version >= OLDEST_CLANG => Ok(clang),
            Some(clang) => {
                Err(MissingClang { reason: format!("{} is clang {}, too old", path.display(), clang.version) })
            }
            None => Err(MissingClang { reason: format!("{} does not run as clang", path.display()) }),
        };
    }
    let numbered = std::iter::once(PREFERRED_CLANG).chain((OLDEST_CLANG..=NEWEST_CLANG).rev());
    numbered
        .map(|version| PathBuf::from(format!("clang++-{version}")))
        .chain(std::iter::once(PathBuf::from("clang++")))
        .find_map(|path| probe(&path).filter(|clang| clang.version >= OLDEST_CLANG))
        .ok_or_else(|| MissingClang { reason: "no clang++ was found".to_owned() })
}

/// Asks a program for its version: nothing if it is not clang or does not start.
fn probe(path: &Path) -> Option<Clang> {
    let output = Command::new(path).arg("--version").output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (_, after) = text.split_once("clang version ")?;
    let full_version = after.lines().next()?.to_owned();
    let version = full_version.split('.').next()?.parse().ok()?;
    Some(Clang { path: path.to_owned(), version, full_version })
}
