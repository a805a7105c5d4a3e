//! The pairs of ids that are worth recording, and which of them is merged next.
//!
//! All occurrences of a pair are born at once, and from then on they only vanish. So a lazy heap is exact: pop the pair with
//! the largest recorded count; if it has lost occurrences since, push it back with what is left. And a pair that is born
//! below a threshold stays below it: it need not be recorded, as long as some recorded pair is above.
//!
//! The threshold bounds memory, too. It is a rank, count and ids, as ties are decided; when there are too many pairs, it
//! rises and most of them go.

use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// What is known of a pair of ids.
pub(crate) struct Pair {
    pub(crate) count: u64,
    /// Its places in the learner's array of them: the first, and how many.
    pub(crate) start: u32,
    pub(crate) n: u32,
}

impl Pair {
    pub(crate) fn places(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.n as usize
    }
}

/// Count and key of a pair: the largest is merged next.
pub(crate) type Rank = (u64, Reverse<u64>);

/// A pair as one number, ordered as the rule of ties wants.
pub(crate) fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

pub(crate) fn ids(key: u64) -> (u32, u32) {
    ((key >> 32) as u32, key as u32)
}

/// The pairs that count so much.
pub(crate) fn at_least(count: u64) -> Rank {
    (count, Reverse(u64::MAX))
}

/// Every pair that ranks as high as a threshold, and some that did.
pub(crate) struct Pairs {
    table: FxHashMap<u64, Pair>,
    heap: BinaryHeap<Rank>,
    threshold: Rank,
    /// How many there may be.
    most: usize,
}

impl Pairs {
    pub(crate) fn new(threshold: Rank, most: usize) -> Pairs {
        Pairs { table: FxHashMap::default(), heap: BinaryHeap::new(), threshold, most }
    }

    pub(crate) fn is_wanted(&self, count: u64, key: u64) -> bool {
        (count, Reverse(key)) >= self.threshold
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut Pair> {
        self.table.get_mut(&key)
    }

    /// How many places a pair has.
    pub(crate) fn n_places(&self, key: u64) -> usize {
        self.table.get(&key).map_or(0, |pair| pair.n as usize)
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<Pair> {
        self.table.remove(&key)
    }

    pub(crate) fn insert(&mut self, key: u64, pair: Pair) {
        self.heap.push((pair.count, Reverse(key)));
        self.table.insert(key, pair);
    }

    /// Takes occurrences off a pair, if it is recorded.
    pub(crate) fn lose(&mut self, key: u64, count: u64) {
        if let Some(pair) = self.table.get_mut(&key) {
            pair.count -= count;
        }
    }

    /// The pair to merge next, of those that are recorded.
    pub(crate) fn most_frequent(&mut self) -> Option<(u32, u32)> {
        while let Some((count, Reverse(key))) = self.heap.pop() {
            let live = self.table.get(&key).map_or(0, |pair| pair.count);
            if live == count {
                return Some(ids(key));
            }
            if self.is_wanted(live, key) {
                self.heap.push((live, Reverse(key)));
            } else {
                self.table.remove(&key);
            }
        }
        None
    }

    /// A threshold to go on with when no recorded pair is left; none if every pair was recorded.
    pub(crate) fn lower_threshold(&self) -> Option<Rank> {
        (self.threshold != at_least(1)).then(|| at_least((self.threshold.0 / 16).max(1)))
    }

    /// Forgets the lower ones if another pair would be one too many, or would make their table grow.
    pub(crate) fn make_room(&mut self) {
        let n = self.table.len();
        if n >= self.most || (n > self.most / 2 && n == self.table.capacity()) {
            self.raise_threshold();
        }
    }

    /// Makes the threshold rise to where three eighths of the recorded pairs are above, and forgets the others: so few that
    /// their table makes room without growing.
    fn raise_threshold(&mut self) {
        let mut ranks = std::mem::take(&mut self.heap).into_vec();
        ranks.clear();
        ranks.extend(self.table.iter().map(|(key, pair)| (pair.count, Reverse(*key))));
        let last = ranks.len() * 3 / 8;
        // Of the recorded ones some may have fallen below it: they do not draw it down.
        self.threshold = (*ranks.select_nth_unstable_by_key(last, |rank| Reverse(*rank)).1).max(self.threshold);
        ranks.truncate(last + 1);
        ranks.retain(|rank| *rank >= self.threshold);
        self.table.retain(|key, pair| (pair.count, Reverse(*key)) >= self.threshold);
        self.heap = BinaryHeap::from(ranks);
    }

    /// All, in the order of their places.
    pub(crate) fn by_place(&mut self) -> Vec<(u64, &mut Pair)> {
        let mut pairs: Vec<(u64, &mut Pair)> = self.table.iter_mut().map(|(key, pair)| (*key, pair)).collect();
        pairs.sort_unstable_by_key(|(_, pair)| pair.start);
        pairs
    }
}
