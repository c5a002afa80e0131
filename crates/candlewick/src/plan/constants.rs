//! How the constants of a plan get their numbers: from the caller, or from where they come from; packed, or as they are.

use super::graph::Kind;
use super::session::{Forms, Numbers, Shared};
use super::{Plan, Tensor};
use crate::{DType, Element, Kernel, Result};

/// Bytes of rows that a source is asked for at a time.
const CHUNK: usize = 1 << 20;

impl Plan {
    /// Gives a constant its numbers, row by row: packed for its readers, or as they are. The caller's copy is not needed
    /// any more.
    ///
    /// # Errors
    /// A tensor that is no constant of this plan, another length or dtype, [`Error::OutOfMemory`](crate::Error).
    pub fn load<T: Element>(&mut self, constant: Tensor, from: &[T]) -> Result<()> {
        self.check::<T>("load", constant, from.len())?;
        let storage = self.graph.view(constant).storage;
        let Kind::Constant(shared) = &self.graph.storages[storage].kind else {
            return Err(self.not("load", constant, "it is no constant: use `Plan::write`"));
        };
        let mut forms = shared.tensor().forms();
        self.pack(storage, &mut forms, from)?;
        if self.reads_plain(storage) {
            let mut stream = self.session.stream();
            let memory = match forms.plain.take() {
                Some(memory) => memory,
                None => stream.memory(size_of_val(from))?,
            };
            stream.store(forms.plain.insert(memory), 0, from)?;
        }
        drop(forms);
        self.tape = None;
        Ok(())
    }

    /// Asks sources for what the operations read and nobody has needed yet.
    pub(super) fn load_from_sources(&self) -> Result<()> {
        for (storage, described) in self.graph.storages.iter().enumerate() {
            let Kind::Constant(shared) = &described.kind else { continue };
            if shared.tensor().source.is_none() {
                continue;
            }
            match described.dtype {
                DType::F32 => self.load_from_source::<f32>(storage, shared, |to| Numbers::F32(to))?,
                DType::F16 => self.load_from_source::<half::f16>(storage, shared, |to| Numbers::F16(to))?,
                DType::BF16 => self.load_from_source::<half::bf16>(storage, shared, |to| Numbers::BF16(to))?,
                DType::U32 => self.load_from_source::<u32>(storage, shared, |to| Numbers::U32(to))?,
                DType::U8 => self.load_from_source::<u8>(storage, shared, |to| Numbers::U8(to))?,
            }
        }
        Ok(())
    }

    fn load_from_source<T: Element>(
        &self,
        storage: usize,
        shared: &Shared,
        numbers: for<'a> fn(&'a mut [T]) -> Numbers<'a>,
    ) -> Result<()> {
        let ((rows, cols), tensor) = (shared.shape(), shared.tensor());
        let Some(source) = &tensor.source else { return Ok(()) };
        let mut forms = tensor.forms();
        if self.packers(storage).any(|kernel| lacks(&forms, kernel)) {
            let mut whole = vec![T::default(); rows * cols];
            source(0..rows, numbers(&mut whole))?;
            self.pack(storage, &mut forms, &whole)?;
        }
        if forms.plain.is_none() && self.reads_plain(storage) {
            let row_bytes = cols * T::DTYPE.bytes();
            let memory = self.session.stream().memory(rows * row_bytes)?;
            let step = (CHUNK / row_bytes.max(1)).clamp(1, rows.max(1));
            let mut chunk = vec![T::default(); step * cols];
            for first in (0..rows).step_by(step) {
                let some = first..rows.min(first + step);
                let to = &mut chunk[..some.len() * cols];
                source(some, numbers(to))?;
                self.session.stream().store(&memory, first * row_bytes, to)?;
            }
            forms.plain = Some(memory);
        }
        Ok(())
    }

    /// Packs a constant for each kernel that wants it in an order that it does not have yet.
    fn pack<T: Element>(&self, storage: usize, forms: &mut Forms, from: &[T]) -> Result<()> {
        let mut stream = self.session.stream();
        for kernel in self.packers(storage) {
            if let Some(packing) = kernel.packing().filter(|_| lacks(forms, kernel)) {
                let mut plain = self.session.device.alloc(T::DTYPE, from.len())?;
                stream.write(&mut plain, from)?;
                let packed = stream.pack(kernel, (&plain).into())?;
                forms.packed.push((packing, stream.adopt(packed)?));
            }
        }
        Ok(())
    }

    /// The kernels that read a constant's storage packed.
    fn packers(&self, storage: usize) -> impl Iterator<Item = &Kernel> {
        self.graph.nodes.iter().zip(&self.kernels).filter_map(move |(node, kernel)| {
            let factor = node.op.packed_factor()?;
            (self.graph.view(node.inputs[factor.input]).storage == storage).then_some(kernel)
        })
    }

    /// Whether an operation reads a constant's storage as it is.
    fn reads_plain(&self, storage: usize) -> bool {
        self.graph.nodes.iter().any(|node| {
            let packed = node.op.packed_factor().map(|factor| factor.input);
            let mut plain = node.inputs.iter().enumerate().filter(|&(i, _)| Some(i) != packed);
            plain.any(|(_, &tensor)| self.graph.view(tensor).storage == storage)
        })
    }
}

fn lacks(forms: &Forms, kernel: &Kernel) -> bool {
    kernel.packing().is_some_and(|packing| forms.packed.iter().all(|(known, _)| *known != packing))
}
