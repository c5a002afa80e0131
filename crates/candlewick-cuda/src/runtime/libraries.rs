//! Finds NVIDIA's libraries at run time, so that one binary runs with and without them.
//!
//! Types and constants are cudarc's. Its functions are not used, for three reasons: they panic where a library or a
//! function is missing, they look nowhere but in the loader's path, and in a program with Candle's CUDA feature they are
//! linked, not loaded. Results are plain numbers here, because a newer library may return one that an enum lacks.

use libloading::Library;
use std::env;
use std::path::{Path, PathBuf};

/// Folders to look into before all others, separated as in `PATH`.
pub(crate) const FOLDERS: &str = "CANDLEWICK_CUDA_LIBS";

/// One of NVIDIA's libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// The driver.
    Cuda,
    /// The compiler.
    Nvrtc,
    /// Matrix products.
    CublasLt,
}

impl Name {
    /// The files it may be, the one that suits CUDA `major` best first.
    fn files(self, major: u32) -> Vec<String> {
        let majors = [major, 13, 12];
        let versions =
            majors.iter().enumerate().filter(|&(i, major)| !majors[..i].contains(major)).map(|(_, major)| major);
        let windows = cfg!(windows);
        match (self, windows) {
            (Name::Cuda, false) => vec!["libcuda.so.1".into(), "libcuda.so".into()],
            (Name::Cuda, true) => vec!["nvcuda.dll".into()],
            (Name::Nvrtc, false) => {
                versions.map(|major| format!("libnvrtc.so.{major}")).chain(["libnvrtc.so".into()]).collect()
            }
            (Name::Nvrtc, true) => versions.map(|major| format!("nvrtc64_{major}0_0.dll")).collect(),
            (Name::CublasLt, false) => {
                versions.map(|major| format!("libcublasLt.so.{major}")).chain(["libcublasLt.so".into()]).collect()
            }
            (Name::CublasLt, true) => versions.map(|major| format!("cublasLt64_{major}.dll")).collect(),
        }
    }

    /// What to do where it is missing.
    fn remedy(self) -> &'static str {
        match self {
            Name::Cuda => "NVIDIA's driver is not installed",
            Name::Nvrtc => {
                "install the CUDA toolkit or PyPI's nvidia-cuda-nvrtc, or name its folder in CANDLEWICK_CUDA_LIBS"
            }
            Name::CublasLt => {
                "install the CUDA toolkit or PyPI's nvidia-cublas, or name its folder in CANDLEWICK_CUDA_LIBS"
            }
        }
    }
}

/// A library that is loaded for as long as the process runs, and where it was found.
pub(crate) struct Found {
    pub(crate) library: &'static Library,
    pub(crate) path: PathBuf,
}

/// Loads a library: from `only` these folders, or from wherever it usually is.
///
/// # Errors
/// Which it is, and what to do.
pub(crate) fn load(name: Name, only: Option<&[PathBuf]>, major: u32) -> Result<Found, String> {
    let files = name.files(major);
    let mut broken = None;
    for path in candidates(&files, only) {
        let named = path.is_absolute() || path.components().count() > 1;
        if named && !path.exists() {
            continue;
        }
        // SAFETY: NVIDIA's libraries may be loaded at any time; so may whatever a user names in their place.
        match unsafe { Library::new(&path) } {
            // It is never unloaded: its threads and what it registered may outlive every device.
            Ok(library) => return Ok(Found { library: Box::leak(Box::new(library)), path }),
            Err(error) if named => broken = broken.or(Some(format!("{}: {error}", path.display()))),
            Err(_) => {}
        }
    }
    match broken {
        Some(error) => Err(format!("{} was found but not loaded: {error}", files[0])),
        None => Err(format!("{} not found: {}", files[0], name.remedy())),
    }
}

fn candidates(files: &[String], only: Option<&[PathBuf]>) -> Vec<PathBuf> {
    let within = |folder: &PathBuf| files.iter().map(|file| folder.join(file)).collect::<Vec<_>>();
    if let Some(folders) = only {
        return folders.iter().flat_map(within).collect();
    }
    let named: Vec<PathBuf> =
        env::var_os(FOLDERS).map_or_else(Vec::new, |folders| env::split_paths(&folders).collect());
    let mut paths: Vec<PathBuf> = named.iter().flat_map(within).collect();
    let usual = usual_folders();
    // The version that suits best, wherever it is; a bare name is the loader's own path: LD_LIBRARY_PATH and ldconfig's.
    for file in files {
        paths.push(file.into());
        paths.extend(usual.iter().map(|folder| folder.join(file)));
    }
    paths
}

/// Where installers put them: the toolkit, Debian, Python's wheels.
fn usual_folders() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CONDA_PREFIX"]
        .iter()
        .filter_map(env::var_os)
        .map(PathBuf::from)
        .collect();
    roots.push("/usr/local/cuda".into());
    // The newest first.
    let mut versions = subfolders(Path::new("/usr/local"), "cuda-");
    versions.sort_by(|a, b| b.cmp(a));
    roots.extend(versions);
    let mut folders = Vec::new();
    for root in &roots {
        folders.extend(
            ["lib64", "lib", "bin", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"].map(|at| root.join(at)),
        );
    }
    folders.extend(["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/wsl/lib"].map(PathBuf::from));
    let named = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(env::var_os).map(PathBuf::from);
    // The python3 that a shell finds, and the usual ones.
    let path = env::var_os("PATH").map_or_else(Vec::new, |path| env::split_paths(&path).collect());
    let on_path = path.into_iter().filter(|bin| bin.join("python3").exists());
    let on_path = on_path.filter_map(|bin| bin.parent().map(Path::to_path_buf));
    let usual = ["/usr", "/usr/local", "/opt/conda"].map(PathBuf::from);
    let pythons = named.chain(on_path).chain(usual);
    for prefix in pythons.chain(etcetera::home_dir().ok().map(|home| home.join(".local"))) {
        for python in subfolders(&prefix.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                let wheels = python.join(packages).join("nvidia");
                folders.extend(subfolders(&wheels, "").into_iter().map(|wheel| wheel.join("lib")));
            }
        }
    }
    folders
}

fn subfolders(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let starts = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(starts).collect();
    found.sort();
    found
}

/// A table of a library's functions by their names in C, every one found when it is loaded.
macro_rules! functions {
    ($(#[$attribute:meta])* struct $table:ident { $(fn $name:ident($($argument:ty),* $(,)?) -> $result:ty;)* }) => {
        $(#[$attribute])*
        #[allow(non_snake_case)] // The names are NVIDIA's.
        pub(crate) struct $table {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        #[allow(non_snake_case)]
        impl $table {
            /// # Errors
            /// The first function that is missing.
            pub(crate) fn from_library(library: &'static libloading::Library) -> Result<Self, String> {
                $(
                    // SAFETY: the signature is that of NVIDIA's header, and the library is never unloaded.
                    let $name = unsafe {
                        library.get::<unsafe extern "C" fn($($argument),*) -> $result>(
                            concat!(stringify!($name), "\0").as_bytes(),
                        )
                    };
                    let $name = *$name.map_err(|_| format!("it has no function {}", stringify!($name)))?;
                )*
                Ok($table { $($name),* })
            }
        }
    };
}
pub(crate) use functions;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_driver_is_looked_for_first() {
        assert_eq!(Name::Nvrtc.files(12), ["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"]);
        assert_eq!(Name::CublasLt.files(13)[..2], ["libcublasLt.so.13", "libcublasLt.so.12"]);
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let empty = tempfile::tempdir().unwrap();
        let only = [empty.path().to_path_buf()];
        let Err(error) = load(Name::Cuda, Some(&only), 13) else { panic!("an empty folder has no driver") };
        assert_eq!(error, "libcuda.so.1 not found: NVIDIA's driver is not installed");
        std::fs::write(only[0].join("libnvrtc.so.13"), "no library").unwrap();
        let Err(error) = load(Name::Nvrtc, Some(&only), 13) else { panic!("a text is no library") };
        assert!(error.starts_with("libnvrtc.so.13 was found but not loaded"), "{error}");
    }
}
