//! What the screening of a corpus found.

use xxhash_rust::xxh3::Xxh3;

/// What one rule removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Its name.
    pub rule: &'static str,
    /// Documents that it was the first to remove.
    pub documents: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Which documents are removed, and by what: a bit a document, in reading order.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    pub(super) removed: Bits,
    pub(super) documents: u64,
    pub(super) counts: Vec<Removed>,
}

impl Verdicts {
    /// Whether the document of this number is removed; those that were not screened are not.
    #[must_use]
    pub fn is_removed(&self, ordinal: u64) -> bool {
        self.removed.get(ordinal)
    }

    /// How many documents were screened.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// What each rule in force removed, in the order in which they apply.
    #[must_use]
    pub fn counts(&self) -> &[Removed] {
        &self.counts
    }

    /// A hash of the verdicts on documents `from` to before `to`: equal for equal verdicts, wherever the range begins.
    #[must_use]
    pub fn digest(&self, from: u64, to: u64) -> u64 {
        let mut hash = Xxh3::new();
        let mut at = from;
        while at < to {
            let width = (to - at).min(64);
            let word = self.removed.word(at) & (u64::MAX >> (64 - width));
            hash.update(&word.to_le_bytes());
            at += width;
        }
        hash.update(&to.saturating_sub(from).to_le_bytes());
        hash.digest()
    }
}

/// Bits by number, zero where nothing was set.
#[derive(Clone, Debug, Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Sets a bit; whether it was not set before.
    pub fn set(&mut self, at: u64) -> bool {
        let word = (at / 64) as usize;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let bit = 1 << (at % 64);
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// A bit.
    pub fn get(&self, at: u64) -> bool {
        self.0.get((at / 64) as usize).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// The 64 bits from a place on.
    fn word(&self, at: u64) -> u64 {
        let word = |i: usize| self.0.get(i).copied().unwrap_or(0);
        let (i, shift) = ((at / 64) as usize, at % 64);
        if shift == 0 { word(i) } else { word(i) >> shift | word(i + 1) << (64 - shift) }
    }

    /// Sets what is set in the other.
    pub fn add(&mut self, other: &Bits) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdicts(flags: &[bool]) -> Verdicts {
        let mut result = Verdicts { documents: flags.len() as u64, ..Verdicts::default() };
        for (ordinal, _) in (0..).zip(flags).filter(|(_, removed)| **removed) {
            assert!(result.removed.set(ordinal) && !result.removed.set(ordinal));
        }
        result
    }

    proptest! {
        #[test]
        fn a_digest_is_of_the_verdicts_alone(before in prop::collection::vec(any::<bool>(), 0..150), flags in prop::collection::vec(any::<bool>(), 0..150), flip in 0usize..150) {
            let (from, length) = (before.len() as u64, flags.len() as u64);
            let alone = verdicts(&flags);
            let placed = verdicts(&[before, flags.clone(), vec![true]].concat());
            prop_assert!((0..length).all(|i| alone.is_removed(i) == flags[i as usize] && placed.is_removed(from + i) == flags[i as usize]));
            prop_assert_eq!(alone.digest(0, length), placed.digest(from, from + length));
            prop_assert_ne!(alone.digest(0, length), alone.digest(0, length + 1));
            if flip < flags.len() {
                let mut other = flags;
                other[flip] = !other[flip];
                prop_assert_ne!(alone.digest(0, length), verdicts(&other).digest(0, length));
            }
        }
    }
}
