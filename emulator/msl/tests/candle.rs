//! All of Candle's Metal sources compile, with all their kernels.

#![allow(clippy::single_range_in_vec_init, reason = "byte ranges are what these tests expect")]

mod support;

use std::path::{Path, PathBuf};
use std::time::Instant;

use support::{Buffer, Run, clean};

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../patched/candle-metal-kernels/src/metal_src")
}

/// Cold, this takes minutes; `emulator/patch.sh --candle` fetches the sources.
#[test]
fn all_sources_compile() {
    let Ok(entries) = std::fs::read_dir(source_folder()) else {
        eprintln!("skipped: run `patch.sh --candle` to fetch Candle's Metal sources");
        return;
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut kernels = 0;
    // utils.metal is an include of an older version: Candle loads it nowhere.
    for path in paths.iter().filter(|path| path.file_stem().is_some_and(|stem| stem != "utils")) {
        let source = std::fs::read_to_string(path).unwrap();
        let start = Instant::now();
        let library = emulator_msl::compile(&source, &support::options());
        let library = library.unwrap_or_else(|error| panic!("{}:\n{error}", path.display()));
        let count = library.function_names().count();
        eprintln!(
            "{:50} {count:5} kernels {:8.3} s",
            path.file_name().unwrap().display(),
            start.elapsed().as_secs_f64()
        );
        assert!(count > 0);
        kernels += count;
    }
    eprintln!("{kernels} kernels");
    assert!(kernels >= 1700);
}

/// `GEMMParams` of mlx_gemm.metal.
fn gemm_parameters(n: i32, tile: i32) -> Vec<u8> {
    let tiles = n / tile;
    let mut bytes = Vec::new();
    for value in [n, n, n, n, n, n, tiles, tiles] {
        bytes.extend(value.to_ne_bytes());
    }
    for stride in [0u64; 3] {
        bytes.extend(stride.to_ne_bytes());
    }
    for value in [0, n / 16, 1, 0] {
        bytes.extend(value.to_ne_bytes());
    }
    bytes
}

/// A 256x256x256 product by MLX's kernel, as Candle launches it.
#[test]
fn a_product_of_matrices() {
    const N: usize = 256;
    let Ok(source) = std::fs::read_to_string(source_folder().join("mlx_gemm.metal")) else {
        eprintln!("skipped: run `patch.sh --candle` to fetch Candle's Metal sources");
        return;
    };
    let library = emulator_msl::compile(&source, &support::options()).unwrap();
    let function = library.function("gemm_nn_f32_f32_64_64_16_2_2").unwrap();
    assert_eq!(function.max_total_threads(), Some(128));
    // As[64 * (16 + 4)] and Bs[16 * (64 + 4)]
    assert_eq!(function.static_threadgroup_bytes(), 4 * (64 * 20 + 16 * 68));

    let random = |seed: u32| -> Vec<f32> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..N * N).map(next).collect()
    };
    let (a, b) = (random(1), random(2));
    let none = || Buffer::of::<u8>(&[]);
    let mut buffers = [
        Buffer::of(&a),
        Buffer::of(&b),
        none(),
        Buffer::of(&vec![f32::NAN; N * N]),
        Buffer::of(&gemm_parameters(N as i32, 64)),
        none(),
        Buffer::of(&[1i32]),
        Buffer::of(&[0u64, 0]),
    ];
    let mut launch = Run::new(&function);
    for (index, value) in [(10, 0), (100, 0), (110, 0), (200, 1), (201, 1), (202, 1), (300, 0)] {
        launch = launch.constant(index, &[value]);
    }
    let start = Instant::now();
    let outcome = clean(launch.threads3([4 * 32, 4 * 2, 2], [32, 2, 2], &mut buffers));
    eprintln!("a product of 256^3: {:.3} s", start.elapsed().as_secs_f64());

    let product: Vec<f32> = buffers[3].elements();
    for i in 0..N {
        for j in 0..N {
            let exact: f64 = (0..N).map(|k| f64::from(a[i * N + k]) * f64::from(b[k * N + j])).sum();
            assert!(
                (f64::from(product[i * N + j]) - exact).abs() < 1e-4,
                "at {i}, {j}: {} for {exact}",
                product[i * N + j]
            );
        }
    }
    let output = outcome.accesses.iter().find(|access| access.region == 3).unwrap();
    assert_eq!((&output.reads[..], &output.writes[..]), (&[][..], &[0..4 * N * N][..]));
}
