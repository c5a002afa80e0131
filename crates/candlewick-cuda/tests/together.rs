//! On a real GPU: steps of a tape that become fewer launches give what they give one by one. Where there is none every test
//! says so.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::tape::{Place, Step};
use candlewick_core::{
    Add, Attention, CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats, DType, LoraLinear, MatMul, Op, Rope, SiluMul,
};
use candlewick_cuda::{Device, Options};
use half::bf16;
use std::sync::{Mutex, PoisonError};

/// What tensors hold, one behind the other in one memory.
enum Tensor {
    /// So many numbers around zero.
    Numbers(usize),
    /// So many f32.
    Floats(usize),
    Whole(Vec<u32>),
    Frequencies(Vec<f32>),
    /// Of another, from an element on, so many.
    Part(usize, usize, usize),
}
use Tensor::{Floats, Frequencies, Numbers, Part, Whole};

impl Tensor {
    fn place(&self, offset: usize) -> Place {
        let (dtype, elements) = match self {
            Numbers(count) => (DType::BF16, *count),
            Floats(count) => (DType::F32, *count),
            Whole(numbers) => (DType::U32, numbers.len()),
            Frequencies(numbers) => (DType::F32, numbers.len()),
            Part(_, _, count) => (DType::BF16, *count),
        };
        Place { memory: 0, offset, elements, dtype, packing: None }
    }
}

/// An operation, its inputs, its outputs; whether nobody reads the outputs behind the last step.
type Listed<'a> = (Op, &'a [usize], &'a [usize], bool);

/// The numbers of some tensors after the steps, and how many nodes they were.
fn run(
    device: &Device,
    tensors: &[Tensor],
    steps: &[Listed<'_>],
    results: &[usize],
    apart: bool,
) -> (Vec<Vec<f64>>, usize) {
    let mut stream = device.stream().unwrap();
    let mut end = 0;
    let mut places = Vec::<Place>::new();
    for tensor in tensors {
        let place = match *tensor {
            Part(of, first, _) => tensor.place(places[of].offset + 2 * first),
            _ => tensor.place(end),
        };
        end = end.max(place.bytes().end.next_multiple_of(256));
        places.push(place);
    }
    let memory = stream.memory(end).unwrap();
    for (i, (tensor, place)) in tensors.iter().zip(&places).enumerate() {
        let number = |n: usize| ((n * 2 + i * 77 + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let numbers = |n| number(n) as f32 / (1u64 << 23) as f32 - 1.0;
        match tensor {
            Numbers(count) => {
                let numbers: Vec<bf16> = (0..*count).map(|n| bf16::from_f32(numbers(n))).collect();
                stream.store(&memory, place.offset, &numbers).unwrap();
            }
            Floats(count) => stream.store(&memory, place.offset, &vec![0f32; *count]).unwrap(),
            Whole(numbers) => stream.store(&memory, place.offset, numbers).unwrap(),
            Frequencies(numbers) => stream.store(&memory, place.offset, numbers).unwrap(),
            Part(..) => {}
        }
    }
    let listed = steps.iter().map(|(op, inputs, outputs, passes)| {
        // The library's product, where it has one: which engine is chosen is not what these tests are about.
        let engines = device.engines(op);
        let library = engines.into_iter().find(|engine| engine.to_string().contains("cublaslt"));
        let kernel = stream.prepare(op, library).unwrap();
        let places = |list: &[usize]| list.iter().map(|&i| places[i]).collect::<Vec<_>>();
        let until = if *passes { steps.len() } else { usize::MAX };
        Step { until: vec![until; outputs.len()], ..Step::new(kernel, places(inputs), places(outputs)) }
    });
    let mut listed: Vec<_> = listed.collect();
    let tapes = if apart { listed.drain(..).map(|step| vec![step]).collect() } else { vec![listed] };
    let mut nodes = 0;
    for steps in tapes {
        let mut tape = stream.record(std::slice::from_ref(&memory), steps).unwrap();
        stream.replay(&mut tape).unwrap();
        nodes += tape.nodes();
    }
    let results = results.iter().map(|&i| {
        let Place { offset, elements, dtype, .. } = places[i];
        if dtype == DType::F32 {
            let mut numbers = vec![0f32; elements];
            stream.load(&memory, offset, &mut numbers).unwrap();
            return numbers.into_iter().map(f64::from).collect();
        }
        let mut numbers = vec![bf16::ZERO; elements];
        stream.load(&memory, offset, &mut numbers).unwrap();
        numbers.into_iter().map(f64::from).collect()
    });
    (results.collect(), nodes)
}

/// One test at a time: while one captures, nobody else is to load kernels.
static ALONE: Mutex<()> = Mutex::new(());

/// Compares the steps one by one and together; `nodes`: so many less.
fn check(tensors: &[Tensor], steps: &[Listed<'_>], results: &[usize], nodes: usize, exact: &[usize], what: &str) {
    let device = match Device::with_options(0, Options::default()) {
        Ok(device) => device,
        Err(error) => return println!("not run: no NVIDIA GPU ({error})"),
    };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ((apart, more), (together, fewer)) =
        (run(&device, tensors, steps, results, true), run(&device, tensors, steps, results, false));
    assert!(fewer + nodes <= more, "{what}: {fewer} nodes, {more} apart");
    for (i, (apart, together)) in results.iter().zip(apart.iter().zip(&together)) {
        let largest = apart.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let off = apart.iter().zip(together).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
        // What lies between the steps is not rounded; sums in f32 are made in another order.
        let rounding = if matches!(tensors[*i], Floats(_)) { 1e-6 } else { 0.02 };
        let bound = if exact.contains(i) { 0.0 } else { rounding * largest };
        assert!(off <= bound && largest > 0.0, "{what}, tensor {i}: {off} of {largest}");
    }
}

#[test]
fn backwards_of_layers_that_read_one_x() {
    for (rows, ins, outs, rank) in [(200, 136, [72, 264], 8), (1024, 576, [192, 576], 16), (2500, 64, [8, 640], 8)] {
        let layers = outs.map(|outs| LoraLinear::new(rows, ins, outs, rank, 0.5, DType::BF16));
        let product = MatMul::new(rows, ins, 40, DType::BF16).scaled(1.0, 1.0);
        // x; of each layer W, A, B, dy; k's product; q's own dx; the sum; da and db of each.
        let mut sizes = vec![rows * ins];
        sizes.extend(outs.iter().flat_map(|outs| [outs * ins, rank * ins, outs * rank, rows * outs]));
        sizes.extend([rows * 40, 40 * ins, rows * ins, rows * ins]);
        sizes.extend(outs.iter().flat_map(|outs| [rank * ins, outs * rank]));
        let tensors: Vec<Tensor> = sizes.into_iter().map(Numbers).collect();
        let steps: [Listed<'_>; 4] = [
            (Op::LoraLinearBackward(layers[0]), &[0, 1, 2, 3, 4], &[12, 13, 14], true),
            (product.into(), &[9, 10], &[12], true),
            (Op::LoraLinearBackward(layers[1]), &[0, 5, 6, 7, 8], &[11, 15, 16], true),
            (Add::new(rows, ins, DType::BF16).into(), &[12, 11], &[12], false),
        ];
        // da and db come out of the same sums.
        check(&tensors, &steps, &[12, 13, 14, 15, 16], 3, &[13, 14, 15, 16], &format!("{rows}x{ins} r{rank}"));
    }
}

#[test]
fn backwards_of_layers_whose_forward_left_h() {
    for (rows, ins, outs, rank) in [(1024, 576, 576, 8), (200, 136, 72, 16), (2500, 64, 640, 8), (130, 512, 128, 32)] {
        let (q, v) = (
            LoraLinear::new(rows, ins, outs, rank, 0.5, DType::BF16),
            LoraLinear::new(rows, ins, 64, rank, 0.5, DType::BF16),
        );
        let k = LoraLinear::new(rows, ins, 64, 0, 0.5, DType::BF16);
        let product = MatMul::new(rows, ins, 64, DType::BF16).scaled(1.0, 1.0);
        // x; W, A, B of each layer; q, k, v; their gradients; q's own dx; the sum; da and db of v and of q.
        let mut sizes = vec![rows * ins];
        let layers = [q, k, v];
        sizes.extend(layers.iter().flat_map(|op| [op.out_features * ins, op.rank * ins, op.out_features * op.rank]));
        sizes.extend([0, 1].iter().flat_map(|_| layers.iter().map(|op| rows * op.out_features)));
        sizes.extend([rows * ins, rows * ins, rank * ins, 64 * rank, rank * ins, outs * rank]);
        let tensors: Vec<Tensor> = sizes.into_iter().map(Numbers).collect();
        let forward: [Listed<'_>; 3] = [
            (q.into(), &[0, 1, 2, 3], &[10], false),
            (k.into(), &[0, 4, 5, 6], &[11], false),
            (v.into(), &[0, 7, 8, 9], &[12], false),
        ];
        // What x or A is, is not what h was made of.
        let x_changes: Listed<'_> = (Add::new(rows, ins, DType::BF16).into(), &[0, 16], &[0], false);
        let a_changes: Listed<'_> = (Add::new(rank, ins, DType::BF16).into(), &[8, 20], &[8], false);
        let backward: [Listed<'_>; 4] = [
            (Op::LoraLinearBackward(v), &[0, 7, 8, 9, 15], &[17, 18, 19], true),
            (product.into(), &[14, 4], &[17], true),
            (Op::LoraLinearBackward(q), &[0, 1, 2, 3, 13], &[16, 20, 21], true),
            (Add::new(rows, ins, DType::BF16).into(), &[17, 16], &[17], false),
        ];
        for between in [None, Some(x_changes), Some(a_changes)] {
            let what = format!("{rows}x{ins} r{rank}, a change between: {}", between.is_some());
            let steps: Vec<Listed<'_>> = forward.iter().copied().chain(between).chain(backward).collect();
            check(&tensors, &steps, &[10, 11, 12, 17, 18, 19, 20, 21], 5, &[], &what);
        }
    }
}

/// Positions and frequencies of rows.
fn tables(rows: usize, head: usize) -> [Tensor; 2] {
    let frequencies = (0..head / 2).map(|i| 10000f32.powf(-2.0 * i as f32 / head as f32));
    [Whole((0..rows as u32).map(|row| row * 7 % 1000).collect()), Frequencies(frequencies.collect())]
}

#[test]
fn layers_of_one_x_and_their_rotation() {
    for (rows, ins, head, heads, kv_heads, ranks) in [
        (1024, 576, 64, 9, 3, [8, 0, 8]),
        (200, 136, 64, 3, 1, [16, 16, 3]),
        (4096, 576, 64, 9, 3, [8, 0, 8]),
        (130, 512, 128, 4, 2, [0, 8, 24]),
        (64, 64, 64, 1, 1, [64, 1, 0]),
    ] {
        let widths = [heads, kv_heads, kv_heads].map(|heads| heads * head);
        let mut tensors = vec![Numbers(rows * ins)];
        for (width, rank) in widths.into_iter().zip(ranks) {
            tensors.extend([width * ins, rank * ins, width * rank].map(Numbers));
        }
        tensors.extend(widths.map(|width| Numbers(rows * width)));
        tensors.extend(tables(rows, head));
        let layer = |i: usize| Op::from(LoraLinear::new(rows, ins, widths[i], ranks[i], 0.25, DType::BF16));
        let rope = |heads| Op::from(Rope::new(rows, heads, head, DType::BF16));
        let steps: [Listed<'_>; 5] = [
            (layer(0), &[0, 1, 2, 3], &[10], true),
            (layer(1), &[0, 4, 5, 6], &[11], true),
            (layer(2), &[0, 7, 8, 9], &[12], false),
            (rope(heads), &[10, 13, 14], &[10], false),
            (rope(kv_heads), &[11, 13, 14], &[11], false),
        ];
        check(&tensors, &steps, &[10, 11, 12], 3, &[], &format!("{rows}x{ins}, heads of {head}, ranks {ranks:?}"));
    }
}

#[test]
fn layers_of_one_x_alone() {
    for (rows, ins, outs, rank) in [(1024, 576, 1536, 8), (300, 72, 200, 5)] {
        let mut tensors = vec![Numbers(rows * ins)];
        tensors.extend((0..2).flat_map(|_| [outs * ins, rank * ins, outs * rank].map(Numbers)));
        tensors.extend((0..2).map(|_| Numbers(rows * outs)));
        let layer = Op::from(LoraLinear::new(rows, ins, outs, rank, 0.25, DType::BF16));
        let steps: [Listed<'_>; 2] = [(layer, &[0, 1, 2, 3], &[7], false), (layer, &[0, 4, 5, 6], &[8], false)];
        check(&tensors, &steps, &[7, 8], 0, &[], &format!("{rows}x{ins}x{outs} r{rank}"));
    }
}

#[test]
fn gradients_of_attention_turned_back() {
    for (sequences, tokens, heads, kv_heads, head) in
        [(4, 256, 9, 3, 64), (8, 512, 9, 3, 64), (3, 100, 4, 2, 128), (1, 70, 2, 2, 64)]
    {
        let (rows, width, kv_width) = (sequences * tokens, heads * head, kv_heads * head);
        let attention = Attention::new(rows, rows, heads, kv_heads, head, DType::BF16);
        let attention = Attention { sequences, ..attention };
        let spans = (0..sequences as u32).flat_map(|i| [i, 1, i, 1].map(|x| x * tokens as u32));
        // q, k, v, spans, y, lse, dy, dq, dk, dv, positions, frequencies.
        let mut tensors: Vec<Tensor> = [width, kv_width, kv_width].map(|width| Numbers(rows * width)).into();
        tensors.push(Whole(spans.collect()));
        tensors.extend([Numbers(rows * width), Floats(rows * heads), Numbers(rows * width)]);
        tensors.extend([width, kv_width, kv_width].map(|width| Numbers(rows * width)));
        tensors.extend(tables(rows, head));
        let back = |heads| Op::RopeBackward(Rope::new(rows, heads, head, DType::BF16));
        let steps: [Listed<'_>; 4] = [
            (attention.into(), &[0, 1, 2, 3], &[4, 5], false),
            (Op::AttentionBackward(attention), &[0, 1, 2, 3, 4, 5, 6], &[7, 8, 9], true),
            (back(kv_heads), &[8, 10, 11], &[8], false),
            (back(heads), &[7, 10, 11], &[7], false),
        ];
        check(&tensors, &steps, &[7, 8, 9], 1, &[9], &format!("{sequences}x{tokens}, {heads} heads of {head}"));
    }
}

#[test]
fn silu_and_the_product_that_makes_gate_and_up() {
    for (rows, ins, cols) in [(1024, 576, 1536), (4096, 576, 1536), (200, 72, 40), (130, 8, 136)] {
        // x, W, what it makes, y; gate and up.
        let mut tensors: Vec<Tensor> = [rows * ins, 2 * cols * ins, rows * 2 * cols, rows * cols].map(Numbers).into();
        let span = (rows - 1) * 2 * cols + cols;
        tensors.extend([Part(2, 0, span), Part(2, cols, span), Numbers(0)]);
        let layer = Op::from(LoraLinear::new(rows, ins, 2 * cols, 0, 1.0, DType::BF16));
        let silu = SiluMul { gate_row: 2 * cols, up_row: 2 * cols, ..SiluMul::new(rows, cols, DType::BF16) };
        for passes in [true, false] {
            let steps: [Listed<'_>; 2] = [(layer, &[0, 1, 6, 6], &[2], passes), (silu.into(), &[4, 5], &[3], false)];
            let results: &[usize] = if passes { &[3] } else { &[2, 3] };
            check(&tensors, &steps, results, 1, &[], &format!("{rows}x{ins}x{cols}, gate and up pass: {passes}"));
        }
    }
}

/// SiLU, its inputs, its outputs, and the tensors that these are.
type Way<'a> = (SiluMul, &'a [usize], &'a [usize], &'a [usize]);

#[test]
fn gradients_of_gate_and_up_and_the_product_ahead() {
    for (rows, outs, cols) in [(1024, 576, 1536), (4096, 576, 1536), (200, 72, 40), (130, 8, 136)] {
        let product = MatMul::new(rows, cols, outs, DType::BF16);
        let silu = SiluMul::new(rows, cols, DType::BF16);
        let halves = SiluMul { gate_row: 2 * cols, up_row: 2 * cols, ..silu };
        // dy, W, SiLU's dy; gate and up, their gradients.
        let mut tensors: Vec<Tensor> = [rows * outs, outs * cols, rows * cols].map(Numbers).into();
        tensors.extend([(); 4].map(|()| Numbers(rows * cols)));
        // The same as columns.
        let span = (rows - 1) * 2 * cols + cols;
        tensors.extend([(); 2].map(|()| Numbers(rows * 2 * cols)));
        tensors.extend([7, 7, 8, 8].into_iter().zip([0, cols, 0, cols]).map(|(of, first)| Part(of, first, span)));
        let ways: [Way<'_>; 3] = [
            (silu, &[3, 4, 2], &[5, 6], &[5, 6]),
            (silu, &[3, 4, 2], &[3, 4], &[3, 4]),
            (halves, &[9, 10, 2], &[11, 12], &[8]),
        ];
        for (i, (silu, from, to, results)) in ways.into_iter().enumerate() {
            let steps: [Listed<'_>; 2] =
                [(product.into(), &[0, 1], &[2], true), (Op::SiluMulBackward(silu), from, to, false)];
            check(&tensors, &steps, results, 1, &[], &format!("{rows}x{outs}x{cols}, way {i}"));
        }
    }
}

#[test]
fn a_loss_and_its_gradient() {
    // With rows that registers hold, rows that they do not, and rows that are not read 16 bytes at a time.
    for (rows, vocab) in [(200, 49152), (133, 1000), (140, 60_000), (150, 50_257), (500, 77), (100, 512)] {
        let stats = CrossEntropyStats::new(rows, vocab, DType::BF16);
        let grad = CrossEntropyGrad::new(rows, vocab, DType::BF16);
        // Some rows do not count.
        let label = |row: usize| if row % 5 == 3 { u32::MAX } else { (row * 7919 % vocab) as u32 };
        let labels = Whole((0..rows).map(label).collect());
        let logits = Numbers(rows * vocab);
        // The logits, the labels, dloss; stats, loss, dlogits.
        let tensors = [logits, labels, Frequencies(vec![700.0]), Floats(3 * rows), Floats(2), Numbers(rows * vocab)];
        for dlogits in [0, 5] {
            let steps: [Listed<'_>; 3] = [
                (stats.into(), &[0, 1], &[3], false),
                (CrossEntropyLoss::new(rows, vocab).into(), &[3, 1], &[4], false),
                (grad.into(), &[0, 1, 3, 4, 2], &[dlogits], false),
            ];
            check(&tensors, &steps, &[3, 4, dlogits], 0, &[], &format!("{rows}x{vocab} to {dlogits}"));
        }
    }
}
