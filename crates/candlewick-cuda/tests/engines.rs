//! Which engine runs what, and what happens where one cannot.

mod stub;

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::dispatch::{DispatchTable, Reason};
use candlewick_core::{DType, LoraLinear, MatMul, Op, Softmax};
use candlewick_cuda::{CUBLASLT, Device, FUSED, MMA, Options};
use stub::{Lib, Stub};

#[test]
fn every_operation_has_own_kernels_and_the_best_guess_comes_first() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let first = |op: &Op| device.engines(op)[0];
    let product = |m, n, dtype| Op::from(MatMul::new(m, n, 2048, dtype));
    assert_eq!(first(&product(1, 2048, DType::F32)), FUSED, "a matrix-vector product");
    assert_eq!(first(&product(2048, 2048, DType::F32)), CUBLASLT);
    assert_eq!(first(&product(8192, 8192, DType::BF16)), CUBLASLT);
    assert_eq!(first(&LoraLinear::new(4, 1024, 1024, 8, 1.0, DType::F32).into()), FUSED);
    assert_eq!(first(&LoraLinear::new(4096, 1024, 1024, 8, 1.0, DType::F32).into()), CUBLASLT);
    assert_eq!(device.engines(&Softmax::new(8, 8, DType::F32).into()), [FUSED]);
    // f32 stays f32: tensor cores would round it.
    assert!(!device.engines(&product(512, 512, DType::F32)).contains(&MMA));
    // A sum over the batch, and a factor of zero, are not the library's.
    let mut summed = MatMul::new(64, 64, 64, DType::F32).batched(4);
    summed.batch.c[2] = 0;
    assert_eq!(device.engines(&summed.into()), [FUSED]);
    assert_eq!(device.engines(&MatMul::new(64, 64, 64, DType::F32).scaled(0.0, 1.0).into()), [FUSED]);
}

#[test]
fn measurements_and_callers_overrule_the_guess() {
    let Some(stub) = Stub::all() else { return };
    let op = Op::from(MatMul::new(512, 512, 512, DType::F32));
    let mut table = DispatchTable::new();
    table.record(&op, FUSED, 3.0);
    table.record(&op, CUBLASLT, 5.0);
    let device = stub.open();
    assert_eq!(device.decide(&op).unwrap().reason, Reason::Default);
    let device = device.with_table(table);
    assert_eq!(device.decide(&op).unwrap().reason, Reason::Measured { microseconds: 3.0 });
    let mut stream = device.stream().unwrap();
    assert_eq!(stream.prepare(&op, None).unwrap().engine(), FUSED);
    assert_eq!(stream.prepare(&op, Some(CUBLASLT)).unwrap().engine(), CUBLASLT);
    let error = stream.prepare(&Op::from(Softmax::new(8, 8, DType::F32)), Some(CUBLASLT)).err().unwrap().to_string();
    assert!(error.contains("no engine cuda/cublaslt on cuda:0 for softmax 8x8 f32 (there is cuda/fused)"), "{error}");
}

#[test]
fn where_the_library_has_no_algorithm_the_next_engine_runs() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let op = Op::from(MatMul::new(512, 512, 512, DType::F32));
    stub.fail(Lib::CublasLt, "cublasLtMatmulAlgoGetHeuristic", 2, 15);
    let error = stream.prepare(&op, Some(CUBLASLT)).err().unwrap().to_string();
    assert!(error.contains("cuBLASLt says: CUBLAS_STATUS_NOT_SUPPORTED"), "{error}");
    stub.fail(Lib::CublasLt, "cublasLtMatmulAlgoGetHeuristic", 1, 15);
    assert_eq!(stream.prepare(&op, None).unwrap().engine(), FUSED);
    drop((stream, device));
    stub.assert_clean();
}

#[test]
fn the_second_product_of_a_layer_adds_to_the_first() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let op = LoraLinear::new(256, 128, 192, 8, 2.0, DType::BF16).with_bias();
    let kernel = stream.prepare(&op.into(), Some(CUBLASLT)).unwrap();
    let sizes = [256 * 128, 192 * 128, 192, 8 * 128, 192 * 8];
    let inputs: Vec<_> = sizes.iter().map(|&size| device.alloc(DType::BF16, size).unwrap()).collect();
    let mut y = device.alloc(DType::BF16, 256 * 192).unwrap();
    let [x, w, _, a, b] = [0, 1, 2, 3, 4].map(|i| inputs[i].address());
    let to = y.address();
    stub.clear();
    let inputs: Vec<_> = inputs.iter().map(Into::into).collect();
    stream.encode(&kernel, &inputs, &mut [(&mut y).into()]).unwrap();
    let products: Vec<[u64; 3]> = stub
        .launches_of(Lib::CublasLt)
        .iter()
        .map(|launch| [launch.arguments[0], launch.arguments[1], launch.arguments[2]])
        .collect();
    let h = products[1][2];
    // The library's left is the row-major right.
    assert_eq!(products, [[w, x, to], [a, x, h], [b, h, to]]);
    let calls = stub.calls_of(Lib::CublasLt);
    assert_eq!(calls, ["cublasLtMatmulDescSetAttribute", "cublasLtMatmul", "cublasLtMatmul", "cublasLtMatmul"]);

    // In f16 h, or the layer without its delta, could overflow.
    let half = LoraLinear { dtype: DType::F16, ..op };
    assert!(!device.engines(&half.into()).contains(&CUBLASLT));
    assert!(!device.engines(&Op::LoraLinearBackward(half)).contains(&CUBLASLT));
}

#[test]
fn f32_is_rounded_to_tf32_by_request_alone() {
    let Some(stub) = Stub::all() else { return };
    let op = Op::from(MatMul::new(64, 64, 64, DType::F32));
    let compute = |tf32| {
        let device = Device::with_options(0, Options { tf32, ..stub.options() }).unwrap();
        let mut stream = device.stream().unwrap();
        let kernel = stream.prepare(&op, Some(CUBLASLT)).unwrap();
        let [a, b, mut c] = [(); 3].map(|()| device.alloc(DType::F32, 64 * 64).unwrap());
        stub.clear();
        stream.encode(&kernel, &[(&a).into(), (&b).into()], &mut [(&mut c).into()]).unwrap();
        stub.launches_of(Lib::CublasLt)[0].threads
    };
    // CUBLAS_COMPUTE_32F and CUBLAS_COMPUTE_32F_FAST_TF32 (cublas_api.h).
    assert_eq!([compute(false), compute(true)], [68, 77]);
}
