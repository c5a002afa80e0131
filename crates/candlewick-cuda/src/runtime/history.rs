//! Which operations a stream was given since it was last known to be well: an asynchronous error does not say whose it is.

use candlewick_core::backend::Engine;
use std::fmt;
use std::sync::Arc;

/// How many are remembered.
const LENGTH: usize = 32;

/// Something that a stream was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// A prepared operation.
    Op(&'static str, Engine),
    /// A copy.
    Copy(&'static str),
    /// A graph, described.
    Graph(Arc<str>),
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Given::Op(name, engine) => write!(f, "{name} on {engine}"),
            Given::Copy(name) => f.write_str(name),
            Given::Graph(description) => f.write_str(description),
        }
    }
}

/// The last operations of a stream, in a ring: nothing is allocated per operation.
#[derive(Clone)]
pub(crate) struct History {
    last: [Given; LENGTH],
    count: usize,
}

impl History {
    pub(crate) fn new() -> Self {
        History { last: [const { Given::Copy("") }; LENGTH], count: 0 }
    }

    #[inline]
    pub(crate) fn add(&mut self, given: Given) {
        self.last[self.count % LENGTH] = given;
        self.count += 1;
    }

    /// Everything so far went well.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    /// Each kind once, with how often it is there, the latest first.
    pub(crate) fn kinds(&self) -> Vec<(&Given, usize)> {
        let mut kinds: Vec<(&Given, usize)> = Vec::new();
        for i in (self.count - self.count.min(LENGTH)..self.count).rev() {
            let given = &self.last[i % LENGTH];
            match kinds.iter_mut().find(|(kind, _)| *kind == given) {
                Some((_, times)) => *times += 1,
                None => kinds.push((given, 1)),
            }
        }
        kinds
    }
}

/// `; of the 3 operations since the last wait, one of: matmul on cuda/fused, softmax on cuda/fused (2 times)`.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return Ok(());
        }
        write!(f, "; of the {} operations since the last wait, one of: ", self.count)?;
        for (i, (given, times)) in self.kinds().iter().enumerate() {
            write!(f, "{}{given}", if i > 0 { ", " } else { "" })?;
            if *times > 1 {
                write!(f, " ({times} times)")?;
            }
        }
        if self.count > LENGTH { write!(f, ", or an earlier one") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_comes_first_and_repetitions_are_counted() {
        let mut history = History::new();
        assert_eq!(history.to_string(), "");
        let fused = Engine::new("cuda", "fused");
        for name in ["matmul", "softmax", "matmul"] {
            history.add(Given::Op(name, fused));
        }
        history.add(Given::Copy("write"));
        assert_eq!(
            history.to_string(),
            "; of the 4 operations since the last wait, one of: write, matmul on cuda/fused (2 times), softmax on cuda/fused"
        );
        for _ in 0..100 {
            history.add(Given::Op("rms_norm", fused));
        }
        assert!(history.to_string().ends_with("one of: rms_norm on cuda/fused (32 times), or an earlier one"));
        history.clear();
        assert_eq!(history.to_string(), "");
    }
}
