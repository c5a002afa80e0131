//! One step of several sequences as a plan: some rows in, the logits of each sequence's last row out.

use super::adapters::Adapters;
use crate::Result;
use crate::decoder::{Base, Cache, Decoder, Linears, Rows};
use candlewick::op::Cast;
use candlewick::plan::{Recorder, Tensor};
use candlewick::{DType, Plan};
use candlewick_model::Module;
use std::ops::Range;

/// A step's plan for so many rows of so many sequences. Everything that changes from step to step is one input of integers:
/// a step is one copy in, one submission, one copy out.
pub(super) struct Step {
    plan: Plan,
    control: Tensor,
    logits: Tensor,
    vocab: usize,
    words: Vec<u32>,
    sections: Sections,
}

/// Some rows of one sequence.
pub(super) struct Piece<'a> {
    /// Its region of the cache.
    pub region: usize,
    /// The position of the first of these tokens.
    pub first: usize,
    /// Consecutive tokens.
    pub tokens: &'a [u32],
    /// The adapter's slot, or the number of slots for none.
    pub adapter: u32,
}

/// Where in the input each table lies.
struct Sections {
    ids: Range<usize>,
    positions: Range<usize>,
    /// The row of the cache of each row.
    slots: Range<usize>,
    /// The adapter of each row.
    adapters: Range<usize>,
    spans: Range<usize>,
    /// The last row of each sequence.
    last: Range<usize>,
    /// The adapter of each sequence.
    last_adapters: Range<usize>,
    words: usize,
}

impl Sections {
    fn new(rows: usize, sequences: usize) -> Sections {
        let mut words = 0;
        let mut section = |length: usize| {
            let start = words;
            // Each begins where vectors may be read.
            words = (start + length).next_multiple_of(64);
            start..start + length
        };
        let [ids, positions, slots, adapters] = [rows; 4].map(&mut section);
        let [spans, last, last_adapters] = [4 * sequences, sequences, sequences].map(&mut section);
        Sections { ids, positions, slots, adapters, spans, last, last_adapters, words }
    }
}

impl Step {
    pub(super) fn new(
        decoder: &Decoder,
        cache: &Cache,
        adapters: &Adapters,
        rows: usize,
        sequences: usize,
    ) -> Result<Step> {
        let sections = Sections::new(rows, sequences);
        let (plan, (control, logits)) = decoder.session().record(|p| {
            let control = p.input("control", 1, sections.words, DType::U32);
            let part = |p: &mut Recorder, range: &Range<usize>| p.columns(control, range.clone());
            let spans = part(p, &sections.spans)?;
            let input = Rows {
                ids: part(p, &sections.ids)?,
                positions: part(p, &sections.positions)?,
                spans: p.reshape(spans, sequences, 4)?,
                cache: Some((cache, part(p, &sections.slots)?)),
                // One row is the last of its sequence.
                wanted: if rows > 1 { Some(part(p, &sections.last)?) } else { None },
            };
            let (of_rows, of_last) = (part(p, &sections.adapters)?, part(p, &sections.last_adapters)?);
            let mut linears = Adapted { adapters, of_rows, of_last };
            let hidden = decoder.record(p, &input, &mut linears)?;
            let logits = decoder.head(p, hidden, &mut linears)?;
            let logits = match decoder.dtype() {
                DType::F32 => logits,
                dtype => {
                    let wide = p.op(Cast::new(sequences * decoder.config().vocab, dtype, DType::F32), &[logits])?[0];
                    p.reshape(wide, sequences, decoder.config().vocab)?
                }
            };
            Ok((control, p.output(logits)?))
        })?;
        let vocab = decoder.config().vocab;
        Ok(Step { plan, control, logits, vocab, words: vec![0; sections.words], sections })
    }

    /// Computes the pieces and writes the logits of each one's last row, in their order.
    ///
    /// # Panics
    /// Where there are more pieces or rows than the step has.
    pub(super) fn run(&mut self, cache: &Cache, pieces: &[Piece<'_>], none: u32, logits: &mut Vec<f32>) -> Result<()> {
        let Step { words, sections, .. } = self;
        words.fill(0);
        words[sections.slots.clone()].fill(u32::MAX);
        words[sections.adapters.clone()].fill(none);
        words[sections.last_adapters.clone()].fill(none);
        let mut row = 0;
        for (nth, piece) in pieces.iter().enumerate() {
            let (count, tokens) = (piece.tokens.len(), piece.first + piece.tokens.len());
            words[sections.ids.clone()][row..row + count].copy_from_slice(piece.tokens);
            words[sections.adapters.clone()][row..row + count].fill(piece.adapter);
            for i in 0..count {
                words[sections.positions.clone()][row + i] = (piece.first + i) as u32;
                words[sections.slots.clone()][row + i] = cache.slot(piece.region, piece.first + i);
            }
            let span = cache.span(piece.region, tokens, row, count);
            words[sections.spans.clone()][4 * nth..4 * nth + 4].copy_from_slice(&span);
            row += count;
            words[sections.last.clone()][nth] = (row - 1) as u32;
            words[sections.last_adapters.clone()][nth] = piece.adapter;
        }
        self.plan.write(self.control, words)?;
        // Reading waits.
        let _ = self.plan.submit()?;
        logits.resize(self.sections.last.len() * self.vocab, 0.0);
        self.plan.read(self.logits, logits)?;
        Ok(())
    }
}

/// Linear layers with the adapter of each row.
struct Adapted<'a> {
    adapters: &'a Adapters,
    of_rows: Tensor,
    of_last: Tensor,
}

impl Linears for Adapted<'_> {
    fn linear(&mut self, p: &mut Recorder, module: Module, x: Tensor, base: &Base) -> candlewick::Result<Tensor> {
        let y = p.linear(x, base.weight, base.bias)?;
        let of = if module == Module::Head { self.of_last } else { self.of_rows };
        self.adapters.add(p, module, x, of, y)
    }
}
