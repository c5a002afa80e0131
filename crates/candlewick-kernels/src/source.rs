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
    Linear,
    Lora,
    LoraRows,
    Copy,
    Add,
    SiluMul,
    Cast,
    Dropout,
    Embedding,
    CopyRows,
    Rope,
    Attention,
    AttentionDecode,
    AttentionBackward,
    CrossEntropy,
    AdamW,
    Quant,
}

/// `prelude/angles.h`: its name, and its text, for kernels of a backend's own that turn pairs by angles. Before it come the
/// types `u32`, `u64`, `i64` and `f32`, the word `FUNCTION`, `bits_of(f32)` and `f32_of_bits(u32)`.
pub const ANGLES: (&str, &str) = ("prelude/angles", include_str!("../kernels/prelude/angles.h"));

impl File {
    /// Every file.
    pub const ALL: [File; 22] = [
        File::Softmax,
        File::RmsNorm,
        File::Product,
        File::Dots,
        File::Columns,
        File::Linear,
        File::Lora,
        File::LoraRows,
        File::Copy,
        File::Add,
        File::SiluMul,
        File::Cast,
        File::Dropout,
        File::Embedding,
        File::CopyRows,
        File::Rope,
        File::Attention,
        File::AttentionDecode,
        File::AttentionBackward,
        File::CrossEntropy,
        File::AdamW,
        File::Quant,
    ];

    /// `softmax`, ..: the file's name without `.h`.
    pub const fn name(self) -> &'static str {
        match self {
            File::Softmax => "softmax",
            File::RmsNorm => "rms_norm",
            File::Product => "product",
            File::Dots => "dots",
            File::Columns => "columns",
            File::Linear => "linear",
            File::Lora => "lora",
            File::LoraRows => "lora_rows",
            File::Copy => "copy",
            File::Add => "add",
            File::SiluMul => "silu_mul",
            File::Cast => "cast",
            File::Dropout => "dropout",
            File::Embedding => "embedding",
            File::CopyRows => "copy_rows",
            File::Rope => "rope",
            File::Attention => "attention",
            File::AttentionDecode => "attention_decode",
            File::AttentionBackward => "attention_backward",
            File::CrossEntropy => "cross_entropy",
            File::AdamW => "adamw",
            File::Quant => "quant",
        }
    }

    /// What its kernels share with those of other files, beside what all share.
    pub(crate) const fn shared(self) -> &'static [(&'static str, &'static str)] {
        const OPERANDS: (&str, &str) = ("prelude/operands", include_str!("../kernels/prelude/operands.h"));
        const ATTENTION: (&str, &str) = ("prelude/attention", include_str!("../kernels/prelude/attention.h"));
        const ELEMENTS: (&str, &str) = ("prelude/elements", include_str!("../kernels/prelude/elements.h"));
        const ROWS: (&str, &str) = ("prelude/rows", include_str!("../kernels/prelude/rows.h"));
        const SPLITS: (&str, &str) = ("prelude/splits", include_str!("../kernels/prelude/splits.h"));
        match self {
            File::Product | File::Dots | File::Columns => &[OPERANDS],
            File::Linear => &[OPERANDS, ANGLES, SPLITS],
            File::Attention | File::AttentionBackward => &[ATTENTION],
            File::AttentionDecode => &[ATTENTION, SPLITS],
            File::Softmax | File::RmsNorm => &[ROWS],
            File::Lora | File::LoraRows | File::Copy => &[],
            File::Rope => &[ELEMENTS, ANGLES],
            File::CrossEntropy => &[ELEMENTS, ROWS],
            _ => &[ELEMENTS],
        }
    }

    /// Its text, without a prelude.
    pub const fn text(self) -> &'static str {
        match self {
            File::Softmax => include_str!("../kernels/softmax.h"),
            File::RmsNorm => include_str!("../kernels/rms_norm.h"),
            File::Product => include_str!("../kernels/product.h"),
            File::Dots => include_str!("../kernels/dots.h"),
            File::Columns => include_str!("../kernels/columns.h"),
            File::Linear => include_str!("../kernels/linear.h"),
            File::Lora => include_str!("../kernels/lora.h"),
            File::LoraRows => include_str!("../kernels/lora_rows.h"),
            File::Copy => include_str!("../kernels/copy.h"),
            File::Add => include_str!("../kernels/add.h"),
            File::SiluMul => include_str!("../kernels/silu_mul.h"),
            File::Cast => include_str!("../kernels/cast.h"),
            File::Dropout => include_str!("../kernels/dropout.h"),
            File::Embedding => include_str!("../kernels/embedding.h"),
            File::CopyRows => include_str!("../kernels/copy_rows.h"),
            File::Rope => include_str!("../kernels/rope.h"),
            File::Attention => include_str!("../kernels/attention.h"),
            File::AttentionDecode => include_str!("../kernels/attention_decode.h"),
            File::AttentionBackward => include_str!("../kernels/attention_backward.h"),
            File::CrossEntropy => include_str!("../kernels/cross_entropy.h"),
            File::AdamW => include_str!("../kernels/adamw.h"),
            File::Quant => include_str!("../kernels/quant.h"),
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
    let both = ("prelude/both", include_str!("../kernels/prelude/both.h"));
    let own = (file.name(), file.text());
    let mut source = for_each(dtypes);
    for (name, text) in [(name, words), both].into_iter().chain(file.shared().iter().copied()).chain([own]) {
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
