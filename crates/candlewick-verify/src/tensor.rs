//! Where the elements of an operand lie, and what they hold before a trial.

use crate::case::{Case, Storage, Values};
use crate::cases;
use crate::rng::Rng;
use candlewick::op::Operand;
use candlewick::{DType, Op};

/// In the gaps of outputs: exact in every float format, and nothing that the operations compute.
pub(crate) const SENTINEL: f64 = -1024.0;

/// Elements of memory on both sides of a tensor at least: room for a whole vector, so that a store beside it is seen, and
/// hits nothing else.
const MARGIN: usize = 64;

/// One operand inside a larger piece of memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name in the operation's formula.
    pub name: &'static str,
    /// Its dtype.
    pub dtype: DType,
    /// All of the memory: numbers of the dtype.
    pub memory: Vec<f64>,
    /// Where the operand starts in it, in elements: at least 64, as many follow its end.
    pub start: usize,
    /// Elements from the operand's first to its last.
    pub span: usize,
    /// Offsets from `start` that belong to the operand; the others are gaps.
    pub places: Vec<usize>,
}

impl Tensor {
    /// From its first element to its last.
    pub fn slice(&self) -> &[f64] {
        &self.memory[self.start..self.start + self.span]
    }

    /// An input: in its gaps what shows whoever reads them, NaN or the largest integer.
    pub(crate) fn input(case: &Case, operand: &Operand, special: bool, rng: &mut Rng) -> Self {
        let gap = match operand.dtype {
            DType::U32 => u32::MAX.into(),
            DType::U8 => u8::MAX.into(),
            _ => f64::NAN,
        };
        let mut tensor = Self::new(case, operand, gap, rng);
        let values = values(case, operand, special, tensor.places.len(), rng);
        tensor.fill(values);
        tensor
    }

    /// An output: sentinels in its gaps; in its places numbers where the operation keeps or reads them, else NaN.
    pub(crate) fn output(case: &Case, operand: &Operand, kept: bool, rng: &mut Rng) -> Self {
        let mut tensor = Self::new(case, operand, SENTINEL, rng);
        let count = tensor.places.len();
        let values = if kept { values(case, operand, false, count, rng) } else { vec![f64::NAN; count] };
        tensor.fill(values);
        tensor
    }

    /// An operand's numbers as they are, without memory beside them.
    pub(crate) fn given(op: &Op, operand: &Operand, memory: Vec<f64>) -> Self {
        let Operand { name, dtype, span, .. } = *operand;
        Tensor { name, dtype, memory, start: 0, span, places: operand_places(op, operand) }
    }

    /// Puts one value into each place, rounded.
    pub(crate) fn fill(&mut self, values: impl IntoIterator<Item = f64>) {
        for (&at, value) in self.places.iter().zip(values) {
            self.memory[self.start + at] = self.dtype.round(value);
        }
    }

    fn new(case: &Case, operand: &Operand, gap: f64, rng: &mut Rng) -> Self {
        let start = MARGIN + if case.storage == Storage::AlignedBuffers { 0 } else { rng.below(10) };
        let end = start + operand.span + MARGIN + rng.below(9);
        let Operand { name, dtype, span, .. } = *operand;
        Tensor { name, dtype, memory: vec![gap; end], start, span, places: operand_places(&case.op, operand) }
    }
}

/// The offsets of an operand's elements from its first.
pub(crate) fn operand_places(op: &Op, operand: &Operand) -> Vec<usize> {
    places(&cases::of(op.class()).dims(op, operand.name))
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

/// What an input holds; `special` where it is the one that holds large or small numbers.
fn values(case: &Case, operand: &Operand, special: bool, count: usize, rng: &mut Rng) -> Vec<f64> {
    let operation = cases::of(case.op.class());
    let mut values = operation.ordinary(&case.op, operand, count, rng);
    if !operation.takes(&case.op, operand, case.values) {
        return values;
    }
    match case.values {
        Values::Ordinary => return values,
        Values::NonFinite => {
            let specials = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
            for _ in 0..count.min(1 + rng.below(4)) {
                values[rng.below(count)] = rng.pick(&specials);
            }
        }
        Values::Huge if special => {
            let huge = operation.huge(operand.dtype);
            values.iter_mut().filter(|_| rng.chance(20)).for_each(|value| *value *= huge);
        }
        Values::Subnormal if special => {
            let tiny = if operand.dtype == DType::F16 { 1e-6 } else { 1e-40 };
            values.iter_mut().filter(|_| rng.chance(50)).for_each(|value| *value *= tiny);
        }
        Values::Huge | Values::Subnormal => {}
        Values::Degenerate => {
            let cols = operand.shape.sizes().last().copied().unwrap_or(1).max(1);
            let fill = operation.degenerate(&case.op);
            values.chunks_mut(cols).filter(|_| rng.chance(40)).for_each(|row| row.fill(fill));
        }
    }
    operation.hide(&case.op, &mut values);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Hardware;
    use candlewick::op::OpClass;

    /// The layouts here are written from the documentation, the spans come from the core: they must agree.
    #[test]
    fn the_last_place_is_the_end_of_the_span() {
        for class in OpClass::ALL {
            for index in 0..300 {
                for hardware in [Hardware::Cpu, Hardware::Gpu] {
                    let case = Case::new(3, class, cases::of(class).dtypes()[0], index, hardware);
                    let operands = case.op.operands().unwrap();
                    for operand in operands.inputs.iter().chain(&operands.outputs) {
                        let places = places(&cases::of(class).dims(&case.op, operand.name));
                        let end = places.iter().max().map_or(0, |last| last + 1);
                        assert_eq!(end, operand.span, "{} of {:?}", operand.name, case.op);
                    }
                }
            }
        }
    }
}
