//! Metal and Metal Performance Shaders on Linux, for tests.
//!
//! Code written against the typed crates `objc2`, `objc2-metal` and `objc2-metal-performance-shaders` runs on it
//! unchanged once this crate is linked: `use metal_emulator as _;`. It runs kernels on the CPU and watches them.
//!
//! * What Metal's validation layer refuses is an Objective-C exception, which unwinds as a Rust panic.
//! * What goes wrong while commands run is a [`Report`]: missing barriers and fences by byte range, races, accesses out
//!   of bounds, freed resources. Unwatched, it fails the command buffer; a [`watch`] collects it.
//! * What Metal leaves unordered is shuffled by [`Settings::seed`].
//! * [`region`] counts what a piece of code costs: messages, objects, commands.
//!
//! It has no time: nothing measured on it says anything about a Mac.

mod accelerate;
pub mod account;
mod foundation;
mod gpu;
mod metal;
mod mps;
pub mod report;
pub mod settings;
mod systems;

pub use account::{Counts, GpuCounts, region};
pub use emulator_objc::{alive, messages_by_method};
pub use gpu::memory::allocated_bytes;
pub use report::{Report, Rule};
pub use settings::{Drop, Fill, Settings, Watch, watch};

/// Registers every emulated class. The runtime calls it before `main`.
fn register() {
    foundation::register();
    metal::register();
    mps::register();
    systems::apply(settings::current().macos);
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = {
    extern "C" fn start() {
        emulator_objc::set_loader(register);
        emulator_objc::load();
    }
    start
};
