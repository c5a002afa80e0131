//! Where the elements of an operand lie, and what they hold before a trial.

use super::cases::{Case, Values};
use super::rng::Rng;
use candlewick::op::Operand;
use candlewick::{DType, Element, Op};

/// In the gaps of outputs: exact in every dtype, and nothing that the operations compute.
pub(super) const SENTINEL: f64 = -1024.0;

/// One operand inside a larger piece of memory.
#[derive(Clone)]
pub(super) struct Tensor<T> {
    pub(super) name: &'static str,
    pub(super) memory: Vec<T>,
    pub(super) start: usize,
    pub(super) span: usize,
    /// Offsets from `start` that belong to the tensor; the others are gaps.
    pub(super) places: Vec<usize>,
}

impl<T: Element> Tensor<T> {
    /// From its first element to its last.
    pub(super) fn slice(&self) -> &[T] {
        &self.memory[self.start..self.start + self.span]
    }

    /// The same, as the reference reads it.
    pub(super) fn to_f64(&self) -> Vec<f64> {
        self.slice().iter().map(|x| x.to_f64()).collect()
    }

    fn new(op: &Op, operand: &Operand, gap: f64, rng: &mut Rng) -> Self {
        // Room for a whole vector on both sides, so that a store beyond the tensor is seen, and hits nothing else.
        let start = 64 + rng.below(10);
        let end = start + operand.span + 64 + rng.below(9);
        let memory = vec![T::from_f64(gap); end];
        Tensor { name: operand.name, memory, start, span: operand.span, places: places(&dims(op, operand.name)) }
    }

    /// An input: NaN in its gaps, so that whoever reads them shows it.
    pub(super) fn input(case: &Case, operand: &Operand, special: bool, rng: &mut Rng) -> Self {
        let mut tensor = Self::new(&case.op, operand, f64::NAN, rng);
        let values = values(case, operand, special, tensor.places.len(), rng);
        for (&at, value) in tensor.places.iter().zip(values) {
            tensor.memory[tensor.start + at] = T::from_f64(value);
        }
        tensor
    }

    /// An output: sentinels in its gaps; in its places numbers where the operation reads them, else what it may not
    /// leave there.
    pub(super) fn output(case: &Case, operand: &Operand, rng: &mut Rng) -> Self {
        let mut tensor = Self::new(&case.op, operand, SENTINEL, rng);
        // Where NaN is a right answer, NaN would hide an element that was not written.
        let nan_is_right = matches!(case.values, Values::NonFinite | Values::Degenerate);
        let poison = if nan_is_right { 2.0 * SENTINEL } else { f64::NAN };
        for &at in &tensor.places {
            let value = if case.op.accumulates() { rng.unit() } else { poison };
            tensor.memory[tensor.start + at] = T::from_f64(value);
        }
        tensor
    }
}

/// `(size, stride)` of an operand's dimensions, outermost first.
pub(super) fn dims(op: &Op, name: &str) -> Vec<(usize, usize)> {
    let rows = |rows, row, cols| vec![(rows, row), (cols, 1)];
    match op {
        Op::MatMul(op) => {
            let (batch, rows, cols, row) = match (name, op.trans_a, op.trans_b) {
                ("a", false, _) => (op.batch.a, op.m, op.k, op.lda),
                ("a", true, _) => (op.batch.a, op.k, op.m, op.lda),
                ("b", _, false) => (op.batch.b, op.k, op.n, op.ldb),
                ("b", _, true) => (op.batch.b, op.n, op.k, op.ldb),
                _ => (op.batch.c, op.m, op.n, op.ldc),
            };
            op.batch.dims.into_iter().zip(batch).chain([(rows, row), (cols, 1)]).collect()
        }
        Op::Softmax(op) | Op::SoftmaxBackward(op) => {
            rows(op.rows, if matches!(name, "x" | "dx") { op.x_row } else { op.y_row }, op.cols)
        }
        Op::RmsNorm(op) | Op::RmsNormBackward(op) => match name {
            "weight" | "dweight" => vec![(op.cols, 1)],
            "x" | "dx" => rows(op.rows, op.x_row, op.cols),
            _ => rows(op.rows, op.y_row, op.cols),
        },
        Op::LoraLinear(op) | Op::LoraLinearBackward(op) => {
            let sizes = [op.rows, op.in_features, op.out_features, op.rank];
            lora_dims(sizes, op.x_row, op.y_row, name)
        }
        Op::LoraDelta(op) | Op::LoraDeltaBackward(op) => {
            let sizes = [op.rows, op.in_features, op.out_features, op.rank];
            lora_dims(sizes, op.x_row, op.y_row, name)
        }
        _ => Vec::new(),
    }
}

fn lora_dims([rows, i, o, rank]: [usize; 4], x_row: usize, y_row: usize, name: &str) -> Vec<(usize, usize)> {
    match name {
        "x" | "dx" => vec![(rows, x_row), (i, 1)],
        "y" | "dy" => vec![(rows, y_row), (o, 1)],
        "w" => vec![(o, i), (i, 1)],
        "bias" => vec![(o, 1)],
        "a" | "da" => vec![(rank, i), (i, 1)],
        _ => vec![(o, rank), (rank, 1)],
    }
}

/// The offsets of all elements; a dimension with stride zero repeats its own.
fn places(dims: &[(usize, usize)]) -> Vec<usize> {
    let mut places = vec![0];
    for &(size, stride) in dims {
        let size = if stride == 0 { size.min(1) } else { size };
        places = places.iter().flat_map(|at| (0..size).map(move |i| at + i * stride)).collect();
    }
    places
}

fn values(case: &Case, operand: &Operand, special: bool, count: usize, rng: &mut Rng) -> Vec<f64> {
    let cols = operand.shape.sizes().last().copied().unwrap_or(1).max(1);
    let ordinary: Box<dyn Fn(&mut Rng) -> f64> = match (&case.op, operand.name) {
        (Op::Softmax(_), _) => {
            let (width, centre) = (rng.pick(&[1.0, 10.0]), rng.pick(&[0.0, 0.0, 50.0]));
            Box::new(move |rng| centre + width * rng.unit())
        }
        (Op::SoftmaxBackward(_), "y") => Box::new(move |rng| (1.0 + rng.unit()) / cols as f64),
        (Op::RmsNorm(_) | Op::RmsNormBackward(_), "weight") => Box::new(|rng| 1.0 + 0.5 * rng.unit()),
        _ => Box::new(Rng::unit),
    };
    let mut values: Vec<f64> = (0..count).map(|_| ordinary(rng)).collect();
    let tiny = if case.op.dtype() == DType::F16 { 1e-6 } else { 1e-40 };
    match case.values {
        Values::Ordinary => {}
        Values::NonFinite => {
            let specials = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
            for _ in 0..count.min(1 + rng.below(4)) {
                values[rng.below(count)] = rng.pick(&specials);
            }
        }
        Values::Huge if special => {
            let huge = huge(&case.op);
            values.iter_mut().filter(|_| rng.chance(20)).for_each(|value| *value *= huge);
        }
        Values::Subnormal if special => {
            values.iter_mut().filter(|_| rng.chance(50)).for_each(|value| *value *= tiny);
        }
        Values::Huge | Values::Subnormal => {}
        Values::Degenerate => {
            let softmax = matches!(case.op, Op::Softmax(_));
            for row in values.chunks_mut(cols).filter(|_| rng.chance(40)) {
                row.fill(if softmax { f64::NEG_INFINITY } else { 0.0 });
            }
        }
    }
    // What a mask hides is never read.
    if let Op::Softmax(op) | Op::SoftmaxBackward(op) = case.op
        && case.values != Values::Ordinary
        && op.cols > 0
    {
        for (row, values) in values.chunks_mut(op.cols).enumerate() {
            values[op.valid(row)..].fill(f64::NAN);
        }
    }
    values
}

/// As large as the operation's intermediate results, in f32, can bear.
fn huge(op: &Op) -> f64 {
    match (op, op.dtype()) {
        (_, DType::F16) => 6e4,
        (Op::RmsNorm(_) | Op::RmsNormBackward(_), _) => 1e8,
        _ => 1e30,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candlewick::op::OpClass;

    /// The layouts here are written from the documentation, the spans come from the core: they must agree.
    #[test]
    fn the_last_place_is_the_end_of_the_span() {
        for class in OpClass::ALL {
            for index in 0..300 {
                let case = Case::new(3, class, DType::F32, index);
                let operands = case.op.operands().unwrap();
                for operand in operands.inputs.iter().chain(&operands.outputs) {
                    let places = places(&dims(&case.op, operand.name));
                    let end = places.iter().max().map_or(0, |last| last + 1);
                    assert_eq!(end, operand.span, "{} of {:?}", operand.name, case.op);
                }
            }
        }
    }
}
