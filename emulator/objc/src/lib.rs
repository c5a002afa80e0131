//! An Objective-C runtime for Linux, as far as objc2's GNUstep path (`gnustep-2-1`) sends messages to it.
//!
//! It has no compiler and no Foundation: classes are made at run time, by objc2's `define_class!`, and `NSObject` is
//! the only class it brings along. Link it with `use emulator_objc as _;`; objc2 finds its functions by name.
//!
//! What it adds to a runtime on a Mac:
//!
//! - A message to an unknown selector, a retain or release of a freed object and a misused autorelease pool raise an
//!   [`Exception`] that names the class. It unwinds as a Rust panic: `std::panic::catch_unwind` catches it.
//! - [`counts`] says what a region of code costs in messages, retains and objects; [`alive`], [`messages_by_method`]
//!   and [`autoreleased_without_pool`] say where.
//! - [`keep_zombies`] (or `METAL_EMULATOR_ZOMBIES=1`) never reuses the memory of a freed object, so that every later
//!   use of it is caught. Without it the most recently freed objects are kept back, which catches most.
//! - [`hide`] takes a class or a method away, as earlier versions of a system do not have it.
//!
//! With debug assertions objc2 itself looks a method up before it sends a message, and panics with "method not found"
//! and both names before this runtime's exception can.
//!
//! Not here: code compiled by an Objective-C compiler, `+initialize`, forwarding, properties, associated objects,
//! overridden `retain` and `release` (the functions never send these messages), objc2's feature `exception`, and
//! libdispatch: code that uses dispatch2's queues or data does not link.

mod absent;
mod account;
mod block;
mod cache;
mod class;
mod class_functions;
mod exception;
mod instance;
mod loader;
mod message;
mod method;
mod pool;
mod protocol;
mod quarantine;
mod retain;
mod root;
mod selector;
mod weak;

pub use absent::hide;
pub use account::{Counts, Own, alive, autoreleased_without_pool, counts, messages_by_method, own};
pub use exception::{Exception, raise};
pub use loader::{load, set_loader};
pub use quarantine::keep_zombies;
