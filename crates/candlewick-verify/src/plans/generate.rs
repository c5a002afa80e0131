//! Records a random plan. The same seed records the same plan, with handles in the same order.

use super::given::{Content, Given, Role};
use crate::rng::Rng;
use candlewick::plan::{Recorder, Recording, Tensor};
use candlewick::{DType, Result};

/// Columns of tensors: some are heads, some are blocks of quantised weights, some are none of these.
pub(super) const WIDTHS: [usize; 8] = [8, 16, 24, 32, 32, 33, 64, 5];

/// Above this magnitude a tensor is normalised before more grows from it.
const LARGE: f64 = 6.0;

/// Which kind of a plan is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As users have it: temporaries share memory, a gradient may have a budget.
    Plain,
    /// Every tensor is an output, so that it can be read after a run, and nothing is computed again.
    Observed,
}

/// A recorded plan.
pub(crate) struct Generated {
    /// What the caller gives it.
    pub(crate) given: Vec<Given>,
    /// What can be read after a run of either kind: outputs and states.
    pub(crate) results: Vec<Tensor>,
    /// The operations and their memory.
    pub(crate) recording: Recording,
}

/// A tensor that operations can read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) tensor: Tensor,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) dtype: DType,
    /// About the largest magnitude.
    pub(super) size: f64,
    /// Which parameters its numbers change with, as bits.
    pub(super) depends: u64,
    /// Whether an operation may write into it once more.
    pub(super) writable: bool,
    /// Whether it has no gaps between rows.
    pub(super) dense: bool,
}

/// A random plan in the making.
pub(super) struct Generator<'a> {
    pub(super) p: &'a mut Recorder,
    pub(super) rng: Rng,
    pub(super) kind: Kind,
    pub(super) rows: usize,
    pub(super) pool: Vec<Entry>,
    pub(super) given: Vec<Given>,
    pub(super) results: Vec<Tensor>,
    /// Whether gradients are taken. They need what operations read as it was: nothing is written again then.
    pub(super) gradients: bool,
    /// States that gradients are taken of.
    pub(super) parameters: Vec<Entry>,
}

/// Records the plan of a seed.
///
/// # Errors
/// What the recorder says: no random plan should be refused.
pub(crate) fn generate(p: &mut Recorder, seed: u64, kind: Kind) -> Result<Generated> {
    let mut rng = Rng::new(&[seed, 0x706c_616e]);
    let rows = rng.pick(&[1, 2, 3, 5, 7, 9, 16]);
    let gradients = rng.chance(60);
    let mut generator = Generator {
        p,
        rng,
        kind,
        rows,
        pool: Vec::new(),
        given: Vec::new(),
        results: Vec::new(),
        gradients,
        parameters: Vec::new(),
    };
    generator.record()?;
    let Generator { given, mut results, .. } = generator;
    let recording = p.recording();
    if kind == Kind::Observed {
        for tensor in recording.operations().flat_map(|operation| operation.outputs) {
            p.output(tensor)?;
        }
    }
    results.extend(given.iter().filter(|given| given.role == Role::State).map(|given| given.tensor));
    Ok(Generated { given, results, recording })
}

impl Generator<'_> {
    fn record(&mut self) -> Result<()> {
        let dtype = self.rng.pick(&[DType::F32, DType::F32, DType::F16, DType::BF16]);
        for _ in 0..1 + self.rng.below(2) {
            let cols = self.rng.pick(&WIDTHS);
            self.input(cols, dtype);
        }
        if self.rng.chance(50) {
            self.embedding(dtype)?;
        }
        for _ in 0..3 + self.rng.below(22) {
            self.step()?;
            if self.rng.chance(10) {
                let entry = self.any();
                self.output(entry)?;
            }
        }
        if self.gradients {
            self.gradients()?;
        }
        if self.rng.chance(30) {
            // Something behind the gradient, too.
            self.step()?;
        }
        let last = self.pool[self.pool.len() - 1];
        self.output(last)
    }

    /// Marks what is read after a run. A part is read as a part.
    pub(super) fn output(&mut self, entry: Entry) -> Result<()> {
        self.results.push(self.p.output(entry.tensor)?);
        Ok(())
    }

    fn input(&mut self, cols: usize, dtype: DType) {
        let tensor = self.give("x", (self.rows, cols), dtype, Role::Input, Content::Uniform(1.0));
        self.add(tensor, 1.0, 0);
    }

    /// A tensor that the caller gives numbers; states come from [`Generator::parameter`] and [`Generator::state`].
    pub(super) fn give(
        &mut self,
        name: &str,
        shape: (usize, usize),
        dtype: DType,
        role: Role,
        content: Content,
    ) -> Tensor {
        let (rows, cols) = shape;
        let tensor = match role {
            Role::Constant => self.p.constant(name, rows, cols, dtype),
            _ => self.p.input(name, rows, cols, dtype),
        };
        self.given.push(Given { tensor, dtype, elements: rows * cols, role, content });
        tensor
    }

    /// Numbers that runs update.
    pub(super) fn state(
        &mut self,
        name: &str,
        shape: (usize, usize),
        dtype: DType,
        content: Content,
    ) -> Result<Tensor> {
        let (rows, cols) = shape;
        let tensor = self.p.state(name, rows, cols, dtype)?;
        self.given.push(Given { tensor, dtype, elements: rows * cols, role: Role::State, content });
        Ok(tensor)
    }

    /// Numbers with a gradient, or frozen ones where there are parameters enough.
    pub(super) fn parameter(
        &mut self,
        name: &str,
        shape: (usize, usize),
        dtype: DType,
        content: Content,
    ) -> Result<Entry> {
        let size = if let Content::Uniform(size) = content { size } else { 1.5 };
        let (rows, cols) = shape;
        let entry = Entry {
            tensor: self.p.filled(0.0, 0, 0, dtype),
            rows,
            cols,
            dtype,
            size,
            depends: 0,
            writable: false,
            dense: true,
        };
        if self.parameters.len() == 64 || self.rng.chance(30) {
            let role = self.rng.pick(&[Role::Input, Role::Constant]);
            return Ok(Entry { tensor: self.give(name, shape, dtype, role, content), ..entry });
        }
        let depends = 1 << self.parameters.len();
        let entry = Entry { tensor: self.state(name, shape, dtype, content)?, depends, ..entry };
        self.parameters.push(entry);
        Ok(entry)
    }

    /// Puts a result into the pool.
    pub(super) fn add(&mut self, tensor: Tensor, size: f64, depends: u64) -> Entry {
        let ((rows, cols), dtype) = (self.p.shape(tensor), self.p.dtype(tensor));
        let entry = Entry { tensor, rows, cols, dtype, size, depends, writable: true, dense: true };
        self.pool.push(entry);
        entry
    }

    /// A tensor of the pool, the latest more often, normalised where it has grown large.
    pub(super) fn some(&mut self) -> Result<Entry> {
        let entry = self.any();
        if entry.size <= LARGE { Ok(entry) } else { self.rms_norm(entry) }
    }

    pub(super) fn any(&mut self) -> Entry {
        let count = self.pool.len();
        let latest = if self.rng.chance(60) { count.min(3) } else { count };
        self.pool[count - 1 - self.rng.below(latest)]
    }

    /// A small tensor of the pool that fits, if there is one.
    pub(super) fn fitting(&mut self, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let fitting: Vec<Entry> =
            self.pool.iter().copied().filter(|entry| entry.size <= LARGE && fits(entry)).collect();
        if fitting.is_empty() { None } else { Some(self.rng.pick(&fitting)) }
    }
}
