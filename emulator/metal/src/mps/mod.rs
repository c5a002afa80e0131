//! Metal Performance Shaders: matrices, vectors and n-dimensional arrays, and the kernels that multiply them.
//!
//! What is emulated comes from Apple's headers, whose comments the typed crate carries. A comment here quotes the
//! sentence a check rests on; what has no source says "not documented" and why it was chosen.

mod call;
mod command_buffer;
mod data_type;
mod functions;
mod kernel;
mod matrix;
mod matrix_descriptor;
mod matrix_kernel;
mod matrix_multiplication;
mod matrix_softmax;
mod matrix_softmax_gradient;
mod matrix_vector_multiplication;
mod ndarray;
mod ndarray_copy;
mod ndarray_descriptor;
mod ndarray_matrix_multiplication;
mod ndarray_view;
mod object;
mod product;
mod storage;
mod strided;
mod vector;

use objc2::ClassType;

/// Registers every class of this module with the runtime; the loader calls it before the first class is looked up.
pub fn register() {
    matrix_descriptor::EmulatedMatrixDescriptor::class();
    matrix_descriptor::EmulatedVectorDescriptor::class();
    matrix::EmulatedMatrix::class();
    vector::EmulatedVector::class();
    kernel::EmulatedKernel::class();
    matrix_kernel::EmulatedUnaryKernel::class();
    matrix_kernel::EmulatedBinaryKernel::class();
    matrix_multiplication::EmulatedMatrixMultiplication::class();
    matrix_vector_multiplication::EmulatedMatrixVectorMultiplication::class();
    matrix_softmax::EmulatedSoftMax::class();
    matrix_softmax::EmulatedLogSoftMax::class();
    matrix_softmax_gradient::EmulatedSoftMaxGradient::class();
    matrix_softmax_gradient::EmulatedLogSoftMaxGradient::class();
    ndarray_descriptor::EmulatedNdArrayDescriptor::class();
    ndarray::EmulatedNdArray::class();
    ndarray_matrix_multiplication::EmulatedMultiaryBase::class();
    ndarray_matrix_multiplication::EmulatedMultiaryKernel::class();
    ndarray_matrix_multiplication::EmulatedNdArrayMatrixMultiplication::class();
    command_buffer::EmulatedMpsCommandBuffer::class();
}
