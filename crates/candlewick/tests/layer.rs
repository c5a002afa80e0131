//! The happy path: slices, buffers, parts of buffers, and a LoRA layer packed once for any number of rows.

use candlewick::{DType, Device, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax, lora};
use half::bf16;

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 31 + seed * 17) % 64) as f32 / 32.0 - 1.0).collect()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "[{i}] is {found}, not {expected}");
    }
}

#[test]
fn slices_buffers_and_parts_of_buffers_give_the_same() {
    let device = Device::cpu();
    let mut stream = device.stream().unwrap();
    let op = MatMul::new(5, 7, 6, DType::F32);
    let kernel = stream.prepare(op).unwrap();
    let (a, b, mut from_slices) = (numbers(30, 1), numbers(42, 2), vec![0f32; 35]);
    stream.encode(&kernel, &[a[..].into(), b[..].into()], &mut [from_slices[..].as_mut().into()]).unwrap();
    stream.wait().unwrap();
    let by_hand: f32 = (0..6).map(|p| a[6 + p] * b[p * 7 + 2]).sum();
    assert_close(&from_slices[9..10], &[by_hand]);

    // One buffer with a, then b; another with room before and after c.
    let (mut ab, mut c) = (device.alloc(DType::F32, 72).unwrap(), device.alloc(DType::F32, 40).unwrap());
    stream.write(&mut ab, &[a, b].concat()).unwrap();
    stream.write(&mut c, &[9f32; 40]).unwrap();
    stream.encode(&kernel, &[ab.slice(0..30), ab.slice(30..72)], &mut [c.slice_mut(3..38)]).unwrap();
    let mut read = [0f32; 40];
    stream.read(&c, &mut read).unwrap();
    assert_eq!(read[3..38], from_slices[..]);
    assert_eq!((&read[..3], &read[38..]), (&[9.0; 3][..], &[9.0; 2][..]));
}

#[test]
fn work_of_a_stream_happens_in_order() {
    let mut stream = Device::cpu().stream().unwrap();
    let (x, mut y, mut z) = (numbers(12, 3), vec![0f32; 12], vec![0f32; 12]);
    stream
        .run(RmsNorm::new(3, 4, 1e-5, DType::F32), &[x[..].into(), [1f32; 4][..].into()], &mut [y[..].as_mut().into()])
        .unwrap();
    stream.run(Softmax::new(3, 4, DType::F32), &[y[..].into()], &mut [z[..].as_mut().into()]).unwrap();
    stream.flush().unwrap();
    stream.wait().unwrap();
    for row in z.chunks(4) {
        assert_close(&[row.iter().sum()], &[1.0]);
    }
    let counters = stream.cache_counters();
    assert_eq!((counters.hits, counters.misses), (0, 2));
}

#[test]
fn one_packing_serves_every_number_of_rows() {
    let device = Device::cpu();
    let mut stream = device.stream().unwrap();
    let (i, o, r) = (33, 65, 5);
    let shape = LoraLinear::new(0, i, o, r, 0.5, DType::F32);
    let (w, bias, a, b) = (numbers(o * i, 4), numbers(o, 5), numbers(r * i, 6), numbers(o * r, 7));
    let layer = lora::Layer::new(&device, &mut stream, shape, &w, Some(&bias), &a, &b).unwrap();
    let layer = layer.trainable(&mut stream, &w).unwrap();
    for rows in [0, 1, 2, 7, 64, 129] {
        let (x, dy) = (numbers(rows * i, 8), numbers(rows * o, 9));
        let (mut y, mut expected) = (vec![f32::NAN; rows * o], vec![f32::NAN; rows * o]);
        layer.forward(&mut stream, rows, x[..].into(), y[..].as_mut().into()).unwrap();
        let plain = LoraLinear { rows, ..shape }.with_bias();
        let inputs = [&x, &w, &bias, &a, &b].map(|input| input[..].into());
        stream.run(plain, &inputs, &mut [expected[..].as_mut().into()]).unwrap();
        assert_close(&y, &expected);

        let gradients = || [vec![f32::NAN; rows * i], vec![f32::NAN; r * i], vec![f32::NAN; o * r]];
        let (mut found, mut expected) = (gradients(), gradients());
        let [dx, da, db] = &mut found;
        let outputs = [dx[..].as_mut().into(), da[..].as_mut().into(), db[..].as_mut().into()];
        layer.backward(&mut stream, rows, x[..].into(), dy[..].into(), outputs).unwrap();
        let plain = Op::LoraLinearBackward(LoraLinear { rows, ..shape });
        let inputs = [&x, &w, &a, &b, &dy].map(|input| input[..].into());
        let mut outputs = expected.each_mut().map(|output| output[..].as_mut().into());
        stream.run(plain, &inputs, &mut outputs).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert_close(found, expected);
        }
    }
}

#[test]
fn a_delta_on_a_product_is_the_layer() {
    let mut stream = Device::cpu_with_threads(1).stream().unwrap();
    let (rows, i, o, r) = (9, 20, 17, 4);
    let (x, w, a, b) = (numbers(rows * i, 1), numbers(o * i, 2), numbers(r * i, 3), numbers(o * r, 4));
    let (mut whole, mut parts) = (vec![0f32; rows * o], vec![0f32; rows * o]);
    let layer = LoraLinear::new(rows, i, o, r, 2.0, DType::F32);
    let inputs = [&x, &w, &a, &b].map(|input| input[..].into());
    stream.run(layer, &inputs, &mut [whole[..].as_mut().into()]).unwrap();
    let product = MatMul::new(rows, o, i, DType::F32).trans_b();
    stream.run(product, &[x[..].into(), w[..].into()], &mut [parts[..].as_mut().into()]).unwrap();
    let delta = LoraDelta::new(rows, i, o, r, 2.0, DType::F32).accumulate();
    let inputs = [&x, &a, &b].map(|input| input[..].into());
    stream.run(delta, &inputs, &mut [parts[..].as_mut().into()]).unwrap();
    assert_close(&parts, &whole);
}

#[test]
fn a_mask_hides_later_keys_and_half_numbers_round() {
    let mut stream = Device::cpu().stream().unwrap();
    let x = [1.0f32, 1.0, f32::NAN, 1.0, 1.0, 1.0].map(bf16::from_f32);
    let mut y = [bf16::NAN; 6];
    stream.run(Softmax::new(2, 3, DType::BF16).causal(2), &[x[..].into()], &mut [y[..].as_mut().into()]).unwrap();
    assert_eq!(y.map(bf16::to_f32), [0.5, 0.5, 0.0, 0.333_984_38, 0.333_984_38, 0.333_984_38]);
}
