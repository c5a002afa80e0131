//! Candle's tensors as Candlewick's operands: the one place that knows Candle's storages.

use crate::error::{self, Named, Result};
use crate::stream;
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cpu_backend::CpuDevice;
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, Layout, Storage, StorageRef, Tensor};
use candlewick::{DType, Input, Op, Output, Shape};

/// The dtype that all operands share, after a check that they lie where Candlewick computes.
pub(crate) fn dtype(op: &'static str, operands: &[Named<'_>]) -> Result<DType> {
    for &(name, tensor) in operands {
        if !tensor.device().is_cpu() {
            return Err(error::elsewhere(op, name, tensor.device().location()));
        }
        convert(op, (name, tensor))?;
    }
    let first = operands[0];
    match operands.iter().find(|(_, tensor)| tensor.dtype() != first.1.dtype()) {
        Some(&other) => Err(error::dtypes(op, first, other)),
        None => convert(op, first),
    }
}

fn candle_dtype(dtype: DType) -> candle_core::DType {
    match dtype {
        DType::F32 => candle_core::DType::F32,
        DType::F16 => candle_core::DType::F16,
        DType::BF16 => candle_core::DType::BF16,
        DType::U32 => candle_core::DType::U32,
        DType::U8 => candle_core::DType::U8,
    }
}

fn convert(op: &'static str, (name, tensor): Named<'_>) -> Result<DType> {
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

/// How many elements a shape has; a count that no memory holds where it overflows.
pub(crate) fn elements(dims: &[usize]) -> usize {
    dims.iter().fold(1, |product, &size| product.saturating_mul(size))
}

/// The tensor itself where it is contiguous, and a copy where it is not.
pub(crate) fn contiguous(op: &'static str, (operand, tensor): Named<'_>) -> Result<Tensor> {
    let shape = Shape::new(tensor.dims());
    // A broadcast view can be larger than any memory.
    match shape.elements().and_then(|elements| elements.checked_mul(tensor.dtype().size_in_bytes())) {
        Some(bytes) if bytes <= isize::MAX as usize => Ok(tensor.contiguous()?),
        _ => Err(candlewick::Error::TooLarge { op, operand, shape }.into()),
    }
}

/// Rows of a tensor's last dimension.
pub(crate) struct Rows {
    /// How many.
    pub count: usize,
    /// Elements of one.
    pub length: usize,
    /// Elements from one to the next.
    pub stride: usize,
}

/// The tensor as rows with one stride between them: a copy where its strides do not allow that. Not for scalars.
pub(crate) fn rows(op: &'static str, (name, tensor): Named<'_>) -> Result<(Tensor, Rows)> {
    if let Some((count, length, stride)) = layout(tensor.layout()).rows()
        && stride >= length
    {
        return Ok((tensor.clone(), Rows { count, length, stride }));
    }
    let tensor = contiguous(op, (name, tensor))?;
    let (length, count) = match tensor.dims().split_last() {
        Some((&length, outer)) => (length, outer.iter().product()),
        None => return Err(error::shape(op, (name, &tensor), "a scalar has no rows: give it a dimension")),
    };
    Ok((tensor, Rows { count, length, stride: length }))
}

/// The memory of a tensor from its first element on.
pub(crate) fn input<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Input<'a>> {
    // An empty view may start behind the end.
    fn from<T>(numbers: &[T], start: usize) -> &[T] {
        numbers.get(start..).unwrap_or_default()
    }
    let start = layout.start_offset();
    match storage {
        CpuStorage::F32(numbers) => Ok(from(numbers, start).into()),
        CpuStorage::F16(numbers) => Ok(from(numbers, start).into()),
        CpuStorage::BF16(numbers) => Ok(from(numbers, start).into()),
        other => Err(error::unsupported("read", "a tensor", other.dtype())),
    }
}

/// A tensor's memory, locked for reading.
pub(crate) struct Held<'a>(StorageRef<'a>, &'a Layout);

/// Locks a tensor's memory for reading.
pub(crate) fn hold(tensor: &Tensor) -> Held<'_> {
    let (storage, layout) = tensor.storage_and_layout();
    Held(storage, layout)
}

impl Held<'_> {
    pub(crate) fn input(&self) -> Result<Input<'_>> {
        match &*self.0 {
            Storage::Cpu(storage) => input(storage, self.1),
            other => Err(error::elsewhere("read", "a tensor", other.device().location())),
        }
    }
}

/// Runs an operation into new memory: one contiguous output for each length, which is that of the operation's output.
pub(crate) fn run<const N: usize>(
    op: impl Into<Op>,
    inputs: &[Input<'_>],
    lengths: [usize; N],
) -> Result<[CpuStorage; N]> {
    let op = op.into();
    stream::with(|stream| {
        // Refuses sizes that no memory has before any is taken.
        let kernel = stream.prepare(op)?;
        let mut memory = [const { CpuStorage::F32(Vec::new()) }; N];
        for (memory, length) in memory.iter_mut().zip(lengths) {
            // SAFETY: what Candle asks for is that the memory is written before it is read, and `encode` writes every
            // output whole (the contract's fifth promise; no operation here accumulates). If it fails, nobody reads.
            *memory = unsafe { CpuDevice.alloc_uninit(&length.into(), candle_dtype(op.dtype()))? };
        }
        let mut outputs = Vec::with_capacity(N);
        for memory in &mut memory {
            outputs.push(output(memory)?);
        }
        stream.encode(&kernel, inputs, &mut outputs)?;
        drop(outputs);
        // Candle reads a CPU tensor without asking.
        stream.wait()?;
        Ok(memory)
    })
}

fn output(storage: &mut CpuStorage) -> Result<Output<'_>> {
    match storage {
        CpuStorage::F32(numbers) => Ok(numbers.as_mut_slice().into()),
        CpuStorage::F16(numbers) => Ok(numbers.as_mut_slice().into()),
        CpuStorage::BF16(numbers) => Ok(numbers.as_mut_slice().into()),
        other => Err(error::unsupported("write", "a tensor", other.dtype())),
    }
}

/// The gradient of `of`, whose elements are in `storage`; none where nothing asks for it.
pub(crate) fn gradient(of: &Tensor, storage: CpuStorage) -> Option<Tensor> {
    of.track_op().then(|| Tensor::from_storage(Storage::Cpu(storage), of.shape(), BackpropOp::none(), false))
}
