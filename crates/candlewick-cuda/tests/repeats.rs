//! Operations that come again with the same tensors are graphs, where the driver takes a graph sooner.

mod allocations;
mod stub;

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, LoraLinear, MatMul, Op, Softmax};
use candlewick_cuda::{Buffer, CUBLASLT, Device, FUSED, Input, Kernel, Options, Output, Stream};
use std::process::Command;
use stub::{Kind, Lib, Stub};

/// An operation with tensors of its own.
struct Call {
    kernel: Kernel,
    inputs: Vec<Buffer>,
    outputs: Vec<Buffer>,
}

impl Call {
    fn new(stream: &mut Stream, op: Op, engine: candlewick_core::backend::Engine) -> Self {
        let kernel = stream.prepare(&op, Some(engine)).unwrap();
        let (device, operands) = (stream.device().clone(), op.operands().unwrap());
        let alloc = |operand: &candlewick_core::op::Operand| device.alloc(operand.dtype, operand.span).unwrap();
        let inputs = operands.inputs.iter().map(alloc).collect();
        Call { kernel, inputs, outputs: operands.outputs.iter().map(alloc).collect() }
    }

    fn softmax(stream: &mut Stream) -> Self {
        Call::new(stream, Softmax::new(4, 64, DType::F32).into(), FUSED)
    }

    /// Returns how often memory was allocated for it.
    fn encode(&mut self, stream: &mut Stream) -> usize {
        let inputs: Vec<Input<'_>> = self.inputs.iter().map(Into::into).collect();
        let mut outputs: Vec<Output<'_>> = self.outputs.iter_mut().map(Into::into).collect();
        let before = allocations::count();
        stream.encode(&self.kernel, &inputs, &mut outputs).unwrap();
        allocations::count() - before
    }

    /// What the driver is called for.
    fn calls(&mut self, stream: &mut Stream, stub: &Stub) -> Vec<String> {
        stub.clear();
        self.encode(stream);
        stub.calls()
    }
}

const GRAPH: [&str; 1] = ["cuGraphLaunch"];
const LAUNCH: [&str; 1] = ["cuLaunchKernelEx"];

#[test]
fn the_second_time_makes_a_graph_and_from_then_on_it_is_one_call() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let mut call = Call::softmax(&mut stream);
    assert_eq!(call.calls(&mut stream, &stub), LAUNCH);
    stream.wait().unwrap();
    let made = call.calls(&mut stream, &stub);
    let expected = [
        "cuStreamCreate",
        "cuStreamBeginCapture_v2",
        "cuLaunchKernelEx",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",
        "cuGraphLaunch",
    ];
    assert_eq!(made, expected);
    stream.wait().unwrap();
    for _ in 0..3 {
        assert_eq!(call.encode(&mut stream), 0);
        stream.wait().unwrap();
        assert_eq!(call.calls(&mut stream, &stub), GRAPH);
        stream.wait().unwrap();
    }
    // Other tensors are another graph, and do not take the first one's.
    let mut other = Call::softmax(&mut stream);
    assert_eq!(other.calls(&mut stream, &stub), LAUNCH);
    stream.wait().unwrap();
    assert_eq!(call.calls(&mut stream, &stub), GRAPH);
    drop((call, other, stream, device));
    stub.assert_clean();
}

#[test]
fn a_long_launch_behind_pending_work_stays_one_and_all_else_does_not() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let long = Softmax::new(512, 4096, DType::F32);
    let mut call = Call::new(&mut stream, long.into(), FUSED);
    for _ in 0..4 {
        assert_eq!(call.calls(&mut stream, &stub), LAUNCH);
    }
    let layer = LoraLinear::new(512, 1024, 1024, 8, 1.0, DType::F32);
    let product = Op::from(MatMul::new(1024, 1024, 1024, DType::F32));
    let brief = Op::from(Softmax::new(32, 512, DType::F32));
    for (op, engine) in [(layer.into(), FUSED), (layer.into(), CUBLASLT), (product, CUBLASLT), (brief, FUSED)] {
        let mut call = Call::new(&mut stream, op, engine);
        let first = call.calls(&mut stream, &stub);
        assert!(!first.contains(&"cuGraphLaunch".to_owned()), "{first:?}");
        call.encode(&mut stream);
        assert_eq!(call.calls(&mut stream, &stub), GRAPH, "{op} on {engine}");
        assert_eq!(stub.calls_of(Lib::CublasLt), Vec::<String>::new());
    }
}

#[test]
fn where_the_driver_does_not_record_it_is_launched() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    for function in ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"] {
        let mut call = Call::softmax(&mut stream);
        call.encode(&mut stream);
        stream.wait().unwrap();
        stub.fail(Lib::Cuda, function, 1, 900);
        let calls = call.calls(&mut stream, &stub);
        assert_eq!(calls.last().map(String::as_str), Some("cuLaunchKernelEx"), "{function}: {calls:?}");
        for _ in 0..3 {
            stream.wait().unwrap();
            assert_eq!(call.calls(&mut stream, &stub), LAUNCH, "it does not try again");
        }
    }
    drop((stream, device));
    stub.assert_clean();
}

#[test]
fn recordings_and_streams_of_others_that_record_get_the_launches() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let mut call = Call::softmax(&mut stream);
    for _ in 0..3 {
        call.encode(&mut stream);
        stream.wait().unwrap();
    }
    stub.clear();
    let graph = stream.capture(|stream| {
        call.encode(stream);
        Ok(())
    });
    assert!(graph.is_ok() && stub.calls().contains(&"cuLaunchKernelEx".to_owned()));

    // SAFETY: the stand-in looks at no stream.
    let mut given = unsafe { device.stream_on(std::ptr::null_mut()) }.unwrap();
    let mut call = Call::softmax(&mut given);
    call.encode(&mut given);
    call.encode(&mut given);
    assert_eq!(call.calls(&mut given, &stub).last().map(String::as_str), Some("cuGraphLaunch"));
    // Nobody knows what is pending on a stream of somebody else's: what is long stays a launch.
    let mut long = Call::new(&mut given, Softmax::new(4096, 4096, DType::F32).into(), FUSED);
    for _ in 0..3 {
        assert_eq!(long.calls(&mut given, &stub).last().map(String::as_str), Some("cuLaunchKernelEx"));
        given.wait().unwrap();
    }
    let recorded = stream.capture(|_| {
        assert_eq!(call.calls(&mut given, &stub).last().map(String::as_str), Some("cuLaunchKernelEx"));
        Ok(())
    });
    assert!(recorded.is_ok());
}

#[test]
fn it_can_be_left_out() {
    let Some(stub) = Stub::all() else { return };
    let device = Device::with_options(0, Options { repeats_as_graphs: false, ..stub.options() }).unwrap();
    let mut stream = device.stream().unwrap();
    let mut call = Call::softmax(&mut stream);
    for _ in 0..3 {
        assert_eq!(call.calls(&mut stream, &stub), LAUNCH);
        stream.wait().unwrap();
    }
}

#[test]
fn the_environment_can_leave_it_out() {
    const NAME: &str = "CANDLEWICK_CUDA_REPEATS";
    if std::env::var_os(NAME).is_some() {
        assert!(!Options::default().repeats_as_graphs);
        return;
    }
    assert!(Options::default().repeats_as_graphs);
    // In a process of its own: the environment is everybody's.
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args(["--exact", "the_environment_can_leave_it_out"]).env(NAME, "off").output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

#[test]
fn graphs_are_so_many_at_most_and_make_room_for_others() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = device.stream().unwrap();
    let mut calls: Vec<Call> = (0..1500).map(|_| Call::softmax(&mut stream)).collect();
    let twice = |calls: &mut [Call], stream: &mut Stream| {
        for call in calls {
            for _ in 0..2 {
                call.encode(stream);
                stream.wait().unwrap();
            }
        }
    };
    twice(&mut calls, &mut stream);
    let most = stub.live(Lib::Cuda, Kind::Graphs);
    assert!((200..=256).contains(&most), "{most} graphs");
    // The same few again and again get places of their own in the end.
    for _ in 0..20 {
        twice(&mut calls[1490..], &mut stream);
    }
    let mut graphs = 0;
    for call in &mut calls[1490..] {
        graphs += usize::from(call.calls(&mut stream, &stub) == GRAPH);
        stream.wait().unwrap();
    }
    assert!(graphs >= 9, "{graphs} of 10");
    assert!(stub.live(Lib::Cuda, Kind::Graphs) <= 256);
    drop((calls, stream, device));
    stub.assert_clean();
}
