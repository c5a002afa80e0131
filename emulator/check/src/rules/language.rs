//! What C++ has and Metal has not (Metal Shading Language Specification, 1.5.4 "Restrictions").

use super::{Source, Violation};
use crate::token::{Kind, after_closing};

/// Words that may not occur, with the reason. They are keywords of C++, so no name can be meant.
const FORBIDDEN: [(&str, &str); 19] = [
    ("goto", "'goto' is not supported in Metal"),
    ("try", "exceptions are not supported in Metal: 'try'"),
    ("catch", "exceptions are not supported in Metal: 'catch'"),
    ("throw", "exceptions are not supported in Metal: 'throw'"),
    ("virtual", "virtual functions are not supported in Metal"),
    ("dynamic_cast", "'dynamic_cast' is not supported in Metal"),
    ("typeid", "'typeid' is not supported in Metal"),
    ("thread_local", "'thread_local' is not supported in Metal"),
    ("register", "'register' is not supported in Metal"),
    ("asm", "inline assembly is not supported in Metal"),
    ("__asm", "inline assembly is not supported in Metal"),
    ("__asm__", "inline assembly is not supported in Metal"),
    ("double", "'double' is not supported in Metal"),
    ("new", "'new' is not supported in Metal"),
    ("co_await", "coroutines are not supported in Metal"),
    ("co_yield", "coroutines are not supported in Metal"),
    ("co_return", "coroutines are not supported in Metal"),
    ("__int128", "'__int128' is not supported in Metal"),
    ("wchar_t", "'wchar_t' is not supported in Metal"),
];

/// Checks words and literals.
pub fn check(source: &Source<'_>, found: &mut Vec<Violation>) {
    let mut asked_for_metal = false;
    for (at, token) in source.tokens.iter().enumerate() {
        match token.kind {
            Kind::Word => {
                if let Some((_, reason)) = FORBIDDEN.iter().find(|(word, _)| token.is(word)) {
                    found.push(Violation::error(at, "forbidden-word", *reason));
                }
                if token.is("metal") && !source.includes_metal && !asked_for_metal {
                    asked_for_metal = true;
                    let message = "use of undeclared identifier 'metal': #include <metal_stdlib> is missing";
                    found.push(Violation::error(at, "missing-include", message));
                }
                word(source, at, found);
            }
            Kind::Number => literal(source, at, found),
            Kind::Mark if token.is("[") => lambda(source, at, found),
            _ => {}
        }
    }
    for function in source.outline.functions.iter().filter(|function| source.tokens[function.name].is("main")) {
        if !function.member {
            found.push(Violation::error(function.name, "main", "a function in Metal cannot be called 'main'"));
        }
    }
}

/// Words that are refused in some places only.
fn word(source: &Source<'_>, at: usize, found: &mut Vec<Violation>) {
    let (before, next) = (source.before(at), source.after(at, 1));
    match source.tokens[at].text {
        "delete" if before != "=" && before != "operator" => {
            found.push(Violation::error(at, "forbidden-word", "'delete' is not supported in Metal"));
        }
        "printf" if next == "(" && !matches!(before, "." | "->") => {
            let message = "use of undeclared identifier 'printf': Metal logs with os_log (from Metal 3.2)";
            found.push(Violation::error(at, "printf", message));
        }
        "long" if next == "double" => {}
        "long" if next == "long" => {
            found.push(Violation::error(at, "long-long", "'long long' is not supported in Metal: 'long' has 64 bits"));
        }
        "noexcept" if next == "(" && matches!(before, "=" | "(" | "," | "return" | "&&" | "||" | "!") => {
            found.push(Violation::error(at, "forbidden-word", "the operator 'noexcept' is not supported in Metal"));
        }
        "mpp" | "tensor_inline" | "dextents" if !source.is_version(4, 0) => {
            found.push(Violation::error(at, "tensor", "tensors need Metal 4.0 or later"));
        }
        "std" if next == "::" && before != "::" => {
            let message = "use of undeclared identifier 'std': Metal has no C++ standard library";
            found.push(Violation::error(at, "standard-library", message));
        }
        _ => {}
    }
    // A pointer to a function: `R (*name)(…)`; as an argument of a template it is a constant, and no pointer at all.
    let pointer = before == "*" && at >= 2 && source.before(at - 1) == "(" && next == ")" && source.after(at, 2) == "(";
    if pointer && !source.is_version(2, 3) && !in_template_list(source, at) {
        found.push(Violation::error(at, "function-pointer", "function pointers need Metal 2.3 or later"));
    }
}

/// Whether a token stands between the angle brackets behind `template`.
fn in_template_list(source: &Source<'_>, at: usize) -> bool {
    let start = source.tokens[..at].iter().rposition(|token| token.is_one_of(&[";", "{", "}"])).map_or(0, |i| i + 1);
    source.tokens[start..at].iter().any(|token| token.is("template"))
}

/// Metal has no double, so a literal cannot ask for more than float (2.1 "Scalar data types").
fn literal(source: &Source<'_>, at: usize, found: &mut Vec<Violation>) {
    let text = source.tokens[at].text;
    let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let real = text.contains('.') || text.contains(['p', 'P']) || (!hexadecimal && text.contains(['e', 'E']));
    if real && text.ends_with(['l', 'L']) {
        found.push(Violation::error(
            at,
            "long-double",
            "'long double' is not supported in Metal: remove the suffix 'l'",
        ));
    }
    if !real && text.to_ascii_lowercase().contains("ll") {
        found.push(Violation::error(at, "long-long", "'long long' is not supported in Metal: one 'l' makes 64 bits"));
    }
    let bfloat = real && !hexadecimal && (text.ends_with("bf") || text.ends_with("BF"));
    if bfloat && !source.is_version(3, 1) {
        found.push(Violation::error(at, "bfloat", "'bfloat' needs Metal 3.1 or later"));
    }
}

/// A lambda: from Metal 3.2 on (1.5.4; not shown on a Mac).
fn lambda(source: &Source<'_>, at: usize, found: &mut Vec<Violation>) {
    let before = source.before(at);
    let expression = matches!(before, "=" | "(" | "," | "{" | "return" | "&&" | "||" | "?" | ":");
    if source.is_version(3, 2) || !expression || source.after(at, 1) == "[" {
        return;
    }
    let after = after_closing(source.tokens, at);
    if source.tokens.get(after).is_some_and(|token| token.is_one_of(&["(", "{"])) {
        found.push(Violation::error(at, "lambda", "lambda expressions need Metal 3.2 or later"));
    }
}
