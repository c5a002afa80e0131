//! Threadgroups, SIMD groups, atomics, function constants: what lanes do together.

#![allow(clippy::single_range_in_vec_init, reason = "byte ranges are what these tests expect")]

mod support;

use support::{Buffer, Run, clean, kernel, library};

const SEEDS: [u64; 5] = [0, 1, 2, 3, 0xDEAD_BEEF];

const SUM: &str = "kernel void sum(device const float* a [[buffer(0)]], device float* o [[buffer(1)]],
    uint i [[thread_position_in_grid]], uint t [[thread_index_in_threadgroup]], uint g [[threadgroup_position_in_grid]],
    uint n [[threads_per_threadgroup]]) {
  threadgroup float tile[128];
  tile[t] = a[i];
  for (uint s = n / 2; s > 0; s /= 2) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (t < s) tile[t] += tile[t + s];
  }
  if (t == 0) o[g] = tile[0];
}";

#[test]
fn a_reduction_in_threadgroup_memory_in_any_order() {
    let kernel = kernel(SUM);
    assert_eq!(kernel.static_threadgroup_bytes(), 512);
    for seed in SEEDS {
        let input: Vec<f32> = (0..512).map(|i| i as f32).collect();
        let mut buffers = [Buffer::of(&input), Buffer::of(&[0f32; 4])];
        clean(Run::new(&kernel).seed(seed).threads(512, 128, &mut buffers));
        assert_eq!(buffers[1].elements::<f32>(), [8128.0, 24512.0, 40896.0, 57280.0], "seed {seed}");
    }
}

#[test]
fn positions_in_three_dimensions_and_smaller_groups_at_the_end() {
    let kernel = kernel(
        "kernel void f(device uint* o, uint3 p [[thread_position_in_grid]], uint3 n [[threads_per_grid]],
             ushort3 l [[thread_position_in_threadgroup]], uint3 s [[threads_per_threadgroup]],
             uint3 d [[dispatch_threads_per_threadgroup]], uint2 groups [[threadgroups_per_grid]],
             uint t [[thread_index_in_threadgroup]]) {
           o[(p.z * n.y + p.y) * n.x + p.x] = l.x | l.y << 4 | s.x << 8 | s.y << 12 | d.x << 16 | groups.x << 20 | t << 24;
         }",
    );
    let mut buffers = [Buffer::of(&[0u32; 5 * 3 * 2])];
    clean(Run::new(&kernel).seed(3).threads3([5, 3, 2], [4, 2, 1], &mut buffers));
    let o: Vec<u32> = buffers[0].elements();
    let at = |x: usize, y: usize, z: usize| o[(z * 3 + y) * 5 + x];
    assert_eq!(at(3, 1, 0), 3 | 1 << 4 | 4 << 8 | 2 << 12 | 4 << 16 | 2 << 20 | 7 << 24);
    assert_eq!(at(4, 2, 1), 1 << 8 | 1 << 12 | 4 << 16 | 2 << 20);
}

#[test]
fn simd_functions() {
    let kernel = kernel(
        "kernel void f(device uint* o, uint i [[thread_index_in_simdgroup]]) {
           device uint* r = o + i * 16;
           r[0] = simd_sum(i); r[1] = simd_max(i); r[2] = simd_prefix_inclusive_sum(i); r[3] = simd_prefix_exclusive_sum(1u);
           r[4] = simd_shuffle_xor(i, 1); r[5] = simd_shuffle_down(i, 2); r[6] = simd_shuffle_up(i, 1);
           r[7] = simd_broadcast(i, 7); r[8] = simd_shuffle_rotate_down(i, 1); r[9] = quad_sum(i);
           r[10] = (simd_vote::vote_t)simd_ballot(i & 1); r[11] = simd_all(i < 32) + 2 * simd_any(i == 40);
           r[12] = simd_shuffle_and_fill_down(i, i + 100, 2); r[13] = quad_shuffle_xor(i, 3);
           r[14] = (i & 1) ? simd_sum(1u) : 0; r[15] = simd_is_first();
         }",
    );
    for seed in SEEDS {
        let mut buffers = [Buffer::of(&[0u32; 32 * 16])];
        clean(Run::new(&kernel).seed(seed).threads(32, 32, &mut buffers));
        let o: Vec<u32> = buffers[0].elements();
        for i in 0..32u32 {
            let expected = [
                496,
                31,
                i * (i + 1) / 2,
                i,
                i ^ 1,
                if i < 30 { i + 2 } else { i },
                i.saturating_sub(1),
                7,
                (i + 1) % 32,
                (i & !3) * 4 + 6,
                0xAAAA_AAAA,
                1,
                if i < 30 { i + 2 } else { i - 30 + 100 },
                i ^ 3,
                (i & 1) * 16,
                u32::from(i == 0),
            ];
            assert_eq!(o[i as usize * 16..][..16], expected, "lane {i}, seed {seed}");
        }
    }
}

#[test]
fn a_value_from_a_lane_that_is_not_there_is_nan() {
    let kernel = kernel(
        "kernel void f(device float* o, uint i [[thread_position_in_grid]]) { o[i] = simd_shuffle_down(1.0f, 16); }",
    );
    let mut buffers = [Buffer::of(&[0f32; 20])];
    clean(Run::new(&kernel).threads(20, 20, &mut buffers));
    let o: Vec<f32> = buffers[0].elements();
    assert!(o[3] == 1.0 && o[4].is_nan() && o[15].is_nan() && o[19] == 1.0, "{o:?}");
}

#[test]
fn a_product_of_simdgroup_matrices() {
    let kernel = kernel(
        "kernel void f(device const float* a, device const float* b, device float* o) {
           simdgroup_float8x8 x, y, z = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
           for (uint k = 0; k < 16; k += 8) {
             simdgroup_load(x, a, 16, ulong2(k, 0));
             simdgroup_load(y, b, 16, ulong2(k, 0), true);
             simdgroup_multiply_accumulate(z, x, y, z);
           }
           simdgroup_store(z, o, 8);
         }",
    );
    let a: Vec<f32> = (0..8 * 16).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
    let b: Vec<f32> = (0..8 * 16).map(|i| (i * 5 % 11) as f32 / 4.0).collect();
    for seed in SEEDS {
        let mut buffers = [Buffer::of(&a), Buffer::of(&b), Buffer::of(&[0f32; 64])];
        let outcome = clean(Run::new(&kernel).seed(seed).threads(32, 32, &mut buffers));
        let o: Vec<f32> = buffers[2].elements();
        for (i, got) in o.iter().enumerate() {
            // The second factor is stored transposed.
            let exact: f64 = (0..16).map(|k| f64::from(a[i / 8 * 16 + k]) * f64::from(b[i % 8 * 16 + k])).sum();
            assert_eq!(f64::from(*got), exact, "element {i}, seed {seed}");
        }
        assert_eq!(outcome.accesses[2].writes, [0..256]);
    }
}

#[test]
fn atomics_count_every_lane() {
    let kernel = kernel(
        "kernel void f(device atomic_uint* n, device atomic_float* x, device atomic_int* low, uint i [[thread_position_in_grid]]) {
           atomic_fetch_add_explicit(n, 1, memory_order_relaxed);
           atomic_fetch_add_explicit(x, 0.5f, memory_order_relaxed);
           atomic_fetch_min_explicit(low, -int(i), memory_order_relaxed);
           uint seen = 0;
           while (!atomic_compare_exchange_weak_explicit(n + 1, &seen, seen + 2, memory_order_relaxed, memory_order_relaxed)) {}
         }",
    );
    for seed in SEEDS {
        let mut buffers = [Buffer::of(&[0u32; 2]), Buffer::of(&[0f32]), Buffer::of(&[0i32])];
        let outcome = clean(Run::new(&kernel).seed(seed).threads(200, 64, &mut buffers));
        assert_eq!(buffers[0].elements::<u32>(), [200, 400]);
        assert_eq!((buffers[1].elements::<f32>(), buffers[2].elements::<i32>()), (vec![100.0], vec![-199]));
        let access = &outcome.accesses[0];
        assert_eq!((&access.reads[..], &access.writes[..], &access.atomics[..]), (&[][..], &[][..], &[0..8][..]));
    }
}

#[test]
fn a_lane_that_waits_for_another_one() {
    let kernel = kernel(
        "kernel void f(device atomic_uint* flag, device uint* o, uint i [[thread_position_in_grid]]) {
           if (i == 0) while (atomic_load_explicit(flag, memory_order_relaxed) == 0) {}
           if (i == 40) atomic_store_explicit(flag, 1, memory_order_relaxed);
           o[i] = i;
         }",
    );
    let mut buffers = [Buffer::of(&[0u32]), Buffer::of(&[0u32; 64])];
    clean(Run::new(&kernel).threads(64, 64, &mut buffers));
    assert_eq!(buffers[1].elements::<u32>()[63], 63);
}

#[test]
fn function_constants() {
    let library = library(
        "constant bool scale [[function_constant(1)]];
         constant float factor [[function_constant(2)]];
         constant bool both = scale && is_function_constant_defined(factor);
         kernel void f(device float* o, device const float* extra [[buffer(1), function_constant(scale)]]) {
           o[0] = both ? factor : -1.0f; o[1] = is_function_constant_defined(scale); if (scale) o[2] = extra[0];
         }",
    );
    let function = library.function("f").unwrap();
    let names: Vec<_> =
        function.constants().iter().map(|c| (c.name.as_str(), c.index, c.size, c.type_name.as_str())).collect();
    assert_eq!(names, [("scale", 1, 1, "bool"), ("factor", 2, 4, "float")]);
    assert!(function.arguments()[1].optional);
    let run = |run: Run<'_>, extra: &[f32]| {
        let mut buffers = [Buffer::of(&[0f32; 3]), Buffer::of(extra)];
        let outcome = run.threads(1, 1, &mut buffers);
        (buffers[0].elements::<f32>(), outcome.faults.len())
    };
    assert_eq!(run(Run::new(&function), &[]), (vec![-1.0, 0.0, 0.0], 0));
    let on = Run::new(&function).constant(1, &[1]).constant(2, &2.5f32.to_ne_bytes());
    assert_eq!(run(on, &[7.0]), (vec![2.5, 1.0, 7.0], 0));
    assert_eq!(run(Run::new(&function).constant(1, &[1]), &[]).1, 1, "an argument that exists must be bound");
}

#[test]
fn templates_with_host_names_and_limits() {
    let library = library(
        "template <typename T, int N> [[kernel, max_total_threads_per_threadgroup(N * 32)]]
         void fill(device T* o [[buffer(0)]], constant T& x [[buffer(1)]], uint i [[thread_position_in_grid]]) { o[i] = x * T(N); }
         template [[host_name(\"fill_float\")]] [[kernel]] decltype(fill<float, 2>) fill<float, 2>;
         typedef decltype(fill<int, 3>) fill_t;
         template [[host_name(\"fill_int\")]] kernel fill_t fill<int, 3>;
         [[host_name(\"other\")]] kernel void named() {}",
    );
    let mut names: Vec<_> = library.function_names().collect();
    names.sort_unstable();
    assert_eq!(names, ["fill_float", "fill_int", "other"]);
    let function = library.function("fill_int").unwrap();
    assert_eq!(function.max_total_threads(), Some(96));
    assert_eq!((function.arguments()[1].size, function.arguments()[0].alignment), (4, 4));
    let mut buffers = [Buffer::of(&[0i32; 2]), Buffer::of(&[5i32])];
    clean(Run::new(&function).threads(2, 2, &mut buffers));
    assert_eq!(buffers[0].elements::<i32>(), [15, 15]);
    assert!(library.function("missing").is_none());
}
