//! The kernels' text, assembled for one GPU or the other.

use candlewick_core::DType;

/// Which language a source is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The Metal Shading Language, version 3.0 or later, compiled with fast math off: NaN and infinities count.
    Metal,
    /// CUDA C++ for NVRTC: C++17, no headers, sm_70 or later (checked for sm_80 and sm_90).
    Cuda,
}

/// A file of kernels: what a backend compiles, and keeps, as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // The names are those of the files in `kernels/`.
pub enum File {
    Softmax,
    RmsNorm,
    Product,
    Dots,
    Columns,
    Lora,
    Copy,
}

impl File {
    /// Every file.
    pub const ALL: [File; 7] =
        [File::Softmax, File::RmsNorm, File::Product, File::Dots, File::Columns, File::Lora, File::Copy];

    /// `softmax`, ..: the file's name without `.h`.
    pub const fn name(self) -> &'static str {
        match self {
            File::Softmax => "softmax",
            File::RmsNorm => "rms_norm",
            File::Product => "product",
            File::Dots => "dots",
            File::Columns => "columns",
            File::Lora => "lora",
            File::Copy => "copy",
        }
    }

    /// Whether its kernels are products.
    const fn multiplies(self) -> bool {
        matches!(self, File::Product | File::Dots | File::Columns)
    }

    /// Its text, without a prelude.
    pub const fn text(self) -> &'static str {
        match self {
            File::Softmax => include_str!("../kernels/softmax.h"),
            File::RmsNorm => include_str!("../kernels/rms_norm.h"),
            File::Product => include_str!("../kernels/product.h"),
            File::Dots => include_str!("../kernels/dots.h"),
            File::Columns => include_str!("../kernels/columns.h"),
            File::Lora => include_str!("../kernels/lora.h"),
            File::Copy => include_str!("../kernels/copy.h"),
        }
    }
}

/// The source to compile: the words of the target, what the kernels share, and the file, with an entry point of each
/// kernel for each of `dtypes`. A program needs one dtype; compiling the others takes time.
pub fn source(target: Target, file: File, dtypes: &[DType]) -> String {
    let (name, words) = match target {
        Target::Metal => ("prelude/metal", include_str!("../kernels/prelude/metal.h")),
        Target::Cuda => ("prelude/cuda", include_str!("../kernels/prelude/cuda.h")),
    };
    let mut parts = vec![(name, words), ("prelude/both", include_str!("../kernels/prelude/both.h"))];
    if file.multiplies() {
        parts.push(("prelude/operands", include_str!("../kernels/prelude/operands.h")));
    }
    let mut source = for_each(dtypes);
    for (name, text) in parts.into_iter().chain([(file.name(), file.text())]) {
        // Messages of a compiler name the file that a person would open.
        source.push_str(&format!("#line 1 \"{name}.h\"\n{text}\n"));
    }
    source
}

/// The macros that close a file: `MAKE(suffix, type)`, and `MAKE(suffix, type, wide)` without and with 16-byte accesses.
fn for_each(dtypes: &[DType]) -> String {
    let plain: String = dtypes.iter().map(|dtype| format!(" MAKE({dtype}, {dtype})")).collect();
    let access: String = dtypes
        .iter()
        .map(|dtype| format!(" MAKE({dtype}, {dtype}, false) MAKE({dtype}_wide, {dtype}, true)"))
        .collect();
    format!("#define FOR_EACH_DTYPE(MAKE){plain}\n#define FOR_EACH_DTYPE_AND_ACCESS(MAKE){access}\n")
}
