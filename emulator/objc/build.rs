//! Writes empty archives for the libraries that objc2, objc2-foundation and dispatch2 ask the linker for.
//!
//! The functions themselves are this crate's own symbols.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for library in ["objc", "gnustep-base", "dispatch"] {
        fs::write(folder.join(format!("lib{library}.a")), b"!<arch>\n").expect("OUT_DIR is writable");
    }
    println!("cargo::rustc-link-search=native={}", folder.display());
    println!("cargo::rerun-if-changed=build.rs");
}
