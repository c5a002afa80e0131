//! Products of tensors with any strides, and their gradients, against sums written from the tensors' own layouts:
//! neither the descriptor nor the reference of the core is used to say what is right.

use candlewick::op::{Gradient, MatMulOperand};
use candlewick::{DType, Device, Element, Error, Layout, MatMul, Stream};
use half::{bf16, f16};
use proptest::prelude::*;

/// A tensor of numbers with its sizes and strides.
#[derive(Clone, Debug)]
struct Tensor {
    shape: Vec<usize>,
    strides: Vec<usize>,
    memory: Vec<f64>,
}

impl Tensor {
    fn layout(&self) -> Layout<'_> {
        Layout::new(&self.shape, &self.strides)
    }

    /// The element at an index of a broadcast shape: missing and single dimensions repeat.
    fn offset(&self, index: &[usize]) -> usize {
        let skipped = index.len() - self.shape.len();
        let at = |i: usize| if self.shape[i] == 1 { 0 } else { index[i + skipped] * self.strides[i] };
        (0..self.shape.len()).map(at).sum()
    }
}

/// `batch` with some dimensions 1 or missing, then the matrix; in some order of memory, with gaps.
fn tensor(batch: Vec<usize>, rows: usize, cols: usize) -> impl Strategy<Value = Tensor> {
    let rank = batch.len() + 2;
    let singles = prop::collection::vec(any::<bool>(), batch.len());
    let order = Just((0..rank).collect::<Vec<_>>()).prop_shuffle();
    (singles, 0..=batch.len(), order, any::<[bool; 2]>(), 0..3usize, any::<u64>()).prop_map(
        move |(singles, missing, order, [keep_order, keep_rank], gap, seed)| {
            let mut shape: Vec<usize> =
                batch.iter().zip(&singles).map(|(&size, &single)| if single { 1 } else { size }).collect();
            shape.extend([rows, cols]);
            let mut strides = vec![0; rank];
            let mut next = 1;
            // Most tensors have their matrices innermost; the others have them anywhere.
            let order: Vec<usize> = if keep_order { (0..rank).rev().collect() } else { order.clone() };
            for (nth, &i) in order.iter().enumerate() {
                strides[i] = next;
                next = next * shape[i] + if nth == 0 { gap } else { 0 };
            }
            let missing = if keep_rank { 0 } else { missing };
            let missing = (0..missing).take_while(|&i| shape[i] == 1).count();
            let number = |i: usize| ((seed.wrapping_mul(i as u64 * 2 + 1) >> 40) % 33) as f64 / 16.0 - 1.0;
            Tensor {
                memory: (0..next + 1).map(number).collect(),
                shape: shape.split_off(missing),
                strides: strides.split_off(missing),
            }
        },
    )
}

fn pair() -> impl Strategy<Value = (Tensor, Tensor)> {
    let size = || prop_oneof![Just(1usize), 1..6usize, Just(17), Just(33)];
    (prop::collection::vec(1..4usize, 0..4), size(), size(), size())
        .prop_flat_map(|(batch, m, n, k)| (tensor(batch.clone(), m, k), tensor(batch, k, n)))
}

/// Every index of a shape, in order.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |indices, &size| {
        let longer = |index: Vec<usize>| (0..size).map(move |i| [index.clone(), vec![i]].concat());
        indices.into_iter().flat_map(longer).collect()
    })
}

/// C, rounded to T, and the gradients of A and B for dC = C.
fn expected<T: Element>(a: &Tensor, b: &Tensor, shape: &[usize], k: usize) -> [Vec<f64>; 3] {
    let mut c = Vec::new();
    let (mut da, mut db) = (vec![0.0; a.memory.len()], vec![0.0; b.memory.len()]);
    for index in indices(shape) {
        let (outer, matrix) = index.split_at(index.len() - 2);
        let places = |p| (a.offset(&[outer, &[matrix[0], p]].concat()), b.offset(&[outer, &[p, matrix[1]]].concat()));
        let sum: f64 = (0..k).map(places).map(|(i, j)| a.memory[i] * b.memory[j]).sum();
        let sum = T::from_f64(sum).to_f64();
        for (i, j) in (0..k).map(places) {
            da[i] += sum * b.memory[j];
            db[j] += sum * a.memory[i];
        }
        c.push(sum);
    }
    [c, da, db]
}

fn run<T: Element>(stream: &mut Stream, op: MatMul, a: &[f64], b: &[f64], len: usize) -> Vec<f64> {
    let round = |from: &[f64]| from.iter().map(|&x| T::from_f64(x)).collect::<Vec<T>>();
    let (a, b, mut c) = (round(a), round(b), vec![T::from_f64(0.0); len]);
    stream.run(op, &[a[..].into(), b[..].into()], &mut [c[..].as_mut().into()]).unwrap();
    stream.wait().unwrap();
    c.iter().map(|x| x.to_f64()).collect()
}

/// Sums of multiples of 1/256 below 2^16: exact in f32, rounded once in the others.
fn assert_close(dtype: DType, found: &[f64], expected: &[f64], what: &str) -> Result<(), TestCaseError> {
    let largest = expected.iter().fold(0f64, |max, x| max.max(x.abs()));
    let bound = if dtype == DType::F32 { 1e-5 } else { 1.01 * dtype.unit_roundoff() } * largest.max(1e-3);
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        prop_assert!((found - expected).abs() <= bound, "{what}[{i}] is {found}, not {expected}");
    }
    Ok(())
}

fn check<T: Element>(a: &Tensor, b: &Tensor, device: &Device) -> Result<(), TestCaseError> {
    let mut stream = device.stream().unwrap();
    let (op, shape) = match MatMul::of(a.layout(), b.layout(), T::DTYPE) {
        Ok(product) => product,
        // The caller makes them contiguous, and asks again.
        Err(Error::Strides { .. }) => return Ok(()),
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    };
    let [c, da, db] = expected::<T>(a, b, &shape, op.k);
    assert_close(T::DTYPE, &run::<T>(&mut stream, op, &a.memory, &b.memory, c.len()), &c, "c")?;
    for (Gradient { op, a: left, b: right }, expected, len) in
        [(op.grad_a(), da, a.memory.len()), (op.grad_b(), db, b.memory.len())]
    {
        let operand = |operand| match operand {
            MatMulOperand::A => &a.memory,
            MatMulOperand::B => &b.memory,
            MatMulOperand::GradC => &c,
        };
        let found = run::<T>(&mut stream, op, operand(left), operand(right), len);
        assert_close(T::DTYPE, &found, &expected, "gradient")?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_two_tensors((a, b) in pair(), one_thread in any::<bool>(), dtype in prop::sample::select(&DType::ALL[..])) {
        let device = if one_thread { Device::cpu_with_threads(1) } else { Device::cpu() };
        match dtype {
            DType::F32 => check::<f32>(&a, &b, &device)?,
            DType::F16 => check::<f16>(&a, &b, &device)?,
            DType::BF16 => check::<bf16>(&a, &b, &device)?,
            DType::U32 | DType::U8 => unreachable!("no operation computes in integers"),
        }
    }
}
