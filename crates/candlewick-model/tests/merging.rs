//! Adapters merged into weights and taken out again.

use candlewick_core::DType;
use candlewick_model::merge::{UNDO, merge, merge_folder, unmerge_folder, xor};
use candlewick_model::testing::{Random, TinyModel, tiny_config};
use candlewick_model::{Adapter, Family, Format, Lora, Role, Tensor, Tokenizer, Weight, Weights};
use half::{bf16, f16};
use proptest::prelude::*;
use std::fs;

fn weight<'a>(tensor: &'a Tensor) -> Weight<'a> {
    let (rows, cols) = (tensor.shape[0], tensor.shape[1]);
    Weight { rows, cols, format: Format::Float(tensor.dtype), bytes: &tensor.bytes }
}

/// Whether `y` is the number of the format that is nearest to `x`, but for the error of summing `x` in another order.
fn is_nearest(dtype: DType, y: f64, x: f64) -> bool {
    let step = |up: bool| {
        // Numbers of the same sign follow each other as their bits do.
        let away = up == (y > 0.0);
        let next = |bits: u32| if away { bits + 1 } else { bits.saturating_sub(1) };
        match dtype {
            DType::F16 => f16::from_bits(next(f16::from_f64(y).to_bits().into()) as u16).to_f64(),
            DType::BF16 => bf16::from_bits(next(bf16::from_f64(y).to_bits().into()) as u16).to_f64(),
            _ => f64::from(f32::from_bits(next((y as f32).to_bits()))),
        }
    };
    let slack = 1e-12 * (1.0 + x.abs());
    y == 0.0 || [true, false].into_iter().all(|up| (y - x).abs() <= (step(up) - x).abs() + slack)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_merged_weight_is_rounded_once_and_comes_back(
        rows in 1usize..20, cols in 1usize..20, rank in 1usize..5, seed: u64, which in 0usize..3, strength in -2f64..2.0,
    ) {
        let dtype = DType::ALL[which];
        let mut random = Random(seed);
        let mut tensor = |shape: [usize; 2]| {
            let numbers: Vec<f32> = (0..shape[0] * shape[1]).map(|_| random.number()).collect();
            Tensor::from_f32(&shape, dtype, &numbers)
        };
        let w = tensor([rows, cols]);
        let loras = [(), ()].map(|()| Lora { a: tensor([rank, cols]), b: tensor([rows, rank]), scale: 0.37 });
        let merged = merge(weight(&w), &[(&loras[0], strength), (&loras[1], 1.0)]).unwrap();
        let found = Tensor { bytes: merged.clone(), ..w.clone() }.to_f32();
        let plain = w.to_f32();
        for (o, i) in (0..rows).flat_map(|o| (0..cols).map(move |i| (o, i))) {
            let delta: f64 = loras.iter().zip([strength, 1.0]).map(|(lora, strength)| {
                let (a, b) = (lora.a.to_f32(), lora.b.to_f32());
                let sum: f64 = (0..rank).map(|k| f64::from(b[o * rank + k]) * f64::from(a[k * cols + i])).sum();
                strength * lora.scale * sum
            }).sum();
            let exact = f64::from(plain[o * cols + i]) + delta;
            let found = f64::from(found[o * cols + i]);
            prop_assert!(is_nearest(dtype, found, exact), "{} is not the {} nearest to {}", found, dtype, exact);
        }
        let undo = xor(&w.bytes, &merged);
        prop_assert_eq!(xor(&undo, &merged), w.bytes);
    }
}

#[test]
fn rounding_happens_once() {
    // 1 + 2^-8 + 2^-40 lies just above the middle of two bf16 numbers. Rounded to f32 first it would be the middle itself,
    // and go to the even one below.
    let one = Tensor::from_f32(&[1, 1], DType::BF16, &[1.0]);
    let a = Tensor::from_f32(&[2, 1], DType::F32, &[1.0, 1.0]);
    let b = Tensor::from_f32(&[1, 2], DType::F32, &[2f32.powi(-8), 2f32.powi(-40)]);
    let merged = merge(weight(&one), &[(&Lora { a, b, scale: 1.0 }, 1.0)]).unwrap();
    assert_eq!(bf16::from_le_bytes([merged[0], merged[1]]).to_f32(), 1.0 + 2f32.powi(-7));
}

#[test]
fn nan_and_nothing_survive() {
    let w = Tensor::from_f32(&[1, 3], DType::F16, &[f32::NAN, f32::INFINITY, -0.0]);
    let merged = merge(weight(&w), &[]).unwrap();
    let undo = xor(&w.bytes, &merged);
    assert_eq!(xor(&undo, &merged), w.bytes);
    let empty = Tensor::from_f32(&[0, 3], DType::F16, &[]);
    assert!(merge(weight(&empty), &[]).unwrap().is_empty());
}

#[test]
fn folders_are_merged_and_unmerged_bit_for_bit() {
    for (dtype, shards) in [(DType::BF16, 1), (DType::F16, 3)] {
        let place = tempfile::tempdir().unwrap();
        let [base, out, back] = ["base", "merged", "back"].map(|name| place.path().join(name));
        let model = TinyModel::new(tiny_config(Family::Qwen2), Format::Float(dtype), 11);
        model.write_folder(&base, dtype, shards);
        let adapter = Adapter::new("a", None, model.adapter_modules(4, dtype, 3)).unwrap();
        merge_folder(&base, &[(&adapter, 0.5)], &out, true, &|_| ()).unwrap();
        let (before, after) = (Weights::open(&base).unwrap(), Weights::open(&out).unwrap());
        Tokenizer::open(&out).unwrap();
        let mut changed = 0;
        for role in Role::all(before.config()) {
            let (w, merged) = (before.get(role).unwrap(), after.get(role).unwrap());
            let lora = adapter.modules.iter().find(|(module, _)| module.role() == role);
            let expected = lora.map_or(w.bytes.to_vec(), |(_, lora)| merge(w, &[(lora, 0.5)]).unwrap());
            assert_eq!(merged.bytes, expected, "{role:?}");
            changed += usize::from(merged.bytes != w.bytes);
        }
        assert_eq!(changed, adapter.modules.len());
        unmerge_folder(&out, &back, &|_| ()).unwrap();
        let restored = Weights::open(&back).unwrap();
        for role in Role::all(before.config()) {
            assert_eq!(restored.get(role).unwrap().bytes, before.get(role).unwrap().bytes, "{role:?}");
        }
        assert!(!back.join(UNDO).exists());
        let error = merge_folder(&base, &[(&adapter, 1.0)], &out, true, &|_| ()).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
        // A weight that somebody changed after the merge is not "restored" to something else.
        drop((after, restored));
        let shard = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
        let shard = shard.filter(|path| {
            path.to_string_lossy().contains("/model") && path.extension().is_some_and(|kind| kind == "safetensors")
        });
        for path in shard {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
        let again = place.path().join("again");
        let error = unmerge_folder(&out, &again, &|_| ()).unwrap_err().to_string();
        assert!(error.contains("changed after the merge") && !again.exists(), "{error}");
        let left = fs::read_dir(place.path()).unwrap().count();
        assert_eq!(left, 3, "no temporary folder is left");
    }
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let quant = candlewick_core::op::Quant::Q8_0;
    let model = TinyModel::new(tiny_config(Family::Llama), Format::Quant(quant), 11);
    let adapter = Adapter::new("a", None, model.adapter_modules(4, DType::F32, 3)).unwrap();
    let path = place.path().join("m.gguf");
    fs::write(&path, model.gguf()).unwrap();
    let error =
        merge_folder(&path, &[(&adapter, 1.0)], &place.path().join("o"), true, &|_| ()).unwrap_err().to_string();
    assert!(error.contains("GGUF"), "{error}");
    let weights = Weights::open(&path).unwrap();
    let (module, lora) = adapter.modules.first_key_value().unwrap();
    let error = merge(weights.get(module.role()).unwrap(), &[(lora, 1.0)]).unwrap_err().to_string();
    assert!(error.contains("q8_0"), "{error}");
    let small = Tensor::from_f32(&[1, 1], DType::F32, &[1.0]);
    assert!(merge(weight(&small), &[(lora, 1.0)]).unwrap_err().to_string().contains("another model"));
}
