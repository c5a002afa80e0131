//! Metal Performance Shaders on Candle's tensors.

use candle_adapter_on_the_emulator::numbers::{DTYPES, assert_close, numbers, tensor, with_gaps};
use candle_adapter_on_the_emulator::{bound, metal, shuffled, to_metal};
use candle_core::{DType, Device, Result, Tensor};
use candle_on_the_emulator::assert_nothing_new;
use candlewick_candle::metal::{Engine, MPS, MPS_NDARRAY, MSL, SIMDGROUP, region};
use candlewick_candle::{lora_delta, lora_linear, matmul, rms_norm, softmax, softmax_causal};
use metal_emulator::{Settings, watch};

const ENGINES: [Option<Engine>; 5] = [None, Some(MSL), Some(SIMDGROUP), Some(MPS), Some(MPS_NDARRAY)];

fn host(tensor: &Tensor) -> Tensor {
    tensor.to_device(&Device::Cpu).unwrap()
}

/// Whether the engine runs it, or the result that it made.
fn made<const M: usize>(result: Result<[Tensor; M]>, engine: Option<Engine>) -> Option<[Tensor; M]> {
    match result {
        Ok(tensors) => Some(tensors),
        Err(error) if engine.is_some() && error.to_string().contains("no engine") => None,
        Err(error) => panic!("{engine:?}: {error}"),
    }
}

#[test]
fn every_operation_on_every_engine() {
    shuffled(0..3, || {
        for dtype in DTYPES {
            let of = |seed, shape: &[usize]| tensor(seed, shape, dtype);
            let (x, w, a, b) = (with_gaps(&of(1, &[21, 40])), of(2, &[24, 40]), of(3, &[5, 40]), of(4, &[24, 5]));
            let (weight, bias, batch) = (of(5, &[40]), of(6, &[24]), of(7, &[2, 9, 9]));
            let expected = [
                ("matmul", matmul(&x, &w.t().unwrap()).unwrap()),
                ("softmax", softmax(&x, 0.5).unwrap()),
                ("softmax_causal", softmax_causal(&batch, 0.5).unwrap()),
                ("rms_norm", rms_norm(&x, &weight, 1e-5).unwrap()),
                ("lora_linear", lora_linear(&x, &w, Some(&bias), &a, &b, 0.5).unwrap()),
                ("lora_delta", lora_delta(&x, &a, &b, 0.5).unwrap()),
                ("batched", matmul(&batch, &batch).unwrap()),
            ];
            let [x, w, a, b, weight, bias, batch] = [x, w, a, b, weight, bias, batch].map(|tensor| to_metal(&tensor));
            for engine in ENGINES {
                let mut ran = 0;
                for (name, expected) in &expected {
                    let result = region(
                        [&x, &w, &a, &b, &weight, &bias, &batch],
                        |region, [x, w, a, b, weight, bias, batch]| {
                            region.force(engine);
                            Ok([match *name {
                                "matmul" => region.matmul(&x, &w.t()?)?,
                                "softmax" => region.softmax(&x, 0.5)?,
                                "softmax_causal" => region.softmax_causal(&batch, 0.5)?,
                                "rms_norm" => region.rms_norm(&x, &weight, 1e-5)?,
                                "lora_linear" => region.lora_linear(&x, &w, Some(&bias), &a, &b, 0.5)?,
                                "lora_delta" => region.lora_delta(&x, &a, &b, 0.5)?,
                                _ => region.matmul(&batch, &batch)?,
                            }])
                        },
                    );
                    let Some([found]) = made(result, engine) else { continue };
                    ran += 1;
                    assert_eq!(found.dims(), expected.dims());
                    let what = format!("{name} {dtype:?} on {engine:?}");
                    assert_close(&host(&found), &numbers(expected), bound(dtype), &what);
                }
                let least = match (engine, dtype) {
                    (None | Some(MSL), _) => 7,
                    (Some(MPS | MPS_NDARRAY), DType::BF16) => 0,
                    _ => 1,
                };
                assert!(ran >= least, "{engine:?} ran {ran} operations in {dtype:?}");
            }
        }
    });
}

/// Candle's work before and after, unwaited for; intermediate results are dropped inside.
#[test]
fn between_candles_operations() {
    let on = |device: &Device| -> Result<[Tensor; 2]> {
        let x = (tensor(1, &[24, 24], DType::F32).to_device(device)? * 0.5)?;
        let w = tensor(2, &[24, 24], DType::F32).to_device(device)?.exp()?;
        let [y, z] = if device.is_metal() {
            region([&x, &w], |region, [x, w]| {
                let mut y = x;
                for i in 0..9 {
                    region.force(Some([MPS, SIMDGROUP, MPS_NDARRAY][i % 3]));
                    let product = region.matmul(&y, &w.t()?)?;
                    region.force(None);
                    y = region.softmax(&product, 0.1)?;
                }
                let z = region.matmul(&y, &y.t()?)?.reshape(&[4, 6, 24])?;
                Ok([y, z])
            })?
        } else {
            let mut y = x;
            for _ in 0..9 {
                y = softmax(&matmul(&y, &w.t()?)?, 0.1)?;
            }
            let z = matmul(&y, &y.t()?)?.reshape((4, 6, 24))?;
            [y, z]
        };
        // Candle's pool gets everything back, and reuses it.
        Ok([(y.affine(2.0, 1.0)? + &w)?.tanh()?, z.sum(0)?])
    };
    let expected = on(&Device::Cpu).unwrap();
    shuffled(0..5, || {
        for _ in 0..3 {
            for (found, expected) in on(&metal()).unwrap().iter().zip(&expected) {
                assert_close(&host(found), &numbers(expected), 1e-4, "after a region");
            }
        }
    });
}

/// One wait in and one out, whatever is between; no copy.
#[test]
fn waits_are_two() {
    let watch = watch(Settings::default());
    let (x, w) = (to_metal(&tensor(1, &[32, 32], DType::F32)), to_metal(&tensor(2, &[32, 32], DType::F32)));
    for engine in [MPS, MPS_NDARRAY, SIMDGROUP, MSL] {
        for operations in [1, 10, 200] {
            let run = || {
                region([&x, &w], |region, [x, w]| {
                    region.force(Some(engine));
                    let mut y = x;
                    for _ in 0..operations {
                        y = region.matmul(&y, &w)?;
                    }
                    Ok([y])
                })
                .unwrap()
            };
            drop(run());
            // Candle's work is pending on the way in.
            drop((&x + &w).unwrap());
            let (counts, [y]) = metal_emulator::region(run);
            println!("{engine}, {operations} operations: {} waits, {} commits", counts.gpu.waits, counts.gpu.commits);
            // On the way out it is a look at the event where the GPU is done by then.
            assert!((1..=2).contains(&counts.gpu.waits), "{engine}, {operations}: {counts}");
            assert_eq!((counts.gpu.blits, counts.gpu.buffers), (0, 0), "{engine}, {operations}: {counts}");
            drop(y);
        }
    }
    assert_nothing_new(&watch);
}

/// Memory of regions comes back, whether results are kept, dropped, or an error ended the region.
#[test]
fn memory_stays_flat() {
    let watch = watch(Settings::default());
    let device = Device::new_metal(0).unwrap();
    let of = |seed| tensor(seed, &[64, 64], DType::F32).to_device(&device).unwrap();
    let (x, w) = (of(1), of(2));
    let round = |fails: bool| {
        let result = region([&x, &w], |region, [x, w]| {
            let mut y = x;
            for engine in [MPS, SIMDGROUP, MPS_NDARRAY, MPS] {
                region.force(Some(engine));
                y = region.matmul(&y, &w)?;
            }
            if fails { candle_core::bail!("on purpose") } else { Ok([y]) }
        });
        assert_eq!(result.is_err(), fails);
        let kept = result.ok().map(|[y]| (y + 1.0).unwrap());
        device.synchronize().unwrap();
        drop(kept);
        device.synchronize().unwrap();
    };
    let state = || {
        let objects: u64 = metal_emulator::alive().iter().map(|(_, count)| count).sum();
        (objects, metal_emulator::allocated_bytes())
    };
    (0..5).for_each(|_| round(false));
    let before = state();
    (0..40).for_each(|i| round(i % 4 == 3));
    round(false);
    let after = state();
    println!("objects and bytes: {before:?} -> {after:?}");
    assert!(after.0 <= before.0 + 4 && after.1 <= before.1, "{before:?} -> {after:?}");
    assert_nothing_new(&watch);
}
