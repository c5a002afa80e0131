//! Function constants, and program-scope constants that are computed from them.

use std::collections::HashSet;

use super::items::{Item, ItemKind, walk};
use super::source::Source;

/// A `[[function_constant(index)]]`.
#[derive(Debug)]
pub struct Constant {
    /// Its name as the source has it.
    pub name: String,
    /// Its name with the namespaces around it.
    pub qualified: String,
    /// Its type.
    pub type_name: String,
    /// Its index, an expression.
    pub index: String,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Constants {
    /// The function constants.
    pub given: Vec<Constant>,
    /// The functions that compute the others, in order.
    pub derivations: Vec<String>,
}

/// What the variable is called that says whether a constant has a value.
pub const DEFINED: &str = "emulator_defined_";

const QUALIFIERS: [&str; 5] = ["static", "const", "constant", "constexpr", "inline"];

/// Makes variables of them that each launch sets.
pub fn take(source: &mut Source<'_>, items: &[Item]) -> Constants {
    replace_questions(source);
    let mut found = Constants::default();
    let mut names = HashSet::new();
    let mut declarations = Vec::new();
    walk(items, source, "", &mut |item, scope| {
        if item.kind == ItemKind::Other {
            declarations.push((item.head.clone(), scope.to_owned()));
        }
    });
    for (head, scope) in declarations {
        let attribute =
            source.attributes(head.clone()).into_iter().find(|attribute| attribute.name == "function_constant");
        let end_of_name = match &attribute {
            Some(_) => head.clone().find(|i| source.is_attribute(*i)),
            None => derived(source, head.clone(), &names),
        };
        let Some(end_of_name) = end_of_name.filter(|end| *end > head.start + 1) else { continue };
        let name = source.text(end_of_name - 1).to_owned();
        let kept: Vec<usize> =
            (head.start..end_of_name - 1).filter(|i| !QUALIFIERS.contains(&source.text(*i))).collect();
        let type_name = kept.iter().map(|i| source.text(*i)).collect::<Vec<_>>().join(" ");
        let declaration = match attribute {
            Some(attribute) => {
                let index = source.code(attribute.arguments);
                found.given.push(Constant {
                    name: name.clone(),
                    qualified: format!("{scope}{name}"),
                    type_name: type_name.clone(),
                    index,
                });
                format!("static {type_name} {name}; static bool {DEFINED}{name}")
            }
            None => {
                let value = source.code(end_of_name + 1..head.end);
                found.derivations.push(format!("{scope}emulator_derive_{name}"));
                format!("static {type_name} {name}; static void emulator_derive_{name}() {{ {name} = {value}; }}")
            }
        };
        names.insert(name);
        source.erase(head.clone());
        source.replace(head.start, declaration);
    }
    found
}

/// The `=` of a program-scope constant whose value mentions a function constant.
fn derived(source: &Source<'_>, head: std::ops::Range<usize>, names: &HashSet<String>) -> Option<usize> {
    let equals = head.clone().find(|i| source.is(*i, "="))?;
    let constant = (head.start..equals).any(|i| source.is(i, "constant"));
    let constexpr = (head.start..equals).any(|i| source.is(i, "constexpr"));
    let mentions = (equals..head.end).any(|i| names.contains(source.text(i)) || source.text(i).starts_with(DEFINED));
    (constant && !constexpr && mentions).then_some(equals)
}

/// `is_function_constant_defined(name)` reads the variable that says so.
fn replace_questions(source: &mut Source<'_>) {
    for i in 0..source.len() {
        if source.is(i, "is_function_constant_defined") && source.is(i + 1, "(") {
            let close = source.closing(i + 1);
            let name = format!("{DEFINED}{}", source.text(close - 1));
            source.erase(i..close + 1);
            source.replace(i, name);
        }
    }
}
