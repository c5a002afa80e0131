//! The compiler.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The name of the environment variable that names another compiler.
const VARIABLE: &str = "METAL_EMULATOR_CLANG";

/// clang++ and what it says of its version.
pub struct Clang {
    program: String,
    /// The text of `--version`.
    pub version: String,
}

/// The compiler of this process: `METAL_EMULATOR_CLANG`, else clang++ 19, else clang++.
pub fn clang() -> Result<&'static Clang, String> {
    static CLANG: OnceLock<Result<Clang, String>> = OnceLock::new();
    CLANG.get_or_init(find).as_ref().map_err(Clone::clone)
}

fn find() -> Result<Clang, String> {
    let named = std::env::var(VARIABLE).ok();
    let candidates = match &named {
        Some(program) => vec![program.as_str()],
        None => vec!["clang++-19", "clang++"],
    };
    for program in &candidates {
        if let Ok(output) = Command::new(program).arg("--version").output() {
            let version = String::from_utf8_lossy(&output.stdout).into_owned();
            return Ok(Clang { program: (*program).to_owned(), version });
        }
    }
    Err(format!("cannot run {}: install clang 19, or name it in {VARIABLE}", candidates.join(" or ")))
}

impl Clang {
    /// Runs clang with `input` on its standard input; gives its output, or what it says against the input.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A], input: &str) -> Result<Vec<u8>, String> {
        let failed = |error: std::io::Error| format!("cannot run {}: {error}", self.program);
        let mut child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut pipe = child.stdin.take().ok_or("no pipe to clang")?;
        let output = std::thread::scope(|scope| {
            // Both ways at once, or full pipes would block both sides. clang may end without reading all.
            scope.spawn(move || {
                let _ = pipe.write_all(input.as_bytes());
            });
            child.wait_with_output()
        });
        let output = output.map_err(failed)?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}
