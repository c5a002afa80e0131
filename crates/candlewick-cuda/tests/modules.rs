//! Compiled kernels, in memory and on disk.

mod stub;

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, MatMul, Op, RmsNorm, Softmax};
use candlewick_cuda::{CacheFolder, Device, FUSED, ModuleCounters, Options};
use std::fs;
use stub::{Lib, Stub};

fn prepare(device: &Device, ops: &[Op]) -> ModuleCounters {
    let mut stream = device.stream().unwrap();
    for op in ops {
        stream.prepare(op, Some(FUSED)).unwrap();
    }
    device.module_counters()
}

fn softmax(dtype: DType) -> Op {
    Softmax::new(4, 64, dtype).into()
}

#[test]
fn only_what_an_operation_needs_is_compiled_and_once() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let compiled = prepare(&device, &[softmax(DType::F32)]);
    assert_eq!((compiled.compiled, compiled.from_disk), (1, 0));
    let norm = Op::from(RmsNorm::new(4, 64, 1e-5, DType::F32));
    assert_eq!(
        prepare(&device, &[softmax(DType::F32), softmax(DType::BF16), norm]).compiled,
        3,
        "each dtype, each file"
    );
    let larger = Op::from(Softmax::new(4, 100_000, DType::F32));
    let after = prepare(&device, &[larger, softmax(DType::F32)]);
    assert_eq!(after.compiled, 3, "other kernels of the same file");
    assert!(after.hits >= 2);
    // Another process, so to speak.
    let again = prepare(&stub.open(), &[softmax(DType::F32), norm]);
    assert_eq!((again.compiled, again.from_disk, again.rejected), (0, 2, 0));
}

#[test]
fn damaged_entries_are_compiled_again_and_replaced() {
    let Some(stub) = Stub::all() else { return };
    let op = [softmax(DType::F32)];
    prepare(&stub.open(), &op);
    let entry = fs::read_dir(stub.cache()).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&entry).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let foreign =
        b"not an entry of this library at all, but as long as a header would be or longer than that by far".to_vec();
    for damaged in [flipped, whole[..whole.len() - 1].to_vec(), Vec::new(), foreign] {
        fs::write(&entry, damaged).unwrap();
        let counters = prepare(&stub.open(), &op);
        assert_eq!((counters.compiled, counters.from_disk, counters.rejected), (1, 0, 1));
        assert_eq!(fs::read(&entry).unwrap(), whole, "the entry was replaced");
    }
    // What the driver does not take is as good as damaged.
    let device = stub.open();
    stub.fail(Lib::Cuda, "cuModuleLoadData", 1, 200);
    let counters = prepare(&device, &op);
    assert_eq!((counters.compiled, counters.from_disk, counters.rejected), (1, 0, 1));
}

#[test]
fn another_compiler_or_chip_has_entries_of_its_own() {
    let Some(stub) = Stub::all() else { return };
    let op = [softmax(DType::F32)];
    prepare(&stub.open(), &op);
    stub.set_versions(Lib::Nvrtc, 0, 13010);
    assert_eq!(prepare(&stub.open(), &op).compiled, 1, "another compiler");
    stub.set_device(1, 8, 0);
    assert_eq!(prepare(&stub.open(), &op).compiled, 1, "another chip");
    assert_eq!(prepare(&stub.open(), &op).from_disk, 1);
    assert_eq!(fs::read_dir(stub.cache()).unwrap().count(), 3);
    let codes: Vec<String> = fs::read_dir(stub.cache())
        .unwrap()
        .map(|entry| String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap()).into_owned())
        .collect();
    assert_eq!(codes.iter().filter(|code| code.contains("--gpu-architecture=sm_90a")).count(), 2);
    assert_eq!(codes.iter().filter(|code| code.contains("--gpu-architecture=sm_80 ")).count(), 1);
}

#[test]
fn a_refused_source_is_an_error_with_the_compilers_words() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    stub.fail(Lib::Nvrtc, "nvrtcCompileProgram", 1, 6);
    let error = stream.prepare(&softmax(DType::F32), Some(FUSED)).err().unwrap().to_string();
    assert!(error.contains("softmax_f32.cu: NVRTC_ERROR_COMPILATION\nkernel.cu(7): error: as told"), "{error}");
    assert!(stream.prepare(&softmax(DType::F32), Some(FUSED)).is_ok(), "the error is not kept");
}

#[test]
fn without_a_place_to_keep_it_everything_works() {
    let Some(stub) = Stub::all() else { return };
    let op = [Op::from(MatMul::new(8, 8, 8, DType::F16))];
    let nowhere = Options { cache: CacheFolder::Nowhere, ..stub.options() };
    assert!(prepare(&Device::with_options(0, nowhere).unwrap(), &op).compiled > 0);
    assert!(!stub.cache().exists());
    // A file where the folder should be.
    fs::write(stub.cache(), "").unwrap();
    assert!(prepare(&stub.open(), &op).compiled > 0);
}
