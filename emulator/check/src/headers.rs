//! The headers of this package on disk: unpacked once, and precompiled.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::{env, fs, process, thread};

use crate::clang::Clang;
use crate::process::run;

/// What Metal's headers are called; each one brings all macros, since the types and functions are always there.
const METAL_HEADERS: [&str; 31] = [
    "metal_array",
    "metal_assert",
    "metal_atomic",
    "metal_common",
    "metal_compute",
    "metal_config",
    "metal_cooperative_tensor",
    "metal_curves",
    "metal_extended_vector",
    "metal_function_pointer",
    "metal_geometric",
    "metal_graphics",
    "metal_integer",
    "metal_limits",
    "metal_logging",
    "metal_math",
    "metal_matrix",
    "metal_numeric",
    "metal_pack",
    "metal_packed_vector",
    "metal_raytracing",
    "metal_relational",
    "metal_simdgroup",
    "metal_simdgroup_matrix",
    "metal_stdlib",
    "metal_tensor",
    "metal_texture",
    "metal_type_traits",
    "metal_types",
    "simd/simd.h",
    "MetalPerformancePrimitives/MetalPerformancePrimitives.h",
];

/// Declarations for clang, one file per topic, in the order in which they build on each other.
const DECLARATIONS: [(&str, &str); 16] = [
    ("address_spaces.h", include_str!("../include/address_spaces.h")),
    ("scalars.h", include_str!("../include/scalars.h")),
    ("traits.h", include_str!("../include/traits.h")),
    ("vectors.h", include_str!("../include/vectors.h")),
    ("limits.h", include_str!("../include/limits.h")),
    ("math.h", include_str!("../include/math.h")),
    ("integer.h", include_str!("../include/integer.h")),
    ("relational.h", include_str!("../include/relational.h")),
    ("matrices.h", include_str!("../include/matrices.h")),
    ("atomics.h", include_str!("../include/atomics.h")),
    ("barriers.h", include_str!("../include/barriers.h")),
    ("simdgroup.h", include_str!("../include/simdgroup.h")),
    ("simdgroup_matrix.h", include_str!("../include/simdgroup_matrix.h")),
    ("logging.h", include_str!("../include/logging.h")),
    ("textures.h", include_str!("../include/textures.h")),
    ("tensor.h", include_str!("../include/tensor.h")),
];

const MACROS: &str = include_str!("../include/macros.h");

/// How clang reads Metal: C++ for OpenCL has address spaces as true qualifiers.
///
/// x86-64 is the target that has `__bf16`; doubles are switched off, and what OpenCL restricts beyond Metal is on.
pub const LANGUAGE: [&str; 10] = [
    "-x",
    "clcpp",
    "-cl-std=clc++2021",
    "-cl-no-stdinc",
    "--target=x86_64-unknown-linux-gnu",
    "-Xclang",
    "-cl-ext=-cl_khr_fp64,-__opencl_c_fp64,+cl_khr_fp16,+__cl_clang_function_pointers,+__cl_clang_variadic_functions",
    "-Xclang",
    "-cl-single-precision-constant",
    "-fno-color-diagnostics",
];

/// The headers, ready for use.
pub struct Headers {
    folder: PathBuf,
}

impl Headers {
    /// Finds the headers in the cache, or writes them there and precompiles them.
    pub fn for_clang(clang: &Clang) -> io::Result<Headers> {
        let mut hasher = DefaultHasher::new();
        (DECLARATIONS, MACROS, METAL_HEADERS, LANGUAGE, &clang.path, &clang.full_version).hash(&mut hasher);
        let cache = cache_folder();
        let folder = cache.join(format!("check-{:016x}", hasher.finish()));
        let headers = Headers { folder };
        if !headers.precompiled().is_file() {
            headers.write(clang)?;
        }
        Ok(headers)
    }

    /// The folder of Metal's headers for the preprocessor: macros only.
    pub fn macros(&self) -> &Path {
        &self.folder
    }

    /// The declarations, precompiled.
    pub fn precompiled(&self) -> PathBuf {
        self.folder.join("metal.pch")
    }

    /// Writes all headers and precompiles the declarations.
    ///
    /// Two processes may do this at the same time: they write the same, and the precompiled header comes last.
    fn write(&self, clang: &Clang) -> io::Result<()> {
        let declarations = self.folder.join("declarations");
        fs::create_dir_all(&declarations)?;
        for folder in ["simd", "MetalPerformancePrimitives"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        fs::write(self.folder.join("metal_macros.h"), MACROS)?;
        for name in METAL_HEADERS {
            fs::write(self.folder.join(name), "#include <metal_macros.h>\n")?;
        }
        let mut all = String::new();
        for (name, text) in DECLARATIONS {
            fs::write(declarations.join(name), text)?;
            all.push_str(&format!("#include \"{name}\"\n"));
        }
        let unfinished = self.folder.join(format!("{}-{:?}.pch", process::id(), thread::current().id()));
        let mut arguments: Vec<OsString> = LANGUAGE.map(OsString::from).into();
        // Without time stamps a header that is written again does not spoil what was precompiled.
        arguments.extend(["-Xclang", "-fno-pch-timestamp", "-Xclang", "-emit-pch", "-c"].map(OsString::from));
        arguments.extend(["-I".into(), declarations.into(), "-o".into(), unfinished.clone().into(), "-".into()]);
        let output = run(clang, &arguments, &all)?;
        if !output.success {
            return Err(io::Error::other(format!("the headers of msl-check do not compile:\n{}", output.stderr)));
        }
        fs::rename(unfinished, self.precompiled())
    }
}

/// `$METAL_EMULATOR_CACHE`, else `$XDG_CACHE_HOME/metal-emulator`, else `~/.cache/metal-emulator`.
fn cache_folder() -> PathBuf {
    let named = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("METAL_EMULATOR_CACHE")
        .or_else(|| Some(named("XDG_CACHE_HOME")?.join("metal-emulator")))
        .or_else(|| Some(named("HOME")?.join(".cache/metal-emulator")))
        .unwrap_or_else(|| env::temp_dir().join("metal-emulator"))
}
