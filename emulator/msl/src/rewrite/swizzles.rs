//! Swizzles become calls: `v.bgr` is `v.get_zyx()`, and `v.xy += w` is `v.put(Components<0, 1>()) += w`.

use std::collections::HashSet;

use super::source::Source;

/// Rewrites all swizzles, in one of the two sets of letters.
///
/// A name that also stands without a dot somewhere may be a member that the source declares: it is left alone, and is
/// a property if it is a swizzle after all (include/metal/vector.h).
pub fn make_calls(source: &mut Source<'_>) {
    let declared: HashSet<String> = (0..source.len())
        .filter(|i| source.is_word(*i) && !is_member(source, *i))
        .map(|i| source.text(i).to_owned())
        .collect();
    for i in 0..source.len() {
        let name = source.text(i);
        if !is_member(source, i) || declared.contains(name) {
            continue;
        }
        let Some(components) = components(name) else { continue };
        let first_names: String = components.iter().map(|component| char::from(b"xyzw"[*component])).collect();
        if components.len() == 1 {
            source.replace(i, first_names);
        } else if is_written(source, i) {
            let numbers: Vec<String> = components.iter().map(usize::to_string).collect();
            source.replace(i, format!("put(emulator::Components<{}>())", numbers.join(", ")));
        } else {
            source.replace(i, format!("get_{first_names}()"));
        }
    }
}

fn is_member(source: &Source<'_>, i: usize) -> bool {
    i > 0 && matches!(source.text(i - 1), "." | "->")
}

/// The indices of the components that a swizzle names.
fn components(name: &str) -> Option<Vec<usize>> {
    let by = |letters: &str| name.chars().map(|letter| letters.find(letter)).collect::<Option<Vec<usize>>>();
    if (1..=4).contains(&name.len()) { by("xyzw").or_else(|| by("rgba")) } else { None }
}

fn is_written(source: &Source<'_>, i: usize) -> bool {
    let shift =
        matches!((source.text(i + 1), source.text(i + 2), source.text(i + 3)), ("<", "<", "=") | (">", ">", "="));
    shift || matches!(source.text(i + 1), "=" | "+=" | "-=" | "*=" | "/=" | "%=" | "&=" | "|=" | "^=")
}
