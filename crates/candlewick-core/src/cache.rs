//! A bounded cache that counts: prepared kernels, and whatever else a backend makes once and uses often.

use rustc_hash::FxHashMap;
use std::hash::Hash;

/// What a cache has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounters {
    /// Look-ups that found their entry.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Entries dropped to make room.
    pub evictions: u64,
}

/// A map of at most `capacity` entries; the least recently used one makes room.
///
/// Keys are descriptors of the program's own, a few hundred bytes long, so the hash is one that is fast on those.
/// Not synchronised: a stream owns its caches, a device puts a lock around its own.
#[derive(Debug)]
pub struct Cache<K, V> {
    entries: FxHashMap<K, (u64, V)>,
    capacity: usize,
    clock: u64,
    counters: CacheCounters,
}

impl<K: Eq + Hash + Clone, V> Cache<K, V> {
    /// An empty cache.
    ///
    /// # Panics
    /// When `capacity` is zero.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a cache needs room for one entry");
        Cache { entries: FxHashMap::default(), capacity, clock: 0, counters: CacheCounters::default() }
    }

    /// The entry of `key`; counts a hit or a miss.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        self.clock += 1;
        match self.entries.get_mut(key) {
            Some((used, value)) => {
                *used = self.clock;
                self.counters.hits += 1;
                Some(value)
            }
            None => {
                self.counters.misses += 1;
                None
            }
        }
    }

    /// Adds or replaces an entry.
    pub fn insert(&mut self, key: K, value: V) {
        self.clock += 1;
        if !self.entries.contains_key(&key) && self.entries.len() >= self.capacity {
            // Eviction walks the map: it happens only when a program has more shapes than the cache has room for.
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
                self.counters.evictions += 1;
            }
        }
        self.entries.insert(key, (self.clock, value));
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the cache has done so far.
    pub fn counters(&self) -> CacheCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_entry_makes_room() {
        let mut cache = Cache::new(2);
        cache.insert("a", 1);
        cache.insert("b", 2);
        assert_eq!(cache.get(&"a"), Some(&1));
        cache.insert("c", 3);
        assert_eq!(cache.get(&"b"), None);
        assert_eq!(cache.get(&"a"), Some(&1));
        assert_eq!(cache.get(&"c"), Some(&3));
        assert_eq!(cache.counters(), CacheCounters { hits: 3, misses: 1, evictions: 1 });
        assert_eq!(cache.len(), 2);
    }
}
