//! The library's own tests of plans, on the emulated GPU: what is reported fails the command buffer it happens in.

use candlewick::Device;

fn device() -> Device {
    product_on_the_emulator::metal().unwrap()
}

/// Each file has a `device` of its own, for when it is the root.
macro_rules! tests_of_the_library {
    ($($name:ident = $path:literal;)*) => {$(
        #[path = $path]
        #[allow(dead_code)]
        mod $name;
    )*};
}

tests_of_the_library! {
    plan = "../../../crates/candlewick/tests/plan.rs";
    plan_grad = "../../../crates/candlewick/tests/plan_grad.rs";
    plan_grad_parts = "../../../crates/candlewick/tests/plan_grad_parts.rs";
    plan_checkpoint = "../../../crates/candlewick/tests/plan_checkpoint.rs";
}
