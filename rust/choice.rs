//! Counts -> the pieces that merges are learnt from: all of them, or the most frequent that a bound leaves room for.
//!
//! Pieces are taken by how often they occur, and equally frequent ones by a hash of their bytes: a sample of these, whatever
//! they begin with, where alphabetical order would leave out whole scripts. The bound is on what the pieces are and not on
//! how they were counted, so that what is learnt depends on the text alone.

use crate::count::Counts;
use crate::error::{Error, Result};
use crate::job::Job;
use rustc_hash::FxHashMap;

/// What [`crate::learn`] takes of pieces unless it is told otherwise: bytes, and one for each piece. Learning takes about
/// 14 bytes of memory for each of them. 50 MB of code and text in many scripts have 8.1 million, and at most 8.7 million by any
/// named pattern; 128 MB of English have 1.6 million.
pub const MAX_PIECES_BYTES: u64 = 9_000_000;

/// Pieces between two looks at whether to stop.
const STEP_PIECES: u64 = 1 << 16;

/// What part of a text a tokenizer was learnt from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// Different pieces that it was learnt from.
    pub pieces: u64,
    /// Different pieces of the text.
    pub all_pieces: u64,
    /// Share of the text's bytes that lie in the first.
    pub fraction: f64,
}

/// Which pieces are taken.
#[derive(Debug)]
pub(crate) struct Choice {
    /// How often pieces occur, descending, each number once; pieces refer to them by place.
    pub(crate) weights: Vec<u64>,
    /// How many pieces have each.
    pieces: Vec<u64>,
    /// What there is room for of pieces with the last of these weights, if that is not all of them.
    room: Option<u64>,
    /// Bytes that are taken, at most, and one for each piece.
    pub(crate) size: u64,
    all_pieces: u64,
    /// Pieces of one byte, in which nothing merges and which are always there.
    single_pieces: u64,
    all_bytes: f64,
    single_bytes: f64,
}

/// How many pieces have one count, and their bytes with one for each piece.
#[derive(Default)]
struct Class {
    pieces: u64,
    size: u64,
}

fn size_of(piece: &[u8]) -> u64 {
    piece.len() as u64 + 1
}

impl Choice {
    pub(crate) fn new(counts: &Counts, max_bytes: Option<u64>, job: &mut Job) -> Result<Choice> {
        let mut classes = FxHashMap::<u64, Class>::default();
        let (mut all_pieces, mut all_bytes, mut single_pieces, mut single_bytes) = (0, 0.0, 0, 0.0);
        counts.for_each(|piece, n| {
            all_pieces += 1;
            all_bytes += n as f64 * piece.len() as f64;
            if piece.len() == 1 {
                (single_pieces, single_bytes) = (single_pieces + 1, single_bytes + n as f64);
            } else {
                let class = classes.entry(n).or_default();
                (class.pieces, class.size) = (class.pieces + 1, class.size + size_of(piece));
            }
            if all_pieces % STEP_PIECES == 0 { job.tick() } else { Ok(()) }
        })?;
        let mut classes: Vec<(u64, Class)> = classes.into_iter().collect();
        classes.sort_unstable_by_key(|(n, _)| std::cmp::Reverse(*n));
        let (mut size, mut room) = (0, None);
        let all = classes.iter().position(|(_, class)| {
            let before = size;
            size += class.size;
            room = max_bytes.filter(|max| size > *max).map(|max| max - before);
            room.is_some()
        });
        classes.truncate(all.map_or(classes.len(), |last| last + 1));
        let size = max_bytes.filter(|_| room.is_some()).unwrap_or(size);
        let (weights, pieces) = classes.into_iter().map(|(n, class)| (n, class.pieces)).unzip();
        Ok(Choice { weights, pieces, room, size, all_pieces, single_pieces, all_bytes, single_bytes })
    }

    /// A guess at what the last merge's pair will count, on the low side: about as much as the piece of that rank.
    pub(crate) fn threshold(&self, n_merges: usize) -> u64 {
        let mut seen = 0;
        let found = self.weights.iter().zip(&self.pieces).find(|(_, n)| {
            seen += **n;
            seen >= n_merges as u64
        });
        found.map_or(1, |(weight, _)| (weight / 2).max(1))
    }

    /// Calls `each` with the pieces of more than one byte that are taken and the place of their weight.
    pub(crate) fn take(&self, counts: Counts, job: &mut Job, mut each: impl FnMut(&[u8], usize)) -> Result<Coverage> {
        let rarest = self.weights.last().copied().unwrap_or(0);
        let (mut room, mut seen, mut pieces, mut bytes) = (self.room, 0u64, self.single_pieces, self.single_bytes);
        counts.into_each(self.room.is_some(), |piece, n| {
            seen += 1;
            if seen % STEP_PIECES == 0 {
                job.tick()?;
            }
            if piece.len() == 1 || n < rarest {
                return Ok(());
            }
            if n == rarest
                && let Some(room) = &mut room
            {
                let Some(rest) = room.checked_sub(size_of(piece)) else { return Ok(()) };
                *room = rest;
            }
            (pieces, bytes) = (pieces + 1, bytes + n as f64 * piece.len() as f64);
            each(piece, self.weights.partition_point(|known| *known > n));
            Ok(())
        })?;
        let fraction = if self.room.is_none() || self.all_bytes == 0.0 { 1.0 } else { bytes / self.all_bytes };
        Ok(Coverage { pieces, all_pieces: self.all_pieces, fraction })
    }

    /// Slots of the pieces, with one after the last.
    pub(crate) fn n_slots(&self) -> Result<usize> {
        // Places are numbers of 32 bits, and there may be two for each slot: one that is there, one that a merge makes.
        if self.size > 2_000_000_000 {
            let size = self.size;
            let message = format!("the distinct pieces are {size} bytes together, more than 2,000,000,000; train on the most frequent");
            return Err(Error::Invalid(message));
        }
        Ok(self.size as usize + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hash_piece;
    use proptest::prelude::*;
    use std::cmp::Reverse;
    use std::collections::BTreeMap;

    /// The rule, word for word.
    fn choose_slowly(pieces: &BTreeMap<Vec<u8>, u64>, max_bytes: u64) -> BTreeMap<Vec<u8>, u64> {
        let size = |pieces: &[(&Vec<u8>, &u64)]| pieces.iter().map(|(piece, _)| size_of(piece)).sum::<u64>();
        let mut all: Vec<(&Vec<u8>, &u64)> = pieces.iter().filter(|(piece, _)| piece.len() > 1).collect();
        all.sort_by_key(|(piece, n)| (Reverse(**n), hash_piece(piece)));
        let mut taken = Vec::new();
        for same in all.chunk_by(|a, b| a.1 == b.1) {
            let before = taken.len();
            for one in same {
                if size(&taken) + size_of(one.0) <= max_bytes {
                    taken.push(*one);
                }
            }
            if taken.len() < before + same.len() {
                break;
            }
        }
        taken.into_iter().map(|(piece, n)| (piece.clone(), *n)).collect()
    }

    proptest! {
        #[test]
        fn chosen_pieces_are_those_of_the_plain_rule(
            pieces in prop::collection::btree_map("[a-c]{1,20}", 1u64..6, 0..60),
            max_bytes in 0u64..400,
            is_tiny: bool,
        ) {
            let pieces: BTreeMap<Vec<u8>, u64> = pieces.into_iter().map(|(piece, n)| (piece.into_bytes(), n)).collect();
            let mut counts = if is_tiny { Counts::tiny(1) } else { Counts::new() };
            for (piece, n) in &pieces {
                counts.add(piece, *n).unwrap();
            }
            let mut proceed = |_| true;
            let mut job = Job::new(Some(1), &mut proceed).unwrap();
            let choice = Choice::new(&counts, Some(max_bytes), &mut job).unwrap();
            let mut found = BTreeMap::new();
            let coverage = choice.take(counts, &mut job, |piece, weight| {
                found.insert(piece.to_vec(), choice.weights[weight]);
            }).unwrap();
            prop_assert_eq!(&found, &choose_slowly(&pieces, max_bytes));
            found.extend(pieces.iter().filter(|(piece, _)| piece.len() == 1).map(|(piece, n)| (piece.clone(), *n)));
            let bytes = |pieces: &BTreeMap<Vec<u8>, u64>| pieces.iter().map(|(piece, n)| piece.len() as f64 * *n as f64).sum::<f64>();
            let fraction = if pieces.is_empty() { 1.0 } else { bytes(&found) / bytes(&pieces) };
            prop_assert_eq!(coverage, Coverage { pieces: found.len() as u64, all_pieces: pieces.len() as u64, fraction });
        }
    }

    #[test]
    fn what_has_no_bound_is_taken_whole() {
        let mut counts = Counts::new();
        (0..1000u32).for_each(|i| counts.add(&i.to_le_bytes(), 1).unwrap());
        let mut proceed = |_| true;
        let mut job = Job::new(Some(1), &mut proceed).unwrap();
        for (bound, expected) in [(None, 1000), (Some(5000), 1000), (Some(4999), 999)] {
            let choice = Choice::new(&counts, bound, &mut job).unwrap();
            assert_eq!(choice.take(counts.clone(), &mut job, |_, _| ()).unwrap().pieces, expected);
        }
    }
}
