//! The program `msl-check`: checks Metal sources from a terminal or a script.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use clap::{CommandFactory, Parser};
use msl_check::{Diagnostic, Options, Severity, check};

/// Checks Metal Shading Language sources without a Mac.
#[derive(Parser)]
#[command(name = "msl-check", about, long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
struct Arguments {
    /// The sources; `-` reads from standard input
    #[arg(value_name = "FILE.metal", required = true)]
    files: Vec<PathBuf>,

    /// The version of the language
    #[arg(long = "version", value_name = "MAJOR.MINOR", default_value = "3.2", value_parser = parse_version)]
    language_version: (u32, u32),

    /// Define a macro
    #[arg(short = 'D', value_name = "NAME[=VALUE]")]
    define: Vec<String>,

    /// Look for included files in this folder
    #[arg(short = 'I', value_name = "DIR")]
    include: Vec<PathBuf>,

    /// Read the source as with fast math switched off
    #[arg(long)]
    no_fast_math: bool,
}

const LONG_ABOUT: &str = "\
Checks Metal Shading Language sources without a Mac.

Clang reads the source in its C++ for OpenCL mode, where device, constant, threadgroup and thread are true qualifiers \
of types; rules over the tokens find what clang cannot see. Nothing is compiled and nothing is run.

What it catches: pointers of one address space passed as those of another, pointers without an address space, const \
taken away, everything that C++ has and Metal has not (double, exceptions, virtual functions, new, goto, standard \
headers, ...), variables in the wrong place, kernels with wrong parameters or attributes, and all errors of plain C++.

What it cannot catch: Apple's compiler has the last word. Calls into Metal's library are looser here (textures, \
arguments of SIMD-group functions), conversions between half, float and their vectors are looser, and ray tracing, \
mesh shaders, most of tensors and argument buffers are not declared. The documentation of the crate has the whole list.";

const AFTER_HELP: &str = "\
Examples:
  msl-check kernels/*.metal
  msl-check --version 2.4 -D BLOCK=64 -I include reduce.metal
  generate-kernel | msl-check -

Messages look like clang's. The exit code is 0 if all files are accepted (warnings may remain), 1 if one is refused, \
and 2 if the arguments are wrong.

METAL_EMULATOR_CLANG names the clang++ to use; else clang++-19 is taken, or any from 17 on.
METAL_EMULATOR_CACHE names the folder for precompiled headers.
NO_COLOR switches colours off.";

fn parse_version(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or_else(|| format!("'{text}' is no version such as 3.1"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut tally = Tally::default();
    for file in &arguments.files {
        match read(file) {
            Ok(source) => tally.check(&source, file, &options(&arguments, file)),
            Err(error) => {
                Arguments::command().error(clap::error::ErrorKind::Io, format!("{}: {error}", file.display())).exit()
            }
        }
    }
    // Nobody may be listening any more, as in `msl-check … | head`.
    let _ = writeln!(io::stdout(), "{}", tally.summary());
    ExitCode::from(u8::from(tally.errors > 0))
}

fn read(file: &Path) -> io::Result<String> {
    if file == Path::new("-") {
        let mut source = String::new();
        io::stdin().read_to_string(&mut source)?;
        return Ok(source);
    }
    fs::read_to_string(file)
}

fn options(arguments: &Arguments, file: &Path) -> Options {
    let define = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, "1"));
        (name.to_owned(), value.to_owned())
    };
    let beside = file.parent().filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned);
    Options {
        language_version: arguments.language_version,
        macros: arguments.define.iter().map(define).collect(),
        fast_math: !arguments.no_fast_math,
        include: beside.into_iter().chain(arguments.include.iter().cloned()).collect(),
    }
}

/// What was found in all files.
#[derive(Default)]
struct Tally {
    files: usize,
    errors: usize,
    warnings: usize,
}

impl Tally {
    fn check(&mut self, source: &str, file: &Path, options: &Options) {
        let name = if file == Path::new("-") { "<stdin>".to_owned() } else { file.display().to_string() };
        let diagnostics = check(source, &name, options).unwrap_or_else(|report| report.diagnostics);
        self.files += 1;
        for diagnostic in &diagnostics {
            match diagnostic.severity {
                Severity::Error => self.errors += 1,
                Severity::Warning => self.warnings += 1,
                Severity::Note => {}
            }
            let _ = writeln!(io::stdout(), "{}", shown(diagnostic));
        }
    }

    fn summary(&self) -> String {
        let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        let (files, errors, warnings) =
            (count(self.files, "file"), count(self.errors, "error"), count(self.warnings, "warning"));
        format!("{files} checked: {errors}, {warnings}")
    }
}

/// A diagnostic, in clang's colours if someone is looking.
fn shown(diagnostic: &Diagnostic) -> String {
    let text = diagnostic.to_string();
    if !io::stdout().is_terminal() || env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return text;
    }
    let colour = match diagnostic.severity {
        Severity::Note => "\x1b[1;36m",
        Severity::Warning => "\x1b[1;35m",
        Severity::Error => "\x1b[1;31m",
    };
    let level = format!(" {}: ", diagnostic.severity);
    text.replacen(&level, &format!(" {colour}{}:\x1b[0m ", diagnostic.severity), 1)
}
