//! Pieces that were merged before, and their ids: in ordinary text nearly every piece comes again.
//!
//! A slot is half a cache line: a short piece is its own key, and up to three ids stand beside it, so a hit touches no
//! other memory. Longer pieces and rows of ids lie in stores. All of it is bounded: a full cache starts anew.

use crate::key::{Key, SHORT_BYTES, hash_long};
use crate::memory::prefetch;
use crate::pretokenize::Bounds;

/// A piece and its ids; no ids, no piece.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
struct Slot {
    key: Key,
    /// The ids; or, if they are more, where they start in the store.
    ids: [u32; INLINE],
    n: u32,
}

/// Ids that a slot holds.
const INLINE: usize = 3;
/// Ids that are collected before they are appended.
const ROW: usize = 256;
/// Slots at first.
const LEAST_SLOTS: usize = 1 << 12;
/// Longer pieces are not remembered: they seldom come again.
const LONGEST: usize = 256;

/// Merged pieces, and working space: one for each thread at a time.
#[derive(Debug)]
pub struct Cache {
    slots: Vec<Slot>,
    /// A hash shifted by so many bits is a place.
    shift: u32,
    used: usize,
    /// Bytes of long pieces, and ids of pieces that have more than a slot holds.
    bytes: Vec<u8>,
    ids: Vec<u32>,
    most_slots: usize,
    /// Bytes that both stores may have together.
    store_bytes: usize,
    /// Bytes encoded since somebody last looked whether to stop.
    pub(crate) since_look: usize,
    pub(crate) bounds: Bounds,
    found: Vec<(Key, u64)>,
}

impl Default for Cache {
    /// A cache of about 20 MB at most.
    fn default() -> Self {
        Cache::new(1 << 19, 4 << 20)
    }
}

impl Cache {
    /// A cache of so many slots of 32 bytes and, beside them, `store_bytes` at most.
    pub(crate) fn new(most_slots: usize, store_bytes: usize) -> Cache {
        let slots = vec![Slot::default(); LEAST_SLOTS];
        Cache {
            shift: shift_of(&slots),
            slots,
            used: 0,
            bytes: Vec::new(),
            ids: Vec::new(),
            most_slots,
            store_bytes,
            since_look: 0,
            bounds: Bounds::default(),
            found: Vec::new(),
        }
    }

    /// Appends the ids of pieces; `merge` appends those of a piece that is new.
    #[inline]
    pub(crate) fn encode(&mut self, text: &[u8], bounds: &[usize], ids: &mut Vec<u32>, mut merge: impl FnMut(&[u8], &mut Vec<u32>)) {
        // First the keys of all, then the slots of all: the processor fetches many slots at once.
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        for bound in bounds.windows(2) {
            let (start, length) = (bound[0], bound[1] - bound[0]);
            let (key, hash) = if length <= SHORT_BYTES {
                let key = Key::short(text, start, length);
                (key, key.hash())
            } else {
                (Key::default(), hash_long(&text[start..bound[1]]))
            };
            prefetch(&self.slots, self.place(hash));
            found.push((key, hash));
        }
        let (mut row, mut filled) = ([0; ROW], 0);
        for (&(key, hash), bound) in found.iter().zip(bounds.windows(2)) {
            let (mask, mut at) = (self.slots.len() - 1, self.place(hash));
            loop {
                let slot = &self.slots[at & mask];
                if slot.n == 0 {
                    ids.extend_from_slice(&row[..filled]);
                    filled = 0;
                    self.miss(&text[bound[0]..bound[1]], key, hash, ids, &mut merge);
                    break;
                }
                if slot.key == key || key == Key::default() && self.is_long(slot.key, hash, &text[bound[0]..bound[1]]) {
                    let n = slot.n as usize;
                    if n <= INLINE
                        && let Some(place) = row.get_mut(filled..filled + INLINE)
                    {
                        // All of them, whatever their number: one store without a branch.
                        place.copy_from_slice(&slot.ids);
                        filled += n;
                        break;
                    }
                    ids.extend_from_slice(&row[..filled]);
                    filled = 0;
                    if n <= INLINE {
                        ids.extend_from_slice(&slot.ids[..n]);
                    } else {
                        let start = slot.ids[0] as usize;
                        ids.extend_from_slice(&self.ids[start..start + n]);
                    }
                    break;
                }
                at += 1;
            }
        }
        ids.extend_from_slice(&row[..filled]);
        self.found = found;
    }

    #[inline]
    fn place(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    fn is_long(&self, key: Key, hash: u64, piece: &[u8]) -> bool {
        let place = if key.low == hash { key.place() } else { None };
        place.is_some_and(|(at, length)| &self.bytes[at..at + length] == piece)
    }

    #[inline(never)]
    fn miss(&mut self, piece: &[u8], key: Key, hash: u64, ids: &mut Vec<u32>, merge: &mut impl FnMut(&[u8], &mut Vec<u32>)) {
        let before = ids.len();
        merge(piece, ids);
        if piece.len() > LONGEST {
            return;
        }
        self.make_room();
        let new = &ids[before..];
        let mut slot = Slot { key, n: new.len() as u32, ids: [0; INLINE] };
        if new.len() <= INLINE {
            slot.ids[..new.len()].copy_from_slice(new);
        } else {
            slot.ids[0] = self.ids.len() as u32;
            self.ids.extend_from_slice(new);
        }
        if piece.len() > SHORT_BYTES {
            slot.key = Key::long(hash, self.bytes.len(), piece.len());
            self.bytes.extend_from_slice(piece);
        }
        self.insert(slot, hash);
        self.used += 1;
    }

    fn insert(&mut self, slot: Slot, hash: u64) {
        let (mask, mut at) = (self.slots.len() - 1, self.place(hash));
        while self.slots[at & mask].n != 0 {
            at += 1;
        }
        self.slots[at & mask] = slot;
    }

    /// Grows a table that is three fifths full; empties one that may not grow.
    fn make_room(&mut self) {
        let stored = self.bytes.len() + 4 * self.ids.len();
        if 5 * self.used < 3 * self.slots.len() && stored < self.store_bytes {
            return;
        }
        if stored >= self.store_bytes || self.slots.len() == self.most_slots {
            self.slots.fill(Slot::default());
            self.bytes.clear();
            self.ids.clear();
            self.used = 0;
            return;
        }
        // By four: what is outgrown was paid for, too, page by page.
        let n = (4 * self.slots.len()).min(self.most_slots);
        let old = std::mem::replace(&mut self.slots, Vec::with_capacity(n));
        self.slots.resize(n, Slot::default());
        self.shift = shift_of(&self.slots);
        for slot in old.into_iter().filter(|slot| slot.n != 0) {
            let hash = if slot.key.place().is_some() { slot.key.low } else { slot.key.hash() };
            self.insert(slot, hash);
        }
    }
}

fn shift_of(slots: &[Slot]) -> u32 {
    64 - slots.len().trailing_zeros()
}
