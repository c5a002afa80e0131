//! What can go wrong between a Candle tensor and a Candlewick operation.

use candle_core::{DType, DeviceLocation, Tensor};
use candlewick::Shape;
use thiserror::Error as ThisError;

/// Short for a result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong: each message names the operation, what met what, and the remedy.
///
/// The operations return Candle's own result, so that `?` works in a Candle model: there this error is
/// [`candle_core::Error::Wrapped`], with the same message.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// Shapes, strides or scalars that the operation refuses.
    #[error(transparent)]
    Candlewick(#[from] candlewick::Error),
    /// What Candle itself refused, while it copied a view or made a variable.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A tensor lies where this crate cannot compute.
    #[error("{op}: {operand} is on {device}, {remedy}")]
    Device {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// Where it lies.
        device: String,
        /// What this build can do.
        remedy: &'static str,
    },
    /// Two tensors of one operation lie on different devices.
    #[error("{op}: {left} is on {left_device} and {right} is on {right_device}: move one with `to_device`")]
    DeviceMismatch {
        /// The operation.
        op: &'static str,
        /// The first operand's name.
        left: &'static str,
        /// Where it lies.
        left_device: String,
        /// The second operand's name.
        right: &'static str,
        /// Where it lies.
        right_device: String,
    },
    /// A region was given something that it cannot take.
    #[error("metal::region: {what}: {remedy}")]
    Region {
        /// What.
        what: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// Two tensors of one operation have different dtypes.
    #[error(
        "{op}: {left} {left_shape} is {} and {right} {right_shape} is {}: convert one with `to_dtype`",
        left_dtype.as_str(), right_dtype.as_str()
    )]
    DTypeMismatch {
        /// The operation.
        op: &'static str,
        /// The first operand's name.
        left: &'static str,
        /// Its shape.
        left_shape: Shape,
        /// Its dtype.
        left_dtype: DType,
        /// The second operand's name.
        right: &'static str,
        /// Its shape.
        right_shape: Shape,
        /// Its dtype.
        right_dtype: DType,
    },
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            error => candle_core::Error::wrap(error),
        }
    }
}

/// What messages say of a tensor.
pub(crate) trait Described {
    fn dims(&self) -> &[usize];
    fn dtype(&self) -> DType;
}

impl Described for Tensor {
    fn dims(&self) -> &[usize] {
        self.dims()
    }
    fn dtype(&self) -> DType {
        self.dtype()
    }
}

/// An operand of one call: its name in the formula, and the tensor.
pub(crate) type Named<'a> = (&'static str, &'a dyn Described);

/// Two shapes that must fit each other do not.
#[cold]
pub(crate) fn mismatch(op: &'static str, left: Named<'_>, right: Named<'_>, remedy: &'static str) -> Error {
    Error::Candlewick(candlewick::Error::ShapeMismatch {
        op,
        left: left.0,
        left_shape: left.1.dims().into(),
        right: right.0,
        right_shape: right.1.dims().into(),
        remedy,
    })
}

/// One shape is not one that the operation takes.
#[cold]
pub(crate) fn shape(op: &'static str, (operand, tensor): Named<'_>, remedy: &'static str) -> Error {
    Error::Candlewick(candlewick::Error::Shape { op, operand, shape: tensor.dims().into(), remedy })
}

/// A tensor on a device that this build does not compute on.
#[cold]
pub(crate) fn elsewhere(op: &'static str, operand: &'static str, device: DeviceLocation) -> Error {
    let remedy = match device {
        DeviceLocation::Metal { .. } if !cfg!(feature = "metal") => {
            "and this build does not compute there: enable feature `metal` of candlewick-candle, or move it with `to_device`"
        }
        DeviceLocation::Cuda { .. } if !cfg!(feature = "cuda") => {
            "and this build does not compute there: enable feature `cuda` of candlewick-candle, or move it with `to_device`"
        }
        _ => "and candlewick-candle does not compute there: move it with `to_device`",
    };
    Error::Device { op, operand, device: print(device), remedy }
}

/// Two tensors on two devices.
#[cold]
pub(crate) fn devices(
    op: &'static str,
    (left, left_device): (&'static str, DeviceLocation),
    (right, right_device): (&'static str, DeviceLocation),
) -> Error {
    let (mut left_device, mut right_device) = (print(left_device), print(right_device));
    if left_device == right_device {
        // Candle tells devices of one GPU apart: each has a queue of its own.
        left_device.push_str(", opened once");
        right_device.push_str(", opened again");
    }
    Error::DeviceMismatch { op, left, left_device, right, right_device }
}

fn print(device: DeviceLocation) -> String {
    match device {
        DeviceLocation::Cpu => "the CPU".into(),
        DeviceLocation::Cuda { gpu_id } => format!("CUDA device {gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("Metal device {gpu_id}"),
    }
}

#[cold]
pub(crate) fn unsupported(op: &'static str, operand: &'static str, dtype: DType) -> Error {
    Error::Candlewick(candlewick::Error::UnsupportedDType { op, operand, found: dtype.as_str().into() })
}

#[cold]
pub(crate) fn dtypes(op: &'static str, left: Named<'_>, right: Named<'_>) -> Error {
    Error::DTypeMismatch {
        op,
        left: left.0,
        left_shape: left.1.dims().into(),
        left_dtype: left.1.dtype(),
        right: right.0,
        right_shape: right.1.dims().into(),
        right_dtype: right.1.dtype(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    fn a_gpu_tensor_is_refused_by_name() {
        let error = elsewhere("softmax", "x", DeviceLocation::Cuda { gpu_id: 1 });
        assert!(error.to_string().starts_with("softmax: x is on CUDA device 1, and"), "{error}");
        assert!(error.to_string().contains("feature `cuda`"), "{error}");
        let error = elsewhere("softmax", "x", DeviceLocation::Metal { gpu_id: 0 });
        let message = "softmax: x is on Metal device 0, and this build does not compute there: enable feature `metal` of \
                       candlewick-candle, or move it with `to_device`";
        assert_eq!(error.to_string(), message);
        // Candle appends a backtrace where the environment asks for one.
        assert!(candle_core::Error::from(error).to_string().starts_with(message));
    }

    #[test]
    fn two_devices_are_named() {
        let error = devices("matmul", ("a", DeviceLocation::Cpu), ("b", DeviceLocation::Metal { gpu_id: 0 }));
        let message = "matmul: a is on the CPU and b is on Metal device 0: move one with `to_device`";
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn a_candle_error_stays_one() {
        let error = Error::from(candle_core::Error::UnwrapNone);
        assert!(matches!(candle_core::Error::from(error), candle_core::Error::UnwrapNone));
    }
}
