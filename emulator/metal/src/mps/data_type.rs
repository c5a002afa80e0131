//! The element types of matrices and arrays (`MPSDataType`, MPSCoreTypes.h), and their conversion to and from `f32`.

use half::{bf16, f16};
use objc2_metal_performance_shaders::MPSDataType;

use super::call::Call;

/// Every type of whole bytes in MPSCoreTypes.h, with its size. A value that is not here is no element type.
const ELEMENT_TYPES: [(MPSDataType, &str, usize); 16] = [
    (MPSDataType::Float32, "MPSDataTypeFloat32", 4),
    (MPSDataType::Float16, "MPSDataTypeFloat16", 2),
    (MPSDataType::BFloat16, "MPSDataTypeBFloat16", 2),
    (MPSDataType::ComplexFloat32, "MPSDataTypeComplexFloat32", 8),
    (MPSDataType::ComplexFloat16, "MPSDataTypeComplexFloat16", 4),
    (MPSDataType::Int8, "MPSDataTypeInt8", 1),
    (MPSDataType::Int16, "MPSDataTypeInt16", 2),
    (MPSDataType::Int32, "MPSDataTypeInt32", 4),
    (MPSDataType::Int64, "MPSDataTypeInt64", 8),
    (MPSDataType::UInt8, "MPSDataTypeUInt8", 1),
    (MPSDataType::UInt16, "MPSDataTypeUInt16", 2),
    (MPSDataType::UInt32, "MPSDataTypeUInt32", 4),
    (MPSDataType::UInt64, "MPSDataTypeUInt64", 8),
    (MPSDataType::Bool, "MPSDataTypeBool", 1),
    (MPSDataType::Unorm8, "MPSDataTypeUnorm8", 1),
    (MPSDataType::Invalid, "MPSDataTypeInvalid", 0),
];

/// The type's name in MPSCoreTypes.h, or its number.
pub(super) fn name(data_type: MPSDataType) -> String {
    let known = ELEMENT_TYPES.iter().find(|(value, ..)| *value == data_type);
    known.map_or_else(|| format!("MPSDataType({:#010x})", data_type.0), |(_, name, _)| (*name).to_owned())
}

/// Bytes of one element; 0 where the type has none.
pub(super) fn size(data_type: MPSDataType) -> usize {
    ELEMENT_TYPES.iter().find(|(value, ..)| *value == data_type).map_or(0, |(.., size)| *size)
}

/// Bytes of one element; refuses a value that is no element type.
pub(super) fn checked_size(call: Call, data_type: MPSDataType) -> usize {
    let size = size(data_type);
    call.require(size != 0, || format!("{} is not the type of an element (MPSCoreTypes.h)", name(data_type)));
    size
}

/// Whether kernels write results of this type.
pub(super) fn is_float(data_type: MPSDataType) -> bool {
    matches!(data_type, MPSDataType::Float32 | MPSDataType::Float16 | MPSDataType::BFloat16)
}

/// A scalar as a kernel holds it: "of the same data type as values of C" (MPSMatrixMultiplication.h).
pub(super) fn scalar(data_type: MPSDataType, value: f64) -> f32 {
    match data_type {
        MPSDataType::Float16 => f16::from_f64(value).to_f32(),
        MPSDataType::BFloat16 => bf16::from_f64(value).to_f32(),
        _ => value as f32,
    }
}

/// Reads consecutive elements.
///
/// # Safety
/// `from` is valid for reads of `into.len()` elements.
pub(super) unsafe fn load(data_type: MPSDataType, from: *const u8, into: &mut [f32]) {
    // SAFETY: the caller's promise, with the element type that goes with the data type.
    unsafe {
        match data_type {
            MPSDataType::Float32 => load_as(from, into, |value: f32| value),
            MPSDataType::Float16 => load_as(from, into, f16::to_f32),
            MPSDataType::BFloat16 => load_as(from, into, bf16::to_f32),
            MPSDataType::Int8 => load_as(from, into, |value: i8| f32::from(value)),
            MPSDataType::Int16 => load_as(from, into, |value: i16| f32::from(value)),
            _ => unreachable!("no kernel computes with {}", name(data_type)),
        }
    }
}

/// Rounds values once and writes them to consecutive elements.
///
/// # Safety
/// `to` is valid for writes of `values.len()` elements.
pub(super) unsafe fn store(data_type: MPSDataType, values: &[f32], to: *mut u8) {
    // SAFETY: the caller's promise, with the element type that goes with the data type.
    unsafe {
        match data_type {
            MPSDataType::Float32 => store_as(values, to, |value| value),
            MPSDataType::Float16 => store_as(values, to, f16::from_f32),
            MPSDataType::BFloat16 => store_as(values, to, bf16::from_f32),
            _ => unreachable!("no kernel writes {}", name(data_type)),
        }
    }
}

unsafe fn load_as<T: Copy>(from: *const u8, into: &mut [f32], convert: impl Fn(T) -> f32) {
    for (index, value) in into.iter_mut().enumerate() {
        // SAFETY: the caller of `load` promises this many elements.
        *value = convert(unsafe { from.cast::<T>().add(index).read_unaligned() });
    }
}

unsafe fn store_as<T>(values: &[f32], to: *mut u8, convert: impl Fn(f32) -> T) {
    for (index, value) in values.iter().enumerate() {
        // SAFETY: the caller of `store` promises this many elements.
        unsafe { to.cast::<T>().add(index).write_unaligned(convert(*value)) };
    }
}
