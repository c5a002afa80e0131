//! Memory that temporaries of a plan share.

use candlewick::{DType, Device, Plan};
use proptest::prelude::*;

const F32: DType = DType::F32;

fn numbers(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| (i * step % 1009) as f32 / 504.5 - 1.0).collect()
}

/// What is read after a run is nobody else's place, not even behind the last operation.
#[test]
fn the_last_operation_leaves_outputs_alone() {
    let (mut plan, (x, first, last)) = Plan::record(&Device::cpu(), |p| {
        let x = p.input("x", 2, 4, F32);
        let first = p.softmax(x, 1.0)?;
        let first = p.output(first)?;
        let last = p.softmax(first, 1.0)?;
        Ok((x, first, p.output(last)?))
    })
    .unwrap();
    plan.write(x, &[0f32, 1.0, 2.0, 3.0, 3.0, 1.0, 0.0, 2.0]).unwrap();
    plan.run().unwrap();
    let mut found = [[0f32; 8]; 2];
    plan.read(first, &mut found[0]).unwrap();
    plan.read(last, &mut found[1]).unwrap();
    let expected = 3f32.exp() / (0..4).map(|i| (i as f32).exp()).sum::<f32>();
    assert!((found[0][3] - expected).abs() < 1e-6, "{found:?}");
    assert!(found[1][3] < 0.5, "{found:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A random graph of row operations and products, with every intermediate result also kept as an output in a second
    /// plan: sharing memory changes no bit.
    #[test]
    fn memory_is_shared_without_a_trace(choices in prop::collection::vec((0usize..4, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..24)) {
        let size = 16;
        let record = |keep: bool| {
            let (mut plan, (x, all)) = Plan::record(&Device::cpu_with_threads(1), |p| {
                let x = p.input("x", size, size, F32);
                let weight = p.filled(0.5, 1, size, F32);
                let mut all = vec![x];
                for (kind, left, right) in &choices {
                    let (left, right) = (all[left.index(all.len())], all[right.index(all.len())]);
                    all.push(match kind {
                        0 => p.softmax(left, 0.7)?,
                        1 => p.rms_norm(left, weight, 1e-3)?,
                        2 => p.matmul(left, right)?,
                        _ => p.matmul_transposed(left, right)?,
                    });
                }
                let last = all.len() - 1;
                let kept: Vec<_> = (1..all.len()).filter(|&i| keep || i == last).collect();
                kept.iter().try_for_each(|&i| p.output(all[i]).map(drop))?;
                Ok((x, all))
            }).unwrap();
            plan.write(x, &numbers(size * size, 3)).unwrap();
            plan.run().unwrap();
            let mut y = vec![0f32; size * size];
            plan.read(all[all.len() - 1], &mut y).unwrap();
            (y, plan.arena_bytes())
        };
        let ((shared, small), (apart, large)) = (record(false), record(true));
        prop_assert!(shared.iter().zip(&apart).all(|(a, b)| a.to_bits() == b.to_bits()));
        prop_assert!(small <= large);
    }
}
