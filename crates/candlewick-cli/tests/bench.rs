//! `candlewick bench` as a user runs it.

use serde_json::Value;
use std::process::{Command, Output};

fn candlewick(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_candlewick")).args(arguments).output().expect("the binary was built")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_quick_run_prints_tables_and_writes_json_and_a_page() {
    let directory = std::env::temp_dir().join(format!("candlewick-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (json, page) = (directory.join("rows.json"), directory.join("report.html"));
    let (json_flag, page_flag) = (json.to_str().unwrap(), page.to_str().unwrap());
    let flags =
        ["--quick", "--ops", "matmul", "--shapes", "64x64x64,32x32x32", "--json", json_flag, "--report", page_flag];
    let output = candlewick(&[&["bench"], &flags[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));

    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("64x64x64") && table.contains("vs Candle") && table.contains("summary"), "{table}");
    assert!(!table.contains('\x1b'), "colours are for terminals");
    assert!(table.lines().all(|line| line.chars().count() <= 120), "{table}");

    let rows: Vec<Value> = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert!(!rows.is_empty());
    for row in &rows {
        for field in ["op", "shape", "dtype", "device", "engine", "regime", "setting"] {
            assert!(row[field].is_string(), "{field} of {row}");
        }
        for field in ["flops", "bytes", "share_of_limit", "threads", "error"] {
            assert!(row[field].is_number(), "{field} of {row}");
        }
        for quantile in ["min", "median", "p90"] {
            assert!(row["microseconds"][quantile].as_f64().is_some_and(|micros| micros > 0.0), "{quantile} of {row}");
        }
        assert!(row["error"].as_f64().unwrap() < 1e-5, "{row}");
    }
    for (engine, setting) in [("candle", "as it comes"), ("candle", "one thread"), ("candlewick-candle", "as it comes")]
    {
        let regimes = rows.iter().filter(|row| row["engine"] == engine && row["setting"] == setting);
        let expected = if engine == "candlewick-candle" && rows.iter().all(|row| row["threads"] == 1) { 0 } else { 4 };
        assert_eq!(regimes.count(), expected, "two shapes in two regimes: {engine} {setting}");
    }

    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("<svg") && page.contains("64x64x64") && page.ends_with("</html>\n"));
    for elsewhere in ["http", "<script", "<link", "@import", "url("] {
        assert!(!page.contains(elsewhere), "a page that needs {elsewhere}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_empty_device_shows_the_contracts_own_cost() {
    let output = candlewick(&["bench", "--quick", "--device", "empty", "--ops", "matmul", "--shapes", "64x64x64"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("enqueue") && table.contains("empty/nothing") && !table.contains("Candle "), "{table}");
}

#[test]
fn wrong_flags_list_what_there_is() {
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--ops", "matmull"], &["matmul", "lora_linear+backward"]),
        (&["--dtype", "f64"], &["f32", "f16", "bf16", "all"]),
        (&["--shapes", "64"], &["64x64x64", "128x4096", "32x512x512r8"]),
        (&["--ops", "softmax", "--shapes", "8x8x8"], &["softmax", "128x4096"]),
        (&["--device", "gpu"], &["cpu", "metal", "cuda", "empty"]),
        (&["--engines", "some"], &["auto", "all"]),
    ];
    for (flags, listed) in cases {
        let output = candlewick(&[&["bench"], flags].concat());
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        for choice in listed {
            assert!(stderr(&output).contains(choice), "{flags:?} without {choice}: {}", stderr(&output));
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_is_known_before_the_work() {
    let start = std::time::Instant::now();
    let output = candlewick(&["bench", "--json", "/no/such/directory/rows.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/no/such/directory"), "{}", stderr(&output));
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn a_python_that_is_not_there_is_a_warning() {
    let flags = ["--quick", "--ops", "matmul", "--shapes", "16x16x16", "--pytorch", "/no/such/python"];
    let output = candlewick(&[&["bench"], &flags[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("PyTorch is left out"), "{}", stderr(&output));
}
