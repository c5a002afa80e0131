//! Many callers at once: each gets what it would have got alone, and none waits for another for ever.

use candlewick::{DType, Device, Input, LoraLinear, MatMul, Op, Output, RmsNorm, Softmax};
use std::sync::mpsc;
use std::time::Duration;

/// Far more than the work takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Large enough that every thread takes part.
fn ops() -> Vec<Op> {
    let dtype = DType::F32;
    let linear = LoraLinear::new(65, 200, 257, 8, 2.0, dtype);
    let norm = RmsNorm::new(128, 513, 1e-5, dtype);
    vec![
        MatMul::new(129, 257, 100, dtype).into(),
        MatMul::new(33, 65, 64, dtype).batched(12).into(),
        Softmax::new(128, 513, dtype).into(),
        norm.into(),
        Op::RmsNormBackward(norm),
        linear.into(),
        Op::LoraLinearBackward(linear),
        // And one that stays on the calling thread.
        MatMul::new(8, 8, 8, dtype).into(),
    ]
}

/// Runs every operation `times` times on a stream of its own: the bits of all outputs.
fn run(device: &Device, times: usize) -> Vec<Vec<u32>> {
    let mut stream = device.stream().unwrap();
    let mut results = Vec::new();
    for op in ops() {
        let operands = op.operands().unwrap();
        let inputs: Vec<Vec<f32>> = operands
            .inputs
            .iter()
            .map(|operand| (0..operand.span).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect())
            .collect();
        let mut outputs: Vec<Vec<f32>> = operands.outputs.iter().map(|operand| vec![f32::NAN; operand.span]).collect();
        let kernel = stream.prepare(op).unwrap();
        for _ in 0..times {
            let inputs: Vec<Input<'_>> = inputs.iter().map(|input| input.as_slice().into()).collect();
            let mut outputs: Vec<Output<'_>> = outputs.iter_mut().map(|output| output.as_mut_slice().into()).collect();
            stream.encode(&kernel, &inputs, &mut outputs).unwrap();
        }
        stream.wait().unwrap();
        results.extend(outputs.iter().map(|output| output.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()));
    }
    results
}

/// Starts `callers` threads, and fails instead of hanging when they do not come back.
fn at_once<T: Send + 'static>(callers: usize, work: impl Fn(usize) -> T + Clone + Send + 'static) -> Vec<T> {
    let (sender, results) = mpsc::channel();
    for caller in 0..callers {
        let (sender, work) = (sender.clone(), work.clone());
        std::thread::spawn(move || sender.send(work(caller)));
    }
    drop(sender);
    (0..callers).map(|_| results.recv_timeout(PATIENCE).expect("a caller hangs or panicked")).collect()
}

#[test]
fn eight_callers_on_one_device_get_what_one_gets() {
    let device = Device::cpu();
    let alone = run(&device, 1);
    assert!(alone.iter().flatten().all(|&bits| f32::from_bits(bits).is_finite()));
    for result in at_once(8, move |_| run(&device, 20)) {
        assert!(result == alone, "a result changed with other callers around");
    }
}

#[test]
fn two_callers_never_wait_for_each_other_for_ever() {
    // Small jobs in quick succession, so that one caller's start meets the other's end as often as possible.
    let counts = at_once(2, |caller| {
        let device = if caller == 0 { Device::cpu() } else { Device::cpu_with_threads(2) };
        let mut stream = device.stream().unwrap();
        let kernel = stream.prepare(MatMul::new(64, 256, 64, DType::F32)).unwrap();
        let (a, b, mut c) = (vec![1f32; 64 * 64], vec![0.5f32; 64 * 256], vec![0f32; 64 * 256]);
        for _ in 0..5000 {
            stream.encode(&kernel, &[a[..].into(), b[..].into()], &mut [c[..].as_mut().into()]).unwrap();
        }
        c.iter().filter(|&&x| x == 32.0).count()
    });
    assert_eq!(counts, [64 * 256; 2]);
}

#[test]
fn a_device_and_a_stream_move_between_threads() {
    let device = Device::cpu();
    let mut stream = device.stream().unwrap();
    let sum = std::thread::spawn(move || {
        let mut y = [0f32; 4];
        stream.run(Softmax::new(1, 4, DType::F32), &[[1f32; 4][..].into()], &mut [y[..].as_mut().into()]).unwrap();
        drop(device);
        y.iter().sum::<f32>()
    });
    assert_eq!(sum.join().unwrap(), 1.0);
}
