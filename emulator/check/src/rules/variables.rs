//! Where variables may lie (Metal Shading Language Specification, 4.1 to 4.4).

use super::{Source, Violation};
use crate::outline::attribute_end;
use crate::token::{Kind, after_closing};
use crate::translate::threadgroup_variables;

/// Checks variables of namespaces and of functions.
pub fn check(source: &Source<'_>, found: &mut Vec<Violation>) {
    for global in &source.outline.globals {
        let tokens = &source.tokens[global.clone()];
        // Behind the name stand its bounds and its value: qualifiers come before.
        let head = tokens.iter().position(|token| token.is_one_of(&["=", "["])).unwrap_or(tokens.len());
        let name = global.start + tokens[..head].iter().rposition(|token| token.kind == Kind::Word).unwrap_or(0);
        let has = |word: &str| outside_angles(tokens, head).any(|text| text == word);
        if has("threadgroup") {
            let message = "variable in threadgroup address space must be declared in a kernel function";
            found.push(Violation::error(name, "threadgroup-variable", message));
        } else if !has("constant") && !has("sampler") {
            let message = "program scope variable must reside in constant address space";
            found.push(Violation::error(name, "global-variable", message));
        }
    }
    for function in &source.outline.functions {
        let Some(body) = function.body.clone() else { continue };
        for at in body {
            match source.tokens[at].text {
                "threadgroup" => threadgroup(source, at, function.kernel, found),
                "static" => static_local(source, at, found),
                _ => {}
            }
        }
    }
}

/// The words of a declaration that stand in no template arguments, so `constant` in `f<constant T *>` does not count.
fn outside_angles<'a>(tokens: &'a [crate::token::Token<'_>], end: usize) -> impl Iterator<Item = &'a str> {
    let mut depth = 0usize;
    tokens[..end].iter().filter_map(move |token| {
        match token.text {
            "<" => depth += 1,
            ">" => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0).then_some(token.text)
    })
}

fn threadgroup(source: &Source<'_>, at: usize, kernel: bool, found: &mut Vec<Violation>) {
    for variable in threadgroup_variables(source.tokens, at) {
        let name = source.tokens[variable.name].text;
        if !kernel {
            let message =
                format!("variable '{name}' in threadgroup address space can only be declared in a kernel function");
            found.push(Violation::error(variable.name, "threadgroup-variable", message));
        }
        if source.tokens[variable.end].is_one_of(&["=", "{"]) {
            // MLX's layer_norm.metal has one and is built with Apple's compiler: no error, whatever it does.
            let message =
                format!("variable '{name}' in threadgroup address space is not initialized by an initializer");
            found.push(Violation::warning(variable.name, "threadgroup-initializer", message));
        }
    }
}

/// `static` in a function needs `constant`, as everything that outlives a thread does.
fn static_local(source: &Source<'_>, at: usize, found: &mut Vec<Violation>) {
    if !matches!(source.before(at), ";" | "{" | "}" | "constexpr" | "constant" | "const") {
        return;
    }
    let mut start = at;
    while matches!(source.before(start), "constexpr" | "constant" | "const") {
        start -= 1;
    }
    let mut i = start;
    while let Some(token) = source.tokens.get(i) {
        match token.text {
            "constant" => return,
            ";" | "=" | "{" => break,
            // A local class may have static functions.
            "(" => return,
            "[" if attribute_end(source.tokens, i).is_none() => i = after_closing(source.tokens, i),
            _ => i += 1,
        }
    }
    let message = "static variable must reside in constant address space";
    found.push(Violation::error(at, "static-variable", message));
}
