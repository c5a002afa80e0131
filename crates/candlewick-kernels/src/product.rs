//! `kernels/product.h`: every matrix product, by tiles; and what the faster ways of the other files are made from.

use crate::program::{Alignment, GpuLimits, Kernel, Memory, Program, names, params};
use crate::source::File;
use candlewick_core::DType;

params! {
    struct ProductParams {
        a_row: u64,
        a_col: u64,
        b_row: u64,
        b_col: u64,
        c_row: u64,
        e_row: u64,
        e_col: u64,
        a_batch: [u64; 3],
        b_batch: [u64; 3],
        c_batch: [u64; 3],
        a_sum: [u64; 3],
        b_sum: [u64; 3],
        batch: [u32; 3],
        sum: [u32; 3],
        m: u32,
        n: u32,
        k: u32,
        rank: u32,
        k_steps: u32,
        steps: u32,
        splits: u32,
        split: u32,
        a_is_f32: u32,
        b_is_f32: u32,
        c_is_f32: u32,
        has_bias: u32,
        alpha: f32,
        beta: f32,
        factor: f32,
        unused: u32,
    }
}

params! {
    struct ProductSumParams {
        c_row: u64,
        c_col: u64,
        c_batch: [u64; 3],
        batch: [u32; 3],
        m: u32,
        n: u32,
        count: u32,
        splits: u32,
        c_is_f32: u32,
        has_bias: u32,
        beta: f32,
    }
}

/// C = alpha A B + factor H E + bias + beta C, batched, summed over batches: what LoRA and the matrix product come to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) dtype: DType,
    pub(crate) m: u32,
    pub(crate) n: u32,
    pub(crate) k: u32,
    /// Products with a C of their own, along three dimensions.
    pub(crate) batch: [u32; 3],
    /// Products that are summed.
    pub(crate) sum: [u32; 3],
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
    /// Its rows are stored.
    pub(crate) c: Matrix,
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
    pub(crate) extension: Option<Extension>,
    pub(crate) bias: Option<Memory>,
}

/// Where element (i, j) of a matrix lies: at i row + j col.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    pub(crate) memory: Memory,
    pub(crate) row: u64,
    pub(crate) col: u64,
    /// From one matrix of the batch to the next.
    pub(crate) batch: [u64; 3],
    /// From one term of the sum to the next.
    pub(crate) sum: [u64; 3],
    /// It is f32, whatever the dtype of the operation.
    pub(crate) f32: bool,
}

/// LoRA's part of a product: factor H E with H [m, rank], contiguous in f32, and E [rank, n].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extension {
    pub(crate) rank: u32,
    pub(crate) h: Memory,
    pub(crate) e: Matrix,
    pub(crate) factor: f32,
}

/// More rows than this are not few: tiles read less.
const MOST_FEW: u32 = 64;

impl Matrix {
    /// One matrix of the operation's dtype.
    pub(crate) fn new(memory: Memory, row: usize, col: usize) -> Self {
        Matrix { memory, row: row as u64, col: col as u64, batch: [0; 3], sum: [0; 3], f32: false }
    }

    /// One matrix in f32.
    pub(crate) fn f32(memory: Memory, row: usize, col: usize) -> Self {
        Matrix { f32: true, ..Matrix::new(memory, row, col) }
    }

    pub(crate) fn transposed(self) -> Self {
        Matrix { row: self.col, col: self.row, ..self }
    }
}

impl Product {
    /// One product of `m` x `k` and `k` x `n`.
    pub(crate) fn new(dtype: DType, [m, n, k]: [u32; 3], a: Matrix, b: Matrix, c: Matrix) -> Self {
        let (batch, sum) = ([1; 3], [1; 3]);
        Product { dtype, m, n, k, batch, sum, a, b, c, alpha: 1.0, beta: 0.0, extension: None, bias: None }
    }

    /// How many products have a C of their own.
    pub(crate) fn products(&self) -> u64 {
        self.batch.iter().map(|&size| u64::from(size)).product()
    }

    /// How many products are added up in each C.
    pub(crate) fn terms(&self) -> u64 {
        self.sum.iter().map(|&size| u64::from(size)).product()
    }

    /// Elements of all C.
    pub(crate) fn elements(&self) -> u64 {
        self.products() * u64::from(self.m) * u64::from(self.n)
    }

    /// Whether a matrix differs in type from the operation's dtype.
    pub(crate) fn is_f32(&self, matrix: &Matrix) -> bool {
        matrix.f32 && self.dtype != DType::F32
    }

    /// Tiles of `side` rows and columns, the sum cut into `splits`.
    pub(crate) fn tiled(&self, program: &mut Program, side: u32, splits: u32) -> Option<()> {
        let depth = if side == 64 { 16 } else { 32 };
        let k_steps = self.k.div_ceil(depth);
        let steps = u32::try_from(self.terms() * u64::from(k_steps)).ok()?;
        let split = steps.div_ceil(splits.max(1)).max(1);
        let splits = steps.div_ceil(split).max(1);
        let c = self.c.memory;
        let partial = self.partial(program, splits)?;
        let (h, e, rank, factor) = match self.extension {
            Some(Extension { h, e, rank, factor }) => (h, e, rank, factor),
            None => (c.unused(), Matrix::new(c.unused(), 0, 0), 0, 0.0),
        };
        let params = ProductParams {
            a_row: self.a.row,
            a_col: self.a.col,
            b_row: self.b.row,
            b_col: self.b.col,
            c_row: self.c.row,
            e_row: e.row,
            e_col: e.col,
            a_batch: self.a.batch,
            b_batch: self.b.batch,
            c_batch: self.c.batch,
            a_sum: self.a.sum,
            b_sum: self.b.sum,
            batch: self.batch,
            sum: self.sum,
            m: self.m,
            n: self.n,
            k: self.k,
            rank,
            k_steps,
            steps,
            splits,
            split,
            a_is_f32: self.is_f32(&self.a).into(),
            b_is_f32: self.is_f32(&self.b).into(),
            c_is_f32: self.is_f32(&self.c).into(),
            has_bias: self.bias.is_some().into(),
            alpha: self.alpha,
            beta: self.beta,
            factor,
            unused: 0,
        };
        // Where partial sums are left, what adds them up writes C.
        let written = if splits > 1 { c.unused() } else { c };
        let bindings = [
            self.a.memory.read(),
            self.b.memory.read(),
            written.update(self.beta != 0.0),
            h.read(),
            e.memory.read(),
            self.bias.unwrap_or(c.unused()).read(),
            partial.write(),
        ];
        let names = if side == 64 { names!("product_64") } else { names!("product_32") };
        let kernel = Kernel { file: File::Product, names, dtype: self.dtype, wide: false };
        let tiles = u64::from(self.m.div_ceil(side)) * u64::from(self.n.div_ceil(side));
        program.launch(kernel, &params, bindings, tiles * self.products() * u64::from(splits), 256)?;
        self.sum_partials(program, partial, splits, self.bias)
    }

    /// Memory for the sums of `splits`, [split, product, m, n]; none for one split.
    pub(crate) fn partial(&self, program: &mut Program, splits: u32) -> Option<Memory> {
        if splits == 1 {
            return Some(self.c.memory.unused());
        }
        // One thread adds up each element, and counts in 32 bits.
        let elements = u32::try_from(self.elements()).ok()?;
        Some(program.reserve(4 * u64::from(elements) * u64::from(splits)))
    }

    /// Adds up what the splits have left.
    pub(crate) fn sum_partials(
        &self,
        program: &mut Program,
        partial: Memory,
        splits: u32,
        bias: Option<Memory>,
    ) -> Option<()> {
        if splits == 1 {
            return Some(());
        }
        let params = ProductSumParams {
            c_row: self.c.row,
            c_col: self.c.col,
            c_batch: self.c.batch,
            batch: self.batch,
            m: self.m,
            n: self.n,
            count: self.elements() as u32,
            splits,
            c_is_f32: self.is_f32(&self.c).into(),
            has_bias: bias.is_some().into(),
            beta: self.beta,
        };
        let c = self.c.memory;
        let bindings = [partial.read(), bias.unwrap_or(c.unused()).read(), c.update(self.beta != 0.0)];
        let kernel = Kernel { file: File::Product, names: names!("product_sum"), dtype: self.dtype, wide: false };
        program.launch(kernel, &params, bindings, self.elements().div_ceil(256), 256)
    }

    /// Tiles as large as leave no core idle, and the sum cut where even small tiles are too few.
    pub(crate) fn tiled_for(&self, program: &mut Program, limits: &GpuLimits) -> Option<()> {
        let (side, splits) = self.tiling(limits);
        self.tiled(program, side, splits)
    }

    fn tiling(&self, limits: &GpuLimits) -> (u32, u32) {
        let tiles = |side| u64::from(self.m.div_ceil(side)) * u64::from(self.n.div_ceil(side)) * self.products();
        let cores = u64::from(limits.cores.max(1));
        if tiles(64) >= cores {
            return (64, 1);
        }
        let steps = self.terms() * u64::from(self.k.div_ceil(32));
        // At least 8 steps in each split: the second launch costs about as much.
        let splits = (cores / tiles(32).max(1)).min(steps / 8).clamp(1, 64);
        (32, splits as u32)
    }

    /// A few rows against the stored rows of the other side, if the matrices lie so: `x` and the rows, as
    /// (few, many, whether the few are columns of B).
    pub(crate) fn few_against_rows(&self) -> Option<Few> {
        let straight =
            Few { few: self.a, many: self.b.transposed(), few_rows: self.m, many_rows: self.n, swapped: false };
        let swapped =
            Few { few: self.b.transposed(), many: self.a, few_rows: self.n, many_rows: self.m, swapped: true };
        self.choose(straight, swapped, |few| few.many.col == 1 || self.k <= 1)
    }

    /// The same where the stored rows of the other side run along C.
    pub(crate) fn few_against_columns(&self) -> Option<Few> {
        let straight =
            Few { few: self.a, many: self.b.transposed(), few_rows: self.m, many_rows: self.n, swapped: false };
        let swapped =
            Few { few: self.b.transposed(), many: self.a, few_rows: self.n, many_rows: self.m, swapped: true };
        self.choose(straight, swapped, |few| few.many.row == 1 || few.many_rows <= 1)
    }

    fn choose(&self, straight: Few, swapped: Few, fits: impl Fn(&Few) -> bool) -> Option<Few> {
        if self.terms() != 1 || self.m == 0 || self.n == 0 {
            return None;
        }
        // Swapped, the bias and LoRA's part would run along the wrong side.
        let may_swap = self.extension.is_none() && self.bias.is_none();
        let fits =
            |few: &Few| few.few_rows <= MOST_FEW && fits(few) && !self.is_f32(&few.many) && (!few.swapped || may_swap);
        match (fits(&straight), fits(&swapped)) {
            (true, true) if swapped.few_rows < straight.few_rows => Some(swapped),
            (true, _) => Some(straight),
            (false, true) => Some(swapped),
            (false, false) => None,
        }
    }
}

/// A product as few rows against many: C(i, o) = sum over p of few(i, p) many(o, p), or transposed where `swapped`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Few {
    pub(crate) few: Matrix,
    pub(crate) many: Matrix,
    pub(crate) few_rows: u32,
    pub(crate) many_rows: u32,
    pub(crate) swapped: bool,
}

impl Few {
    /// Elements of C from one few row to the next, and from one many row to the next.
    pub(crate) fn strides(&self, row: u64, col: u64) -> (u64, u64) {
        if self.swapped { (col, row) } else { (row, col) }
    }

    /// Whether eight few rows lie side by side for each p, as LoRA's h does and its B.
    pub(crate) fn across(&self, alignment: Alignment) -> bool {
        let [outer, middle, inner] = self.few.batch;
        self.few.row == 1 && wide(alignment, &[self.few_rows.into(), self.few.col, outer, middle, inner])
    }

    /// How many few rows a kernel holds at a time.
    pub(crate) fn block(&self) -> u32 {
        match self.few_rows {
            ..=1 => 1,
            2..=4 => 4,
            _ => 8,
        }
    }
}

/// Whether all of these are multiples of 8 elements, and the addresses of 16 bytes.
pub(crate) fn wide(alignment: Alignment, elements: &[u64]) -> bool {
    alignment == Alignment::Sixteen && elements.iter().all(|count| count.is_multiple_of(8))
}
