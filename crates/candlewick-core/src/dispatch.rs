//! Which engine runs an operation: measurements where there are any, the backend's own order where there are none.

use crate::backend::Engine;
use crate::op::OpClass;
use crate::{DType, Error, Op, Result};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// The sizes of an operation, each as the power of two at or above it: shapes of one bucket share an engine.
///
/// m, n, k, batch for a product; rows, in, out, rank for LoRA; queries, keys, heads, head for attention; rows, columns for
/// most others. What else changes the work at equal sizes, such as the format of blocks, is a fourth number; the layout of
/// a product's factors is above its batch, 2^16 apart: engines that are level at one layout are not at another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket([u8; 4]);

/// Powers of two between the layouts of a product's factors in its bucket.
const LAYOUT: usize = 16;

impl Bucket {
    /// The bucket of an operation.
    pub fn of(op: &Op) -> Self {
        let sizes = match op {
            Op::MatMul(op) => {
                let layout = usize::from(op.trans_b) + 2 * usize::from(op.trans_a);
                [op.m, op.n, op.k, op.batch.count().clamp(1, 1 << 15) << (LAYOUT * layout)]
            }
            Op::Softmax(op) | Op::SoftmaxBackward(op) => [op.rows, op.cols, 1, 1],
            Op::RmsNorm(op) | Op::RmsNormBackward(op) => [op.rows, op.cols, 1, 1],
            Op::LoraLinear(op) | Op::LoraLinearBackward(op) => [op.rows, op.in_features, op.out_features, op.rank],
            Op::LoraDelta(op) | Op::LoraDeltaBackward(op) => [op.rows, op.in_features, op.out_features, op.rank],
            Op::LoraRows(op) => [op.rows, op.in_features, op.out_features, op.rank],
            Op::Embedding(op) | Op::EmbeddingBackward(op) => [op.tokens, op.width, op.vocab, 1],
            Op::Rope(op) | Op::RopeBackward(op) => [op.rows, op.heads, op.head, 1 << op.pairs as usize],
            Op::Attention(op) | Op::AttentionBackward(op) => [op.queries, op.keys, op.heads, op.head],
            Op::SiluMul(op) | Op::SiluMulBackward(op) => [op.rows, op.cols, 1, 1],
            Op::Add(op) => [op.rows, op.cols, 1, 1],
            Op::Cast(op) => [op.elements, 1, 1, 1 << op.from as usize],
            Op::Dropout(op) => [op.rows, op.cols, 1, 1],
            Op::CrossEntropyStats(op) => [op.rows, op.cols, 1, 1],
            Op::CrossEntropyLoss(op) => [op.rows, 1, 1, 1],
            Op::CrossEntropyGrad(op) => [op.rows, op.cols, 1, 1],
            Op::SumSquares(op) => [op.elements, 1, 1, 1],
            Op::AdamW(op) => [op.elements, 1, 1, 1],
            Op::CopyRows(op) => [op.rows, op.width, 1, 1],
            Op::Dequantize(op) => [op.rows, op.cols, 1, 1 << op.format as usize],
            Op::QuantLinear(op) => {
                let kind = op.format as usize + 8 * op.activations as usize;
                [op.rows, op.in_features, op.out_features, 1 << kind]
            }
        };
        // 0 and 1 have exponent 0; 2 has 1; 3 and 4 have 2; ..
        Bucket(sizes.map(|size| (u64::BITS - (size as u64).saturating_sub(1).leading_zeros()) as u8))
    }

    /// From exponents of two, as a profile stores them.
    pub const fn from_exponents(exponents: [u8; 4]) -> Self {
        Bucket(exponents)
    }

    /// The exponents of two of the four numbers.
    pub const fn exponents(self) -> [u8; 4] {
        self.0
    }

    /// How far apart two are, as the largest factor between their sizes, in powers of two.
    fn distance(self, other: Bucket) -> (u8, u32) {
        let apart = |i: usize| self.0[i].abs_diff(other.0[i]);
        let all = [apart(0), apart(1), apart(2), apart(3)];
        (all.into_iter().max().unwrap_or(0), all.into_iter().map(u32::from).sum())
    }
}

/// Why an engine was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// It was the fastest of those measured at these sizes on this device, in microseconds per operation.
    Measured {
        /// Its median.
        microseconds: f32,
    },
    /// It was the fastest at sizes of the nearest bucket that was measured, at most a factor of four away in every size.
    Near {
        /// That bucket.
        bucket: Bucket,
        /// Its median there.
        microseconds: f32,
    },
    /// Nothing was measured: the backend's own order.
    Default,
}

/// An engine, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The engine.
    pub engine: Engine,
    /// Why.
    pub reason: Reason,
}

/// A row of the table: an operation's class, sizes and dtype.
pub type Key = (OpClass, Bucket, DType);

/// What was measured on one device.
#[derive(Clone, Debug, Default)]
pub struct DispatchTable {
    measured: HashMap<Key, Vec<(Engine, f32)>>,
    /// The sizes that were measured; where there are none, the times speak for every shape of the bucket.
    sizes: HashMap<Key, String>,
}

/// Powers of two that a measured bucket may be away in every size, to speak for another.
const NEAR: u8 = 2;
/// An engine takes the place of the backend's first choice when it was faster by so much: less is noise.
const CLEARLY: f32 = 0.97;
/// The same where only other sizes were measured: the backend's own order knows the sizes themselves. (On an H100 products
/// of 1024 spoke for those of 576, and a training step took 6% longer.)
const CLEARLY_NEAR: f32 = 0.6;

impl DispatchTable {
    /// A table without measurements: every decision is the backend's default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that `engine` took `microseconds` for `op`; a later figure replaces an earlier one.
    pub fn record(&mut self, op: &Op, engine: Engine, microseconds: f32) {
        self.insert((op.class(), Bucket::of(op), op.dtype()), Some(&op.shape()), engine, microseconds);
    }

    /// The same for a row by its key, and by the shape that was measured, as [`Op::shape`] prints it. Without a shape it
    /// speaks for the whole bucket.
    pub fn insert(&mut self, key: Key, shape: Option<&str>, engine: Engine, microseconds: f32) {
        if let Some(shape) = shape {
            self.sizes.insert(key, sizes_of(shape));
        }
        let row = self.measured.entry(key).or_default();
        row.retain(|(known, _)| *known != engine);
        row.push((engine, microseconds));
        row.sort_by(|a, b| a.1.total_cmp(&b.1));
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.measured.is_empty()
    }

    /// The measurements that decide about `op`, fastest first, and the bucket that they are of.
    pub fn measurements(&self, op: &Op) -> Option<(Bucket, &[(Engine, f32)])> {
        let (class, bucket, dtype) = (op.class(), Bucket::of(op), op.dtype());
        if let Some(row) = self.measured.get(&(class, bucket, dtype)) {
            return Some((bucket, row));
        }
        // The key itself breaks ties, so that the same table always decides alike.
        let near = self.measured.iter().filter(|((of, _, in_dtype), _)| (*of, *in_dtype) == (class, dtype));
        let near = near.map(|((_, other, _), row)| (bucket.distance(*other), *other, row.as_slice()));
        let nearest =
            near.filter(|((most, _), ..)| *most <= NEAR).min_by_key(|&(distance, other, _)| (distance, other));
        nearest.map(|(_, other, row)| (other, row))
    }

    /// The engine for `op` among `candidates`, which come in the backend's own order of preference.
    pub fn choose(&self, op: &Op, candidates: &[Engine]) -> Option<Decision> {
        let &first = candidates.first()?;
        let Some((bucket, row)) = self.measurements(op) else {
            return Some(Decision { engine: first, reason: Reason::Default });
        };
        let time = |engine: Engine| row.iter().find(|(known, _)| *known == engine).map(|&(_, time)| time);
        let Some(&(fastest, least)) = row.iter().find(|(engine, _)| candidates.contains(engine)) else {
            return Some(Decision { engine: first, reason: Reason::Default });
        };
        let sizes = self.sizes.get(&(op.class(), bucket, op.dtype()));
        let here = bucket == Bucket::of(op) && sizes.is_none_or(|sizes| *sizes == sizes_of(&op.shape()));
        let clearly = if here { CLEARLY } else { CLEARLY_NEAR };
        let (engine, microseconds) = match time(first) {
            Some(own) if least > clearly * own => (first, own),
            _ => (fastest, least),
        };
        let reason = if here { Reason::Measured { microseconds } } else { Reason::Near { bucket, microseconds } };
        Some(Decision { engine, reason })
    }
}

/// The sizes of a shape as it is printed, without what changes nothing here: how a factor is packed, a bias.
fn sizes_of(shape: &str) -> String {
    const OTHERWISE: [&str; 3] = ["packed", "bias", "added"];
    shape.split(' ').filter(|word| !OTHERWISE.contains(word)).collect::<Vec<_>>().join(" ")
}

/// `candidates` with the engine that the table chooses at their head.
pub fn in_order(table: &DispatchTable, op: &Op, mut candidates: Vec<Engine>) -> Vec<Engine> {
    if let Some(decision) = table.choose(op, &candidates)
        && let Some(at) = candidates.iter().position(|&engine| engine == decision.engine)
    {
        candidates[..=at].rotate_right(1);
    }
    candidates
}

/// Builds a kernel on the first of `candidates` that can: where an engine is refused by the driver or misses something at
/// run time, the next one takes over, with one warning per process. The first error is returned where none can.
///
/// # Errors
/// What the first candidate says; what is wrong with the operation itself at once.
pub fn first_that_builds<K>(
    op: &Op,
    candidates: &[Engine],
    mut build: impl FnMut(Engine) -> Result<K>,
) -> Result<(Engine, K)> {
    let mut first = None;
    for &engine in candidates {
        match build(engine) {
            Ok(kernel) => return Ok((engine, kernel)),
            Err(error @ (Error::Backend { .. } | Error::NoEngine { .. })) => {
                // An engine that has no algorithm for some sizes is no news; one that fails is.
                if matches!(error, Error::Backend { .. }) && is_news(engine) {
                    tracing::warn!("{op}: {engine} fails, the next engine takes over: {error}");
                }
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(first.unwrap_or_else(|| Error::no_engine(op, None, "here", candidates)))
}

/// The first time that it is asked about an engine.
fn is_news(engine: Engine) -> bool {
    static WARNED: Mutex<BTreeSet<Engine>> = Mutex::new(BTreeSet::new());
    WARNED.lock().unwrap_or_else(PoisonError::into_inner).insert(engine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MatMul;

    const FAST: Engine = Engine::new("cpu", "fast");
    const SLOW: Engine = Engine::new("cpu", "slow");

    #[test]
    fn measurements_overrule_the_default_near_them_only() {
        let op = Op::from(MatMul::new(64, 64, 64, DType::F32));
        let near = Op::from(MatMul::new(50, 33, 64, DType::F32));
        let neighbour = Op::from(MatMul::new(65, 64, 64, DType::F32));
        let far = Op::from(MatMul::new(1024, 64, 64, DType::F32));
        let mut table = DispatchTable::new();
        assert_eq!(table.choose(&op, &[SLOW, FAST]).unwrap().reason, Reason::Default);
        table.record(&op, SLOW, 5.0);
        table.record(&op, FAST, 2.0);
        assert_eq!(
            table.choose(&op, &[SLOW, FAST]).unwrap(),
            Decision { engine: FAST, reason: Reason::Measured { microseconds: 2.0 } }
        );
        assert_eq!(table.choose(&near, &[SLOW, FAST]).unwrap().engine, FAST);
        let turned = Op::from(MatMul::new(64, 64, 64, DType::F32).trans_b());
        assert_eq!(table.choose(&turned, &[SLOW, FAST]).unwrap().reason, Reason::Default, "another layout");
        let mut of_turned = DispatchTable::new();
        of_turned.record(&turned, FAST, 1.0);
        assert_eq!(of_turned.choose(&turned, &[SLOW, FAST]).unwrap().engine, FAST);
        assert_eq!(of_turned.choose(&op, &[SLOW, FAST]).unwrap().reason, Reason::Default);
        table.record(&op, FAST, 4.0);
        assert_eq!(table.choose(&op, &[SLOW, FAST]).unwrap().engine, FAST);
        assert_eq!(table.choose(&near, &[SLOW, FAST]).unwrap().engine, SLOW, "other sizes, and not clearly faster");
        table.record(&op, FAST, 2.0);
        let near = Reason::Near { bucket: Bucket::of(&op), microseconds: 2.0 };
        assert_eq!(table.choose(&neighbour, &[SLOW, FAST]).unwrap(), Decision { engine: FAST, reason: near });
        assert_eq!(table.choose(&far, &[SLOW, FAST]).unwrap().engine, SLOW);
        table.record(&op, FAST, 4.9);
        assert_eq!(table.choose(&op, &[SLOW, FAST]).unwrap().engine, SLOW, "two in a hundred are noise");
        table.record(&op, FAST, 9.0);
        assert_eq!(table.choose(&op, &[SLOW, FAST]).unwrap().engine, SLOW, "a later figure replaces an earlier one");
        assert_eq!(table.choose(&op, &[FAST]).unwrap().engine, FAST, "only candidates are chosen");
        assert_eq!(table.choose(&op, &[]), None);
    }

    #[test]
    fn the_next_engine_takes_over_from_one_that_fails() {
        let op = Op::from(MatMul::new(4, 4, 4, DType::F32));
        let failure = || Error::Backend { device: "cpu".into(), message: "refused".into() };
        let mut tried = Vec::new();
        let built = first_that_builds(&op, &[FAST, SLOW], |engine| {
            tried.push(engine);
            if engine == FAST { Err(failure()) } else { Ok(1) }
        });
        assert_eq!((built.unwrap(), tried), ((SLOW, 1), vec![FAST, SLOW]));
        assert!(!is_news(FAST), "it was warned of");
        let error = first_that_builds(&op, &[FAST, SLOW], |_| Err::<(), _>(failure())).unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
        // Running out of memory is no fault of the engine.
        let full = || Error::OutOfMemory { device: "cpu".into(), bytes: 1 };
        let mut tries = 0;
        let error = first_that_builds(&op, &[FAST, SLOW], |_| -> Result<()> {
            tries += 1;
            Err(full())
        });
        assert!(matches!(error, Err(Error::OutOfMemory { .. })) && tries == 1);
    }
}
