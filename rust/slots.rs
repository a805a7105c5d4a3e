//! Pieces as one array of slots, in which neighbouring ids merge.
//!
//! The distinct pieces lie in one array, a slot for each byte. An id of n bytes is written in its first slot and in its
//! last, with dead slots between, so both neighbours of any id are found in one step, however long the piece is (the
//! boundary tags of Knuth, The Art of Computer Programming, vol. 1, 2.5). A slot before each piece keeps pieces apart. The
//! piece's weight stands beside each id, so that one occurrence costs one look at memory.

use crate::choice::{Choice, Coverage};
use crate::count::Counts;
use crate::error::Result;
use crate::job::Job;
use crate::memory::prefetch;
use crate::pairs::key;

/// How wide ids and numbers of weights are.
pub(crate) trait Width: Copy + Eq {
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

/// Three bytes: vocabularies have at most 2^21 ids.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Three([u8; 3]);

impl Width for Three {
    const EDGE: Three = Three([255; 3]);
    const DEAD: Three = Three([254, 255, 255]);
    fn new(number: u32) -> Three {
        let [a, b, c, _] = number.to_le_bytes();
        Three([a, b, c])
    }
    fn get(self) -> u32 {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0])
    }
}

/// An id and the number of its piece's weight.
#[derive(Clone, Copy)]
struct Slot<W> {
    id: W,
    weight: W,
}

/// A pair of ids, the id that takes their place, and the bytes of the two.
pub(crate) struct Merge<W> {
    left: W,
    right: W,
    new: W,
    left_bytes: usize,
    right_bytes: usize,
}

/// Ids at the first and last slot that each covers; see the head of this file.
pub(crate) struct Slots<W> {
    slots: Vec<Slot<W>>,
    weights: Vec<u64>,
    /// Bytes of each id.
    lengths: Vec<u32>,
}

impl<W: Width> Slots<W> {
    /// The pieces that were chosen, as bytes.
    pub(crate) fn new(counts: Counts, choice: Choice, job: &mut Job) -> Result<(Self, Coverage)> {
        let edge = Slot { id: W::EDGE, weight: W::new(0) };
        let mut slots = Vec::with_capacity(choice.n_slots()?);
        let coverage = choice.take(counts, job, |piece, weight| {
            slots.push(edge);
            slots.extend(piece.iter().map(|byte| Slot { id: W::new(u32::from(*byte)), weight: W::new(weight as u32) }));
        })?;
        slots.push(edge);
        Ok((Slots { slots, weights: choice.weights, lengths: vec![1; 256] }, coverage))
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn n_ids(&self) -> usize {
        self.lengths.len()
    }

    /// Bytes of an id.
    #[inline]
    pub(crate) fn length(&self, id: u32) -> u32 {
        self.lengths[id as usize]
    }

    /// Weight of the piece in which a slot lies.
    #[inline]
    pub(crate) fn weight(&self, at: usize) -> u64 {
        self.weights[self.slots[at].weight.get() as usize]
    }

    /// Asks for a slot that will be looked at soon.
    #[inline]
    pub(crate) fn prefetch(&self, at: u32) {
        prefetch(&self.slots, at as usize);
    }

    /// Pairs of adjacent bytes, as one number each, and the first one's slot.
    pub(crate) fn byte_pairs(&self) -> impl Iterator<Item = (usize, u32)> {
        let is_byte = |slot: &Slot<W>| slot.id.get() < 256;
        let pairs = self.slots.windows(2).zip(0u32..).filter(move |(pair, _)| is_byte(&pair[0]) && is_byte(&pair[1]));
        pairs.map(|(pair, at)| ((pair[0].id.get() << 8 | pair[1].id.get()) as usize, at))
    }

    /// Calls `each` with every pair's key and its first slot, in order.
    pub(crate) fn for_each_pair(&self, mut each: impl FnMut(u64, usize) -> Result<()>) -> Result<()> {
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

    /// Takes a new id for a pair.
    pub(crate) fn new_id(&mut self, (left, right): (u32, u32)) -> (u32, Merge<W>) {
        let (left_bytes, right_bytes) = (self.length(left), self.length(right));
        let new = self.lengths.len() as u32;
        self.lengths.push(left_bytes + right_bytes);
        let (left_bytes, right_bytes) = (left_bytes as usize, right_bytes as usize);
        (new, Merge { left: W::new(left), right: W::new(right), new: W::new(new), left_bytes, right_bytes })
    }

    /// Whether a pair that once was at a slot is there still, given how many bytes its left id has.
    ///
    /// Edges between ids only ever vanish. So a slot that once was the first of `left` is either that still, or dead, or an
    /// end of a longer id: it never is the last slot of another `left`.
    #[inline]
    pub(crate) fn holds(&self, at: usize, (left, right): (W, W), left_bytes: usize) -> bool {
        self.slots[at].id == left && self.slots[at + left_bytes].id == right
    }

    /// What stands before and behind the id of so many bytes whose first slot this is.
    #[inline]
    pub(crate) fn around(&self, at: usize, n_bytes: usize) -> (W, W) {
        (self.slots[at - 1].id, self.slots[at + n_bytes].id)
    }

    /// Writes the new id over a pair that once was at a slot, if it is there still; what stands around it, and the weight.
    #[inline]
    pub(crate) fn merge(&mut self, at: usize, merge: &Merge<W>) -> Option<(W, W, u64)> {
        if !self.holds(at, (merge.left, merge.right), merge.left_bytes) {
            return None;
        }
        let middle = at + merge.left_bytes;
        let behind = middle + merge.right_bytes;
        let ((before, after), weight) = (self.around(at, behind - at), self.weight(at));
        self.slots[middle - 1].id = W::DEAD;
        self.slots[middle].id = W::DEAD;
        self.slots[at].id = merge.new;
        self.slots[behind - 1].id = merge.new;
        Some((before, after, weight))
    }
}
