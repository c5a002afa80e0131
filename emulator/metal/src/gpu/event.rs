//! A value that passes, command buffers and the host signal and wait for (`MTLEvent`, `MTLSharedEvent`).

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::past::Past;

/// What a listener wants called, and at which value.
type Listener = (u64, Box<dyn FnOnce(u64) + Send>);

#[derive(Default)]
struct State {
    value: u64,
    /// What lay before each signal.
    signals: BTreeMap<u64, Past>,
    listeners: Vec<Listener>,
}

/// An event's value and who waits for it.
#[derive(Default)]
pub struct Event {
    state: Mutex<State>,
    changed: Condvar,
}

impl Event {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.state().value
    }

    /// Everything that lies before the signal that a wait for `value` is satisfied by.
    pub fn past(&self, value: u64) -> Past {
        self.state().signals.range(value..).next().map(|(_, past)| past.clone()).unwrap_or_default()
    }

    /// Everything that lies before the signals of values up to `value`: what a host knows that has seen it.
    pub fn past_until(&self, value: u64) -> Past {
        let mut all = Past::default();
        for (_, past) in self.state().signals.range(..=value) {
            all.extend(past);
        }
        all
    }

    /// Sets the value; what `past` holds is ordered before everything that waits for it.
    pub fn signal(&self, value: u64, past: Past) {
        let due = {
            let mut state = self.state();
            state.value = value;
            state.signals.entry(value).or_default().extend(&past);
            let (due, later) = std::mem::take(&mut state.listeners).into_iter().partition(|(at, _)| *at <= value);
            state.listeners = later;
            due
        };
        self.changed.notify_all();
        let due: Vec<Listener> = due;
        for (_, call) in due {
            call(value);
        }
    }

    /// Blocks the host until the value is reached; false if it was not within the time.
    pub fn wait(&self, value: u64, time: Duration) -> bool {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, time, |state| state.value < value);
        waited.unwrap_or_else(PoisonError::into_inner).0.value >= value
    }

    /// Calls `listener` once the value is reached.
    pub fn listen(&self, value: u64, listener: Box<dyn FnOnce(u64) + Send>) {
        let mut state = self.state();
        let now = state.value;
        if now >= value {
            drop(state);
            listener(now);
        } else {
            state.listeners.push((value, listener));
        }
    }
}
