//! From an address in a compiled library to the line of the Metal source, by LLVM's or binutils' tool, if there is one.

use std::path::Path;
use std::process::Command;

/// The innermost line of `file` that an address belongs to, inlined functions included.
pub fn line(library: &Path, offset: u64, file: &str) -> Option<u32> {
    // The address is where a call returns to: the call itself ends one byte before.
    let address = format!("{:#x}", offset.saturating_sub(1));
    let tools: [(&str, &[&str]); 3] = [
        ("llvm-symbolizer-19", &["--inlines", "--functions=none", "--obj"]),
        ("llvm-symbolizer", &["--inlines", "--functions=none", "--obj"]),
        ("addr2line", &["-i", "-e"]),
    ];
    tools.iter().find_map(|(tool, arguments)| {
        let output = Command::new(tool).args(*arguments).arg(library).arg(&address).output().ok()?;
        String::from_utf8_lossy(&output.stdout).lines().find_map(|frame| line_of_frame(frame, file))
    })
}

/// `/where/program_source:12:5` gives 12.
fn line_of_frame(frame: &str, file: &str) -> Option<u32> {
    let (path, place) = frame.split_once(&format!("{file}:"))?;
    let starts_name = path.is_empty() || path.ends_with('/');
    let digits: String = place.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|line| starts_name && *line > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_the_source_has_a_line() {
        assert_eq!(line_of_frame("/tmp/program_source:12:5", "program_source"), Some(12));
        assert_eq!(line_of_frame("/tmp/metal/math.h:12:5", "program_source"), None);
        assert_eq!(line_of_frame("program_source:?", "program_source"), None);
    }
}
