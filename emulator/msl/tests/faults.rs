//! What a launch says against wrong kernels, and that its byte ranges are exact.

#![allow(clippy::single_range_in_vec_init, reason = "byte ranges are what these tests expect")]

mod support;

use emulator_msl::{CompileError, Fault, Memory, Outcome, Remedy, compile};
use support::{Buffer, Run, clean, kernel, options};

fn only_fault(outcome: Outcome) -> Fault {
    assert_eq!(outcome.faults.len(), 1, "{:?}", outcome.faults);
    outcome.faults.into_iter().next().unwrap()
}

#[test]
fn a_read_behind_the_end() {
    let kernel = kernel(
        "kernel void f(device const float4* a, device float4* o, uint i [[thread_position_in_grid]]) {\n  o[i] = a[i + 1];\n}",
    );
    let mut buffers = [Buffer::of(&[0f32; 16]), Buffer::of(&[0f32; 16])];
    let fault = only_fault(Run::new(&kernel).threads(4, 4, &mut buffers));
    let Fault::OutOfBounds { line, memory, length, offset, write, thread, .. } = &fault else { panic!("{fault}") };
    assert_eq!((*line, memory), (Some(4), &Some(Memory::Buffer { region: 0, slot: 0 })));
    assert_eq!((*length, *offset, *write, thread.index), (64, 64, false, Some(3)));
    assert_eq!(
        fault.to_string(),
        "kernel `f`, line 4: thread 3 of threadgroup [0, 0, 0] reads 16 bytes out of bounds, at offset 64 of region 0 \
         (buffer 0), which has 64"
    );
}

#[test]
fn a_write_before_the_start() {
    let kernel = kernel("kernel void f(device int* o, uint i [[thread_position_in_grid]]) { o[int(i) - 3] = 1; }");
    let mut buffers = [Buffer::of(&[0i32; 8])];
    let fault = only_fault(Run::new(&kernel).offset(0, 8).threads(4, 4, &mut buffers));
    assert!(matches!(fault, Fault::OutOfBounds { offset: -4, write: true, bytes: 4, .. }), "{fault}");
}

#[test]
fn threadgroup_memory_has_an_end_too() {
    let kernel = kernel(
        "kernel void f(device float* o, threadgroup float* t [[threadgroup(0)]], uint i [[thread_position_in_grid]]) { t[i] = i; o[i] = t[i]; }",
    );
    let mut buffers = [Buffer::of(&[0f32; 8])];
    let fault = only_fault(Run::new(&kernel).threadgroup(0, 28).threads(8, 8, &mut buffers));
    let Fault::OutOfBounds { memory: Some(Memory::Threadgroup(name)), offset: 28, .. } = &fault else {
        panic!("{fault}")
    };
    assert_eq!(name, "t");
}

#[test]
fn an_argument_without_a_buffer() {
    let kernel = kernel("kernel void f(device float* o, constant float& x) { if (o[0] > 0) o[0] = x; }");
    let mut buffers = [Buffer::of(&[0f32])];
    clean(Run::new(&kernel).threads(1, 1, &mut buffers));
    let mut buffers = [Buffer::of(&[1f32])];
    let fault = only_fault(Run::new(&kernel).threads(1, 1, &mut buffers));
    let Fault::NotBound { argument, slot: 1, .. } = &fault else { panic!("{fault}") };
    assert_eq!(argument, "x");
}

#[test]
fn ranges_are_exact() {
    let kernel = kernel(
        "kernel void f(device const half* a, device uchar* o, device float* p, uint i [[thread_position_in_grid]]) {
           if (i % 2) o[i] = uchar(a[2 * i]); else p[i] += 1.0f;
         }",
    );
    let mut buffers = [Buffer::of(&[0u16; 16]), Buffer::of(&[0u8; 9]), Buffer::of(&[0f32; 8])];
    let outcome = clean(Run::new(&kernel).offset(1, 1).seed(5).threads(6, 3, &mut buffers));
    let [a, o, p] = &outcome.accesses[..] else { panic!("{outcome:?}") };
    assert_eq!(a.reads, [4..6, 12..14, 20..22]);
    assert_eq!((&a.writes[..], &o.writes[..]), (&[][..], &[2..3, 4..5, 6..7][..]));
    assert_eq!((&p.reads[..], &p.writes[..]), (&[0..4, 8..12, 16..20][..], &[0..4, 8..12, 16..20][..]));
}

const MISSING_BARRIER: &str = "kernel void f(device float* o, uint i [[thread_position_in_grid]]) {
  threadgroup float tile[64];
  tile[i] = i;
  BARRIER
  o[i] = tile[63 - i];
}";

fn with_barrier(barrier: &str) -> Outcome {
    let kernel = kernel(&MISSING_BARRIER.replace("BARRIER", barrier));
    Run::new(&kernel).threads(64, 64, &mut [Buffer::of(&[0f32; 64])])
}

#[test]
fn a_missing_barrier_is_a_race_in_any_order() {
    clean(with_barrier("threadgroup_barrier(mem_flags::mem_threadgroup);"));
    for wrong in ["", "threadgroup_barrier(mem_flags::mem_device);", "simdgroup_barrier(mem_flags::mem_threadgroup);"] {
        let outcome = with_barrier(wrong);
        let fault = outcome.faults.first().unwrap_or_else(|| panic!("no race with '{wrong}'"));
        let Fault::Race { memory, remedy: Remedy::ThreadgroupBarrier, .. } = fault else { panic!("{fault}") };
        assert_eq!(memory, &Memory::Threadgroup("tile".to_owned()));
        assert!(fault.to_string().contains("threadgroup_barrier(mem_flags::mem_threadgroup) is missing"), "{fault}");
    }
}

#[test]
fn a_simdgroup_barrier_orders_its_lanes() {
    let source = |barrier: &str| {
        format!(
            "kernel void f(device float* o, uint i [[thread_position_in_grid]]) {{
               o[i] = i; {barrier} float x = o[i ^ 1]; simdgroup_barrier(mem_flags::mem_device); o[i] = x; }}"
        )
    };
    let run = |barrier: &str, seed| {
        let kernel = kernel(&source(barrier));
        let mut buffers = [Buffer::of(&[0f32; 64])];
        (Run::new(&kernel).seed(seed).threads(64, 64, &mut buffers), buffers[0].elements::<f32>())
    };
    for seed in [0, 9] {
        let (outcome, o) = run("simdgroup_barrier(mem_flags::mem_device);", seed);
        clean(outcome);
        assert_eq!(o[6], 7.0);
    }
    let (outcome, _) = run("", 0);
    let fault = &outcome.faults[0];
    assert!(matches!(fault, Fault::Race { remedy: Remedy::SimdgroupBarrier, .. }), "{fault}");
}

#[test]
fn threadgroups_race() {
    let kernel = kernel(
        "kernel void f(device float* o, uint i [[thread_position_in_grid]], uint t [[thread_index_in_threadgroup]]) { o[t] = i; }",
    );
    for seed in [0, 4] {
        let outcome = Run::new(&kernel).seed(seed).threads(16, 8, &mut [Buffer::of(&[0f32; 8])]);
        let fault = only_fault(outcome);
        let Fault::Race { bytes, first, second, remedy: Remedy::Split, .. } = &fault else { panic!("{fault}") };
        assert_eq!(*bytes, 0..32);
        assert_ne!(first.threadgroup, second.threadgroup);
        assert!(fault.to_string().contains("no barrier can order them"));
    }
}

#[test]
fn a_reader_among_many_is_not_forgotten() {
    let kernel = kernel(
        "kernel void f(device float* o, device float* r, uint i [[thread_position_in_grid]]) { r[i] = o[0]; if (i == 39) o[0] = 1; }",
    );
    let outcome = Run::new(&kernel).threads(40, 40, &mut [Buffer::of(&[0f32]), Buffer::of(&[0f32; 40])]);
    let fault = only_fault(outcome);
    assert!(matches!(fault, Fault::Race { first_wrote: false, second_wrote: true, .. }), "{fault}");
}

#[test]
fn an_atomic_and_a_plain_access_race() {
    let kernel = kernel(
        "kernel void f(device atomic_uint* n, uint i [[thread_position_in_grid]]) {
           if (i) atomic_fetch_add_explicit(n, 1, memory_order_relaxed); else *(device uint*)n = 5;
         }",
    );
    let outcome = Run::new(&kernel).threads(2, 2, &mut [Buffer::of(&[0u32])]);
    assert!(matches!(only_fault(outcome), Fault::Race { .. }));
}

#[test]
fn a_barrier_that_not_all_threads_reach() {
    let early = kernel(
        "kernel void f(device int* o, uint i [[thread_position_in_grid]]) {\n  if (i > 3) return;\n  threadgroup_barrier(mem_flags::mem_none);\n  o[i] = i;\n}",
    );
    let fault = only_fault(Run::new(&early).threads(8, 8, &mut [Buffer::of(&[0i32; 8])]));
    let Fault::DivergentBarrier { line, waiting: 4, returned: 4, threads: 8, .. } = fault else { panic!("{fault}") };
    assert_eq!(line, Some(5));
    let two = kernel(
        "kernel void f(device int* o, uint i [[thread_position_in_grid]]) { if (i & 1) { o[i] = 1; threadgroup_barrier(mem_flags::mem_device); o[i] = 2; } else { threadgroup_barrier(mem_flags::mem_none); o[i] = 3; } }",
    );
    let fault = only_fault(Run::new(&two).threads(8, 8, &mut [Buffer::of(&[0i32; 8])]));
    assert!(matches!(fault, Fault::DivergentBarrier { waiting: 4, returned: 0, .. }), "{fault}");
}

#[test]
fn a_value_that_nobody_writes() {
    let kernel = kernel(
        "kernel void f(device atomic_uint* n) { while (atomic_load_explicit(n, memory_order_relaxed) == 0) {} }",
    );
    assert!(matches!(only_fault(Run::new(&kernel).threads(2, 2, &mut [Buffer::of(&[0u32])])), Fault::Deadlock { .. }));
}

#[test]
fn too_much_private_memory() {
    let kernel = kernel(
        "kernel void f(device int* o, uint i [[thread_position_in_grid]]) { volatile int big[200000]; big[i] = 1; o[i] = big[i]; }",
    );
    let fault = only_fault(Run::new(&kernel).threads(2, 2, &mut [Buffer::of(&[0i32; 2])]));
    assert!(matches!(fault, Fault::StackOverflow { .. }), "{fault}");
}

#[test]
fn uninitialised_threadgroup_memory_is_nan() {
    let kernel =
        kernel("kernel void f(device float* o) { threadgroup float t[2]; t[0] = 1; o[0] = t[0]; o[1] = t[1]; }");
    let mut buffers = [Buffer::of(&[0f32; 2])];
    clean(Run::new(&kernel).threads(1, 1, &mut buffers));
    assert!(buffers[0].elements::<f32>()[1].is_nan());
}

#[test]
fn an_error_has_its_line() {
    let source = "#include <metal_stdlib>\nusing namespace metal;\n#define TWICE(x) ((x) * \\\n  2)\n/* a\n comment */\nkernel void f(device float* o) {\n  o[0] = TWICE(missing);\n}\n";
    let error = compile(source, &options()).unwrap_err();
    assert!(matches!(error, CompileError::Source(_)));
    let text = error.to_string();
    assert!(text.starts_with("program_source:8:"), "{text}");
    assert!(text.contains("error: use of undeclared identifier 'missing'\n  o[0] = TWICE(missing);"), "{text}");
}

#[test]
fn a_missing_header_and_a_texture_are_refused() {
    let text = |source: &str| compile(source, &options()).unwrap_err().to_string();
    assert!(text("#include \"other.h\"\n").starts_with("program_source:1:10: fatal error: 'other.h' file not found"));
    let texture = "#include <metal_stdlib>\nkernel void f(\n  metal::texture2d<float> t [[texture(0)]]) {}";
    assert!(text(texture).starts_with("program_source:3:1: error: parameter 't': [[texture]] is not supported"));
}

#[test]
fn msl_check_has_its_say() {
    let source =
        "#include <metal_stdlib>\nkernel void f(device float* o [[buffer(0)]]) {\n  float* p = o;\n  p[0] = 1;\n}";
    let checked = emulator_msl::Options { check: true, ..options() };
    let text = compile(source, &checked).unwrap_err().to_string();
    assert!(text.contains("program_source:3:") && text.contains("address space"), "{text}");
    assert!(compile(source, &options()).is_ok());
}
