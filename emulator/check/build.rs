//! A number that changes with the rules and headers: results of older ones must not be taken for those of these.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let mut hasher = DefaultHasher::new();
    for folder in ["src", "src/rules", "include"] {
        println!("cargo:rerun-if-changed={folder}");
        add(Path::new(folder), &mut hasher)?;
    }
    println!("cargo:rustc-env=MSL_CHECK_FINGERPRINT={:016x}", hasher.finish());
    Ok(())
}

fn add(folder: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    let mut files: Vec<_> =
        fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?.into_iter().map(|e| e.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        file.hash(hasher);
        fs::read(file)?.hash(hasher);
    }
    Ok(())
}
