//! Running clang, and reading its messages.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::clang::Clang;

/// What a run of clang left.
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its messages, in order.
    pub messages: Vec<Message>,
    /// Whether it ended well.
    pub success: bool,
    /// Its standard error as it was.
    pub stderr: String,
}

/// How grave clang calls a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It explains the message before it.
    Note,
    /// A warning.
    Warning,
    /// An error, also a fatal one.
    Error,
}

/// One message of clang.
#[derive(Clone, Debug)]
pub struct Message {
    /// Note, warning or error.
    pub level: Level,
    /// The file, as clang names it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// The text.
    pub text: String,
}

/// Runs clang with this text as its input.
pub fn run(clang: &Clang, arguments: &[OsString], input: &str) -> io::Result<Output> {
    let mut child = Command::new(&clang.path)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or_else(|| io::Error::other("clang has no standard input"))?;
    let output = std::thread::scope(|scope| {
        // A thread writes, so that neither side waits for a full pipe. Clang may stop reading: that is its business.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    })?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Output {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        messages: stderr.lines().filter_map(message).collect(),
        success: output.status.success(),
        stderr,
    })
}

/// Reads `file:12:7: error: text`.
fn message(line: &str) -> Option<Message> {
    const LEVELS: [(&str, Level); 4] = [
        (": note: ", Level::Note),
        (": warning: ", Level::Warning),
        (": error: ", Level::Error),
        (": fatal error: ", Level::Error),
    ];
    let (at, mark, level) = LEVELS
        .iter()
        .filter_map(|(mark, level)| Some((line.find(mark)?, *mark, *level)))
        .min_by_key(|found| found.0)?;
    let mut place = line[..at].rsplitn(3, ':');
    let column = place.next()?.parse().ok()?;
    let line_number = place.next()?.parse().ok()?;
    let file = place.next()?.to_owned();
    Some(Message { level, file, line: line_number, column, text: line[at + mark.len()..].to_owned() })
}
