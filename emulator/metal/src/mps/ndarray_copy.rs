//! Copies into and out of an `MPSNDArray`, by the host and by the GPU.

use objc2_metal::{MTLBuffer, MTLResource};
use objc2_metal_performance_shaders::MPSDataType;

use super::call::Call;
use super::data_type;
use super::ndarray::EmulatedNdArray;
use super::object::{Commands, MetalBuffer, require_same_device};
use super::strided::{Axis, Layout, Operand, copy, positions};
use crate::account;
use crate::gpu::work::{Usage, Work};
use crate::metal::buffer::Buffer;
use crate::metal::command_buffer::CommandBuffer;

/// Encodes a copy of all elements, converted to the type of the result, as a pass of its own.
pub(super) fn encode(call: Call, commands: &Commands, from: &Operand, to: &Operand) {
    let _own = emulator_objc::own();
    let (source, result) = (from.layout.data_type, to.layout.data_type);
    let converts = data_type::is_float(source) || matches!(source, MPSDataType::Int8 | MPSDataType::Int16);
    // Which conversions there are is not documented; those among the floating point types are emulated.
    call.require(source == result || converts && data_type::is_float(result), || {
        format!("no conversion from {} to {}", data_type::name(source), data_type::name(result))
    });
    call.require(!to.overlaps(from), || format!("the copy overlaps its source in {}", from.memory.name()));
    account::count(|counts| counts.mps_kernels += 1);
    let spans = vec![from.span(Usage::Read), to.span(Usage::Write)];
    let (from, to) = (from.layout.clone(), to.layout.clone());
    let commands = CommandBuffer::behind(commands);
    commands.encode_pass(Work::known("MPSNDArray copy", spans, commands.retained(), move |memories| {
        // SAFETY: both layouts were checked against their buffers.
        unsafe { copy((&from, memories[0]), (&to, memories[1])) };
    }));
}

impl EmulatedNdArray {
    /// Calls `copy` for every element with its place in the host's memory, its place in the array, and its size.
    ///
    /// # Safety
    /// `strides` is null, or holds a stride for every dimension. `host` is valid at every element's place.
    pub(super) unsafe fn host_copy(
        &self,
        host: *mut u8,
        strides: *const isize,
        copy: impl Fn(*mut u8, *mut u8, usize),
    ) {
        let _own = emulator_objc::own();
        let Layout { offset, axes, data_type } = self.layout();
        let size = data_type::size(*data_type);
        // SAFETY: the caller's promise.
        let host_strides = unsafe { given_or_packed(strides, axes.len(), size, axes) };
        let base = self.buffer().contents().as_ptr().cast::<u8>();
        for position in positions(axes.iter().map(|axis| axis.length)) {
            let place = |strides: &dyn Fn(usize) -> isize| {
                position.iter().enumerate().map(|(axis, index)| *index as isize * strides(axis)).sum::<isize>()
            };
            let (there, here) = (place(&|axis| host_strides[axis]), place(&|axis| axes[axis].stride as isize));
            // SAFETY: the caller's promise for the host's memory; the layout was checked against the buffer.
            unsafe { copy(host.offset(there), base.add(*offset).offset(here), size) };
        }
    }

    /// Writes one element from the host.
    pub(super) fn write(&self, element: &[u8]) {
        let _own = emulator_objc::own();
        let base = self.buffer().contents().as_ptr().cast::<u8>();
        // SAFETY: an array has at least one element, and this is one of its type.
        unsafe { base.add(self.layout().offset).copy_from(element.as_ptr(), element.len()) };
    }

    /// The elements of a buffer that an import or export moves: "an optional array of (numberOfDimensions-1) byte
    /// counts which describe the byte offset from position 0 of the respective dimension to position 1".
    ///
    /// # Safety
    /// `strides` is null, or holds a stride for every dimension but the first.
    pub(super) unsafe fn outside(
        &self,
        call: Call,
        buffer: &MetalBuffer,
        data_type: MPSDataType,
        offset: usize,
        strides: *const isize,
    ) -> Operand {
        let _own = emulator_objc::own();
        require_same_device(call, self.its_device(), "buffer", &buffer.device());
        let size = data_type::checked_size(call, data_type);
        let axes = &self.layout().axes;
        let count = axes.len().saturating_sub(1);
        let row = axes.first().map_or(1, |axis| axis.length) * size;
        // SAFETY: the caller's promise.
        let strides = unsafe { given_or_packed(strides, count, row, axes.get(1..).unwrap_or(&[])) };
        let mut outside = vec![Axis { length: self.length(0), stride: size }];
        for (axis, stride) in axes.iter().skip(1).zip(strides) {
            let stride = usize::try_from(stride).ok().filter(|stride| stride.is_multiple_of(size));
            let stride = stride.unwrap_or_else(|| call.refuse(format!("a row stride is no multiple of {size} bytes")));
            outside.push(Axis { length: axis.length, stride });
        }
        call.require(offset.is_multiple_of(size), || format!("offset = {offset} is not a multiple of {size} bytes"));
        let layout = Layout { offset, axes: outside, data_type };
        call.require(layout.end() <= buffer.length(), || {
            format!(
                "buffer is not large enough. Must be {} bytes, is {} (offset {offset})",
                layout.end(),
                buffer.length()
            )
        });
        Operand { memory: Buffer::of(buffer).memory().clone(), layout }
    }
}

/// The caller's strides; "if the value is nil, these are calculated for you assuming that the data is packed".
///
/// # Safety
/// `strides` is null or valid for reads of `count` strides.
unsafe fn given_or_packed(strides: *const isize, count: usize, first: usize, axes: &[Axis]) -> Vec<isize> {
    if !strides.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { std::slice::from_raw_parts(strides, count) }.to_vec();
    }
    let packed = axes.iter().scan(first, |next, axis| {
        let stride = *next;
        *next *= axis.length;
        Some(stride as isize)
    });
    packed.collect()
}
