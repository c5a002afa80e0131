//! `MPSNDArray` (MPSNDArray.h): its storage, properties and views.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{NSObject, NSObjectProtocol};
use objc2::{DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSArray, NSNumber, NSString};
use objc2_metal::{MTLBuffer, MTLCommandBuffer, MTLDevice, MTLResource, MTLResourceOptions};
use objc2_metal_performance_shaders::{MPSAliasingStrategy, MPSDataType, MPSNDArrayDescriptor};

use super::call::Call;
use super::data_type;
use super::ndarray_copy;
use super::ndarray_descriptor::{Description, Dimension, EmulatedNdArrayDescriptor, lengths_of_shape, sizes};
use super::object::{Commands, Device, MetalBuffer, emulated, require_same_device};
use super::strided::{Axis, Layout, Operand};
use crate::foundation::new_object;
use crate::metal::buffer::Buffer;

const CLASS: &str = "MPSNDArray";

/// The row stride where `preferPackedRows` is off. MPSNDArray.h: MPS "will automatically manage" it, "generally, it
/// should be at least a multiple of 16 bytes". The stride itself is not documented; the largest that public reports show
/// is chosen ("buffer is not large enough. Must be 146944 bytes" for one row of 73448 halves, "Must be 128 bytes" for an
/// empty one), so that a program that relies on packed rows without asking for them is found out.
const ROW_ALIGNMENT: usize = 128;

/// The bytes that an array and its views share.
struct Store {
    device: Retained<Device>,
    length: usize,
    /// Whether the program gave the buffer; else it is made when it is first needed.
    given: bool,
    buffer: OnceLock<Retained<MetalBuffer>>,
}

// SAFETY: devices and buffers are the emulator's own objects, which any thread may use.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    fn buffer(&self) -> &Retained<MetalBuffer> {
        self.buffer.get_or_init(|| {
            let buffer = self.device.newBufferWithLength_options(self.length, MTLResourceOptions::StorageModeShared);
            buffer.unwrap_or_else(|| crate::foundation::raise(CLASS, &format!("no memory for {} bytes", self.length)))
        })
    }
}

/// The instance variables of `MPSNDArray`.
pub(super) struct NdArray {
    store: Arc<Store>,
    layout: Layout,
    label: Mutex<Option<Retained<NSString>>>,
    parent: Option<Retained<EmulatedNdArray>>,
}

define_class!(
    // SAFETY: NSObject has no requirements on subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MPSNDArray"]
    #[ivars = NdArray]
    pub(super) struct EmulatedNdArray;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for EmulatedNdArray {}

    impl EmulatedNdArray {
        #[unsafe(method_id(init))]
        fn init(_this: Allocated<Self>) -> Retained<Self> {
            Call::new(CLASS, "init").refuse("is unavailable: use initWithDevice:descriptor: (MPSNDArray.h)")
        }

        #[unsafe(method_id(initWithDevice:descriptor:))]
        fn init_with_device(
            this: Allocated<Self>,
            device: &Device,
            descriptor: &MPSNDArrayDescriptor,
        ) -> Retained<Self> {
            let description = emulated::<EmulatedNdArrayDescriptor>(descriptor).description();
            let call = Call::new(CLASS, "initWithDevice:descriptor:");
            Self::finish(this, NdArray::lazy(call, device, description))
        }

        #[unsafe(method_id(initWithDevice:scalar:))]
        fn init_with_scalar(this: Allocated<Self>, device: &Device, value: f64) -> Retained<Self> {
            let call = Call::new(CLASS, "initWithDevice:scalar:");
            // The type of the scalar is not documented; Float32 is chosen.
            let description = Description::new(call, MPSDataType::Float32, &[1]);
            let array = Self::finish(this, NdArray::lazy(call, device, &description));
            array.write(&(value as f32).to_ne_bytes());
            array
        }

        #[unsafe(method_id(initWithBuffer:offset:descriptor:))]
        fn init_with_buffer(
            this: Allocated<Self>,
            buffer: &MetalBuffer,
            offset: usize,
            descriptor: &MPSNDArrayDescriptor,
        ) -> Retained<Self> {
            let description = emulated::<EmulatedNdArrayDescriptor>(descriptor).description();
            let call = Call::new(CLASS, "initWithBuffer:offset:descriptor:");
            Self::finish(this, NdArray::over(call, buffer, offset, description))
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            self.ivars().label.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            let _own = emulator_objc::own();
            let label = label.map(|label| NSString::from_str(&label.to_string()));
            *self.ivars().label.lock().unwrap_or_else(PoisonError::into_inner) = label;
        }

        #[unsafe(method(dataType))]
        fn data_type(&self) -> MPSDataType {
            self.layout().data_type
        }

        #[unsafe(method(dataTypeSize))]
        fn data_type_size(&self) -> usize {
            data_type::size(self.layout().data_type)
        }

        #[unsafe(method(numberOfDimensions))]
        fn number_of_dimensions(&self) -> usize {
            self.layout().axes.len()
        }

        #[unsafe(method(lengthOfDimension:))]
        fn length_of_dimension(&self, index: usize) -> usize {
            self.length(index)
        }

        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<Device> {
            self.ivars().store.device.clone()
        }

        // "The shape of the MPSNDArray after all deferred slicing and transposes have completed."
        #[unsafe(method_id(descriptor))]
        fn descriptor(&self) -> Retained<EmulatedNdArrayDescriptor> {
            let lengths: Vec<usize> = self.layout().axes.iter().map(|axis| axis.length).collect();
            new_object(Description::new(Call::new(CLASS, "descriptor"), self.layout().data_type, &lengths))
        }

        #[unsafe(method_id(userBuffer))]
        fn user_buffer(&self) -> Option<Retained<MetalBuffer>> {
            let store = &self.ivars().store;
            store.given.then(|| store.buffer().clone())
        }

        #[unsafe(method(resourceSize))]
        fn resource_size(&self) -> usize {
            self.ivars().store.length
        }

        #[unsafe(method_id(parent))]
        fn parent(&self) -> Option<Retained<EmulatedNdArray>> {
            self.ivars().parent.clone()
        }

        #[unsafe(method_id(arrayViewWithDescriptor:))]
        fn view(&self, descriptor: &MPSNDArrayDescriptor) -> Option<Retained<EmulatedNdArray>> {
            self.alias(emulated::<EmulatedNdArrayDescriptor>(descriptor).description())
        }

        #[unsafe(method_id(arrayViewWithCommandBuffer:descriptor:aliasing:))]
        fn view_or_copy(
            &self,
            commands: &Commands,
            descriptor: &MPSNDArrayDescriptor,
            aliasing: MPSAliasingStrategy,
        ) -> Option<Retained<EmulatedNdArray>> {
            let description = emulated::<EmulatedNdArrayDescriptor>(descriptor).description();
            self.view_or_copy_of(commands, description, aliasing)
        }

        #[unsafe(method_id(arrayViewWithShape:strides:))]
        fn view_with_shape(
            &self,
            shape: Option<&NSArray<NSNumber>>,
            strides: &NSArray<NSNumber>,
        ) -> Option<Retained<EmulatedNdArray>> {
            let own: Vec<usize> = self.layout().axes.iter().map(|axis| axis.length).collect();
            let lengths = shape.map_or(own, lengths_of_shape);
            self.restride(&lengths, &lengths_of_shape(strides))
        }

        #[unsafe(method_id(arrayViewWithDimensionCount:dimensionSizes:strides:))]
        fn view_with_sizes(
            &self,
            count: usize,
            lengths: NonNull<usize>,
            strides: NonNull<usize>,
        ) -> Option<Retained<EmulatedNdArray>> {
            // SAFETY: both arrays "must be of length numberOfDimensions".
            let (lengths, strides) = unsafe { (sizes(count, lengths), sizes(count, strides)) };
            self.restride(&lengths, &strides)
        }

        #[unsafe(method(readBytes:strideBytes:))]
        fn read_bytes(&self, to: NonNull<c_void>, strides: *const isize) {
            let to: *mut u8 = to.as_ptr().cast();
            // SAFETY: the caller's buffer holds every element at these strides.
            unsafe { self.host_copy(to, strides, |host, element, size| host.copy_from(element, size)) };
        }

        #[unsafe(method(writeBytes:strideBytes:))]
        fn write_bytes(&self, from: NonNull<c_void>, strides: *const isize) {
            let from: *mut u8 = from.as_ptr().cast();
            // SAFETY: the caller's buffer holds every element at these strides.
            unsafe { self.host_copy(from, strides, |host, element, size| element.copy_from(host, size)) };
        }

        #[unsafe(method(exportDataWithCommandBuffer:toBuffer:destinationDataType:offset:rowStrides:))]
        fn export(
            &self,
            commands: &Commands,
            buffer: &MetalBuffer,
            data_type: MPSDataType,
            offset: usize,
            strides: *const isize,
        ) {
            let method = "exportDataWithCommandBuffer:toBuffer:destinationDataType:offset:rowStrides:";
            let call = Call::new(CLASS, method);
            // SAFETY: the caller gives one stride for each dimension but the first, or null.
            let outside = unsafe { self.outside(call, buffer, data_type, offset, strides) };
            ndarray_copy::encode(call, commands, &self.operand(), &outside);
        }

        #[unsafe(method(importDataWithCommandBuffer:fromBuffer:sourceDataType:offset:rowStrides:))]
        fn import(
            &self,
            commands: &Commands,
            buffer: &MetalBuffer,
            data_type: MPSDataType,
            offset: usize,
            strides: *const isize,
        ) {
            let call = Call::new(CLASS, "importDataWithCommandBuffer:fromBuffer:sourceDataType:offset:rowStrides:");
            // SAFETY: the caller gives one stride for each dimension but the first, or null.
            let outside = unsafe { self.outside(call, buffer, data_type, offset, strides) };
            ndarray_copy::encode(call, commands, &outside, &self.operand());
        }

        // "Use a blit encoder if a discrete device": the emulated one has unified memory.
        #[unsafe(method(synchronizeOnCommandBuffer:))]
        fn synchronize(&self, commands: &Commands) {
            let _own = emulator_objc::own();
            let call = Call::new(CLASS, "synchronizeOnCommandBuffer:");
            require_same_device(call, self.its_device(), "command buffer", &commands.device());
        }
    }
);

impl NdArray {
    /// An array in a buffer that is yet to be made.
    pub(super) fn lazy(call: Call, device: &Device, description: &Description) -> Self {
        let (layout, length) = lay_out(call, description, 0);
        let store = Store { device: device.retain(), length, given: false, buffer: OnceLock::new() };
        NdArray { store: Arc::new(store), layout, label: Mutex::new(None), parent: None }
    }

    fn over(call: Call, buffer: &MetalBuffer, offset: usize, description: &Description) -> Self {
        let _own = emulator_objc::own();
        let (layout, bytes) = lay_out(call, description, offset);
        let size = data_type::size(layout.data_type);
        // Not documented; chosen because a GPU reads elements at multiples of their size only.
        call.require(offset.is_multiple_of(size), || {
            format!(
                "offset = {offset} is not a multiple of {size} bytes, the size of {}",
                data_type::name(layout.data_type)
            )
        });
        let (needed, length) = (offset.saturating_add(bytes), buffer.length());
        call.require(needed <= length, || {
            let hint = if description.packed.get() { "" } else { "; rows are padded unless preferPackedRows is YES" };
            format!("buffer is not large enough. Must be {needed} bytes, is {length} (offset {offset}){hint}")
        });
        let store = Store { device: buffer.device(), length, given: true, buffer: OnceLock::from(buffer.retain()) };
        NdArray { store: Arc::new(store), layout, label: Mutex::new(None), parent: None }
    }
}

/// Where a new array has its elements, and how many bytes they take: "the 1st dimension is an array of rows. The 2nd
/// dimension is an array of arrays of rows". "The slice is performed first and the result of the slice is transposed."
pub(super) fn lay_out(call: Call, description: &Description, offset: usize) -> (Layout, usize) {
    let data_type = description.data_type.get();
    let size = data_type::checked_size(call, data_type);
    let dimensions = description.dimensions();
    let mut stored: Vec<Dimension> = dimensions.clone();
    stored.sort_by_key(|dimension| dimension.stored);
    let mut strides = Vec::new();
    let mut bytes = size;
    for (index, dimension) in stored.iter().enumerate() {
        strides.push((dimension.stored, bytes));
        bytes *= dimension.length;
        if index == 0 && !description.packed.get() {
            bytes = bytes.next_multiple_of(ROW_ALIGNMENT);
        }
    }
    let stride = |wanted: usize| strides.iter().find(|(stored, _)| *stored == wanted).map_or(0, |(_, stride)| *stride);
    (select(&dimensions, offset, data_type, |dimension| stride(dimension.stored)), bytes)
}

/// The slices of some dimensions.
pub(super) fn select(
    dimensions: &[Dimension],
    offset: usize,
    data_type: MPSDataType,
    stride: impl Fn(&Dimension) -> usize,
) -> Layout {
    let axes =
        dimensions.iter().map(|dimension| Axis { length: dimension.sliced, stride: stride(dimension) }).collect();
    let start: usize = dimensions.iter().map(|dimension| dimension.start * stride(dimension)).sum();
    Layout { offset: offset + start, axes, data_type }
}

impl EmulatedNdArray {
    fn finish(this: Allocated<Self>, array: NdArray) -> Retained<Self> {
        let _own = emulator_objc::own();
        let this = this.set_ivars(array);
        // SAFETY: NSObject's `init` takes no arguments.
        unsafe { msg_send![super(this), init] }
    }

    /// Where its elements are.
    pub(super) fn layout(&self) -> &Layout {
        &self.ivars().layout
    }

    /// The elements along a dimension; "undefined dimensions are implicitly length 1".
    pub(super) fn length(&self, index: usize) -> usize {
        self.layout().axes.get(index).map_or(1, |axis| axis.length)
    }

    /// The device on which it may be used.
    pub(super) fn its_device(&self) -> &Device {
        &self.ivars().store.device
    }

    /// The buffer it is in.
    pub(super) fn buffer(&self) -> &MetalBuffer {
        self.ivars().store.buffer()
    }

    /// Its elements.
    pub(super) fn operand(&self) -> Operand {
        let _own = emulator_objc::own();
        Operand { memory: Buffer::of(self.buffer()).memory().clone(), layout: self.layout().clone() }
    }

    /// A view of the same memory.
    pub(super) fn sharing(&self, layout: Layout) -> Retained<EmulatedNdArray> {
        new_object(NdArray {
            store: self.ivars().store.clone(),
            layout,
            label: Mutex::new(None),
            parent: Some(self.retain()),
        })
    }
}
