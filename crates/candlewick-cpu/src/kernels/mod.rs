//! The single-threaded inner loops of every operation, one file per family, and one table of them per instruction set.
//!
//! Kernels take raw pointers and strides in elements, allocate nothing, and know no threads: callers in `ops` split the
//! work and check the arguments.

#![allow(clippy::needless_range_loop, reason = "one index names the same row or lane of several arrays")]

pub mod adamw;
pub mod attention;
pub mod convert;
pub mod cross_entropy;
pub mod dot;
pub mod dropout;
pub mod elementwise;
pub mod pack;
pub mod product;
#[cfg(target_arch = "x86_64")]
pub mod product_amx;
pub mod product_bf16;
pub mod quant;
pub mod rms_norm;
pub mod rope;
pub mod softmax;
#[cfg(test)]
mod tests;
pub mod transpose;
mod vector;

use crate::simd::Isa;

pub use adamw::{AdamWArgs, SumSquaresArgs};
pub use attention::{OnlineSoftmaxArgs, RowSumsArgs, SoftmaxSlopesArgs};
pub use convert::{AddArgs, CastArgs, NarrowArgs, WidenArgs};
pub use cross_entropy::{CrossEntropyGradArgs, CrossEntropyStatsArgs};
pub use dot::DotArgs;
pub use dropout::DropoutArgs;
pub use elementwise::{SiluMulArgs, SiluMulBackwardArgs, SumArgs};
pub use pack::PackArgs;
pub use product::{Panels, ProductArgs, Segment};
pub use product_bf16::{PairSegment, ProductBf16Args};
pub use quant::{DequantizeArgs, QuantDotArgs, QuantExactArgs, QuantProductArgs, QuantRoundArgs};
pub use rms_norm::{RmsNormArgs, RmsNormBackwardArgs};
pub use rope::{RopeArgs, RopeTableArgs};
pub use softmax::{SoftmaxArgs, SoftmaxBackwardArgs};
pub use transpose::TransposeArgs;

/// The kernels of one instruction set.
///
/// # Safety
/// Every function requires what the documentation of its arguments says. A table from [`kernels`] runs on this CPU.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// The instruction set.
    pub isa: Isa,
    /// Columns of one panel of a packed matrix.
    pub panel: usize,
    /// Rows of the largest tile of `product`: row counts that are multiples of it run fastest.
    pub tile_rows: usize,
    /// `C = alpha * sum A_s B_s + beta * C + bias`.
    pub product: unsafe fn(&ProductArgs<'_>),
    /// The same with a first term in bf16, where the instruction set multiplies pairs of bf16. The portable table has it
    /// too, for checking the other.
    pub product_bf16: Option<unsafe fn(&ProductBf16Args<'_>)>,
    /// `H = alpha * X A^T` for few rows of A.
    pub dot: unsafe fn(&DotArgs),
    /// Packs a matrix into panels.
    pub pack: unsafe fn(&PackArgs),
    /// Packs a bf16 matrix into panels of pairs, for `product_bf16`.
    pub pack_pairs: unsafe fn(&PackArgs),
    /// Transposes, converts and scales a matrix.
    pub transpose: unsafe fn(&TransposeArgs),
    /// Softmax of one row.
    pub softmax: unsafe fn(&SoftmaxArgs),
    /// The gradient of one row of softmax.
    pub softmax_backward: unsafe fn(&SoftmaxBackwardArgs),
    /// Root-mean-square normalisation of one row.
    pub rms_norm: unsafe fn(&RmsNormArgs),
    /// The gradients of one row of root-mean-square normalisation.
    pub rms_norm_backward: unsafe fn(&RmsNormBackwardArgs),
    /// Converts any dtype to f32.
    pub widen: unsafe fn(&WidenArgs),
    /// Converts f32 to any dtype, scaled.
    pub narrow: unsafe fn(&NarrowArgs),
    /// `dst += scale * src` in f32.
    pub add: unsafe fn(&AddArgs),
    /// Converts between number formats.
    pub cast: unsafe fn(&CastArgs),
    /// y = x with some elements zero.
    pub dropout: unsafe fn(&DropoutArgs),
    /// y = a + b.
    pub sum: unsafe fn(&SumArgs),
    /// y = silu(gate) * up.
    pub silu_mul: unsafe fn(&SiluMulArgs),
    /// Its gradients.
    pub silu_mul_backward: unsafe fn(&SiluMulBackwardArgs),
    /// Cosines and sines of a row of rotary position embedding.
    pub rope_table: unsafe fn(&RopeTableArgs),
    /// Turns the pairs of a row.
    pub rope: unsafe fn(&RopeArgs),
    /// One row of a tile of attention scores, folded into the row.
    pub online_softmax: unsafe fn(&OnlineSoftmaxArgs),
    /// The gradients of attention scores.
    pub softmax_slopes: unsafe fn(&SoftmaxSlopesArgs),
    /// Sums of rows with weights.
    pub row_sums: unsafe fn(&RowSumsArgs),
    /// Folds a row of logits into two numbers.
    pub cross_entropy_stats: unsafe fn(&CrossEntropyStatsArgs),
    /// The gradient of a row of logits.
    pub cross_entropy_grad: unsafe fn(&CrossEntropyGradArgs),
    /// The sum of squares.
    pub sum_squares: unsafe fn(&SumSquaresArgs),
    /// One step of AdamW.
    pub adamw: unsafe fn(&AdamWArgs),
    /// Writes the numbers of quantised blocks.
    pub dequantize: unsafe fn(&DequantizeArgs),
    /// Products of a vector with rows of quantised blocks.
    pub quant_dot: unsafe fn(&QuantDotArgs),
    /// Rows of x of the largest tile of `quant_product`, but for [`quant::most_rows`].
    pub quant_rows: usize,
    /// Rounds a row to 8 bits.
    pub quant_round: unsafe fn(&QuantRoundArgs),
    /// Products of rounded rows with a panel of quantised rows.
    pub quant_product: unsafe fn(&QuantProductArgs),
    /// Products of rows in f32 with a panel of quantised rows.
    pub quant_exact: unsafe fn(&QuantExactArgs),
}

/// Runs `$body` with `$T` standing for the Rust type of `$dtype`.
macro_rules! with_type {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candlewick_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candlewick_core::DType::F16 => {
                type $T = half::f16;
                $body
            }
            candlewick_core::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            candlewick_core::DType::U32 | candlewick_core::DType::U8 => {
                unreachable!("descriptors of operations refuse to compute in integers")
            }
        }
    };
}
use with_type;

/// The table of one instruction set: an entry point per kernel, compiled with the features of that set.
macro_rules! table {
    ($name:ident, $simd:ty, $isa:expr, tiles: [$($rows:literal)+], wide: [$($few:literal x $panels:literal)+], $(#[$features:meta])*) => {
        mod $name {
            use super::*;
            use crate::simd::Simd;

            /// # Safety
            /// That of the kernel, on a CPU with these features.
            $(#[$features])*
            unsafe fn tile<const ROWS: usize, const PANELS: usize>(tile: &product::Tile<'_>) {
                // SAFETY: the caller's contract.
                unsafe { product::tile::<$simd, ROWS, PANELS>(tile) }
            }

            static TILES: product::Tiles = product::Tiles {
                one_panel: &[$(tile::<$rows, 1>),+],
                wide: &[$((tile::<$few, $panels>, $panels)),+],
            };

            /// # Safety
            /// See [`ProductArgs`].
            unsafe fn product(args: &ProductArgs<'_>) {
                // SAFETY: the caller's contract.
                unsafe { product::product::<$simd>(args, None, &TILES) }
            }

            table!(entries [$(#[$features])*] $simd:
                dot(dot::dot, DotArgs)
                pack(pack::pack, PackArgs)
                pack_pairs(pack::pack_pairs, PackArgs)
                transpose(transpose::transpose, TransposeArgs)
                softmax(softmax::softmax, SoftmaxArgs)
                softmax_backward(softmax::softmax_backward, SoftmaxBackwardArgs)
                rms_norm(rms_norm::rms_norm, RmsNormArgs)
                rms_norm_backward(rms_norm::rms_norm_backward, RmsNormBackwardArgs)
                widen(convert::widen, WidenArgs)
                narrow(convert::narrow, NarrowArgs)
                add(convert::add, AddArgs)
                cast(convert::cast, CastArgs)
                dropout(dropout::dropout, DropoutArgs)
                sum(elementwise::sum, SumArgs)
                silu_mul(elementwise::silu_mul, SiluMulArgs)
                silu_mul_backward(elementwise::silu_mul_backward, SiluMulBackwardArgs)
                rope_table(rope::rope_table, RopeTableArgs)
                rope(rope::rope, RopeArgs)
                online_softmax(attention::online_softmax, OnlineSoftmaxArgs)
                softmax_slopes(attention::softmax_slopes, SoftmaxSlopesArgs)
                row_sums(attention::row_sums, RowSumsArgs)
                cross_entropy_stats(cross_entropy::cross_entropy_stats, CrossEntropyStatsArgs)
                cross_entropy_grad(cross_entropy::cross_entropy_grad, CrossEntropyGradArgs)
                sum_squares(adamw::sum_squares, SumSquaresArgs)
                adamw(adamw::adamw, AdamWArgs)
                dequantize(quant::dequantize, DequantizeArgs)
                quant_dot(quant::quant_dot, QuantDotArgs)
                quant_round(quant::quant_round, QuantRoundArgs)
                quant_product(quant::quant_product, QuantProductArgs)
                quant_exact(quant::quant_exact, QuantExactArgs)
            );

            pub(super) const TABLE: Kernels = Kernels {
                isa: $isa,
                panel: <$simd>::PANEL,
                tile_rows: <$simd>::TILE_ROWS,
                product,
                product_bf16: None,
                dot,
                pack,
                pack_pairs,
                transpose,
                softmax,
                softmax_backward,
                rms_norm,
                rms_norm_backward,
                widen,
                narrow,
                add,
                cast,
                dropout,
                sum,
                silu_mul,
                silu_mul_backward,
                rope_table,
                rope,
                online_softmax,
                softmax_slopes,
                row_sums,
                cross_entropy_stats,
                cross_entropy_grad,
                sum_squares,
                adamw,
                dequantize,
                quant_dot,
                quant_rows: <$simd as crate::simd::ByteDot>::ROWS,
                quant_round,
                quant_product,
                quant_exact,
            };
        }
    };
    (entries $features:tt $simd:ty: $($name:ident($family:ident::$kernel:ident, $args:ty))+) => {
        $(table!(entry $features $simd, $name, $family::$kernel, $args);)+
    };
    (entry [$(#[$features:meta])*] $simd:ty, $name:ident, $family:ident::$kernel:ident, $args:ty) => {
        /// # Safety
        /// That of the kernel's arguments, on a CPU with these features.
        $(#[$features])*
        unsafe fn $name(args: &$args) {
            // SAFETY: the caller's contract.
            unsafe { $family::$kernel::<$simd>(args) }
        }
    };
}

table!(portable, crate::simd::portable::Portable, Isa::Portable, tiles: [1 2], wide: [1 x 2],);
#[cfg(target_arch = "aarch64")]
table!(neon, crate::simd::neon::Neon, Isa::Neon, tiles: [1 2 3 4 5 6 7 8 9 10 11 12],
    wide: [1 x 4 2 x 2 3 x 2 4 x 2], #[target_feature(enable = "neon")]);
#[cfg(target_arch = "x86_64")]
table!(avx2, crate::simd::avx2::Avx2, Isa::Avx2, tiles: [1 2 3 4 5 6], wide: [1 x 4 2 x 2],
    #[target_feature(enable = "avx2,fma,f16c")]);
#[cfg(target_arch = "x86_64")]
table!(avx512, crate::simd::avx512::Avx512, Isa::Avx512, tiles: [1 2 3 4 5 6 7 8 9 10 11 12],
    wide: [1 x 4 2 x 2 3 x 2 4 x 2], #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]);

/// The table of one instruction set, with the product of bf16 pairs added.
macro_rules! table_with_pairs {
    ($name:ident, $simd:ty, $isa:expr, $base:expr, tiles: [$($rows:literal)+], wide: [$($few:literal x $panels:literal)+],
     $(#[$features:meta])*) => {
        mod $name {
            use super::*;

            /// # Safety
            /// That of the kernel, on a CPU with these features.
            $(#[$features])*
            unsafe fn tile<const ROWS: usize, const PANELS: usize>(tile: &product::Tile<'_>) {
                // SAFETY: the caller's contract.
                unsafe { product_bf16::tile::<$simd, ROWS, PANELS>(tile) }
            }

            static TILES: product::Tiles = product::Tiles {
                one_panel: &[$(tile::<$rows, 1>),+],
                wide: &[$((tile::<$few, $panels>, $panels)),+],
            };

            /// # Safety
            /// See [`ProductBf16Args`].
            unsafe fn product(args: &ProductBf16Args<'_>) {
                // SAFETY: the caller's contract.
                unsafe { product::product::<$simd>(&args.product, Some(&args.pairs), &TILES) }
            }

            pub(super) const TABLE: Kernels = Kernels { isa: $isa, product_bf16: Some(product), ..$base };
        }
    };
}

table_with_pairs!(portable_pairs, crate::simd::portable::Portable, Isa::Portable, portable::TABLE, tiles: [1 2],
    wide: [1 x 2],);
#[cfg(target_arch = "x86_64")]
table_with_pairs!(avx512_pairs, crate::simd::avx512::Avx512, Isa::Avx512Bf16, avx512::TABLE,
    tiles: [1 2 3 4 5 6 7 8 9 10 11 12], wide: [1 x 4 2 x 2 3 x 2 4 x 2],
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]);

/// The table of one instruction set, with the product of bytes replaced.
macro_rules! table_with_bytes {
    ($name:ident, $bytes:ty, $isa:expr, $base:expr, $features:meta) => {
        mod $name {
            use super::*;

            /// # Safety
            /// See [`QuantRoundArgs`].
            #[$features]
            unsafe fn quant_round(args: &QuantRoundArgs) {
                // SAFETY: the caller's contract.
                unsafe { quant::quant_round::<$bytes>(args) }
            }

            /// # Safety
            /// See [`QuantProductArgs`].
            #[$features]
            unsafe fn quant_product(args: &QuantProductArgs) {
                // SAFETY: the caller's contract.
                unsafe { quant::quant_product::<$bytes>(args) }
            }

            pub(super) const TABLE: Kernels = Kernels {
                isa: $isa,
                quant_rows: <$bytes as crate::simd::ByteDot>::ROWS,
                quant_round,
                quant_product,
                ..$base
            };
        }
    };
}

#[cfg(target_arch = "aarch64")]
table_with_bytes!(
    neon_dot,
    crate::simd::neon::DotProd,
    Isa::NeonDot,
    neon::TABLE,
    target_feature(enable = "neon,dotprod")
);
#[cfg(target_arch = "x86_64")]
table_with_bytes!(
    avx_vnni,
    crate::simd::avx2::Vnni,
    Isa::AvxVnni,
    avx2::TABLE,
    target_feature(enable = "avx2,fma,f16c,avxvnni")
);
#[cfg(target_arch = "x86_64")]
table_with_bytes!(
    avx512_vnni,
    crate::simd::avx512::Vnni,
    Isa::Avx512Vnni,
    avx512::TABLE,
    target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
);

/// The kernels of `isa`, or none if this CPU lacks it.
pub fn kernels(isa: Isa) -> Option<&'static Kernels> {
    if !isa.is_available() {
        return None;
    }
    match isa {
        Isa::Portable => Some(&portable_pairs::TABLE),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Some(&neon::TABLE),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => Some(&neon_dot::TABLE),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Some(&avx2::TABLE),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => Some(&avx_vnni::TABLE),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Some(&avx512::TABLE),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => Some(&avx512_vnni::TABLE),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => Some(&avx512_pairs::TABLE),
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => Some(&product_amx::TABLE),
        #[allow(unreachable_patterns, reason = "the sets of other architectures")]
        _ => None,
    }
}
