//! Plans: results against the same operations one by one, memory, sharing, errors.

use candlewick::op::Quant;
use candlewick::plan::Session;
use candlewick::reference::decode_block;
use candlewick::{DType, Device, Error, LoraLinear, Plan, Softmax};

const F32: DType = DType::F32;

fn device() -> Device {
    Device::cpu()
}

/// Where the tests run: the emulator's tests include this file, and have another `device`.
#[allow(unused_qualifications, reason = "it is unnecessary where this file is the root")]
fn here() -> Device {
    crate::device()
}

fn numbers(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| (i * step % 1009) as f32 / 504.5 - 1.0).collect()
}

/// A chain of LoRA layers as one plan, and layer by layer.
#[test]
fn a_chain_is_the_same_as_its_operations_one_by_one() {
    let (rows, width, rank, layers) = (5, 48, 4, 7);
    let device = here();
    let weights: Vec<[Vec<f32>; 3]> = (0..layers)
        .map(|i| [numbers(width * width, 7 + i), numbers(rank * width, 11 + i), numbers(width * rank, 13 + i)])
        .map(|[w, a, b]| [w.iter().map(|w| w * 0.2).collect(), a, b])
        .collect();
    let (mut plan, (x, y, handles)) = Plan::record(&device, |p| {
        let x = p.input("x", rows, width, F32);
        let (mut y, mut handles) = (x, Vec::new());
        for _ in 0..layers {
            let (w, a, b) = (
                p.constant("w", width, width, F32),
                p.constant("a", rank, width, F32),
                p.constant("b", width, rank, F32),
            );
            y = p.lora_linear(y, w, None, a, b, 0.5)?;
            handles.push([w, a, b]);
        }
        Ok((x, p.output(y)?, handles))
    })
    .unwrap();
    for (handles, weights) in handles.iter().zip(&weights) {
        handles.iter().zip(weights).for_each(|(&handle, numbers)| plan.load(handle, numbers).unwrap());
    }
    let input = numbers(rows * width, 3);
    plan.write(x, &input).unwrap();
    let mut found = vec![0f32; rows * width];
    plan.run().unwrap();
    plan.read(y, &mut found).unwrap();

    let mut stream = device.stream().unwrap();
    let op = LoraLinear::new(rows, width, width, rank, 0.5, F32).packed();
    let kernel = stream.prepare(op).unwrap();
    let mut x = device.alloc(F32, rows * width).unwrap();
    stream.write(&mut x, &input).unwrap();
    for weights in &weights {
        let [w, a, b] = weights.each_ref().map(|numbers| {
            let mut buffer = device.alloc(F32, numbers.len()).unwrap();
            stream.write(&mut buffer, numbers).unwrap();
            buffer
        });
        let packed = stream.pack(&kernel, (&w).into()).unwrap();
        let mut y = device.alloc(F32, rows * width).unwrap();
        let inputs = [(&x).into(), (&packed).into(), (&a).into(), (&b).into()];
        stream.encode(&kernel, &inputs, &mut [(&mut y).into()]).unwrap();
        x = y;
    }
    let mut expected = vec![0f32; rows * width];
    stream.read(&x, &mut expected).unwrap();
    assert_eq!(found, expected, "the same kernels give the same bits");

    // Two runs later, still.
    plan.submit().unwrap().wait().unwrap();
    plan.run().unwrap();
    plan.read(y, &mut found).unwrap();
    assert_eq!(found, expected);

    // Two temporaries take turns: neighbours never share.
    let bytes = (rows * width * 4usize).next_multiple_of(256);
    assert!(plan.arena_bytes() <= 5 * bytes, "{}", plan.describe());
    assert_eq!(plan.operations(), layers);
}

#[test]
fn what_a_plan_prints_and_draws() {
    let (plan, _) = Plan::record(&here(), |p| {
        let x = p.input("x", 4, 8, F32);
        let w = p.constant("weight", 1, 8, F32);
        let normed = p.rms_norm(x, w, 1e-5)?;
        let y = p.softmax(normed, 2.0)?;
        p.output(y)
    })
    .unwrap();
    let text = plan.describe();
    for expected in ["rms_norm 4x8 f32", "softmax 4x8 f32", "x, weight", "2 operations"] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(plan.dot().contains("n0 -> n1"), "{}", plan.dot());
    let svg = plan.svg();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("softmax 4x8 f32"), "{svg}");
}

/// What is kept for reading is not overwritten, by the last operation as little as by others.
#[test]
fn an_output_is_not_overwritten_in_place() {
    let (mut plan, (x, first, last)) = Plan::record(&Device::cpu(), |p| {
        let x = p.input("x", 2, 8, F32);
        let first = p.softmax(x, 1.0)?;
        let last = p.softmax(first, 40.0)?;
        Ok((x, p.output(first)?, p.output(last)?))
    })
    .unwrap();
    plan.write(x, &numbers(16, 5)).unwrap();
    plan.run().unwrap();
    let (mut of_first, mut of_last) = ([0f32; 16], [0f32; 16]);
    plan.read(first, &mut of_first).unwrap();
    plan.read(last, &mut of_last).unwrap();
    assert_ne!(of_first, of_last);
}

#[test]
fn errors_name_the_line_of_the_closure() {
    let line = line!() + 4;
    let error = Plan::record(&here(), |p| {
        let a = p.input("a", 2, 3, F32);
        let b = p.input("b", 4, 5, F32);
        p.matmul(a, b)
    });
    let message = error.err().unwrap().to_string();
    assert!(message.contains(&format!("plan.rs:{line}:")), "{message}");
    assert!(message.contains("matmul") && message.contains("[2, 3]") && message.contains("[4, 5]"), "{message}");

    let wrong_dtype = Plan::record(&here(), |p| {
        let a = p.input("a", 2, 3, F32);
        let b = p.input("b", 3, 5, DType::BF16);
        p.matmul(a, b)
    });
    assert!(wrong_dtype.err().unwrap().to_string().contains("bf16"));
}

#[test]
fn misuse_is_refused() {
    let (mut plan, (x, w, y)) = Plan::record(&here(), |p| {
        let x = p.input("x", 2, 3, F32);
        let w = p.constant("w", 3, 2, F32);
        let y = p.matmul(x, w)?;
        Ok((x, w, p.output(y)?))
    })
    .unwrap();
    let run = plan.run().unwrap_err().to_string();
    assert!(run.contains("w [3, 2]") && run.contains("Plan::load"), "{run}");
    assert!(plan.load(x, &[0f32; 6]).unwrap_err().to_string().contains("no constant"));
    assert!(plan.write(w, &[0f32; 6]).unwrap_err().to_string().contains("no input"));
    assert!(matches!(plan.write(x, &[0f32; 5]), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(plan.read(y, &mut [half::f16::ONE; 4]), Err(Error::DType { .. })));
    let (_, other) = Plan::record(&here(), |p| Ok(p.input("x", 1, 1, F32))).unwrap();
    assert!(matches!(plan.write(other, &[0f32]), Err(Error::WrongOwner { .. })));
    let (session, elsewhere) = (Session::new(&here()).unwrap(), Session::new(&here()).unwrap());
    let shared = elsewhere.constant("w", 1, 1, F32);
    assert!(session.record(|p| p.shared(&shared)).is_err());
}

/// A state that one plan writes is what the other reads, and both read one packed weight.
#[test]
fn plans_of_a_session_share_weights_and_states() {
    let session = Session::new(&here()).unwrap();
    let (w, state) = (session.constant("w", 8, 8, F32), session.state("state", 3, 8, F32).unwrap());
    let (mut first, (x, weight)) = session
        .record(|p| {
            let (x, weight, state) = (p.input("x", 3, 8, F32), p.shared(&w)?, p.shared(&state)?);
            let y = p.linear(x, weight, None)?;
            p.op_into(Softmax::new(3, 8, F32), &[y], &[state])?;
            Ok((x, weight))
        })
        .unwrap();
    first.load(weight, &numbers(64, 5)).unwrap();
    let (mut second, y) = session
        .record(|p| {
            let (weight, state) = (p.shared(&w)?, p.shared(&state)?);
            let y = p.linear(state, weight, None)?;
            p.output(y)
        })
        .unwrap();
    first.write(x, &numbers(24, 3)).unwrap();
    first.submit().unwrap().wait().unwrap();
    second.run().unwrap();
    let (mut held, mut found) = (vec![0f32; 24], vec![0f32; 24]);
    session.read(&state, &mut held).unwrap();
    second.read(y, &mut found).unwrap();
    assert!(held.chunks(8).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
    let w = numbers(64, 5);
    for (row, y) in held.chunks(8).zip(found.chunks(8)) {
        for (j, y) in y.iter().enumerate() {
            let expected: f32 = (0..8).map(|k| row[k] * w[j * 8 + k]).sum();
            assert!((expected - y).abs() < 1e-5);
        }
    }
}

/// Rows with adapters of their own on top of a shared layer: each row as if its adapter were the layer's.
#[test]
fn rows_of_a_plan_have_adapters_of_their_own() {
    let (rows, width, rank, adapters) = (6, 24, 3, 2);
    let device = here();
    let (mut plan, (x, w, factors, slots, y)) = Plan::record(&device, |p| {
        let (x, w) = (p.input("x", rows, width, F32), p.constant("w", width, width, F32));
        let (a, b) = (p.input("a", adapters * rank, width, F32), p.input("b", adapters * width, rank, F32));
        let (scales, slots) = (p.input("scales", 1, adapters, F32), p.input("slots", 1, rows, DType::U32));
        // y is a temporary, and so is what it was before.
        let normed = p.softmax(x, 1.0)?;
        let y = p.linear(normed, w, None)?;
        p.lora_rows(normed, [a, b, scales], slots, y)?;
        let z = p.add(y, y)?;
        Ok((x, w, [a, b, scales], slots, p.output(z)?))
    })
    .unwrap();
    let of = [numbers(adapters * rank * width, 7), numbers(adapters * width * rank, 11), vec![0.5, -2.0]];
    plan.load(w, &numbers(width * width, 5)).unwrap();
    plan.write(x, &numbers(rows * width, 3)).unwrap();
    factors.iter().zip(&of).for_each(|(&handle, numbers)| plan.write(handle, numbers).unwrap());
    let run = |plan: &mut Plan, named: [u32; 6]| {
        plan.write(slots, &named).unwrap();
        plan.run().unwrap();
        let mut found = vec![0f32; rows * width];
        plan.read(y, &mut found).unwrap();
        found
    };
    let none = run(&mut plan, [u32::MAX; 6]);
    let (first, second) = (run(&mut plan, [0; 6]), run(&mut plan, [1; 6]));
    assert!(none.iter().zip(&first).zip(&second).all(|((none, first), second)| none != first && first != second));
    let mixed = run(&mut plan, [1, 0, 2, 0, 1, u32::MAX]);
    for (row, expected) in [&second, &first, &none, &first, &second, &none].into_iter().enumerate() {
        let at = row * width..(row + 1) * width;
        assert_eq!(mixed[at.clone()], expected[at], "row {row}");
    }

    let wrong = Plan::record(&device, |p| {
        let (x, y) = (p.input("x", 2, 8, F32), p.input("y", 2, 8, F32));
        let (a, b) = (p.input("a", 4, 8, F32), p.input("b", 16, 2, F32));
        let (scales, slots) = (p.input("scales", 1, 2, F32), p.input("slots", 1, 2, DType::U32));
        p.lora_rows(x, [a, b, scales], slots, y)
    });
    assert!(wrong.err().unwrap().to_string().contains("use a state"), "y is an input");
    let wrong = Plan::record(&device, |p| {
        let x = p.input("x", 2, 8, F32);
        let (a, b) = (p.input("a", 4, 8, F32), p.input("b", 16, 2, F32));
        let (scales, slots) = (p.input("scales", 1, 3, F32), p.input("slots", 1, 2, DType::U32));
        let y = p.softmax(x, 1.0)?;
        p.lora_rows(x, [a, b, scales], slots, y)
    });
    let message = wrong.err().unwrap().to_string();
    assert!(message.contains("lora_rows: a [4, 8] and b [16, 2]"), "{message}");
}

/// Products with packed blocks, rounded or not, and rows of the same table: one set of weights, two plans.
#[test]
fn quantised_weights_and_a_table_that_is_also_a_head() {
    let (vocab, width, tokens) = (70, 64, 3);
    let format = Quant::Q8_0;
    let bytes: Vec<u8> = (0..vocab * format.row_bytes(width))
        .map(|at| match at % format.bytes() {
            0 => 0,
            // 2^-7 to 2^-4 in f16.
            1 => 0x20 + (at / 7 % 4 * 4) as u8,
            _ => (at * 89 % 251) as u8,
        })
        .collect();
    let mut numbers = vec![0f32; vocab * width];
    for (block, numbers) in bytes.chunks(format.bytes()).zip(numbers.chunks_mut(format.block())) {
        decode_block(format, block, numbers);
    }
    for device in [Device::cpu(), Device::cpu_with_threads(1)] {
        let session = Session::new(&device).unwrap();
        let shared = session.constant("table", vocab, format.row_bytes(width), DType::U8);
        let mut logits = Vec::new();
        for int8 in [false, true] {
            let (mut plan, (ids, table, x, y)) = session
                .record(|p| {
                    p.int8_activations(int8);
                    let ids = p.input("ids", 1, tokens, DType::U32);
                    let table = p.shared_quantised(&shared, format)?;
                    let x = p.quant_embedding(ids, table, DType::F32)?;
                    let y = p.linear(x, table, None)?;
                    Ok((ids, table, p.output(x)?, p.output(y)?))
                })
                .unwrap();
            plan.load(table, &bytes).unwrap();
            plan.write(ids, &[5u32, 69, 70]).unwrap();
            plan.run().unwrap();
            let (mut rows, mut found) = (vec![0f32; tokens * width], vec![0f32; tokens * vocab]);
            plan.read(x, &mut rows).unwrap();
            plan.read(y, &mut found).unwrap();
            assert_eq!(rows[..width], numbers[5 * width..6 * width]);
            assert_eq!(rows[width..2 * width], numbers[69 * width..]);
            assert!(rows[2 * width..].iter().chain(&found[2 * vocab..]).all(|x| x.is_nan()), "id 70 names no row");
            logits.push(found);
        }
        let largest = logits[0][..2 * vocab].iter().fold(0f32, |largest, y| largest.max(y.abs()));
        let pairs = || logits[0][..2 * vocab].iter().zip(&logits[1]);
        let error = pairs().map(|(exact, rounded)| (exact - rounded).abs()).fold(0f32, f32::max) / largest;
        assert!(error > 0.0 && error < 0.02, "rounded x moves logits a little: {error}");
    }
}
