//! The declarations of a source: namespaces and classes with what they hold, functions, and all others.

use std::ops::Range;

use super::source::Source;

/// What is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// `namespace x { .. }`
    Namespace,
    /// `struct x { .. };` and its like.
    Class,
    /// A function with its body.
    Function,
    /// A variable, an alias, a declaration without a body, an explicit instantiation.
    Other,
}

/// A declaration.
#[derive(Debug)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// From its first token to before its body or its semicolon.
    pub head: Range<usize>,
    /// All of it.
    pub all: Range<usize>,
    /// What a namespace or a class holds.
    pub children: Vec<Item>,
}

/// The declarations in a range.
pub fn parse(source: &Source<'_>, range: Range<usize>) -> Vec<Item> {
    let mut items = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let access = matches!(source.text(at), "public" | "private" | "protected") && source.is(at + 1, ":");
        if access {
            at += 2;
        } else if matches!(source.text(at), ";" | "}") {
            at += 1;
        } else {
            let item = parse_item(source, at, range.end);
            at = item.all.end;
            items.push(item);
        }
    }
    items
}

fn parse_item(source: &Source<'_>, start: usize, end: usize) -> Item {
    let mut at = start;
    let (mut class, mut namespace, mut parameters, mut value, mut initialisers) = (false, false, false, false, false);
    while at < end {
        match source.text(at) {
            ";" => return Item { kind: ItemKind::Other, head: start..at, all: start..at + 1, children: Vec::new() },
            "namespace" => namespace = true,
            "struct" | "class" | "union" | "enum" if !parameters => class = true,
            "alignas" | "__attribute__" | "decltype" if source.is(at + 1, "(") => at = source.closing(at + 1),
            "operator" => {
                // The name of an operator may look like a bracket or an assignment.
                at += if source.is(at + 1, "(") { 2 } else { 1 };
                while at + 1 < end && !source.is(at + 1, "(") {
                    at += 1;
                }
            }
            "(" => {
                parameters = true;
                at = source.closing(at);
            }
            "[" => at = source.closing(at),
            "<" => at = source.closing_angle(at).unwrap_or(at),
            "=" => value = true,
            ":" => initialisers = parameters,
            "{" => {
                let close = source.closing(at).min(end.saturating_sub(1));
                let body = |kind, all_end| Item {
                    kind,
                    head: start..at,
                    all: start..all_end,
                    children: if kind == ItemKind::Function { Vec::new() } else { parse(source, at + 1..close) },
                };
                if namespace {
                    return body(ItemKind::Namespace, close + 1);
                }
                if class && !parameters && !value {
                    let semicolon = (close..end).find(|i| source.is(*i, ";")).unwrap_or(close);
                    return body(ItemKind::Class, semicolon + 1);
                }
                // `: member{value} {`: braces behind a member's name are no body.
                let member = initialisers && (source.is_word(at - 1) || source.is(at - 1, ">"));
                if parameters && !value && !member {
                    return body(ItemKind::Function, close + 1);
                }
                at = close;
            }
            _ => {}
        }
        at += 1;
    }
    Item { kind: ItemKind::Other, head: start..end, all: start..end, children: Vec::new() }
}

/// Calls `visit` for each item with the namespaces and classes around it (`a::b::`), outer ones first.
pub fn walk<'i>(items: &'i [Item], source: &Source<'_>, scope: &str, visit: &mut dyn FnMut(&'i Item, &str)) {
    for item in items {
        visit(item, scope);
        if matches!(item.kind, ItemKind::Namespace | ItemKind::Class) {
            let inner = format!("{scope}{}", scope_name(source, item));
            walk(&item.children, source, &inner, visit);
        }
    }
}

/// `name::` of a namespace or class with its template arguments; nothing for a namespace without a name.
fn scope_name(source: &Source<'_>, item: &Item) -> String {
    let keyword =
        item.head.clone().rfind(|i| matches!(source.text(*i), "namespace" | "struct" | "class" | "union" | "enum"));
    let name = keyword.map_or(String::new(), |at| source.code(at + 1..item.head.end));
    if name.is_empty() { name } else { format!("{}::", name.replace(' ', "")) }
}
