//! How often each piece occurs. Counting is a sum: counts of parts, wherever they were made, add up.
//!
//! [`Counts`] are in 64 parts by hash, so that threads that add to them seldom meet ([`CommonCounts`]).
//!
//! A part is bounded: when it is full it is written, sorted by hash, as a run to a file without a name, and starts anew.
//! What a part holds is the sum of its runs and its table. As counts are exact wherever they lie, nothing that is made of
//! them depends on when a part was full.

use crate::error::{Error, Result};
use crate::key::{Key, SHORT_BYTES, hash_piece};
use crate::piecetable::{Slot, Table, hash_of};
use crate::runs::{Run, RunFile, for_each_sum};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// When a part is full.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Pieces.
    pieces: usize,
    /// Bytes of long pieces.
    store_bytes: usize,
    /// Bytes in memory of runs that are merged.
    fan_bytes: usize,
}

impl Default for Limits {
    /// 48 MB of slots and 24 MB of long pieces in all parts; a text in any language has a third of that.
    fn default() -> Self {
        Limits { pieces: (1 << 15) * 3 / 5, store_bytes: 384 << 10, fan_bytes: 4 << 20 }
    }
}

/// Where parts go that are full.
#[derive(Debug, Default)]
struct Spill {
    limits: Limits,
    /// None takes the system's for temporary files.
    folder: Option<PathBuf>,
    file: Mutex<Option<Arc<RunFile>>>,
}

impl Spill {
    fn file(&self) -> Result<Arc<RunFile>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match &*file {
            Some(file) => Ok(file.clone()),
            None => Ok(file.insert(RunFile::new(self.folder.as_deref())?).clone()),
        }
    }
}

/// The pieces of some hashes.
#[derive(Clone, Debug, Default)]
struct Part {
    table: Table,
    runs: Vec<Run>,
}

impl Part {
    /// Makes room for so many pieces, which may be new.
    fn reserve(&mut self, n: usize, spill: &Spill) -> Result<()> {
        if self.table.used > 0 && self.table.used + n > spill.limits.pieces {
            self.spill(spill)?;
        }
        self.table.reserve(n);
        Ok(())
    }

    /// Adds the count of a piece for which there is room.
    fn add_slot(&mut self, slot: &Slot, store: &[u8], spill: &Spill) -> Result<()> {
        self.table.add_slot(slot, store)?;
        if self.table.store.len() > spill.limits.store_bytes {
            self.spill(spill)?;
        }
        Ok(())
    }

    fn spill(&mut self, spill: &Spill) -> Result<()> {
        let file = spill.file()?;
        self.runs.push(file.append(&self.table.records())?);
        self.table.clear((spill.limits.pieces * 5 / 3).next_power_of_two(), spill.limits.store_bytes);
        file.settle(&mut self.runs, spill.limits.fan_bytes, hash_piece)
    }

    fn merge(&mut self, other: &Part, spill: &Spill) -> Result<()> {
        if !other.runs.is_empty() {
            self.runs.extend_from_slice(&other.runs);
            spill.file()?.settle(&mut self.runs, spill.limits.fan_bytes, hash_piece)?;
        }
        self.reserve(other.table.used, spill)?;
        other.table.slots.iter().filter(|slot| slot.count != 0).try_for_each(|slot| self.add_slot(slot, &other.table.store, spill))
    }

    fn for_each_in_order(&self, each: &mut impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        for_each_sum(&self.runs, self.table.records(), hash_piece, each)
    }

    fn for_each(&self, each: &mut impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        if !self.runs.is_empty() {
            return self.for_each_in_order(each);
        }
        let mut slots = self.table.slots.iter().filter(|slot| slot.count != 0);
        slots.try_for_each(|slot| self.table.with_piece(slot.key, |piece| each(piece, slot.count)))
    }

    /// At least as large as every count.
    fn largest(&self) -> u64 {
        let counts = self.table.slots.iter().map(|slot| slot.count).max().into_iter().chain(self.runs.iter().map(|run| run.largest));
        counts.fold(0, u64::saturating_add)
    }
}

/// Piece to number of occurrences: up to 75 MB in memory, the rest in a file without a name.
///
/// # Example
///
/// ```
/// use tinygpt::Counts;
/// let mut counts = Counts::new();
/// counts.add(b"ab", 2)?;
/// counts.add(b"ab", 3)?;
/// counts.for_each(|piece, n| {
///     assert_eq!((piece, n), (&b"ab"[..], 5));
///     Ok(())
/// })?;
/// # Ok::<(), tinygpt::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Counts {
    parts: Vec<Part>,
    spill: Arc<Spill>,
}

/// Parts of [`Counts`], by the highest bits of the hash.
const PART_BITS: u32 = 6;

impl Default for Counts {
    fn default() -> Self {
        Counts::with(Spill::default())
    }
}

impl Counts {
    /// No counts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No counts; those that do not fit into memory will be kept in a folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Counts::with(Spill { folder: Some(folder.to_path_buf()), ..Spill::default() })
    }

    fn with(spill: Spill) -> Self {
        let empty = Part { table: Table { skip_bits: PART_BITS, ..Table::default() }, runs: Vec::new() };
        Counts { parts: vec![empty; 1 << PART_BITS], spill: Arc::new(spill) }
    }

    /// No counts, in parts that are full at once, with two runs read together.
    #[cfg(test)]
    pub(crate) fn tiny(pieces: usize) -> Self {
        let limits = Limits { pieces, store_bytes: 20 * pieces, fan_bytes: 1 };
        Counts::with(Spill { limits, ..Spill::default() })
    }

    /// All of them, each piece once.
    #[cfg(test)]
    pub(crate) fn to_map(&self) -> std::collections::BTreeMap<Vec<u8>, u64> {
        let mut all = std::collections::BTreeMap::new();
        self.for_each(|piece, n| {
            assert_eq!(all.insert(piece.to_vec(), n), None);
            Ok(())
        })
        .unwrap();
        assert_eq!(all.len() as u64, self.len().unwrap());
        all
    }

    /// No counts, kept where these are.
    #[must_use]
    pub fn empty(&self) -> Self {
        let spill = Spill { limits: self.spill.limits, folder: self.spill.folder.clone(), file: Mutex::default() };
        Counts::with(spill)
    }

    /// Adds `n` occurrences of `piece`.
    ///
    /// # Errors
    ///
    /// The piece is empty or longer than [`crate::MAX_PIECE_BYTES`], the count passes 2^64 - 1, or the disk refuses.
    pub fn add(&mut self, piece: &[u8], n: u64) -> Result<()> {
        if !(1..=crate::MAX_PIECE_BYTES).contains(&piece.len()) {
            return Err(Error::Invalid(format!("a piece has from 1 to {} bytes, got one of {}", crate::MAX_PIECE_BYTES, piece.len())));
        }
        if n == 0 {
            return Ok(());
        }
        let hash = hash_piece(piece);
        let key = if piece.len() <= SHORT_BYTES { Key::short(piece, 0, piece.len()) } else { Key::long(hash, 0, piece.len()) };
        let part = &mut self.parts[part_of(hash)];
        part.reserve(1, &self.spill)?;
        part.add_slot(&Slot { key, count: n }, piece, &self.spill)
    }

    /// Adds all of `other`, or nothing where a count would be too large.
    ///
    /// # Errors
    ///
    /// A count passes 2^64 - 1; or the disk refuses, which may leave a part of `other` added.
    pub fn merge(&mut self, other: &Counts) -> Result<()> {
        let largest = |counts: &Counts| counts.parts.iter().map(Part::largest).max().unwrap_or(0);
        if largest(self).checked_add(largest(other)).is_none() {
            let mut sum = self.clone();
            sum.merge_parts(other)?;
            sum.for_each(|_, _| Ok(()))?;
            *self = sum;
            return Ok(());
        }
        self.merge_parts(other)
    }

    fn merge_parts(&mut self, other: &Counts) -> Result<()> {
        self.parts.iter_mut().zip(&other.parts).try_for_each(|(mine, theirs)| mine.merge(theirs, &self.spill))
    }

    /// Number of different pieces.
    ///
    /// # Errors
    ///
    /// What lies on the disk cannot be read.
    pub fn len(&self) -> Result<u64> {
        let mut n = 0;
        for part in &self.parts {
            if part.runs.is_empty() {
                n += part.table.used as u64;
                continue;
            }
            part.for_each_in_order(&mut |_, _| {
                n += 1;
                Ok(())
            })?;
        }
        Ok(n)
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.table.used == 0 && part.runs.is_empty())
    }

    /// Calls `each` with every piece and its count, in no particular order.
    ///
    /// # Errors
    ///
    /// What lies on the disk cannot be read, a count passes 2^64 - 1, or what `each` returns.
    pub fn for_each(&self, mut each: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        self.parts.iter().try_for_each(|part| part.for_each(&mut each))
    }

    /// The same in the order of hashes or in none, and each part is given up when it was seen.
    pub(crate) fn into_each(self, is_ordered: bool, mut each: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        self.parts.into_iter().try_for_each(|part| if is_ordered { part.for_each_in_order(&mut each) } else { part.for_each(&mut each) })
    }

    /// A file for what is made of these counts.
    pub(crate) fn new_file(&self) -> Result<Arc<RunFile>> {
        RunFile::new(self.spill.folder.as_deref())
    }
}

fn part_of(hash: u64) -> usize {
    (hash >> (64 - PART_BITS)) as usize
}

/// Counts that several threads add to.
#[derive(Debug)]
pub(crate) struct CommonCounts {
    parts: Vec<Mutex<Part>>,
    spill: Arc<Spill>,
}

impl CommonCounts {
    pub(crate) fn new(counts: Counts) -> Self {
        CommonCounts { parts: counts.parts.into_iter().map(Mutex::new).collect(), spill: counts.spill }
    }

    pub(crate) fn into_counts(self) -> Counts {
        // A thread that panicked while it held a lock ends the call anyway.
        let parts = self.parts.into_iter().map(|part| part.into_inner().unwrap_or_else(PoisonError::into_inner));
        Counts { parts: parts.collect(), spill: self.spill }
    }

    /// Adds all of `table`, which holds hashes of every part.
    pub(crate) fn add(&self, table: &Table) -> Result<()> {
        // In the order of their hashes, but for a few that wrapped around the table's end.
        let slots: Vec<&Slot> = table.slots.iter().filter(|slot| slot.count != 0).collect();
        for slots in slots.chunk_by(|a, b| part_of(hash_of(a.key)) == part_of(hash_of(b.key))) {
            let mut part = self.parts[part_of(hash_of(slots[0].key))].lock().unwrap_or_else(PoisonError::into_inner);
            part.reserve(slots.len(), &self.spill)?;
            slots.iter().try_for_each(|slot| part.add_slot(slot, &table.store, &self.spill))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn counts_of_parts_add_up(parts in prop::collection::vec(prop::collection::btree_map("[a-b]{1,20}", 1u64..9, 0..40), 1..4), are_tiny in any::<[bool; 4]>()) {
            let (mut sum, mut expected) = (if are_tiny[3] { Counts::tiny(1) } else { Counts::new() }, BTreeMap::new());
            for (part, is_tiny) in parts.iter().zip(are_tiny) {
                let mut counts = if is_tiny { Counts::tiny(2) } else { Counts::new() };
                for (piece, n) in part {
                    counts.add(piece.as_bytes(), *n).unwrap();
                    *expected.entry(piece.as_bytes().to_vec()).or_insert(0) += n;
                }
                sum.merge(&counts).unwrap();
            }
            prop_assert_eq!(sum.to_map(), expected);
        }
    }

    #[test]
    fn counts_go_beyond_32_bits_and_stop_at_64() {
        for piece in [&b"a"[..], b"a piece of many bytes"] {
            let mut counts = Counts::new();
            counts.add(piece, u64::from(u32::MAX)).unwrap();
            counts.add(piece, u64::from(u32::MAX)).unwrap();
            assert_eq!(counts.to_map(), BTreeMap::from([(piece.to_vec(), 2 * u64::from(u32::MAX))]));
            assert!(counts.add(piece, u64::MAX).is_err());
        }
    }

    #[test]
    fn a_count_on_disk_that_would_be_too_large_adds_nothing() {
        let (mut counts, mut other) = (Counts::tiny(1), Counts::tiny(1));
        (0..999u32).for_each(|i| counts.add(&i.to_le_bytes(), u64::MAX).unwrap());
        (990..1009u32).for_each(|i| other.add(&i.to_le_bytes(), 1).unwrap());
        let before = counts.to_map();
        assert!(counts.merge(&other).unwrap_err().to_string().contains("passes 2^64 - 1"));
        assert_eq!(counts.to_map(), before);
    }

    #[test]
    fn pieces_as_long_as_can_be_do_not_stay_in_memory() {
        let mut counts = Counts::new();
        for i in 0..40u8 {
            counts.add(&vec![i; crate::MAX_PIECE_BYTES], 1).unwrap();
        }
        assert!(counts.parts.iter().all(|part| part.table.store.capacity() <= Limits::default().store_bytes));
        assert_eq!(counts.len().unwrap(), 40);
    }
}
