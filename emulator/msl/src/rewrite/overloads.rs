//! Without address spaces, overloads that differ in nothing else are the same function: the first one stays.

use std::collections::HashMap;
use std::ops::Range;

use super::items::{Item, ItemKind, walk};
use super::source::Source;
use super::words::ADDRESS_SPACES;

/// Takes out what became a repetition: functions, constructors, operators, and specialisations of classes.
pub fn fold(source: &mut Source<'_>, items: &[Item]) {
    let mut seen = HashMap::<String, bool>::new();
    let mut repeated = Vec::new();
    walk(items, source, "", &mut |item, scope| {
        if is_default_elsewhere(source, item) {
            repeated.push(item.all.clone());
        }
        let Some(signature) = signature(source, item) else { return };
        let has_space = item.head.clone().any(|i| ADDRESS_SPACES.contains(&source.text(i)));
        match seen.get(&format!("{scope}{signature}")) {
            // A repetition without address spaces is the user's mistake: clang shall report it.
            Some(first_has_space) if has_space || *first_has_space => repeated.push(item.all.clone()),
            Some(_) => {}
            None => {
                seen.insert(format!("{scope}{signature}"), has_space);
            }
        }
    });
    for all in repeated {
        source.erase(all);
    }
}

/// `X() threadgroup = default;`: C++ has one default constructor for all, and it needs no mention.
fn is_default_elsewhere(source: &Source<'_>, item: &Item) -> bool {
    let end = item.head.end;
    item.kind == ItemKind::Other
        && source.is(end - 1, "default")
        && source.is(end - 2, "=")
        && matches!(source.text(end - 3), "threadgroup" | "device" | "constant")
        && source.is(end - 4, ")")
        && source.is(end - 5, "(")
}

/// What remains of a declaration's head that tells it from others; nothing for what cannot be overloaded.
fn signature(source: &Source<'_>, item: &Item) -> Option<String> {
    let head = item.head.clone();
    match item.kind {
        ItemKind::Function => Some(normalised(source, head.start..end_of_signature(source, head))),
        // A specialisation: `template <..> struct name<..>`.
        ItemKind::Class if source.is(head.start, "template") && source.is(head.end - 1, ">") => {
            Some(normalised(source, head))
        }
        _ => None,
    }
}

/// Constructors: their initialisers do not belong to the signature.
fn end_of_signature(source: &Source<'_>, head: Range<usize>) -> usize {
    let mut at = head.start;
    let mut parameters = false;
    while at < head.end {
        match source.text(at) {
            ":" if parameters => return at,
            "(" => parameters = true,
            _ => {}
        }
        at = source.after_group(at);
    }
    head.end
}

fn normalised(source: &Source<'_>, range: Range<usize>) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut i = range.start;
    while i < range.end {
        let word = source.text(i);
        if source.is_attribute(i) {
            i = source.closing(i) + 1;
            continue;
        }
        let dropped = matches!(word, "METAL_FUNC" | "inline" | "static") || is_parameter_name(source, i, range.end);
        let word = if word == "constant" { "const" } else { word };
        let repeated = word == "const" && words.last() == Some(&"const");
        if !(dropped || repeated || ADDRESS_SPACES.contains(&word)) {
            words.push(word);
        }
        i += 1;
    }
    words.join(" ")
}

/// A word behind a type and before `,` or `)` names a parameter. (Built-in types may follow a word: `unsigned int`.)
fn is_parameter_name(source: &Source<'_>, i: usize, end: usize) -> bool {
    const TYPES: [&str; 9] = ["int", "char", "short", "long", "float", "half", "bool", "unsigned", "const"];
    const NO_TYPES: [&str; 5] = ["class", "typename", "const", "operator", "constant"];
    let before = source.text(i.wrapping_sub(1));
    let behind_type =
        matches!(before, "*" | "&" | ">") || (source.is_word(i.wrapping_sub(1)) && !NO_TYPES.contains(&before));
    i + 1 < end
        && source.is_word(i)
        && !TYPES.contains(&source.text(i))
        && matches!(source.text(i + 1), "," | ")")
        && behind_type
        && !ADDRESS_SPACES.contains(&before)
}
