//! `candlewick generate`, `adapter` and `merge` as a user runs them, on a small random model.

use candlewick::DType;
use candlewick_model::testing::{TinyModel, tiny_config};
use candlewick_model::{Adapter, Family, Format, Role, Weights};
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A model's folder, its GGUF file and two adapters.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        let model = TinyModel::new(tiny_config(Family::Llama), Format::Float(DType::F32), 3);
        model.write_folder(&files.path("hf"), DType::F32, 1);
        std::fs::write(files.path("tiny.gguf"), model.gguf()).unwrap();
        for (name, seed) in [("one", 11), ("two", 12)] {
            let adapter = Adapter::new(name, None, model.adapter_modules(4, DType::F32, seed)).unwrap();
            adapter.write(&files.path(name)).unwrap();
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_candlewick"));
        command.current_dir(self.0.path()).args(arguments).output().expect("the binary was built")
    }

    /// Its stdout, where it succeeds.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Its message, where it fails.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        stderr(&output)
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const ALIKE: [&str; 6] = ["--device", "cpu", "--max-tokens", "12", "--ignore-end", "--json"];

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn prompts_adapters_and_merged_weights() {
    let files = Files::new();
    let generate = |model: &str, more: &[&str]| {
        objects(&files.text(&[&["generate", "--model", model], &ALIKE[..], more].concat()))
    };
    let base = generate("hf", &["--prompt", "hello"]);
    assert_eq!(base[0]["tokens"].as_array().unwrap().len(), 12);
    assert_eq!(base[0]["finish"], "max tokens");
    assert_eq!(base[0]["tokens"], generate("tiny.gguf", &["--prompt", "hello"])[0]["tokens"], "both formats");

    // A row for each adapter, and for none.
    let rows = generate("hf", &["--prompt", "hello", "--adapter", "one", "--adapter", "none", "--adapter", "two=0.5"]);
    let adapters: Vec<&Value> = rows.iter().map(|row| &row["adapter"]).collect();
    assert_eq!(adapters, [&Value::from("one"), &Value::Null, &Value::from("two")]);
    assert_eq!(rows[1]["tokens"], base[0]["tokens"]);
    assert!(rows[0]["tokens"] != rows[1]["tokens"] && rows[2]["tokens"] != rows[1]["tokens"]);
    assert_eq!(generate("hf", &["--prompt", "hello", "--adapter", "one=0"])[0]["tokens"], base[0]["tokens"], "off");

    // The same beside the base and in its weights.
    files.text(&["merge", "--model", "hf", "--adapter", "one", "--out", "merged", "--undo"]);
    assert_eq!(generate("merged", &["--prompt", "hello"])[0]["tokens"], rows[0]["tokens"]);
    files.text(&["merge", "--unmerge", "merged", "--out", "again"]);
    let (again, before) = (Weights::open(&files.path("again")).unwrap(), Weights::open(&files.path("hf")).unwrap());
    for role in Role::all(before.config()) {
        assert!(again.get(role).unwrap().bytes == before.get(role).unwrap().bytes, "{role:?}");
    }

    // A file of prompts, some with adapters of their own.
    std::fs::write(files.path("plain.txt"), "hello\n\nthe sea\n").unwrap();
    let two = generate("hf", &["--prompts", "plain.txt", "--batch", "2"]);
    assert_eq!((two.len(), &two[0]["tokens"]), (2, &base[0]["tokens"]));
    let lines = "{\"prompt\": \"hello\", \"adapter\": \"one\"}\n{\"prompt\": \"hello\", \"adapter\": \"none\"}\n";
    std::fs::write(files.path("some.jsonl"), lines).unwrap();
    let own = generate("hf", &["--prompts", "some.jsonl", "--adapter", "one"]);
    assert_eq!((&own[0]["tokens"], &own[1]["tokens"]), (&rows[0]["tokens"], &base[0]["tokens"]));
}

#[test]
fn text_streams_to_stdout_and_figures_to_stderr() {
    let files = Files::new();
    let arguments = ["generate", "--model", "hf", "--device", "cpu", "--max-tokens", "12", "--prompt", "hello"];
    let output = files.run(&[&arguments[..], &["--ignore-end"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let figures = stderr(&output);
    assert!(figures.contains("11 tokens at") && figures.contains("cpu f32"), "{figures}");
    assert!(figures.contains("first token after") && figures.contains("ended by max tokens"), "{figures}");
    let text = String::from_utf8_lossy(&output.stdout);
    let json = objects(&files.text(&[&["generate", "--model", "hf", "--prompt", "hello"], &ALIKE[..]].concat()));
    assert_eq!(text.trim_end_matches('\n'), json[0]["text"].as_str().unwrap().trim_end_matches('\n'));
}

#[test]
fn a_chat_reads_lines_and_remembers() {
    let files = Files::new();
    let chat = |input: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_candlewick"));
        command.args(["generate", "--chat", "--max-tokens", "1", "--ignore-end", "--device", "cpu", "--model"]);
        command.arg(files.path("hf")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = chat("hello\nhello\n\nnot read\n");
    assert!(output.status.success(), "{}", stderr(&output));
    let turns: Vec<String> =
        stderr(&output).lines().filter(|line| line.contains("prompt tokens")).map(str::to_owned).collect();
    assert_eq!(turns.len(), 2, "{turns:?}");
    // The second prompt has the first turn in it, which is in the cache, an answer of one token and the same question.
    let computed = |line: &String| line.split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!(computed(&turns[1]) < 2 * computed(&turns[0]), "{turns:?}");
}

#[test]
fn mistakes_are_answered_with_the_remedy() {
    let files = Files::new();
    let generate = |arguments: &[&str]| files.refused(&[&["generate"], arguments].concat());
    for (arguments, expected) in [
        (&["--model", "nowhere", "--prompt", "a"][..], "a GGUF file, or smollm2"),
        (&["--model", "hf"], "give --prompt, --prompts or --chat"),
        (&["--model", "hf", "--prompt", ""], "prompt 1"),
        (&["--model", "hf", "--prompt", "a", "--context", "4000"], "1 to 128"),
        (&["--model", "hf", "--prompt", "hello hello hello hello", "--context", "2"], "the context is 2"),
        (&["--model", "hf", "--prompt", "a", "--adapter", "nowhere"], "no such folder"),
        (&["--model", "hf", "--prompt", "a", "--adapter", "hf"], "adapter_model.safetensors"),
        (&["--model", "hf", "--prompts", "nowhere"], "one prompt per line"),
        (&["--model", "hf", "--prompt", "a", "--temperature=-1"], "0 is greedy"),
        (&["--model", "hf", "--prompt", "a", "--device", "gpu"], "there are cpu"),
    ] {
        let message = generate(arguments);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
    std::fs::write(files.path("wrong.jsonl"), "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n").unwrap();
    let message = generate(&["--model", "hf", "--prompts", "wrong.jsonl"]);
    assert!(message.contains("wrong.jsonl:2") && message.contains("text"), "{message}");
}

#[test]
fn adapters_are_shown_converted_and_compared() {
    let files = Files::new();
    let info = files.text(&["adapter", "info", "one", "two"]);
    assert!(info.contains("one (PEFT)") && info.contains("rank        4") && info.contains("2 x q_proj"), "{info}");
    files.text(&["adapter", "convert", "one", "copy"]);
    assert!(Path::new(&files.path("copy/adapter_model.safetensors")).is_file());
    let diff = files.text(&["adapter", "diff", "one", "copy"]);
    assert!(diff.contains("one") && diff.contains("copy"), "{diff}");
    assert_ne!(diff, files.text(&["adapter", "diff", "one", "two"]));
}
