//! The operations of the forward pass: pre-norm layers of attention and a gated MLP.

use super::{Base, Constant, Decoder, Linears, Rows};
use candlewick::op::{Attention, Rope};
use candlewick::plan::{Recorder, Tensor};
use candlewick::{Error, Result};
use candlewick_model::{Linear, Module, Part, Role};

impl Decoder {
    /// Records the model from tokens to the hidden states [wanted, hidden] that [`Decoder::head`] reads: embedding, every
    /// layer, the last norm of the rows that are wanted.
    ///
    /// # Errors
    /// Rows whose sizes contradict each other, what `linears` says.
    pub fn record(&self, p: &mut Recorder, rows: &Rows<'_>, linears: &mut dyn Linears) -> Result<Tensor> {
        p.int8_activations(self.int8);
        let table = self.weight(Role::Embedding)?;
        let mut x = match table.quant {
            Some(quant) => {
                let table = p.shared_quantised(&table.shared, quant)?;
                p.quant_embedding(rows.ids, table, self.dtype)?
            }
            None => {
                let table = p.shared(&table.shared)?;
                p.embedding(rows.ids, table)?
            }
        };
        for layer in 0..self.config().layers {
            let part = |part| Role::Layer(layer, part);
            let normed = self.norm(p, x, part(Part::AttentionNorm))?;
            let attended = self.attention(p, layer, normed, rows, linears)?;
            x = p.add(x, attended)?;
            let normed = self.norm(p, x, part(Part::MlpNorm))?;
            let gate = self.linear(p, layer, Linear::Gate, normed, linears)?;
            let up = self.linear(p, layer, Linear::Up, normed, linears)?;
            let hidden = p.silu_mul(gate, up)?;
            let down = self.linear(p, layer, Linear::Down, hidden, linears)?;
            x = p.add(x, down)?;
        }
        if let Some(wanted) = rows.wanted {
            x = p.embedding(wanted, x)?;
        }
        self.norm(p, x, Role::FinalNorm)
    }

    /// Records the output layer: the logits [rows, vocab] of hidden states.
    ///
    /// # Errors
    /// Hidden states of another width, what `linears` says.
    pub fn head(&self, p: &mut Recorder, hidden: Tensor, linears: &mut dyn Linears) -> Result<Tensor> {
        p.int8_activations(self.int8);
        let base = self.base(p, Module::Head)?;
        linears.linear(p, Module::Head, hidden, &base)
    }

    /// The frozen part of a linear layer: the head's is what [`Recorder::cross_entropy`] takes.
    ///
    /// # Errors
    /// A recorder of another session, a module that the model does not have.
    pub fn base(&self, p: &mut Recorder, module: Module) -> Result<Base> {
        let weight = self.weight(module.role())?;
        let weight = match weight.quant {
            Some(quant) => p.shared_quantised(&weight.shared, quant)?,
            None => p.shared(&weight.shared)?,
        };
        let bias = match module {
            Module::Layer(layer, linear) => Role::Layer(layer, Part::Bias(linear)),
            Module::Head => return Ok(Base { weight, bias: None }),
        };
        let bias = self.weights.get(&bias).map(|bias| p.shared(&bias.shared)).transpose()?;
        Ok(Base { weight, bias })
    }

    fn attention(
        &self,
        p: &mut Recorder,
        layer: usize,
        x: Tensor,
        rows: &Rows<'_>,
        linears: &mut dyn Linears,
    ) -> Result<Tensor> {
        let config = self.config();
        let q = self.linear(p, layer, Linear::Query, x, linears)?;
        let k = self.linear(p, layer, Linear::Key, x, linears)?;
        let v = self.linear(p, layer, Linear::Value, x, linears)?;
        let q = self.turned(p, q, config.heads, Role::Layer(layer, Part::QueryNorm), rows)?;
        let k = self.turned(p, k, config.kv_heads, Role::Layer(layer, Part::KeyNorm), rows)?;
        let (k, v) = match rows.cache {
            None => (k, v),
            Some((cache, slots)) => {
                let (keys, values) = &cache.layers[layer];
                let (keys, values) = (p.shared(keys)?, p.shared(values)?);
                p.copy_rows(k, slots, keys)?;
                p.copy_rows(v, slots, values)?;
                (keys, values)
            }
        };
        let ((queries, _), (keys, _), (sequences, _)) = (p.shape(q), p.shape(k), p.shape(rows.spans));
        let op = Attention::new(queries, keys, config.heads, config.kv_heads, config.head_dim, self.dtype);
        let y = p.attention(q, k, v, rows.spans, Attention { sequences, ..op })?;
        self.linear(p, layer, Linear::Output, y, linears)
    }

    /// q or k with each head normed, where the model does that, and turned by its row's position.
    fn turned(&self, p: &mut Recorder, x: Tensor, heads: usize, norm: Role, rows: &Rows<'_>) -> Result<Tensor> {
        let (count, width) = p.shape(x);
        let x = if self.config().qk_norm {
            let by_head = p.reshape(x, count * heads, self.config().head_dim)?;
            let normed = self.norm(p, by_head, norm)?;
            p.reshape(normed, count, width)?
        } else {
            x
        };
        let frequencies = p.shared(&self.frequencies)?;
        let op = Rope::new(count, heads, self.config().head_dim, self.dtype);
        p.rope(x, rows.positions, frequencies, Rope { pairs: self.config().rope.pairs, ..op })
    }

    fn linear(
        &self,
        p: &mut Recorder,
        layer: usize,
        linear: Linear,
        x: Tensor,
        linears: &mut dyn Linears,
    ) -> Result<Tensor> {
        let module = Module::Layer(layer, linear);
        let base = self.base(p, module)?;
        linears.linear(p, module, x, &base)
    }

    fn norm(&self, p: &mut Recorder, x: Tensor, role: Role) -> Result<Tensor> {
        let weight = self.numbers(p, role)?;
        p.rms_norm(x, weight, self.config().norm_eps)
    }

    /// A weight that is numbers.
    fn numbers(&self, p: &mut Recorder, role: Role) -> Result<Tensor> {
        p.shared(&self.weight(role)?.shared)
    }

    fn weight(&self, role: Role) -> Result<&Constant> {
        self.weights.get(&role).ok_or_else(|| Error::Descriptor {
            op: "decoder",
            field: "weight",
            value: role.hugging_face(),
            remedy: "this model has no such weight",
        })
    }
}
