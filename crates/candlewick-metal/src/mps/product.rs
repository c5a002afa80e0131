//! `MPSMatrixMultiplication`: products of f32 and f16, and LoRA as two products, the second added to the first.

use super::matrices::{Layout, Matrices, access};
use super::{Stage, Step, beta_zero, data_type};
use crate::ops::Build;
use crate::runtime::arena::Part;
use crate::runtime::dispatch::{Dispatch, Places};
use crate::runtime::encoder::{Accesses, Encoder};
use crate::runtime::hazard::Access;
use crate::runtime::objects::MetalDevice;
use crate::runtime::pipeline::Source;
use bytemuck::NoUninit;
use candlewick_core::op::Format;
use candlewick_core::{DType, LoraDelta, LoraLinear, MatMul, Result};
use objc2::AnyThread;
use objc2::rc::{Retained, autoreleasepool};
use objc2_metal::MTLSize;
use objc2_metal_performance_shaders::{MPSMatrix, MPSMatrixMultiplication};

/// Products with longer sums were wrong on M1 and M2 (reported by others).
const LONGEST_SUM: usize = 32768;

/// What a product is made of, without objects.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) left: Layout,
    pub(super) right: Layout,
    pub(super) result: Layout,
    pub(super) transpose: [bool; 2],
    /// Rows and columns of the result, terms of the sum.
    pub(super) sizes: [usize; 3],
    pub(super) alpha: f32,
    pub(super) beta: f32,
    pub(super) dtype: DType,
}

impl Shape {
    /// Of a product that [`runs_matmul`] accepts.
    pub(super) fn of(op: &MatMul) -> Self {
        let element = op.dtype.bytes();
        let (matrices, strides) = batch(op).unwrap_or((1, [0; 3]));
        let layout = |rows, columns, row: usize, stride: usize| Layout {
            rows,
            columns,
            matrices,
            row_bytes: row * element,
            matrix_bytes: if matrices == 1 { rows * row * element } else { stride * element },
            data_type: data_type(op.dtype),
        };
        let (a_rows, a_cols) = if op.trans_a { (op.k, op.m) } else { (op.m, op.k) };
        let (b_rows, b_cols) = if op.trans_b { (op.n, op.k) } else { (op.k, op.n) };
        // Packed, the stored rows lie side by side.
        let ldb = if op.b_format == Format::Packed { b_cols } else { op.ldb };
        Shape {
            left: layout(a_rows, a_cols, op.lda, strides[0]),
            right: layout(b_rows, b_cols, ldb, strides[1]),
            result: layout(op.m, op.n, op.ldc, strides[2]),
            transpose: [op.trans_a, op.trans_b],
            sizes: [op.m, op.n, op.k],
            alpha: op.alpha.get(),
            beta: op.beta.get(),
            dtype: op.dtype,
        }
    }

    /// A new kernel object.
    pub(super) fn kernel(&self, device: &MetalDevice) -> Retained<MPSMatrixMultiplication> {
        let [rows, columns, interior] = self.sizes;
        // SAFETY: the sizes are those of the matrices that it will be given.
        unsafe {
            MPSMatrixMultiplication::initWithDevice_transposeLeft_transposeRight_resultRows_resultColumns_interiorColumns_alpha_beta(
                MPSMatrixMultiplication::alloc(),
                device,
                self.transpose[0],
                self.transpose[1],
                rows,
                columns,
                interior,
                f64::from(self.alpha),
                f64::from(self.beta),
            )
        }
    }
}

/// The batch as one dimension: how many, and from one product to the next in A, B and C. Each matrix of MPS is a whole
/// number of rows after the last, and they do not overlap: no broadcast, no sum, no heads side by side.
fn batch(op: &MatMul) -> Option<(usize, [usize; 3])> {
    let used: Vec<usize> = (0..3).filter(|&i| op.batch.dims[i] != 1).collect();
    let (Some(&last), batch) = (used.last(), op.batch) else { return Some((1, [0; 3])) };
    let mut count = 1;
    for &i in used.iter().rev() {
        if [batch.a, batch.b, batch.c].iter().any(|strides| strides[i] != count * strides[last]) {
            return None;
        }
        count *= batch.dims[i];
    }
    let (a_rows, b_rows) = (if op.trans_a { op.k } else { op.m }, if op.trans_b { op.n } else { op.k });
    let rows = [(batch.a[last], a_rows, op.lda), (batch.b[last], b_rows, op.ldb), (batch.c[last], op.m, op.ldc)];
    let whole = rows.iter().all(|&(stride, rows, row)| stride >= rows * row && stride.is_multiple_of(row));
    whole.then(|| (count, [batch.a[last], batch.b[last], batch.c[last]]))
}

/// Whether a factor is the same in the dtype: MPS rounds it to that of the result (MPSMatrixMultiplication.h).
fn is_exact(factor: f32, dtype: DType) -> bool {
    // Eleven bits of mantissa, and an exponent far inside f16's.
    dtype == DType::F32 || factor == 0.0 || (factor.to_bits() & 0x1fff == 0 && (1e-4..6e4).contains(&factor.abs()))
}

/// Whether MPS runs a product. With alpha = 0 an infinite A would show.
pub(crate) fn runs_matmul(op: &MatMul) -> bool {
    let sizes = [op.m, op.n, op.k];
    matches!(op.dtype, DType::F32 | DType::F16)
        && sizes.iter().all(|&size| size > 0)
        && op.batch.count() > 0
        && op.k <= LONGEST_SUM
        && op.alpha.get() != 0.0
        && is_exact(op.alpha.get(), op.dtype)
        && is_exact(op.beta.get(), op.dtype)
        && batch(op).is_some()
}

/// LoRA in f32 alone: between the products MPS would round h to f16, which the result's bound has no room for.
pub(crate) fn runs_lora_delta(op: &LoraDelta) -> bool {
    let sizes = [op.rows, op.in_features, op.out_features, op.rank];
    let terms = op.in_features.max(op.rank);
    op.dtype == DType::F32 && sizes.iter().all(|&size| size > 0) && op.scale.get() != 0.0 && terms <= LONGEST_SUM
}

/// As the delta, and without a bias, which MPS's product does not have.
pub(crate) fn runs_lora_linear(op: &LoraLinear) -> bool {
    !op.bias
        && runs_lora_delta(&LoraDelta::new(op.rows, op.in_features, op.out_features, op.rank, op.scale.get(), op.dtype))
}

/// Where an operand is.
enum Where {
    /// A tensor of the call.
    Tensor(usize),
    /// In memory of the prepared kernel, at an address.
    Own(Retained<MPSMatrix>, u64),
}

struct Operand {
    place: Where,
    layout: Layout,
}

/// A prepared product.
pub(crate) struct Product {
    kernel: Retained<MPSMatrixMultiplication>,
    operands: [Operand; 3],
    element: usize,
    /// Zeroes C first.
    clear: Option<Box<Dispatch>>,
}

/// A product of tensors.
pub(crate) fn matmul(op: &MatMul, build: &mut Build<'_>) -> Result<Vec<Step>> {
    let tensors = [Where::Tensor(0), Where::Tensor(1), Where::Tensor(2)];
    Ok(vec![Step::Product(Product::new(&Shape::of(op), tensors, build)?)])
}

/// y = x W^T or y += x W^T, then y += (scale x A^T) B^T.
pub(crate) fn lora_linear(op: &LoraLinear, build: &mut Build<'_>) -> Result<Vec<Step>> {
    let LoraLinear { rows, in_features, out_features, rank, scale, x_row, y_row, dtype, .. } = *op;
    let mut base = MatMul::new(rows, out_features, in_features, dtype).trans_b();
    base = base.scaled(1.0, if op.accumulate { 1.0 } else { 0.0 });
    (base.lda, base.ldc) = (x_row, y_row);
    let base = Product::new(&Shape::of(&base), [Where::Tensor(0), Where::Tensor(1), Where::Tensor(4)], build)?;
    let delta = LoraDelta { x_row, y_row, ..LoraDelta::new(rows, in_features, out_features, rank, scale.get(), dtype) };
    let mut steps = vec![Step::Product(base)];
    steps.extend(delta_steps(&delta.accumulate(), [0, 2, 3, 4], build)?);
    Ok(steps)
}

/// h = scale x A^T, then y = h B^T or y += h B^T.
pub(crate) fn lora_delta(op: &LoraDelta, build: &mut Build<'_>) -> Result<Vec<Step>> {
    delta_steps(op, [0, 1, 2, 3], build)
}

fn delta_steps(op: &LoraDelta, [x, a, b, y]: [usize; 4], build: &mut Build<'_>) -> Result<Vec<Step>> {
    let LoraDelta { rows, in_features, out_features, rank, scale, .. } = *op;
    let mut down = MatMul::new(rows, rank, in_features, op.dtype).trans_b().scaled(scale.get(), 0.0);
    down.lda = op.x_row;
    let mut up = MatMul::new(rows, out_features, rank, op.dtype).trans_b();
    up = up.scaled(1.0, if op.accumulate { 1.0 } else { 0.0 });
    up.ldc = op.y_row;
    let (down, up) = (Shape::of(&down), Shape::of(&up));
    let own = build.own(rows * rank * op.dtype.bytes())?;
    let part = build.part(own);
    // Zeros: MPS may read it once before it is first written.
    // SAFETY: nobody else has the memory yet.
    unsafe { part.pointer().write_bytes(0, part.bytes()) };
    let h = |part: &Part| autoreleasepool(|_| down.result.matrix(part.place(), &down.result.descriptor()));
    let (written, read) = (h(part), h(part));
    let address = part.pointer() as u64;
    let tensors = [Where::Tensor(x), Where::Tensor(a), Where::Own(written, address)];
    let down = Product::new(&down, tensors, build)?;
    let up = Product::new(&up, [Where::Own(read, address), Where::Tensor(b), Where::Tensor(y)], build)?;
    Ok(vec![Step::Product(down), Step::Product(up)])
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ClearParams {
    row: u64,
    batch: u64,
    cols: u32,
    rows: u32,
}

impl Product {
    fn new(shape: &Shape, [left, right, result]: [Where; 3], build: &mut Build<'_>) -> Result<Self> {
        let element = shape.dtype.bytes();
        let clear = match result {
            Where::Tensor(c) if shape.beta == 0.0 && beta_zero::reads_c(build.shared())? => {
                Some(Box::new(clear(&shape.result, element, c, build)?))
            }
            _ => None,
        };
        let kernel = autoreleasepool(|_| shape.kernel(build.shared().metal()));
        let operand = |place, layout| Operand { place, layout };
        let operands = [operand(left, shape.left), operand(right, shape.right), operand(result, shape.result)];
        Ok(Product { kernel, operands, element, clear })
    }

    /// The descriptors, or the matrices too.
    pub(super) fn make_views(&self, matrices: &mut Matrices, places: &Places<'_>, stage: Stage) {
        for Operand { place, layout } in &self.operands {
            let Where::Tensor(tensor) = place else { continue };
            match stage {
                Stage::Descriptors => _ = matrices.descriptor(layout),
                _ => _ = matrices.matrix(places[*tensor], layout),
            }
        }
    }

    #[inline]
    pub(super) fn encode(&self, encoder: &mut Encoder, matrices: &mut Matrices, places: &Places<'_>) -> Result<()> {
        if let Some(clear) = &self.clear {
            encoder.dispatch(clear, places)?;
        }
        let mut accesses = Accesses::new();
        let mut operands = [std::ptr::null::<MPSMatrix>(); 3];
        for (i, Operand { place, layout }) in self.operands.iter().enumerate() {
            let manner = if i == 2 { Access::Write } else { Access::Read };
            let bytes = layout.bytes(self.element);
            match place {
                Where::Tensor(tensor) => {
                    operands[i] = matrices.matrix(places[*tensor], layout);
                    accesses.push(access(places[*tensor], bytes, manner));
                }
                Where::Own(matrix, address) => {
                    operands[i] = Retained::as_ptr(matrix);
                    accesses.push((*address..*address + bytes, manner));
                }
            }
        }
        encoder.outside(&accesses, |commands| {
            // SAFETY: the matrices are alive: the cache keeps far more than three, or the kernel owns them; their
            // shapes are those the kernel was made for.
            unsafe {
                let [left, right, result] = operands.map(|matrix| &*matrix);
                self.kernel.encodeToCommandBuffer_leftMatrix_rightMatrix_resultMatrix(commands, left, right, result);
            }
        })
    }
}

fn clear(c: &Layout, element: usize, tensor: usize, build: &mut Build<'_>) -> Result<Dispatch> {
    let params = ClearParams {
        row: (c.row_bytes / element) as u64,
        batch: (c.matrix_bytes / element) as u64,
        cols: c.columns as u32,
        rows: c.rows as u32,
    };
    let entry = (Source::Tiles, if element == 4 { "clear_4" } else { "clear_2" });
    let groups = MTLSize { width: c.columns.div_ceil(256), height: c.rows, depth: c.matrices };
    let bindings = [Build::tensor(tensor, Access::Write, c.bytes(element) as usize)];
    build.dispatch(entry, bindings, bytemuck::bytes_of(&params), groups, 256)
}
