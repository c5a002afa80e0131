//! Profiles as files: whole or not at all, and of this machine and version or of no use.

use super::{Machine, Profile};
use crate::DeviceInfo;
use etcetera::{BaseStrategy as _, choose_base_strategy};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// The first field of a file, with the version of the format.
const FORMAT: &str = "candlewick profile 1";
/// Larger than any profile that there is.
const MOST_BYTES: u64 = 64 << 20;

/// What makes a profile useless: it is ignored.
#[derive(Debug, thiserror::Error)]
#[error("the profile {path} is ignored: {problem}; `candlewick tune` measures anew", path = .path.display())]
pub struct ProfileError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Unreadable(io::Error),
    Damaged(String),
    Foreign { what: String, theirs: String, ours: String },
    Outdated { theirs: String },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Unreadable(error) => write!(f, "{error}"),
            Problem::Damaged(how) => write!(f, "it is damaged: {how}"),
            Problem::Foreign { what, theirs, ours } => {
                write!(f, "it is of another machine ({what}: {theirs}, here {ours})")
            }
            Problem::Outdated { theirs } => {
                write!(f, "it is of Candlewick {theirs}, and this is {}", env!("CARGO_PKG_VERSION"))
            }
        }
    }
}

/// What is in a file. The digest is of the profile's bytes as they stand there.
#[derive(Serialize, Deserialize)]
struct Sealed {
    format: String,
    sha256: String,
    profile: Box<RawValue>,
}

/// Where profiles are kept: `candlewick/profiles` in the user's cache folder, or what `CANDLEWICK_PROFILES` says.
pub fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("CANDLEWICK_PROFILES") {
        return Some(folder.into());
    }
    Some(choose_base_strategy().ok()?.cache_dir().join("candlewick").join("profiles"))
}

impl Profile {
    /// Where the profile of a device is kept.
    pub fn path(info: &DeviceInfo) -> Option<PathBuf> {
        Some(folder()?.join(info.id.replace(':', "-") + ".json"))
    }

    /// Reads a profile; nothing where there is no file.
    ///
    /// # Errors
    /// A file that is damaged, of another machine, or of another version of Candlewick.
    pub fn load(path: &Path, machine: &Machine) -> Result<Option<Profile>, ProfileError> {
        let wrong = |problem| ProfileError { path: path.to_owned(), problem };
        let text = match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| wrong(Problem::Unreadable(error)))?,
        };
        let profile = parse(&text).map_err(|how| wrong(Problem::Damaged(how)))?;
        if profile.candlewick != env!("CARGO_PKG_VERSION") {
            return Err(wrong(Problem::Outdated { theirs: profile.candlewick }));
        }
        match difference(&profile.machine, machine) {
            Some((what, theirs, ours)) => Err(wrong(Problem::Foreign { what, theirs, ours })),
            None => Ok(Some(profile)),
        }
    }

    /// Writes the profile and puts it in the place of the one before, at once: no reader sees a part of it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(seal(self)?.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = fs::metadata(path)?.len();
    if bytes > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{bytes} bytes are no profile")));
    }
    fs::read_to_string(path)
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seal(profile: &Profile) -> io::Result<String> {
    let text = serde_json::to_string(profile)?;
    let sealed = Sealed { format: FORMAT.into(), sha256: digest(&text), profile: RawValue::from_string(text)? };
    Ok(serde_json::to_string(&sealed)? + "\n")
}

/// A profile from a file's text, or how it is damaged.
pub(super) fn parse(text: &str) -> Result<Profile, String> {
    let sealed: Sealed = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if sealed.format != FORMAT {
        return Err(format!("its format is `{}`, and `{FORMAT}` is what is read here", sealed.format));
    }
    if digest(sealed.profile.get()) != sealed.sha256 {
        return Err("its digest is not that of its content".into());
    }
    serde_json::from_str(sealed.profile.get()).map_err(|error| error.to_string())
}

/// The first thing in which two machines differ.
fn difference(theirs: &Machine, ours: &Machine) -> Option<(String, String, String)> {
    if theirs.device != ours.device {
        return Some(("device".into(), theirs.device.clone(), ours.device.clone()));
    }
    if theirs.name != ours.name {
        return Some(("name".into(), theirs.name.clone(), ours.name.clone()));
    }
    let unknown = || "unknown".to_owned();
    let fact = |of: &Machine, name: &str| of.facts.get(name).cloned().unwrap_or_else(unknown);
    let names = ours.facts.keys().chain(theirs.facts.keys());
    let differing = names.map(|name| (name.clone(), fact(theirs, name), fact(ours, name)));
    differing.into_iter().find(|(_, theirs, ours)| theirs != ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{CANDLE, CANDLEWICK, Row, Time};
    use crate::{Device, Engine, MatMul, Op, Reason};

    fn profile(machine: Machine, fast: Engine) -> Profile {
        let op = Op::from(MatMul::new(64, 64, 64, crate::DType::F32));
        let time = |engine: &str, microseconds| Time { engine: engine.into(), microseconds, samples: 9 };
        let row = Row {
            op: "matmul".into(),
            dtype: "f32".into(),
            shape: op.shape(),
            bucket: candlewick_core::dispatch::Bucket::of(&op).exponents(),
            limit: 1.0,
            times: vec![time(&fast.to_string(), 1.0), time("cpu/unheard-of", 0.5)],
            on_candle_tensors: vec![time("candle/candle", 0.1), time("candle/candlewick", 1.0)],
        };
        Profile {
            machine,
            candlewick: env!("CARGO_PKG_VERSION").into(),
            date: "today".into(),
            settings: String::new(),
            seconds_per_thread: None,
            threads: Vec::new(),
            operations_per_command_buffer: None,
            rows: vec![row],
        }
    }

    #[test]
    fn a_profile_decides_and_comes_back_from_its_file() {
        let device = Device::cpu();
        let machine = Machine::of(&device.info());
        let op = Op::from(MatMul::new(64, 64, 64, crate::DType::F32));
        let last = *device.engines(op).last().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below").join("cpu.json");
        assert_eq!(Profile::load(&path, &machine).unwrap(), None);
        let written = profile(machine.clone(), last);
        written.save(&path).unwrap();
        let read = Profile::load(&path, &machine).unwrap().unwrap();
        assert_eq!(read, written);
        let Device::Cpu(tuned) = device.with_profile(&read) else { panic!("a CPU") };
        let decision = tuned.decide(&op).unwrap();
        assert_eq!((decision.engine, decision.reason), (last, Reason::Measured { microseconds: 1.0 }));
        assert_eq!(Device::Cpu(tuned).engines(op)[0], last);
        // What is for tensors of Candle's decides about those alone.
        let on_tensors = read.table_on_candle_tensors();
        assert_eq!(on_tensors.choose(&op, &[CANDLEWICK, CANDLE]).unwrap().engine, CANDLE);
        assert_eq!(
            read.table(&[CANDLEWICK, CANDLE]).choose(&op, &[CANDLEWICK, CANDLE]).unwrap().reason,
            Reason::Default
        );
    }

    #[test]
    fn damaged_foreign_and_outdated_profiles_are_named() {
        let machine = Machine::of(&Device::cpu().info());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cpu.json");
        let good = profile(machine.clone(), Engine::new("cpu", "portable"));
        let why = |text: &str| {
            fs::write(&path, text).unwrap();
            Profile::load(&path, &machine).unwrap_err().to_string()
        };
        let text = seal(&good).unwrap();
        for length in [0, 1, text.len() / 2, text.len() - 3] {
            assert!(why(&text[..length]).contains("damaged"), "{length}");
        }
        assert!(why(&text.replace("\"samples\":9", "\"samples\":8")).contains("digest"));
        assert!(why(&text.replace(FORMAT, "candlewick profile 0")).contains("format"));
        assert!(why("\u{0}\u{1}").contains("damaged"));
        let mut other = good.clone();
        other.candlewick = "0.0.1".into();
        assert!(why(&seal(&other).unwrap()).contains("Candlewick 0.0.1"));
        let mut other = good.clone();
        other.machine.name = "Another CPU".into();
        assert!(why(&seal(&other).unwrap()).contains("another machine (name: Another CPU"));
        let mut other = good;
        other.machine.facts.insert("cores".into(), "96".into());
        assert!(why(&seal(&other).unwrap()).contains("cores: 96"));
    }
}
