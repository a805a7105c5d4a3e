//! Counts -> merges: byte-pair encoding learnt from the distinct pieces, weighted by how often each occurs.
//!
//! The rule: at every step the most frequent pair of adjacent ids becomes a new id. **Ties** go to the smaller left id,
//! then to the smaller right id, where ids 0-255 are the bytes and then the merges in order; so the result depends on
//! the counts alone. Occurrences that overlap (`aaa` holds `aa` twice) all count, and merging goes from left to right.
//!
//! The algorithm rests on one law: *all occurrences of a pair are born in the one merge that makes the newer of its two
//! ids, and from then on they only vanish.* So the places of a pair are one slice of an array, written once, and its
//! count at birth is the largest it will ever have, which makes a lazy heap exact: pop the pair with the largest
//! recorded count; if it has lost occurrences since, push it back with what is left.
//!
//! The distinct pieces lie in one array, a slot for each byte. An id of n bytes is written in its first slot and in its
//! last, with dead slots between, so both neighbours of any id are found in one step, however long the piece is (the
//! boundary tags of Knuth, The Art of Computer Programming, vol. 1, 2.5). A slot before each piece keeps pieces apart.

use crate::count::Counts;
use crate::error::{Error, Result};
use crate::job::Job;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Learns up to `n_merges` merges, most frequent pair first; fewer if no pair is left.
///
/// # Errors
///
/// The job was cancelled, or the distinct pieces are longer than 4 GiB together.
///
/// # Example
///
/// ```
/// use tinygpt::{Counts, Job, learn};
/// let mut counts = Counts::new();
/// counts.add(b"abab", 3)?;
/// let merges = learn(&counts, 2, &mut Job::new(Some(1), &mut |_| true)?)?;
/// assert_eq!(merges, [(97, 98), (256, 256)]);
/// # Ok::<(), tinygpt::Error>(())
/// ```
pub fn learn(counts: &Counts, n_merges: usize, job: &mut Job) -> Result<Vec<(u32, u32)>> {
    let mut learner = Learner::new(counts)?;
    let mut merges = Vec::with_capacity(n_merges.min(1 << 20));
    while merges.len() < n_merges {
        let Some(pair) = learner.most_frequent() else { break };
        merges.push(pair);
        learner.merge(pair)?;
        if merges.len() % 64 == 0 {
            job.tick()?;
        }
    }
    Ok(merges)
}

/// Marks a slot between two pieces.
const EDGE: u32 = u32::MAX;
/// Marks a slot inside an id.
const DEAD: u32 = u32::MAX - 1;

/// What is known of a pair of ids.
struct Pair {
    count: u64,
    /// Its places in `Learner::places`.
    places: std::ops::Range<usize>,
}

/// A pair as one number, ordered as the rule of ties wants.
fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Changes of counts with the neighbours of the merged pair, by neighbour: only what was touched is ever looked at.
#[derive(Default)]
struct Neighbours {
    count: Vec<u64>,
    places: Vec<usize>,
    touched: Vec<u32>,
}

impl Neighbours {
    fn add(&mut self, id: u32, weight: u64) {
        let i = id as usize;
        if self.places[i] == 0 {
            self.touched.push(id);
        }
        self.count[i] += weight;
        self.places[i] += 1;
    }

    fn clear(&mut self) {
        for id in self.touched.drain(..) {
            self.count[id as usize] = 0;
            self.places[id as usize] = 0;
        }
    }
}

struct Learner {
    /// Ids at the first and last slot that each covers; see the head of this file.
    slots: Vec<u32>,
    /// For each slot, which piece it belongs to.
    piece_of: Vec<u32>,
    weights: Vec<u64>,
    /// Bytes of each id.
    lengths: Vec<u32>,
    /// First slots of occurrences, each pair's in one ascending slice.
    places: Vec<u32>,
    pairs: FxHashMap<u64, Pair>,
    heap: BinaryHeap<(u64, Reverse<u64>)>,
    lost_left: Neighbours,
    lost_right: Neighbours,
    born_right: Neighbours,
    merged: Vec<u32>,
}

impl Learner {
    fn new(counts: &Counts) -> Result<Self> {
        // Longer pieces only: one byte holds no pair. The order of pieces does not matter to the result.
        let pieces: Vec<(&[u8], u64)> = counts.iter().filter(|(piece, n)| piece.len() > 1 && *n > 0).collect();
        let n_slots = pieces.iter().map(|(piece, _)| piece.len() + 1).sum::<usize>() + 1;
        if n_slots >= DEAD as usize {
            let message = format!("the distinct pieces are {n_slots} bytes together, more than 4 GiB; train on a sample of the text");
            return Err(Error::Invalid(message));
        }
        let mut slots = Vec::with_capacity(n_slots);
        let mut piece_of = Vec::with_capacity(n_slots);
        for (i, (piece, _)) in (0u32..).zip(&pieces) {
            slots.push(EDGE);
            slots.extend(piece.iter().map(|byte| u32::from(*byte)));
            piece_of.resize(slots.len(), i);
        }
        slots.push(EDGE);
        piece_of.push(EDGE);
        let mut learner = Learner {
            slots,
            piece_of,
            weights: pieces.iter().map(|(_, n)| *n).collect(),
            lengths: vec![1; 256],
            places: Vec::new(),
            pairs: FxHashMap::default(),
            heap: BinaryHeap::new(),
            lost_left: Neighbours::default(),
            lost_right: Neighbours::default(),
            born_right: Neighbours::default(),
            merged: Vec::new(),
        };
        learner.find_byte_pairs()?;
        Ok(learner)
    }

    /// Counts the pairs of bytes, then writes their places down: two passes, so that each slice has its exact length.
    fn find_byte_pairs(&mut self) -> Result<()> {
        let mut count = vec![0u64; 1 << 16];
        let mut next = vec![0usize; (1 << 16) + 1];
        for (pair, slot) in byte_pairs(&self.slots) {
            let weight = self.weights[self.piece_of[slot as usize] as usize];
            count[pair] = count[pair].checked_add(weight).ok_or_else(too_many)?;
            next[pair + 1] += 1;
        }
        for pair in 0..1 << 16 {
            next[pair + 1] += next[pair];
        }
        self.places = vec![0; next[1 << 16]];
        let starts = next.clone();
        for (pair, slot) in byte_pairs(&self.slots) {
            self.places[next[pair]] = slot;
            next[pair] += 1;
        }
        for pair in (0..1 << 16).filter(|pair| count[*pair] > 0) {
            let key = key(pair as u32 >> 8, pair as u32 & 255);
            self.pairs.insert(key, Pair { count: count[pair], places: starts[pair]..starts[pair + 1] });
            self.heap.push((count[pair], Reverse(key)));
        }
        Ok(())
    }

    /// The pair to merge next; none when no piece has two ids left.
    fn most_frequent(&mut self) -> Option<(u32, u32)> {
        loop {
            let (count, Reverse(key)) = self.heap.pop()?;
            let live = self.pairs.get(&key).map_or(0, |pair| pair.count);
            if live == count {
                return Some(((key >> 32) as u32, key as u32));
            }
            if live > 0 {
                self.heap.push((live, Reverse(key)));
            } else {
                self.pairs.remove(&key);
            }
        }
    }

    /// Replaces the pair everywhere by a new id.
    fn merge(&mut self, (left, right): (u32, u32)) -> Result<()> {
        let new = u32::try_from(self.lengths.len()).map_err(|_| too_many())?;
        self.lengths.push(self.lengths[left as usize] + self.lengths[right as usize]);
        for neighbours in [&mut self.lost_left, &mut self.lost_right, &mut self.born_right] {
            neighbours.count.resize(self.lengths.len(), 0);
            neighbours.places.resize(self.lengths.len(), 0);
        }
        let places = self.pairs.remove(&key(left, right)).map_or(0..0, |pair| pair.places);
        self.replace(places, left, right, new);
        self.forget(left, right);
        self.record(new);
        for neighbours in [&mut self.lost_left, &mut self.lost_right, &mut self.born_right] {
            neighbours.clear();
        }
        Ok(())
    }

    /// Writes `new` over every occurrence that is still there, noting which neighbours the pair's ids lost.
    fn replace(&mut self, places: std::ops::Range<usize>, left: u32, right: u32, new: u32) {
        let (left_bytes, right_bytes) = (self.lengths[left as usize] as usize, self.lengths[right as usize] as usize);
        self.merged.clear();
        for i in places {
            let at = self.places[i] as usize;
            let middle = at + left_bytes;
            // Edges between ids only ever vanish. So a slot that once was the first of `left` is either that still, or
            // dead, or an end of a longer id: it never is the last slot of another `left`.
            if self.slots[at] != left || self.slots[middle] != right {
                continue;
            }
            let end = middle + right_bytes;
            let weight = self.weights[self.piece_of[at] as usize];
            let (before, after) = (self.slots[at - 1], self.slots[end]);
            // A neighbour that is the new id is the pair's own last occurrence: `right` lost that one as it merged.
            if before != EDGE && before != new {
                self.lost_left.add(before, weight);
            }
            if after != EDGE {
                self.lost_right.add(after, weight);
            }
            self.slots[middle - 1] = DEAD;
            self.slots[middle] = DEAD;
            self.slots[at] = new;
            self.slots[end - 1] = new;
            self.merged.push(at as u32);
        }
    }

    /// Takes the lost occurrences off the counts of (neighbour, left) and (right, neighbour).
    fn forget(&mut self, left: u32, right: u32) {
        for &id in &self.lost_left.touched {
            if let Some(pair) = self.pairs.get_mut(&key(id, left)) {
                pair.count -= self.lost_left.count[id as usize];
            }
        }
        for &id in &self.lost_right.touched {
            if let Some(pair) = self.pairs.get_mut(&key(right, id)) {
                pair.count -= self.lost_right.count[id as usize];
            }
        }
    }

    /// Gives every pair with the new id its count and its places.
    fn record(&mut self, new: u32) {
        let length = self.lengths[new as usize] as usize;
        for &at in &self.merged {
            let at = at as usize;
            let after = self.slots[at + length];
            if after != EDGE {
                self.born_right.add(after, self.weights[self.piece_of[at] as usize]);
            }
        }
        let mut reserve = |neighbours: &mut Neighbours, key_of: &dyn Fn(u32) -> u64| {
            for &id in &neighbours.touched {
                let (count, n) = (neighbours.count[id as usize], neighbours.places[id as usize]);
                let start = self.places.len();
                self.places.resize(start + n, 0);
                self.pairs.insert(key_of(id), Pair { count, places: start..start + n });
                self.heap.push((count, Reverse(key_of(id))));
                neighbours.places[id as usize] = start; // from here on: where its next place is written
            }
        };
        reserve(&mut self.lost_left, &|id| key(id, new));
        reserve(&mut self.born_right, &|id| key(new, id));
        for &at in &self.merged {
            let (before, after) = (self.slots[at as usize - 1], self.slots[at as usize + length]);
            if before != EDGE && before != new {
                let place = &mut self.lost_left.places[before as usize];
                self.places[*place] = at - self.lengths[before as usize];
                *place += 1;
            }
            if after != EDGE {
                let place = &mut self.born_right.places[after as usize];
                self.places[*place] = at;
                *place += 1;
            }
        }
    }
}

/// Pairs of adjacent bytes, as one number each, and the slot of the first.
fn byte_pairs(slots: &[u32]) -> impl Iterator<Item = (usize, u32)> {
    let pairs = slots.windows(2).zip(0u32..).filter(|(pair, _)| pair[0] < 256 && pair[1] < 256);
    pairs.map(|(pair, slot)| ((pair[0] << 8 | pair[1]) as usize, slot))
}

fn too_many() -> Error {
    Error::Invalid("the counts of all pairs pass 2^64 - 1".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn learn_from(counts: &[(&[u8], u64)], n_merges: usize) -> Vec<(u32, u32)> {
        let mut all = Counts::new();
        for (piece, n) in counts {
            all.add(piece, *n).unwrap();
        }
        learn(&all, n_merges, &mut Job::new(Some(1), &mut |_| true).unwrap()).unwrap()
    }

    /// The rule, word for word: count all pairs anew at every step.
    fn learn_slowly(counts: &[(&[u8], u64)], n_merges: usize) -> Vec<(u32, u32)> {
        let mut words: Vec<(Vec<u32>, u64)> = counts.iter().map(|(piece, n)| (piece.iter().map(|b| u32::from(*b)).collect(), *n)).collect();
        let mut merges = Vec::new();
        while merges.len() < n_merges {
            let mut pairs = FxHashMap::<(u32, u32), u64>::default();
            for (word, n) in &words {
                word.windows(2).for_each(|w| *pairs.entry((w[0], w[1])).or_default() += n);
            }
            let Some((_, Reverse(best))) = pairs.iter().filter(|(_, n)| **n > 0).map(|(pair, n)| (*n, Reverse(*pair))).max() else { break };
            let new = 256 + merges.len() as u32;
            for (word, _) in &mut words {
                let mut i = 0;
                while i + 1 < word.len() {
                    if (word[i], word[i + 1]) == best {
                        word.splice(i..i + 2, [new]);
                    }
                    i += 1;
                }
            }
            merges.push(best);
        }
        merges
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn learnt_merges_are_those_of_the_plain_loop(
            pieces in prop::collection::btree_map(prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'c']), 1..24), 1u64..5, 0..12),
        ) {
            let counts: Vec<(&[u8], u64)> = pieces.iter().map(|(piece, n)| (&piece[..], *n)).collect();
            prop_assert_eq!(learn_from(&counts, 40), learn_slowly(&counts, 40));
        }

        #[test]
        fn one_letter_in_a_row_is_learnt_as_by_the_plain_loop(lengths in prop::collection::vec(1usize..70, 1..4)) {
            let pieces: Vec<Vec<u8>> = lengths.iter().map(|n| vec![b'a'; *n]).collect();
            let mut counts: Vec<(&[u8], u64)> = pieces.iter().map(|piece| (&piece[..], 1)).collect();
            counts.sort_unstable();
            counts.dedup();
            prop_assert_eq!(learn_from(&counts, 20), learn_slowly(&counts, 20));
        }
    }

    #[test]
    fn ties_go_to_the_smaller_left_then_right_id() {
        assert_eq!(learn_from(&[(b"cd", 1), (b"ab", 1), (b"ac", 1)], 3), [(97, 98), (97, 99), (99, 100)]);
    }

    #[test]
    fn learning_stops_when_no_pair_is_left() {
        assert_eq!(learn_from(&[(b"ab", 1), (b"c", 9)], 10), [(97, 98)]);
    }

    #[test]
    fn counts_beyond_32_bits_decide() {
        let counts: [(&[u8], u64); 3] = [(b"ab", u64::from(u32::MAX) + 2), (b"cd", 5), (b"ef", u64::from(u32::MAX))];
        assert_eq!(learn_from(&counts, 2), [(97, 98), (101, 102)]);
    }

    #[test]
    fn a_cancelled_job_ends_learning() {
        let mut counts = Counts::new();
        (0..5000u32).for_each(|i| counts.add(&i.to_le_bytes(), 1).unwrap());
        let result = learn(&counts, 5000, &mut Job::new(Some(1), &mut |_| false).unwrap());
        assert!(matches!(result, Err(Error::Cancelled)));
    }
}
