//! Random plans on the emulated GPU, in shuffled orders: against the f64 reference, with nothing reported and nothing
//! leaked, and with the same bits whatever the order. `CANDLEWICK_PLANS` for more plans, `CANDLEWICK_PLANS_SEED` for others.

use candlewick_core::op::OpClass;
use candlewick_verify::plans::{operation_results, plan_results, verify_plans};
use candlewick_verify::{Case, Hardware, dtypes};
use metal_emulator::{Settings, watch};
use product_on_the_emulator::metal;

/// Orders of what Metal leaves unordered.
const ORDERS: u64 = 4;

fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Objects alive in the process.
fn objects() -> u64 {
    metal_emulator::alive().iter().map(|(_, count)| count).sum()
}

#[test]
fn random_plans_agree_with_the_reference() {
    let (first, count) = (variable("CANDLEWICK_PLANS_SEED", 0), variable("CANDLEWICK_PLANS", 24));
    for order in 0..ORDERS {
        let watch = watch(Settings::seeded(order));
        drop(metal().unwrap());
        let before = (objects(), metal_emulator::allocated_bytes());
        let (from, to) = (first + count * order / ORDERS, first + count * (order + 1) / ORDERS);
        let report = verify_plans(&metal().unwrap(), from, (to - from) as usize, &mut |_| {});
        watch.assert_clean();
        let failures: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "order {order}, {} failures:\n{}", failures.len(), failures.join("\n"));
        println!("order {order}: {report}");
        assert_eq!((objects(), metal_emulator::allocated_bytes()), before, "objects and bytes of Metal's left over");
    }
}

#[test]
fn the_order_changes_no_bit() {
    let (first, count) = (variable("CANDLEWICK_PLANS_SEED", 0), variable("CANDLEWICK_PLANS", 24) / 4);
    for seed in first..first + count {
        let results = |order: u64| {
            let watch = watch(Settings::seeded(order));
            let results = plan_results(&metal().unwrap(), seed).unwrap();
            watch.assert_clean();
            results.iter().flatten().flatten().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let expected = results(0);
        for order in 1..ORDERS {
            assert!(results(order) == expected, "plan {seed} in order {order}");
        }
    }
}

#[test]
fn every_operation_gives_the_same_bits_again() {
    for class in OpClass::ALL {
        let dtype = dtypes(class)[0];
        let cases: Vec<Case> = (0..60)
            .map(|at| Case::new(1, class, dtype, at, Hardware::Gpu))
            .filter(|case| (1_000..150_000).contains(&case.cost()))
            .take(2)
            .collect();
        assert!(!cases.is_empty(), "{class}");
        for case in cases {
            let results = |order: u64| {
                let watch = watch(Settings::seeded(order));
                let results = operation_results(&metal().unwrap(), &case).unwrap();
                watch.assert_clean();
                results.map(|results| results.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>())
            };
            let [expected, again] = results(0);
            assert!(expected == again, "{}: another run, other bits", case.op);
            for order in 1..ORDERS - 1 {
                assert!(results(order) == [expected.clone(), expected.clone()], "{} in order {order}", case.op);
            }
        }
    }
}
