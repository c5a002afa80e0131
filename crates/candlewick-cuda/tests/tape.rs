//! Steps of a tape that become one launch.

mod stub;

use candlewick_core::backend::Stream as _;
use candlewick_core::op::Pairs;
use candlewick_core::tape::{Place, Step};
use candlewick_core::{Add, Attention, DType, Error, LoraLinear, MatMul, Op, RmsNorm, Rope, SiluMul};
use candlewick_cuda::{Kernel, Stream};
use stub::{Lib, Stub};

/// Tensors of one memory side by side, and steps over them.
struct Steps<'a> {
    stream: &'a mut Stream,
    steps: Vec<Step<Kernel>>,
    products: bool,
}

/// A tensor starts at a multiple of so many bytes.
const APART: usize = 1 << 16;

impl Steps<'_> {
    fn add(&mut self, op: impl Into<Op>, inputs: &[usize], outputs: &[usize], until: usize) {
        let op = op.into();
        let operands = op.operands().unwrap();
        let place = |(&tensor, operand): (&usize, &candlewick_core::op::Operand)| Place {
            memory: 0,
            offset: tensor * APART,
            elements: operand.span,
            dtype: operand.dtype,
            packing: None,
        };
        // The library's product, where it has one: which engine is chosen is not what these tests are about.
        let engines = candlewick_core::backend::Device::engines(self.stream.device(), &op);
        let library = engines.into_iter().find(|engine| engine.to_string().contains("cublaslt") && self.products);
        let kernel = self.stream.prepare(&op, library).unwrap();
        let inputs = inputs.iter().zip(&operands.inputs).map(place).collect();
        let outputs = outputs.iter().zip(&operands.outputs).map(place).collect();
        self.steps.push(Step { kernel, inputs, outputs, until: vec![until; operands.outputs.len()] });
    }

    /// What the tape gives to cuBLASLt, and to the driver.
    fn calls(self, stub: &Stub) -> (usize, usize) {
        let memory = self.stream.memory(18 * APART).unwrap();
        stub.clear();
        self.stream.record(&[memory], self.steps).unwrap();
        let count = |lib, name: &str| stub.calls_of(lib).iter().filter(|call| *call == name).count();
        (count(Lib::CublasLt, "cublasLtMatmul"), count(Lib::Cuda, "cuLaunchKernelEx"))
    }
}

/// What RMSNorm and a layer of so many rows become, with something that reads what lies between them or not.
#[test]
fn a_norm_goes_with_the_few_rows_of_its_layer() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = candlewick_core::backend::Device::stream(&device).unwrap();
    for (rows, until, expected) in [(1, 2, 1), (4, 2, 1), (4, 3, 2), (4, usize::MAX, 2), (64, 2, 2)] {
        let mut steps = Steps { stream: &mut stream, steps: Vec::new(), products: false };
        steps.add(RmsNorm::new(rows, 64, 1e-5, DType::BF16), &[0, 1], &[2], until);
        steps.add(LoraLinear::new(rows, 64, 32, 0, 1.0, DType::BF16), &[2, 3, 6, 6], &[4], usize::MAX);
        assert_eq!(steps.calls(&stub), (0, expected), "{rows} rows, read until {until}");
        stream.wait().unwrap();
    }
}

#[test]
fn a_residual_is_added_by_the_product() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = candlewick_core::backend::Device::stream(&device).unwrap();
    // y = x Wᵀ is tensor 2; then another tensor is added to it, either way round, or in the place of that.
    for (terms, to, until, products, launches) in
        [([2, 4], 5, 2, 1, 0), ([4, 2], 5, 2, 1, 0), ([4, 2], 4, 2, 1, 0), ([4, 2], 5, 3, 1, 1), ([4, 2], 0, 2, 1, 1)]
    {
        let mut steps = Steps { stream: &mut stream, steps: Vec::new(), products: true };
        steps.add(LoraLinear::new(64, 64, 64, 0, 1.0, DType::BF16), &[0, 1, 6, 6], &[2], until);
        steps.add(Add::new(64, 64, DType::BF16), &terms, &[to], usize::MAX);
        assert_eq!(steps.calls(&stub), (products, launches), "{terms:?} to {to}, read until {until}");
        stream.wait().unwrap();
    }
}

#[test]
fn another_gradient_is_added_by_the_backward_of_a_layer() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = candlewick_core::backend::Device::stream(&device).unwrap();
    // dx is tensor 5; dA and dB stay.
    let backward = Op::LoraLinearBackward(LoraLinear::new(64, 64, 64, 8, 2.0, DType::BF16));
    let run = |stream: &mut Stream, until| {
        let mut steps = Steps { stream, steps: Vec::new(), products: true };
        steps.add(backward, &[0, 1, 2, 3, 4], &[5, 7, 8], until);
        steps.add(Add::new(64, 64, DType::BF16), &[5, 6], &[6], usize::MAX);
        steps.steps[0].until = vec![until];
        steps.calls(&stub)
    };
    let ((apart, adds), (together, none)) = (run(&mut stream, usize::MAX), run(&mut stream, 2));
    assert_eq!((apart, adds), (together, none + 1));
    stream.wait().unwrap();
}

#[test]
fn backwards_of_layers_that_read_one_x_share_their_launches() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = candlewick_core::backend::Device::stream(&device).unwrap();
    // x is tensor 0 and the sum of gradients 3. Of v: W, A, B, dy are 1, 2, 4, 5; of q 6, 7, 8, 9, and its dx 10, added to
    // the sum; k's product between them is of 11 and 12. dA and dB are 13 to 16.
    let layer = |rank| Op::LoraLinearBackward(LoraLinear::new(64, 64, 64, rank, 2.0, DType::BF16));
    let product = MatMul::new(64, 64, 64, DType::BF16).scaled(1.0, 1.0);
    let mut run = |x_of_q: usize, dy_of_q: usize, db_of_q: usize, until: usize, ranks: [usize; 2]| {
        let mut steps = Steps { stream: &mut stream, steps: Vec::new(), products: true };
        steps.add(layer(ranks[0]), &[0, 1, 2, 4, 5], &[3, 13, 14], usize::MAX);
        steps.add(product, &[11, 12], &[3], usize::MAX);
        steps.add(layer(ranks[1]), &[x_of_q, 6, 7, 8, dy_of_q], &[10, 15, db_of_q], until);
        steps.add(Add::new(64, 64, DType::BF16), &[10, 3], &[3], usize::MAX);
        steps.steps[2].until = vec![until];
        let calls = steps.calls(&stub);
        stream.wait().unwrap();
        calls
    };
    assert_eq!(run(0, 9, 16, 4, [8, 8]), (0, 3), "together");
    assert_eq!(run(17, 9, 16, 4, [8, 8]), (3, 4), "of another x, with the residual");
    assert_eq!(run(0, 9, 16, 4, [8, 16]), (3, 4), "of another rank");
    assert_eq!(run(0, 9, 16, usize::MAX, [8, 8]), (3, 5), "q's own part is read later");
    assert_eq!(run(0, 3, 16, 4, [8, 8]), (3, 4), "q's dy is the sum so far");
    assert_eq!(run(0, 9, 4, 4, [8, 8]), (3, 4), "q's dB takes the place of v's A");
}

#[test]
fn the_forward_of_q_and_v_leaves_h_to_their_backwards() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = candlewick_core::backend::Device::stream(&device).unwrap();
    // x is tensor 0; W, A, B of q 1, 2, 3, W of k 4, of v 5, 6, 7; q, k, v 8, 9, 10; their gradients 11, 12, 13; q's own dx
    // 14, the sum 15, dA and dB 16, 18, 19, 20; nothing is 17.
    let layer = |rank| LoraLinear::new(64, 64, 64, rank, 2.0, DType::BF16);
    let product = MatMul::new(64, 64, 64, DType::BF16).scaled(1.0, 1.0);
    // The rows of blocks that make h and dh: of dy alone, or of dy and x.
    let mut parts = |changes: Option<usize>, forward_ranks: [usize; 2]| {
        let mut steps = Steps { stream: &mut stream, steps: Vec::new(), products: true };
        steps.add(layer(forward_ranks[0]), &[0, 1, 2, 3], &[8], usize::MAX);
        steps.add(layer(0), &[0, 4, 17, 17], &[9], usize::MAX);
        steps.add(layer(forward_ranks[1]), &[0, 5, 6, 7], &[10], usize::MAX);
        if let Some(tensor) = changes {
            steps.add(Add::new(8, 64, DType::BF16), &[17, 17], &[tensor], usize::MAX);
        }
        let end = steps.steps.len() + 4;
        steps.add(Op::LoraLinearBackward(layer(8)), &[0, 5, 6, 7, 13], &[15, 16, 18], usize::MAX);
        steps.add(product, &[12, 4], &[15], usize::MAX);
        steps.add(Op::LoraLinearBackward(layer(8)), &[0, 1, 2, 3, 11], &[14, 19, 20], usize::MAX);
        steps.steps.last_mut().unwrap().until = vec![end];
        steps.add(Add::new(64, 64, DType::BF16), &[14, 15], &[15], usize::MAX);
        let memory = steps.stream.memory(22 * APART).unwrap();
        stub.clear();
        steps.stream.record(&[memory], steps.steps).unwrap();
        let launches = stub.launches();
        stream.wait().unwrap();
        let of_hidden = launches.iter().filter(|launch| launch.name().starts_with("lora_hidden"));
        of_hidden.map(|launch| launch.grid[1]).collect::<Vec<u32>>()
    };
    assert_eq!(parts(None, [8, 8]), [2], "h is kept");
    assert_eq!(parts(Some(21), [8, 8]), [2], "something else changes");
    assert_eq!(parts(Some(0), [8, 8]), [4], "x changes");
    assert_eq!(parts(Some(2), [8, 8]), [4], "A changes");
    assert_eq!(parts(None, [8, 0]), [4], "v had no adapter");
}

#[test]
fn kernels_of_another_stream_are_refused_in_sequences_too() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let open = || candlewick_core::backend::Device::stream(&device).unwrap();
    let (mut stream, mut other) = (open(), open());
    let mut steps = Steps { stream: &mut other, steps: Vec::new(), products: false };
    steps.add(RmsNorm::new(1, 64, 1e-5, DType::BF16), &[0, 1], &[2], 2);
    steps.add(LoraLinear::new(1, 64, 32, 0, 1.0, DType::BF16), &[2, 3, 6, 6], &[4], usize::MAX);
    let (steps, memory) = (steps.steps, stream.memory(9 * APART).unwrap());
    assert!(matches!(stream.record(&[memory], steps), Err(Error::WrongOwner { .. })));
}

/// q, k and v of one x, and what turns q and k.
#[test]
fn layers_of_one_x_and_their_rotation_are_one_launch() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = candlewick_core::backend::Device::stream(&device).unwrap();
    // x is tensor 0; W, A and B of q 1, 2, 3, W of k 4, of v 5, 6, 7; positions 8, frequencies 9; q, k, v 10, 11, 12.
    let layer = |outs, rank| LoraLinear::new(64, 64, outs, rank, 2.0, DType::BF16);
    let rope = |heads| Rope::new(64, heads, 64, DType::BF16);
    let mut run = |x_of_v: usize, frequencies: usize, to: usize, until: usize, pairs| {
        let mut steps = Steps { stream: &mut stream, steps: Vec::new(), products: true };
        steps.add(layer(192, 8), &[0, 1, 2, 3], &[10], until);
        steps.add(layer(64, 0), &[0, 4, 6, 6], &[11], 5);
        steps.add(layer(64, 8), &[x_of_v, 5, 6, 7], &[12], usize::MAX);
        steps.add(Rope { pairs, ..rope(3) }, &[10, 8, 9], &[to], usize::MAX);
        steps.add(Rope { pairs, ..rope(1) }, &[11, 8, frequencies], &[11], usize::MAX);
        let calls = steps.calls(&stub);
        stream.wait().unwrap();
        calls
    };
    let (_, apart) = run(0, 9, 10, 4, Pairs::Interleaved);
    assert_eq!(run(0, 9, 10, 4, Pairs::Halves), (0, 1), "together");
    assert_eq!(run(0, 9, 13, 4, Pairs::Halves), (0, 1), "q turned to another place");
    assert_eq!(run(0, 13, 10, 4, Pairs::Halves), (0, 2), "k is turned by other frequencies");
    assert!(run(13, 9, 10, 4, Pairs::Halves).1 > 1, "v of another x");
    assert!(run(0, 9, 13, 6, Pairs::Halves).1 > 1, "q is read before it is turned");
    assert_eq!(run(0, 9, 2, 4, Pairs::Halves).1, apart, "q takes the place of its own A");
}

#[test]
fn gradients_of_attention_are_turned_back_in_its_launch() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = candlewick_core::backend::Device::stream(&device).unwrap();
    // q, k, v, spans, y, lse, dy are 0 to 6; dq, dk, dv 7 to 9; positions 10, frequencies 11.
    let attention = Attention::new(64, 64, 3, 1, 64, DType::BF16);
    let back = |heads| Op::RopeBackward(Rope::new(64, heads, 64, DType::BF16));
    let mut run = |k_first: bool, of_k: usize, until: usize| {
        let mut steps = Steps { stream: &mut stream, steps: Vec::new(), products: false };
        steps.add(Op::AttentionBackward(attention), &[0, 1, 2, 3, 4, 5, 6], &[7, 8, 9], until);
        let q = (back(3), [7, 10, 11], 12);
        let k = (back(1), [of_k, 10, 11], 8);
        for (op, inputs, output) in if k_first { [k, q] } else { [q, k] } {
            steps.add(op, &inputs, &[output], usize::MAX);
        }
        let (_, launches) = steps.calls(&stub);
        stream.wait().unwrap();
        launches
    };
    assert_eq!((run(false, 8, 3), run(true, 8, 3)), (1, 1));
    assert_eq!(run(false, 13, 3), 2, "dk is not what is turned");
    assert_eq!(run(false, 8, 4), 2, "dq is read before it is turned");
}

#[test]
fn silu_is_the_end_of_the_product_ahead_of_it() {
    let Some(stub) = Stub::all() else { return };
    let device = stub.open();
    let mut stream = candlewick_core::backend::Device::stream(&device).unwrap();
    let (rows, cols) = (128, 64);
    let silu = SiluMul { gate_row: 2 * cols, up_row: 2 * cols, ..SiluMul::new(rows, cols, DType::BF16) };
    // x and W are 0 and 1, gate and up the halves of 2's rows, y is 4.
    let mut forward = |rows_of_silu: usize, y: usize| {
        let mut steps = Steps { stream: &mut stream, steps: Vec::new(), products: true };
        steps.add(LoraLinear::new(rows, 64, 2 * cols, 0, 1.0, DType::BF16), &[0, 1, 6, 6], &[2], usize::MAX);
        steps.add(SiluMul { rows: rows_of_silu, ..silu }, &[2, 2], &[y], usize::MAX);
        let up = &mut steps.steps[1].inputs[1];
        up.offset += 2 * cols;
        let calls = steps.calls(&stub);
        stream.wait().unwrap();
        calls
    };
    assert_eq!(forward(rows, 4), (0, 1));
    assert_eq!(forward(64, 4), (1, 1), "of half the rows");
    assert_eq!(forward(rows, 0), (1, 1), "y takes the place of x");
    // dy and W are 0 and 1, what they make 2; gate and up 4 and 5, their gradients 8 and 9.
    let mut backward = |until: usize, dgate: usize| {
        let mut steps = Steps { stream: &mut stream, steps: Vec::new(), products: true };
        steps.add(MatMul::new(rows, cols, 64, DType::BF16), &[0, 1], &[2], until);
        let silu = SiluMul::new(rows, cols, DType::BF16);
        steps.add(Op::SiluMulBackward(silu), &[4, 5, 2], &[dgate, 9], usize::MAX);
        let calls = steps.calls(&stub);
        stream.wait().unwrap();
        calls
    };
    assert_eq!(backward(2, 8), (0, 1));
    assert_eq!(backward(3, 8), (1, 1), "SiLU's dy is read later");
    assert_eq!(backward(2, 0), (1, 1), "gate's gradient takes the place of dy");
}
