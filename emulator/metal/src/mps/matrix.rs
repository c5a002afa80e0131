//! `MPSMatrix` (MPSMatrix.h).

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{NSObject, NSObjectProtocol};
use objc2::{DefinedClass, define_class, msg_send};
use objc2_metal::MTLCommandBuffer;
use objc2_metal_performance_shaders::{MPSDataType, MPSMatrix, MPSMatrixDescriptor};

use super::call::Call;
use super::matrix_descriptor::EmulatedMatrixDescriptor;
use super::object::{Commands, Device, MetalBuffer, emulated};
use super::storage::Storage;

define_class!(
    // SAFETY: NSObject has no requirements on subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MPSMatrix"]
    #[ivars = Storage]
    pub(super) struct EmulatedMatrix;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for EmulatedMatrix {}

    impl EmulatedMatrix {
        #[unsafe(method_id(init))]
        fn init(_this: Allocated<Self>) -> Retained<Self> {
            Call::new("MPSMatrix", "init").refuse("is unavailable: use initWithBuffer:descriptor: (MPSMatrix.h)")
        }

        #[unsafe(method_id(initWithBuffer:descriptor:))]
        fn init_with_buffer(
            this: Allocated<Self>,
            buffer: &MetalBuffer,
            descriptor: &MPSMatrixDescriptor,
        ) -> Retained<Self> {
            let shape = emulated::<EmulatedMatrixDescriptor>(descriptor).shape();
            let call = Call::new("MPSMatrix", "initWithBuffer:descriptor:");
            Self::finish(this, Storage::over(call, buffer, 0, shape))
        }

        #[unsafe(method_id(initWithBuffer:offset:descriptor:))]
        fn init_with_buffer_offset(
            this: Allocated<Self>,
            buffer: &MetalBuffer,
            offset: usize,
            descriptor: &MPSMatrixDescriptor,
        ) -> Retained<Self> {
            let shape = emulated::<EmulatedMatrixDescriptor>(descriptor).shape();
            let call = Call::new("MPSMatrix", "initWithBuffer:offset:descriptor:");
            Self::finish(this, Storage::over(call, buffer, offset, shape))
        }

        #[unsafe(method_id(initWithDevice:descriptor:))]
        fn init_with_device(
            this: Allocated<Self>,
            device: &Device,
            descriptor: &MPSMatrixDescriptor,
        ) -> Retained<Self> {
            let shape = emulated::<EmulatedMatrixDescriptor>(descriptor).shape();
            let call = Call::new("MPSMatrix", "initWithDevice:descriptor:");
            Self::finish(this, Storage::lazy(call, device, shape))
        }

        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<Device> {
            self.ivars().device.clone()
        }

        #[unsafe(method(rows))]
        fn rows(&self) -> usize {
            self.ivars().shape.rows
        }

        #[unsafe(method(columns))]
        fn columns(&self) -> usize {
            self.ivars().shape.columns
        }

        #[unsafe(method(matrices))]
        fn matrices(&self) -> usize {
            self.ivars().shape.matrices
        }

        #[unsafe(method(dataType))]
        fn data_type(&self) -> MPSDataType {
            self.ivars().shape.data_type
        }

        #[unsafe(method(rowBytes))]
        fn row_bytes(&self) -> usize {
            self.ivars().shape.row_bytes
        }

        #[unsafe(method(matrixBytes))]
        fn matrix_bytes(&self) -> usize {
            self.ivars().shape.matrix_bytes
        }

        #[unsafe(method(offset))]
        fn offset(&self) -> usize {
            self.ivars().offset
        }

        #[unsafe(method_id(data))]
        fn data(&self) -> Retained<MetalBuffer> {
            let _own = emulator_objc::own();
            self.ivars().data().clone()
        }

        #[unsafe(method(resourceSize))]
        fn resource_size(&self) -> usize {
            self.ivars().resource_size()
        }

        // "Necessary for all MTLStorageModeManaged resources. For other resources [..] nothing is done."
        #[unsafe(method(synchronizeOnCommandBuffer:))]
        fn synchronize(&self, commands: &Commands) {
            let _own = emulator_objc::own();
            let call = Call::new("MPSMatrix", "synchronizeOnCommandBuffer:");
            self.ivars().require_device(call, &commands.device(), "matrix");
        }
    }
);

impl EmulatedMatrix {
    fn finish(this: Allocated<Self>, storage: Storage) -> Retained<Self> {
        let _own = emulator_objc::own();
        let this = this.set_ivars(storage);
        // SAFETY: NSObject's `init` takes no arguments.
        unsafe { msg_send![super(this), init] }
    }

    /// The storage behind a matrix of the typed crate.
    pub(super) fn storage(matrix: &MPSMatrix) -> &Storage {
        emulated::<Self>(matrix).ivars()
    }
}
