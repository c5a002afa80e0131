//! Metal Shading Language on Linux: compiled by clang as C++, run on the CPU, every memory access observed.
//!
//! A kernel's threads ("lanes" here) are fibers of one thread. Their loads and stores are instrumented, so a launch
//! reports exactly the bytes it touched, accesses out of bounds, and races between lanes.
//!
//! The way of a source: `rewrite` turns it into C++, `compile` hands that to clang together with the headers of
//! `include/`, `cache` keeps the result, `library` loads it, `launch` runs it on the C++ of `runtime/`.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("emulator-msl switches stacks and loads shared objects as x86-64 Linux does");

mod abi;
mod cache;
mod clang;
mod compile;
mod elf;
mod fault;
mod headers;
mod launch;
mod lexer;
mod library;
mod rewrite;
mod symbolize;

pub use compile::{CompileError, Options, compile};
pub use fault::{Fault, Memory, Remedy, Thread};
pub use launch::{Binding, Launch, Outcome, Region, RegionAccess, SLOTS, run};
pub use library::{Access, Argument, ArgumentKind, Function, FunctionConstant, Library};
