//! Every pointer and every reference names the address space of what it points to.
//!
//! Metal Shading Language Specification, 4 "Address spaces"; the words are those of Apple's compiler.

use super::{Source, Violation};
use crate::token::Kind;
use crate::translate::is_vector_name;

const SPACES: [&str; 7] =
    ["device", "constant", "threadgroup", "thread", "threadgroup_imageblock", "ray_data", "object_data"];

const SCALARS: [&str; 28] = [
    "bool",
    "char",
    "uchar",
    "short",
    "ushort",
    "int",
    "uint",
    "long",
    "ulong",
    "half",
    "bfloat",
    "float",
    "void",
    "unsigned",
    "signed",
    "size_t",
    "ptrdiff_t",
    "int8_t",
    "uint8_t",
    "int16_t",
    "uint16_t",
    "int32_t",
    "uint32_t",
    "int64_t",
    "uint64_t",
    "atomic_int",
    "atomic_uint",
    "atomic_float",
];

/// Templates of the library that are types with their arguments.
const TEMPLATES: [&str; 5] = ["vec", "matrix", "simdgroup_matrix", "atomic", "array"];

/// Looks at every `*` and `&` that follows a type.
pub fn check(source: &Source<'_>, found: &mut Vec<Violation>) {
    for (at, token) in source.tokens.iter().enumerate() {
        let (kind, what) = match token.text {
            "*" => ("pointer", "pointer-space"),
            "&" => ("reference", "reference-space"),
            _ => continue,
        };
        if lacks_space(source, at) {
            found.push(Violation::error(at, what, format!("{kind} type must have explicit address space qualifier")));
        }
    }
}

/// Whether a type without an address space ends right before this token.
fn lacks_space(source: &Source<'_>, at: usize) -> bool {
    // Behind the type: `float device *`.
    let mut i = at;
    while let Some(token) = i.checked_sub(1).map(|before| &source.tokens[before]) {
        if SPACES.contains(&token.text) {
            return false;
        }
        if !token.is_one_of(&["const", "volatile", "restrict", "__restrict"]) {
            break;
        }
        i -= 1;
    }
    let Some(end) = i.checked_sub(1) else { return false };
    // A pointer to a pointer: the one that is pointed to lies somewhere, too.
    if source.tokens[end].is("*") {
        return source.tokens[at].is("*") && points_from_type(source, end) || i < at && points_from_type(source, end);
    }
    let Some(start) = type_start(source, end) else { return false };
    // Before the type: `device const float *`.
    let mut i = start;
    while let Some(token) = i.checked_sub(1).map(|before| &source.tokens[before]) {
        if SPACES.contains(&token.text) || token.is(")") && coherent(source, i - 1) {
            return false;
        }
        let belongs = token.is_one_of(&[
            "const",
            "volatile",
            "static",
            "constexpr",
            "inline",
            "typename",
            "struct",
            "unsigned",
            "signed",
            "extern",
            "mutable",
            "friend",
            "long",
            "short",
        ]);
        if !belongs {
            return true;
        }
        i -= 1;
    }
    true
}

/// `coherent(device)` is an address space with a scope.
fn coherent(source: &Source<'_>, close: usize) -> bool {
    close >= 3 && source.tokens[close - 3].is("coherent")
}

/// Whether this `*` itself is part of a type.
fn points_from_type(source: &Source<'_>, star: usize) -> bool {
    let mut i = star;
    while i > 0 && (source.tokens[i - 1].is_one_of(&["const", "volatile"]) || SPACES.contains(&source.before(i))) {
        i -= 1;
    }
    i.checked_sub(1).is_some_and(|end| type_start(source, end).is_some())
}

/// If a type ends at this token: where it begins.
fn type_start(source: &Source<'_>, end: usize) -> Option<usize> {
    let tokens = source.tokens;
    let mut name = end;
    if tokens[end].is(">") {
        name = opening_angle(source, end)?.checked_sub(1)?;
        let known = TEMPLATES.contains(&tokens[name].text) || source.outline.types.contains(tokens[name].text);
        let member = source.before(name) == "::" && !is_type_name(source, name);
        if !known || member {
            return dependent_start(source, name);
        }
    } else if tokens[end].kind != Kind::Word || !is_type_name(source, end) {
        return dependent_start(source, end);
    }
    // A qualified name: go back to its beginning. A value may have the name of a type inside another type.
    let mut start = name;
    while start >= 2 && tokens[start - 1].is("::") {
        if tokens[start - 2].kind != Kind::Word {
            return dependent_start(source, name);
        }
        start -= 2;
    }
    // `x.T * y` and `T` as a declared name behind another type are no types.
    let before = source.before(start);
    let declared = !matches!(
        before,
        "return"
            | "case"
            | "else"
            | "typename"
            | "struct"
            | "sizeof"
            | "operator"
            | "unsigned"
            | "signed"
            | "const"
            | "volatile"
            | "static"
            | "inline"
            | "constexpr"
            | "extern"
            | "mutable"
            | "friend"
            | "typedef"
            | "kernel"
            | "long"
            | "short"
            | "public"
            | "auto"
    ) && !SPACES.contains(&before)
        && start.checked_sub(1).is_some_and(|i| tokens[i].kind == Kind::Word);
    (!declared && !matches!(before, "." | "->")).then_some(start)
}

/// `typename A<B>::type` is a type for certain.
fn dependent_start(source: &Source<'_>, end: usize) -> Option<usize> {
    let mut i = end;
    loop {
        if i >= 1 && source.tokens[i - 1].is("typename") {
            return Some(i - 1);
        }
        if i < 2 || !source.tokens[i - 1].is("::") {
            return None;
        }
        i -= 2;
        if source.tokens[i].is(">") {
            i = opening_angle(source, i)?.checked_sub(1)?;
        }
    }
}

fn opening_angle(source: &Source<'_>, close: usize) -> Option<usize> {
    let mut depth = 0usize;
    for i in (0..=close).rev() {
        match source.tokens[i].text {
            ">" => depth += 1,
            "<" => {
                depth -= 1;
                if depth == 0 {
                    return Some(i);
                }
            }
            ";" | "{" | "}" => return None,
            _ => {}
        }
    }
    None
}

fn is_type_name(source: &Source<'_>, at: usize) -> bool {
    let text = source.tokens[at].text;
    SCALARS.contains(&text) || is_vector_name(text) || source.outline.types.contains(text)
}
