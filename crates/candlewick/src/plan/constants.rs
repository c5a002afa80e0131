//! Frozen numbers in memory: as they are, packed for the operations that read them, or as a part of a joined constant.
//!
//! A session's plans tell each constant what they read it as; loading it then makes exactly that: from the caller's
//! numbers, or from a source, such as a mapped file. A joined constant has several others one after the other, for a product that takes all of them at once (`rewrite/join.rs`). It is packed
//! when the last of them is loaded; until then it gathers their numbers on the host. So constants that are joined are
//! best loaded one after the other: a model's layers in their order.

use super::session::{Session, Shared, SharedTensor, check_slice};
use crate::{DType, Element, Memory, Op, Result};
use candlewick_core::backend::Packing;
use half::{bf16, f16};
use std::any::Any;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// Bytes of rows that a source is asked for at a time.
const CHUNK: usize = 1 << 20;

/// Writes some rows of a constant: see [`Session::constant_from`].
pub(super) type Source = dyn Fn(Range<usize>, Numbers<'_>) -> Result<()> + Send + Sync;

/// Where rows of a constant are to be written, row by row, in its dtype.
#[derive(Debug)]
pub enum Numbers<'a> {
    /// Of a constant in f32.
    F32(&'a mut [f32]),
    /// Of a constant in f16.
    F16(&'a mut [f16]),
    /// Of a constant in bf16.
    BF16(&'a mut [bf16]),
    /// Of a constant of integers.
    U32(&'a mut [u32]),
    /// Of a constant of bytes: quantised blocks.
    U8(&'a mut [u8]),
}

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

    /// The packings that are wanted and not there.
    fn missing(&self) -> Vec<(Packing, Op)> {
        let there = |packing: &Packing| self.packed.iter().any(|(known, _)| known == packing);
        self.wants_packed.iter().filter(|(packing, _)| !there(packing)).copied().collect()
    }

    /// Packs all numbers for whoever misses them.
    fn pack<T: Element>(&mut self, session: &Session, numbers: &[T]) -> Result<()> {
        let mut stream = session.stream();
        for (packing, op) in self.missing() {
            let kernel = stream.prepare(op)?;
            let mut plain = session.device.alloc(T::DTYPE, numbers.len())?;
            stream.write(&mut plain, numbers)?;
            let memory = stream.pack(&kernel, (&plain).into())?;
            self.packed.push((packing, stream.adopt(memory)?));
        }
        Ok(())
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

impl Shared {
    /// Asks the source, or those of the parts, for what the session's plans want and is not there yet.
    ///
    /// # Errors
    /// What a source says, [`crate::Error::OutOfMemory`].
    pub(crate) fn load_from_source(&self, session: &Session) -> Result<()> {
        let parts: Vec<Arc<SharedTensor>> = match self.tensor().parts.as_slice() {
            [] => vec![self.0.clone()],
            parts => parts.iter().filter_map(Weak::upgrade).collect(),
        };
        if parts.is_empty() || parts.iter().any(|part| part.source.is_none()) {
            return Ok(());
        }
        match self.tensor().dtype {
            DType::F32 => self.tensor().pull::<f32>(session, &parts, |to| Numbers::F32(to)),
            DType::F16 => self.tensor().pull::<f16>(session, &parts, |to| Numbers::F16(to)),
            DType::BF16 => self.tensor().pull::<bf16>(session, &parts, |to| Numbers::BF16(to)),
            DType::U32 => self.tensor().pull::<u32>(session, &parts, |to| Numbers::U32(to)),
            DType::U8 => self.tensor().pull::<u8>(session, &parts, |to| Numbers::U8(to)),
        }
    }
}

impl SharedTensor {
    fn pull<T: Element>(
        &self,
        session: &Session,
        parts: &[Arc<SharedTensor>],
        numbers: for<'a> fn(&'a mut [T]) -> Numbers<'a>,
    ) -> Result<()> {
        let forms = &mut *self.forms();
        let elements = self.rows * self.cols;
        if !forms.missing().is_empty() {
            let mut whole = vec![T::default(); elements];
            let mut rest = whole.as_mut_slice();
            for part in parts {
                let (to, behind) = rest.split_at_mut(part.rows * part.cols);
                part.ask(0..part.rows, numbers(to))?;
                rest = behind;
            }
            forms.pack(session, &whole)?;
        }
        if forms.wants_plain && forms.plain().is_none() {
            let memory = session.stream().memory(elements * T::DTYPE.bytes())?;
            let mut first = 0;
            for part in parts {
                let step = (CHUNK / (part.cols * T::DTYPE.bytes()).max(1)).clamp(1, part.rows.max(1));
                let mut chunk = vec![T::default(); step * part.cols];
                for row in (0..part.rows).step_by(step) {
                    let rows = row..part.rows.min(row + step);
                    let to = &mut chunk[..rows.len() * part.cols];
                    part.ask(rows, numbers(to))?;
                    session.stream().store(&memory, (first + row * part.cols) * T::DTYPE.bytes(), to)?;
                }
                first += part.rows * part.cols;
            }
            (forms.plain, forms.loaded) = (Some(memory), vec![true]);
        }
        Ok(())
    }

    fn ask(&self, rows: Range<usize>, to: Numbers<'_>) -> Result<()> {
        self.source.as_ref().map_or(Ok(()), |source| source(rows, to))
    }

    /// Takes the numbers of one part, whose first element is `first`.
    fn fill<T: Element>(&self, session: &Session, part: usize, first: usize, from: &[T]) -> Result<()> {
        let forms = &mut *self.forms();
        let (elements, parts) = (self.rows * self.cols, self.parts.len().max(1));
        if !forms.missing().is_empty()
            && let Some(numbers) = gather(&mut forms.gathered, elements, parts, part, first, from)
        {
            forms.pack(session, &numbers)?;
        }
        let mut stream = session.stream();
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
