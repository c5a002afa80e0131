//! The same logits and tokens from every device of this machine. On Linux without a GPU that is the CPU beside itself with
//! another number of threads; the emulator's tests do this for Metal.

use candlewick::Device;
use candlewick_lm::testing::same_as_cpu;

#[test]
fn every_device_says_the_same() {
    same_as_cpu(&Device::open("cpu:1").unwrap()).unwrap();
    for device in Device::all() {
        same_as_cpu(&device).unwrap();
    }
}
