//! `lora_rows`: rows with adapters of their own.

use crate::engines::{Random, check, download, random, upload};
use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, LoraRows, Op};
use candlewick_cpu::{Buffer, Device, Input, Output};

#[test]
fn rows_with_adapters_of_their_own() {
    let mut rng = Random(14);
    for dtype in DType::ALL {
        for (rows, ins, outs, rank, adapters) in [
            (0, 3, 4, 2, 3),
            (3, 0, 4, 2, 3),
            (3, 4, 0, 2, 3),
            (3, 4, 5, 0, 3),
            (3, 4, 5, 2, 0),
            (1, 1, 1, 1, 1),
            (5, 17, 33, 3, 2),
            (64, 130, 260, 16, 16),
            (37, 64, 129, 64, 4),
            (20, 700, 300, 8, 300),
        ] {
            let op =
                LoraRows { x_row: ins + 3, y_row: outs + 1, ..LoraRows::new(rows, ins, outs, rank, adapters, dtype) };
            // None, all of one adapter, and any.
            for most in [0, 1, adapters + 1] {
                let slots = (0..rows).map(|_| match most {
                    0 => f64::from(u32::MAX),
                    1 => adapters as f64 - 1.0,
                    most => rng.below(most) as f64,
                });
                let slots: Vec<f64> = slots.map(|slot| slot.max(0.0)).collect();
                let mut inputs = random(op, 15);
                inputs[4] = slots;
                let y = rng.units(Op::from(op).operands().unwrap().outputs[0].span);
                check(op, &inputs, &[y]);
            }
        }
    }
}

/// A row's bits do not depend on the rows beside it, on their adapters, or on the number of threads.
#[test]
fn a_row_with_an_adapter_has_the_same_bits_in_any_batch() {
    let (ins, outs, rank, adapters) = (530, 300, 16, 4);
    for dtype in DType::ALL {
        let batch = LoraRows::new(33, ins, outs, rank, adapters, dtype);
        let inputs: Vec<Vec<f64>> = random(batch, 16);
        let run = |device: &Device, rows: std::ops::Range<usize>, slots: &dyn Fn(usize) -> f64| {
            let op = Op::from(LoraRows { rows: rows.len(), ..batch });
            let mut stream = device.stream().unwrap();
            let kernel = stream.prepare(&op, None).unwrap();
            let values = [
                inputs[0][rows.start * ins..rows.end * ins].to_vec(),
                inputs[1].clone(),
                inputs[2].clone(),
                inputs[3].clone(),
                rows.clone().map(slots).collect(),
            ];
            let dtypes = [dtype, dtype, dtype, DType::F32, DType::U32];
            let buffers: Vec<Buffer> =
                values.iter().zip(dtypes).map(|(values, dtype)| upload(device, &mut stream, dtype, values)).collect();
            let mut y = upload(device, &mut stream, dtype, &vec![0.25; rows.len() * outs]);
            let arguments: Vec<Input<'_>> = buffers.iter().map(Input::from).collect();
            stream.encode(&kernel, &arguments, &mut [Output::from(&mut y)]).unwrap();
            download(&mut stream, dtype, &y, rows.len() * outs)
        };
        let mixed = |row: usize| ((row * 7 + 2) % (adapters + 1)) as f64;
        let together = run(&Device::new(), 0..33, &mixed);
        for row in 0..33 {
            let alone = run(&Device::with_threads(1), row..row + 1, &mixed);
            assert_eq!(alone, together[row * outs..(row + 1) * outs], "{dtype} row {row}");
            let slot = mixed(row);
            let crowd = run(&Device::new(), 0..33, &|_| slot);
            assert_eq!(alone, crowd[row * outs..(row + 1) * outs], "{dtype} row {row} among rows of its adapter");
        }
    }
}
