//! The program: what it prints and how it ends.

use std::io::Write;
use std::process::{Command, Output, Stdio};

const GOOD: &str =
    "#include <metal_stdlib>\nusing namespace metal;\nkernel void k(device float *p [[buffer(0)]]) { p[0] = 1; }\n";
const BAD: &str = "#include <metal_stdlib>\nvoid f(float *p);\n";

fn msl_check(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_msl-check"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // It may end before it reads: then nobody is there to write to.
    let _ = child.stdin.take().expect("it has an input").write_all(input.as_bytes());
    child.wait_with_output().expect("the program ends")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_good_source_ends_with_zero() {
    let output = msl_check(&["-"], GOOD);
    assert_eq!(stdout(&output), "1 file checked: 0 errors, 0 warnings\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_bad_source_ends_with_one_and_says_where() {
    let output = msl_check(&["-"], BAD);
    let expected = "<stdin>:2:14: error: pointer type must have explicit address space qualifier\n\
                    void f(float *p);\n             ^\n1 file checked: 1 error, 0 warnings\n";
    assert_eq!(stdout(&output), expected);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn files_includes_macros_and_versions() {
    let folder = std::env::temp_dir().join(format!("msl-check-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    std::fs::write(folder.join("types.h"), "typedef float Real;\nvoid g(int *p);\n").expect("it can be written");
    let file = folder.join("a.metal");
    let source = "#include \"types.h\"\n#if N != 3 || __METAL_VERSION__ != 240\n#error options are lost\n#endif\n";
    std::fs::write(&file, source).expect("it can be written");
    let output = msl_check(&["--version", "2.4", "-D", "N=3", file.to_str().expect("a plain path")], "");
    let text = stdout(&output);
    assert!(text.contains("types.h:2:12: error: pointer type must"), "{text}");
    assert!(text.contains("void g(int *p);\n           ^\n1 file checked: 1 error"), "{text}");
    std::fs::remove_dir_all(&folder).expect("the folder goes");
}

#[test]
fn wrong_arguments_end_with_two() {
    assert_eq!(msl_check(&[], "").status.code(), Some(2));
    assert_eq!(msl_check(&["--version", "new", "-"], GOOD).status.code(), Some(2));
    assert_eq!(msl_check(&["/nonexistent.metal"], "").status.code(), Some(2));
}

#[test]
fn help_teaches() {
    let output = msl_check(&["--help"], "");
    let text = stdout(&output);
    for part in ["What it catches", "What it cannot catch", "Examples:", "exit code", "METAL_EMULATOR_CLANG"] {
        assert!(text.contains(part), "no '{part}' in\n{text}");
    }
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_missing_clang_is_said() {
    let output = Command::new(env!("CARGO_BIN_EXE_msl-check"))
        .args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program.rs")])
        .env("METAL_EMULATOR_CLANG", "/nonexistent/clang++")
        .output()
        .expect("the program starts");
    assert!(stdout(&output).contains("install clang-19"), "{}", stdout(&output));
    assert_eq!(output.status.code(), Some(1));
}
