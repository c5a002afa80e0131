//! Everything that can go wrong, as types: each message names the operation, what met what, and the remedy.

use crate::backend::Engine;
use crate::{DType, Op, Shape};
use thiserror::Error as ThisError;

/// Short for a result with Candlewick's error.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong.
#[derive(Clone, Debug, PartialEq, ThisError)]
#[non_exhaustive]
pub enum Error {
    // ---- what the caller asked for ----
    /// Two shapes that must fit each other do not.
    #[error("{op}: {left} {left_shape} and {right} {right_shape} do not fit: {remedy}")]
    ShapeMismatch {
        /// The operation.
        op: &'static str,
        /// The first operand's name.
        left: &'static str,
        /// Its shape.
        left_shape: Shape,
        /// The second operand's name.
        right: &'static str,
        /// Its shape.
        right_shape: Shape,
        /// What must hold.
        remedy: &'static str,
    },
    /// One shape is not one that the operation takes.
    #[error("{op}: {operand} has shape {shape}: {remedy}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// Its shape.
        shape: Shape,
        /// What must hold.
        remedy: &'static str,
    },
    /// The strides of an operand are not ones that the operation can read or write in place.
    #[error("{op}: {operand} {shape} has strides {strides}: {remedy}")]
    Strides {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// Its shape.
        shape: Shape,
        /// Its strides, in elements.
        strides: Shape,
        /// What must hold.
        remedy: &'static str,
    },
    /// A field of a descriptor contradicts the others.
    #[error("{op}: {field} = {value}: {remedy}")]
    Descriptor {
        /// The operation.
        op: &'static str,
        /// The field's name.
        field: &'static str,
        /// Its value, printed.
        value: String,
        /// What must hold.
        remedy: &'static str,
    },
    /// An operand's size in bytes does not fit the address space.
    #[error("{op}: {operand} {shape} needs more bytes than this machine can address: split the operation")]
    TooLarge {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// Its shape.
        shape: Shape,
    },
    /// An operand has another dtype than the descriptor says.
    #[error(
        "{op}: {operand} is {found}, and the operation was prepared for {expected}: convert it, or prepare the operation for {found}"
    )]
    DType {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// The descriptor's dtype.
        expected: DType,
        /// The operand's.
        found: DType,
    },
    /// A dtype that no Candlewick operation takes.
    #[error("{op}: {operand} is {found}: convert it to f32, f16 or bf16")]
    UnsupportedDType {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// Its dtype, as its owner prints it.
        found: String,
    },
    // ---- arguments of one call ----
    /// The number of arguments is wrong.
    #[error("{op}: {found} {role} given, {expected} expected ({names})")]
    ArgumentCount {
        /// The operation.
        op: &'static str,
        /// `inputs` or `outputs`.
        role: &'static str,
        /// How many the operation has.
        expected: usize,
        /// How many were given.
        found: usize,
        /// Their names, in order.
        names: String,
    },
    /// An argument's memory ends before the operation's last element.
    #[error(
        "{op}: {operand} {shape} spans {needed} elements with its strides, and {found} were given: pass a longer slice"
    )]
    TooShort {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// Its shape.
        shape: Shape,
        /// Elements from the first to the last that is touched.
        needed: usize,
        /// Elements given.
        found: usize,
    },
    /// A packed operand was given where a plain one is expected, or the reverse, or one packed for another shape or engine.
    #[error(
        "{op}: {operand} is {found}, and {expected} is expected: pack it with `Stream::pack` and the kernel that will read it"
    )]
    Format {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// What the kernel reads.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The kernel was prepared on another stream, or the buffer lives on another device.
    #[error("{op}: {what} belongs to {owner}, and this is {here}: {remedy}")]
    WrongOwner {
        /// The operation.
        op: &'static str,
        /// `the kernel`, `x`, ..
        what: &'static str,
        /// Where it belongs.
        owner: String,
        /// Where it was used.
        here: String,
        /// What to do.
        remedy: &'static str,
    },
    // ---- recording ----
    /// A tensor of a recorded step leaves its memory, or does not start at an element.
    #[error("{op}: {operand} lies in bytes {first}..{end} of a memory of {size}: place it inside, at a whole element")]
    Place {
        /// The operation.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// Its first byte.
        first: usize,
        /// Behind its last byte.
        end: usize,
        /// The memory's bytes.
        size: usize,
    },
    /// An output of a recorded step shares memory with another of its tensors.
    #[error("{op}: {output} and {with} share memory: give the output a place of its own")]
    Overlap {
        /// The operation.
        op: &'static str,
        /// The output's name.
        output: &'static str,
        /// The other tensor's.
        with: &'static str,
    },
    /// What went wrong while a plan was recorded, with the line of the caller's closure.
    #[error("{at}: {source}")]
    Recorded {
        /// File, line and column.
        at: String,
        /// What is wrong there.
        source: Box<Error>,
    },
    // ---- what this machine can do ----
    /// No engine here runs the operation, or not the one that was asked for.
    #[error("{op}: no engine {wanted} on {device} for {descriptor} (there is {available}): {remedy}")]
    NoEngine {
        /// The operation.
        op: &'static str,
        /// The engine asked for, or `any`.
        wanted: Box<str>,
        /// The device.
        device: Box<str>,
        /// The operation, printed whole.
        descriptor: Box<str>,
        /// The engines that there are.
        available: Box<str>,
        /// What to do.
        remedy: &'static str,
    },
    /// The device is not there.
    #[error("no device {wanted} here: {reason}")]
    NoDevice {
        /// What was asked for.
        wanted: String,
        /// Why there is none, and what to do.
        reason: String,
    },
    /// Memory ran out.
    #[error("{device}: {bytes} bytes could not be allocated: free buffers or split the operation")]
    OutOfMemory {
        /// The device.
        device: String,
        /// How much was asked for.
        bytes: usize,
    },
    /// What the driver or the hardware reported, possibly long after `encode`.
    #[error("{device}: {message}")]
    Backend {
        /// The device.
        device: String,
        /// The message, with the operation's name where it is known.
        message: String,
    },
}

impl Error {
    /// No engine of `candidates` is `wanted`, or there is none at all.
    #[cold]
    pub fn no_engine(op: &Op, wanted: Option<Engine>, device: &str, candidates: &[Engine]) -> Error {
        let available: Vec<String> = candidates.iter().map(Engine::to_string).collect();
        Error::NoEngine {
            op: op.name(),
            wanted: wanted.map_or("at all".into(), |engine| engine.to_string().into()),
            device: device.into(),
            descriptor: op.to_string().into(),
            available: available.join(", ").into(),
            remedy: "choose one of these, or none to let the dispatcher choose",
        }
    }

    /// A memory or a tape of stream `owner`, used on stream `here`.
    #[cold]
    pub fn of_another_stream(op: &'static str, what: &'static str, owner: u64, here: u64) -> Error {
        let remedy = "use it on the stream that made it";
        Error::WrongOwner { op, what, owner: format!("stream {owner}"), here: format!("stream {here}"), remedy }
    }

    /// A kernel of stream `owner`, encoded on stream `here`.
    #[cold]
    pub fn wrong_stream(op: &Op, owner: u64, here: u64) -> Error {
        Error::WrongOwner {
            op: op.name(),
            what: "the kernel",
            owner: format!("stream {owner}"),
            here: format!("stream {here}"),
            remedy: "prepare it on the stream that encodes it",
        }
    }
}
