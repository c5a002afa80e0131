//! What NVIDIA's libraries get for an operation on CUDA tensors, on stand-ins for them: `scripts/check-candle-cuda.sh`.
#![cfg(all(feature = "cuda", unix))]

mod numbers;
mod on_cuda;

use candle_core::cuda_backend::cudarc::driver::DevicePtr as _;
use candle_core::{D, DType, Device, Module as _, Result, Storage, Tensor, Var};
use candlewick_candle::{LoraConfig, LoraLinear, lora_delta, lora_linear, matmul, rms_norm, softmax, softmax_causal};
use numbers::{DTYPES, tensor};
use on_cuda::{Kind, StandIn};

/// `CU_STREAM_PER_THREAD`: where Candle's usual device computes.
const PER_THREAD: u64 = 2;

type Call = Box<dyn Fn() -> Result<Tensor>>;

/// Every operation, on tensors of a device.
fn operations(device: &Device, dtype: DType) -> Vec<(&'static str, Call)> {
    let on = |seed, shape: &[usize]| tensor(seed, shape, dtype).to_device(device).unwrap();
    let [x, w, a, b] = [on(1, &[48, 64]), on(2, &[96, 64]), on(3, &[8, 64]), on(4, &[96, 8])];
    let (bias, weight, row) = (on(5, &[96]), on(6, &[64]), on(7, &[1, 64]));
    let config = LoraConfig::new(8, 16.0);
    let layer =
        LoraLinear::from_tensors(&candle_nn::Linear::new(w.clone(), None), config, a.clone(), b.clone()).unwrap();
    let (x1, x2, x3, x4, x5) = (x.clone(), x.clone(), x.clone(), x.clone(), x.clone());
    let (w1, a1, b1) = (w.clone(), a.clone(), b.clone());
    vec![
        ("matmul", Box::new(move || matmul(&x1, &w1.t()?))),
        ("softmax", Box::new(move || softmax(&x2, 0.5))),
        ("softmax_causal", Box::new(move || softmax_causal(&x3, 0.5))),
        ("rms_norm", Box::new(move || rms_norm(&x4, &weight, 1e-5))),
        ("lora_delta", Box::new(move || lora_delta(&x5, &a1, &b1, 2.0))),
        ("lora_linear", Box::new(move || lora_linear(&x, &w, Some(&bias), &a, &b, 2.0))),
        ("LoraLinear of one row", Box::new(move || layer.forward(&row))),
    ]
}

/// What Candle's allocation of an output is, then what is ours.
const ALLOCATION: [&str; 3] = ["cuCtxGetCurrent", "cuMemAllocAsync", "cuEventCreate"];
const OURS: [&str; 6] = [
    "cuCtxSetCurrent",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cuTensorMapEncodeTiled",
    "cublasLtMatmul",
    "cublasLtMatmulDescSetAttribute",
];

fn address(tensor: &Tensor) -> u64 {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { panic!("not on CUDA") };
    let slice = storage.as_cuda_slice::<f32>().unwrap();
    let stream = storage.device.cuda_stream();
    let (address, _read) = slice.device_ptr(&stream);
    address + 4 * layout.start_offset() as u64
}

#[test]
fn an_operation_is_candles_allocation_and_its_launches_on_candles_stream() {
    let Some(stand_in) = StandIn::take() else { return };
    let device = Device::new_cuda(0).unwrap();
    for dtype in DTYPES {
        for (name, call) in operations(&device, dtype) {
            // Its place is taken, or the second time would be a graph of the first.
            let _first = call().unwrap();
            stand_in.clear();
            let y = call().unwrap();
            let calls = stand_in.calls();
            let count = |name: &str| calls.iter().filter(|call| *call == name).count();
            assert_eq!(count("cuMemAllocAsync"), 1, "{name} {dtype:?}: {calls:?}");
            assert_eq!(count("cuCtxSetCurrent"), 1, "{name} {dtype:?}: {calls:?}");
            let first = calls.iter().position(|call| OURS.contains(&call.as_str())).unwrap();
            let (allocation, ours) = calls.split_at(first);
            assert!(allocation.iter().all(|call| ALLOCATION.contains(&call.as_str())), "{name} {dtype:?}: {calls:?}");
            assert!(ours.iter().all(|call| OURS.contains(&call.as_str())), "{name} {dtype:?}: {calls:?}");
            let launches = stand_in.launches();
            assert!((1..=3).contains(&launches.len()), "{name} {dtype:?}: {launches:?}");
            assert!(launches.iter().all(|launch| launch.stream == PER_THREAD), "{name} {dtype:?}: {launches:?}");
            stand_in.clear();
            drop(y);
            assert_eq!(stand_in.calls().iter().filter(|call| *call == "cuMemFreeAsync").count(), 1, "in order");
        }
    }
}

/// A loop over the same tensors, whose outputs Candle's allocator puts in the same place each time.
#[test]
fn what_comes_again_is_one_graph_on_candles_stream() {
    let Some(stand_in) = StandIn::take() else { return };
    let device = Device::new_cuda(0).unwrap();
    for (name, call) in operations(&device, DType::F32) {
        let mut place = None;
        for _ in 0..4 {
            stand_in.clear();
            let y = call().unwrap();
            let (calls, before) = (stand_in.calls(), place.replace(address(&y)));
            let graphs = calls.iter().filter(|call| *call == "cuGraphLaunch").count();
            assert_eq!(
                (graphs, stand_in.launches().is_empty()),
                if before == place { (1, true) } else { (0, false) },
                "{name}"
            );
        }
    }
}

#[test]
fn a_backward_waits_for_nothing_either() {
    let Some(stand_in) = StandIn::take() else { return };
    let device = Device::new_cuda(0).unwrap();
    let on = |seed, shape: &[usize]| Var::from_tensor(&tensor(seed, shape, DType::BF16).to_device(&device).unwrap());
    let [x, a, b, weight] = [on(1, &[32, 64]), on(2, &[8, 64]), on(3, &[64, 8]), on(4, &[64])].map(Result::unwrap);
    let w = tensor(5, &[64, 64], DType::BF16).to_device(&device).unwrap();
    let step = || {
        let y = lora_linear(&x, &w, None, &a, &b, 2.0)?;
        let y = (rms_norm(&y, &weight, 1e-5)? + lora_delta(&y, &a, &b, 2.0)?)?;
        let y = matmul(&softmax(&matmul(&y, &y.t()?)?, 0.1)?, &y)?;
        y.sum_all()?.backward()
    };
    step().unwrap();
    stand_in.clear();
    let gradients = step().unwrap();
    let calls = stand_in.calls();
    for waits in ["cuStreamSynchronize", "cuStreamQuery", "cuEventSynchronize", "cuCtxSynchronize", "cuMemAlloc_v2"] {
        assert!(!calls.iter().any(|call| call == waits), "{waits}");
    }
    assert!(stand_in.launches().iter().all(|launch| launch.stream == PER_THREAD));
    for of in [&x, &a, &b, &weight] {
        assert_eq!(gradients.get(of).unwrap().dims(), of.dims());
    }
    assert!(gradients.get(&w).is_none());
}

#[test]
fn kernels_get_the_addresses_of_candles_tensors() {
    let Some(stand_in) = StandIn::take() else { return };
    let device = Device::new_cuda(0).unwrap();
    let on = |seed, shape: &[usize]| tensor(seed, shape, DType::F32).to_device(&device).unwrap();
    // Rows with gaps, from a place within the memory.
    let (x, weight) = (on(1, &[9, 80]).narrow(0, 1, 8).unwrap().narrow(D::Minus1, 8, 64).unwrap(), on(2, &[64]));
    let _first = rms_norm(&x, &weight, 1e-5).unwrap();
    stand_in.clear();
    stand_in.read_arguments(3);
    let y = rms_norm(&x, &weight, 1e-5).unwrap();
    stand_in.read_arguments(0);
    let launches = stand_in.launches();
    assert_eq!(launches.len(), 1, "a view is not copied");
    assert_eq!(launches[0].arguments[..3], [address(&x), address(&weight), address(&y)]);
}

#[test]
fn on_a_stream_of_its_own_candles_events_are_waited_for_and_recorded() {
    let Some(stand_in) = StandIn::take() else { return };
    let device = Device::new_cuda_with_stream(0).unwrap();
    let stream = device.as_cuda_device().unwrap().cuda_stream().cu_stream() as u64;
    let x = tensor(1, &[8, 64], DType::F32).to_device(&device).unwrap();
    let _first = softmax(&x, 1.0).unwrap();
    stand_in.clear();
    let _y = softmax(&x, 1.0).unwrap();
    let calls = stand_in.calls();
    let at = |name: &str| calls.iter().position(|call| call.starts_with(name)).unwrap();
    assert!(at("cuStreamWaitEvent") < at("cuLaunchKernel") && at("cuLaunchKernel") < at("cuEventRecord"), "{calls:?}");
    assert_eq!(calls.iter().filter(|call| *call == "cuEventRecord").count(), 2, "of x and of y: {calls:?}");
    assert!(stand_in.launches().iter().all(|launch| launch.stream == stream));
}

#[test]
fn failures_are_errors_that_leave_the_device_usable() {
    let Some(stand_in) = StandIn::take() else { return };
    let device = Device::new_cuda(0).unwrap();
    let x = tensor(1, &[8, 64], DType::F32).to_device(&device).unwrap();
    let _first = softmax(&x, 1.0).unwrap();
    let before = stand_in.live(Kind::Allocations);
    stand_in.fail("cuMemAllocAsync", 1, 2);
    let error = softmax(&x, 1.0).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("out of memory"), "{error}");
    stand_in.fail("cuLaunchKernelEx", 1, 1);
    let error = softmax(&x, 1.0).unwrap_err();
    assert!(error.to_string().contains("softmax") && error.to_string().contains("cuda:0"), "{error}");
    softmax(&x, 1.0).unwrap();
    assert_eq!(stand_in.live(Kind::Allocations), before, "the output of a failure is freed");
}

#[test]
fn what_does_not_lie_together_is_refused_by_name() {
    let Some(_stand_in) = StandIn::take() else { return };
    let (device, again) = (Device::new_cuda(0).unwrap(), Device::new_cuda(0).unwrap());
    let x = tensor(1, &[8, 64], DType::F32);
    let (here, there) = (x.to_device(&device).unwrap(), x.to_device(&again).unwrap());
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let error = message(matmul(&here, &there.t().unwrap()));
    assert!(error.contains("a is on CUDA device 0, opened once and b is on CUDA device 0, opened again"), "{error}");
    let error = message(matmul(&here, &x.t().unwrap()));
    assert!(error.contains("a is on CUDA device 0 and b is on the CPU"), "{error}");
    let error = message(softmax(&here.to_dtype(DType::F64).unwrap(), 1.0));
    assert!(error.contains("softmax: x") && error.contains("f64"), "{error}");
    let error = message(rms_norm(&here, &tensor(2, &[64], DType::F16).to_device(&device).unwrap(), 1e-5));
    assert!(error.contains("f32") && error.contains("f16"), "{error}");
    let error = message(rms_norm(&here, &here, 1e-5));
    assert!(error.contains("[8, 64]"), "{error}");
}

#[test]
fn empty_tensors_launch_nothing() {
    let Some(stand_in) = StandIn::take() else { return };
    let device = Device::new_cuda(0).unwrap();
    let empty = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &device).unwrap();
    let weight = empty(&[64]);
    for rows in [0, 1] {
        let (x, w) = (empty(&[rows, 0]), empty(&[0, 8]));
        assert_eq!(matmul(&x, &w).unwrap().dims(), [rows, 8]);
    }
    stand_in.clear();
    assert_eq!(softmax(&empty(&[0, 64]), 1.0).unwrap().dims(), [0, 64]);
    assert_eq!(rms_norm(&empty(&[0, 64]), &weight, 1e-5).unwrap().dims(), [0, 64]);
    assert_eq!(lora_delta(&empty(&[0, 64]), &empty(&[8, 64]), &empty(&[32, 8]), 1.0).unwrap().dims(), [0, 32]);
    assert_eq!(stand_in.launches().len(), 0);
}

#[test]
fn threads_and_devices_come_and_go() {
    let Some(stand_in) = StandIn::take() else { return };
    let run = |device: &Device| softmax(&tensor(1, &[8, 64], DType::F32).to_device(device).unwrap(), 1.0).unwrap();
    let device = Device::new_cuda(0).unwrap();
    run(&device);
    let thread = || {
        let device = device.clone();
        std::thread::spawn(move || drop(run(&device))).join().unwrap();
    };
    thread();
    let (events, streams) = (stand_in.live(Kind::Events), stand_in.live(Kind::Streams));
    for _ in 0..10 {
        thread();
    }
    assert_eq!(stand_in.live(Kind::Events), events, "a thread takes its stream with it");
    for _ in 0..10 {
        run(&Device::new_cuda_with_stream(0).unwrap());
    }
    assert!(stand_in.live(Kind::Streams) <= streams + 2, "streams of devices that are gone are let go");
}
