//! `MPSMatrixVectorMultiplication` (MPSMatrixMultiplication.h).

use objc2::rc::{Allocated, Retained};
use objc2::runtime::NSZone;
use objc2::{ClassType, DefinedClass, define_class, msg_send};
use objc2_metal::MTLOrigin;
use objc2_metal_performance_shaders::{MPSMatrix, MPSVector};

use super::call::Call;
use super::kernel::Fields;
use super::matrix::EmulatedMatrix;
use super::matrix_kernel::EmulatedBinaryKernel;
use super::matrix_multiplication::{require_apart, require_elements, require_types};
use super::object::{Commands, Device};
use super::product::{BatchedProduct, Factors};
use super::storage::Window;
use super::vector::EmulatedVector;
use crate::gpu::work::Usage;

const CLASS: &str = "MPSMatrixVectorMultiplication";
const ENCODE: Call = Call::new(CLASS, "encodeToCommandBuffer:inputMatrix:inputVector:resultVector:");

/// What a kernel was initialised with.
#[derive(Clone, Copy)]
pub(super) struct Product {
    transpose: bool,
    rows: usize,
    columns: usize,
    alpha: f64,
    beta: f64,
}

define_class!(
    // SAFETY: EmulatedBinaryKernel's initialiser is called.
    #[unsafe(super(EmulatedBinaryKernel))]
    #[name = "MPSMatrixVectorMultiplication"]
    #[ivars = Fields<Product>]
    pub(super) struct EmulatedMatrixVectorMultiplication;

    impl EmulatedMatrixVectorMultiplication {
        #[unsafe(method_id(initWithDevice:))]
        fn init_with_device(_this: Allocated<Self>, _device: &Device) -> Retained<Self> {
            Call::new(CLASS, "initWithDevice:")
                .refuse("is unavailable: use initWithDevice:rows:columns: (MPSMatrixMultiplication.h)")
        }

        // "The scaling factors alpha and beta are taken to be 1.0 and 0.0 respectively."
        #[unsafe(method_id(initWithDevice:rows:columns:))]
        fn init_plain(this: Allocated<Self>, device: &Device, rows: usize, columns: usize) -> Retained<Self> {
            Self::init_with(this, device, Product { transpose: false, rows, columns, alpha: 1.0, beta: 0.0 })
        }

        #[unsafe(method_id(initWithDevice:transpose:rows:columns:alpha:beta:))]
        fn init_general(
            this: Allocated<Self>,
            device: &Device,
            transpose: bool,
            rows: usize,
            columns: usize,
            alpha: f64,
            beta: f64,
        ) -> Retained<Self> {
            Self::init_with(this, device, Product { transpose, rows, columns, alpha, beta })
        }

        #[unsafe(method_id(copyWithZone:device:))]
        fn copy_for(&self, _zone: *mut NSZone, device: Option<&Device>) -> Retained<Self> {
            let _own = emulator_objc::own();
            let device = device.unwrap_or_else(|| self.its_device());
            // SAFETY: `alloc` of an emulated class.
            let this: Allocated<Self> = unsafe { msg_send![Self::class(), alloc] };
            let copy = Self::init_with(this, device, self.ivars().values(CLASS));
            copy.copy_binary(self);
            copy
        }

        #[unsafe(method(encodeToCommandBuffer:inputMatrix:inputVector:resultVector:))]
        fn encode_to(&self, commands: &Commands, matrix: &MPSMatrix, vector: &MPSVector, result: &MPSVector) {
            let product = self.ivars().enter(CLASS);
            self.encode_product(*product, commands, matrix, vector, result);
        }
    }
);

impl EmulatedMatrixVectorMultiplication {
    fn init_with(this: Allocated<Self>, device: &Device, product: Product) -> Retained<Self> {
        let _own = emulator_objc::own();
        let this = this.set_ivars(Fields::new(product));
        // SAFETY: the superclass has this initialiser.
        unsafe { msg_send![super(this), initWithDevice: device] }
    }

    fn encode_product(
        &self,
        product: Product,
        commands: &Commands,
        matrix: &MPSMatrix,
        vector: &MPSVector,
        result: &MPSVector,
    ) {
        let Product { transpose, rows, columns, alpha, beta } = product;
        let binary = self.enter();
        let operands = [
            ("input matrix", EmulatedMatrix::storage(matrix)),
            ("input vector", EmulatedVector::storage(vector)),
            ("result vector", EmulatedVector::storage(result)),
        ];
        for (what, storage) in operands {
            storage.require_device(ENCODE, self.its_device(), what);
        }
        // Which types go together is not documented here; those of MPSMatrixMultiplication are chosen.
        let types = operands.map(|(_, storage)| storage.data_type());
        require_types(ENCODE, types);
        require_elements(ENCODE, rows, 1, columns);

        let batch = binary.batch.range(ENCODE, &operands.map(|(what, storage)| (what, storage.matrices())));
        // "The left input matrix must be large enough to hold an array of size (rows x columns) elements beginning at
        // primarySourceMatrixOrigin", the vectors "columns" and "rows" elements from the x of their origins on.
        let stored = if transpose { (columns, rows) } else { (rows, columns) };
        let window = |origin, (rows, columns)| Window { origin, rows, columns, batch: batch.clone() };
        let [(matrix_name, matrix), (vector_name, vector), (result_name, result)] = operands;
        let matrix = matrix.operand(ENCODE, matrix_name, window(binary.primary, stored));
        let vector = vector.operand(ENCODE, vector_name, window(along(vector_name, binary.secondary), (1, columns)));
        let result = result.operand(ENCODE, result_name, window(along(result_name, binary.result), (1, rows)));
        require_apart(ENCODE, &result, &[("input matrix", &matrix), ("input vector", &vector)]);

        let factors = Factors::new(types[2], alpha, beta);
        let mut spans = vec![matrix.span(Usage::Read), vector.span(Usage::Read), result.span(Usage::Write)];
        if factors.reads_addend() {
            spans.push(result.span(Usage::Read));
        }
        let mut layouts = [matrix.layout, vector.layout, result.layout];
        if transpose {
            layouts[0].axes.swap(0, 1);
        }
        // A vector is stored as a row, and multiplied as a column.
        layouts[1].axes.swap(0, 1);
        layouts[2].axes.swap(0, 1);
        let product = BatchedProduct { layouts, factors, reads_addend: spans.len() == 4 };
        self.encode(ENCODE, commands, spans, move |memories| product.run(memories));
    }
}

/// The origin of a vector's window: `x` counts its elements. "secondarySourceMatrixOrigin.y and
/// secondarySourceMatrixOrigin.z must be zero", and the same of resultMatrixOrigin.
fn along(what: &str, MTLOrigin { x, y, z }: MTLOrigin) -> MTLOrigin {
    ENCODE.require(y == 0 && z == 0, || format!("the origin of the {what} has y = {y}, z = {z}; both must be 0"));
    MTLOrigin { x: 0, y: x, z: 0 }
}
