//! The second run of clang: types and address spaces.

use std::ffi::OsString;
use std::io;

use crate::clang::Clang;
use crate::headers::{Headers, LANGUAGE};
use crate::process::{self, Level, Message};

/// An error or a warning of clang with the notes that explain it.
pub struct Finding {
    /// The message itself.
    pub message: Message,
    /// Its notes.
    pub notes: Vec<Message>,
}

/// What clang calls the text that it reads from its standard input.
pub const INPUT: &str = "<stdin>";

/// Lets clang check translated text.
pub fn compile(clang: &Clang, headers: &Headers, text: &str) -> io::Result<Vec<Finding>> {
    let mut arguments: Vec<OsString> = LANGUAGE.map(OsString::from).into();
    arguments.extend(["-include-pch".into(), headers.precompiled().into()]);
    arguments.extend(
        [
            "-fsyntax-only",
            "-ferror-limit=0",
            "-fno-caret-diagnostics",
            "-fno-elide-type",
            "-ftemplate-backtrace-limit=0",
            "-fno-spell-checking",
            "-Wno-unused-value",
            "-Wno-unknown-pragmas",
            "-Wno-ignored-attributes",
            "-Wno-pass-failed",
            "-Wno-undefined-inline",
            "-Wno-undefined-internal",
            "-Wno-undefined-var-template",
            "-Wno-parentheses",
            "-Wno-duplicate-decl-specifier",
            "-Wno-c99-designator",
            "-Wno-static-float-init",
            "-",
        ]
        .map(OsString::from),
    );
    let output = process::run(clang, &arguments, text)?;
    if !output.success && !output.messages.iter().any(|message| message.level == Level::Error) {
        return Err(io::Error::other(format!("clang failed:\n{}", output.stderr)));
    }
    let mut findings: Vec<Finding> = Vec::new();
    for message in output.messages {
        match (message.level, findings.last_mut()) {
            (Level::Note, Some(finding)) => finding.notes.push(message),
            (Level::Note, None) => {}
            _ => findings.push(Finding { message, notes: Vec::new() }),
        }
    }
    // One vector of bool that clang does not have spoils the templates around it.
    let bool_vectors = findings.iter().any(|finding| has_bool_vector(&finding.message.text));
    // The same holds for what else is dropped: clang says the follow-up of an error in other words.
    let constant_copies = findings.iter().any(copies_from_constant);
    let pointer_steps = findings.iter().any(|finding| steps_by_object(&finding.message.text));
    findings.retain(|finding| {
        let constant = finding.message.text.ends_with("must be initialized by a constant expression");
        let substitution = finding.notes.iter().any(|note| note.text.contains("substitution failure [with"));
        let spoilt =
            constant_copies && constant || pointer_steps && substitution || bool_vectors && is_about_bool(finding);
        !(is_openclism(finding) || spoilt)
    });
    Ok(findings)
}

/// Whether clang refuses something that Metal has.
fn is_openclism(finding: &Finding) -> bool {
    let text = finding.message.text.as_str();
    copies_from_constant(finding)
        || converts_vectors_in_cast(text)
        || text.starts_with("scalar operand type has greater rank than the type of the vector element")
        || (text.contains("'bool2'") || text.contains("'bool3'") || text.contains("'bool4'"))
            && text.contains("ext_vector_type")
        || text.starts_with("too few elements in vector initialization")
        || binds_temporary(text)
        || steps_by_object(text)
        // Built-in functions of Apple's compiler, which MLX calls by their own names.
        || text.starts_with("use of undeclared identifier '__metal_")
        || text.starts_with("use of undeclared identifier '__METAL_")
        || casts_half_and_bfloat(text)
        || differs_in_space_only(text)
        || finding.notes.iter().any(|note| gives_list_to_vector(&note.text))
}

fn has_bool_vector(text: &str) -> bool {
    text.starts_with("invalid vector element type 'bool'")
}

/// Whether a finding lies in a template that was made for bool.
fn is_about_bool(finding: &Finding) -> bool {
    let mentions_bool = |message: &Message| {
        let words = message.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.into_iter().any(|word| word == "bool")
    };
    let subscript = finding.message.text.starts_with("subscripted value is not an array");
    subscript || has_bool_vector(&finding.message.text) || finding.notes.iter().any(mentions_bool)
}

/// Metal copies any object out of constant memory; the copies that OpenCL makes up itself read generic memory only.
fn copies_from_constant(finding: &Finding) -> bool {
    let text = finding.message.text.as_str();
    let copies = text.starts_with("no matching constructor for initialization of")
        || text.starts_with("no viable overloaded '='")
        || text.starts_with("no viable conversion from")
        || text.starts_with("no matching conversion for");
    // A constructor without a qualifier makes constants, too: to clang it makes objects in generic memory only.
    let constructs = finding.notes.iter().any(|note| {
        note.text.starts_with("candidate constructor ignored: cannot be used to construct an object in address space")
    });
    if constructs && text.contains("'const __constant") {
        return true;
    }
    copies
        && finding.notes.iter().any(|note| {
            let implicit = note.text.contains("(the implicit copy") || note.text.contains("(the implicit move");
            implicit && note.text.contains("__constant")
        })
}

/// A temporary lies in no address space for clang, and in thread memory for Metal.
fn binds_temporary(text: &str) -> bool {
    text.starts_with("reference of type 'const __private") && text.contains("cannot bind to a temporary object")
}

/// Casts between half and bfloat are what Metal asks for where it refuses to convert by itself.
fn casts_half_and_bfloat(text: &str) -> bool {
    let cast = ["static_cast from", "functional-style cast from", "C-style cast from"];
    cast.iter().any(|cast| text.starts_with(cast)) && text.contains("half'") && text.contains("'__bf16'")
}

/// `pointer += Int<1>()`: clang does not convert the object where the pointer itself lies in thread memory.
fn steps_by_object(text: &str) -> bool {
    text.starts_with("invalid operands to binary expression")
        && text.contains(" *__private' and '")
        && text.contains("integral_constant<")
}

/// `c ? a : b` of two objects of one class that lie in different spaces: both are read.
fn differs_in_space_only(text: &str) -> bool {
    if !text.starts_with("incompatible operand types") && !text.starts_with("conditional expression is ambiguous") {
        return false;
    }
    let mut types = text.split('\'').skip(1).step_by(2).map(|name| {
        let words = name.split(' ').filter(|word| *word != "const" && !word.starts_with("__"));
        words.collect::<Vec<_>>().join(" ")
    });
    matches!((types.next(), types.next()), (Some(a), Some(b)) if a == b)
}

/// `f({x, y})` for a parameter that is a vector.
fn gives_list_to_vector(note: &str) -> bool {
    note.contains("cannot convert initializer list argument to") && note.contains("vec<")
}

/// `(float4)h` converts each element in Metal, and bits in OpenCL.
fn converts_vectors_in_cast(text: &str) -> bool {
    let cast = text.starts_with("C-style cast from vector")
        || text.starts_with("static_cast from")
        || text.starts_with("invalid conversion between vector type");
    let counts: Vec<char> = text.match_indices(">'").filter_map(|(at, _)| text[..at].chars().last()).collect();
    cast && text.contains("vec<") && (counts.len() < 2 || counts.windows(2).all(|pair| pair[0] == pair[1]))
}

/// Clang's words in Metal's: address spaces have other names.
pub fn in_metal(text: &str) -> String {
    // A header's assertion says it in words; its condition is nobody's business.
    let assertion =
        text.strip_prefix("static assertion failed due to requirement").filter(|_| text.contains("given =="));
    let mut text = assertion.and_then(|rest| rest.rsplit_once("': ")).map_or(text, |(_, words)| words).to_owned();
    for (clang, metal) in [
        ("__global", "device"),
        ("__local", "threadgroup"),
        ("__constant", "constant"),
        ("__private", "thread"),
        ("__generic ", ""),
        ("__bf16", "bfloat"),
        ("'bfloat' (aka 'bfloat')", "'bfloat'"),
        ("C++ for OpenCL version 2021", "Metal"),
        ("C++ for OpenCL", "Metal"),
        ("OpenCL", "Metal"),
        ("type 'double' requires cl_khr_fp64 and __opencl_c_fp64 support", "type 'double': Metal has none"),
    ] {
        text = text.replace(clang, metal);
    }
    text
}
