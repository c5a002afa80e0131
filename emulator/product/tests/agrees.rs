//! Every operation, dtype and layout on every engine against the f64 reference, in shuffled orders, with nothing reported.

use candlewick::DType;
use candlewick::backend::Device as _;
use candlewick::op::OpClass;
use candlewick_metal::{Device, Options};
use metal_emulator::{Settings, watch};
use product_on_the_emulator::{fixed_count, verify};
use std::collections::BTreeMap;

/// Cases per class, dtype and seed. `CANDLEWICK_CASES` for more.
fn cases() -> usize {
    std::env::var("CANDLEWICK_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// The random cases, others for each seed, and of the fixed ones every fifth, so that five seeds see all.
fn sweep(class: OpClass) {
    for seed in 1..=5 {
        let watch = watch(Settings::seeded(seed));
        // Every tensor has a Metal buffer of its own, so that the emulator sees where it ends.
        let device = Device::with_options(Options { block_bytes: 0, ..Options::default() }).unwrap();
        let mut stream = device.stream().unwrap();
        let mut engines = BTreeMap::new();
        let mut faults = Vec::new();
        for dtype in DType::ALL {
            let fixed = fixed_count(class);
            let first = fixed + seed as usize * 1000;
            for index in (seed as usize - 1..fixed).step_by(5).chain(first..first + cases()) {
                for outcome in verify(&device, &mut stream, class, dtype, 1, index) {
                    *engines.entry(outcome.engine).or_insert(0) += 1;
                    if let Err(fault) = outcome.verdict {
                        faults.push(format!("{} on {}: {fault}", outcome.case, outcome.engine));
                    }
                }
            }
        }
        drop(stream);
        watch.assert_clean();
        assert!(faults.is_empty(), "seed {seed}, {} faults:\n{}", faults.len(), faults.join("\n"));
        println!("{class}, seed {seed}: {engines:?}");
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
