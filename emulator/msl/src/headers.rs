//! The C++ side, carried in the binary and written out where clang can read it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! files {
    ($($path:literal),* $(,)?) => { [$(($path, include_str!(concat!("../", $path)))),*] };
}

/// All files, by their path under the folder they are written to.
pub const FILES: [(&str, &str); 29] = files![
    "include/metal_stdlib.h",
    "include/emulator/abi.h",
    "include/emulator/entry.h",
    "include/emulator/lane.h",
    "include/metal/array.h",
    "include/metal/atomic.h",
    "include/metal/barrier.h",
    "include/metal/common.h",
    "include/metal/geometric.h",
    "include/metal/integer.h",
    "include/metal/limits.h",
    "include/metal/math.h",
    "include/metal/matrix.h",
    "include/metal/pack.h",
    "include/metal/packed_vector.h",
    "include/metal/relational.h",
    "include/metal/scalar.h",
    "include/metal/simdgroup.h",
    "include/metal/simdgroup_matrix.h",
    "include/metal/tensor.h",
    "include/metal/vector.h",
    "runtime/bfloat.cpp",
    "runtime/hooks.cpp",
    "runtime/runtime.cpp",
    "runtime/scheduler.cpp",
    "runtime/shadow.cpp",
    "runtime/shadow.h",
    "runtime/simdgroup_matrix.cpp",
    "runtime/state.h",
];

/// The headers that a Metal source may include: empty for the preprocessor, because [`FILES`] stand in for all.
const METAL_HEADERS: [&str; 25] = [
    "metal_stdlib",
    "metal_array",
    "metal_atomic",
    "metal_command_buffer",
    "metal_common",
    "metal_compute",
    "metal_config",
    "metal_extended_vector",
    "metal_geometric",
    "metal_graphics",
    "metal_integer",
    "metal_limits",
    "metal_math",
    "metal_matrix",
    "metal_numeric",
    "metal_pack",
    "metal_quadgroup",
    "metal_relational",
    "metal_simdgroup",
    "metal_simdgroup_matrix",
    "metal_texture",
    "metal_type_traits",
    "metal_types",
    "metal_uniform",
    "simd/simd.h",
];

/// Those of Metal 4, for which `include/metal/tensor.h` stands in.
const METAL_4_HEADERS: [&str; 2] = ["metal_tensor", "MetalPerformancePrimitives/MetalPerformancePrimitives.h"];

/// The folder of the empty headers.
pub const EMPTY: &str = "empty";
/// And of those that sources in Metal 4 may include as well.
pub const EMPTY_4: &str = "empty4";

/// Writes all files under a folder; those that are there stay.
pub fn write(folder: &Path) -> io::Result<()> {
    for (path, text) in FILES {
        write_file(&folder.join(path), text)?;
    }
    for name in METAL_HEADERS {
        write_file(&folder.join(EMPTY).join(name), "")?;
    }
    for name in METAL_4_HEADERS {
        write_file(&folder.join(EMPTY_4).join(name), "")?;
    }
    Ok(())
}

/// Another process may read or write the same file: it appears whole or not at all.
fn write_file(path: &Path, text: &str) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    if fs::read(path).is_ok_and(|present| present == text.as_bytes()) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    fs::write(&temporary, text)?;
    fs::rename(&temporary, path)
}
