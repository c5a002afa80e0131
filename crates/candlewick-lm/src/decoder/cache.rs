//! The KV cache: keys and values of the tokens that a model has seen.

use super::Decoder;
use crate::Result;
use candlewick::plan::Shared;

/// Keys and values of every layer, [sequences · capacity, kv_width]: each sequence has a region of `capacity` rows.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(super) layers: Vec<(Shared, Shared)>,
    sequences: usize,
    capacity: usize,
}

impl Cache {
    /// Memory for so many sequences of at most `capacity` tokens each, in the dtype that the model computes with.
    ///
    /// # Errors
    /// [`OutOfMemory`](candlewick::Error::OutOfMemory).
    pub fn new(decoder: &Decoder, sequences: usize, capacity: usize) -> Result<Cache> {
        let (config, dtype) = (decoder.config(), decoder.dtype());
        let state = |name: String| decoder.session().state(&name, sequences * capacity, config.kv_width(), dtype);
        let layer = |layer| Ok((state(format!("keys of layer {layer}"))?, state(format!("values of layer {layer}"))?));
        let layers = (0..config.layers).map(layer).collect::<Result<_>>()?;
        Ok(Cache { layers, sequences, capacity })
    }

    /// How many sequences it holds.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// The most tokens of a sequence.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The row of a sequence's token.
    pub fn slot(&self, sequence: usize, position: usize) -> u32 {
        debug_assert!(sequence < self.sequences && position < self.capacity, "a slot within the cache");
        (sequence * self.capacity + position) as u32
    }

    /// What a span says of a sequence whose last rows are `queries` rows from `query` on, and which has `tokens` tokens with
    /// these.
    pub fn span(&self, sequence: usize, tokens: usize, query: usize, queries: usize) -> [u32; 4] {
        [query as u32, queries as u32, self.slot(sequence, 0), tokens as u32]
    }
}
