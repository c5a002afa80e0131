//! Recorded work.

mod stub;

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, Error, Op, Softmax};
use candlewick_cuda::{Buffer, Device, Kernel, Stream};
use stub::{Kind, Lib, Stub};

fn setup(stub: &Stub) -> (Device, Stream, Kernel, Buffer, Buffer) {
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let kernel = stream.prepare(&Op::from(Softmax::new(4, 64, DType::F32)), None).unwrap();
    let (x, y) = (device.alloc(DType::F32, 256).unwrap(), device.alloc(DType::F32, 256).unwrap());
    (device, stream, kernel, x, y)
}

#[test]
fn a_graph_is_recorded_once_and_launched_with_one_call() {
    let Some(stub) = Stub::all() else { return };
    let (device, mut stream, kernel, x, mut y) = setup(&stub);
    stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
    stub.clear();
    let graph = stream
        .capture(|stream| {
            for _ in 0..3 {
                stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()])?;
            }
            // Preparing is legal inside.
            stream.prepare(&Op::from(Softmax::new(8, 64, DType::F32)), None).map(drop)
        })
        .unwrap();
    let calls = stub.calls();
    let calls: Vec<&str> = calls.iter().map(String::as_str).filter(|call| !call.starts_with("cuModule")).collect();
    let launches = ["cuLaunchKernelEx"; 3];
    let expected = [
        &["cuStreamBeginCapture_v2"][..],
        &launches,
        &["cuStreamEndCapture", "cuGraphGetNodes", "cuGraphInstantiateWithFlags", "cuGraphUpload", "cuGraphDestroy"],
    ];
    assert_eq!(calls, expected.concat());
    assert_eq!((graph.operations(), graph.nodes()), (3, 3));
    stub.fail(Lib::Cuda, "cuStreamQuery", 1, 1);
    let error = stream.wait().unwrap_err().to_string();
    assert!(error.contains("of the 1 operations since the last wait"), "what is recorded has not run: {error}");
    stream.wait().unwrap();
    stub.clear();
    graph.launch(&mut stream).unwrap();
    assert_eq!(stub.calls(), ["cuGraphLaunch"]);
    stream.wait().unwrap();

    let mut other = device.stream().unwrap();
    let error = graph.launch(&mut other).unwrap_err();
    assert!(error.to_string().contains("launch it on the stream that recorded it"), "{error}");
    stub.fail(Lib::Cuda, "cuStreamQuery", 1, 1);
    graph.launch(&mut stream).unwrap();
    let error = stream.wait().unwrap_err().to_string();
    assert!(error.contains("one of: a graph of 3 operations (softmax on cuda/fused)"), "{error}");
    drop((graph, other, x, y, kernel, stream, device));
    stub.assert_clean();
}

#[test]
fn a_graph_keeps_its_buffers_and_pending_work_keeps_the_graph() {
    let Some(stub) = Stub::all() else { return };
    let (device, mut stream, kernel, x, mut y) = setup(&stub);
    let used = [x.address(), y.address()];
    let graph = stream.capture(|stream| stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()])).unwrap();
    stream.wait().unwrap();
    drop((x, y, kernel));
    let fresh: Vec<Buffer> = (0..4).map(|_| device.alloc(DType::F32, 256).unwrap()).collect();
    assert!(fresh.iter().all(|buffer| !used.contains(&buffer.address())));
    stub.hold(true);
    graph.launch(&mut stream).unwrap();
    drop(graph);
    assert_eq!(stub.live(Lib::Cuda, Kind::Graphs), 1, "it may still run");
    stub.hold(false);
    stream.wait().unwrap();
    assert_eq!(stub.live(Lib::Cuda, Kind::Graphs), 0);
    let again: Vec<Buffer> = (0..2).map(|_| device.alloc(DType::F32, 256).unwrap()).collect();
    assert!(again.iter().all(|buffer| used.contains(&buffer.address())));
}

#[test]
fn what_needs_the_stream_to_run_is_refused_while_it_records() {
    let Some(stub) = Stub::all() else { return };
    let (device, mut stream, kernel, mut x, y) = setup(&stub);
    let refused = |result: candlewick_core::Result<()>| {
        assert!(result.unwrap_err().to_string().contains("the stream records a graph"));
    };
    let graph = stream
        .capture(|stream| {
            refused(stream.wait());
            refused(stream.write(&mut x, &[0f32; 256]));
            refused(stream.read(&y, &mut [0f32; 256]));
            refused(stream.capture(|_| Ok(())).map(drop));
            Ok(())
        })
        .unwrap();
    assert_eq!(graph.operations(), 0);
    // An error inside ends the recording, and so does a panic.
    let failed = stream.capture(|_| Err(Error::OutOfMemory { device: "here".into(), bytes: 1 }));
    assert!(matches!(failed, Err(Error::OutOfMemory { .. })));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = stream.capture(|_| panic!("on purpose"));
    }));
    assert!(panicked.is_err());
    let mut y = y;
    stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
    stream.wait().unwrap();
    stub.fail(Lib::Cuda, "cuStreamEndCapture", 1, 901);
    assert!(stream.capture(|_| Ok(())).is_err());
    stream.wait().unwrap();
    drop((graph, x, y, kernel, stream, device));
    stub.assert_clean();
}
