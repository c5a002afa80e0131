//! The free parts of a block of memory: first fit, neighbours joined.

use std::collections::BTreeMap;

/// Free parts by offset.
#[derive(Debug)]
pub struct FreeList {
    parts: BTreeMap<usize, usize>,
    bytes: usize,
}

impl FreeList {
    /// A block of `bytes`, all free.
    pub fn new(bytes: usize) -> Self {
        FreeList { parts: BTreeMap::from([(0, bytes)]), bytes }
    }

    /// Takes `bytes` out of the first part that has them, and returns their offset.
    pub fn take(&mut self, bytes: usize) -> Option<usize> {
        let (&offset, &length) = self.parts.iter().find(|&(_, &length)| length >= bytes)?;
        self.parts.remove(&offset);
        if length > bytes {
            self.parts.insert(offset + bytes, length - bytes);
        }
        Some(offset)
    }

    /// Gives back what [`FreeList::take`] gave.
    pub fn give(&mut self, mut offset: usize, mut bytes: usize) {
        if let Some((&before, &length)) = self.parts.range(..offset).next_back()
            && before + length == offset
        {
            self.parts.remove(&before);
            (offset, bytes) = (before, length + bytes);
        }
        if let Some(length) = self.parts.remove(&(offset + bytes)) {
            bytes += length;
        }
        self.parts.insert(offset, bytes);
    }

    /// Whether nothing is taken.
    pub fn is_whole(&self) -> bool {
        self.parts.get(&0) == Some(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_again() {
        let mut list = FreeList::new(100);
        let parts = [30, 30, 40].map(|bytes| list.take(bytes).unwrap());
        assert_eq!(parts, [0, 30, 60]);
        assert_eq!(list.take(1), None);
        list.give(0, 30);
        list.give(60, 40);
        assert_eq!(list.take(41), None, "the free parts are apart");
        list.give(30, 30);
        assert!(list.is_whole());
        assert_eq!(list.take(100), Some(0));
    }
}
