//! Device memory: what is dropped while work is pending, and what happens when there is no more.

mod stub;

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, Error, Op, Softmax};
use candlewick_cuda::{Buffer, Device, Options};
use stub::{Kind, Lib, Stub};

const ELEMENTS: usize = 32 * 1024;

fn softmax() -> Op {
    Softmax::new(32, 1024, DType::F32).into()
}

fn alloc(device: &Device) -> Buffer {
    device.alloc(DType::F32, ELEMENTS).unwrap()
}

#[test]
fn dropped_memory_is_not_used_again_before_the_stream_has_passed_it() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let kernel = stream.prepare(&softmax(), None).unwrap();
    let (x, mut y) = (alloc(&device), alloc(&device));
    let pending = [x.address(), y.address()];
    stub.hold(true);
    stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
    stub.clear();
    drop((x, y));
    assert_eq!(stub.calls(), Vec::<String>::new(), "dropping calls nobody");
    let others: Vec<Buffer> = (0..8).map(|_| alloc(&device)).collect();
    assert!(others.iter().all(|buffer| !pending.contains(&buffer.address())));
    // Without a wait: an event tells that the stream has passed.
    stub.hold(false);
    let first = alloc(&device);
    let second = alloc(&device);
    let found = [first.address(), second.address()];
    assert!(found.iter().any(|address| pending.contains(address)), "{found:x?} of {pending:x?}");
    assert!(stub.calls().iter().any(|call| call == "cuEventQuery"));
    drop((others, first, second));
    // Nothing pending: used again at once.
    stream.wait().unwrap();
    let address = alloc(&device).address();
    stub.clear();
    assert_eq!(alloc(&device).address(), address);
    assert!(!stub.calls().iter().any(|call| call.starts_with("cuEvent") || call == "cuMemAlloc_v2"));
}

#[test]
fn a_stream_that_only_runs_on_does_not_fill_the_memory() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let kernel = stream.prepare(&softmax(), None).unwrap();
    for _ in 0..5000 {
        let (x, mut y) = (alloc(&device), alloc(&device));
        stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
    }
    assert_eq!(stub.live(Lib::Cuda, Kind::Allocations), 1, "one block was enough");
}

#[test]
fn out_of_memory_is_an_error_that_leaves_everything_usable() {
    let Some(stub) = Stub::all() else { return };
    stub.set_memory(1 << 20);
    let device = Device::with_options(0, Options { block_bytes: 256 << 10, ..stub.options() }).unwrap();
    let mut stream = device.stream().unwrap();
    let kernel = stream.prepare(&softmax(), None).unwrap();
    let mut buffers = Vec::new();
    let error = loop {
        match device.alloc(DType::F32, ELEMENTS) {
            Ok(buffer) => buffers.push(buffer),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::OutOfMemory { device: "cuda:0".into(), bytes: 4 * ELEMENTS });
    assert!(buffers.len() >= 4, "{}", buffers.len());
    assert!(matches!(device.alloc(DType::F32, usize::MAX), Err(Error::OutOfMemory { .. })));
    let mut y = buffers.pop().unwrap();
    let x = buffers.pop().unwrap();
    stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
    stream.wait().unwrap();
    // Pending work holds what was dropped: it is waited for before there is no memory.
    stub.hold(true);
    stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
    drop((x, y));
    let _again = alloc(&device);
    // Blocks of one size are given back for a larger one.
    stream.wait().unwrap();
    drop(_again);
    drop(buffers);
    assert!(device.alloc(DType::F32, 200 << 10).is_ok());
    device.trim();
    assert_eq!(device.allocated_bytes(), 0);
}

#[test]
fn page_locked_memory_may_run_out_too() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let mut buffer = alloc(&device);
    stub.fail(Lib::Cuda, "cuMemHostAlloc", 1, 2);
    let error = stream.write(&mut buffer, &vec![1f32; ELEMENTS]).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    stream.write(&mut buffer, &vec![2f32; ELEMENTS]).unwrap();
    let mut back = vec![0f32; ELEMENTS];
    stream.read(&buffer, &mut back).unwrap();
    assert!(back.iter().all(|&x| x == 2.0));
}

#[test]
fn with_blocks_of_nothing_every_tensor_ends_where_its_memory_does() {
    let Some(stub) = Stub::all() else { return };
    let device = Device::with_options(0, Options { block_bytes: 0, ..stub.options() }).unwrap();
    let buffers: Vec<Buffer> = [1, 100, 7].iter().map(|&count| device.alloc(DType::F16, count).unwrap()).collect();
    assert_eq!((device.allocated_bytes(), stub.live(Lib::Cuda, Kind::Allocations)), (216, 3));
    drop(buffers);
    assert_eq!(stub.live(Lib::Cuda, Kind::Allocations), 0);
}
