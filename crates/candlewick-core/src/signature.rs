//! Arguments against what was prepared.

use crate::backend::{Argument, Packing};
use crate::op::{Format, Operand, PackedFactor};
use crate::{Element, Error, Op, Result};

/// What a kernel's arguments must be: made by `prepare`, compared by `encode`.
#[derive(Clone, Debug)]
pub struct Signature {
    op: Op,
    inputs: Vec<Operand>,
    outputs: Vec<Operand>,
    packing: Option<Packing>,
}

impl Signature {
    /// The signature of `op`, whose packed operand, if it has one, lies as `packing` says.
    ///
    /// # Errors
    /// Those of [`Op::operands`].
    pub fn new(op: &Op, packing: Option<Packing>) -> Result<Self> {
        let operands = op.operands()?;
        Ok(Signature { op: *op, inputs: operands.inputs, outputs: operands.outputs, packing })
    }

    /// The operation.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// The operands that are read.
    pub fn inputs(&self) -> &[Operand] {
        &self.inputs
    }

    /// The operands that are written.
    pub fn outputs(&self) -> &[Operand] {
        &self.outputs
    }

    /// How the packed operand lies, if there is one.
    pub fn packing(&self) -> Option<Packing> {
        self.packing
    }

    /// Compares arguments with what was prepared. Allocates only to report an error.
    ///
    /// # Errors
    /// [`Error::ArgumentCount`], [`Error::DType`], [`Error::TooShort`], [`Error::Format`].
    #[inline]
    pub fn check<I: Argument, O: Argument>(&self, inputs: &[I], outputs: &[O]) -> Result<()> {
        if inputs.len() != self.inputs.len() {
            return Err(self.count_error("inputs", &self.inputs, inputs.len()));
        }
        if outputs.len() != self.outputs.len() {
            return Err(self.count_error("outputs", &self.outputs, outputs.len()));
        }
        for (operand, argument) in self.inputs.iter().zip(inputs) {
            self.check_one(operand, argument)?;
        }
        for (operand, argument) in self.outputs.iter().zip(outputs) {
            self.check_one(operand, argument)?;
        }
        Ok(())
    }

    /// What `pack` makes of `plain`: how it will lie, and which factor it is.
    ///
    /// # Errors
    /// [`Error::Descriptor`] for an operation without a packed operand, [`Error::Format`], [`Error::DType`] or
    /// [`Error::TooShort`] for a tensor that is not the plain operand.
    pub fn check_pack(&self, plain: &impl Argument) -> Result<(Packing, PackedFactor)> {
        let op = self.op.name();
        let (Some(packing), Some(factor)) = (self.packing, self.op.packed_factor()) else {
            return Err(Error::Descriptor {
                op,
                field: "format",
                value: "Plain".into(),
                remedy: "only an operand whose format is Packed in the descriptor can be packed",
            });
        };
        let operand = Operand { format: Format::Plain, ..self.inputs[factor.input].clone() };
        self.check_one(&operand, plain).map(|()| (packing, factor))
    }

    #[inline]
    fn check_one(&self, operand: &Operand, argument: &impl Argument) -> Result<()> {
        let expected = match operand.format {
            Format::Plain => None,
            Format::Packed => self.packing,
        };
        let fits = argument.dtype() == operand.dtype
            && argument.packing() == expected
            && (expected.is_some() || argument.elements() >= operand.span);
        if fits { Ok(()) } else { Err(self.argument_error(operand, expected, argument)) }
    }

    #[cold]
    fn argument_error(&self, operand: &Operand, expected: Option<Packing>, argument: &impl Argument) -> Error {
        let op = self.op.name();
        let print =
            |packing: Option<Packing>| packing.map_or_else(|| "not packed".into(), |packing| packing.to_string());
        if argument.packing() != expected {
            Error::Format { op, operand: operand.name, expected: print(expected), found: print(argument.packing()) }
        } else if argument.dtype() != operand.dtype {
            Error::DType { op, operand: operand.name, expected: operand.dtype, found: argument.dtype() }
        } else {
            Error::TooShort {
                op,
                operand: operand.name,
                shape: operand.shape.clone(),
                needed: operand.span,
                found: argument.elements(),
            }
        }
    }

    #[cold]
    fn count_error(&self, role: &'static str, operands: &[Operand], found: usize) -> Error {
        let names: Vec<&str> = operands.iter().map(|operand| operand.name).collect();
        Error::ArgumentCount { op: self.op.name(), role, expected: operands.len(), found, names: names.join(", ") }
    }
}

/// A caller's slice of `elements` numbers against the buffer that it is copied to or from.
///
/// # Errors
/// [`Error::Format`] for a packed buffer, [`Error::DType`], [`Error::ShapeMismatch`].
pub fn check_copy<T: Element>(op: &'static str, buffer: &impl Argument, elements: usize) -> Result<()> {
    if let Some(packing) = buffer.packing() {
        let found = packing.to_string();
        return Err(Error::Format { op, operand: "the buffer", expected: "not packed".into(), found });
    }
    if T::DTYPE != buffer.dtype() {
        return Err(Error::DType { op, operand: "the slice", expected: buffer.dtype(), found: T::DTYPE });
    }
    if elements != buffer.elements() {
        return Err(Error::ShapeMismatch {
            op,
            left: "the buffer",
            left_shape: [buffer.elements()].into(),
            right: "the slice",
            right_shape: [elements].into(),
            remedy: "their lengths must be equal",
        });
    }
    Ok(())
}
