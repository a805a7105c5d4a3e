//! Counts -> merges: byte-pair encoding learnt from the distinct pieces, weighted by how often each occurs.
//!
//! The rule: at every step the most frequent pair of adjacent ids becomes a new id. **Ties** go to the smaller left id,
//! then to the smaller right id, where ids 0-255 are the bytes and then the merges in order; so the result depends on
//! the counts alone. Occurrences that overlap (`aaa` holds `aa` twice) all count, and merging goes from left to right.
//!
//! The algorithm rests on one law: *all occurrences of a pair are born in the one merge that makes the newer of its two
//! ids, and from then on they only vanish.* So the places of a pair are one slice of an array, written once, and its
//! count at birth is the largest it will ever have. Two things follow. A lazy heap is exact: pop the pair with the largest
//! recorded count; if it has lost occurrences since, push it back with what is left. And a pair that is born below a
//! threshold stays below it: it need not be recorded at all, as long as some recorded pair is above. Most pairs are rare, so
//! most are never recorded; should the recorded ones run out, the threshold falls and all pairs are counted anew.
//!
//! The distinct pieces lie in one array, a slot for each byte. An id of n bytes is written in its first slot and in its
//! last, with dead slots between, so both neighbours of any id are found in one step, however long the piece is (the
//! boundary tags of Knuth, The Art of Computer Programming, vol. 1, 2.5). A slot before each piece keeps pieces apart. The
//! piece's weight stands beside each id, so that one occurrence costs one look at memory.

use crate::count::Counts;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::memory::prefetch;
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
/// let merges = learn(counts, 2, &mut Job::new(Some(1), &mut |_| true)?)?;
/// assert_eq!(merges, [(97, 98), (256, 256)]);
/// # Ok::<(), tinygpt::Error>(())
/// ```
// By value: the table of counts is given back before the pairs need room.
#[allow(clippy::needless_pass_by_value)]
pub fn learn(counts: Counts, n_merges: usize, job: &mut Job) -> Result<Vec<(u32, u32)>> {
    let weights = Weights::new(&counts);
    job.tick()?;
    let threshold = weights.threshold(n_merges);
    // Half as wide ids and weights are half as much memory to go through.
    if n_merges + 256 < usize::from(u16::DEAD) && weights.distinct.len() <= 1 << 16 {
        run(Learner::<u16>::new(counts, weights, threshold)?, n_merges, job)
    } else {
        run(Learner::<u32>::new(counts, weights, threshold)?, n_merges, job)
    }
}

fn run<W: Width>(mut learner: Learner<W>, n_merges: usize, job: &mut Job) -> Result<Vec<(u32, u32)>> {
    let mut merges = Vec::with_capacity(n_merges.min(1 << 20));
    while merges.len() < n_merges {
        let Some(pair) = learner.most_frequent()? else { break };
        merges.push(pair);
        learner.merge(pair, job)?;
        if merges.len() % 64 == 0 {
            job.tick()?;
        }
    }
    Ok(merges)
}

/// How wide ids and numbers of weights are.
trait Width: Copy + Eq {
    /// Marks a slot between two pieces.
    const EDGE: Self;
    /// Marks a slot inside an id.
    const DEAD: Self;
    /// The number, which fits.
    fn new(number: u32) -> Self;
    fn get(self) -> u32;
}

impl Width for u16 {
    const EDGE: u16 = u16::MAX;
    const DEAD: u16 = u16::MAX - 1;
    fn new(number: u32) -> u16 {
        number as u16
    }
    fn get(self) -> u32 {
        self.into()
    }
}

impl Width for u32 {
    const EDGE: u32 = u32::MAX;
    const DEAD: u32 = u32::MAX - 1;
    fn new(number: u32) -> u32 {
        number
    }
    fn get(self) -> u32 {
        self
    }
}

/// How often pieces occur, each number once; pieces refer to them by place.
struct Weights {
    /// Descending.
    distinct: Vec<u64>,
    /// How many pieces have each.
    pieces: Vec<usize>,
}

impl Weights {
    fn new(counts: &Counts) -> Weights {
        let mut all = Vec::with_capacity(counts.len());
        counts.for_each(|piece, n| {
            if piece.len() > 1 {
                all.push(n);
            }
        });
        all.sort_unstable_by_key(|n| Reverse(*n));
        let runs: Vec<(u64, usize)> = all.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
        let (distinct, pieces) = runs.into_iter().unzip();
        Weights { distinct, pieces }
    }

    /// A guess at what the last merge's pair will count, on the low side: about as much as the piece of that rank.
    fn threshold(&self, n_merges: usize) -> u64 {
        let mut seen = 0;
        let found = self.distinct.iter().zip(&self.pieces).find(|(_, n)| {
            seen += **n;
            seen >= n_merges
        });
        found.map_or(1, |(weight, _)| (weight / 2).max(1))
    }
}

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

/// What one merge takes from the pairs with each neighbour, and gives to the neighbour's pair with the new id: only what
/// was touched is ever looked at.
#[derive(Default)]
struct Neighbours {
    /// By id: sum of weights, and number of occurrences; after `Learner::record`, where the next place is written.
    sums: Vec<(u64, usize)>,
    touched: Vec<u32>,
    /// Each occurrence: the neighbour and the first slot of the new id.
    occurrences: Vec<(u32, u32)>,
}

impl Neighbours {
    fn add(&mut self, id: u32, at: usize, weight: u64) {
        let (sum, n) = &mut self.sums[id as usize];
        if *n == 0 {
            self.touched.push(id);
        }
        *sum += weight;
        *n += 1;
        self.occurrences.push((id, at as u32));
    }

    fn clear(&mut self) {
        for id in self.touched.drain(..) {
            self.sums[id as usize] = (0, 0);
        }
        self.occurrences.clear();
    }
}

/// Places between two looks at whether to stop.
const STEP_PLACES: usize = 1 << 20;
/// How many places ahead memory is asked for.
const AHEAD: usize = 16;
/// In the place of a place: the pair is not recorded.
const UNRECORDED: usize = usize::MAX;

/// An id and the number of its piece's weight.
#[derive(Clone, Copy)]
struct Slot<W> {
    id: W,
    weight: W,
}

struct Learner<W> {
    /// Ids at the first and last slot that each covers; see the head of this file.
    slots: Vec<Slot<W>>,
    weights: Vec<u64>,
    /// Bytes of each id.
    lengths: Vec<u32>,
    /// First slots of occurrences, each pair's in one ascending slice.
    places: Vec<u32>,
    /// Every pair that counts as much as `threshold`, and some that did.
    pairs: FxHashMap<u64, Pair>,
    threshold: u64,
    heap: BinaryHeap<(u64, Reverse<u64>)>,
    before: Neighbours,
    after: Neighbours,
}

impl<W: Width> Learner<W> {
    #[allow(clippy::needless_pass_by_value)] // freed as early as can be
    fn new(counts: Counts, weights: Weights, threshold: u64) -> Result<Self> {
        let mut n_slots = 1;
        // Longer pieces only: one byte holds no pair. The order of pieces does not matter to the result.
        counts.for_each(|piece, _| n_slots += if piece.len() > 1 { piece.len() + 1 } else { 0 });
        if n_slots >= u32::DEAD as usize {
            let message = format!("the distinct pieces are {n_slots} bytes together, more than 4 GiB; train on a sample of the text");
            return Err(Error::Invalid(message));
        }
        let edge = Slot { id: W::EDGE, weight: W::new(0) };
        let mut slots = Vec::with_capacity(n_slots);
        counts.for_each(|piece, n| {
            if piece.len() > 1 {
                let weight = weights.distinct.partition_point(|known| *known > n);
                slots.push(edge);
                slots.extend(piece.iter().map(|byte| Slot { id: W::new(u32::from(*byte)), weight: W::new(weight as u32) }));
            }
        });
        slots.push(edge);
        drop(counts);
        let mut learner = Learner {
            slots,
            weights: weights.distinct,
            lengths: vec![1; 256],
            places: Vec::new(),
            pairs: FxHashMap::default(),
            threshold,
            heap: BinaryHeap::new(),
            before: Neighbours::default(),
            after: Neighbours::default(),
        };
        learner.find_byte_pairs()?;
        Ok(learner)
    }

    fn weight(&self, at: usize) -> u64 {
        self.weights[self.slots[at].weight.get() as usize]
    }

    /// Counts the pairs of bytes, then writes their places down: two passes, so that each slice has its exact length.
    fn find_byte_pairs(&mut self) -> Result<()> {
        let mut sums = vec![(0u64, 0usize); 1 << 16];
        for (pair, slot, _) in byte_pairs(&self.slots) {
            let (sum, n) = &mut sums[pair];
            *sum = sum.checked_add(self.weights[slot.weight.get() as usize]).ok_or_else(too_many)?;
            *n += 1;
        }
        let mut start = 0;
        for (pair, (count, n)) in sums.iter_mut().enumerate() {
            let places = start..start + *n;
            if *count < self.threshold {
                *n = UNRECORDED;
                continue;
            }
            start = places.end;
            *n = places.start;
            let key = key(pair as u32 >> 8, pair as u32 & 255);
            self.pairs.insert(key, Pair { count: *count, places });
            self.heap.push((*count, Reverse(key)));
        }
        self.places = Vec::with_capacity(start);
        self.places.resize(start, 0);
        for (pair, _, at) in byte_pairs(&self.slots) {
            let next = &mut sums[pair].1;
            if *next != UNRECORDED {
                self.places[*next] = at;
                *next += 1;
            }
        }
        Ok(())
    }

    /// The pair to merge next; none when no piece has two ids left.
    fn most_frequent(&mut self) -> Result<Option<(u32, u32)>> {
        loop {
            let Some((count, Reverse(key))) = self.heap.pop() else {
                if self.threshold == 1 {
                    return Ok(None);
                }
                self.threshold = (self.threshold / 16).max(1);
                self.find_pairs()?;
                continue;
            };
            let live = self.pairs.get(&key).map_or(0, |pair| pair.count);
            if live == count {
                return Ok(Some(((key >> 32) as u32, key as u32)));
            }
            if live >= self.threshold {
                self.heap.push((live, Reverse(key)));
            } else {
                self.pairs.remove(&key);
            }
        }
    }

    /// Counts all pairs anew, for a lower threshold.
    fn find_pairs(&mut self) -> Result<()> {
        let mut sums = FxHashMap::<u64, (u64, usize)>::default();
        let mut each = |pair: u64, weight: u64| {
            let (sum, n) = sums.entry(pair).or_default();
            *sum = sum.checked_add(weight).ok_or_else(too_many)?;
            *n += 1;
            Ok(())
        };
        self.for_each_pair(|pair, at| each(pair, self.weight(at)))?;
        sums.retain(|_, (sum, _)| *sum >= self.threshold);
        self.pairs.clear();
        let mut start = 0;
        for (key, (count, n)) in &mut sums {
            let places = start..start + *n;
            start = places.end;
            *n = places.start;
            self.pairs.insert(*key, Pair { count: *count, places });
            self.heap.push((*count, Reverse(*key)));
        }
        let mut places = vec![0; start];
        self.for_each_pair(|pair, at| {
            if let Some((_, next)) = sums.get_mut(&pair) {
                places[*next] = at as u32;
                *next += 1;
            }
            Ok(())
        })?;
        self.places = places;
        Ok(())
    }

    /// Calls `each` with every pair and its first slot, in order.
    fn for_each_pair(&self, mut each: impl FnMut(u64, usize) -> Result<()>) -> Result<()> {
        let mut at = 0;
        while at + 1 < self.slots.len() {
            let id = self.slots[at].id;
            if id == W::EDGE {
                at += 1;
                continue;
            }
            let next = at + self.lengths[id.get() as usize] as usize;
            if self.slots[next].id != W::EDGE {
                each(key(id.get(), self.slots[next].id.get()), at)?;
            }
            at = next;
        }
        Ok(())
    }

    /// Replaces the pair everywhere by a new id.
    fn merge(&mut self, (left, right): (u32, u32), job: &mut Job) -> Result<()> {
        let new = u32::try_from(self.lengths.len()).map_err(|_| too_many())?;
        self.lengths.push(self.lengths[left as usize] + self.lengths[right as usize]);
        self.before.sums.resize(self.lengths.len(), (0, 0));
        self.after.sums.resize(self.lengths.len(), (0, 0));
        let places = self.pairs.remove(&key(left, right)).map_or(0..0, |pair| pair.places);
        let mut chained = (0, 0);
        for start in places.clone().step_by(STEP_PLACES) {
            let (weight, n) = self.replace(start..places.end.min(start + STEP_PLACES), left, right, new);
            chained = (chained.0 + weight, chained.1 + n);
            if places.len() > STEP_PLACES {
                job.tick()?;
            }
        }
        self.forget(left, right);
        self.record(left, new, chained);
        self.before.clear();
        self.after.clear();
        Ok(())
    }

    /// Writes `new` over every occurrence that is still there, noting which neighbours it has. Where it follows itself, the
    /// weights and the number of those places are returned.
    fn replace(&mut self, places: std::ops::Range<usize>, left: u32, right: u32, new: u32) -> (u64, usize) {
        let (left_bytes, right_bytes) = (self.lengths[left as usize] as usize, self.lengths[right as usize] as usize);
        let (left, right, new_id) = (W::new(left), W::new(right), W::new(new));
        let (mut chained, mut n_chained) = (0, 0);
        for i in places {
            if let Some(ahead) = self.places.get(i + AHEAD) {
                prefetch(&self.slots, *ahead as usize);
            }
            let at = self.places[i] as usize;
            let middle = at + left_bytes;
            let slot = self.slots[at];
            // Edges between ids only ever vanish. So a slot that once was the first of `left` is either that still, or
            // dead, or an end of a longer id: it never is the last slot of another `left`.
            if slot.id != left || self.slots[middle].id != right {
                continue;
            }
            let end = middle + right_bytes;
            let weight = self.weights[slot.weight.get() as usize];
            let (before, after) = (self.slots[at - 1].id, self.slots[end].id);
            if before == new_id {
                // The pair's own last occurrence, which took this one's `left` for its neighbour: it is the new id now.
                chained += weight;
                n_chained += 1;
                if let Some(last) = self.after.occurrences.last_mut() {
                    last.0 = new;
                }
            } else if before != W::EDGE {
                self.before.add(before.get(), at, weight);
            }
            if after != W::EDGE {
                self.after.add(after.get(), at, weight);
            }
            self.slots[middle - 1].id = W::DEAD;
            self.slots[middle].id = W::DEAD;
            self.slots[at].id = new_id;
            self.slots[end - 1].id = new_id;
        }
        (chained, n_chained)
    }

    /// Takes the lost occurrences off the counts of (neighbour, left) and (right, neighbour).
    fn forget(&mut self, left: u32, right: u32) {
        for &id in &self.before.touched {
            if let Some(pair) = self.pairs.get_mut(&key(id, left)) {
                pair.count -= self.before.sums[id as usize].0;
            }
        }
        for &id in &self.after.touched {
            if let Some(pair) = self.pairs.get_mut(&key(right, id)) {
                pair.count -= self.after.sums[id as usize].0;
            }
        }
    }

    /// Gives every pair with the new id its count and its places.
    fn record(&mut self, left: u32, new: u32, (chained, n_chained): (u64, usize)) {
        if n_chained > 0 {
            // What followed itself lost `left` as its neighbour, but gained the new id.
            let (sum, n) = &mut self.after.sums[left as usize];
            (*sum, *n) = (*sum - chained, *n - n_chained);
            self.after.sums[new as usize] = (chained, n_chained);
            self.after.touched.push(new);
        }
        let mut next = self.places.len();
        for (neighbours, is_left) in [(&mut self.before, true), (&mut self.after, false)] {
            for &id in &neighbours.touched {
                let (count, n) = &mut neighbours.sums[id as usize];
                if *count < self.threshold || *n == 0 {
                    *n = UNRECORDED;
                    continue;
                }
                let key = if is_left { key(id, new) } else { key(new, id) };
                self.pairs.insert(key, Pair { count: *count, places: next..next + *n });
                self.heap.push((*count, Reverse(key)));
                (*n, next) = (next, next + *n);
            }
        }
        self.places.resize(next, 0);
        for &(id, at) in &self.before.occurrences {
            let next = &mut self.before.sums[id as usize].1;
            if *next != UNRECORDED {
                self.places[*next] = at - self.lengths[id as usize];
                *next += 1;
            }
        }
        for &(id, at) in &self.after.occurrences {
            let next = &mut self.after.sums[id as usize].1;
            if *next != UNRECORDED {
                self.places[*next] = at;
                *next += 1;
            }
        }
    }
}

/// Pairs of adjacent bytes, as one number each, and the first one's slot.
fn byte_pairs<W: Width>(slots: &[Slot<W>]) -> impl Iterator<Item = (usize, Slot<W>, u32)> {
    let is_byte = |slot: &Slot<W>| slot.id.get() < 256;
    let pairs = slots.windows(2).zip(0u32..).filter(move |(pair, _)| is_byte(&pair[0]) && is_byte(&pair[1]));
    pairs.map(|(pair, at)| ((pair[0].id.get() << 8 | pair[1].id.get()) as usize, pair[0], at))
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
        learn(all, n_merges, &mut Job::new(Some(1), &mut |_| true).unwrap()).unwrap()
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
        fn neither_the_threshold_nor_the_width_matters(
            pieces in prop::collection::btree_map(prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'c']), 1..24), 1u64..500, 0..12),
            threshold in prop::sample::select(vec![1u64, 2, 17, 100, 10_000]),
        ) {
            let mut counts = Counts::new();
            for (piece, n) in &pieces {
                counts.add(piece, *n).unwrap();
            }
            let mut proceed = |_| true;
            let mut job = Job::new(Some(1), &mut proceed).unwrap();
            let narrow = Learner::<u16>::new(counts.clone(), Weights::new(&counts), threshold).unwrap();
            let wide = Learner::<u32>::new(counts.clone(), Weights::new(&counts), threshold).unwrap();
            let expected = learn_slowly(&pieces.iter().map(|(piece, n)| (&piece[..], *n)).collect::<Vec<_>>(), 40);
            prop_assert_eq!(&run(narrow, 40, &mut job).unwrap(), &expected);
            prop_assert_eq!(run(wide, 40, &mut job).unwrap(), expected);
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
        let result = learn(counts, 5000, &mut Job::new(Some(1), &mut |_| false).unwrap());
        assert!(matches!(result, Err(Error::Cancelled)));
    }
}
