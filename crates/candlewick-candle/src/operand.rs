//! Candle's tensors as Candlewick's operands: what is the same on every device.

use crate::compute;
use crate::error::{self, Described, Named, Result};
use candle_core::op::BackpropOp;
use candle_core::{Layout, Storage, Tensor};
use candlewick::{DType, Shape};

/// The dtype that all operands share, after a check that they lie together where Candlewick computes.
pub(crate) fn dtype(op: &'static str, operands: &[(&'static str, &Tensor)]) -> Result<DType> {
    let (first_name, first) = operands[0];
    for &(name, tensor) in operands {
        compute::check_device(op, name, tensor.device())?;
        if !tensor.device().same_device(first.device()) {
            let [left, right] = [(first_name, first), (name, tensor)].map(|(name, on)| (name, on.device().location()));
            return Err(error::devices(op, left, right));
        }
    }
    same_dtype(op, operands.iter().map(|&(name, tensor)| (name, tensor as &dyn Described)))
}

/// The dtype that all operands share, wherever they lie.
pub(crate) fn same_dtype<'a>(op: &'static str, operands: impl Iterator<Item = Named<'a>> + Clone) -> Result<DType> {
    for operand in operands.clone() {
        convert(op, operand)?;
    }
    let Some(first) = operands.clone().next() else { unreachable!("an operation has operands") };
    match operands.clone().find(|(_, tensor)| tensor.dtype() != first.1.dtype()) {
        Some(other) => Err(error::dtypes(op, first, other)),
        None => convert(op, first),
    }
}

/// Candlewick's dtype as Candle's.
pub(crate) fn candle_dtype(dtype: DType) -> candle_core::DType {
    match dtype {
        DType::F32 => candle_core::DType::F32,
        DType::F16 => candle_core::DType::F16,
        DType::BF16 => candle_core::DType::BF16,
        DType::U32 => candle_core::DType::U32,
        DType::U8 => candle_core::DType::U8,
    }
}

/// Candle's dtype as Candlewick's.
pub(crate) fn convert(op: &'static str, (name, tensor): Named<'_>) -> Result<DType> {
    match tensor.dtype() {
        candle_core::DType::F32 => Ok(DType::F32),
        candle_core::DType::F16 => Ok(DType::F16),
        candle_core::DType::BF16 => Ok(DType::BF16),
        other => Err(error::unsupported(op, name, other)),
    }
}

/// The sizes and strides, as Candlewick reads them.
pub(crate) fn layout(layout: &Layout) -> candlewick::Layout<'_> {
    candlewick::Layout::new(layout.dims(), layout.stride())
}

/// Elements from a tensor's first to its last, gaps included.
#[cfg(any(feature = "cuda", feature = "metal"))]
pub(crate) fn span(layout: &Layout) -> usize {
    if layout.dims().contains(&0) {
        return 0;
    }
    1 + layout.dims().iter().zip(layout.stride()).map(|(size, stride)| (size - 1) * stride).sum::<usize>()
}

/// How many elements a shape has; a count that no memory holds where it overflows.
pub(crate) fn elements(dims: &[usize]) -> usize {
    dims.iter().fold(1, |product, &size| product.saturating_mul(size))
}

/// The tensor itself where it is contiguous, and a copy where it is not.
pub(crate) fn contiguous(op: &'static str, (operand, tensor): (&'static str, &Tensor)) -> Result<Tensor> {
    let shape = Shape::new(tensor.dims());
    // A broadcast view can be larger than any memory.
    match shape.elements().and_then(|elements| elements.checked_mul(tensor.dtype().size_in_bytes())) {
        Some(bytes) if bytes <= isize::MAX as usize => Ok(tensor.contiguous()?),
        _ => Err(candlewick::Error::TooLarge { op, operand, shape }.into()),
    }
}

/// Rows of a tensor's last dimension.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// How many.
    pub count: usize,
    /// Elements of one.
    pub length: usize,
    /// Elements from one to the next.
    pub stride: usize,
}

impl Rows {
    /// The layout as rows with one stride between them, where it is that.
    pub(crate) fn of(layout: candlewick::Layout<'_>) -> Option<Self> {
        let (count, length, stride) = layout.rows()?;
        (stride >= length).then_some(Rows { count, length, stride })
    }
}

/// The tensor as rows with one stride between them: a copy where its strides do not allow that. Not for scalars.
pub(crate) fn rows(op: &'static str, (name, tensor): (&'static str, &Tensor)) -> Result<(Tensor, Rows)> {
    if let Some(rows) = Rows::of(layout(tensor.layout())) {
        return Ok((tensor.clone(), rows));
    }
    let tensor = contiguous(op, (name, tensor))?;
    let (length, count) = match tensor.dims().split_last() {
        Some((&length, outer)) => (length, outer.iter().product()),
        None => return Err(error::shape(op, (name, &tensor), "a scalar has no rows: give it a dimension")),
    };
    Ok((tensor, Rows { count, length, stride: length }))
}

/// The gradient of `of`, whose elements are in `storage`; none where nothing asks for it.
pub(crate) fn gradient(of: &Tensor, storage: Storage) -> Option<Tensor> {
    of.track_op().then(|| Tensor::from_storage(storage, of.shape(), BackpropOp::none(), false))
}
