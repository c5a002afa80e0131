//! One product: its objects, its algorithms, its call.

use super::layout::{Stored, stored};
use super::{Blas, Functions, Heuristic, Object, meaning};
use crate::ops::Build;
use crate::runtime::context::Context;
use crate::runtime::history::History;
use crate::runtime::launch::Addresses;
use candlewick_core::{DType, Error, MatMul, Op, Result};
use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtEpilogue_t, cublasLtMatmulDescAttributes_t, cublasLtMatmulPreferenceAttributes_t,
    cublasLtMatrixLayoutAttribute_t, cublasLtReductionScheme_t, cudaDataType_t,
};
use cudarc::driver::sys::CUstream;
use std::ffi::c_void;
use std::ptr::{from_ref, null_mut};

/// What NVIDIA recommends for Hopper (cuBLAS, "cublasSetWorkspace").
const WORKSPACE: usize = 32 << 20;

/// Where an operand is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Where {
    /// A tensor of the call.
    Tensor(usize),
    /// Memory of the prepared operation.
    Own(u64),
}

impl Where {
    #[inline]
    fn address(self, addresses: &Addresses) -> u64 {
        match self {
            Where::Tensor(index) => addresses[index],
            Where::Own(address) => address,
        }
    }
}

/// A prepared product.
pub(crate) struct Product {
    objects: Objects,
    /// The device's.
    handle: Object,
    /// For operands at multiples of 16 bytes, and for any.
    algorithms: [[u64; 8]; 2],
    workspace: u64,
    /// A, B, C, as the operation names them.
    operands: [Where; 3],
    /// What beta multiplies, where it is not C: it lies as C does.
    added: Option<Where>,
    bias: Option<Where>,
    alpha: f32,
    beta: f32,
}

/// Objects of the library's, destroyed with it.
struct Objects {
    functions: &'static Functions,
    description: Object,
    /// Left, right, result.
    layouts: [Object; 3],
    preference: Object,
}

// SAFETY: the objects are descriptions in host memory; they are used by the stream that made them, by one thread at a time.
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

/// A product of tensors: inputs A, B, output C.
///
/// # Errors
/// [`Error::NoEngine`] where the library has no algorithm.
pub(crate) fn matmul(op: &MatMul, build: &mut Build<'_>) -> Result<Product> {
    let tensors = [Where::Tensor(0), Where::Tensor(1), Where::Tensor(2)];
    Product::new(op, &Op::from(*op), tensors, None, build)
}

impl Product {
    /// A product that is `whole` or a part of it. A bias has one element per column of C.
    pub(crate) fn new(
        op: &MatMul,
        whole: &Op,
        operands: [Where; 3],
        bias: Option<Where>,
        build: &mut Build<'_>,
    ) -> Result<Self> {
        let shared = build.shared();
        let none = |reason: String| Error::NoEngine {
            op: whole.name(),
            wanted: crate::CUBLASLT.to_string().into(),
            device: shared.context.label.as_str().into(),
            descriptor: whole.to_string().into(),
            available: reason.into(),
            remedy: "choose another engine, or none to let the dispatcher choose",
        };
        let blas = shared.blas.as_ref().map_err(|missing| none(missing.clone()))?;
        let workspace = build.blas_workspace(WORKSPACE)?;
        shared.context.bind()?;
        let tf32 = shared.options.tf32;
        let refused = |status: u32| none(format!("cuBLASLt says: {}", meaning(blas.functions, status)));
        let objects = Objects::new(blas, op, bias.is_some(), tf32).map_err(refused)?;
        let element = op.dtype.bytes() as u32;
        let biased = bias.is_some();
        let algorithm = |alignment| objects.algorithm(blas, alignment, workspace, biased).map_err(refused);
        let algorithms = [algorithm(16)?, algorithm(element)?];
        let (alpha, beta) = (op.alpha.get(), op.beta.get());
        Ok(Product { objects, handle: blas.handle, algorithms, workspace, operands, added: None, bias, alpha, beta })
    }

    /// With beta times another matrix added, which lies as C does.
    pub(crate) fn added(self, added: Where) -> Self {
        Product { added: Some(added), ..self }
    }

    /// Gives it to the driver.
    ///
    /// # Errors
    /// What the library says.
    #[inline]
    pub(crate) fn submit(
        &self,
        context: &Context,
        stream: CUstream,
        addresses: &Addresses,
        history: &History,
    ) -> Result<()> {
        let Objects { functions, description, layouts: [left, right, result], .. } = self.objects;
        let [a, b, c] = self.operands.map(|operand| operand.address(addresses));
        let added = self.added.map_or(c, |added| added.address(addresses));
        let mut bits = a | b | c | added;
        if let Some(bias) = self.bias {
            let bias = bias.address(addresses);
            bits |= bias;
            let status = self.objects.set_bias(bias);
            if status != 0 {
                return Err(failed(context, functions, status, history));
            }
        }
        let algorithm = &self.algorithms[usize::from(!bits.is_multiple_of(16))];
        let c = c as *mut c_void;
        // SAFETY: the objects describe matrices that lie within the operands, as the operation's signature was checked;
        // the workspace is as long as the heuristic was told.
        let status = unsafe {
            (functions.cublasLtMatmul)(
                self.handle,
                description,
                from_ref(&self.alpha).cast(),
                b as *const c_void,
                left,
                a as *const c_void,
                right,
                from_ref(&self.beta).cast(),
                added as *const c_void,
                result,
                c,
                result,
                algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                stream.cast(),
            )
        };
        if status == 0 { Ok(()) } else { Err(failed(context, functions, status, history)) }
    }
}

#[cold]
fn failed(context: &Context, functions: &Functions, status: u32, history: &History) -> Error {
    let message = format!("cublasLtMatmul: {}{history}", meaning(functions, status));
    Error::Backend { device: context.label.clone(), message }
}

impl Objects {
    fn new(blas: &Blas, op: &MatMul, bias: bool, tf32: bool) -> std::result::Result<Self, u32> {
        let functions = blas.functions;
        let (description, preference) = (null_mut(), null_mut());
        let mut objects = Objects { functions, description, layouts: [null_mut(); 3], preference };
        let data = match op.dtype {
            DType::F32 => cudaDataType_t::CUDA_R_32F,
            DType::F16 => cudaDataType_t::CUDA_R_16F,
            DType::BF16 => cudaDataType_t::CUDA_R_16BF,
            DType::U32 | DType::U8 => return Err(NOT_SUPPORTED),
        } as u32;
        let compute = match tf32 {
            true => cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => cublasComputeType_t::CUBLAS_COMPUTE_32F,
        } as u32;
        let scale = cudaDataType_t::CUDA_R_32F as u32;
        let (count, matrices) = stored(op).ok_or(NOT_SUPPORTED)?;
        // SAFETY: the pointers are valid.
        check(unsafe { (functions.cublasLtMatmulDescCreate)(&mut objects.description, compute, scale) })?;
        use cublasLtMatmulDescAttributes_t as Desc;
        for (attribute, matrix) in [(Desc::CUBLASLT_MATMUL_DESC_TRANSA, 0), (Desc::CUBLASLT_MATMUL_DESC_TRANSB, 1)] {
            objects.describe(attribute, &i32::from(matrices[matrix].transposed))?;
        }
        if bias {
            objects
                .describe(Desc::CUBLASLT_MATMUL_DESC_EPILOGUE, &(cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32))?;
        }
        use cublasLtMatrixLayoutAttribute_t as Layout;
        for (layout, matrix) in objects.layouts.iter_mut().zip(matrices) {
            let Stored { rows, cols, column, stride, .. } = matrix;
            // SAFETY: as above.
            check(unsafe { (functions.cublasLtMatrixLayoutCreate)(layout, data, rows, cols, column) })?;
            if count > 1 {
                let set = |attribute: Layout, value: *const c_void, bytes| {
                    // SAFETY: the value is as long.
                    check(unsafe {
                        (functions.cublasLtMatrixLayoutSetAttribute)(*layout, attribute as u32, value, bytes)
                    })
                };
                set(Layout::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, from_ref(&(count as i32)).cast(), 4)?;
                set(Layout::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, from_ref(&stride).cast(), 8)?;
            }
        }
        // SAFETY: as above.
        check(unsafe { (functions.cublasLtMatmulPreferenceCreate)(&mut objects.preference) })?;
        Ok(objects)
    }

    fn describe<T>(&self, attribute: cublasLtMatmulDescAttributes_t, value: &T) -> std::result::Result<(), u32> {
        // SAFETY: the value is as long.
        check(unsafe {
            (self.functions.cublasLtMatmulDescSetAttribute)(
                self.description,
                attribute as u32,
                from_ref(value).cast(),
                size_of::<T>(),
            )
        })
    }

    fn prefer<T>(&self, attribute: cublasLtMatmulPreferenceAttributes_t, value: &T) -> std::result::Result<(), u32> {
        // SAFETY: the value is as long.
        check(unsafe {
            (self.functions.cublasLtMatmulPreferenceSetAttribute)(
                self.preference,
                attribute as u32,
                from_ref(value).cast(),
                size_of::<T>(),
            )
        })
    }

    #[inline]
    fn set_bias(&self, address: u64) -> u32 {
        let attribute = cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        match self.describe(attribute, &address) {
            Ok(()) => 0,
            Err(status) => status,
        }
    }

    /// The library's best guess for operands at multiples of `alignment` bytes.
    fn algorithm(
        &self,
        blas: &Blas,
        alignment: u32,
        workspace: u64,
        biased: bool,
    ) -> std::result::Result<[u64; 8], u32> {
        use cublasLtMatmulPreferenceAttributes_t as Prefer;
        self.prefer(Prefer::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
        // Parts of a sum are never rounded to f16 or bf16 before they are added up.
        let sums = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        self.prefer(Prefer::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums)?;
        for attribute in [
            Prefer::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Prefer::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Prefer::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Prefer::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            self.prefer(attribute, &alignment)?;
        }
        // An address to judge a bias by. A product without one may have no address either: seen on an H100, cuBLASLt 13.
        if biased {
            check(self.set_bias(workspace + u64::from(alignment)))?;
        }
        let mut found =
            Heuristic { algorithm: [0; 8], workspace_bytes: 0, state: NOT_SUPPORTED, waves: 0.0, reserved: [0; 4] };
        let mut count = 0;
        let [left, right, result] = self.layouts;
        // SAFETY: there is room for one result.
        check(unsafe {
            (self.functions.cublasLtMatmulAlgoGetHeuristic)(
                blas.handle,
                self.description,
                left,
                right,
                result,
                result,
                self.preference,
                1,
                &mut found,
                &mut count,
            )
        })?;
        if count < 1 || found.workspace_bytes > WORKSPACE {
            return Err(NOT_SUPPORTED);
        }
        check(found.state)?;
        Ok(found.algorithm)
    }
}

/// `CUBLAS_STATUS_NOT_SUPPORTED`.
const NOT_SUPPORTED: u32 = 15;

fn check(status: u32) -> std::result::Result<(), u32> {
    if status == 0 { Ok(()) } else { Err(status) }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let functions = self.functions;
        // SAFETY: each is destroyed once, and work under way holds none of them.
        unsafe {
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                (functions.cublasLtMatrixLayoutDestroy)(layout);
            }
            if !self.preference.is_null() {
                (functions.cublasLtMatmulPreferenceDestroy)(self.preference);
            }
            if !self.description.is_null() {
                (functions.cublasLtMatmulDescDestroy)(self.description);
            }
        }
    }
}
