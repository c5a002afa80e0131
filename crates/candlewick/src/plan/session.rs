//! A stream and what the plans on it share: frozen weights and states.

use super::Plan;
use super::constants::{Forms, Numbers, Source};
use super::recorder::Recorder;
use crate::{DType, Device, Element, Error, Result, Stream};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// One stream with the weights and states that its plans share: a model has a plan for prompts and one for tokens, over the
/// same weights and the same cache. Its plans run one at a time.
#[derive(Clone)]
pub struct Session {
    pub(crate) device: Device,
    stream: Arc<Mutex<Stream>>,
}

/// A weight or a state of a session, by handle.
#[derive(Clone)]
pub struct Shared(pub(super) Arc<SharedTensor>);

pub(crate) struct SharedTensor {
    pub(crate) name: String,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) dtype: DType,
    pub(crate) is_state: bool,
    /// The constants that this one is made of, if it is made of others.
    pub(crate) parts: Vec<Weak<SharedTensor>>,
    pub(super) source: Option<Box<Source>>,
    session: usize,
    forms: Mutex<Forms>,
}

impl Session {
    /// A new stream on a device.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Session { device: device.clone(), stream: Arc::new(Mutex::new(device.stream()?)) })
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A frozen [rows, cols] that plans read; [`Plan::load`] gives its numbers, once.
    pub fn constant(&self, name: &str, rows: usize, cols: usize, dtype: DType) -> Shared {
        Shared(Arc::new(self.tensor(name, rows, cols, dtype, None)))
    }

    /// A constant whose numbers come from `source`, which writes the rows that it is asked for: a mapped file, converted.
    /// Every plan asks for what its operations read and no plan before it needed, when it is recorded; a few rows at a
    /// time, or all of them where they are packed.
    pub fn constant_from(
        &self,
        name: &str,
        rows: usize,
        cols: usize,
        dtype: DType,
        source: impl Fn(Range<usize>, Numbers<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Shared {
        Shared(Arc::new(self.tensor(name, rows, cols, dtype, Some(Box::new(source)))))
    }

    /// A [rows, cols] that plans read and write, zero at first; see [`Session::store`] and [`Session::read`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn state(&self, name: &str, rows: usize, cols: usize, dtype: DType) -> Result<Shared> {
        let forms = Forms::of_memory(self.stream().memory(rows * cols * dtype.bytes())?);
        let constant = self.tensor(name, rows, cols, dtype, None);
        Ok(Shared(Arc::new(SharedTensor { is_state: true, forms: Mutex::new(forms), ..constant })))
    }

    fn tensor(&self, name: &str, rows: usize, cols: usize, dtype: DType, source: Option<Box<Source>>) -> SharedTensor {
        let (name, parts, session, forms) = (name.to_owned(), Vec::new(), self.id(), Mutex::default());
        SharedTensor { name, rows, cols, dtype, is_state: false, parts, source, session, forms }
    }

    /// Records a plan over the shared tensors; see [`Plan::record`].
    ///
    /// # Errors
    /// What the closure returns, what cannot be prepared.
    pub fn record<T>(&self, closure: impl FnOnce(&mut Recorder) -> Result<T>) -> Result<(Plan, T)> {
        let mut recorder = Recorder::new(self.clone());
        let handles = closure(&mut recorder)?;
        Ok((Plan::of(recorder)?, handles))
    }

    /// Replaces a state's numbers, in order with the plans' runs.
    ///
    /// # Errors
    /// Another length or dtype, or a tensor that is not a state of this session.
    pub fn store<T: Element>(&self, state: &Shared, from: &[T]) -> Result<()> {
        state.check::<T>("store", self, from.len())?;
        let forms = state.0.forms();
        let Some(memory) = &forms.plain else { return Err(state.not_a_state("store")) };
        self.stream().store(memory, 0, from)
    }

    /// Replaces some whole rows of a state, from row `first` on, in order with the plans' runs.
    ///
    /// # Errors
    /// Rows that the state does not have, another dtype, or a tensor that is not a state of this session.
    pub fn store_rows<T: Element>(&self, state: &Shared, first: usize, from: &[T]) -> Result<()> {
        let (rows, cols) = state.shape();
        state.check_session("store", self)?;
        let count = from.len() / cols.max(1);
        if first + count > rows {
            let (op, value) = ("store", format!("{first}..{} of {state:?}", first + count));
            return Err(Error::Descriptor { op, field: "rows", value, remedy: "the rows must lie within the state" });
        }
        check_slice::<T>("store", [count, cols], state.0.dtype, from.len())?;
        let forms = state.0.forms();
        let Some(memory) = forms.plain.as_ref().filter(|_| state.0.is_state) else {
            return Err(state.not_a_state("store"));
        };
        self.stream().store(memory, first * cols * T::DTYPE.bytes(), from)
    }

    /// Waits, then copies a state's numbers out.
    ///
    /// # Errors
    /// Another length or dtype, a tensor that is not a state of this session, and whatever failed since the last wait.
    pub fn read<T: Element>(&self, state: &Shared, to: &mut [T]) -> Result<()> {
        state.check::<T>("read", self, to.len())?;
        let forms = state.0.forms();
        let Some(memory) = &forms.plain else { return Err(state.not_a_state("read")) };
        self.stream().load(memory, 0, to)
    }

    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.stream) as usize
    }

    /// Whoever panicked with it left a stream that still takes work in order.
    pub(crate) fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.0.rows, self.0.cols)
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn tensor(&self) -> &SharedTensor {
        &self.0
    }

    /// Whether both are handles of one tensor.
    pub(crate) fn is(&self, other: &Shared) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A constant of the session of `like`, made of others.
    pub(super) fn made_of(
        parts: Vec<Weak<SharedTensor>>,
        name: String,
        rows: usize,
        cols: usize,
        like: &SharedTensor,
    ) -> Self {
        let (dtype, session, forms) = (like.dtype, like.session, Mutex::default());
        Shared(Arc::new(SharedTensor { name, rows, cols, dtype, is_state: false, parts, source: None, session, forms }))
    }

    pub(crate) fn check_session(&self, op: &'static str, session: &Session) -> Result<()> {
        if self.0.session == session.id() {
            return Ok(());
        }
        Err(Error::WrongOwner {
            op,
            what: "the shared tensor",
            owner: "another session".into(),
            here: "this session".into(),
            remedy: "declare it in the session whose plans use it",
        })
    }

    fn check<T: Element>(&self, op: &'static str, session: &Session, elements: usize) -> Result<()> {
        self.check_session(op, session)?;
        check_slice::<T>(op, [self.0.rows, self.0.cols], self.0.dtype, elements)
    }

    fn not_a_state(&self, op: &'static str) -> Error {
        Error::Descriptor {
            op,
            field: "tensor",
            value: self.0.name.clone(),
            remedy: "it is a constant: give its numbers with `Plan::load`",
        }
    }
}

impl SharedTensor {
    pub(crate) fn forms(&self) -> MutexGuard<'_, Forms> {
        self.forms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.device.info().id)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({} [{}, {}] {})", self.0.name, self.0.rows, self.0.cols, self.0.dtype)
    }
}

/// A caller's slice against a tensor's sizes.
pub(crate) fn check_slice<T: Element>(op: &'static str, sizes: [usize; 2], dtype: DType, found: usize) -> Result<()> {
    if T::DTYPE != dtype {
        return Err(Error::DType { op, operand: "the slice", expected: dtype, found: T::DTYPE });
    }
    if sizes[0] * sizes[1] != found {
        return Err(Error::ShapeMismatch {
            op,
            left: "the tensor",
            left_shape: sizes.into(),
            right: "the slice",
            right_shape: [found].into(),
            remedy: "pass the whole tensor, row by row",
        });
    }
    Ok(())
}
