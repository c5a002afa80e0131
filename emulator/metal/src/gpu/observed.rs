//! What the host knows to be over: command buffers it waited for, events it saw the value of.
//!
//! Work committed afterwards is ordered after all of that, with no fence.

use std::sync::{Mutex, PoisonError};

use super::past::Past;

static KNOWN: Mutex<Option<Past>> = Mutex::new(None);

/// The host has observed that everything in `past` is over.
pub fn observe(past: &Past) {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().extend(past);
}

/// Everything that the host has observed to be over.
pub fn known() -> Past {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
}
