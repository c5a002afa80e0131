//! `kernels/lora.h`, and LoRA as products: h = x Aᵀ in f32 first, then whatever needs it.
//!
//! Forward: y = x Wᵀ + bias + scale h Bᵀ. Backward, with dh = scale dy B in f32: dx = dy W + dh A, da = dhᵀ x,
//! db = scale dyᵀ h. Without a base, the terms with W fall away.

use crate::product::{Extension, Matrix, Product};
use crate::program::{Alignment, GpuLimits, Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use candlewick_core::{DType, LoraDelta, LoraLinear};

params! {
    struct LoraUpParams {
        y_row: u64,
        e_rank: u64,
        e_col: u64,
        rows: u32,
        cols: u32,
        rank: u32,
        unused: u32,
        factor: f32,
        beta: f32,
    }
}

params! {
    struct LoraLayerParams {
        in_features: u32,
        out_features: u32,
        rank: u32,
        outputs: u32,
        has_bias: u32,
        accumulate: u32,
        factor: f32,
    }
}

/// Up to so many rows, the products with W are the better guess by the ways for few rows.
const FEW_ROWS: u32 = 64;
/// Up to so many few rows on one side (rows of x, or the rank), h and the gradients are.
const FEW: u32 = 64;
/// The rank that fits the group memory of `lora_layer`.
const LAYER_RANK: u32 = 128;

/// Sizes and operands, forward and backward, with and without a base.
struct Lora {
    dtype: DType,
    rows: u32,
    ins: u32,
    outs: u32,
    rank: u32,
    scale: f32,
    beta: f32,
    x_row: usize,
    y_row: usize,
    base: bool,
    bias: bool,
    limits: GpuLimits,
    alignment: Alignment,
}

impl Lora {
    fn linear(op: &LoraLinear, limits: &GpuLimits, alignment: Alignment) -> Option<Self> {
        Some(Lora {
            dtype: op.dtype,
            rows: size(op.rows)?,
            ins: size(op.in_features)?,
            outs: size(op.out_features)?,
            rank: size(op.rank)?,
            scale: op.scale.get(),
            beta: if op.accumulate { 1.0 } else { 0.0 },
            x_row: op.x_row,
            y_row: op.y_row,
            base: true,
            bias: op.bias,
            limits: *limits,
            alignment,
        })
    }

    fn delta(op: &LoraDelta, limits: &GpuLimits, alignment: Alignment) -> Option<Self> {
        let LoraDelta { rows, in_features, out_features, rank, scale, dtype, .. } = *op;
        let linear = LoraLinear::new(rows, in_features, out_features, rank, scale.get(), dtype);
        let linear = LoraLinear { x_row: op.x_row, y_row: op.y_row, ..linear };
        let beta = if op.accumulate { 1.0 } else { 0.0 };
        Some(Lora { beta, base: false, ..Lora::linear(&linear, limits, alignment)? })
    }

    fn bytes(&self) -> u64 {
        self.dtype.bytes() as u64
    }

    /// Rows of x, y, dx or dy.
    fn rows_of(&self, place: Place, row: usize, cols: u32) -> Matrix {
        Matrix::new(Memory::whole(place, self.bytes() * span(self.rows as usize, row, cols as usize)), row, 1)
    }

    /// A contiguous matrix: W, A, B, their gradients.
    fn matrix(&self, place: Place, rows: u32, cols: u32) -> Matrix {
        Matrix::new(Memory::whole(place, self.bytes() * u64::from(rows) * u64::from(cols)), cols as usize, 1)
    }

    /// Memory for h or dh, [rows, rank].
    fn hidden(&self, program: &mut Program) -> Matrix {
        let memory = program.reserve(4 * u64::from(self.rows) * u64::from(self.rank));
        Matrix::f32(memory, self.rank as usize, 1)
    }

    fn product(&self, sizes: [u32; 3], a: Matrix, b: Matrix, c: Matrix) -> Product {
        Product::new(self.dtype, sizes, a, b, c)
    }

    /// h = x Aᵀ.
    fn down(&self, x: Matrix, a: Matrix, h: Matrix) -> Product {
        self.product([self.rows, self.rank, self.ins], x, a.transposed(), h)
    }

    /// A product, the ways for few rows first where `few` says so.
    fn run(&self, program: &mut Program, product: &Product, few: bool) -> Option<()> {
        if product.elements() == 0 {
            return Some(());
        }
        for way in [Product::dots, Product::columns].into_iter().filter(|_| few) {
            let mut tried = program.clone();
            if way(product, &mut tried, &self.limits, self.alignment).is_some() {
                *program = tried;
                return Some(());
            }
        }
        product.tiled_for(program, &self.limits)
    }

    /// y = factor h E + beta y.
    fn up(&self, program: &mut Program, delta: Extension, y: Matrix, cols: u32, beta: f32) -> Option<()> {
        let Extension { rank, h, e, factor } = delta;
        let params = LoraUpParams {
            y_row: y.row,
            e_rank: e.row,
            e_col: e.col,
            rows: self.rows,
            cols,
            rank,
            unused: 0,
            factor,
            beta,
        };
        let wide = self.alignment == Alignment::Sixteen && e.row == 1 && rank.is_multiple_of(8);
        let kernel = Kernel { file: File::Lora, names: names!("lora_up"), dtype: self.dtype, wide };
        let groups = u64::from(self.rows.div_ceil(8)) * u64::from(cols.div_ceil(256));
        program.launch(kernel, &params, [h.read(), e.memory.read(), y.memory.update(beta != 0.0)], groups, 256)
    }

    fn forward(&self, way: &'static str, few: bool) -> Option<Program> {
        let mut program = Program::new(way, self.dtype);
        let mut inputs = (0..).map(Place::Input);
        let mut next = || inputs.next().unwrap_or(Place::Input(0));
        let x = self.rows_of(next(), self.x_row, self.ins);
        let w = self.base.then(|| self.matrix(next(), self.outs, self.ins));
        let bias = self.bias.then(|| self.matrix(next(), 1, self.outs).memory);
        let a = self.matrix(next(), self.rank, self.ins);
        let b = self.matrix(next(), self.outs, self.rank);
        let y = self.rows_of(Place::Output(0), self.y_row, self.outs);
        if self.rows == 0 || self.outs == 0 {
            return Some(program);
        }
        if way == LAYER {
            self.layer(&mut program, [x, w?, a, b, y], bias)?;
            return Some(program);
        }
        let h = self.hidden(&mut program);
        self.run(&mut program, &self.down(x, a, h), few || self.rank <= FEW)?;
        let extension = Extension { rank: self.rank, h: h.memory, e: b.transposed(), factor: self.scale };
        match w {
            Some(w) => {
                let sizes = [self.rows, self.outs, self.ins];
                let product = self.product(sizes, x, w.transposed(), y);
                let product = Product { extension: Some(extension), bias, beta: self.beta, ..product };
                self.run(&mut program, &product, few)?;
            }
            None if few => self.up(&mut program, extension, y, self.outs, self.beta)?,
            None => {
                let product = self.product([self.rows, self.outs, 0], x, a, y);
                let product = Product { extension: Some(extension), beta: self.beta, ..product };
                product.tiled_for(&mut program, &self.limits)?;
            }
        }
        Some(program)
    }

    /// One row in one launch.
    fn layer(&self, program: &mut Program, [x, w, a, b, y]: [Matrix; 5], bias: Option<Memory>) -> Option<()> {
        if self.rows != 1 || self.rank > LAYER_RANK {
            return None;
        }
        let outputs = self.outs.div_ceil(self.limits.cores.max(1));
        let params = LoraLayerParams {
            in_features: self.ins,
            out_features: self.outs,
            rank: self.rank,
            outputs,
            has_bias: bias.is_some().into(),
            accumulate: (self.beta != 0.0).into(),
            factor: self.scale,
        };
        let wide = self.alignment == Alignment::Sixteen && self.ins.is_multiple_of(8);
        let kernel = Kernel { file: File::Lora, names: names!("lora_layer"), dtype: self.dtype, wide };
        let unused = y.memory.unused();
        let bindings = [
            x.memory.read(),
            w.memory.read(),
            bias.unwrap_or(unused).read(),
            a.memory.read(),
            b.memory.read(),
            y.memory.update(self.beta != 0.0),
        ];
        let teams = outputs.max(self.rank).clamp(1, self.limits.threads_per_group / 32);
        program.launch(kernel, &params, bindings, self.outs.div_ceil(outputs).into(), 32 * teams)
    }

    fn backward(&self, way: &'static str, few: bool) -> Option<Program> {
        let mut program = Program::new(way, self.dtype);
        let mut inputs = (0..).map(Place::Input);
        let mut next = || inputs.next().unwrap_or(Place::Input(0));
        let x = self.rows_of(next(), self.x_row, self.ins);
        let w = self.base.then(|| self.matrix(next(), self.outs, self.ins));
        let a = self.matrix(next(), self.rank, self.ins);
        let b = self.matrix(next(), self.outs, self.rank);
        let dy = self.rows_of(next(), self.y_row, self.outs);
        let dx = self.rows_of(Place::Output(0), self.x_row, self.ins);
        let da = self.matrix(Place::Output(1), self.rank, self.ins);
        let db = self.matrix(Place::Output(2), self.outs, self.rank);
        let (h, dh) = (self.hidden(&mut program), self.hidden(&mut program));
        let few_rank = few || self.rank <= FEW;

        let dh_product = self.product([self.rows, self.rank, self.outs], dy, b, dh);
        self.run(&mut program, &self.down(x, a, h), few_rank)?;
        self.run(&mut program, &Product { alpha: self.scale, ..dh_product }, few_rank)?;
        let extension = Extension { rank: self.rank, h: dh.memory, e: a, factor: 1.0 };
        match w {
            Some(w) => {
                let product = self.product([self.rows, self.ins, self.outs], dy, w, dx);
                self.run(&mut program, &Product { extension: Some(extension), ..product }, few)?;
            }
            None => self.up(&mut program, extension, dx, self.ins, 0.0)?,
        }
        let da_product = self.product([self.rank, self.ins, self.rows], dh.transposed(), x, da);
        let db_product = self.product([self.outs, self.rank, self.rows], dy.transposed(), h, db);
        self.run(&mut program, &da_product, few_rank)?;
        self.run(&mut program, &Product { alpha: self.scale, ..db_product }, few_rank)?;
        Some(program)
    }

    /// The best guess first.
    fn few_first(&self, run: impl Fn(&'static str, bool) -> Option<Program>) -> Vec<Program> {
        let (few, tiled) = ((FEW_WAY, true), (TILED, false));
        let ways = if self.rows <= FEW_ROWS || !self.base { [few, tiled] } else { [tiled, few] };
        ways.into_iter().filter_map(|(way, few)| run(way, few)).collect()
    }
}

const FEW_WAY: &str = "few_rows";
const TILED: &str = "tiled";
const LAYER: &str = "one_launch";

/// How `op` can run, the best guess first.
pub(crate) fn linear(op: &LoraLinear, limits: &GpuLimits, alignment: Alignment) -> Vec<Program> {
    let Some(lora) = Lora::linear(op, limits, alignment) else { return Vec::new() };
    let ways = lora.few_first(|way, few| lora.forward(way, few));
    let layer = lora.forward(LAYER, true);
    // Without a rank it is a product: dots spread it over all cores.
    if op.rank == 0 { ways.into_iter().chain(layer).collect() } else { layer.into_iter().chain(ways).collect() }
}

/// How `op` can run, the best guess first.
pub(crate) fn delta(op: &LoraDelta, limits: &GpuLimits, alignment: Alignment) -> Vec<Program> {
    let Some(lora) = Lora::delta(op, limits, alignment) else { return Vec::new() };
    lora.few_first(|way, few| lora.forward(way, few))
}

/// How the backward of `op` can run, the best guess first.
pub(crate) fn linear_backward(op: &LoraLinear, limits: &GpuLimits, alignment: Alignment) -> Vec<Program> {
    let Some(lora) = Lora::linear(op, limits, alignment) else { return Vec::new() };
    lora.few_first(|way, few| lora.backward(way, few))
}

/// How the backward of `op` can run, the best guess first.
pub(crate) fn delta_backward(op: &LoraDelta, limits: &GpuLimits, alignment: Alignment) -> Vec<Program> {
    let Some(lora) = Lora::delta(op, limits, alignment) else { return Vec::new() };
    lora.few_first(|way, few| lora.backward(way, few))
}
