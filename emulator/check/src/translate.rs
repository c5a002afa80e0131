//! From Metal to C++ for OpenCL: the few places where clang would stumble over valid Metal.
//!
//! | Metal                                    | clang reads                                                |
//! |------------------------------------------|------------------------------------------------------------|
//! | `[[ … ]]`                                | nothing: the rules check attributes                         |
//! | `constant bool b [[function_constant(0)]]` | `constant bool b = {}`                                    |
//! | `threadgroup float t[32];` in a function | a reference to such memory: OpenCL has it in plain kernels only |
//! | `float4(v.xy, 1, 2)`                     | `msl::make<float4>(v.xy, 1, 2)`                            |
//! | `R operator()(…)` of a class             | `R operator()(…) thread`, which is what it means           |
//! | `template <void (*f)(…)>`                | `template <void (&f)(…)>`                                  |
//! | `1.0h`, `1.0bf`                          | `half(1.0)`, `bfloat(1.0)`                                 |

use std::ops::Range;

use crate::outline::{Function, Outline, attribute_end};
use crate::token::{Kind, Token, after_angle, after_closing};

/// Text for clang, and the way back from its offsets to tokens.
pub struct Translation {
    /// What clang reads.
    pub text: String,
    /// For each token: where it begins in that text.
    starts: Vec<usize>,
    lines: Vec<usize>,
}

impl Translation {
    /// The token at a line and column of the text, both from 1.
    pub fn token_at(&self, line: u32, column: u32) -> Option<usize> {
        let offset = self.lines.get((line as usize).checked_sub(1)?)? + column.saturating_sub(1) as usize;
        self.starts.partition_point(|start| *start <= offset).checked_sub(1)
    }
}

/// Text to be put in the place of a range of the source.
struct Edit {
    span: Range<usize>,
    text: String,
}

/// Translates preprocessed text.
pub fn translate(text: &str, tokens: &[Token<'_>], outline: &Outline) -> Translation {
    let mut edits = Vec::new();
    edit_attributes(tokens, outline, &mut edits);
    edit_threadgroup_variables(tokens, outline, &mut edits);
    edit_vector_constructors(tokens, outline, &mut edits);
    edit_member_qualifiers(tokens, outline, &mut edits);
    edit_literals(tokens, &mut edits);
    edit_function_parameters(tokens, &mut edits);
    edit_declarations(tokens, outline, &mut edits);
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    apply(text, tokens, &edits)
}

fn apply(text: &str, tokens: &[Token<'_>], edits: &[Edit]) -> Translation {
    let mut result = String::with_capacity(text.len() * 5 / 4);
    let mut starts = Vec::with_capacity(tokens.len());
    let mut from = 0;
    let mut next = 0;
    let mut copy = |result: &mut String, upto: usize, from: &mut usize| {
        while next < tokens.len() && tokens[next].span.start < upto {
            starts.push(result.len() + tokens[next].span.start.saturating_sub(*from));
            next += 1;
        }
        if upto > *from {
            result.push_str(&text[*from..upto]);
            *from = upto;
        }
    };
    for edit in edits {
        if edit.span.start < from {
            continue;
        }
        copy(&mut result, edit.span.start, &mut from);
        // Line breaks stay, so that lines keep their numbers.
        let breaks = text[edit.span.clone()].matches('\n').count();
        result.push_str(&edit.text);
        result.push_str(&"\n".repeat(breaks));
        from = edit.span.end;
    }
    copy(&mut result, text.len(), &mut from);
    let lines = std::iter::once(0).chain(result.match_indices('\n').map(|(at, _)| at + 1)).collect();
    Translation { text: result, starts, lines }
}

fn edit_attributes(tokens: &[Token<'_>], outline: &Outline, edits: &mut Vec<Edit>) {
    let mut i = 0;
    while i < tokens.len() {
        let Some(after) = attribute_end(tokens, i) else {
            i += 1;
            continue;
        };
        // The same attribute on a parameter says when the parameter is there at all.
        let ends_declaration = tokens.get(after).is_some_and(|next| next.is_one_of(&[";", ","]));
        let variable = ends_declaration && !outline.is_parameter(i);
        let text = if tokens[i + 2].is("function_constant") && variable { "= {}" } else { "" };
        edits.push(Edit { span: tokens[i].span.start..tokens[after - 1].span.end, text: text.to_owned() });
        i = after;
    }
}

/// A declaration of threadgroup variables in a function: each name with its array bounds.
pub struct ThreadgroupVariable {
    /// The index of the name.
    pub name: usize,
    /// The index behind its array bounds.
    pub end: usize,
}

/// The variables that the `threadgroup` at this index declares; none if it belongs to a pointer or to something else.
pub fn threadgroup_variables(tokens: &[Token<'_>], at: usize) -> Vec<ThreadgroupVariable> {
    let mut variables = Vec::new();
    let starts_statement = at == 0 || tokens[at - 1].is_one_of(&[";", "{", "}", ")", ":", "static", "volatile"]);
    if !starts_statement {
        return variables;
    }
    // The type: qualifiers, then a name with template arguments.
    let mut i = at + 1;
    while tokens.get(i).is_some_and(|token| {
        token.is_one_of(&["const", "volatile", "unsigned", "signed", "typename", "struct", "alignas", "constexpr"])
    }) {
        i = if tokens[i].is("alignas") { after_closing(tokens, i + 1) } else { i + 1 };
    }
    let sign = tokens[i - 1].is_one_of(&["unsigned", "signed"]);
    let declares_here = |i: usize| tokens.get(i + 1).is_some_and(|token| token.is_one_of(&[";", "[", ",", "="]));
    while tokens.get(i).is_some_and(|token| token.kind == Kind::Word) && !(sign && declares_here(i)) {
        i += 1;
        if tokens.get(i).is_some_and(|token| token.is("<")) {
            i = after_angle(tokens, i).unwrap_or(i + 1);
        }
        if !tokens.get(i).is_some_and(|token| token.is("::")) {
            break;
        }
        i += 1;
    }
    while tokens.get(i).is_some_and(|token| token.kind == Kind::Word) {
        let name = i;
        i += 1;
        while tokens.get(i).is_some_and(|token| token.is("[")) && attribute_end(tokens, i).is_none() {
            i = after_closing(tokens, i);
        }
        let Some(next) = tokens.get(i) else { break };
        if !next.is_one_of(&[";", ",", "=", "{", "["]) {
            break;
        }
        variables.push(ThreadgroupVariable { name, end: i });
        if !next.is(",") {
            break;
        }
        i += 1;
    }
    variables
}

fn edit_threadgroup_variables(tokens: &[Token<'_>], outline: &Outline, edits: &mut Vec<Edit>) {
    for body in outline.functions.iter().filter_map(|function| function.body.clone()) {
        for at in body.filter(|at| tokens[*at].is("threadgroup")) {
            for variable in threadgroup_variables(tokens, at) {
                let name = &tokens[variable.name].span;
                edits.push(Edit { span: name.start..name.start, text: "(&".to_owned() });
                edits.push(Edit { span: name.end..name.end, text: ")".to_owned() });
                let start = tokens[variable.end - 1].span.end;
                // An initialiser goes: rules have a word on it.
                let mut behind = variable.end;
                while tokens.get(behind).is_some_and(|token| !token.is_one_of(&[";", ",", "["])) {
                    let opens = tokens[behind].is_one_of(&["(", "{"]);
                    behind = if opens { after_closing(tokens, behind) } else { behind + 1 };
                }
                let end = tokens[behind - 1].span.end;
                edits.push(Edit { span: start..end, text: "=msl::threadgroup_memory()".to_owned() });
            }
        }
    }
}

/// Whether a name is that of a vector type, such as `float4` or `packed_uchar3`.
pub fn is_vector_name(name: &str) -> bool {
    let name = name.strip_prefix("packed_").unwrap_or(name);
    let Some(scalar) = name.strip_suffix(['2', '3', '4']) else { return false };
    matches!(
        scalar,
        "bool"
            | "char"
            | "uchar"
            | "short"
            | "ushort"
            | "int"
            | "uint"
            | "long"
            | "ulong"
            | "half"
            | "bfloat"
            | "float"
    )
}

fn edit_vector_constructors(tokens: &[Token<'_>], outline: &Outline, edits: &mut Vec<Edit>) {
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.kind == Kind::Word) {
        let mut end = at + 1;
        if token.is("vec") && tokens.get(end).is_some_and(|next| next.is("<")) {
            let Some(after) = after_angle(tokens, end) else { continue };
            end = after;
        } else if !is_vector_name(token.text) && !outline.aliases.contains(token.text) {
            continue;
        }
        edit_declared_vector(tokens, outline, at..end, edits);
        let called =
            tokens.get(end).is_some_and(|next| next.is("(")) && !tokens.get(end + 1).is_some_and(|t| t.is(")"));
        if !called || starts_with_type(&tokens[end + 1..], outline) {
            continue;
        }
        // The name may be qualified, but not by a template: `metal::float4(…)`.
        let mut start = at;
        while start >= 2 && tokens[start - 1].is("::") && tokens[start - 2].kind == Kind::Word {
            start -= 2;
        }
        let before = start.checked_sub(1).map_or("", |before| tokens[before].text);
        let follows_word = start > 0 && tokens[start - 1].kind == Kind::Word;
        let expression = match before {
            "return" | "else" | "case" => true,
            "~" | "::" | "." | "->" | ">" => false,
            _ => !follows_word,
        };
        if expression {
            edits
                .push(Edit { span: tokens[start].span.start..tokens[start].span.start, text: "msl::make<".to_owned() });
            edits.push(Edit { span: tokens[end - 1].span.end..tokens[end - 1].span.end, text: ">".to_owned() });
        }
    }
}

/// `short2 offset(a, b);` becomes `short2 offset=msl::make<short2>(a, b);`.
fn edit_declared_vector(tokens: &[Token<'_>], outline: &Outline, type_name: Range<usize>, edits: &mut Vec<Edit>) {
    let open = type_name.end + 1;
    let vector = !outline.aliases.contains(tokens[type_name.start].text);
    let declares = tokens.get(open).is_some_and(|token| token.is("(")) && tokens[open - 1].kind == Kind::Word;
    let in_body = || outline.functions.iter().any(|f| f.body.as_ref().is_some_and(|body| body.contains(&open)));
    if !vector || !declares || !tokens.get(after_closing(tokens, open)).is_some_and(|token| token.is(";")) || !in_body()
    {
        return;
    }
    if !starts_with_type(&tokens[open + 1..], outline) {
        let spelled: String = tokens[type_name].iter().map(|token| token.text).collect();
        let at = tokens[open].span.start;
        edits.push(Edit { span: at..at, text: format!("=msl::make<{spelled}>") });
    }
}

/// Whether a parenthesis opens parameters instead of arguments: `float4(float4)` is a function type.
fn starts_with_type(tokens: &[Token<'_>], outline: &Outline) -> bool {
    let Some(first) = tokens.first() else { return false };
    let names_type = is_vector_name(first.text)
        || outline.types.contains(first.text)
        || matches!(
            first.text,
            "const" | "device" | "constant" | "threadgroup" | "thread" | "float" | "int" | "uint" | "half"
        );
    names_type
        && tokens.get(1).is_some_and(|second| second.kind == Kind::Word || second.is_one_of(&[",", ")", "*", "&"]))
}

/// A member function without an address space is one for objects in thread memory, and only for these.
///
/// To clang it would be one for generic memory, and its members would not bind to `thread T &`. Constructors and
/// conversions stay generic: for clang a temporary lies in no address space.
fn edit_member_qualifiers(tokens: &[Token<'_>], outline: &Outline, edits: &mut Vec<Edit>) {
    for function in outline.functions.iter().filter(|function| is_method(tokens, outline, function)) {
        let qualifiers = || {
            let is_qualifier = |at: &usize| tokens[*at].is_one_of(&["const", "volatile"]) || is_space(&tokens[*at]);
            function.tail.clone().take_while(is_qualifier)
        };
        let name = &tokens[function.name];
        let conversion = name.is("operator") && tokens[function.name + 1].kind == Kind::Word;
        let constructor = conversion || outline.types.contains(name.text);
        for at in qualifiers() {
            match tokens[at].text {
                "thread" if constructor => edits.push(Edit { span: tokens[at].span.clone(), text: String::new() }),
                "constant" => edits.push(Edit { span: tokens[at].span.clone(), text: "__constant".to_owned() }),
                _ => {}
            }
        }
        if !constructor && !qualifiers().any(|at| is_space(&tokens[at])) {
            let behind = qualifiers().last().unwrap_or(function.tail.start - 1);
            let end = tokens[behind].span.end;
            edits.push(Edit { span: end..end, text: " thread".to_owned() });
        }
    }
}

fn is_space(token: &Token<'_>) -> bool {
    token.is_one_of(&["device", "constant", "threadgroup", "thread"])
}

/// Whether a function is a member that has a `this`, also where it is defined outside its class.
fn is_method(tokens: &[Token<'_>], outline: &Outline, function: &Function) -> bool {
    let outside = |function: &Function| {
        let name = function.name;
        name >= 2
            && tokens[name - 1].is("::")
            && (tokens[name - 2].is(">") || outline.types.contains(tokens[name - 2].text))
    };
    let says_static =
        |function: &Function| tokens[function.head.clone()].iter().any(|t| t.is_one_of(&["static", "friend"]));
    let same_name = |other: &&Function| other.member && tokens[other.name].text == tokens[function.name].text;
    (function.member || (outside(function) && !function.instantiation))
        && !says_static(function)
        && !(outside(function) && outline.functions.iter().filter(same_name).any(says_static))
        && !function.parameters.start.checked_sub(3).is_some_and(|at| tokens[at].is("~"))
}

fn edit_literals(tokens: &[Token<'_>], edits: &mut Vec<Edit>) {
    for token in tokens.iter().filter(|token| token.kind == Kind::Number && !token.text.starts_with("0x")) {
        let half = token.text.strip_suffix(['h', 'H']).map(|number| ("half", number));
        let bfloat = token.text.strip_suffix("bf").or_else(|| token.text.strip_suffix("BF")).map(|n| ("bfloat", n));
        if let Some((name, number)) = half.or(bfloat) {
            edits.push(Edit { span: token.span.clone(), text: format!("{name}({number})") });
        }
    }
}

/// A function as an argument of a template: clang puts what such a pointer points to in generic memory, where no
/// function is; a reference does what is wanted.
fn edit_function_parameters(tokens: &[Token<'_>], edits: &mut Vec<Edit>) {
    for at in (0..tokens.len()).filter(|at| tokens[*at].is("template")) {
        let Some(after) = after_angle(tokens, at + 1).filter(|_| tokens[at + 1].is("<")) else { continue };
        // Also behind an alias: `template <class T> using F = void (*)(T);`.
        let alias = tokens.get(after).is_some_and(|token| token.is("using"));
        let end = if alias { (after..tokens.len()).find(|i| tokens[*i].is(";")).unwrap_or(after) } else { after };
        for star in (at..end).filter(|star| tokens[*star].is("*") && tokens[*star - 1].is("(")) {
            let next = |distance: usize, text: &str| tokens.get(star + distance).is_some_and(|token| token.is(text));
            if next(1, ")") && next(2, "(") || next(2, ")") && next(3, "(") {
                edits.push(Edit { span: tokens[star].span.clone(), text: "&".to_owned() });
            }
        }
    }
}

/// Two things that clang has no word for: `coherent(device)`, and the definition of a static member that has its value
/// in the class.
fn edit_declarations(tokens: &[Token<'_>], outline: &Outline, edits: &mut Vec<Edit>) {
    for at in (0..tokens.len().saturating_sub(3)).filter(|at| tokens[*at].is("coherent") && tokens[at + 1].is("(")) {
        let after = after_closing(tokens, at + 1);
        edits.push(Edit { span: tokens[at].span.start..tokens[after - 1].span.end, text: String::new() });
    }
    for global in &outline.globals {
        let declaration = &tokens[global.clone()];
        let name = declaration.iter().position(|token| token.is("[")).unwrap_or(declaration.len());
        let member = name >= 2 && declaration[name - 2].is("::");
        if member && !declaration.iter().any(|token| token.is("=")) {
            edits.push(Edit {
                span: tokens[global.start].span.start..tokens[global.end - 1].span.end,
                text: String::new(),
            });
        }
    }
}
