//! Words that C++ does not have.

use super::source::Source;
use crate::lexer::Kind;

/// The address spaces (Metal Shading Language Specification, section 4). `constant` also means `const`.
pub const ADDRESS_SPACES: [&str; 6] =
    ["device", "thread", "threadgroup", "constant", "threadgroup_imageblock", "object_data"];

/// Takes address spaces and attributes out; spells casts and literals so that clang knows them.
pub fn translate(source: &mut Source<'_>) {
    // `#pragma unroll`: on a CPU it makes nothing faster, and MLX's matrix product takes twice as long to compile.
    source.erase_directives("unroll");
    for i in 0..source.len() {
        if source.is_attribute(i) {
            let end = source.closing(i) + 1;
            source.erase(i..end);
            continue;
        }
        let replacement = match source.text(i) {
            "constant" => "const".to_owned(),
            "kernel" => String::new(),
            "static_cast" => "emulator::cast".to_owned(),
            word if ADDRESS_SPACES.contains(&word) => String::new(),
            number if source.kind(i) == Some(Kind::Number) => match literal(number) {
                Some(literal) => literal,
                None => continue,
            },
            _ => continue,
        };
        source.replace(i, replacement);
    }
}

/// `1.5H` and `1.5bf`, whose suffixes a C++ program cannot define.
fn literal(number: &str) -> Option<String> {
    if number.starts_with("0x") || number.starts_with("0X") {
        return None;
    }
    if let Some(value) = number.strip_suffix("bf").or_else(|| number.strip_suffix("BF")) {
        return Some(format!("(bfloat({value}))"));
    }
    number.strip_suffix('H').map(|value| format!("{value}h"))
}
