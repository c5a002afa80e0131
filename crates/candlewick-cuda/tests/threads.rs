//! One device, a stream per thread; and streams of others.

mod stub;

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, Op, Softmax};
use candlewick_cuda::FUSED;
use std::time::{Duration, Instant};
use stub::Stub;

#[test]
fn threads_share_a_device_and_bind_its_context_once() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let op = Op::from(Softmax::new(4, 64, DType::F32));
    device.stream().unwrap().prepare(&op, Some(FUSED)).unwrap();
    stub.clear();
    let threads = 4;
    std::thread::scope(|scope| {
        for i in 0..threads {
            let (device, op) = (device.clone(), &op);
            scope.spawn(move || {
                let mut stream = device.stream().unwrap();
                let kernel = stream.prepare(op, Some(FUSED)).unwrap();
                for round in 0..200 {
                    let (mut x, mut y) =
                        (device.alloc(DType::F32, 256).unwrap(), device.alloc(DType::F32, 256).unwrap());
                    let numbers = vec![(i * 1000 + round) as f32; 256];
                    stream.write(&mut x, &numbers).unwrap();
                    stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
                    let mut back = vec![0f32; 256];
                    stream.read(&x, &mut back).unwrap();
                    assert_eq!(back, numbers);
                }
            });
        }
    });
    let calls = stub.calls();
    let count = |name: &str| calls.iter().filter(|call| *call == name).count();
    assert_eq!(count("cuCtxSetCurrent"), threads, "once per thread");
    // A launch that is recorded does not run.
    let ran = count("cuLaunchKernelEx") + count("cuGraphLaunch") - count("cuStreamBeginCapture_v2");
    assert_eq!(ran, threads * 200);
    assert_eq!(device.module_counters().compiled, 1);
    drop(device);
    stub.assert_clean();
}

#[test]
fn two_devices_on_one_thread_take_turns() {
    let (Some(one), Some(two)) = (Stub::all(), Stub::all()) else { return };
    let (first, second) = (one.open(), two.open());
    let (mut a, mut b) = (first.stream().unwrap(), second.stream().unwrap());
    one.clear();
    two.clear();
    for _ in 0..3 {
        a.flush().unwrap();
        b.flush().unwrap();
        b.flush().unwrap();
    }
    assert_eq!(one.calls(), ["cuCtxSetCurrent"; 3]);
    assert_eq!(two.calls(), ["cuCtxSetCurrent"; 3], "the second flush finds it current");
}

#[test]
fn a_waiting_thread_looks_for_a_while_and_then_sleeps() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let (kernel, mut y) = (
        stream.prepare(&Op::from(Softmax::new(4, 64, DType::F32)), Some(FUSED)).unwrap(),
        device.alloc(DType::F32, 256).unwrap(),
    );
    let x = device.alloc(DType::F32, 256).unwrap();
    stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
    stub.hold(true);
    stub.clear();
    let start = Instant::now();
    stream.wait().unwrap();
    assert!(start.elapsed() >= Duration::from_micros(50));
    let calls = stub.calls();
    assert_eq!(calls[calls.len() - 2..], ["cuEventRecord", "cuEventSynchronize"]);
    assert!(calls[..calls.len() - 2].iter().all(|call| call == "cuStreamQuery"));
    // The next one may end about when this one did: it is looked at until a while after that.
    stub.hold(false);
    stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
    stub.hold(true);
    stub.clear();
    let start = Instant::now();
    stream.wait().unwrap();
    assert!(start.elapsed() >= Duration::from_micros(1500));
    assert_eq!(stub.calls().last().map(String::as_str), Some("cuEventSynchronize"));
    stub.clear();
    stream.wait().unwrap();
    assert_eq!(stub.calls(), Vec::<String>::new(), "nothing is pending");
}

#[test]
fn a_stream_of_others_is_used_and_left_to_them() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let theirs = 0x5700_usize as *mut std::ffi::c_void;
    // SAFETY: the stand-in never looks at streams that it did not make.
    let mut stream = unsafe { device.stream_on(theirs) }.unwrap();
    let kernel = stream.prepare(&Op::from(Softmax::new(4, 64, DType::F32)), Some(FUSED)).unwrap();
    // SAFETY: nothing runs on the stand-in.
    let (x, y) = unsafe { (device.input(0x1000, 256, DType::F32), device.output(0x2000, 256, DType::F32)) };
    stub.read_arguments(2);
    stub.clear();
    stream.encode(&kernel, &[x], &mut [y]).unwrap();
    let launch = stub.launches()[0];
    assert_eq!((launch.stream, &launch.arguments[..2]), (theirs as u64, &[0x1000, 0x2000][..]));
    assert_eq!(stub.calls(), ["cuCtxSetCurrent", "cuLaunchKernelEx"], "others may have made another context current");
    stream.wait().unwrap();
    stub.clear();
    stream.wait().unwrap();
    assert_eq!(stub.calls(), ["cuCtxSetCurrent", "cuStreamQuery"], "others may have given it work");
    drop((kernel, stream));
    assert!(!stub.calls().iter().any(|call| call == "cuStreamDestroy_v2"));
    drop(device);
    stub.assert_clean();
}

/// `CU_STREAM_PER_THREAD` means another stream on every thread: one that looked at it would look at its own.
#[test]
fn a_threads_own_stream_is_for_that_thread_to_look_at() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    // SAFETY: the stand-in never looks at streams that it did not make, and this one stays here.
    let mut stream = unsafe { device.stream_on(2 as *mut std::ffi::c_void) }.unwrap();
    let op = Op::from(Softmax::new(4, 64, DType::F32));
    let kernel = stream.prepare(&op, Some(FUSED)).unwrap();
    let (x, mut y) = (device.alloc(DType::F32, 256).unwrap(), device.alloc(DType::F32, 256).unwrap());
    stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
    let pending = [x.address(), y.address()];
    drop((x, y));
    stub.clear();
    std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| {
            let buffers: Vec<_> = (0..4).map(|_| device.alloc(DType::F32, 256).unwrap()).collect();
            assert!(buffers.iter().all(|buffer| !pending.contains(&buffer.address())), "it may still be in use");
        });
        elsewhere.join().unwrap();
    });
    let looks = |calls: Vec<String>| calls.iter().any(|call| call == "cuEventRecord" || call == "cuStreamIsCapturing");
    assert!(!looks(stub.calls()));
    // Here an event tells that the stream has passed.
    let found: Vec<_> = (0..2).map(|_| device.alloc(DType::F32, 256).unwrap()).collect();
    assert!(looks(stub.calls()) && found.iter().any(|buffer| pending.contains(&buffer.address())), "{pending:x?}");
}
