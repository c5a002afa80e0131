//! C = alpha A B + h E + beta C + bias by tiles of C: what the matrix product and every part of LoRA are made of.
//!
//! A task is a range of C's columns, and of its rows where columns are too few. It brings B into panels if they are not
//! there already, then walks its rows in blocks of A that stay in the second-level cache.

mod forms;

pub(super) use forms::pairs;
use forms::{Left, Right, left, parts, right};

use super::{PRODUCT_RATE, Read, Write, split, threads_that_pay};
use crate::kernels::{
    DotArgs, Kernels, NarrowArgs, PackArgs, PairSegment, Panels, ProductArgs, ProductBf16Args, Segment, TransposeArgs,
    WidenArgs,
};
use crate::simd::Isa;
use candlewick_core::DType;

/// Where the elements of a factor lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Row after row, `row` elements apart.
    Rows { row: usize },
    /// Column after column, `column` elements apart: the factor is stored transposed.
    Columns { column: usize },
    /// In panels, by `Stream::pack`.
    Packed,
}

/// The sizes of a product and how its operands lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub rows: usize,
    pub cols: usize,
    pub k: usize,
    pub a: Order,
    pub b: Order,
    /// The rank and E's order, where there is an extension by h E.
    pub extension: Option<(usize, Order)>,
    pub bias: bool,
    pub c_row: usize,
    /// Of A, B, E, bias and C.
    pub dtype: DType,
    pub alpha: f32,
    pub beta: f32,
    /// This many such products go into the same C, one after the other.
    pub summed: usize,
}

/// The operands of one product.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub a: Read,
    pub b: Read,
    /// [rows, rank] in f32, already scaled.
    pub h: *const f32,
    pub e: Read,
    pub bias: *const u8,
    pub c: Write,
}

// SAFETY: as for `Read` and `Write`.
unsafe impl Sync for Operands {}

/// A product, cut into tasks.
pub(super) struct Product {
    shape: Shape,
    kernels: &'static Kernels,
    left: Left,
    right: Right,
    /// Whether A and B meet as pairs of bf16.
    pairs: bool,
    row_tasks: usize,
    col_tasks: usize,
    /// Rows of A that stay in cache while a task's panels pass.
    block: usize,
    /// Parts that each product's sum is taken in, one after the other, as if they were products that are summed.
    parts: usize,
}

/// Half of a second-level cache of 1 MiB, in f32: for a block of A, and for the panels of a task.
const CACHE: usize = 128 * 1024;
/// Half of a first-level cache of 32 KiB, in f32: where all of a task's B fits, C can be written row by row.
const INNERMOST: usize = 4 * 1024;

/// How C is cut for the threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// By columns: each thread reads its own part of B, which stays in its cache from call to call.
    Columns,
    /// By rows: for short sums, where B is small, and what a thread reads of A it has just written itself.
    Rows,
}

impl Product {
    /// Cuts a product for `threads` threads.
    pub(super) fn new(mut shape: Shape, cut: Cut, kernels: &'static Kernels, threads: usize) -> Self {
        let pairs_here = pairs(shape.dtype, kernels);
        let parts = if cut == Cut::Columns && pairs_here { parts(&shape) } else { 1 };
        (shape.k, shape.summed) = (shape.k / parts, shape.summed * parts);
        let right = right(&shape, kernels, pairs_here);
        // Rows of B where they lie are not pairs.
        let pairs = pairs_here && (right == Right::PackedByTask || shape.b == Order::Packed);
        let left = left(&shape, pairs);
        let panels = shape.cols.div_ceil(kernels.panel).max(1);
        if cut == Cut::Rows {
            let rank = shape.extension.map_or(0, |(rank, _)| rank);
            let col_tasks = panels.div_ceil((INNERMOST / rank.max(1) / kernels.panel).max(1));
            let row_tasks = threads.min(shape.rows).max(1);
            let block = kernels.tile_rows;
            return Product { shape, kernels, left, right, pairs, row_tasks, col_tasks, block, parts };
        }
        // Of A in bf16 the cache holds twice as much, and processors with a matrix unit have 2 MiB. Every block of A reads
        // all of B again, which came from memory for the first.
        let cache = match kernels.isa {
            _ if !pairs || left == Left::Copied => CACHE,
            Isa::Amx => 4 * CACHE,
            _ => 2 * CACHE,
        };
        let k = shape.k.max(1);
        // A task's panels fit the cache; there are as many tasks as threads, or a multiple of that.
        let fitting = (if parts > 1 { cache } else { CACHE } / k / kernels.panel).max(1);
        let col_tasks = panels.div_ceil(fitting).next_multiple_of(threads).min(panels);
        let row_tasks = threads.div_ceil(col_tasks).min(shape.rows.div_ceil(kernels.tile_rows)).max(1);
        let tile = kernels.tile_rows;
        let block = (cache / k / tile * tile).max(tile);
        Product { shape, kernels, left, right, pairs, row_tasks, col_tasks, block, parts }
    }

    /// How many threads pay for a product of this shape.
    pub(super) fn threads(shape: &Shape, threads: usize) -> usize {
        let k = shape.k + shape.extension.map_or(0, |(rank, _)| rank);
        let flops = 2.0 * shape.rows as f64 * shape.cols as f64 * k as f64;
        // Reading B, or copying it into panels, takes its time even for a single row.
        let bytes = shape.cols as f64 * k as f64 * 4.0;
        threads_that_pay((flops / PRODUCT_RATE).max(bytes / 30e9), threads)
    }

    pub(super) fn tasks(&self) -> usize {
        self.row_tasks * self.col_tasks
    }

    /// Ranges of rows: task `i` has the `i / (tasks / row_tasks)`th of them.
    pub(super) fn row_tasks(&self) -> usize {
        self.row_tasks
    }

    /// The widest range of columns of a task, in whole panels.
    fn task_cols(&self) -> usize {
        let panels = self.shape.cols.div_ceil(self.kernels.panel);
        panels.div_ceil(self.col_tasks) * self.kernels.panel
    }

    /// f32 per thread: panels of B, a block of A, E's part, and a tile of C.
    pub(super) fn scratch(&self) -> usize {
        let [panels, left, extension, tile] = self.scratch_parts();
        panels + left + extension + tile
    }

    fn scratch_parts(&self) -> [usize; 4] {
        let (shape, cols) = (&self.shape, self.task_cols());
        let block = self.block.min(shape.rows);
        let transposed = matches!(shape.extension, Some((_, Order::Columns { .. })));
        [
            if self.right == Right::PackedByTask { shape.k * cols } else { 0 },
            // In pairs mode a block is transposed in f32, and narrowed again.
            if self.left == Left::Copied { shape.k * block * if self.pairs { 2 } else { 1 } } else { 0 },
            if transposed { shape.extension.map_or(0, |(rank, _)| rank) * cols } else { 0 },
            if self.needs_tile() { block * cols } else { 0 },
        ]
    }

    /// Whether C is made in f32 first: sums of several products, and rows of dots, are rounded once.
    fn needs_tile(&self) -> bool {
        self.shape.dtype != DType::F32 && (self.right == Right::Dot || self.shape.summed > 1)
    }

    /// Runs one task for the products of `operands`, of which there are `summed`, all with the same C.
    ///
    /// # Safety
    /// The operands have the shape's elements; `scratch` is this thread's own, as long as [`Product::scratch`] says.
    pub(super) unsafe fn run(&self, task: usize, operands: impl Iterator<Item = Operands> + Clone, scratch: *mut f32) {
        let Shape { rows, cols, dtype, beta, c_row, .. } = self.shape;
        let (bytes, panel) = (dtype.bytes(), self.kernels.panel);
        let (first_panel, panels) = split(cols.div_ceil(panel), self.col_tasks, task % self.col_tasks);
        let (first_row, task_rows) = split(rows, self.row_tasks, task / self.col_tasks);
        let col = first_panel * panel;
        let width = (panels * panel).min(cols.saturating_sub(col));
        if width == 0 || task_rows == 0 {
            return;
        }
        // SAFETY: the parts lie one after the other within the scratch; the ranges lie within the operands.
        unsafe {
            let tile = scratch.add(self.scratch() - self.scratch_parts()[3]);
            let whole_task = !self.needs_tile();
            let blocks = task_rows.div_ceil(self.block);
            // B's panels are made once per product where C needs no f32 tile, else once per block of rows.
            for tile_block in 0..if whole_task { 1 } else { blocks } {
                let (start, height) = if whole_task { (0, task_rows) } else { split(task_rows, blocks, tile_block) };
                let row = first_row + start;
                let mut target = Target { c: Write(std::ptr::null_mut()), c_row, dtype, beta };
                let in_parts =
                    operands.clone().flat_map(|operands| (0..self.parts).map(move |nth| self.part(operands, nth)));
                for (index, operands) in in_parts.enumerate() {
                    if index == 0 {
                        let c = Write(operands.c.at(row * c_row + col, bytes));
                        target = if whole_task { Target { c, ..target } } else { self.tile_of(tile, c, height, width) };
                    }
                    self.run_one(&operands, target, Range { row, rows: height, col, cols: width }, scratch);
                    target.beta = 1.0;
                }
                if !whole_task {
                    let c = operands.clone().next().map(|operands| operands.c);
                    let c = c.expect("there is a product").at(row * c_row + col, bytes);
                    for i in 0..height {
                        let (src, dst) = (tile.add(i * width), c.add(i * c_row * bytes));
                        (self.kernels.narrow)(&NarrowArgs { n: width, scale: 1.0, src, dst, dst_dtype: dtype });
                    }
                }
            }
        }
    }

    /// A part of a product's sum.
    fn part(&self, operands: Operands, nth: usize) -> Operands {
        let (first, bytes) = (nth * self.shape.k, self.shape.dtype.bytes());
        let row = if let Order::Rows { row } = self.shape.b { row } else { 1 };
        let [a, b] = [(operands.a, first), (operands.b, first * row)].map(|(x, at)| Read(x.at(at, bytes)));
        Operands { a, b, ..operands }
    }

    /// A tile of C in f32, which holds what C held if that counts.
    ///
    /// # Safety
    /// `c` and `tile` have `height` rows of `width`.
    unsafe fn tile_of(&self, tile: *mut f32, c: Write, height: usize, width: usize) -> Target {
        let Shape { dtype, beta, c_row, .. } = self.shape;
        if beta != 0.0 {
            for i in 0..height {
                let src = c.at(i * c_row, dtype.bytes());
                // SAFETY: the caller's contract.
                unsafe {
                    (self.kernels.widen)(&WidenArgs { n: width, src, src_dtype: dtype, dst: tile.add(i * width) })
                };
            }
        }
        Target { c: Write(tile.cast()), c_row: width, dtype: DType::F32, beta }
    }

    /// One product into one range of C.
    ///
    /// # Safety
    /// That of [`Product::run`].
    unsafe fn run_one(&self, operands: &Operands, target: Target, range: Range, scratch: *mut f32) {
        let Shape { k, dtype, alpha, .. } = self.shape;
        let (bytes, kernels) = (dtype.bytes(), self.kernels);
        let [panel_part, left_part, ..] = self.scratch_parts();
        // SAFETY: the caller's contract.
        unsafe {
            let mut beta = target.beta;
            if self.right == Right::Dot {
                let (Order::Rows { row: a_row }, Order::Columns { column }) = (self.shape.a, self.shape.b) else {
                    unreachable!("dots are chosen for this order only")
                };
                (kernels.dot)(&DotArgs {
                    rows: range.rows,
                    rank: range.cols,
                    k,
                    alpha,
                    x: operands.a.at(range.row * a_row, bytes),
                    x_row: a_row,
                    x_dtype: dtype,
                    a: operands.b.at(range.col * column, bytes),
                    a_row: column,
                    a_dtype: dtype,
                    h: target.c.0.cast(),
                    h_row: target.c_row,
                });
                beta = 1.0;
                if self.shape.extension.is_none() && operands.bias.is_null() {
                    return;
                }
            }
            let has_base = self.right != Right::Dot && k > 0;
            let pair_panels = (has_base && self.pairs).then(|| self.pair_panels(operands.b, range, scratch));
            let b = (has_base && !self.pairs).then(|| self.panels(operands.b, range, scratch));
            let e = self.extension_panels(operands.e, range, scratch.add(panel_part + left_part));
            let blocks = range.rows.div_ceil(self.block);
            for i in 0..blocks {
                let (start, rows) = split(range.rows, blocks, i);
                let row = range.row + start;
                let mut segments = [EMPTY; 2];
                let mut count = 0;
                if let Some(b) = b {
                    let (a, a_row, a_col) = self.block_of_a(operands.a, row, rows, scratch.add(panel_part));
                    segments[count] = Segment { a, a_row, a_col, b, k };
                    count += 1;
                }
                if let Some((rank, e)) = e {
                    segments[count] = Segment { a: operands.h.add(row * rank), a_row: rank, a_col: 1, b: e, k: rank };
                    count += 1;
                }
                let target_bytes = target.dtype.bytes();
                let product = ProductArgs {
                    rows,
                    cols: range.cols,
                    segments: &segments[..count],
                    alpha,
                    beta,
                    bias: if operands.bias.is_null() { operands.bias } else { operands.bias.add(range.col * bytes) },
                    c: target.c.at(start * target.c_row, target_bytes),
                    c_row: target.c_row,
                    c_dtype: target.dtype,
                };
                if let (Some(b), Some(product_bf16)) = (pair_panels, kernels.product_bf16) {
                    let (a, a_row) = self.pairs_of_a(operands.a, row, rows, scratch.add(panel_part));
                    product_bf16(&ProductBf16Args { pairs: PairSegment { a, a_row, b, k }, product });
                } else {
                    (kernels.product)(&product);
                }
            }
        }
    }

    /// The panels of pairs of B for a range of columns.
    ///
    /// # Safety
    /// That of [`Product::run`].
    unsafe fn pair_panels(&self, b: Read, range: Range, scratch: *mut f32) -> *const u8 {
        let Shape { k, dtype, b: order, .. } = self.shape;
        let (offset, src_row, transposed) = match order {
            Order::Packed => return b.at(range.col * k.next_multiple_of(2), dtype.bytes()),
            Order::Columns { column } => (range.col * column, column, true),
            Order::Rows { row } => (range.col, row, false),
        };
        let (src, dst) = (b.at(offset, dtype.bytes()), scratch.cast());
        let args = PackArgs { k, cols: range.cols, src, src_dtype: dtype, src_row, transposed, dst, dst_dtype: dtype };
        // SAFETY: the scratch has room for the panels of a task in f32, so for half as many pairs too.
        unsafe { (self.kernels.pack_pairs)(&args) };
        scratch.cast()
    }

    /// A block of A in bf16: pointer and row stride.
    ///
    /// # Safety
    /// That of [`Product::run`].
    unsafe fn pairs_of_a(&self, a: Read, row: usize, rows: usize, scratch: *mut f32) -> (*const u8, usize) {
        let Shape { k, dtype, a: order, .. } = self.shape;
        if let Order::Rows { row: a_row } = order {
            return (a.at(row * a_row, dtype.bytes()), a_row);
        }
        // SAFETY: the scratch has room for a block twice. What was bf16 is bf16 again, exactly.
        unsafe {
            let (wide, _, _) = self.block_of_a(a, row, rows, scratch);
            let dst: *mut u8 = scratch.add(k * rows).cast();
            (self.kernels.narrow)(&NarrowArgs { n: k * rows, scale: 1.0, src: wide, dst, dst_dtype: dtype });
            (dst, k)
        }
    }

    /// The panels of B for a range of columns.
    ///
    /// # Safety
    /// That of [`Product::run`].
    unsafe fn panels(&self, b: Read, range: Range, scratch: *mut f32) -> Panels {
        let Shape { k, dtype, b: order, .. } = self.shape;
        let (bytes, panel) = (dtype.bytes(), self.kernels.panel);
        match (order, self.right) {
            (Order::Packed, Right::PackedByTask) => {
                let n = k * range.cols.next_multiple_of(panel);
                let args = WidenArgs { n, src: b.at(range.col * k, bytes), src_dtype: dtype, dst: scratch };
                // SAFETY: the scratch has room for the panels of a task.
                unsafe { (self.kernels.widen)(&args) };
                Panels { ptr: scratch.cast(), dtype: DType::F32, row: panel, panel: k * panel, padded: true }
            }
            (Order::Packed, _) => {
                Panels { ptr: b.at(range.col * k, bytes), dtype, row: panel, panel: k * panel, padded: true }
            }
            (Order::Rows { row }, Right::InPlace) => {
                Panels { ptr: b.at(range.col, bytes), dtype, row, panel, padded: false }
            }
            (Order::Rows { .. } | Order::Columns { .. }, _) => {
                let (offset, src_row, transposed) = match order {
                    Order::Columns { column } => (range.col * column, column, true),
                    Order::Rows { row } => (range.col, row, false),
                    Order::Packed => unreachable!("matched above"),
                };
                let args = PackArgs {
                    k,
                    cols: range.cols,
                    src: b.at(offset, bytes),
                    src_dtype: dtype,
                    src_row,
                    transposed,
                    dst: scratch.cast(),
                    dst_dtype: DType::F32,
                };
                // SAFETY: the scratch has room for the panels of a task.
                unsafe { (self.kernels.pack)(&args) };
                Panels { ptr: scratch.cast(), dtype: DType::F32, row: panel, panel: k * panel, padded: true }
            }
        }
    }

    /// The rank and the panels of E for a range of columns.
    ///
    /// # Safety
    /// That of [`Product::run`].
    unsafe fn extension_panels(&self, e: Read, range: Range, scratch: *mut f32) -> Option<(usize, Panels)> {
        let (rank, order) = self.shape.extension.filter(|&(rank, _)| rank > 0)?;
        let (dtype, panel) = (self.shape.dtype, self.kernels.panel);
        let panels = match order {
            Order::Columns { column } => {
                // A few rows of [cols, rank] fit the innermost cache, so transposing them costs little.
                let dst_row = range.cols.next_multiple_of(panel);
                let args = TransposeArgs {
                    rows: range.cols,
                    cols: rank,
                    scale: 1.0,
                    src: e.at(range.col * column, dtype.bytes()),
                    src_dtype: dtype,
                    src_row: column,
                    dst: scratch.cast(),
                    dst_dtype: DType::F32,
                    dst_row,
                };
                // SAFETY: the scratch has room for `rank` rows of a task's columns.
                unsafe { (self.kernels.transpose)(&args) };
                Panels { ptr: scratch.cast(), dtype: DType::F32, row: dst_row, panel, padded: false }
            }
            Order::Rows { row } => Panels { ptr: e.at(range.col, dtype.bytes()), dtype, row, panel, padded: false },
            Order::Packed => unreachable!("an adapter changes from step to step, so it is never packed"),
        };
        Some((rank, panels))
    }

    /// A block of A as f32: pointer, row stride, column stride.
    ///
    /// # Safety
    /// That of [`Product::run`].
    unsafe fn block_of_a(&self, a: Read, row: usize, rows: usize, scratch: *mut f32) -> (*const f32, usize, usize) {
        let Shape { k, dtype, a: order, .. } = self.shape;
        let bytes = dtype.bytes();
        match (order, self.left) {
            (Order::Rows { row: a_row }, Left::InPlace) => (a.at(row * a_row, bytes).cast(), a_row, 1),
            (Order::Columns { column }, Left::InPlace) => (a.at(row, bytes).cast(), 1, column),
            (Order::Rows { row: a_row }, Left::Copied) => {
                for i in 0..rows {
                    let src = a.at((row + i) * a_row, bytes);
                    // SAFETY: the scratch has room for a block.
                    unsafe {
                        (self.kernels.widen)(&WidenArgs { n: k, src, src_dtype: dtype, dst: scratch.add(i * k) })
                    };
                }
                (scratch, k, 1)
            }
            (Order::Columns { column }, Left::Copied) => {
                let args = TransposeArgs {
                    rows: k,
                    cols: rows,
                    scale: 1.0,
                    src: a.at(row, bytes),
                    src_dtype: dtype,
                    src_row: column,
                    dst: scratch.cast(),
                    dst_dtype: DType::F32,
                    dst_row: k,
                };
                // SAFETY: the scratch has room for a block.
                unsafe { (self.kernels.transpose)(&args) };
                (scratch, k, 1)
            }
            (Order::Packed, _) => unreachable!("only B is ever packed"),
        }
    }
}

/// A range of C.
#[derive(Clone, Copy)]
struct Range {
    row: usize,
    rows: usize,
    col: usize,
    cols: usize,
}

/// Where a range of C is made.
#[derive(Clone, Copy)]
struct Target {
    c: Write,
    c_row: usize,
    dtype: DType,
    beta: f32,
}

const EMPTY: Segment = Segment {
    a: std::ptr::null(),
    a_row: 0,
    a_col: 0,
    b: Panels { ptr: std::ptr::null(), dtype: DType::F32, row: 0, panel: 0, padded: true },
    k: 0,
};
