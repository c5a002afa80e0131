//! Adapters beside the base: swapped without touching it, each row of a batch with its own.

use crate::decoder::Decoder;
use crate::{Error, Result};
use candlewick::plan::{Recorder, Session, Shared, Tensor};
use candlewick::{DType, Element};
use candlewick_model::{Adapter, Fitted, Format, Module, Part, Role};
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A loaded adapter, by handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdapterId {
    slot: usize,
    /// Tells the adapters apart that a slot has held.
    serial: u64,
}

/// The loaded adapters: for each module that one of them adapts, the A, B and scales of all slots as states, so that a swap
/// is a copy into them. A slot's unused ranks are zero; a slot that does not adapt a module has scale zero there.
pub(super) struct Adapters {
    slots: Vec<Option<Loaded>>,
    rank: usize,
    modules: BTreeMap<Module, States>,
    biases: BTreeMap<Module, Bias>,
    serial: u64,
}

struct Loaded {
    fitted: Fitted,
    strength: f64,
    serial: u64,
}

struct States {
    /// [slots · rank, in].
    a: Shared,
    /// [slots · out, rank].
    b: Shared,
    /// [slots, 1] in f32.
    scales: Shared,
}

/// Biases that adapters replace.
struct Bias {
    /// [slots + 1, out]: what a slot's bias differs from the model's by; the last row is zero.
    deltas: Shared,
    /// The model's.
    base: Vec<f32>,
}

impl Adapters {
    pub(super) fn new() -> Adapters {
        Adapters { slots: Vec::new(), rank: 0, modules: BTreeMap::new(), biases: BTreeMap::new(), serial: 0 }
    }

    /// The slot that stands for no adapter.
    pub(super) fn none(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn slot(&self, id: Option<AdapterId>) -> Result<u32> {
        let Some(id) = id else { return Ok(self.none()) };
        self.loaded(id).map(|_| id.slot as u32)
    }

    /// What the numbers in the cache depend on.
    pub(super) fn key(&self, id: Option<AdapterId>) -> Option<(u64, u64)> {
        let loaded = self.loaded(id?).ok()?;
        Some((loaded.serial, loaded.strength.to_bits()))
    }

    pub(super) fn name(&self, id: AdapterId) -> Result<&str> {
        self.loaded(id).map(|loaded| &*loaded.fitted.name)
    }

    fn loaded(&self, id: AdapterId) -> Result<&Loaded> {
        let loaded = self.slots.get(id.slot).and_then(|slot| slot.as_ref().filter(|it| it.serial == id.serial));
        loaded.ok_or_else(|| Error::refused("adapter", "it was unloaded", "load it again"))
    }

    /// Puts an adapter into a free slot. The flag says whether states are other ones now, so that plans must be recorded
    /// anew: where this adapter has a module or a rank that none before it had, or no slot is free.
    pub(super) fn load(&mut self, decoder: &Decoder, adapter: &Adapter, strength: f64) -> Result<(AdapterId, bool)> {
        let fitted = adapter.fit(decoder.config())?;
        let free = self.slots.iter().position(Option::is_none);
        let rank = fitted.modules.values().map(|lora| lora.rank()).max().unwrap_or(0).max(self.rank);
        let known = |module: &Module| self.modules.contains_key(module);
        let known_bias = |module: &Module| self.biases.contains_key(module);
        let grows = free.is_none()
            || rank > self.rank
            || !fitted.modules.keys().all(known)
            || !fitted.biases.keys().all(known_bias);
        let slot = free.unwrap_or(self.slots.len());
        if free.is_none() {
            self.slots.resize_with((2 * slot).max(1), || None);
        }
        self.serial += 1;
        let (session, id) = (decoder.session(), AdapterId { slot, serial: self.serial });
        self.slots[slot] = Some(Loaded { fitted, strength, serial: self.serial });
        if grows {
            self.rank = rank;
            self.declare(decoder)?;
            for slot in 0..self.slots.len() {
                self.store(session, decoder.dtype(), slot)?;
            }
        } else {
            self.store(session, decoder.dtype(), slot)?;
        }
        Ok((id, grows))
    }

    /// Frees an adapter's slot.
    pub(super) fn unload(&mut self, id: AdapterId) -> Result<()> {
        self.loaded(id)?;
        self.slots[id.slot] = None;
        Ok(())
    }

    /// Scales an adapter anew.
    pub(super) fn set_strength(&mut self, decoder: &Decoder, id: AdapterId, strength: f64) -> Result<()> {
        self.loaded(id)?;
        if let Some(loaded) = &mut self.slots[id.slot] {
            loaded.strength = strength;
        }
        self.store_scales(decoder.session(), decoder.dtype(), id.slot)
    }

    /// New states for every module of every loaded adapter.
    fn declare(&mut self, decoder: &Decoder) -> Result<()> {
        let (session, dtype, slots, rank) = (decoder.session(), decoder.dtype(), self.slots.len(), self.rank);
        (self.modules, self.biases) = (BTreeMap::new(), BTreeMap::new());
        for loaded in self.slots.iter().flatten() {
            for &module in loaded.fitted.modules.keys() {
                let [out, input] = module.role().shape(decoder.config());
                let state = |what: &str, rows, cols, dtype| {
                    session.state(&format!("{what} of {}", module.name()), rows, cols, dtype)
                };
                if let Entry::Vacant(place) = self.modules.entry(module) {
                    let a = state("A", slots * rank, input, dtype)?;
                    let b = state("B", slots * out, rank, dtype)?;
                    place.insert(States { a, b, scales: state("scales", slots, 1, DType::F32)? });
                }
            }
            for &module in loaded.fitted.biases.keys() {
                let (Some(role), false) = (bias_role(module), self.biases.contains_key(&module)) else { continue };
                let weight = decoder.weights().get(role)?;
                let Format::Float(stored) = weight.format else { continue };
                let base =
                    candlewick_model::Tensor { shape: vec![weight.cols], dtype: stored, bytes: weight.bytes.to_vec() };
                let name = format!("biases of {}", module.name());
                let deltas = session.state(&name, slots + 1, weight.cols, dtype)?;
                self.biases.insert(module, Bias { deltas, base: base.to_f32() });
            }
        }
        Ok(())
    }

    /// Copies a slot's adapter into the states.
    fn store(&self, session: &Session, dtype: DType, slot: usize) -> Result<()> {
        let Some(loaded) = &self.slots[slot] else { return Ok(()) };
        for (module, states) in &self.modules {
            let Some(lora) = loaded.fitted.modules.get(module) else { continue };
            let ([out, input], rank) = (lora.shape(), lora.rank());
            let (mut a, mut b) = (vec![0.0; self.rank * input], vec![0.0; out * self.rank]);
            a[..rank * input].copy_from_slice(&lora.a.to_f32());
            let numbers = lora.b.to_f32();
            let rows = b.chunks_exact_mut(self.rank).zip(numbers.chunks_exact(rank));
            rows.for_each(|(to, from)| to[..rank].copy_from_slice(from));
            store(session, dtype, &states.a, slot * self.rank, &a)?;
            store(session, dtype, &states.b, slot * out, &b)?;
        }
        self.store_scales(session, dtype, slot)
    }

    fn store_scales(&self, session: &Session, dtype: DType, slot: usize) -> Result<()> {
        let Some(loaded) = &self.slots[slot] else { return Ok(()) };
        for (module, states) in &self.modules {
            let scale = loaded.fitted.modules.get(module).map_or(0.0, |lora| loaded.strength * lora.scale);
            session.store_rows(&states.scales, slot, &[scale as f32])?;
        }
        for (module, bias) in &self.biases {
            let deltas: Vec<f32> = match loaded.fitted.biases.get(module) {
                Some(new) => {
                    let pairs = new.to_f32().into_iter().zip(&bias.base);
                    pairs.map(|(new, base)| (loaded.strength * f64::from(new - base)) as f32).collect()
                }
                None => vec![0.0; bias.base.len()],
            };
            store(session, dtype, &bias.deltas, slot, &deltas)?;
        }
        Ok(())
    }

    /// Records what the adapters of the rows add to y.
    pub(super) fn add(
        &self,
        p: &mut Recorder,
        module: Module,
        x: Tensor,
        slots: Tensor,
        y: Tensor,
    ) -> candlewick::Result<Tensor> {
        if let Some(States { a, b, scales }) = self.modules.get(&module) {
            let factors = [p.shared(a)?, p.shared(b)?, p.shared(scales)?];
            p.lora_rows(x, factors, slots, y)?;
        }
        let Some(bias) = self.biases.get(&module) else { return Ok(y) };
        let table = p.shared(&bias.deltas)?;
        let deltas = p.embedding(slots, table)?;
        p.add(y, deltas)
    }
}

/// The role of a module's bias.
fn bias_role(module: Module) -> Option<Role> {
    match module {
        Module::Layer(layer, linear) => Some(Role::Layer(layer, Part::Bias(linear))),
        Module::Head => None,
    }
}

/// Rounds numbers to a state's dtype, into its rows from `first` on.
fn store(session: &Session, dtype: DType, state: &Shared, first: usize, numbers: &[f32]) -> candlewick::Result<()> {
    fn rounded<T: Element>(numbers: &[f32]) -> Vec<T> {
        numbers.iter().map(|&number| T::from_f64(number.into())).collect()
    }
    match dtype {
        DType::F16 => session.store_rows(state, first, &rounded::<f16>(numbers)),
        DType::BF16 => session.store_rows(state, first, &rounded::<bf16>(numbers)),
        _ => session.store_rows(state, first, numbers),
    }
}
