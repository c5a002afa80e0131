//! Checks Metal Shading Language sources, as strictly as clang can be made to.
//!
//! ```no_run
//! use msl_check::{Options, check};
//!
//! let source = "#include <metal_stdlib>\nvoid f(float *p);";
//! let report = check(source, "f.metal", &Options::default()).unwrap_err();
//! println!("{report}"); // f.metal:2:14: error: pointer type must have explicit address space qualifier …
//! ```
//!
//! # How
//!
//! 1. Clang's preprocessor runs with headers that hold macros only, so that what comes out is the user's text.
//! 2. Rules look at its tokens: pointers without an address space, words that Metal has not, variables, the parameters
//!    of kernels, recursion. They say what clang cannot see.
//! 3. The text is changed in a few places (see the table in `translate.rs`), and clang checks it as *C++ for OpenCL*
//!    against the declarations in `include/`, which are precompiled once and cached.
//!
//! C++ for OpenCL, because its address spaces are qualifiers of types that take part in overloading, templates,
//! references and the `this` of member functions: that is what Metal has. `__attribute__((address_space(N)))` in plain
//! C++ has no such member functions, so that valid Metal (a constructor per address space) does not even parse.
//! OpenCL's *generic* address space stays on: without it clang cannot copy a structure out of device memory or
//! initialise a member. It is kept away from the user's text: a plain pointer is an error by a rule, and a plain member
//! function becomes one for thread memory, as in Metal. Vectors are clang's own, with their swizzles.
//!
//! # What is refused
//!
//! Sections are those of the Metal Shading Language Specification 3.2. Messages of rules have the rule's name in
//! [`Diagnostic::rule`]; everything else is `clang` or `preprocessor`.
//!
//! | What | Section |
//! |---|---|
//! | a pointer or reference to one address space where another is wanted; `const` taken away | 4 |
//! | a pointer or reference without an address space (the message is Apple's) | 4 |
//! | `double`, `long double`, `long long` and their literals | 2.1 |
//! | exceptions, virtual functions, `dynamic_cast`, `typeid`, `new`, `delete`, `goto`, `register`, `thread_local`, the operator `noexcept`, a function `main`, C++'s headers and `std` | 1.5.4 |
//! | lambdas before Metal 3.2, recursion before 2.4, function pointers before 2.3, `bfloat` before 3.1, tensors before 4.0 | 1.5.4, 2.1; not shown on a Mac |
//! | a variable of a namespace, or a static one, that is not in constant memory | 4.2 |
//! | threadgroup variables outside kernels | 4.4 |
//! | kernels that return something or that are called | 5.1 |
//! | indices over 30, indices used twice, unknown attributes, wrong types of built-in parameters, values without an attribute | 5.2 |
//! | mixes of `half` and `bfloat` without a cast | 2.6; not shown on a Mac |
//! | `half` and `float` mixed in `max` and the like: ambiguous, as Apple's overloads are | 6.2 |
//! | inline assembly, `printf`, arrays of variable length | not shown on a Mac |
//!
//! # What it still lets through
//!
//! - Conversions between vectors of one length in casts, and a scalar of a wider type beside a vector (`half4 * 1.0f`);
//!   too few components in braces. Clang's errors on these are OpenCL's and are dropped.
//! - `bool4` is `int4`: what is wrong with vectors of `bool` is not seen, nor, once a source has `vec<bool, N>`, errors
//!   in templates made for `bool`.
//! - `packed_float3` is `float3`: its size and alignment are wrong, and the two mix.
//! - `bfloat` in math functions, for which Apple's headers have no overloads.
//! - A wrong copy out of constant memory, or between address spaces in `c ? a : b`: such an expression is not looked at
//!   any further. The same holds for `const`: constant memory is always const, and `constant T *` takes both.
//! - A pointer moved by an object (`p += integral_constant<int, 1>()`), a temporary bound to `const thread T &`, and
//!   constants made by a constructor without `constant`: clang refuses these, Metal does not, all such errors go.
//! - Constructors and conversions work in every address space, with or without a qualifier.
//! - `auto *`, `auto &`, `T &&`, the second name in `device float *a, *b`, pointers to arrays and to functions are not
//!   asked for an address space.
//! - Recursion from Metal 2.4 on (a warning), through overloads, member functions or template arguments.
//! - Function pointers from Metal 2.3 on, wherever they point to.
//! - Function constants count as constants of the value zero, also where Metal wants a true constant.
//! - Names that begin with `__metal_`; which version of Metal brought a library function; its argument types where
//!   they are templates (SIMD-group functions, `as_type` of structures, options of textures and samplers).
//! - Whether all built-in parameters of a kernel have the same width; whether memory fits (threadgroup memory, 4 KiB of
//!   `setBytes`); `main` in a namespace is refused, `main` in a class is not.
//! - Threadgroup variables in inner scopes; their initialisers are a warning (MLX has one).
//! - Everything that clang's front end leaves to later stages: nothing is compiled.
//!
//! # What is stricter than Apple's compiler
//!
//! - Ray tracing, mesh and tile shading, imageblocks, tensors but for those over pointers and `matmul2d`, argument buffers, indirect command buffers, most kinds of
//!   textures and `<simd/simd.h>`'s own names are not declared: sources with these are refused.
//! - `vec<T, N>` in a `static_assert` on `sizeof(packed_float3)`, and vectors built of vectors in constant expressions.
//! - A type's name that is also a variable's name is taken for the variable; the other way round a product `T * x` of
//!   a variable called like a type may be taken for a pointer.
//! - Messages on text that a macro made stand at the macro's name.

use std::path::PathBuf;
use std::{fs, io};

mod clang;
mod compile;
mod diagnostic;
mod headers;
mod outline;
mod preprocess;
mod process;
mod rules;
mod token;
mod translate;

/// Changes with the rules and the headers: what an older version accepted is not what this one accepts.
pub const FINGERPRINT: &str = env!("MSL_CHECK_FINGERPRINT");

pub use clang::{Clang, MissingClang, clang};
pub use diagnostic::{Diagnostic, Report, Severity};

use compile::Finding;
use preprocess::{Origin, Preprocessed};
use process::{Level, Message};
use translate::Translation;

/// How a source is to be read: the counterpart of `MTLCompileOptions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The language version: `(3, 1)` for Metal 3.1. It sets `__METAL_VERSION__` and what the language has.
    pub language_version: (u32, u32),
    /// Preprocessor macros: names and values.
    pub macros: Vec<(String, String)>,
    /// Fast math, the default of Metal: it sets `__METAL_FAST_MATH__`.
    pub fast_math: bool,
    /// Folders in which `#include` looks.
    pub include: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options { language_version: (3, 2), macros: Vec::new(), fast_math: true, include: Vec::new() }
    }
}

/// Checks one source; `name` is what the diagnostics call it. A source that is accepted gives its warnings.
///
/// Where clang is missing or fails to run, the report says so.
pub fn check(source: &str, name: &str, options: &Options) -> Result<Vec<Diagnostic>, Report> {
    let diagnostics = diagnose(source, name, options).unwrap_or_else(|error| vec![failure(name, &error)]);
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(Report { diagnostics });
    }
    Ok(diagnostics)
}

fn diagnose(source: &str, name: &str, options: &Options) -> io::Result<Vec<Diagnostic>> {
    let clang = clang().map_err(io::Error::other)?;
    let headers = headers::Headers::for_clang(&clang)?;
    let (preprocessed, messages) = preprocess::preprocess(&clang, &headers, source, name, options)?;
    let texts = texts_of(&preprocessed, source, name);
    let origin = Origin::new(&texts);

    let mut diagnostics: Vec<Diagnostic> =
        messages.iter().map(|message| of_preprocessor(message, &preprocessed, &origin)).collect();
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Ok(diagnostics);
    }

    let tokens = preprocessed.tokens();
    let columns = origin.columns(&tokens);
    let outline = outline::outline(&tokens);
    let at_token = |index: usize, severity, message: String, rule| {
        let token = &tokens[index];
        Diagnostic {
            severity,
            file: preprocessed.files[token.file].clone(),
            line: token.line,
            column: columns[index],
            message,
            source_line: origin.line(token.file, token.line).to_owned(),
            rule,
        }
    };

    let mut found = Vec::new();
    let source =
        rules::Source { tokens: &tokens, outline: &outline, options, includes_metal: preprocessed.includes_metal };
    for violation in rules::violations(&source) {
        found.push((violation.token, at_token(violation.token, violation.severity, violation.message, violation.rule)));
    }
    let translation = translate::translate(&preprocessed.text, &tokens, &outline);
    for finding in compile::compile(&clang, &headers, &translation.text)? {
        let Some(token) = place(&finding, &translation) else { continue };
        let severity = if finding.message.level == Level::Error { Severity::Error } else { Severity::Warning };
        found.push((token, at_token(token, severity, compile::in_metal(&finding.message.text), "clang")));
        for note in finding.notes.iter().filter(|note| note.file == compile::INPUT).take(4) {
            if let Some(at) = translation.token_at(note.line, note.column) {
                found.push((token, at_token(at, Severity::Note, compile::in_metal(&note.text), "clang")));
            }
        }
    }
    found.sort_by_key(|(token, _)| *token);
    found.dedup_by(|a, b| a.1 == b.1);
    diagnostics.extend(found.into_iter().map(|(_, diagnostic)| diagnostic));
    Ok(diagnostics)
}

/// The token that a finding is about: where clang found it, or where the user's text made a header fail.
fn place(finding: &Finding, translation: &Translation) -> Option<usize> {
    std::iter::once(&finding.message)
        .chain(&finding.notes)
        .find(|message| message.file == compile::INPUT)
        .and_then(|message| translation.token_at(message.line, message.column))
}

/// The text of every file that was read.
fn texts_of(preprocessed: &Preprocessed, source: &str, name: &str) -> Vec<String> {
    let given = name.replace(['"', '\\'], "_");
    let text =
        |file: &String| if *file == given { source.to_owned() } else { fs::read_to_string(file).unwrap_or_default() };
    preprocessed.files.iter().map(text).collect()
}

fn of_preprocessor(message: &Message, preprocessed: &Preprocessed, origin: &Origin<'_>) -> Diagnostic {
    let file = preprocessed.files.iter().position(|file| *file == message.file).unwrap_or(usize::MAX);
    let severity = match message.level {
        Level::Error => Severity::Error,
        Level::Warning => Severity::Warning,
        Level::Note => Severity::Note,
    };
    Diagnostic {
        severity,
        file: message.file.clone(),
        line: message.line,
        column: message.column,
        message: message.text.clone(),
        source_line: origin.line(file, message.line).to_owned(),
        rule: "preprocessor",
    }
}

/// The check itself could not be done.
fn failure(name: &str, error: &io::Error) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: name.to_owned(),
        line: 1,
        column: 1,
        message: error.to_string(),
        source_line: String::new(),
        rule: "tool",
    }
}
