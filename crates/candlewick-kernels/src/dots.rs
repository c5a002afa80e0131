//! `kernels/dots.h`: products with few rows on one side, as dot products along the stored rows of the other.

use crate::product::{Extension, Few, Matrix, Product, wide};
use crate::program::{Alignment, GpuLimits, Kernel, Program, names, params};
use crate::source::File;

params! {
    struct DotsParams {
        many_row: u64,
        few_row: u64,
        few_col: u64,
        c_few: u64,
        c_many: u64,
        e_row: u64,
        many_batch: [u64; 3],
        few_batch: [u64; 3],
        c_batch: [u64; 3],
        batch: [u32; 3],
        few: u32,
        many: u32,
        k: u32,
        rank: u32,
        share: u32,
        few_is_f32: u32,
        c_is_f32: u32,
        few_across: u32,
        has_bias: u32,
        alpha: f32,
        beta: f32,
        factor: f32,
        unused: u32,
    }
}

/// Teams of a group, many rows of a tile, and elements of a row that a team takes at a time.
const TEAMS: u32 = 8;
const ROWS: u32 = 4;
const STEP: u32 = 256;

impl Product {
    /// As dot products; `None` where no side lies that way.
    pub(crate) fn dots(&self, program: &mut Program, limits: &GpuLimits, alignment: Alignment) -> Option<()> {
        let few = self.few_against_rows()?;
        let (h, e, rank, factor) = match self.extension {
            Some(Extension { e, rank, .. }) if e.row != 1 && rank > 1 => return None,
            Some(Extension { h, e, rank, factor }) => (h, e, rank, factor),
            None => (self.c.memory.unused(), Matrix::new(self.c.memory.unused(), 1, 0), 0, 0.0),
        };
        let block = few.block();
        let tiles = u64::from(few.many_rows.div_ceil(ROWS)) * u64::from(few.few_rows.div_ceil(block)) * self.products();
        // Teams share a tile where there are too few tiles for two groups on every core.
        let mut share = 1;
        while share < TEAMS && tiles * u64::from(share) < u64::from(2 * TEAMS * limits.cores) && self.k > STEP * share {
            share *= 2;
        }
        let (c_few, c_many) = few.strides(self.c.row, self.c.col);
        let params = DotsParams {
            many_row: few.many.row,
            few_row: few.few.row,
            few_col: few.few.col,
            c_few,
            c_many,
            e_row: e.col,
            many_batch: few.many.batch,
            few_batch: few.few.batch,
            c_batch: self.c.batch,
            batch: self.batch,
            few: few.few_rows,
            many: few.many_rows,
            k: self.k,
            rank,
            share,
            few_is_f32: self.is_f32(&few.few).into(),
            c_is_f32: self.is_f32(&self.c).into(),
            few_across: (!self.is_f32(&few.few) && few.across(alignment)).into(),
            has_bias: self.bias.is_some().into(),
            alpha: self.alpha,
            beta: self.beta,
            factor,
            unused: 0,
        };
        let bindings = [
            few.many.memory.read(),
            few.few.memory.read(),
            self.c.memory.update(self.beta != 0.0),
            h.read(),
            e.memory.read(),
            self.bias.unwrap_or(self.c.memory.unused()).read(),
        ];
        let names = match block {
            1 => names!("dots_1"),
            4 => names!("dots_4"),
            _ => names!("dots_8"),
        };
        let kernel = Kernel { file: File::Dots, names, dtype: self.dtype, wide: self.dots_wide(&few, alignment) };
        let blocks = few.many_rows.div_ceil(TEAMS / share * ROWS);
        let groups = u64::from(blocks) * u64::from(few.few_rows.div_ceil(block)) * self.products();
        program.launch(kernel, &params, bindings, groups, 32 * TEAMS)
    }

    fn dots_wide(&self, few: &Few, alignment: Alignment) -> bool {
        let row = |matrix: &Matrix, rows: u32| if rows > 1 { matrix.row } else { 0 };
        // Few rows that are read one element at a time need nothing.
        let few_wide = few.few.col != 1
            || self.is_f32(&few.few)
            || wide(alignment, &[row(&few.few, few.few_rows), few.few.batch[0], few.few.batch[1], few.few.batch[2]]);
        let [outer, middle, inner] = few.many.batch;
        few_wide && wide(alignment, &[self.k.into(), row(&few.many, few.many_rows), outer, middle, inner])
    }
}
