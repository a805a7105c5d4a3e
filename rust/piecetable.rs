//! A table of pieces and counts.
//!
//! It holds a short piece in its slot and a long one in a store beside it. Places come from a hash's highest bits, so
//! going through one table in order goes through another in order, too: adding one table to another is a walk through
//! memory, not a jump for each piece.

use crate::error::Result;
use crate::key::Key;
use crate::runs::{Records, overflow};

/// A piece and its number of occurrences; none stands for an empty slot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) key: Key,
    pub(crate) count: u64,
}

/// Counts of some pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// A power of two, at most three fifths full; or none.
    pub(crate) slots: Vec<Slot>,
    pub(crate) used: usize,
    /// Bytes of the long pieces.
    pub(crate) store: Vec<u8>,
    /// Highest bits of a hash that are the same for all pieces here.
    pub(crate) skip_bits: u32,
}

/// The smallest table.
const LEAST_SLOTS: usize = 16;

impl Table {
    pub(crate) fn with_slots(n: usize, skip_bits: u32) -> Table {
        Table { slots: vec![Slot::default(); n], used: 0, store: Vec::new(), skip_bits }
    }

    #[inline]
    pub(crate) fn place(&self, hash: u64) -> usize {
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
    pub(crate) fn add_one(&mut self, key: Key, hash: u64) {
        let slot = self.slot(key, hash);
        slot.count += 1;
        if slot.count == 1 {
            slot.key = key;
            self.used += 1;
        }
    }

    pub(crate) fn add_long(&mut self, piece: &[u8], hash: u64, n: u64) -> Result<()> {
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
    pub(crate) fn reserve(&mut self, n: usize) {
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

    /// All pieces, by hash and bytes.
    pub(crate) fn records(&self) -> Records {
        let mut slots: Vec<&Slot> = self.slots.iter().filter(|slot| slot.count != 0).collect();
        // Nearly sorted: a table's places are the highest bits of hashes.
        slots.sort_unstable_by(|a, b| hash_of(a.key).cmp(&hash_of(b.key)).then_with(|| self.compare(a.key, b.key)));
        let mut records = Records::with_capacity(self.store.len() + slots.len() * 8);
        for slot in slots {
            self.with_piece(slot.key, |piece| records.put(piece, slot.count));
        }
        records
    }

    fn compare(&self, a: Key, b: Key) -> std::cmp::Ordering {
        self.with_piece(a, |a| self.with_piece(b, |b| a.cmp(b)))
    }

    /// What `call` makes of a piece's bytes.
    #[inline]
    pub(crate) fn with_piece<T>(&self, key: Key, call: impl FnOnce(&[u8]) -> T) -> T {
        match key.place() {
            Some((at, length)) => call(&self.store[at..at + length]),
            None => {
                let (bytes, n) = key.bytes();
                call(&bytes[..n])
            }
        }
    }

    /// Forgets all pieces, and keeps room for a usual number.
    pub(crate) fn clear(&mut self, n_slots: usize, n_bytes: usize) {
        if self.slots.len() > n_slots {
            self.slots = Vec::new();
        }
        self.slots.fill(Slot::default());
        self.used = 0;
        self.store.clear();
        self.store.shrink_to(n_bytes);
    }

    pub(crate) fn add_slot(&mut self, slot: &Slot, store: &[u8]) -> Result<()> {
        match slot.key.place() {
            None => self.add_short(slot.key, slot.key.hash(), slot.count),
            Some((at, length)) => self.add_long(&store[at..at + length], slot.key.low, slot.count),
        }
    }
}

pub(crate) fn hash_of(key: Key) -> u64 {
    if key.place().is_some() { key.low } else { key.hash() }
}
