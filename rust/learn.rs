//! Counts -> merges: byte-pair encoding learnt from the distinct pieces, weighted by how often each occurs.
//!
//! The rule: at every step the most frequent pair of adjacent ids becomes a new id. **Ties** go to the smaller left id,
//! then to the smaller right id, where ids 0-255 are the bytes and then the merges in order; so the result depends on
//! the counts alone. Occurrences that overlap (`aaa` holds `aa` twice) all count, and merging goes from left to right.
//!
//! The algorithm rests on one law: *all occurrences of a pair are born in the one merge that makes the newer of its two
//! ids, and from then on they only vanish.* So the places of a pair are one slice of an array, written once, and its
//! count at birth is the largest it will ever have. Most pairs are rare, and most are never recorded ([`Pairs`]); should the
//! recorded ones run out, the threshold falls and all pairs are counted anew.
//!
//! Places of pairs that were merged or forgotten go when there are too many places, and where that is not enough places of
//! what has vanished.

use crate::choice::{Choice, Coverage};
use crate::count::Counts;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::memory::give_back;
use crate::pairs::{Pair, Pairs, Rank, at_least, ids, key};
use crate::slots::{Merge, Slots, Three, Width};
use crate::vocab::MAX_ID;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::ops::Range;

/// What was learnt, and what from.
#[derive(Clone, Debug, PartialEq)]
pub struct Learnt {
    /// Ids of each merge, first to be applied first.
    pub merges: Vec<(u32, u32)>,
    /// The pieces that they were learnt from.
    pub coverage: Coverage,
}

/// Learns up to `n_merges` merges, most frequent pair first; fewer if no pair is left. Of pieces that are more than
/// `max_bytes` together, one added for each, the most frequent are taken; equally frequent ones by a hash of their bytes.
///
/// # Errors
///
/// The job was cancelled, the disk refuses, the pieces taken are longer than 2 GB together, or more merges are wanted than a
/// vocabulary has ids.
///
/// # Example
///
/// ```
/// use tinygpt::{Counts, Job, learn};
/// let mut counts = Counts::new();
/// counts.add(b"abab", 3)?;
/// let learnt = learn(counts, 2, None, &mut Job::new(Some(1), &mut |_| true)?)?;
/// assert_eq!(learnt.merges, [(97, 98), (256, 256)]);
/// # Ok::<(), tinygpt::Error>(())
/// ```
pub fn learn(counts: Counts, n_merges: usize, max_bytes: Option<u64>, job: &mut Job) -> Result<Learnt> {
    if n_merges > MAX_MERGES {
        return Err(Error::Invalid(format!("n_merges must be at most {MAX_MERGES}, got {n_merges}")));
    }
    let choice = Choice::new(&counts, max_bytes, job)?;
    job.tick()?;
    let n_slots = choice.n_slots()?;
    let threshold = choice.threshold(n_merges);
    // Narrow ids and weights are less memory to go through.
    if n_merges + 256 < usize::from(u16::MAX - 1) && choice.weights.len() <= 1 << 16 {
        let limits = Limits::new(n_slots, n_slots / 2 * 3);
        run(Learner::<u16>::new(counts, choice, threshold, limits, job)?, n_merges, job)
    } else if choice.weights.len() <= 1 << 24 {
        // What slots take more, places take less.
        let limits = Limits::new(n_slots, n_slots / 4 * 5);
        run(Learner::<Three>::new(counts, choice, threshold, limits, job)?, n_merges, job)
    } else {
        let n = choice.weights.len();
        Err(Error::Invalid(format!("pieces have {n} different counts, more than 16,777,216; train on a sample")))
    }
}

fn run<W: Width>((mut learner, coverage): (Learner<W>, Coverage), n_merges: usize, job: &mut Job) -> Result<Learnt> {
    let mut merges = Vec::with_capacity(n_merges.min(1 << 20));
    while merges.len() < n_merges {
        let Some(pair) = learner.most_frequent(job)? else { break };
        merges.push(pair);
        learner.merge(pair, job)?;
        if merges.len() % 64 == 0 {
            job.tick()?;
        }
    }
    if learner.slots.len() > GIVE_BACK_SLOTS {
        drop(learner);
        give_back();
    }
    Ok(Learnt { merges, coverage })
}

/// How much is held in memory. None of it changes what is learnt.
#[derive(Clone, Copy)]
struct Limits {
    /// From here on places of what has vanished go.
    places: usize,
    pairs: usize,
    /// Occurrences of a pair up to which a merge notes the neighbours of each; with more it looks at the slots again.
    noted: usize,
}

impl Limits {
    /// Of places, 33 MB, and of pairs what fills a table of 13 MB; more of both where the pieces themselves take far more.
    fn new(n_slots: usize, n_places: usize) -> Limits {
        Limits { places: n_places.max(8 << 20), pairs: ((1 << 19) / 8 * 7).max(n_slots / 32), noted: 1 << 18 }
    }
}

/// What one merge takes from the pairs with each neighbour, and gives to the neighbour's pair with the new id: only what
/// was touched is ever looked at.
#[derive(Default)]
struct Neighbours {
    /// By id: sum of weights, and number of occurrences; after `Learner::record`, where the next place is written.
    sums: Vec<(u64, usize)>,
    touched: Vec<u32>,
    /// Each occurrence, if they are noted: the neighbour and the first slot of the new id.
    occurrences: Vec<(u32, u32)>,
}

impl Neighbours {
    fn add(&mut self, id: u32, at: usize, weight: u64, is_noted: bool) {
        if is_noted {
            self.occurrences.push((id, at as u32));
        }
        let (sum, n) = &mut self.sums[id as usize];
        if *n == 0 {
            self.touched.push(id);
        }
        *sum += weight;
        *n += 1;
    }

    fn clear(&mut self) {
        for id in self.touched.drain(..) {
            self.sums[id as usize] = (0, 0);
        }
        self.occurrences.clear();
    }
}

/// Ids of a vocabulary, but for the bytes.
const MAX_MERGES: usize = MAX_ID as usize - 255;
/// Slots from which on freed memory is given back.
const GIVE_BACK_SLOTS: usize = 4 << 20;
/// Places between two looks at whether to stop.
const STEP_PLACES: usize = 1 << 20;
/// How many places ahead memory is asked for.
const AHEAD: usize = 16;
/// In the place of a place: the pair is not recorded.
const UNRECORDED: usize = usize::MAX;

struct Learner<W> {
    slots: Slots<W>,
    /// First slots of occurrences, each pair's in one ascending slice.
    places: Vec<u32>,
    pairs: Pairs,
    limits: Limits,
    before: Neighbours,
    after: Neighbours,
}

impl<W: Width> Learner<W> {
    fn new(counts: Counts, choice: Choice, threshold: u64, limits: Limits, job: &mut Job) -> Result<(Self, Coverage)> {
        let (slots, coverage) = Slots::new(counts, choice, job)?;
        // The tables of counts are gone; what follows needs the room. For few pieces, taking it anew costs more than it gives.
        if slots.len() > GIVE_BACK_SLOTS {
            give_back();
        }
        let pairs = Pairs::new(at_least(threshold), limits.pairs);
        let (before, after) = Default::default();
        let mut learner = Learner { slots, places: Vec::new(), pairs, limits, before, after };
        learner.find_byte_pairs()?;
        Ok((learner, coverage))
    }

    /// Counts the pairs of bytes, then writes their places down: two passes, so that each slice has its exact length.
    fn find_byte_pairs(&mut self) -> Result<()> {
        let mut sums = vec![(0u64, 0usize); 1 << 16];
        for (pair, at) in self.slots.byte_pairs() {
            let (sum, n) = &mut sums[pair];
            *sum = sum.checked_add(self.slots.weight(at as usize)).ok_or_else(too_many)?;
            *n += 1;
        }
        let mut start = 0;
        for (pair, (count, n)) in sums.iter_mut().enumerate() {
            let key = key(pair as u32 >> 8, pair as u32 & 255);
            if *n == 0 || !self.pairs.is_wanted(*count, key) {
                *n = UNRECORDED;
                continue;
            }
            self.pairs.insert(key, Pair { count: *count, start: start as u32, n: *n as u32 });
            (*n, start) = (start, start + *n);
        }
        self.places = vec![0; start];
        for (pair, at) in self.slots.byte_pairs() {
            let next = &mut sums[pair].1;
            if *next != UNRECORDED {
                self.places[*next] = at;
                *next += 1;
            }
        }
        Ok(())
    }

    /// The pair to merge next; none when no piece has two ids left.
    fn most_frequent(&mut self, job: &mut Job) -> Result<Option<(u32, u32)>> {
        loop {
            if let Some(pair) = self.pairs.most_frequent() {
                return Ok(Some(pair));
            }
            let Some(lowest) = self.pairs.lower_threshold() else { return Ok(None) };
            self.find_pairs(lowest, job)?;
        }
    }

    /// Counts all pairs anew and records those that rank as high as `lowest`, the highest of them if they are too many.
    fn find_pairs(&mut self, lowest: Rank, job: &mut Job) -> Result<()> {
        (self.places, self.pairs) = (Vec::new(), Pairs::new(lowest, self.limits.pairs));
        let mut threshold = lowest;
        let mut found: Vec<(Rank, u32)> = Vec::new();
        // Groups of pairs that are counted apart, as many as it takes to make them small.
        let (mut group, mut n_groups) = (0, 1);
        while group < n_groups {
            job.tick()?;
            let Some(sums) = self.sums(group, n_groups)? else {
                (group, n_groups, threshold) = (0, n_groups * 4, lowest);
                found.clear();
                continue;
            };
            found.extend(sums.into_iter().map(|(key, (sum, n))| ((sum, Reverse(key)), n)).filter(|(rank, _)| *rank >= threshold));
            if found.len() >= self.limits.pairs {
                let middle = self.limits.pairs / 2;
                threshold = found.select_nth_unstable_by_key(middle, |(rank, _)| Reverse(*rank)).1.0;
                found.truncate(middle + 1);
            }
            group += 1;
        }
        let (mut pairs, mut start) = (Pairs::new(threshold, self.limits.pairs), 0);
        for ((count, Reverse(key)), n) in found {
            pairs.insert(key, Pair { count, start, n: 0 });
            start += n;
        }
        let mut places = vec![0; start as usize];
        self.slots.for_each_pair(|key, at| {
            if let Some(pair) = pairs.get_mut(key) {
                places[pair.places().end] = at as u32;
                pair.n += 1;
            }
            Ok(())
        })?;
        (self.places, self.pairs) = (places, pairs);
        Ok(())
    }

    /// Counts and numbers of occurrences of the pairs of one group; none if they are too many.
    fn sums(&self, group: u64, n_groups: u64) -> Result<Option<FxHashMap<u64, (u64, u32)>>> {
        let mut sums = FxHashMap::<u64, (u64, u32)>::default();
        let mut is_too_many = false;
        self.slots.for_each_pair(|key, at| {
            if n_groups > 1 && (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % n_groups != group || is_too_many {
                return Ok(());
            }
            let (sum, n) = sums.entry(key).or_default();
            *sum = sum.checked_add(self.slots.weight(at)).ok_or_else(too_many)?;
            *n += 1;
            is_too_many = sums.len() > self.limits.pairs;
            Ok(())
        })?;
        Ok(Some(sums).filter(|_| !is_too_many))
    }

    /// Takes out of the places those of pairs that are merged or forgotten, and, if `is_thorough`, those where something has
    /// changed: a look at each slot, where the rest is moving slices.
    fn forget_places(&mut self, is_thorough: bool) {
        let mut next = 0;
        for (key, pair) in self.pairs.by_place() {
            let (left, right) = ids(key);
            let (left_bytes, ids) = (self.slots.length(left) as usize, (W::new(left), W::new(right)));
            let places = pair.places();
            pair.start = next as u32;
            if !is_thorough {
                next += places.len();
                self.places.copy_within(places, pair.start as usize);
                continue;
            }
            for i in places {
                if let Some(ahead) = self.places.get(i + AHEAD) {
                    self.slots.prefetch(*ahead);
                }
                let at = self.places[i];
                if self.slots.holds(at as usize, ids, left_bytes) {
                    self.places[next] = at;
                    next += 1;
                }
            }
            pair.n = next as u32 - pair.start;
        }
        self.places.truncate(next);
    }

    /// Replaces the pair everywhere by a new id.
    fn merge(&mut self, (left, right): (u32, u32), job: &mut Job) -> Result<()> {
        let (new, merge) = self.slots.new_id((left, right));
        self.before.sums.resize(self.slots.n_ids(), (0, 0));
        self.after.sums.resize(self.slots.n_ids(), (0, 0));
        let n = self.pairs.n_places(key(left, right));
        for is_thorough in [false, true] {
            if self.places.len() + 2 * n > self.limits.places {
                self.forget_places(is_thorough);
            }
        }
        let Some(pair) = self.pairs.remove(key(left, right)) else { return Ok(()) };
        let places = pair.places();
        let is_noted = places.len() <= self.limits.noted;
        let (mut chained, mut made) = ((0, 0), places.start..places.start);
        for first in places.clone().step_by(STEP_PLACES) {
            let (weight, n) = self.replace(first..places.end.min(first + STEP_PLACES), &merge, new, is_noted, &mut made);
            chained = (chained.0 + weight, chained.1 + n);
            if places.len() > STEP_PLACES {
                job.tick()?;
            }
        }
        self.forget(left, right);
        self.record(left, new, chained, made);
        self.before.clear();
        self.after.clear();
        Ok(())
    }

    /// Writes the new id over every occurrence that is still there, noting which neighbours it has; or else moving
    /// its place to `made`. Where it follows itself, the weights and the number of those places are returned.
    fn replace(&mut self, places: Range<usize>, merge: &Merge<W>, new: u32, is_noted: bool, made: &mut Range<usize>) -> (u64, usize) {
        let (mut chained, mut n_chained) = (0, 0);
        for i in places {
            if let Some(ahead) = self.places.get(i + AHEAD) {
                self.slots.prefetch(*ahead);
            }
            let at = self.places[i] as usize;
            let Some((before, after, weight)) = self.slots.merge(at, merge) else { continue };
            if before == W::new(new) {
                // The pair's own last occurrence, which took this one's `left` for its neighbour: it is the new id now.
                chained += weight;
                n_chained += 1;
                if let Some(last) = self.after.occurrences.last_mut() {
                    last.0 = new;
                }
            } else if before != W::EDGE {
                self.before.add(before.get(), at, weight, is_noted);
            }
            if after != W::EDGE {
                self.after.add(after.get(), at, weight, is_noted);
            }
            if !is_noted {
                self.places[made.end] = at as u32;
                made.end += 1;
            }
        }
        (chained, n_chained)
    }

    /// Takes the lost occurrences off the counts of (neighbour, left) and (right, neighbour).
    fn forget(&mut self, left: u32, right: u32) {
        for &id in &self.before.touched {
            self.pairs.lose(key(id, left), self.before.sums[id as usize].0);
        }
        for &id in &self.after.touched {
            self.pairs.lose(key(right, id), self.after.sums[id as usize].0);
        }
    }

    /// Gives every pair with the new id its count and its places; occurrences that were not noted have the places `made`.
    fn record(&mut self, left: u32, new: u32, (chained, n_chained): (u64, usize), made: Range<usize>) {
        if n_chained > 0 {
            // What followed itself lost `left` as its neighbour, but gained the new id.
            let (sum, n) = &mut self.after.sums[left as usize];
            (*sum, *n) = (*sum - chained, *n - n_chained);
            self.after.sums[new as usize] = (chained, n_chained);
            self.after.touched.push(new);
        }
        let mut next = self.places.len();
        for is_left in [true, false] {
            let mut neighbours = std::mem::take(if is_left { &mut self.before } else { &mut self.after });
            for &id in &neighbours.touched {
                let key = if is_left { key(id, new) } else { key(new, id) };
                let (count, n) = &mut neighbours.sums[id as usize];
                if *n == 0 || !self.pairs.is_wanted(*count, key) {
                    *n = UNRECORDED;
                    continue;
                }
                self.pairs.insert(key, Pair { count: *count, start: next as u32, n: *n as u32 });
                (*n, next) = (next, next + *n);
                self.pairs.make_room();
            }
            *if is_left { &mut self.before } else { &mut self.after } = neighbours;
        }
        self.places.resize(next, 0);
        self.write_places(new, made);
    }

    /// Writes down where the pairs with the new id are. Its neighbours are final now.
    fn write_places(&mut self, new: u32, made: Range<usize>) {
        for &(id, at) in &self.before.occurrences {
            let next = &mut self.before.sums[id as usize].1;
            if *next != UNRECORDED {
                self.places[*next] = at - self.slots.length(id);
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
        let new_bytes = self.slots.length(new) as usize;
        for i in made {
            self.slots.prefetch(self.places[i + AHEAD.min(self.places.len() - 1 - i)]);
            let at = self.places[i] as usize;
            let (before, after) = self.slots.around(at, new_bytes);
            // Of two of the new id in a row, the first one's place is that of their pair.
            if before != W::EDGE && before != W::new(new) {
                let next = &mut self.before.sums[before.get() as usize].1;
                if *next != UNRECORDED {
                    self.places[*next] = at as u32 - self.slots.length(before.get());
                    *next += 1;
                }
            }
            if after != W::EDGE {
                let next = &mut self.after.sums[after.get() as usize].1;
                if *next != UNRECORDED {
                    self.places[*next] = at as u32;
                    *next += 1;
                }
            }
        }
    }
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
        learn(all, n_merges, None, &mut Job::new(Some(1), &mut |_| true).unwrap()).unwrap().merges
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
        fn neither_the_threshold_nor_limits_nor_the_width_matter(
            pieces in prop::collection::btree_map(prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'c']), 1..24), 1u64..500, 0..12),
            threshold in prop::sample::select(vec![1u64, 2, 17, 100, 10_000]),
            places in 0usize..200,
            pairs in 1usize..20,
            noted in 0usize..20,
        ) {
            let mut counts = Counts::new();
            for (piece, n) in &pieces {
                counts.add(piece, *n).unwrap();
            }
            let mut proceed = |_| true;
            let mut job = Job::new(Some(1), &mut proceed).unwrap();
            let limits = Limits { places, pairs, noted };
            let choice = || Choice::new(&counts, None, &mut Job::new(Some(1), &mut |_| true).unwrap()).unwrap();
            let narrow = Learner::<u16>::new(counts.clone(), choice(), threshold, limits, &mut job).unwrap();
            let wide = Learner::<Three>::new(counts.clone(), choice(), threshold, limits, &mut job).unwrap();
            let expected = learn_slowly(&pieces.iter().map(|(piece, n)| (&piece[..], *n)).collect::<Vec<_>>(), 40);
            prop_assert_eq!(&run(narrow, 40, &mut job).unwrap().merges, &expected);
            prop_assert_eq!(run(wide, 40, &mut job).unwrap().merges, expected);
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
    fn more_merges_than_a_vocabulary_has_ids_are_refused() {
        let result = learn(Counts::new(), (1 << 21) - 255, None, &mut Job::new(Some(1), &mut |_| true).unwrap());
        assert_eq!(result.unwrap_err().to_string(), "n_merges must be at most 2096896, got 2096897");
    }

    #[test]
    fn a_cancelled_job_ends_learning() {
        let mut counts = Counts::new();
        (0..5000u32).for_each(|i| counts.add(&i.to_le_bytes(), 1).unwrap());
        let result = learn(counts, 5000, None, &mut Job::new(Some(1), &mut |_| false).unwrap());
        assert!(matches!(result, Err(Error::Cancelled)));
    }
}
