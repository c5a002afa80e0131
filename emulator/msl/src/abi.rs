//! The Rust side of `include/emulator/abi.h`. Keep the two in step.

use std::ffi::{c_char, c_void};

use crate::launch::SLOTS;

pub const MAX_FAULTS: usize = 16;
/// What is not known of a [`Thread`], or that a fault has no memory.
pub const UNKNOWN: u32 = u32::MAX;

pub const BUFFER: u32 = 0;
pub const THREADGROUP: u32 = 1;

#[repr(C)]
pub struct Parameter {
    /// [`BUFFER`], [`THREADGROUP`], or a value that each lane gets.
    pub kind: u32,
    pub index: u32,
    pub writable: u32,
    pub optional: u32,
    pub alignment: u32,
    pub size: u32,
    pub name: *const c_char,
}

#[repr(C)]
pub struct Kernel {
    pub name: *const c_char,
    pub function: *const c_void,
    pub enter: *const c_void,
    pub parameters: *const Parameter,
    pub parameter_count: u32,
    pub max_total_threads: u32,
}

#[repr(C)]
pub struct FunctionConstant {
    pub name: *const c_char,
    pub type_name: *const c_char,
    pub address: *mut c_void,
    pub size: u64,
    pub index: u32,
    pub defined: *mut bool,
}

#[repr(C)]
pub struct Memory {
    /// [`BUFFER`] or [`THREADGROUP`].
    pub kind: u32,
    pub address: *mut u8,
    pub length: u64,
}

#[repr(C)]
pub struct ConstantValue {
    pub index: u32,
    pub bytes: *const c_void,
    pub size: u64,
}

pub mod fault {
    pub const OUT_OF_BOUNDS: u32 = 0;
    pub const NOT_BOUND: u32 = 1;
    pub const RACE: u32 = 2;
    pub const DIVERGENT_BARRIER: u32 = 3;
    pub const DEADLOCK: u32 = 4;
}

pub mod remedy {
    pub const THREADGROUP_BARRIER: u32 = 0;
    pub const SIMDGROUP_BARRIER: u32 = 1;
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Thread {
    pub threadgroup: [u32; 3],
    pub index: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Fault {
    pub kind: u32,
    pub memory: u32,
    pub offset: i64,
    pub bytes: u64,
    pub code: *const c_void,
    pub first: Thread,
    pub second: Thread,
    pub first_wrote: u32,
    pub second_wrote: u32,
    pub remedy: u32,
    pub slot: u32,
    pub returned: u32,
    pub lanes: u32,
}

pub const READ: u32 = 0;
pub const WRITE: u32 = 1;

pub type Accessed = extern "C" fn(context: *mut c_void, memory: u32, usage: u32, start: u64, end: u64);

#[repr(C)]
pub struct Launch {
    pub kernel: *const Kernel,
    pub memories: *const Memory,
    pub memory_count: u64,
    pub buffers: [*mut c_void; SLOTS],
    pub threadgroup: [*mut c_void; SLOTS],
    pub constants: *const ConstantValue,
    pub constant_count: u64,
    pub threadgroup_variables: [*const u8; 2],
    pub threads_per_grid: [u32; 3],
    pub threads_per_threadgroup: [u32; 3],
    pub seed: u64,
    pub context: *mut c_void,
    pub accessed: Accessed,
    pub fault_count: u64,
    pub faults: [Fault; MAX_FAULTS],
}
