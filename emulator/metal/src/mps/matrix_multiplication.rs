//! `MPSMatrixMultiplication` (MPSMatrixMultiplication.h).

use objc2::rc::{Allocated, Retained};
use objc2::runtime::NSZone;
use objc2::{ClassType, DefinedClass, define_class, msg_send};
use objc2_metal::MTLOrigin;
use objc2_metal_performance_shaders::{MPSDataType, MPSMatrix};

use super::call::Call;
use super::data_type;
use super::kernel::{EmulatedKernel, Fields};
use super::matrix::EmulatedMatrix;
use super::matrix_kernel::{Batch, ORIGIN};
use super::object::{Commands, Device};
use super::product::{BatchedProduct, Factors};
use super::storage::Window;
use super::strided::Operand;
use crate::gpu::work::Usage;

const CLASS: &str = "MPSMatrixMultiplication";
const ENCODE: Call = Call::new(CLASS, "encodeToCommandBuffer:leftMatrix:rightMatrix:resultMatrix:");

/// The properties of a kernel, and what it was initialised with.
#[derive(Clone, Copy)]
pub(super) struct Multiplication {
    transpose_left: bool,
    transpose_right: bool,
    rows: usize,
    columns: usize,
    interior: usize,
    alpha: f64,
    beta: f64,
    left: MTLOrigin,
    right: MTLOrigin,
    result: MTLOrigin,
    batch: Batch,
}

define_class!(
    // SAFETY: EmulatedKernel's initialiser is called.
    #[unsafe(super(EmulatedKernel))]
    #[name = "MPSMatrixMultiplication"]
    #[ivars = Fields<Multiplication>]
    pub(super) struct EmulatedMatrixMultiplication;

    impl EmulatedMatrixMultiplication {
        #[unsafe(method_id(initWithDevice:))]
        fn init_with_device(_this: Allocated<Self>, _device: &Device) -> Retained<Self> {
            Call::new(CLASS, "initWithDevice:").refuse(
                "is unavailable: use initWithDevice:resultRows:resultColumns:interiorColumns: \
                 (MPSMatrixMultiplication.h)",
            )
        }

        // "The scaling factors alpha and beta are taken to be 1.0 and 0.0 respectively."
        #[unsafe(method_id(initWithDevice:resultRows:resultColumns:interiorColumns:))]
        fn init_plain(
            this: Allocated<Self>,
            device: &Device,
            rows: usize,
            columns: usize,
            interior: usize,
        ) -> Retained<Self> {
            Self::init_with(this, device, Multiplication::new(rows, columns, interior))
        }

        #[unsafe(method_id(initWithDevice:transposeLeft:transposeRight:resultRows:resultColumns:interiorColumns:alpha:beta:))]
        fn init_general(
            this: Allocated<Self>,
            device: &Device,
            transpose_left: bool,
            transpose_right: bool,
            rows: usize,
            columns: usize,
            interior: usize,
            alpha: f64,
            beta: f64,
        ) -> Retained<Self> {
            let plain = Multiplication::new(rows, columns, interior);
            Self::init_with(this, device, Multiplication { transpose_left, transpose_right, alpha, beta, ..plain })
        }

        #[unsafe(method_id(copyWithZone:device:))]
        fn copy_for(&self, _zone: *mut NSZone, device: Option<&Device>) -> Retained<Self> {
            let _own = emulator_objc::own();
            let device = device.unwrap_or_else(|| self.its_device());
            // SAFETY: `alloc` of an emulated class.
            let this: Allocated<Self> = unsafe { msg_send![Self::class(), alloc] };
            let copy = Self::init_with(this, device, self.ivars().values(CLASS));
            copy.copy_common(self);
            copy
        }

        #[unsafe(method(leftMatrixOrigin))]
        fn left_matrix_origin(&self) -> MTLOrigin {
            self.ivars().enter(CLASS).left
        }

        #[unsafe(method(setLeftMatrixOrigin:))]
        fn set_left_matrix_origin(&self, origin: MTLOrigin) {
            self.ivars().enter(CLASS).left = origin;
        }

        #[unsafe(method(rightMatrixOrigin))]
        fn right_matrix_origin(&self) -> MTLOrigin {
            self.ivars().enter(CLASS).right
        }

        #[unsafe(method(setRightMatrixOrigin:))]
        fn set_right_matrix_origin(&self, origin: MTLOrigin) {
            self.ivars().enter(CLASS).right = origin;
        }

        #[unsafe(method(resultMatrixOrigin))]
        fn result_matrix_origin(&self) -> MTLOrigin {
            self.ivars().enter(CLASS).result
        }

        #[unsafe(method(setResultMatrixOrigin:))]
        fn set_result_matrix_origin(&self, origin: MTLOrigin) {
            self.ivars().enter(CLASS).result = origin;
        }

        #[unsafe(method(batchStart))]
        fn batch_start(&self) -> usize {
            self.ivars().enter(CLASS).batch.start
        }

        #[unsafe(method(setBatchStart:))]
        fn set_batch_start(&self, start: usize) {
            self.ivars().enter(CLASS).batch.start = start;
        }

        #[unsafe(method(batchSize))]
        fn batch_size(&self) -> usize {
            self.ivars().enter(CLASS).batch.size
        }

        #[unsafe(method(setBatchSize:))]
        fn set_batch_size(&self, size: usize) {
            self.ivars().enter(CLASS).batch.size = size;
        }

        #[unsafe(method(encodeToCommandBuffer:leftMatrix:rightMatrix:resultMatrix:))]
        fn encode_to(&self, commands: &Commands, left: &MPSMatrix, right: &MPSMatrix, result: &MPSMatrix) {
            let fields = self.ivars().enter(CLASS);
            fields.encode(self, commands, [left, right, result]);
        }
    }
);

impl EmulatedMatrixMultiplication {
    fn init_with(this: Allocated<Self>, device: &Device, fields: Multiplication) -> Retained<Self> {
        let _own = emulator_objc::own();
        let this = this.set_ivars(Fields::new(fields));
        // SAFETY: the superclass has this initialiser.
        unsafe { msg_send![super(this), initWithDevice: device] }
    }
}

impl Multiplication {
    fn new(rows: usize, columns: usize, interior: usize) -> Self {
        Multiplication {
            transpose_left: false,
            transpose_right: false,
            rows,
            columns,
            interior,
            alpha: 1.0,
            beta: 0.0,
            left: ORIGIN,
            right: ORIGIN,
            result: ORIGIN,
            batch: Batch::ALL,
        }
    }

    fn encode(&self, kernel: &EmulatedKernel, commands: &Commands, [left, right, result]: [&MPSMatrix; 3]) {
        let operands = [
            ("left matrix", EmulatedMatrix::storage(left)),
            ("right matrix", EmulatedMatrix::storage(right)),
            ("result matrix", EmulatedMatrix::storage(result)),
        ];
        for (what, storage) in operands {
            storage.require_device(ENCODE, kernel.its_device(), what);
        }
        let types = operands.map(|(_, storage)| storage.data_type());
        require_types(ENCODE, types);
        require_elements(ENCODE, self.rows, self.columns, self.interior);

        let batch = self.batch.range(ENCODE, &operands.map(|(what, storage)| (what, storage.matrices())));
        // "The left input matrix must be large enough to hold an array of size resultRows x interiorColumns elements
        // beginning at leftMatrixOrigin", and so on; a transposed one is stored the other way round.
        let stored = |rows, columns, transposed| if transposed { (columns, rows) } else { (rows, columns) };
        let windows = [
            (self.left, stored(self.rows, self.interior, self.transpose_left)),
            (self.right, stored(self.interior, self.columns, self.transpose_right)),
            (self.result, (self.rows, self.columns)),
        ];
        let [left, right, result]: [Operand; 3] = std::array::from_fn(|index| {
            let ((what, storage), (origin, (rows, columns))) = (operands[index], windows[index]);
            storage.operand(ENCODE, what, Window { origin, rows, columns, batch: batch.clone() })
        });
        require_apart(ENCODE, &result, &[("left matrix", &left), ("right matrix", &right)]);

        let factors = Factors::new(types[2], self.alpha, self.beta);
        let mut spans = vec![left.span(Usage::Read), right.span(Usage::Read), result.span(Usage::Write)];
        if factors.reads_addend() {
            spans.push(result.span(Usage::Read));
        }
        let mut layouts = [left.layout, right.layout, result.layout];
        if self.transpose_left {
            layouts[0].axes.swap(0, 1);
        }
        if self.transpose_right {
            layouts[1].axes.swap(0, 1);
        }
        let product = BatchedProduct { layouts, factors, reads_addend: spans.len() == 4 };
        kernel.encode(ENCODE, commands, spans, move |memories| product.run(memories));
    }
}

/// Not documented in the header; bug reports quote the assertions of MPSMatrixMultiplication.mm (lines 3250 and 3260):
/// "Input data type must be one of MPSDataTypeFloat32, MPSDataTypeFloat16, MPSDataTypeInt8, or MPSDataTypeInt16" (so no
/// BFloat16), "Mixed input matrix multiplication is only supported when A.dataType == C.dataType ==
/// MPSDataTypeFloat32 and B.dataType == MPSDataTypeFloat16", and results are Float32 or Float16. That Float32 inputs
/// have no Float16 result is what a public wrapper of these assertions lists.
pub(super) fn require_types(call: Call, [left, right, result]: [MPSDataType; 3]) {
    use MPSDataType as T;
    for (what, input) in [("left", left), ("right", right)] {
        call.require(matches!(input, T::Float32 | T::Float16 | T::Int8 | T::Int16), || {
            format!(
                "input data type must be one of MPSDataTypeFloat32, MPSDataTypeFloat16, MPSDataTypeInt8, or \
                 MPSDataTypeInt16; the {what} one is {}",
                data_type::name(input)
            )
        });
    }
    call.require(matches!(result, T::Float32 | T::Float16), || {
        format!("only MPSDataTypeFloat16 and MPSDataTypeFloat32 are results; this is {}", data_type::name(result))
    });
    let names = || format!("{}, {} -> {}", data_type::name(left), data_type::name(right), data_type::name(result));
    let mixed = [left, right, result] == [T::Float32, T::Float16, T::Float32];
    call.require(left == right || mixed, || {
        format!(
            "mixed inputs are only supported as MPSDataTypeFloat32, MPSDataTypeFloat16 -> MPSDataTypeFloat32, not {}",
            names()
        )
    });
    call.require(left != T::Float32 || result == T::Float32, || format!("unsupported data types: {}", names()));
}

/// Not documented; refused because a product without elements is a mistake of the caller.
pub(super) fn require_elements(call: Call, rows: usize, columns: usize, interior: usize) {
    call.require(rows > 0 && columns > 0 && interior > 0, || {
        format!("a product of {rows} x {interior} and {interior} x {columns} elements has no elements")
    });
}

/// Not documented; refused because a product that overwrites what it still reads has no defined result.
pub(super) fn require_apart(call: Call, result: &Operand, inputs: &[(&str, &Operand)]) {
    for (what, input) in inputs {
        call.require(!result.overlaps(input), || format!("the result overlaps the {what} in {}", result.memory.name()));
    }
}
