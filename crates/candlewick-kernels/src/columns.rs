//! `kernels/columns.h`: products with few rows on one side, where the stored rows of the other run along C.

use crate::product::{Extension, Few, Matrix, Product, wide};
use crate::program::{Alignment, GpuLimits, Kernel, Program, names, params};
use crate::source::File;

params! {
    struct ColumnsParams {
        many_row: u64,
        few_row: u64,
        few_col: u64,
        c_few: u64,
        c_many: u64,
        e_row: u64,
        partial_few: u64,
        partial_many: u64,
        many_batch: [u64; 3],
        few_batch: [u64; 3],
        c_batch: [u64; 3],
        batch: [u32; 3],
        few: u32,
        many: u32,
        k: u32,
        rank: u32,
        splits: u32,
        few_is_f32: u32,
        few_across: u32,
        c_is_f32: u32,
        alpha: f32,
        beta: f32,
        factor: f32,
    }
}

/// Teams of a group, and columns of a team.
const TEAMS: u32 = 8;
const COLUMNS: u32 = 256;

impl Product {
    /// Along the columns of C; `None` where no side lies that way.
    pub(crate) fn columns(&self, program: &mut Program, limits: &GpuLimits, alignment: Alignment) -> Option<()> {
        let few = self.few_against_columns()?;
        let (h, e, rank, factor) = match self.extension {
            Some(Extension { e, .. }) if e.col != 1 && self.n > 1 => return None,
            Some(Extension { h, e, rank, factor }) => (h, e, rank, factor),
            None => (self.c.memory.unused(), Matrix::new(self.c.memory.unused(), 0, 1), 0, 0.0),
        };
        if self.bias.is_some() {
            return None;
        }
        let block = few.block();
        let tiles =
            u64::from(few.many_rows.div_ceil(COLUMNS)) * u64::from(few.few_rows.div_ceil(block)) * self.products();
        // Enough groups for two on every core, each with at least four products for every team.
        let longest = self.k.max(rank);
        let wanted = u64::from(2 * limits.cores) / tiles.max(1);
        let splits = wanted.min(u64::from(longest / (4 * TEAMS))).clamp(1, 64) as u32;
        let partial = self.partial(program, splits)?;
        let (c_few, c_many) = few.strides(self.c.row, self.c.col);
        let wide = self.columns_wide(&few, e.row, rank, alignment);
        let (partial_few, partial_many) = few.strides(self.n.into(), 1);
        let params = ColumnsParams {
            many_row: few.many.col,
            few_row: few.few.row,
            few_col: few.few.col,
            c_few,
            c_many,
            e_row: e.row,
            partial_few,
            partial_many,
            many_batch: few.many.batch,
            few_batch: few.few.batch,
            c_batch: self.c.batch,
            batch: self.batch,
            few: few.few_rows,
            many: few.many_rows,
            k: self.k,
            rank,
            splits,
            few_is_f32: self.is_f32(&few.few).into(),
            few_across: (wide && few.across(alignment)).into(),
            c_is_f32: self.is_f32(&self.c).into(),
            alpha: self.alpha,
            beta: self.beta,
            factor,
        };
        let written = if splits > 1 { self.c.memory.unused() } else { self.c.memory };
        let bindings = [
            few.many.memory.read(),
            few.few.memory.read(),
            written.update(self.beta != 0.0),
            h.read(),
            e.memory.read(),
            partial.write(),
        ];
        let names = match block {
            1 => names!("columns_1"),
            4 => names!("columns_4"),
            _ => names!("columns_8"),
        };
        let kernel = Kernel { file: File::Columns, names, dtype: self.dtype, wide };
        let threads = 32 * longest.clamp(1, TEAMS);
        program.launch(kernel, &params, bindings, tiles * u64::from(splits), threads)?;
        self.sum_partials(program, partial, splits, None)
    }

    fn columns_wide(&self, few: &Few, e_row: u64, rank: u32, alignment: Alignment) -> bool {
        let row = if self.k > 1 { few.many.col } else { 0 };
        let e_row = if rank > 1 { e_row } else { 0 };
        let [outer, middle, inner] = few.many.batch;
        wide(alignment, &[few.many_rows.into(), row, e_row, outer, middle, inner])
    }
}
