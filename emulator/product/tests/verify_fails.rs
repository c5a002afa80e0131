//! `candlewick verify` fails when any one of our barriers is overlooked.
//!
//! Each barrier needs a process of its own: a report fails the command buffer it is about only where nobody watches, and
//! what is dropped is then read from the environment once.

use candlewick_core::DType;
use candlewick_core::op::OpClass;
use candlewick_verify::{Options, verify};
use metal_emulator::region;
use product_on_the_emulator::metal;
use std::process::{Command, Output};

/// What a child is asked, and what it says of itself.
const CLASS: &str = "VERIFY_FAILS_CLASS";
const BARRIERS: &str = "barriers: ";

/// An operation on every engine, small.
#[test]
#[ignore = "the other test runs it, in processes of its own"]
fn reduced_sweep() {
    let name = std::env::var(CLASS).unwrap();
    let classes = OpClass::ALL.into_iter().filter(|class| class.to_string() == name).collect();
    let options = Options { classes, dtypes: vec![DType::F32], sweep: 0, largest: Some(30_000), ..Options::default() };
    let (counts, report) = region(|| verify(&metal().unwrap(), &options, &mut |_| {}).unwrap());
    println!("\n{BARRIERS}{}", counts.gpu.barriers);
    for failure in report.failures() {
        println!("{failure}");
    }
    assert!(report.passed() > 0 && report.failures().is_empty());
}

fn run(class: OpClass, seed: usize, drop: Option<usize>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "reduced_sweep", "--ignored", "--nocapture"]).env(CLASS, class.to_string());
    command.env("METAL_EMULATOR_SEED", seed.to_string()).env_remove("METAL_EMULATOR_DROP");
    if let Some(barrier) = drop {
        command.env("METAL_EMULATOR_DROP", format!("barrier:{barrier}"));
    }
    command.output().unwrap()
}

#[test]
fn without_any_one_barrier() {
    let mut all = 0;
    // A layer's rows read only what their adapters name: a barrier in front of an adapter that no row names protects
    // nothing, and nobody misses it.
    for class in OpClass::ALL.into_iter().filter(|&class| class != OpClass::LoraRows) {
        let whole = run(class, 1, None);
        let text = String::from_utf8_lossy(&whole.stdout);
        assert!(whole.status.success(), "{class}: {text}{}", String::from_utf8_lossy(&whole.stderr));
        let barriers = text.lines().find_map(|line| line.strip_prefix(BARRIERS)).unwrap().parse::<usize>().unwrap();
        println!("{class}: {barriers} barriers");
        for barrier in 0..barriers {
            let Output { status, stdout, stderr } = run(class, 1 + barrier % 5, Some(barrier));
            let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            assert!(!status.success(), "{class} without barrier {barrier} of {barriers} passes:\n{stdout}{stderr}");
            let named = stdout.contains("FAIL ") && stderr.contains("MissingBarrier");
            assert!(named, "{class} {barrier}: {stdout}{stderr}");
        }
        all += barriers;
    }
    assert!(all >= 8, "{all} barriers");
}
