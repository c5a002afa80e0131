//! Refusing a call by name, as the validation of Metal Performance Shaders does.

use std::fmt::Display;

use crate::foundation;

/// The method that a refusal names: `[MPSMatrix initWithBuffer:descriptor:]`.
#[derive(Clone, Copy)]
pub(super) struct Call {
    class: &'static str,
    method: &'static str,
}

impl Call {
    /// A method of a class of Metal Performance Shaders.
    pub(super) const fn new(class: &'static str, method: &'static str) -> Self {
        Call { class, method }
    }

    /// The class, which is also the name of a kernel without a label.
    pub(super) fn class(self) -> &'static str {
        self.class
    }

    /// Raises an exception. MPS itself ends the process ("failed assertion"); a test can catch this.
    pub(super) fn refuse(self, reason: impl Display) -> ! {
        foundation::raise(self.class, &format!("[{} {}] {reason}", self.class, self.method))
    }

    /// Refuses unless the condition holds.
    pub(super) fn require(self, holds: bool, reason: impl FnOnce() -> String) {
        if !holds {
            self.refuse(reason());
        }
    }
}
