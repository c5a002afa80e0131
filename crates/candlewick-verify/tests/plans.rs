//! Random plans on the CPU. `CANDLEWICK_PLANS` for more of them, `CANDLEWICK_PLANS_SEED` to begin elsewhere.

use candlewick::Device;
use candlewick::op::OpClass;
use candlewick_verify::plans::{operation_results, plan_results, verify_plans};
use candlewick_verify::{Case, Hardware, dtypes, fixed_count};

fn variable(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn seeds() -> std::ops::Range<u64> {
    let (first, count) = (variable("CANDLEWICK_PLANS_SEED", 0) as u64, variable("CANDLEWICK_PLANS", 150) as u64);
    first..first + count
}

#[test]
fn random_plans_agree_with_the_reference() {
    let seeds = seeds();
    let report = verify_plans(&Device::cpu(), seeds.start, (seeds.end - seeds.start) as usize, &mut |_| {});
    let failures: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    println!("{report}");
    for (class, row) in &report.rows {
        println!("{class}: {} operations, {:.2} of a bound in plan {}", row.operations, row.share, row.seed);
    }
    // Every operation is in some plan.
    assert!(
        report.passed < 100 || OpClass::ALL.iter().all(|class| report.rows.contains_key(class)),
        "{:?}",
        report.rows
    );
}

/// The same bits on one thread and on two, and when a plan is recorded anew.
#[test]
fn threads_change_no_bit() {
    for seed in seeds().take(60) {
        let one = plan_results(&Device::cpu_with_threads(1), seed).unwrap();
        let two = plan_results(&Device::cpu_with_threads(2), seed).unwrap();
        let bits = |results: &[Vec<Vec<f64>>]| -> Vec<u64> {
            results.iter().flatten().flatten().map(|x| x.to_bits()).collect()
        };
        assert!(bits(&one) == bits(&two), "plan {seed}");
        assert!(bits(&one[..1]) == bits(&one[2..]), "plan {seed}, the first run and the third");
    }
}

/// Operations with sums that each thread begins for itself: a norm's gradient of its weight over rows, attention of a single
/// query over keys. Other bits on another number of threads; on the same number they are the same.
const BY_THREAD: [OpClass; 2] = [OpClass::RmsNormBackward, OpClass::Attention];

/// Every operation on sizes that all threads share: the same bits in a second run, and, but for those, on one thread.
#[test]
fn every_operation_gives_the_same_bits_again() {
    let (one, two) = (Device::cpu_with_threads(1), Device::cpu_with_threads(2));
    let mut differ = Vec::new();
    for class in OpClass::ALL {
        for &dtype in dtypes(class) {
            let cases = (0..fixed_count(class, Hardware::Cpu)).map(|at| Case::new(1, class, dtype, at, Hardware::Cpu));
            let mut cases: Vec<Case> = cases.filter(|case| case.cost() < 8_000_000).collect();
            cases.sort_by_key(|case| std::cmp::Reverse(case.cost()));
            for case in &cases[..2] {
                let [first, second] = operation_results(&two, case).unwrap();
                let [alone, _] = operation_results(&one, case).unwrap();
                let bits = |results: &[Vec<f64>]| results.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert!(bits(&first) == bits(&second), "{}: another run, other bits", case.op);
                if bits(&first) != bits(&alone) {
                    differ.push(case.op);
                }
            }
        }
    }
    let unexpected: Vec<String> =
        differ.iter().filter(|op| !BY_THREAD.contains(&op.class())).map(ToString::to_string).collect();
    assert!(unexpected.is_empty(), "other bits on one thread: {unexpected:?}");
}
