//! Rows of a cache = rows of x.

use super::{Draw, Operation, uniform};
use crate::rng::Rng;
use candlewick::op::{CopyRows, Operand};
use candlewick::{DType, Op};

/// Rows to slots, each of which is named once at most.
pub(crate) struct Slots;

fn copies(sizes: &[(usize, usize, usize)], dtype: DType) -> Vec<Op> {
    sizes.iter().map(|&(rows, width, capacity)| CopyRows::new(rows, width, capacity, dtype).into()).collect()
}

impl Operation for Slots {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let sizes = [
            (1, 192, 4096),
            (512, 129, 600),
            (64, 64, 64),
            (1000, 1, 1000),
            (9, 70_001, 2),
            (7, 3, 0),
            (0, 3, 7),
            (7, 0, 3),
            (1, 1, 1),
        ];
        copies(&sizes, dtype)
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        copies(&[(1, 8, 9), (33, 256, 40), (2, 257, 3), (65, 7, 70), (3, 1030, 5), (1, 4096, 2)], dtype)
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [rows, width] = draw.sizes(1 << 15);
        let capacity = rows / 2 + draw.rng.below(rows + 20);
        CopyRows { x_row: draw.stride(width), ..CopyRows::new(rows, width, capacity, draw.dtype) }.into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let op = copy(op);
        match operand {
            "x" => vec![(op.rows, op.x_row), (op.width, 1)],
            "slots" => vec![(op.rows, 1)],
            _ => vec![(op.capacity, op.width), (op.width, 1)],
        }
    }

    fn ordinary(&self, op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        if operand.name != "slots" {
            return uniform(0.0, 1.0, count, rng);
        }
        // Every slot once, shuffled or in a row, then those that are skipped, which may repeat.
        let capacity = copy(op).capacity;
        let mut free: Vec<usize> = (0..capacity).collect();
        if rng.chance(60) {
            (1..capacity).for_each(|i| free.swap(i, rng.below(i + 1)));
        }
        let (skipped, first) = (rng.pick(&[0, 0, 15]), if capacity > count { rng.below(capacity - count) } else { 0 });
        let mut free = free.into_iter().skip(first);
        let mut slot = || if rng.chance(skipped) { None } else { free.next() };
        let slots: Vec<Option<usize>> = (0..count).map(|_| slot()).collect();
        let beyond = |rng: &mut Rng| rng.pick(&[capacity as f64, capacity as f64 + 1.0, u32::MAX.into()]);
        slots.into_iter().map(|slot| slot.map_or_else(|| beyond(rng), |slot| slot as f64)).collect()
    }
}

fn copy(op: &Op) -> &CopyRows {
    match op {
        Op::CopyRows(op) => op,
        _ => unreachable!("{op} copies no rows"),
    }
}
