//! The passes of a plan: the model with its adapters, from the positions of a batch to the loss.

use super::data::{Batch, IGNORED};
use super::{Error, Parameters, Result};
use crate::decoder::{Base, Decoder, Linears, Rows};
use candlewick::plan::{Recorder, Shared, Tensor};
use candlewick::{DType, Plan};
use candlewick_model::Module;

/// Sizes of a micro-batch, which a plan's descriptors keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Positions, filled ones and others.
    pub tokens: usize,
    /// The most documents.
    pub documents: usize,
    /// The most labels that are learned.
    pub learned: usize,
}

impl Sizes {
    /// What has room for either.
    pub fn of_both(self, other: Sizes) -> Sizes {
        let Sizes { tokens, documents, learned } = self;
        Sizes {
            tokens: tokens.max(other.tokens),
            documents: documents.max(other.documents),
            learned: learned.max(other.learned),
        }
    }
}

/// A plan's inputs and its loss.
pub(super) struct Pass {
    pub(super) plan: Plan,
    pub(super) rows: Rows<'static>,
    /// Which rows have labels; none where all may.
    pub(super) learned: Option<Tensor>,
    pub(super) labels: Tensor,
    pub(super) loss: Tensor,
    pub(super) sizes: Sizes,
}

impl Pass {
    /// Writes the inputs.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<()> {
        let Sizes { tokens, documents, learned } = self.sizes;
        let fits = batch.ids.len() == tokens && batch.documents.len() <= documents && batch.learned() <= learned;
        if !fits {
            let found = format!(
                "{} positions, {} documents, {} labels",
                batch.ids.len(),
                batch.documents.len(),
                batch.learned()
            );
            let remedy = format!("the plan has {tokens}, at most {documents} and at most {learned}");
            return Err(Error::option("batch", found, remedy));
        }
        self.plan.write(self.rows.ids, &batch.ids)?;
        self.plan.write(self.rows.positions, &batch.positions)?;
        self.plan.write(self.rows.spans, &batch.spans(documents))?;
        match self.learned {
            None => self.plan.write(self.labels, &batch.labels)?,
            Some(which) => {
                let labelled = batch.labels.iter().enumerate().filter(|&(_, &label)| label != IGNORED);
                let (mut rows, mut labels): (Vec<u32>, Vec<u32>) =
                    labelled.map(|(row, &label)| (row as u32, label)).unzip();
                rows.resize(learned, 0);
                labels.resize(learned, IGNORED);
                self.plan.write(which, &rows)?;
                self.plan.write(self.labels, &labels)?;
            }
        }
        Ok(())
    }
}

/// The model with the adapters of a plan.
#[derive(Clone)]
pub(super) struct Adapted {
    parameters: Parameters,
    /// A and B of each module.
    factors: Vec<(Tensor, Tensor)>,
    /// Seed and rate.
    dropout: Option<(Tensor, f32)>,
}

impl Adapted {
    pub(super) fn new(
        p: &mut Recorder,
        parameters: &Parameters,
        param: &Shared,
        dropout: Option<(Tensor, f32)>,
    ) -> candlewick::Result<Adapted> {
        let all = p.shared(param)?;
        let mut factors = Vec::new();
        for trained in &parameters.modules {
            let a = p.part(all, trained.a().start, trained.rank, trained.in_features)?;
            let b = p.part(all, trained.b().start, trained.out_features, trained.rank)?;
            factors.push((a, b));
        }
        Ok(Adapted { parameters: parameters.clone(), factors, dropout })
    }

    pub(super) fn tensors(&self) -> Vec<Tensor> {
        self.factors.iter().flat_map(|&(a, b)| [a, b]).collect()
    }

    /// Where each of these begins in the vector of all.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> + '_ {
        self.parameters.modules.iter().flat_map(|trained| [trained.a().start, trained.b().start])
    }
}

impl Linears for Adapted {
    #[track_caller]
    fn linear(&mut self, p: &mut Recorder, module: Module, x: Tensor, base: &Base) -> candlewick::Result<Tensor> {
        let Some(nth) = self.parameters.modules.iter().position(|trained| trained.module == module) else {
            return p.linear(x, base.weight, base.bias);
        };
        let ((a, b), scale) = (self.factors[nth], self.parameters.scale as f32);
        let Some((seed, rate)) = self.dropout else {
            return p.lora_linear(x, base.weight, base.bias, a, b, scale);
        };
        let y = p.linear(x, base.weight, base.bias)?;
        let x = p.dropout(x, seed, rate, nth as u32)?;
        let delta = p.lora_delta(x, a, b, scale)?;
        p.add(y, delta)
    }
}

/// Records the model up to the loss. The head sees the rows that have labels alone, where not all may have one.
pub(super) fn forward(
    p: &mut Recorder,
    decoder: &Decoder,
    mut adapted: Adapted,
    sizes: Sizes,
) -> candlewick::Result<(Rows<'static>, Option<Tensor>, Tensor, Tensor)> {
    let rows = Rows::uncached(p, sizes.tokens, sizes.documents);
    let hidden = decoder.record(p, &rows, &mut adapted)?;
    let labels = p.input("labels", 1, sizes.learned, DType::U32);
    let (hidden, learned) = if sizes.learned == sizes.tokens {
        (hidden, None)
    } else {
        let learned = p.input("learned", 1, sizes.learned, DType::U32);
        (p.embedding(learned, hidden)?, Some(learned))
    };
    let head = decoder.base(p, Module::Head)?;
    let (vocab, _) = p.shape(head.weight);
    let on_cpu = decoder.session().device().info().id.starts_with("cpu");
    let loss = p.cross_entropy(hidden, head.weight, labels, chunk(vocab, sizes.learned, on_cpu))?;
    Ok((rows, learned, labels, p.output(loss)?))
}

/// Rows of the vocabulary at a time: equal parts, whose logits take up to 64 MiB in f32 on a CPU (a cache would hold fewer,
/// but what is one chunk need not be computed twice: 256 rows of SmolLM2 are 6% faster), and
/// up to 512 MiB in 16 bits on a GPU, whose products want to be large.
fn chunk(vocab: usize, rows: usize, on_cpu: bool) -> usize {
    let logits: usize = if on_cpu { 1 << 24 } else { 1 << 28 };
    let most = (logits / rows.max(1)).clamp(512, vocab.max(512));
    vocab.div_ceil(vocab.div_ceil(most).max(1))
}
