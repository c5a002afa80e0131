//! `candlewick verify --device metal`: every operation, dtype and layout on every engine against the f64 reference, in
//! shuffled orders, with nothing reported and nothing leaked.

use candlewick_core::op::OpClass;
use candlewick_verify::{Options, Shard, verify};
use metal_emulator::{Settings, watch};
use product_on_the_emulator::metal;

/// Orders of what Metal leaves unordered. Together they see every fixed case.
const SEEDS: usize = 5;

/// Random cases per class, dtype and seed. `CANDLEWICK_CASES` for more.
fn cases() -> usize {
    std::env::var("CANDLEWICK_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// Objects alive in the process.
fn objects() -> u64 {
    metal_emulator::alive().iter().map(|(_, count)| count).sum()
}

fn sweep(class: OpClass) {
    for index in 0..SEEDS {
        let seed = index as u64 + 1;
        let watch = watch(Settings::seeded(seed));
        drop(metal().unwrap());
        let before = (objects(), metal_emulator::allocated_bytes());
        let shard = Shard { index, count: SEEDS };
        let options = Options { classes: vec![class], seed: 1, sweep: SEEDS * cases(), shard, ..Options::default() };
        let report = verify(&metal().unwrap(), &options, &mut |_| {}).unwrap();
        watch.assert_clean();
        let failures: Vec<String> = report.failures().iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "seed {seed}, {} failures:\n{}", failures.len(), failures.join("\n"));
        let after = (objects(), metal_emulator::allocated_bytes());
        assert_eq!(after, before, "objects and bytes of Metal's that are left over");
        println!("{class}, seed {seed}: {} runs", report.passed());
    }
}

macro_rules! sweeps {
    ($($name:ident: $class:ident;)*) => {$(
        #[test]
        fn $name() {
            sweep(OpClass::$class);
        }
    )*};
}

sweeps! {
    matmul: MatMul;
    softmax: Softmax;
    softmax_backward: SoftmaxBackward;
    rms_norm: RmsNorm;
    rms_norm_backward: RmsNormBackward;
    lora_linear: LoraLinear;
    lora_linear_backward: LoraLinearBackward;
    lora_delta: LoraDelta;
    lora_delta_backward: LoraDeltaBackward;
}
