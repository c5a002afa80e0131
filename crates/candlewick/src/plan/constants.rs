//! Frozen numbers in memory: as they are, packed for the operations that read them, or as a part of a joined constant.
//!
//! A session's plans tell each constant what they read it as; loading it then makes exactly that. A joined constant has
//! several others one after the other, for a product that takes all of them at once (`rewrite/join.rs`). It is packed
//! when the last of them is loaded; until then it gathers their numbers on the host. So constants that are joined are
//! best loaded one after the other: a model's layers in their order.

use super::session::{Session, Shared, SharedTensor, check_slice};
use crate::{Element, Memory, Op, Result};
use candlewick_core::backend::Packing;
use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

/// What a shared tensor has in memory, and what its session's plans want of it.
#[derive(Default)]
pub(crate) struct Forms {
    pub(crate) plain: Option<Memory>,
    pub(crate) packed: Vec<(Packing, Memory)>,
    wants_plain: bool,
    /// One operation for each packing.
    wants_packed: Vec<(Packing, Op)>,
    /// The constants that this one is a part of.
    joined: Vec<Shared>,
    /// A joined constant's numbers on their way into a packing, a vector of its elements, and which parts are there.
    gathered: Option<(Box<dyn Any + Send>, Vec<bool>)>,
    /// Which parts of `plain` have numbers.
    loaded: Vec<bool>,
}

impl Forms {
    /// Of a state.
    pub(crate) fn of_memory(memory: Memory) -> Self {
        Forms { plain: Some(memory), loaded: vec![true], ..Forms::default() }
    }

    /// Where the numbers lie as they are, when all of them are there.
    pub(crate) fn plain(&self) -> Option<&Memory> {
        self.plain.as_ref().filter(|_| self.loaded.iter().all(|&loaded| loaded))
    }
}

impl Shared {
    /// The constant that has some others one after the other, by rows, or by columns for those of one row. The same for
    /// the same parts, as long as one of them is there.
    pub(crate) fn joined(parts: &[&Shared], columns: bool) -> Shared {
        let first = parts[0].tensor();
        let is_it = |joined: &&Shared| {
            let of = &joined.tensor().parts;
            of.len() == parts.len()
                && of.iter().zip(parts).all(|(part, other)| std::ptr::eq(part.as_ptr(), other.tensor()))
        };
        if let Some(known) = first.forms().joined.iter().find(is_it) {
            return known.clone();
        }
        let sum = |size: fn(&SharedTensor) -> usize| parts.iter().map(|part| size(part.tensor())).sum();
        let (rows, cols) = if columns { (1, sum(|part| part.cols)) } else { (sum(|part| part.rows), first.cols) };
        let name = parts.iter().map(|part| part.name()).collect::<Vec<_>>().join("+");
        let of = parts.iter().map(|part| Arc::downgrade(&part.0)).collect();
        let joined = Shared::made_of(of, name, rows, cols, first);
        parts.iter().for_each(|part| part.tensor().forms().joined.push(joined.clone()));
        joined
    }

    /// Remembers how an operation reads this constant.
    pub(crate) fn want(&self, op: &Op, packing: Option<Packing>) {
        let forms = &mut *self.tensor().forms();
        match packing {
            None => forms.wants_plain = true,
            Some(packing) if forms.wants_packed.iter().any(|(known, _)| *known == packing) => {}
            Some(packing) => forms.wants_packed.push((packing, *op)),
        }
    }

    /// Makes of a constant's numbers what the session's plans want, in all constants that have them.
    ///
    /// # Errors
    /// Another length or dtype, [`crate::Error::OutOfMemory`].
    pub(crate) fn load<T: Element>(&self, session: &Session, from: &[T]) -> Result<()> {
        let tensor = self.tensor();
        check_slice::<T>("load", [tensor.rows, tensor.cols], tensor.dtype, from.len())?;
        let joined = tensor.forms().joined.clone();
        tensor.fill(session, 0, 0, from)?;
        for whole in joined {
            let whole = whole.tensor();
            let before = whole.parts.iter().take_while(|part| !std::ptr::eq(part.as_ptr(), tensor));
            let sizes = before.map(|part| part.upgrade().map_or(0, |part| part.rows * part.cols));
            let (part, first) = sizes.fold((0, 0), |(part, first), size| (part + 1, first + size));
            whole.fill(session, part, first, from)?;
        }
        Ok(())
    }
}

impl SharedTensor {
    /// Takes the numbers of one part, whose first element is `first`.
    fn fill<T: Element>(&self, session: &Session, part: usize, first: usize, from: &[T]) -> Result<()> {
        let mut stream = session.stream();
        let forms = &mut *self.forms();
        let (elements, parts) = (self.rows * self.cols, self.parts.len().max(1));
        let packed = |packing: &Packing| forms.packed.iter().any(|(known, _)| known == packing);
        let missing: Vec<_> = forms.wants_packed.iter().filter(|(packing, _)| !packed(packing)).copied().collect();
        if !missing.is_empty()
            && let Some(numbers) = gather(&mut forms.gathered, elements, parts, part, first, from)
        {
            for (packing, op) in missing {
                let kernel = stream.prepare(op)?;
                let mut plain = session.device.alloc(T::DTYPE, elements)?;
                stream.write(&mut plain, &numbers)?;
                let memory = stream.pack(&kernel, (&plain).into())?;
                forms.packed.push((packing, stream.adopt(memory)?));
            }
        }
        if forms.wants_plain {
            if forms.plain.is_none() {
                forms.plain = Some(stream.memory(elements * T::DTYPE.bytes())?);
                forms.loaded = vec![false; parts];
            }
            if let Some(memory) = &forms.plain {
                stream.store(memory, first * T::DTYPE.bytes(), from)?;
                forms.loaded[part] = true;
            }
        }
        Ok(())
    }
}

/// All numbers, when this part is the last one.
fn gather<'a, T: Element>(
    gathered: &mut Option<(Box<dyn Any + Send>, Vec<bool>)>,
    elements: usize,
    parts: usize,
    part: usize,
    first: usize,
    from: &'a [T],
) -> Option<Cow<'a, [T]>> {
    if parts == 1 {
        return Some(from.into());
    }
    let zeros = || Box::new(vec![T::from_f64(0.0); elements]);
    let (numbers, there) = gathered.get_or_insert_with(|| (zeros(), vec![false; parts]));
    numbers.downcast_mut::<Vec<T>>()?[first..][..from.len()].copy_from_slice(from);
    there[part] = true;
    if there.contains(&false) {
        return None;
    }
    let (numbers, _) = gathered.take()?;
    Some(Cow::Owned(*numbers.downcast::<Vec<T>>().ok()?))
}
