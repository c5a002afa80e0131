//! What opening a device says of what is missing.

mod stub;

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, Error, MatMul, Op};
use candlewick_cuda::{CUBLASLT, Device, FUSED};
use stub::{Lib, Stub};

fn refusal(stub: &Stub) -> String {
    match Device::with_options(0, stub.options()) {
        Err(error @ Error::NoDevice { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it opened"),
    }
}

#[test]
fn what_is_missing_is_named_with_the_remedy() {
    let Some(nothing) = Stub::of(&[]) else { return };
    let error = refusal(&nothing);
    assert_eq!(error, "no device cuda:0 here: libcuda.so.1 not found: NVIDIA's driver is not installed");
    let stub = Stub::of(&[Lib::Cuda]).unwrap();
    let error = refusal(&stub);
    assert!(
        error.contains("libnvrtc.so.13 not found: install the CUDA toolkit or PyPI's nvidia-cuda-nvrtc"),
        "{error}"
    );
    assert!(error.contains("CANDLEWICK_CUDA_LIBS"), "{error}");
    // A driver of CUDA 12 wants a compiler of CUDA 12.
    stub.set_versions(Lib::Cuda, 12080, 0);
    std::fs::write(stub.folder().join("libnvrtc.so.12"), "no library").unwrap();
    let stub = Stub::of(&[Lib::Cuda]).unwrap();
    assert!(refusal(&stub).contains("libnvrtc.so.13"));
}

#[test]
fn a_machine_without_a_gpu_and_an_old_one_are_told_apart() {
    let Some(stub) = Stub::all() else { return };
    stub.set_device(0, 9, 0);
    assert!(refusal(&stub).contains("the driver sees 0 GPUs"), "{}", refusal(&stub));
    stub.set_device(1, 6, 1);
    assert!(refusal(&stub).contains("compute capability 6.1: 7.0 or later is needed"), "{}", refusal(&stub));
    stub.set_device(1, 9, 0);
    assert!(Device::with_options(1, stub.options()).is_err(), "there is no second one");
    assert!(Device::with_options(0, stub.options()).is_ok());
    let failing = Stub::all().unwrap();
    failing.fail(Lib::Cuda, "cuInit", 1, 999);
    assert!(refusal(&failing).contains("cuInit: CUDA_ERROR_STUB (as told)"), "{}", refusal(&failing));
}

#[test]
fn without_cublaslt_its_engine_is_not_offered_and_info_says_why() {
    let op = Op::from(MatMul::new(512, 512, 512, DType::BF16));
    let Some(stub) = Stub::of(&[Lib::Cuda, Lib::Nvrtc]) else { return };
    let device = stub.open();
    assert!(!device.engines(&op).contains(&CUBLASLT) && !device.info().engines.contains(&CUBLASLT));
    let facts = device.info().facts;
    let said = facts.iter().find(|(name, _)| *name == "cuBLASLt").unwrap().1.clone();
    assert!(said.contains("libcublasLt.so.13 not found: install"), "{said}");
    let error = device.stream().unwrap().prepare(&op, Some(CUBLASLT)).err().unwrap();
    assert!(error.to_string().contains("no engine cuda/cublaslt on cuda:0"), "{error}");

    let whole = Stub::all().unwrap();
    let device = whole.open();
    assert!(device.engines(&op).contains(&CUBLASLT));
    let info = device.info();
    assert_eq!((info.id.as_str(), info.name.as_str(), info.asynchronous), ("cuda:0", "Stub GPU", true));
    let fact = |name| info.facts.iter().find(|(fact, _)| *fact == name).unwrap().1.clone();
    assert_eq!([fact("NVRTC"), fact("cuBLASLt"), fact("CUDA of the driver")], ["13.0", "13.1", "13.0"]);
    assert_eq!(fact("multiprocessors"), "132");
    assert!(device.engines(&op).contains(&FUSED));
}

#[test]
fn nothing_is_left_when_a_device_closes() {
    let Some(stub) = Stub::all() else { return };
    for _ in 0..2 {
        let device = stub.open();
        let mut stream = device.stream().unwrap();
        let mut buffer = device.alloc(DType::F32, 100).unwrap();
        stream.write(&mut buffer, &[1f32; 100]).unwrap();
        stream.prepare(&Op::from(MatMul::new(64, 64, 64, DType::F32)), Some(CUBLASLT)).unwrap();
        let kernel = stream.prepare(&Op::from(MatMul::new(64, 64, 64, DType::F32)), Some(FUSED)).unwrap();
        // In an order that nobody should choose.
        drop(device);
        drop(stream);
        drop(kernel);
        drop(buffer);
        stub.assert_clean();
    }
}
