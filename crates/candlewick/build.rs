//! `cfg(metal)`: whether Metal is there, Apple's or the emulator's. `cfg(cuda)`: whether NVIDIA's driver exists for the system.
//! And the built-in profiles: every file in `src/profile/built_in/`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rustc-check-cfg=cfg(metal)");
    println!("cargo::rustc-check-cfg=cfg(cuda)");
    println!("cargo::rerun-if-changed=build.rs");
    let set = |name: &str| env::var_os(name);
    if set("CARGO_CFG_TARGET_VENDOR").is_some_and(|vendor| vendor == "apple") || set("CARGO_FEATURE_EMULATED").is_some()
    {
        println!("cargo::rustc-cfg=metal");
    }
    if set("CARGO_CFG_TARGET_OS").is_some_and(|os| os == "linux" || os == "windows") {
        println!("cargo::rustc-cfg=cuda");
    }
    built_in_profiles(&path("CARGO_MANIFEST_DIR").join("src/profile/built_in"), &path("OUT_DIR").join("built_in.rs"))
}

fn path(variable: &str) -> PathBuf {
    PathBuf::from(env::var_os(variable).expect("cargo sets it"))
}

/// Writes a slice of each file's name and text.
fn built_in_profiles(folder: &Path, to: &Path) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let entry = |file: &PathBuf| format!("({:?}, include_str!({file:?})),\n", file.file_stem().unwrap_or_default());
    fs::write(to, format!("&[\n{}]\n", files.iter().map(entry).collect::<String>()))
}
