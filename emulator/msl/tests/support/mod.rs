//! Buffers and launches for the tests.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::sync::Arc;

use emulator_msl::{Binding, Function, Launch, Library, Options, Outcome, Region, SLOTS, run};

/// Metal 3.1, without `msl-check`: these tests are about running.
pub fn options() -> Options {
    Options { check: false, ..Options::default() }
}

/// Compiles a source that starts with the usual two lines.
pub fn library(body: &str) -> Arc<Library> {
    let source = format!("#include <metal_stdlib>\nusing namespace metal;\n{body}");
    emulator_msl::compile(&source, &options()).unwrap_or_else(|error| panic!("{error}"))
}

/// The one kernel of a source.
pub fn kernel(body: &str) -> Function {
    let library = library(body);
    let name = library.function_names().next().expect("a kernel").to_owned();
    library.function(&name).expect("the kernel")
}

/// A buffer, in words so that it is aligned.
pub struct Buffer {
    words: Vec<u128>,
    length: usize,
}

impl Buffer {
    /// A buffer with these elements.
    pub fn of<T: Copy>(elements: &[T]) -> Self {
        let length = size_of_val(elements);
        let mut words = vec![0u128; length.div_ceil(16)];
        // SAFETY: there is room for the elements, which are plain numbers.
        unsafe { std::ptr::copy_nonoverlapping(elements.as_ptr().cast::<u8>(), words.as_mut_ptr().cast(), length) };
        Buffer { words, length }
    }

    /// Its elements.
    pub fn elements<T: Copy>(&self) -> Vec<T> {
        let count = self.length / size_of::<T>();
        // SAFETY: the words hold `count` plain numbers, and their alignment is enough.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<T>(), count) }.to_vec()
    }
}

/// A launch in the making; slot n is bound to the n-th buffer, whose region has the number n, or to nothing if that
/// buffer is empty.
pub struct Run<'a> {
    function: &'a Function,
    offsets: [usize; SLOTS],
    constants: HashMap<u32, Vec<u8>>,
    threadgroup_bytes: [usize; SLOTS],
    seed: u64,
}

impl<'a> Run<'a> {
    pub fn new(function: &'a Function) -> Self {
        Run { function, offsets: [0; SLOTS], constants: HashMap::new(), threadgroup_bytes: [0; SLOTS], seed: 0 }
    }

    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub fn offset(mut self, slot: usize, offset: usize) -> Self {
        self.offsets[slot] = offset;
        self
    }

    pub fn constant(mut self, index: u32, value: &[u8]) -> Self {
        self.constants.insert(index, value.to_vec());
        self
    }

    pub fn threadgroup(mut self, slot: usize, bytes: usize) -> Self {
        self.threadgroup_bytes[slot] = bytes;
        self
    }

    /// Runs `grid` threads in threadgroups of `group`.
    pub fn threads3(self, grid: [u32; 3], group: [u32; 3], buffers: &mut [Buffer]) -> Outcome {
        let mut bindings = [None; SLOTS];
        for (slot, buffer) in buffers.iter_mut().enumerate().filter(|(_, buffer)| buffer.length > 0) {
            let region = Region { id: slot as u64, address: buffer.words.as_mut_ptr().cast(), length: buffer.length };
            bindings[slot] = Some(Binding { region, offset: self.offsets[slot] });
        }
        let launch = Launch {
            constants: &self.constants,
            buffers: bindings,
            threadgroup_bytes: self.threadgroup_bytes,
            threads_per_grid: grid,
            threads_per_threadgroup: group,
            seed: self.seed,
        };
        // SAFETY: the regions are the buffers, which are borrowed mutably until the end of the launch.
        unsafe { run(self.function, &launch) }
    }

    /// The same in one dimension.
    pub fn threads(self, grid: u32, group: u32, buffers: &mut [Buffer]) -> Outcome {
        self.threads3([grid, 1, 1], [group, 1, 1], buffers)
    }
}

/// The outcome of a launch without faults.
pub fn clean(outcome: Outcome) -> Outcome {
    assert!(outcome.faults.is_empty(), "{}", outcome.faults[0]);
    outcome
}
