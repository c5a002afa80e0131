//! `MPSMatrixSoftMaxGradient` and `MPSMatrixLogSoftMaxGradient` (MPSMatrixSoftMax.h).

use objc2::rc::{Allocated, Retained};
use objc2::runtime::NSZone;
use objc2::{DefinedClass, define_class, msg_send};
use objc2_metal_performance_shaders::MPSMatrix;

use super::call::Call;
use super::kernel::Fields;
use super::matrix::EmulatedMatrix;
use super::matrix_kernel::EmulatedBinaryKernel;
use super::matrix_softmax::{Extent, require_alike, require_apart_or_in_place, require_extent};
use super::object::{Commands, Device};
use super::storage::Window;
use crate::gpu::work::Usage;

const CLASS: &str = "MPSMatrixSoftMaxGradient";
const METHOD: &str = "encodeToCommandBuffer:gradientMatrix:forwardOutputMatrix:resultMatrix:";

define_class!(
    // SAFETY: EmulatedBinaryKernel's initialiser is called.
    #[unsafe(super(EmulatedBinaryKernel))]
    #[name = "MPSMatrixSoftMaxGradient"]
    #[ivars = Fields<Extent>]
    pub(super) struct EmulatedSoftMaxGradient;

    impl EmulatedSoftMaxGradient {
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
            copy.copy_binary(self);
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

        #[unsafe(method(encodeToCommandBuffer:gradientMatrix:forwardOutputMatrix:resultMatrix:))]
        fn encode_to(&self, commands: &Commands, gradient: &MPSMatrix, forward: &MPSMatrix, result: &MPSMatrix) {
            self.encode_rows(Call::new(CLASS, METHOD), commands, [gradient, forward, result], softmax_gradient);
        }
    }
);

define_class!(
    // SAFETY: the initialiser is inherited, and there is nothing to initialise here.
    #[unsafe(super(EmulatedSoftMaxGradient))]
    #[name = "MPSMatrixLogSoftMaxGradient"]
    pub(super) struct EmulatedLogSoftMaxGradient;

    impl EmulatedLogSoftMaxGradient {
        #[unsafe(method(encodeToCommandBuffer:gradientMatrix:forwardOutputMatrix:resultMatrix:))]
        fn encode_to(&self, commands: &Commands, gradient: &MPSMatrix, forward: &MPSMatrix, result: &MPSMatrix) {
            let call = Call::new("MPSMatrixLogSoftMaxGradient", METHOD);
            self.encode_rows(call, commands, [gradient, forward, result], log_softmax_gradient);
        }
    }
);

impl EmulatedSoftMaxGradient {
    fn encode_rows(
        &self,
        call: Call,
        commands: &Commands,
        [gradient, forward, result]: [&MPSMatrix; 3],
        row: impl Fn(&mut [f32], &[f32]) + Send + 'static,
    ) {
        let extent = self.ivars().enter(CLASS);
        let binary = self.enter();
        let operands = [
            ("gradient matrix", EmulatedMatrix::storage(gradient)),
            ("forward output matrix", EmulatedMatrix::storage(forward)),
            ("result matrix", EmulatedMatrix::storage(result)),
        ];
        require_alike(call, self.its_device(), &operands);

        let batch = binary.batch.range(call, &operands.map(|(what, storage)| (what, storage.matrices())));
        // "Adjusted dynamically [..] to fit into the source matrices available starting from
        // [primary/secondary]SourceMatrixOrigin".
        let origins = [binary.primary, binary.secondary, binary.result];
        let available = [0, 1].map(|index| operands[index].1.available_from(call, operands[index].0, origins[index]));
        let (rows, columns) = extent.within(&available);
        require_extent(call, rows, columns);
        let [gradient, forward, result] = std::array::from_fn(|index| {
            let (what, storage) = operands[index];
            storage.operand(call, what, Window { origin: origins[index], rows, columns, batch: batch.clone() })
        });
        let inputs = [("gradient matrix", &gradient), ("forward output matrix", &forward)];
        require_apart_or_in_place(call, &result, &inputs);

        let spans = vec![gradient.span(Usage::Read), forward.span(Usage::Read), result.span(Usage::Write)];
        let (gradient, forward, result) = (gradient.layout, forward.layout, result.layout);
        self.encode(call, commands, spans, move |memories| {
            for index in 0..batch.len() {
                // SAFETY: the windows were checked against the matrices, and those against their buffers.
                unsafe {
                    let mut values = gradient.plane(&[index]).load(memories[0]);
                    let outputs = forward.plane(&[index]).load(memories[1]);
                    let rows = values.chunks_exact_mut(columns).zip(outputs.chunks_exact(columns));
                    rows.for_each(|(values, outputs)| row(values, outputs));
                    result.plane(&[index]).store(memories[2], &values);
                }
            }
        });
    }
}

/// `dL_dX_ij = Y_ij * (dL_dY_ij - sum_k(dL_dY_ik * Y_ik)`
fn softmax_gradient(gradient: &mut [f32], output: &[f32]) {
    let sum: f32 = gradient.iter().zip(output).map(|(gradient, output)| gradient * output).sum();
    gradient.iter_mut().zip(output).for_each(|(gradient, output)| *gradient = output * (*gradient - sum));
}

/// The header prints `dL_dY_ij - exp(Y_ij * sum_k(dL_dY_ik))`, which is not the derivative of a logarithmic softmax:
/// for a gradient of zeros it is -1. The derivative is computed, `dL_dY_ij - exp(Y_ij) * sum_k(dL_dY_ik)`, which the
/// print is taken to have meant. What MPS computes was not measured.
fn log_softmax_gradient(gradient: &mut [f32], output: &[f32]) {
    let sum: f32 = gradient.iter().sum();
    gradient.iter_mut().zip(output).for_each(|(gradient, output)| *gradient -= output.exp() * sum);
}
