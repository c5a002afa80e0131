//! Products with weights that were packed into panels of sixteen rows: a task is a range of panels.
//!
//! Where x may be rounded, all of it is rounded first, into the tiles that the panels then meet. Few rows of x meet panels
//! as they are in memory, which is read once and from front to back; for more a panel is unpacked, once.

use super::super::{Call, Floats, Program, Read, Write, split, threads_that_pay};
use crate::Input;
use crate::kernels::quant::{GROUP, PANEL, most_rows, pack_panel, rounded_bytes, scales_of, tile_of, unpacked_bytes};
use crate::kernels::{Kernels, QuantExactArgs, QuantProductArgs, QuantRoundArgs, WidenArgs};
use crate::pool::Pool;
use candlewick_core::backend::Packing;
use candlewick_core::op::PackedFactor;
use candlewick_core::{Activations, DType, QuantLinear};

/// One thread's seconds per byte of W, roughly: it decides about threads only.
const SECONDS_PER_BYTE: f64 = 0.08e-9;
/// One thread's seconds per multiplication of rounded numbers, and of numbers as they are, roughly.
const SECONDS_PER_PRODUCT: [f64; 2] = [0.005e-9, 0.03e-9];
/// Rows of x that meet panels as they are.
const FEW: usize = 4;
/// Bytes of x that all panels of a task pass by before the next ones do: they stay in the second level of cache.
const AT_ONCE: usize = 1 << 20;

pub(super) struct Packed {
    op: QuantLinear,
    kernels: &'static Kernels,
    threads: usize,
}

/// Where the parts of the workspace are, counted in f32; each starts on a cache line.
struct Workspace {
    /// x, rounded, or widened.
    x: usize,
    /// A flag for each row that cannot be rounded.
    exact: usize,
    /// What each thread has of its own: an unpacked panel, and a row of x in f32.
    threads: usize,
    unpacked: usize,
    per_thread: usize,
}

fn line(floats: usize) -> usize {
    floats.next_multiple_of(16)
}

impl Packed {
    pub(super) fn new(op: QuantLinear, kernels: &'static Kernels, threads: usize) -> Self {
        let bytes = op.format.row_bytes(op.in_features) as f64 * op.out_features as f64;
        let products = op.rows as f64 * op.in_features as f64 * op.out_features as f64;
        let per_product = SECONDS_PER_PRODUCT[usize::from(op.activations == Activations::Exact)];
        let seconds = bytes * SECONDS_PER_BYTE + products * per_product;
        let panels = op.out_features.div_ceil(PANEL);
        Packed { op, kernels, threads: threads_that_pay(seconds, threads.min(panels.max(1))) }
    }

    fn groups(&self) -> usize {
        self.op.in_features / GROUP
    }

    fn rounds(&self) -> bool {
        self.op.activations == Activations::Int8
    }

    /// Bytes of a rounded row.
    fn rounded(&self) -> usize {
        self.groups() * rounded_bytes(scales_of(self.op.format))
    }

    fn layout(&self) -> Workspace {
        let op = &self.op;
        let x = match op.dtype {
            _ if self.rounds() => op.rows * self.rounded() / 4,
            DType::F32 => 0,
            _ => op.rows * op.in_features,
        };
        let exact = line(x);
        let threads = exact + if self.rounds() { line(op.rows) } else { 0 };
        let unpacked = if self.rounds() && op.rows > FEW { unpacked_bytes(op.format, self.groups()) / 4 } else { 0 };
        let row = if self.rounds() && op.dtype != DType::F32 { op.in_features } else { 0 };
        Workspace { x: 0, exact, threads, unpacked, per_thread: line(unpacked) + line(row) }
    }

    /// Rows of x that meet the panels of a task at once: whole tiles, if there are more.
    fn block(&self, row_bytes: usize, tile: usize) -> usize {
        (AT_ONCE / row_bytes.max(1) / tile * tile).max(tile)
    }

    /// Calls `panel(panel, first row, rows)` for every panel of a range and every block of rows.
    fn each(&self, range: (usize, usize), block: usize, mut panel: impl FnMut(usize, usize, usize)) {
        for row in (0..self.op.rows).step_by(block) {
            for nth in range.0..range.0 + range.1 {
                panel(nth, row, block.min(self.op.rows - row));
            }
        }
    }

    /// The arguments of a product as it is, of rows from `row` on with one panel.
    fn exact(
        &self,
        rows: usize,
        row: usize,
        panel: usize,
        (x, x_row): (*const f32, usize),
        places: Places,
    ) -> QuantExactArgs {
        let op = &self.op;
        QuantExactArgs {
            rows,
            cols: PANEL.min(op.out_features - panel * PANEL),
            groups: self.groups(),
            format: op.format,
            panel: places.w.at(panel, PANEL * op.format.row_bytes(op.in_features)),
            x,
            x_row,
            y: places.y.at(row * op.y_row + panel * PANEL, op.dtype.bytes()),
            y_row: op.y_row,
            y_dtype: op.dtype,
            accumulate: op.accumulate,
        }
    }

    /// # Safety
    /// That of [`Program::run`].
    unsafe fn run_exact(&self, call: &mut Call<'_, '_, '_>, places: Places) {
        let (op, kernels) = (self.op, self.kernels);
        let bytes = op.dtype.bytes();
        let workspace = Floats(call.workspace);
        let (x, x_row) = if op.dtype == DType::F32 {
            (Floats(places.x.0.cast::<f32>().cast_mut()), op.x_row)
        } else {
            let tasks = self.tasks(op.rows);
            call.pool.run(tasks, self.threads, &|task, _| {
                let (first, rows) = split(op.rows, tasks, task);
                for row in first..first + rows {
                    let (src, dst) = (places.x.at(row * op.x_row, bytes), workspace.at(row * op.in_features));
                    // SAFETY: the row lies within x, and the workspace has room for it.
                    unsafe { (kernels.widen)(&WidenArgs { n: op.in_features, src, src_dtype: op.dtype, dst }) };
                }
            });
            (workspace, op.in_features)
        };
        let panels = op.out_features.div_ceil(PANEL);
        let tasks = self.tasks(panels);
        let block = self.block(4 * op.in_features, 8);
        call.pool.run(tasks, self.threads, &|task, _| {
            self.each(split(panels, tasks, task), block, |panel, row, rows| {
                let args = self.exact(rows, row, panel, (x.at(row * x_row), x_row), places);
                // SAFETY: the rows and the panel are there, and tasks differ in panels.
                unsafe { (kernels.quant_exact)(&args) };
            });
        });
    }

    /// # Safety
    /// That of [`Program::run`].
    unsafe fn run_rounded(&self, call: &mut Call<'_, '_, '_>, places: Places) {
        let (op, kernels, groups) = (self.op, self.kernels, self.groups());
        let (bytes, most) = (op.dtype.bytes(), most_rows(kernels.quant_rows, scales_of(op.format)));
        let workspace = Floats(call.workspace);
        let layout = self.layout();
        let rounded = Read(workspace.at(layout.x).cast());
        let flags = Floats(workspace.at(layout.exact));
        let own = Floats(workspace.at(layout.threads));
        let round_rows = |first: usize, rows: usize| {
            for row in first..first + rows {
                let (tile, tile_rows) = tile_of(row, op.rows, most);
                // SAFETY: the row lies within x, and the workspace has room for every tile and flag.
                unsafe {
                    (kernels.quant_round)(&QuantRoundArgs {
                        groups,
                        format: op.format,
                        x: places.x.at(row * op.x_row, bytes),
                        dtype: op.dtype,
                        tile: rounded.at(tile, self.rounded()).cast_mut(),
                        tile_rows,
                        row: row - tile,
                        exact: flags.at(row).cast(),
                    });
                }
            }
        };
        let tasks = self.tasks(op.rows);
        call.pool.run(tasks, if op.rows > FEW { self.threads } else { 1 }, &|task, _| {
            let (first, rows) = split(op.rows, tasks, task);
            round_rows(first, rows);
        });
        let panels = op.out_features.div_ceil(PANEL);
        let tasks = self.tasks(panels);
        let block = self.block(self.rounded(), most);
        call.pool.run(tasks, self.threads, &|task, thread| {
            let own = own.at(thread * layout.per_thread);
            self.each(split(panels, tasks, task), block, |panel, row, rows| {
                // SAFETY: the rows and the panel are there, `own` is this thread's, and tasks differ in panels.
                unsafe {
                    (kernels.quant_product)(&QuantProductArgs {
                        rows,
                        cols: PANEL.min(op.out_features - panel * PANEL),
                        groups,
                        format: op.format,
                        panel: places.w.at(panel, PANEL * op.format.row_bytes(op.in_features)),
                        x: rounded.at(row, self.rounded()),
                        exact: flags.at(row).cast(),
                        unpacked: if op.rows > FEW { own.cast() } else { std::ptr::null_mut() },
                        y: places.y.at(row * op.y_row + panel * PANEL, bytes),
                        y_row: op.y_row,
                        y_dtype: op.dtype,
                        accumulate: op.accumulate,
                    });
                    for row in (row..row + rows).filter(|&row| *flags.at(row).cast::<u32>() != 0) {
                        let src = places.x.at(row * op.x_row, bytes);
                        let x = if op.dtype == DType::F32 {
                            src.cast()
                        } else {
                            let dst = own.add(line(layout.unpacked));
                            (kernels.widen)(&WidenArgs { n: op.in_features, src, src_dtype: op.dtype, dst });
                            dst.cast_const()
                        };
                        (kernels.quant_exact)(&self.exact(1, row, panel, (x, 0), places));
                    }
                }
            });
        });
    }

    fn tasks(&self, parts: usize) -> usize {
        if self.threads == 1 { 1 } else { parts.min(4 * self.threads) }
    }
}

/// The operands.
#[derive(Clone, Copy)]
struct Places {
    x: Read,
    w: Read,
    y: Write,
}

impl Program for Packed {
    fn threads(&self) -> usize {
        self.threads
    }

    fn workspace(&self) -> usize {
        let layout = self.layout();
        layout.threads + self.threads * layout.per_thread
    }

    fn packing(&self) -> Option<Packing> {
        let QuantLinear { in_features: k, out_features: n, format, .. } = self.op;
        // One order for every instruction set, and for x as it is and rounded.
        Some(Packing { k, n, panel: PANEL, interleave: 4, transposed: true, dtype: DType::U8, quant: Some(format) })
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        if self.op.rows == 0 || self.op.out_features == 0 {
            return;
        }
        let places = Places { x: call.input(0), w: call.input(1), y: call.output(0) };
        // SAFETY: the caller's promise.
        unsafe {
            if self.rounds() {
                self.run_rounded(call, places);
            } else {
                self.run_exact(call, places);
            }
        }
    }

    unsafe fn pack(&self, factor: &PackedFactor, plain: Input<'_>, packed: *mut u8, pool: &Pool) {
        let (source, target, format) = (Read(plain.pointer()), Write(packed), self.op.format);
        let panels = factor.n.div_ceil(PANEL);
        let tasks = panels.min(4 * pool.threads());
        if factor.row == 0 {
            return;
        }
        pool.run(tasks, pool.threads(), &|task, _| {
            let (first, count) = split(panels, tasks, task);
            for panel in first..first + count {
                let rows = PANEL.min(factor.n - panel * PANEL);
                // SAFETY: the plain operand has these rows and the packed one whole panels; tasks differ in panels.
                let (blocks, to) = unsafe {
                    (
                        std::slice::from_raw_parts(source.at(panel * PANEL, factor.row), rows * factor.row),
                        std::slice::from_raw_parts_mut(target.at(panel * PANEL, factor.row), PANEL * factor.row),
                    )
                };
                pack_panel(format, rows, factor.k, blocks, to);
            }
        });
    }
}
