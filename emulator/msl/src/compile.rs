//! From a source to a loaded library.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::cache::{Cache, Key};
use crate::clang::{Clang, clang};
use crate::headers;
use crate::library::Library;
use crate::rewrite::{Failure, rewrite};

/// What messages call the source, as Metal does.
pub const SOURCE_NAME: &str = "program_source";

/// How a source is compiled: the counterpart of `MTLCompileOptions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Fast math, Metal's default: a product and a sum may become one operation. No other freedom is taken.
    pub fast_math: bool,
    /// `(3, 1)` for Metal 3.1.
    pub language_version: (u32, u32),
    /// Preprocessor macros: names and values.
    pub macros: Vec<(String, String)>,
    /// Whether `msl-check` must accept the source first.
    pub check: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { fast_math: true, language_version: (3, 1), macros: Vec::new(), check: true }
    }
}

/// Why there is no library; the text is clang's, with the lines of the source.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The source is wrong, or needs what the emulator has not.
    #[error("{0}")]
    Source(String),
    /// The compiler or the cache does not work.
    #[error("the emulator cannot compile: {0}")]
    Environment(String),
}

impl From<io::Error> for CompileError {
    fn from(error: io::Error) -> Self {
        CompileError::Environment(error.to_string())
    }
}

/// Compiles a source, or finds it in the cache. The same source with the same options is the same library.
pub fn compile(source: &str, options: &Options) -> Result<Arc<Library>, CompileError> {
    static LOADED: Mutex<Option<HashMap<Key, Weak<Library>>>> = Mutex::new(None);

    let clang = clang().map_err(CompileError::Environment)?;
    let cache = Cache::open()?;
    let key = key_of(source, options, clang);
    let loaded = || LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let present = loaded().get_or_insert_default().get(&key).and_then(Weak::upgrade);
    if let Some(library) = present {
        return Ok(library);
    }
    let path = cache.file(&key, "so", |path| build(source, options, clang, &cache, path))?;
    // Another thread may have been as far: one file is one library, or two would share its state.
    let mut loaded = loaded();
    let loaded = loaded.get_or_insert_default();
    if let Some(library) = loaded.get(&key).and_then(Weak::upgrade) {
        return Ok(library);
    }
    // SAFETY: the file is what `build` made: its initialisers only set constants of the source.
    let library = Arc::new(unsafe { Library::load(path) }.map_err(CompileError::Environment)?);
    loaded.retain(|_, library| library.strong_count() > 0);
    loaded.insert(key, Arc::downgrade(&library));
    Ok(library)
}

/// All that makes a library what it is.
fn key_of(source: &str, options: &Options, clang: &Clang) -> Key {
    let options = format!("{options:?}");
    let mut parts = vec![source, &options, &clang.version, msl_check::FINGERPRINT];
    parts.extend(headers::FILES.iter().map(|(_, text)| *text));
    parts.extend(REWRITER);
    Key::of(&parts)
}

/// The rewriter is a part of the key: a change to it makes other libraries.
const REWRITER: [&str; 12] = [
    include_str!("lexer.rs"),
    include_str!("compile.rs"),
    include_str!("rewrite/mod.rs"),
    include_str!("rewrite/constants.rs"),
    include_str!("rewrite/items.rs"),
    include_str!("rewrite/kernels.rs"),
    include_str!("rewrite/overloads.rs"),
    include_str!("rewrite/source.rs"),
    include_str!("rewrite/swizzles.rs"),
    include_str!("rewrite/tables.rs"),
    include_str!("rewrite/threadgroup.rs"),
    include_str!("rewrite/words.rs"),
];

/// Checks, preprocesses, rewrites, compiles and links a source.
fn build(source: &str, options: &Options, clang: &Clang, cache: &Cache, path: &Path) -> Result<(), CompileError> {
    check(source, options)?;
    let folder = cache.folder("headers").join(Key::of(&headers::FILES.map(|(_, text)| text)).to_string());
    headers::write(&folder)?;
    let told = |text: String| CompileError::Source(with_source_lines(&text, source, &folder));

    let preprocessed = clang.run(&preprocessor_arguments(options, &folder), &marked(source)).map_err(told)?;
    let rewritten = rewrite(&String::from_utf8_lossy(&preprocessed), SOURCE_NAME).map_err(|failure: Failure| {
        CompileError::Source(format!("{SOURCE_NAME}:{}:1: error: {}", failure.line, failure.text))
    })?;
    let object = path.with_extension("o");
    clang.run(&compiler_arguments(options, &folder, &object), &rewritten).map_err(told)?;
    let runtime = runtime(clang, cache, &folder)?;
    let link = ["-shared", "-nostdlib++", "-Wl,-Bsymbolic", "-Wl,-z,defs", "-o"].map(PathBuf::from);
    let files = [path.to_owned(), object.clone(), runtime, "-lm".into()];
    let linked = clang.run(&[&link[..], &files[..]].concat(), "");
    let _ = std::fs::remove_file(object);
    linked.map(|_| ()).map_err(CompileError::Environment)
}

fn check(source: &str, options: &Options) -> Result<(), CompileError> {
    if !options.check {
        return Ok(());
    }
    let check_options = msl_check::Options {
        language_version: options.language_version,
        macros: options.macros.clone(),
        fast_math: options.fast_math,
        include: Vec::new(),
    };
    match msl_check::check(source, SOURCE_NAME, &check_options) {
        Ok(_warnings) => Ok(()),
        Err(report) => Err(CompileError::Source(report.to_string())),
    }
}

/// The source under its name.
fn marked(source: &str) -> String {
    format!("# 1 \"{SOURCE_NAME}\"\n{source}\n")
}

/// The first run expands the macros of the source; Metal's own come with the headers in the second run.
fn preprocessor_arguments(options: &Options, headers: &Path) -> Vec<String> {
    let (major, minor) = options.language_version;
    let mut arguments: Vec<String> =
        ["-E", "-x", "c++", "-std=gnu++17", "-undef", "-nostdinc", "-fno-caret-diagnostics"].map(str::to_owned).into();
    arguments.push(format!("-isystem{}", headers.join(headers::EMPTY).display()));
    if options.language_version >= (4, 0) {
        arguments.push(format!("-isystem{}", headers.join(headers::EMPTY_4).display()));
    }
    arguments.push("-D__METAL__=1".to_owned());
    arguments.push(format!("-D__METAL_VERSION__={}", major * 100 + minor * 10));
    if options.language_version >= (3, 1) {
        arguments.push("-D__HAVE_BFLOAT__=1".to_owned());
    }
    if options.fast_math {
        arguments.extend(["-D__METAL_FAST_MATH__=1".to_owned(), "-D__FAST_MATH__=1".to_owned()]);
    }
    arguments.extend(options.macros.iter().map(|(name, value)| format!("-D{name}={value}")));
    arguments.push("-".to_owned());
    arguments
}

/// What the kernels and the runtime have in common.
const MACHINE: [&str; 8] =
    ["-x", "c++", "-std=gnu++17", "-march=x86-64-v3", "-fPIC", "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden"];

fn compiler_arguments(options: &Options, headers: &Path, object: &Path) -> Vec<String> {
    let mut arguments: Vec<String> = MACHINE.map(str::to_owned).into();
    arguments.extend(
        [
            "-O1",
            "-w",
            "-fno-caret-diagnostics",
            "-ferror-limit=20",
            "-gline-tables-only",
            "-fdeclspec",              // properties: swizzles
            "-fno-threadsafe-statics", // one thread
            "-fno-strict-aliasing",
            "-ftrivial-auto-var-init=pattern", // uninitialised variables are NaN, so that their use shows
            "-fwrapv",
            // Every access calls the runtime (runtime/hooks.cpp), also a read before a write of the same place.
            "-fsanitize=thread",
            "-mllvm",
            "-tsan-instrument-read-before-write",
            // A reference may be to nothing (an optional argument): its target must not be read ahead of time.
            "-fno-delete-null-pointer-checks",
            // Without vectors of odd sizes, which the instrumentation skips.
            "-fno-vectorize",
            "-fno-slp-vectorize",
            // half and bfloat round after every operation; 1.0 is a float.
            "-Xclang",
            "-ffloat16-excess-precision=none",
            "-Xclang",
            "-fbfloat16-excess-precision=none",
            "-Xclang",
            "-cl-single-precision-constant",
        ]
        .map(str::to_owned),
    );
    arguments.push(format!("-ffp-contract={}", if options.fast_math { "fast" } else { "off" }));
    arguments.extend(["-include".to_owned(), headers.join("include/metal_stdlib.h").display().to_string()]);
    if options.language_version >= (4, 0) {
        arguments.extend(["-include".to_owned(), headers.join("include/metal/tensor.h").display().to_string()]);
    }
    arguments.extend(["-c".to_owned(), "-o".to_owned(), object.display().to_string(), "-".to_owned()]);
    arguments
}

/// The object file of the runtime, which every library contains.
fn runtime(clang: &Clang, cache: &Cache, headers: &Path) -> Result<PathBuf, CompileError> {
    let mut parts = vec![clang.version.as_str(), include_str!("compile.rs")];
    parts.extend(headers::FILES.iter().map(|(_, text)| *text));
    cache.file(&Key::of(&parts), "o", |path| {
        let mut arguments: Vec<String> = MACHINE.map(str::to_owned).into();
        arguments.extend(["-O2", "-c", "-o"].map(str::to_owned));
        arguments.push(path.display().to_string());
        arguments.push(headers.join("runtime/runtime.cpp").display().to_string());
        clang.run(&arguments, "").map(|_| ()).map_err(CompileError::Environment)
    })
}

/// clang's messages, each with the line it is about as the user wrote it.
fn with_source_lines(messages: &str, source: &str, headers: &Path) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let mut text = String::new();
    for message in messages.replace(&format!("{}/include/", headers.display()), "").lines() {
        let place = message.strip_prefix(SOURCE_NAME).and_then(|rest| rest.strip_prefix(':'));
        let number = place.and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
        text.push_str(message);
        text.push('\n');
        if let Some(line) = number.and_then(|number| lines.get(number.wrapping_sub(1))) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.trim_end().to_owned()
}
