//! What an interrupted run has measured: one line of JSON per row, so that the next run goes on from there.

use candlewick::profile::{Machine, Row};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What rows belong to: those of another run are of no use.
#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub machine: Machine,
    pub candlewick: String,
    pub settings: String,
}

/// The rows so far, and the file that the next ones go to.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    pub rows: Vec<Row>,
}

impl Journal {
    /// Goes on with the rows of the same run, or begins anew.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path, run: &Run, fresh: bool) -> io::Result<Journal> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let rows = if fresh { None } else { fs::read_to_string(path).ok().and_then(|text| rows(&text, run)) };
        let rows = rows.unwrap_or_default();
        // Written anew: the last line may be half a line.
        let mut journal = Journal { path: path.to_owned(), file: File::create(path)?, rows: Vec::new() };
        writeln!(journal.file, "{}", serde_json::to_string(run)?)?;
        journal.file = OpenOptions::new().append(true).open(path)?;
        rows.into_iter().try_for_each(|row| journal.push(row))?;
        Ok(journal)
    }

    /// Keeps a row.
    ///
    /// # Errors
    /// What the file system says.
    pub fn push(&mut self, row: Row) -> io::Result<()> {
        writeln!(self.file, "{}", serde_json::to_string(&row)?)?;
        self.rows.push(row);
        Ok(())
    }

    /// Whether an operation was measured.
    pub fn has(&self, op: &candlewick::Op) -> bool {
        let same = |row: &Row| row.op == op.name() && row.dtype == op.dtype().name() && row.shape == op.shape();
        self.rows.iter().any(same)
    }

    /// The run is complete: the rows are in the profile.
    pub fn finish(self) -> Vec<Row> {
        // A file that stays is read, and found complete, by the next run.
        let _ = fs::remove_file(&self.path);
        self.rows
    }
}

fn rows(text: &str, run: &Run) -> Option<Vec<Row>> {
    let mut lines = text.lines();
    let header: Run = serde_json::from_str(lines.next()?).ok()?;
    (header == *run).then(|| lines.map_while(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_interrupted_run_goes_on_where_it_was() {
        let machine = Machine { device: "cpu".into(), name: "a CPU".into(), facts: BTreeMap::new() };
        let run = |settings: &str| Run { machine: machine.clone(), candlewick: "1".into(), settings: settings.into() };
        let row = |shape: &str| Row {
            op: "matmul".into(),
            dtype: "f32".into(),
            shape: shape.into(),
            bucket: [0; 4],
            limit: 1.0,
            times: Vec::new(),
            on_candle_tensors: Vec::new(),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cpu.partial");
        let mut journal = Journal::open(&path, &run("quick"), false).unwrap();
        journal.push(row("1x1x1")).unwrap();
        journal.push(row("2x2x2")).unwrap();
        drop(journal);
        // Killed in the middle of a line.
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 5]).unwrap();
        let journal = Journal::open(&path, &run("quick"), false).unwrap();
        assert_eq!(journal.rows.iter().map(|row| &*row.shape).collect::<Vec<_>>(), ["1x1x1"]);
        drop(journal);
        assert!(Journal::open(&path, &run("quick"), true).unwrap().rows.is_empty());
        let mut journal = Journal::open(&path, &run("quick"), false).unwrap();
        journal.push(row("1x1x1")).unwrap();
        drop(journal);
        assert!(Journal::open(&path, &run("full"), false).unwrap().rows.is_empty(), "of another run");
        assert!(Journal::open(&path, &run("full"), false).unwrap().finish().is_empty());
        assert!(!path.exists());
    }
}
