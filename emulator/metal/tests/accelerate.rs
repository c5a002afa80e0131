//! `cblas_sgemm`: right for every layout, strict about its arguments, and told apart from pending work of the GPU.

mod harness;

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use harness::*;
use metal_emulator::{Rule, Settings, Watch, region, watch};
use objc2_metal::*;

unsafe extern "C-unwind" {
    #[rustfmt::skip]
    fn cblas_sgemm(
        order: c_int,
        trans_a: c_int,
        trans_b: c_int,
        m: c_int,
        n: c_int,
        k: c_int,
        alpha: f32,
        a: *const f32,
        lda: c_int,
        b: *const f32,
        ldb: c_int,
        beta: f32,
        c: *mut f32,
        ldc: c_int,
    );
}

/// A 2x2 product of plain row-major matrices.
fn square(a: *const f32, b: *const f32, c: *mut f32) {
    // SAFETY: the tests pass four numbers each.
    unsafe { cblas_sgemm(101, 111, 111, 2, 2, 2, 1.0, a, 2, b, 2, 0.0, c, 2) }
}

#[test]
fn every_layout_gives_the_same_product() {
    let _watch = watch(Settings::default());
    // A [2, 3] and B [3, 4] by rows, and by columns.
    let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0f32];
    let a_turned = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0f32];
    let b: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let b_turned: Vec<f32> = (0..12).map(|i| ((i % 3) * 4 + i / 3) as f32).collect();
    let expected = [32.0, 38.0, 44.0, 50.0, 68.0, 83.0, 98.0, 113.0f32];
    for columns in [false, true] {
        for (turn_a, turn_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let (a, lda) = if turn_a != columns { (&a_turned, 2) } else { (&a, 3) };
            let (b, ldb) = if turn_b != columns { (&b_turned, 3) } else { (&b, 4) };
            let (order, ldc) = if columns { (102, 2) } else { (101, 4) };
            let trans = |turn| if turn { 112 } else { 111 };
            let mut c = [1.0f32; 8];
            let (ta, tb) = (trans(turn_a), trans(turn_b));
            // SAFETY: the matrices are as large as that.
            unsafe {
                cblas_sgemm(order, ta, tb, 2, 4, 3, 2.0, a.as_ptr(), lda, b.as_ptr(), ldb, 0.5, c.as_mut_ptr(), ldc);
            }
            for (i, value) in expected.iter().enumerate() {
                let at = if columns { i % 4 * 2 + i / 4 } else { i };
                assert_eq!(c[at], 2.0 * value + 0.5, "columns {columns}, {turn_a}, {turn_b}, {i}");
            }
        }
    }
}

#[test]
fn a_factor_of_zero_hides_what_it_multiplies() {
    let _watch = watch(Settings::default());
    let (numbers, nan) = ([1.0f32; 4], [f32::NAN; 4]);
    let mut c = nan;
    square(numbers.as_ptr(), numbers.as_ptr(), c.as_mut_ptr());
    assert_eq!(c, [2.0; 4]);
    let mut c = [3.0f32; 4];
    // SAFETY: four numbers each.
    unsafe { cblas_sgemm(101, 111, 111, 2, 2, 2, 0.0, nan.as_ptr(), 2, nan.as_ptr(), 2, 2.0, c.as_mut_ptr(), 2) };
    assert_eq!(c, [6.0; 4]);
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let _watch = watch(Settings::default());
    let x = [1.0f32; 16];
    let mut y = [0.0f32; 16];
    let (a, c) = (x.as_ptr(), y.as_mut_ptr());
    #[expect(clippy::type_complexity, reason = "one list of arguments")]
    let cases: [(&str, (c_int, c_int, [c_int; 3], *const f32, [c_int; 3], *mut f32)); 7] = [
        ("order is 7", (7, 111, [2, 2, 2], a, [2, 2, 2], c)),
        ("transa is 0", (101, 0, [2, 2, 2], a, [2, 2, 2], c)),
        ("m is -1", (101, 111, [-1, 2, 2], a, [2, 2, 2], c)),
        ("lda is 2, less than 3", (101, 111, [2, 2, 3], a, [2, 2, 2], c)),
        ("ldc is 0", (101, 111, [2, 0, 2], a, [2, 2, 0], c)),
        ("a is null", (101, 111, [2, 2, 2], std::ptr::null(), [2, 2, 2], c)),
        ("c overlaps", (101, 111, [2, 2, 2], a, [2, 2, 2], a.cast_mut())),
    ];
    for (expected, (order, trans, [m, n, k], a, [lda, ldb, ldc], c)) in cases {
        // SAFETY: refused before anything is touched.
        let call = || unsafe { cblas_sgemm(order, trans, 111, m, n, k, 1.0, a, lda, x.as_ptr(), ldb, 0.0, c, ldc) };
        let panic = catch_unwind(AssertUnwindSafe(call)).expect_err(expected);
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(text.contains(expected), "{text}");
    }
}

/// Encodes y = x + 1 for 64 numbers, and commits.
fn commit(device: &Device, queue: &Queue, x: &Buffer, y: &Buffer) -> CommandBuffer {
    let add = pipeline(device, "add_one");
    let commands = queue.commandBuffer().unwrap();
    let encoder = commands.computeCommandEncoder().unwrap();
    add_one(&encoder, &add, (x, 0), (y, 0), 64);
    encoder.endEncoding();
    commands.commit();
    commands
}

type CommandBuffer = objc2::rc::Retained<objc2::runtime::ProtocolObject<dyn MTLCommandBuffer>>;

/// Metal's memory without asking for `contents`, which is watched itself: taken before the GPU uses it.
fn numbers(buffer: &Buffer) -> *mut f32 {
    buffer.contents().as_ptr().cast()
}

fn found(watch: &Watch) {
    watch.assert_found(Rule::HostAccess);
    let text = watch.reports()[0].to_string();
    assert!(text.contains("cblas_sgemm 2x2x2") && text.contains("`add_one`"), "{text}");
}

#[test]
fn what_the_gpu_still_uses_is_a_hazard() {
    for seed in 0..4 {
        // The product reads what the GPU writes.
        let watch = watch(Settings::seeded(seed));
        let device = device();
        let queue = device.newCommandQueue().unwrap();
        let (x, y) = (buffer(&device, &[1.0; 64], SHARED), empty(&device, 64, SHARED));
        let (gpu, mut c) = (numbers(&y), [0.0f32; 4]);
        let commands = commit(&device, &queue, &x, &y);
        square(gpu, [1.0f32; 4].as_ptr(), c.as_mut_ptr());
        commands.waitUntilCompleted();
        found(&watch);
        drop(watch);

        // It writes what the GPU reads.
        let watch = metal_emulator::watch(Settings::seeded(seed));
        let (x, y) = (buffer(&device, &[1.0; 64], SHARED), empty(&device, 64, SHARED));
        let gpu = numbers(&x);
        let commands = commit(&device, &queue, &x, &y);
        square([1.0f32; 4].as_ptr(), [1.0f32; 4].as_ptr(), gpu);
        commands.waitUntilCompleted();
        found(&watch);
        drop(watch);

        // Beside what the GPU uses, after it was waited for, and before it is committed, all is well.
        let watch = metal_emulator::watch(Settings::seeded(seed));
        let (x, y) = (buffer(&device, &[1.0; 128], SHARED), buffer(&device, &[0.0; 128], SHARED));
        let (read, write) = (numbers(&x), numbers(&y));
        let commands = commit(&device, &queue, &x, &y);
        let (counts, ()) = region(|| square(read.wrapping_add(64), read.wrapping_add(64), write.wrapping_add(64)));
        assert_eq!((counts.gpu.cpu_products, counts.gpu.waits), (1, 0));
        commands.waitUntilCompleted();
        square(write, write, read);
        commit(&device, &queue, &x, &y).waitUntilCompleted();
        watch.assert_clean();
        assert_eq!(harness::read(&y)[..5], [9.0, 9.0, 9.0, 9.0, 2.0]);
    }
}

#[test]
fn the_end_of_a_buffer_is_watched() {
    let watch = watch(Settings::default());
    let device = device();
    let x = buffer(&device, &[1.0; 5], SHARED);
    let mut c = [0.0f32; 4];
    // The memory goes on to its page's end.
    square(numbers(&x).wrapping_add(2), [1.0f32; 4].as_ptr(), c.as_mut_ptr());
    watch.assert_found(Rule::OutOfBounds);
}
