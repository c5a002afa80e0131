//! The symbols of a compiled library: they tell its threadgroup variables, their sizes and the kernels they are of.
//!
//! Layouts as in the System V ABI, chapter "Object Files", for 64-bit little-endian files.

/// A symbol that has an address.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// Its mangled name.
    pub name: String,
    /// Its address relative to where the library is loaded.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
    /// It lies in memory that is zero at first, as threadgroup variables do.
    pub zeroed: bool,
}

const SYMBOL_TABLE: u32 = 2; // SHT_SYMTAB
const NO_BITS: u32 = 8; // SHT_NOBITS
const SECTION_SIZE: usize = 64;
const SYMBOL_SIZE: usize = 24;

/// All symbols of a library; none if this is no such file.
pub fn symbols(file: &[u8]) -> Vec<Symbol> {
    read(file).unwrap_or_default()
}

fn read(file: &[u8]) -> Option<Vec<Symbol>> {
    let sections_at = number(file, 0x28, 8)? as usize;
    let count = number(file, 0x3C, 2)? as usize;
    let sections: Vec<Section> =
        (0..count).map(|i| section(file, sections_at + i * SECTION_SIZE)).collect::<Option<_>>()?;
    let table = sections.iter().find(|section| section.kind == SYMBOL_TABLE)?;
    let strings = sections.get(table.link)?;
    let entries = file.get(table.offset..table.offset + table.size)?.chunks_exact(SYMBOL_SIZE);
    Some(
        entries
            .filter_map(|entry| {
                let home = sections.get(number(entry, 6, 2)? as usize).filter(|section| section.kind != 0)?;
                Some(Symbol {
                    name: string(file, strings.offset + number(entry, 0, 4)? as usize)?,
                    address: number(entry, 8, 8)?,
                    size: number(entry, 16, 8)?,
                    zeroed: home.kind == NO_BITS,
                })
            })
            .collect(),
    )
}

struct Section {
    kind: u32,
    offset: usize,
    size: usize,
    link: usize,
}

fn section(file: &[u8], at: usize) -> Option<Section> {
    Some(Section {
        kind: number(file, at + 4, 4)? as u32,
        offset: number(file, at + 0x18, 8)? as usize,
        size: number(file, at + 0x20, 8)? as usize,
        link: number(file, at + 0x28, 4)? as usize,
    })
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    Some(bytes.get(at..at + size)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn string(bytes: &[u8], at: usize) -> Option<String> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

/// The function and the variable that the mangled name of a function's static variable tells: `_ZZ4tileE5cache` gives
/// `4tile` and `cache`. (Itanium C++ ABI, 5.1.4: `_ZZ`, the function, `E`, the variable.)
pub fn local_variable(name: &str) -> Option<(&str, &str)> {
    let local = name.strip_prefix("_ZZ")?;
    // A second variable of the same name has a discriminator behind it: `_0`.
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let whole = local.rsplit_once('_').filter(|(_, tail)| is_number(tail)).map(|(head, _)| head);
    whole.and_then(split_local).or_else(|| split_local(local))
}

fn split_local(local: &str) -> Option<(&str, &str)> {
    local.rmatch_indices('E').find_map(|(at, _)| {
        let tail = &local[at + 1..];
        let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
        let length: usize = tail[..digits].parse().ok()?;
        (tail.len() == digits + length).then_some((&local[..at], &tail[digits..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_of_a_mangled_name() {
        assert_eq!(local_variable("_ZZ4tileE5cache"), Some(("4tile", "cache")));
        assert_eq!(local_variable("_ZZ4gemmIfLi64EEvPT_E2As"), Some(("4gemmIfLi64EEvPT_", "As")));
        assert_eq!(local_variable("_ZZ3sumIfLj8EEvPKfE6shared_3"), Some(("3sumIfLj8EEvPKf", "shared")));
        assert_eq!(local_variable("_ZZ4tilePfE3a_1"), Some(("4tilePf", "a_1")));
        assert_eq!(local_variable("_Z4tilePf"), None);
    }
}
