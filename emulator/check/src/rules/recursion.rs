//! Functions that call themselves, and functions that call kernels.
//!
//! The specification (1.5.4) has recursion in compute functions from Metal 2.4 on and never before; so it is an error
//! in older versions and a warning in newer ones. A call is certain if the name has one definition, stands alone, and
//! is given no template arguments: overloads and templates that end at compile time are left alone.

use std::collections::{HashMap, HashSet};

use super::{Source, Violation};
use crate::outline::Function;

/// Checks calls between the functions of the source.
pub fn check(source: &Source<'_>, found: &mut Vec<Violation>) {
    let name = |function: &Function| source.tokens[function.name].text;
    let mut definitions = HashMap::<&str, Vec<&Function>>::new();
    for function in source.outline.functions.iter().filter(|function| function.body.is_some()) {
        definitions.entry(name(function)).or_default().push(function);
    }
    let mut calls = HashMap::<&str, Vec<(usize, &str)>>::new();
    for function in source.outline.functions.iter().filter(|function| !function.member) {
        for at in function.body.clone().into_iter().flatten() {
            let callee = source.tokens[at].text;
            let Some(targets) = definitions.get(callee) else { continue };
            let plain = !matches!(source.before(at), "." | "->" | "::" | "struct");
            let called = source.after(at, 1) == "(";
            if plain && (called || source.after(at, 1) == "<") && targets.iter().all(|target| target.kernel) {
                let message = format!("a function cannot call the kernel '{callee}'");
                found.push(Violation::error(at, "kernel-call", message));
            }
            if plain && called && targets.len() == 1 && !targets[0].member && definitions[name(function)].len() == 1 {
                calls.entry(name(function)).or_default().push((at, callee));
            }
        }
    }
    for (caller, callees) in &calls {
        for (at, callee) in callees {
            if reaches(&calls, callee, caller) {
                found.push(recursion(source, *at, caller, callee));
            }
        }
    }
}

fn recursion(source: &Source<'_>, at: usize, caller: &str, callee: &str) -> Violation {
    let what = if caller == callee {
        format!("'{caller}' calls itself")
    } else {
        format!("'{caller}' calls '{callee}', which leads back to '{caller}'")
    };
    if source.is_version(2, 4) {
        let message = format!("recursion: {what}; from Metal 2.4 on kernels may, at the price of a stack in memory");
        Violation::warning(at, "recursion", message)
    } else {
        Violation::error(at, "recursion", format!("recursion needs Metal 2.4 or later: {what}"))
    }
}

/// Whether calls lead from one function to another.
fn reaches(calls: &HashMap<&str, Vec<(usize, &str)>>, from: &str, to: &str) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![from];
    while let Some(name) = open.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            open.extend(calls.get(name).into_iter().flatten().map(|(_, callee)| *callee));
        }
    }
    false
}
