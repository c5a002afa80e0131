//! `MPSMatrixSoftMax` and `MPSMatrixLogSoftMax` (MPSMatrixSoftMax.h).

use objc2::rc::{Allocated, Retained};
use objc2::runtime::NSZone;
use objc2::{DefinedClass, define_class, msg_send};
use objc2_metal_performance_shaders::{MPSDataType, MPSMatrix};

use super::call::Call;
use super::data_type;
use super::kernel::Fields;
use super::matrix::EmulatedMatrix;
use super::matrix_kernel::EmulatedUnaryKernel;
use super::object::{Commands, Device};
use super::storage::{Storage, Window};
use super::strided::Operand;
use crate::gpu::work::Usage;

const CLASS: &str = "MPSMatrixSoftMax";
const METHOD: &str = "encodeToCommandBuffer:inputMatrix:resultMatrix:";

/// `sourceRows` and `sourceColumns`. "Defaults to NSUIntegerMax and the number is adjusted dynamically at kernel encode
/// time to fit into the source matrix".
#[derive(Clone, Copy)]
pub(super) struct Extent {
    /// `sourceRows`.
    pub(super) rows: usize,
    /// `sourceColumns`.
    pub(super) columns: usize,
}

impl Extent {
    /// The whole source.
    pub(super) const WHOLE: Extent = Extent { rows: usize::MAX, columns: usize::MAX };

    /// What of it there is in sources with this much left from their origins on.
    pub(super) fn within(self, available: &[(usize, usize)]) -> (usize, usize) {
        available
            .iter()
            .fold((self.rows, self.columns), |(rows, columns), left| (rows.min(left.0), columns.min(left.1)))
    }
}

define_class!(
    // SAFETY: EmulatedUnaryKernel's initialiser is called.
    #[unsafe(super(EmulatedUnaryKernel))]
    #[name = "MPSMatrixSoftMax"]
    #[ivars = Fields<Extent>]
    pub(super) struct EmulatedSoftMax;

    impl EmulatedSoftMax {
        #[unsafe(method_id(initWithDevice:))]
        fn init_with_device(this: Allocated<Self>, device: &Device) -> Retained<Self> {
            let _own = emulator_objc::own();
            let this = this.set_ivars(Fields::new(Extent::WHOLE));
            // SAFETY: the superclass has this initialiser.
            unsafe { msg_send![super(this), initWithDevice: device] }
        }

        #[unsafe(method_id(copyWithZone:device:))]
        fn copy_for(&self, _zone: *mut NSZone, device: Option<&Device>) -> Retained<Self> {
            let _own = emulator_objc::own();
            let device = device.unwrap_or_else(|| self.its_device());
            // SAFETY: `alloc` of the object's own class, which may be the logarithmic one.
            let this: Allocated<Self> = unsafe { msg_send![self.class(), alloc] };
            // SAFETY: both classes have this initialiser.
            let copy: Retained<Self> = unsafe { msg_send![this, initWithDevice: device] };
            copy.copy_unary(self);
            *copy.ivars().enter(CLASS) = self.ivars().values(CLASS);
            copy
        }

        #[unsafe(method(sourceRows))]
        fn source_rows(&self) -> usize {
            self.ivars().enter(CLASS).rows
        }

        #[unsafe(method(setSourceRows:))]
        fn set_source_rows(&self, rows: usize) {
            self.ivars().enter(CLASS).rows = rows;
        }

        #[unsafe(method(sourceColumns))]
        fn source_columns(&self) -> usize {
            self.ivars().enter(CLASS).columns
        }

        #[unsafe(method(setSourceColumns:))]
        fn set_source_columns(&self, columns: usize) {
            self.ivars().enter(CLASS).columns = columns;
        }

        #[unsafe(method(encodeToCommandBuffer:inputMatrix:resultMatrix:))]
        fn encode_to(&self, commands: &Commands, input: &MPSMatrix, result: &MPSMatrix) {
            self.encode_rows(Call::new(CLASS, METHOD), commands, input, result, softmax);
        }
    }
);

define_class!(
    // SAFETY: the initialiser is inherited, and there is nothing to initialise here.
    #[unsafe(super(EmulatedSoftMax))]
    #[name = "MPSMatrixLogSoftMax"]
    pub(super) struct EmulatedLogSoftMax;

    impl EmulatedLogSoftMax {
        #[unsafe(method(encodeToCommandBuffer:inputMatrix:resultMatrix:))]
        fn encode_to(&self, commands: &Commands, input: &MPSMatrix, result: &MPSMatrix) {
            self.encode_rows(Call::new("MPSMatrixLogSoftMax", METHOD), commands, input, result, log_softmax);
        }
    }
);

impl EmulatedSoftMax {
    fn encode_rows(
        &self,
        call: Call,
        commands: &Commands,
        input: &MPSMatrix,
        result: &MPSMatrix,
        row: impl Fn(&mut [f32]) + Send + 'static,
    ) {
        let extent = self.ivars().enter(CLASS);
        let unary = self.enter();
        let (input, result) = (EmulatedMatrix::storage(input), EmulatedMatrix::storage(result));
        let operands = [("input matrix", input), ("result matrix", result)];
        require_alike(call, self.its_device(), &operands);

        let batch = unary.batch.range(call, &operands.map(|(what, storage)| (what, storage.matrices())));
        let (rows, columns) = extent.within(&[input.available_from(call, "input matrix", unary.source)]);
        require_extent(call, rows, columns);
        let window = |origin| Window { origin, rows, columns, batch: batch.clone() };
        let input = input.operand(call, "input matrix", window(unary.source));
        // "The result matrix must be large enough to hold a two dimensional array of 'sourceRows' rows and
        // 'sourceColumns' columns beginning at resultMatrixOrigin"; else "the results are undefined".
        let result = result.operand(call, "result matrix", window(unary.result));
        require_apart_or_in_place(call, &result, &[("input matrix", &input)]);

        let spans = vec![input.span(Usage::Read), result.span(Usage::Write)];
        let (input, result) = (input.layout, result.layout);
        self.encode(call, commands, spans, move |memories| {
            for index in 0..batch.len() {
                // SAFETY: the windows were checked against the matrices, and those against their buffers.
                unsafe {
                    let mut values = input.plane(&[index]).load(memories[0]);
                    values.chunks_exact_mut(columns).for_each(&row);
                    result.plane(&[index]).store(memories[1], &values);
                }
            }
        });
    }
}

/// "The datatypes of the matrices inputMatrix and resultMatrix must match and be either MPSDataTypeFloat32 or
/// MPSDataTypeFloat16." Not said of the gradients; taken to hold for them too.
pub(super) fn require_alike(call: Call, kernel: &Device, operands: &[(&str, &Storage)]) {
    let first = operands[0].1.data_type();
    for (what, storage) in operands {
        storage.require_device(call, kernel, what);
        let this = storage.data_type();
        call.require(matches!(this, MPSDataType::Float32 | MPSDataType::Float16), || {
            format!(
                "the {what} is of {}; only MPSDataTypeFloat32 and MPSDataTypeFloat16 are supported",
                data_type::name(this)
            )
        });
        call.require(this == first, || {
            format!(
                "the data types must match: the {} is of {}, the {what} of {}",
                operands[0].0,
                data_type::name(first),
                data_type::name(this)
            )
        });
    }
}

/// Not documented; refused because a softmax over nothing is a mistake of the caller.
pub(super) fn require_extent(call: Call, rows: usize, columns: usize) {
    call.require(rows > 0 && columns > 0, || {
        format!("sourceRows = {rows} and sourceColumns = {columns} leave nothing")
    });
}

/// Not documented. Every row is read before it is written, so that the same place is accepted, as programs use it; an
/// overlap of rows with other rows is refused because its result would depend on their order.
pub(super) fn require_apart_or_in_place(call: Call, result: &Operand, inputs: &[(&str, &Operand)]) {
    for (what, input) in inputs {
        call.require(result.coincides(input) || !result.overlaps(input), || {
            format!("the result overlaps the {what} in {} without being in the same place", result.memory.name())
        });
    }
}

/// `B_ij = Exp { A_ij } / ( Sum_k Exp { A_ik } )`
fn softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

/// `B_ij = A_ij - ln { Sum_k Exp { A_ik } }`
fn log_softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = row.iter().map(|value| (value - largest).exp()).sum();
    let logarithm = largest + sum.ln();
    row.iter_mut().for_each(|value| *value -= logarithm);
}
