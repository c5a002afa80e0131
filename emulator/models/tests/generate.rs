//! The same logits and tokens from the emulated GPU as from the CPU, with nothing reported and nothing leaked.

use candlewick::Device;
use candlewick_lm::testing::same_as_cpu;
use metal_emulator::{Settings, watch};
use models_on_the_emulator as _;

#[test]
fn small_models_say_the_same_as_on_the_cpu() {
    let watch = watch(Settings::seeded(1));
    same_as_cpu(&Device::metal().unwrap()).unwrap();
    watch.assert_clean();
}
