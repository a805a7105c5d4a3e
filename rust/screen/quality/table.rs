//! Counts of 64-bit keys, for one document after another.

/// A hash table that a new document empties; keys are taken for well mixed.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Key and count; a count of zero is an empty slot.
    slots: Vec<(u64, u32)>,
}

impl Table {
    /// Empties the table and makes room for that many keys.
    pub fn clear(&mut self, keys: usize) {
        self.slots.clear();
        self.slots.resize((2 * keys).next_power_of_two(), (0, 0));
    }

    /// Counts a key once more; how often it was there before.
    pub fn add(&mut self, key: u64) -> u32 {
        let slot = self.slot(key);
        let (known, count) = &mut self.slots[slot];
        *known = key;
        *count += 1;
        *count - 1
    }

    /// How often a key was counted.
    pub fn count(&self, key: u64) -> u32 {
        self.slots[self.slot(key)].1
    }

    fn slot(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = key as usize & mask;
        while self.slots[slot].1 != 0 && self.slots[slot].0 != key {
            slot = (slot + 1) & mask;
        }
        slot
    }
}
