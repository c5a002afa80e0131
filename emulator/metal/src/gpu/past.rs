//! Which commands lie before a command: a set of command numbers over a sliding window.

/// Commands further back than this count as ordered before everything: no program keeps that many in flight.
const WINDOW: usize = 1 << 13;

/// A set of command numbers. Numbers only grow; those behind the window are in every set.
#[derive(Clone, Debug, Default)]
pub struct Past {
    first_word: usize,
    words: Vec<u64>,
}

impl Past {
    /// Whether command `number` is in it.
    pub fn contains(&self, number: usize) -> bool {
        let word = number / 64;
        if word < self.first_word {
            return !self.words.is_empty();
        }
        self.words.get(word - self.first_word).is_some_and(|bits| bits >> (number % 64) & 1 == 1)
    }

    /// Adds command `number`.
    pub fn insert(&mut self, number: usize) {
        let word = number / 64;
        if self.words.is_empty() {
            self.first_word = word.saturating_sub(WINDOW / 64);
        }
        if word < self.first_word {
            return;
        }
        let index = word - self.first_word;
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        self.words[index] |= 1 << (number % 64);
        let excess = self.words.len().saturating_sub(WINDOW / 64 + 1);
        if excess > 0 {
            self.words.drain(..excess);
            self.first_word += excess;
        }
    }

    /// Adds everything that is in `other`.
    pub fn extend(&mut self, other: &Past) {
        let Some(last) = other.words.len().checked_sub(1).map(|index| other.first_word + index) else { return };
        if self.words.is_empty() {
            *self = other.clone();
            return;
        }
        if last >= self.first_word + self.words.len() {
            self.words.resize(last - self.first_word + 1, 0);
        }
        for (index, bits) in other.words.iter().enumerate() {
            let word = other.first_word + index;
            if word >= self.first_word {
                self.words[word - self.first_word] |= bits;
            }
        }
        let excess = self.words.len().saturating_sub(WINDOW / 64 + 1);
        if excess > 0 {
            self.words.drain(..excess);
            self.first_word += excess;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_what_was_added_within_the_window() {
        let mut past = Past::default();
        assert!(!past.contains(0));
        for number in [3, 64, 700] {
            past.insert(number);
        }
        assert!(past.contains(3) && past.contains(64) && past.contains(700));
        assert!(!past.contains(4) && !past.contains(701));
        let mut other = Past::default();
        other.insert(100_000);
        past.extend(&other);
        assert!(past.contains(100_000) && past.contains(4), "what lies behind the window counts as past");
        assert!(!past.contains(99_999));
    }
}
