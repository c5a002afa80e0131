//! Losses, gradients and steps of the optimizer in random plans.

use super::generate::{Entry, Generator, Kind};
use super::given::{Content, Role};
use candlewick::op::{AdamW, SumSquares};
use candlewick::plan::{Budget, Tensor};
use candlewick::{DType, Result, Scalar};

impl Generator<'_> {
    /// A loss, its gradients with respect to some parameters that it depends on, and perhaps a step of the optimizer.
    pub(super) fn gradients(&mut self) -> Result<()> {
        let Some(x) = self.fitting(|entry| entry.depends != 0) else { return Ok(()) };
        let loss = if self.rng.chance(60) { self.cross_entropy(x)? } else { self.weighted_sum(x)? };
        self.results.push(self.p.output(loss)?);
        let mut parameters: Vec<Entry> = (self.parameters.iter().enumerate())
            .filter(|(index, _)| x.depends >> index & 1 == 1)
            .map(|(_, parameter)| *parameter)
            .collect();
        while parameters.len() > 1 && self.rng.chance(30) {
            parameters.swap_remove(self.rng.below(parameters.len()));
        }
        let tensors: Vec<Tensor> = parameters.iter().map(|parameter| parameter.tensor).collect();
        let budget = self.rng.pick(&[None, Some(0), Some(200), Some(2000), Some(20_000)]);
        let gradients = match budget {
            Some(bytes) if self.kind == Kind::Plain => self.p.grad_within(loss, &tensors, Budget::bytes(bytes))?,
            _ => self.p.grad(loss, &tensors)?,
        };
        let step = self.rng.chance(50);
        for &gradient in &gradients {
            if !step || self.rng.chance(50) {
                self.results.push(self.p.output(gradient)?);
            }
        }
        if step { self.optimizer(&parameters, &gradients) } else { Ok(()) }
    }

    fn cross_entropy(&mut self, x: Entry) -> Result<Tensor> {
        let vocab = 3 + self.rng.below(40);
        let w = if x.cols.is_multiple_of(32) && self.rng.chance(40) {
            self.blocks(vocab, x.cols)?
        } else {
            let scale = 1.5 / (x.cols as f64).sqrt();
            self.give("head", (vocab, x.cols), x.dtype, Role::Constant, Content::Uniform(scale))
        };
        let labels = self.give("labels", (1, x.rows), DType::U32, Role::Input, Content::Labels(vocab));
        let chunk = 1 + self.rng.below(vocab + 3);
        self.p.cross_entropy(x.tensor, w, labels, chunk)
    }

    fn weighted_sum(&mut self, x: Entry) -> Result<Tensor> {
        let left = self.p.filled(0.5, 1, x.rows, x.dtype);
        let right = self.give("weights", (x.cols, 1), x.dtype, Role::Input, Content::Uniform(1.0));
        let row = self.p.matmul(left, x.tensor)?;
        self.p.matmul(row, right)
    }

    /// AdamW on gradients without gaps: parameters change behind everything that read them.
    fn optimizer(&mut self, parameters: &[Entry], gradients: &[Tensor]) -> Result<()> {
        let recording = self.p.recording();
        let dense = |&tensor: &Tensor| {
            let (rows, cols, row) = recording.layout(tensor);
            rows <= 1 || row == cols
        };
        let steps: Vec<(Entry, Tensor)> =
            parameters.iter().copied().zip(gradients.iter().copied()).filter(|(_, gradient)| dense(gradient)).collect();
        let schedule = self.give("schedule", (1, 2), DType::F32, Role::Input, Content::Schedule);
        let squares = self.p.filled(0.0, 1, 1, DType::F32);
        let squares = self.p.cast(squares, DType::F32)?;
        for (nth, (parameter, gradient)) in steps.iter().enumerate() {
            let op = SumSquares::new(parameter.rows * parameter.cols, parameter.dtype);
            let op = if nth == 0 { op } else { op.accumulate() };
            self.p.op_into(op, &[*gradient], &[squares])?;
        }
        for (parameter, gradient) in steps {
            let (shape, dtype) = ((parameter.rows, parameter.cols), parameter.dtype);
            let master = self.state("master", shape, DType::F32, Content::Uniform(parameter.size))?;
            let m = self.state("m", shape, DType::F32, Content::Uniform(0.1))?;
            let v = self.state("v", shape, DType::F32, Content::Squares)?;
            let op = AdamW { max_norm: Scalar(1.0), ..AdamW::new(shape.0 * shape.1, dtype) };
            self.p.op_into(op, &[gradient, squares, schedule], &[master, m, v, parameter.tensor])?;
        }
        Ok(())
    }
}
