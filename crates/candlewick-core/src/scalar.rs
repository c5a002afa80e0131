//! A number inside an operation's descriptor.

use std::fmt;
use std::hash::{Hash, Hasher};

/// An f32 that can be compared and hashed, by its bits, so that descriptors can be keys of a cache.
#[derive(Clone, Copy)]
pub struct Scalar(pub f32);

impl Scalar {
    /// The value.
    pub const fn get(self) -> f32 {
        self.0
    }
}

impl From<f32> for Scalar {
    fn from(value: f32) -> Self {
        Scalar(value)
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
