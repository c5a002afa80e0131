//! The outline of a source: its functions, its variables, and the names that are types.
//!
//! No parser of C++ is needed for the rules, only where declarations begin and end.

use std::collections::HashSet;
use std::ops::Range;

use crate::token::{Kind, Token, after_angle, after_closing, split_at_commas};

/// A function, as declared or defined. Ranges count tokens.
#[derive(Debug)]
pub struct Function {
    /// The index of its name.
    pub name: usize,
    /// Everything before the name.
    pub head: Range<usize>,
    /// Between the parentheses.
    pub parameters: Range<usize>,
    /// Between the closing parenthesis and the body: qualifiers and initialisers.
    pub tail: Range<usize>,
    /// Between the braces; nothing for a declaration.
    pub body: Option<Range<usize>>,
    /// Whether it is a member of a class.
    pub member: bool,
    /// Whether it is a kernel.
    pub kernel: bool,
    /// Whether it instantiates a template explicitly.
    pub instantiation: bool,
}

/// What a source declares.
#[derive(Debug, Default)]
pub struct Outline {
    /// Functions, in order.
    pub functions: Vec<Function>,
    /// Declarations of variables in a namespace.
    pub globals: Vec<Range<usize>>,
    /// Names that stand for types: classes, enumerations, aliases and parameters of templates.
    pub types: HashSet<String>,
    /// Of these, the names that may stand for a vector.
    pub aliases: HashSet<String>,
}

impl Outline {
    /// Whether a token stands among the parameters of a function.
    pub fn is_parameter(&self, token: usize) -> bool {
        self.functions.iter().any(|function| function.parameters.contains(&token))
    }
}

/// Reads the outline of a token sequence.
pub fn outline(tokens: &[Token<'_>]) -> Outline {
    let mut reader = Reader { tokens, outline: Outline::default() };
    reader.names();
    reader.scope(0..tokens.len(), false);
    reader.outline
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    outline: Outline,
}

impl Reader<'_> {
    /// Collects the names of types wherever they are declared.
    fn names(&mut self) {
        let mut values = HashSet::new();
        for (i, token) in self.tokens.iter().enumerate() {
            let Some(next) = self.tokens.get(i + 1) else { break };
            match token.text {
                "struct" | "class" | "union" | "enum" | "typename" if next.kind == Kind::Word => {
                    let name = if next.is("class") { self.tokens.get(i + 2) } else { Some(next) };
                    let Some(name) = name.filter(|name| name.kind == Kind::Word) else { continue };
                    let before = i.checked_sub(1).map_or("", |before| self.tokens[before].text);
                    let parameter = matches!(token.text, "class" | "typename") && matches!(before, "<" | ",");
                    let after = self.tokens.get(i + 2).map_or("", |after| after.text);
                    if token.is("typename") && !parameter || parameter && after == "::" {
                        continue;
                    }
                    self.outline.types.insert(name.text.to_owned());
                    if parameter {
                        self.outline.aliases.insert(name.text.to_owned());
                    }
                }
                "using" if next.kind == Kind::Word && self.tokens.get(i + 2).is_some_and(|third| third.is("=")) => {
                    self.outline.types.insert(next.text.to_owned());
                    self.outline.aliases.insert(next.text.to_owned());
                }
                "typedef" => {
                    let end = self.statement_end(i);
                    let name = self.tokens[i..end].iter().rev().find(|token| token.kind == Kind::Word);
                    if let Some(name) = name.filter(|_| !self.tokens[i..end].iter().any(|token| token.is("("))) {
                        self.outline.types.insert(name.text.to_owned());
                        self.outline.aliases.insert(name.text.to_owned());
                    }
                }
                // A name that is declared as a value anywhere is not taken for a type.
                "float" | "int" | "uint" | "short" | "ushort" | "size_t" | "bool" | "auto"
                    if next.kind == Kind::Word
                        && self
                            .tokens
                            .get(i + 2)
                            .is_some_and(|third| third.is_one_of(&["=", ";", ",", ")", "[", ">"])) =>
                {
                    let before = self.tokens[..i].iter().rev().take(8).any(|token| token.is("typedef"));
                    if !before {
                        values.insert(next.text.to_owned());
                    }
                }
                _ => {}
            }
        }
        self.outline.types.retain(|name| !values.contains(name));
        self.outline.aliases.retain(|name| !values.contains(name));
    }

    /// The index of the `;` that ends the statement at `from`.
    fn statement_end(&self, from: usize) -> usize {
        let mut i = from;
        while i < self.tokens.len() && !self.tokens[i].is(";") {
            i = if self.tokens[i].is_one_of(&["(", "[", "{"]) { after_closing(self.tokens, i) } else { i + 1 };
        }
        i
    }

    /// Reads the declarations of a namespace or a class.
    fn scope(&mut self, range: Range<usize>, class: bool) {
        let mut start = range.start;
        while start < range.end {
            let token = &self.tokens[start];
            let label = token.is_one_of(&["public", "private", "protected"]);
            start = if token.is(";")
                || token.is("}")
                || (label && self.tokens[start + 1..].first().is_some_and(|t| t.is(":")))
            {
                start + 1 + usize::from(label)
            } else {
                self.declaration(start, range.end, class)
            };
        }
    }

    /// Reads one declaration and gives the index behind it.
    fn declaration(&mut self, start: usize, end: usize, class: bool) -> usize {
        let mut i = start;
        let mut type_definition = false;
        let mut assigned = false;
        if self.tokens[i].is_one_of(&["using", "typedef", "static_assert", "friend", "_Static_assert"]) {
            return (self.statement_end(start) + 1).min(end);
        }
        let instantiation = self.tokens[i].is("template") && !self.tokens.get(i + 1).is_some_and(|t| t.is("<"));
        while i < end {
            let token = &self.tokens[i];
            match token.text {
                "namespace" | "extern" if self.opens_namespace(i) => {
                    let open = (i..end).find(|at| self.tokens[*at].is("{")).unwrap_or(end);
                    let after = after_closing(self.tokens, open).min(end);
                    self.scope(open + 1..after.saturating_sub(1).max(open + 1), false);
                    return after;
                }
                "struct" | "class" | "union" | "enum" => {
                    type_definition = true;
                    i += 1;
                }
                "operator" if !assigned => {
                    let open = self.operator_parameters(i);
                    return self.function(start, i, open, end, class, instantiation);
                }
                "__attribute__" | "alignas" | "decltype" => i = after_closing(self.tokens, i + 1),
                "[" => i = after_closing(self.tokens, i),
                "<" if !assigned => i = after_angle(self.tokens, i).unwrap_or(i + 1),
                "=" => {
                    assigned = true;
                    i += 1;
                }
                "(" if assigned => i = after_closing(self.tokens, i),
                "(" if !type_definition || self.is_function_head(start, i) => {
                    let name = self.name_before(i);
                    return self.function(start, name, i, end, class, instantiation);
                }
                "(" => i = after_closing(self.tokens, i),
                "{" if type_definition && !assigned => {
                    let after = after_closing(self.tokens, i).min(end);
                    if !self.tokens[start..i].iter().any(|token| token.is("enum")) {
                        self.scope(i + 1..after.saturating_sub(1), true);
                    }
                    i = after;
                }
                "{" => i = after_closing(self.tokens, i),
                ";" => {
                    self.variable(start..i, class, type_definition, instantiation);
                    return i + 1;
                }
                _ => i += 1,
            }
        }
        end
    }

    fn opens_namespace(&self, at: usize) -> bool {
        let next = self.tokens.get(at + 1);
        self.tokens[at].is("namespace") || next.is_some_and(|next| next.kind == Kind::Text)
    }

    /// `struct S f(...)`: a type is named, not defined, if a second name stands before the parenthesis.
    fn is_function_head(&self, start: usize, open: usize) -> bool {
        let words = self.tokens[start..open].iter().filter(|token| token.kind == Kind::Word).count();
        words > 2 && self.tokens[open - 1].kind == Kind::Word
    }

    /// The name that stands before a parenthesis, also with template arguments: `f<float>(`.
    fn name_before(&self, open: usize) -> usize {
        let mut at = open.saturating_sub(1);
        if self.tokens[at].is(">") {
            let mut depth = 0usize;
            loop {
                match self.tokens[at].text {
                    ">" => depth += 1,
                    "<" => depth -= 1,
                    _ => {}
                }
                if depth == 0 || at == 0 {
                    break;
                }
                at -= 1;
            }
            at = at.saturating_sub(1);
        }
        at
    }

    /// The parenthesis of the parameters of `operator()(…)`, `operator+(…)` or `operator float(…)`.
    fn operator_parameters(&self, operator: usize) -> usize {
        let mut at = operator + 1;
        if self.tokens.get(at).is_some_and(|token| token.is("(")) {
            at += 2;
        }
        while at < self.tokens.len() && !self.tokens[at].is_one_of(&["(", ";"]) {
            at += 1;
        }
        at
    }

    /// Reads a function from its parentheses on.
    fn function(
        &mut self,
        start: usize,
        name: usize,
        open: usize,
        end: usize,
        member: bool,
        instantiation: bool,
    ) -> usize {
        let close = after_closing(self.tokens, open).min(end);
        let mut i = close;
        let mut initialisers = false;
        let mut body = None;
        while i < end {
            match self.tokens[i].text {
                ";" => break,
                ":" => {
                    initialisers = true;
                    i += 1;
                }
                // In a list of initialisers a brace right behind a name initialises that member.
                "{" if initialisers && (self.tokens[i - 1].kind == Kind::Word || self.tokens[i - 1].is(">")) => {
                    i = after_closing(self.tokens, i);
                }
                "{" => {
                    body = Some(i);
                    break;
                }
                "(" | "[" => i = after_closing(self.tokens, i),
                _ => i += 1,
            }
        }
        let tail = close..i;
        let after = match body {
            Some(open) => after_closing(self.tokens, open).min(end),
            None => (i + 1).min(end),
        };
        let head = start..name;
        let outer = self.outside_parentheses(head.clone());
        let kernel = outer.iter().any(|at| self.tokens[*at].is("kernel"));
        self.outline.functions.push(Function {
            name,
            head,
            parameters: open + 1..close.saturating_sub(1).max(open + 1),
            tail,
            body: body.map(|open| open + 1..after.saturating_sub(1).max(open + 1)),
            member,
            kernel,
            instantiation,
        });
        after
    }

    fn outside_parentheses(&self, range: Range<usize>) -> Vec<usize> {
        let mut outer = Vec::new();
        let mut i = range.start;
        while i < range.end {
            if self.tokens[i].is("(") {
                i = after_closing(self.tokens, i);
            } else {
                outer.push(i);
                i += 1;
            }
        }
        outer
    }

    /// Files a declaration without parentheses under the variables, if it is one.
    fn variable(&mut self, range: Range<usize>, class: bool, type_definition: bool, instantiation: bool) {
        let tokens = &self.tokens[range.clone()];
        let words = tokens.iter().filter(|token| token.kind == Kind::Word).count();
        let concept = tokens.iter().any(|token| token.is_one_of(&["using", "typedef", "extern", "concept", "friend"]));
        if !class && !type_definition && !concept && !instantiation && words >= 2 {
            self.outline.globals.push(range);
        }
    }
}

/// One attribute in double brackets: its name and its arguments.
#[derive(Debug)]
pub struct Attribute {
    /// The index of its name; for `clang::unroll` that of the last part.
    pub name: usize,
    /// The tokens between its parentheses.
    pub arguments: Range<usize>,
    /// Whether its name has a namespace, as in `clang::unroll`.
    pub scoped: bool,
}

/// Where `[[` begins at this index, the index just past the `]]`.
pub fn attribute_end(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let (first, second) = (tokens.get(at)?, tokens.get(at + 1)?);
    if !first.is("[") || !second.is("[") || first.span.end != second.span.start && first.line != second.line {
        return None;
    }
    // `x[[] { … }()]` would be a lambda as an index: attributes begin with a word or are empty.
    let inner = tokens.get(at + 2)?;
    (inner.kind == Kind::Word || inner.is("]")).then(|| after_closing(tokens, at))
}

/// All attributes in a range.
pub fn attributes(tokens: &[Token<'_>], range: Range<usize>) -> Vec<Attribute> {
    let mut found = Vec::new();
    let mut i = range.start;
    while i < range.end {
        let Some(after) = attribute_end(tokens, i) else {
            i += 1;
            continue;
        };
        for part in split_at_commas(tokens, i + 2..after.saturating_sub(2)) {
            let open = part.clone().find(|at| tokens[*at].is("("));
            let names = part.start..open.unwrap_or(part.end);
            let Some(name) = names.clone().rfind(|at| tokens[*at].kind == Kind::Word) else { continue };
            let arguments = open.map_or(part.end..part.end, |open| open + 1..after_closing(tokens, open) - 1);
            found.push(Attribute { name, arguments, scoped: tokens[names].iter().any(|token| token.is("::")) });
        }
        i = after;
    }
    found
}
