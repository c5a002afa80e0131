//! Threadgroup variables become static ones: one threadgroup runs at a time.

use super::source::Source;

/// Declares every `threadgroup` variable static, in a section that takes no room in the file.
pub fn make_static(source: &mut Source<'_>) {
    for i in 0..source.len() {
        if source.is(i, "threadgroup") && starts_statement(source, i) && declares_variable(source, i + 1) {
            source.replace(i, "EMULATOR_THREADGROUP");
        }
    }
}

fn starts_statement(source: &Source<'_>, i: usize) -> bool {
    let mut before = i;
    while before > 0 && matches!(source.text(before - 1), "volatile" | "const") {
        before -= 1;
    }
    before > 0 && matches!(source.text(before - 1), ";" | "{" | "}" | ":")
}

/// A pointer or reference to threadgroup memory is an ordinary variable.
fn declares_variable(source: &Source<'_>, start: usize) -> bool {
    let mut i = start;
    while i < source.len() {
        match source.text(i) {
            ";" | "[" | "," => return true,
            "*" | "&" | "=" | "{" | ")" => return false,
            _ => i = source.after_group(i),
        }
    }
    false
}
