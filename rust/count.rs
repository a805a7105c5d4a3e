//! How often each piece occurs. Counting is a sum: counts of parts, wherever they were made, add up.
//!
//! A table holds a short piece in its slot and a long one in a store beside it. Places come from a hash's highest bits, so
//! going through one table in order goes through another in order, too: adding one table to another is a walk through
//! memory, not a jump for each piece. Each thread counts in a [`Tally`] of bounded size, which is added to the common
//! [`Counts`] when it is full; those are in 64 parts by hash, each under its own lock.

use crate::error::{Error, Result};
use crate::key::{Key, SHORT_BYTES, hash_long};
use crate::memory::prefetch;
use crate::pretokenize::{Bounds, Pattern, Scanner};
use aho_corasick::AhoCorasick;
use std::sync::{Mutex, PoisonError};

/// A piece and its number of occurrences; none stands for an empty slot.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: Key,
    count: u64,
}

/// Counts of some pieces.
#[derive(Clone, Debug, Default)]
struct Table {
    /// A power of two, at most three fifths full; or none.
    slots: Vec<Slot>,
    used: usize,
    /// Bytes of the long pieces.
    store: Vec<u8>,
    /// Highest bits of a hash that are the same for all pieces here.
    skip_bits: u32,
}

/// The smallest table.
const LEAST_SLOTS: usize = 16;

impl Table {
    fn with_slots(n: usize, skip_bits: u32) -> Table {
        Table { slots: vec![Slot::default(); n], used: 0, store: Vec::new(), skip_bits }
    }

    #[inline]
    fn place(&self, hash: u64) -> usize {
        (hash << self.skip_bits >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    /// The slot of a short piece, empty if it is new; there is room.
    #[inline]
    fn slot(&mut self, key: Key, hash: u64) -> &mut Slot {
        let mask = self.slots.len() - 1;
        let mut at = self.place(hash);
        while self.slots[at & mask].key != key && self.slots[at & mask].count != 0 {
            at += 1;
        }
        &mut self.slots[at & mask]
    }

    #[inline]
    fn add_short(&mut self, key: Key, hash: u64, n: u64) -> Result<()> {
        self.reserve(1);
        let slot = self.slot(key, hash);
        let is_new = slot.count == 0;
        slot.key = key;
        slot.count = slot.count.checked_add(n).ok_or_else(overflow)?;
        self.used += usize::from(is_new);
        Ok(())
    }

    /// Adds one occurrence of a short piece to a table that has room for it and counts too little to overflow.
    #[inline]
    fn add_one(&mut self, key: Key, hash: u64) {
        let slot = self.slot(key, hash);
        slot.count += 1;
        if slot.count == 1 {
            slot.key = key;
            self.used += 1;
        }
    }

    fn add_long(&mut self, piece: &[u8], hash: u64, n: u64) -> Result<()> {
        self.reserve(1);
        let mask = self.slots.len() - 1;
        let mut at = self.place(hash) & mask;
        while self.slots[at].count != 0 {
            let slot = &mut self.slots[at];
            if slot.key.low == hash
                && let Some((start, length)) = slot.key.place()
                && &self.store[start..start + length] == piece
            {
                slot.count = slot.count.checked_add(n).ok_or_else(overflow)?;
                return Ok(());
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = Slot { key: Key::long(hash, self.store.len(), piece.len()), count: n };
        self.store.extend_from_slice(piece);
        self.used += 1;
        Ok(())
    }

    /// Makes room for so many new pieces. Who adds a whole table must do so at once: its pieces come in the order of their
    /// hashes, and would all crowd at one end of a table that grows meanwhile.
    #[inline]
    fn reserve(&mut self, n: usize) {
        if (self.used + n) * 5 > self.slots.len() * 3 {
            self.grow(((self.used + n) * 5).div_ceil(3).next_power_of_two().max(LEAST_SLOTS));
        }
    }

    #[inline(never)]
    fn grow(&mut self, n: usize) {
        let old = std::mem::replace(&mut self.slots, Vec::with_capacity(n));
        self.slots.resize(n, Slot::default());
        for slot in old.into_iter().filter(|slot| slot.count != 0) {
            let mut at = self.place(hash_of(slot.key));
            while self.slots[at & (n - 1)].count != 0 {
                at += 1;
            }
            self.slots[at & (n - 1)] = slot;
        }
    }

    /// Adds all of `other`, whose hashes begin as those here.
    fn merge(&mut self, other: &Table) -> Result<()> {
        self.reserve(other.used);
        other.slots.iter().filter(|slot| slot.count != 0).try_for_each(|slot| self.add_slot(slot, &other.store))
    }

    fn add_slot(&mut self, slot: &Slot, store: &[u8]) -> Result<()> {
        match slot.key.place() {
            None => self.add_short(slot.key, slot.key.hash(), slot.count),
            Some((at, length)) => self.add_long(&store[at..at + length], slot.key.low, slot.count),
        }
    }
}

fn hash_of(key: Key) -> u64 {
    if key.place().is_some() { key.low } else { key.hash() }
}

/// Piece to number of occurrences.
#[derive(Clone, Debug)]
pub struct Counts {
    parts: Vec<Table>,
}

/// Parts of [`Counts`], by the highest bits of the hash.
const PART_BITS: u32 = 6;

impl Default for Counts {
    fn default() -> Self {
        let empty = Table { skip_bits: PART_BITS, ..Table::default() };
        Counts { parts: vec![empty; 1 << PART_BITS] }
    }
}

impl Counts {
    /// No counts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `n` occurrences of `piece`.
    ///
    /// # Errors
    ///
    /// The piece is empty or longer than [`crate::MAX_PIECE_BYTES`], or the count passes 2^64 - 1.
    pub fn add(&mut self, piece: &[u8], n: u64) -> Result<()> {
        if !(1..=crate::MAX_PIECE_BYTES).contains(&piece.len()) {
            return Err(Error::Invalid(format!("a piece has from 1 to {} bytes, got one of {}", crate::MAX_PIECE_BYTES, piece.len())));
        }
        if n == 0 {
            return Ok(());
        }
        if piece.len() <= SHORT_BYTES {
            let key = Key::short(piece, 0, piece.len());
            self.parts[part_of(key.hash())].add_short(key, key.hash(), n)
        } else {
            let hash = hash_long(piece);
            self.parts[part_of(hash)].add_long(piece, hash, n)
        }
    }

    /// Adds all of `other`, or nothing.
    ///
    /// # Errors
    ///
    /// A count passes 2^64 - 1.
    pub fn merge(&mut self, other: &Counts) -> Result<()> {
        let largest = |counts: &Counts| counts.parts.iter().flat_map(|part| &part.slots).map(|slot| slot.count).max().unwrap_or(0);
        if largest(self).checked_add(largest(other)).is_none() {
            let mut sum = self.clone();
            sum.parts.iter_mut().zip(&other.parts).try_for_each(|(mine, theirs)| mine.merge(theirs))?;
            *self = sum;
            return Ok(());
        }
        self.parts.iter_mut().zip(&other.parts).try_for_each(|(mine, theirs)| mine.merge(theirs))
    }

    /// Number of different pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.used).sum()
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `each` with every piece and its count, in no particular order.
    pub fn for_each(&self, mut each: impl FnMut(&[u8], u64)) {
        for part in &self.parts {
            for slot in part.slots.iter().filter(|slot| slot.count != 0) {
                match slot.key.place() {
                    Some((at, length)) => each(&part.store[at..at + length], slot.count),
                    None => {
                        let (bytes, n) = slot.key.bytes();
                        each(&bytes[..n], slot.count);
                    }
                }
            }
        }
    }
}

fn part_of(hash: u64) -> usize {
    (hash >> (64 - PART_BITS)) as usize
}

fn overflow() -> Error {
    Error::Invalid("the count of a piece passes 2^64 - 1".into())
}

/// Counts that several threads add to.
#[derive(Debug)]
pub(crate) struct CommonCounts {
    parts: Vec<Mutex<Table>>,
}

impl CommonCounts {
    pub(crate) fn new() -> Self {
        CommonCounts { parts: Counts::new().parts.into_iter().map(Mutex::new).collect() }
    }

    pub(crate) fn into_counts(self) -> Counts {
        // A thread that panicked while it held a lock ends the call anyway.
        Counts { parts: self.parts.into_iter().map(|part| part.into_inner().unwrap_or_else(PoisonError::into_inner)).collect() }
    }

    /// Adds all of `table`, which holds hashes of every part.
    fn add(&self, table: &Table) -> Result<()> {
        // In the order of their hashes, but for a few that wrapped around the table's end.
        let slots: Vec<&Slot> = table.slots.iter().filter(|slot| slot.count != 0).collect();
        for slots in slots.chunk_by(|a, b| part_of(hash_of(a.key)) == part_of(hash_of(b.key))) {
            let mut part = self.parts[part_of(hash_of(slots[0].key))].lock().unwrap_or_else(PoisonError::into_inner);
            part.reserve(slots.len());
            slots.iter().try_for_each(|slot| part.add_slot(slot, &table.store))?;
        }
        Ok(())
    }
}

/// What one thread has counted since it last added it to the common counts.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    table: Table,
    common: &'a CommonCounts,
    bounds: Bounds,
    found: Vec<(Key, u64)>,
}

/// Slots of a tally: 6 MB.
const TALLY_SLOTS: usize = 1 << 18;
/// Bytes of long pieces that a tally holds.
const TALLY_BYTES: usize = 4 << 20;

impl<'a> Tally<'a> {
    pub(crate) fn new(common: &'a CommonCounts) -> Self {
        Tally { table: Table::with_slots(1 << 12, 0), common, bounds: Bounds::default(), found: Vec::new() }
    }

    /// Adds every piece of `text`, leaving out what `specials` finds.
    pub(crate) fn add_text(&mut self, text: &str, pattern: &Pattern, specials: Option<&AhoCorasick>) -> Result<()> {
        let mut from = 0;
        for found in specials.iter().flat_map(|specials| specials.find_iter(text)) {
            self.add_pieces(&text[from..found.start()], pattern)?;
            from = found.end();
        }
        self.add_pieces(&text[from..], pattern)
    }

    fn add_pieces(&mut self, text: &str, pattern: &Pattern) -> Result<()> {
        let mut scanner = Scanner::new(pattern, text);
        let mut bounds = std::mem::take(&mut self.bounds);
        while scanner.fill(&mut bounds) {
            self.add_batch(text.as_bytes(), bounds.as_slice())?;
        }
        self.bounds = bounds;
        Ok(())
    }

    fn add_batch(&mut self, text: &[u8], bounds: &[usize]) -> Result<()> {
        if self.table.used + bounds.len() > TALLY_SLOTS / 2 || self.table.store.len() > TALLY_BYTES {
            self.flush()?;
        }
        // Once for all: a table that grew in between would have made the places asked for useless, too.
        self.table.reserve(bounds.len());
        self.found.clear();
        for bound in bounds.windows(2) {
            let (start, length) = (bound[0], bound[1] - bound[0]);
            if length <= SHORT_BYTES {
                let key = Key::short(text, start, length);
                let hash = key.hash();
                prefetch(&self.table.slots, self.table.place(hash));
                self.found.push((key, hash));
            } else {
                let piece = &text[start..bound[1]];
                self.table.add_long(piece, hash_long(piece), 1)?;
            }
        }
        for &(key, hash) in &self.found {
            self.table.add_one(key, hash);
        }
        Ok(())
    }

    /// Adds what was counted to the common counts.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.common.add(&self.table)?;
        self.table.slots.fill(Slot::default());
        self.table.used = 0;
        self.table.store.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::special_finder;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn all(counts: &Counts) -> BTreeMap<Vec<u8>, u64> {
        let mut all = BTreeMap::new();
        counts.for_each(|piece, n| assert_eq!(all.insert(piece.to_vec(), n), None));
        assert_eq!(all.len(), counts.len());
        all
    }

    fn count(texts: &[&str], specials: &[&str]) -> Counts {
        let finder = special_finder(&specials.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        let common = CommonCounts::new();
        for text in texts {
            let mut tally = Tally::new(&common);
            tally.add_text(text, &Pattern::Gpt2, finder.as_ref()).unwrap();
            tally.flush().unwrap();
        }
        common.into_counts()
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_plain_map(texts in prop::collection::vec("( ?[a-c]{1,3}| ?[a-b]{14,18}|[ \n]{1,3}|é){0,60}", 0..4)) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let mut expected = BTreeMap::new();
            for text in &texts {
                Pattern::Gpt2.pieces(text).for_each(|piece| *expected.entry(piece.to_vec()).or_insert(0) += 1);
            }
            prop_assert_eq!(all(&count(&texts, &[])), expected);
        }

        #[test]
        fn counts_of_parts_add_up(parts in prop::collection::vec(prop::collection::btree_map("[a-b]{1,20}", 1u64..9, 0..40), 1..4)) {
            let (mut sum, mut expected) = (Counts::new(), BTreeMap::new());
            for part in &parts {
                let mut counts = Counts::new();
                for (piece, n) in part {
                    counts.add(piece.as_bytes(), *n).unwrap();
                    *expected.entry(piece.as_bytes().to_vec()).or_insert(0) += n;
                }
                sum.merge(&counts).unwrap();
            }
            prop_assert_eq!(all(&sum), expected);
        }
    }

    #[test]
    fn a_full_tally_is_added_and_starts_anew() {
        let text: String = (0..TALLY_SLOTS).map(|i| format!(" {i} and-some-longer-word-{i}")).collect();
        let counts = all(&count(&[&text], &[]));
        assert_eq!(counts.values().sum::<u64>(), Pattern::Gpt2.pieces(&text).count() as u64);
        assert_eq!(counts[&b" and"[..]], TALLY_SLOTS as u64);
    }

    #[test]
    fn counts_go_beyond_32_bits_and_stop_at_64() {
        for piece in [&b"a"[..], b"a piece of many bytes"] {
            let mut counts = Counts::new();
            counts.add(piece, u64::from(u32::MAX)).unwrap();
            counts.add(piece, u64::from(u32::MAX)).unwrap();
            assert_eq!(all(&counts), BTreeMap::from([(piece.to_vec(), 2 * u64::from(u32::MAX))]));
            assert!(counts.add(piece, u64::MAX).is_err());
        }
    }

    #[test]
    fn special_tokens_are_cut_out_longest_first() {
        let counts = all(&count(&["x<a><b>x<a>y"], &["<a>", "<a><b>"]));
        assert_eq!(counts, BTreeMap::from([(b"x".to_vec(), 2), (b"y".to_vec(), 1)]));
    }
}
