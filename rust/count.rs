//! How often each piece occurs. Counting is a sum: counts of parts, wherever they were made, add up.

use crate::error::{Error, Result};
use crate::pretokenize::Pattern;
use aho_corasick::AhoCorasick;
use rustc_hash::FxHashMap;

/// Piece to number of occurrences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pieces: FxHashMap<Box<[u8]>, u64>,
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
    /// The count passes 2^64 - 1.
    #[inline]
    pub fn add(&mut self, piece: &[u8], n: u64) -> Result<()> {
        match self.pieces.get_mut(piece) {
            Some(count) => *count = count.checked_add(n).ok_or_else(|| overflow(piece))?,
            None => drop(self.pieces.insert(piece.into(), n)),
        }
        Ok(())
    }

    /// Adds every piece of `text`, leaving out what `specials` finds.
    ///
    /// # Errors
    ///
    /// A count passes 2^64 - 1.
    pub fn add_text(&mut self, text: &str, pattern: &Pattern, specials: Option<&AhoCorasick>) -> Result<()> {
        let mut from = 0;
        if let Some(specials) = specials {
            for found in specials.find_iter(text) {
                pattern.pieces(&text[from..found.start()]).try_for_each(|piece| self.add(piece, 1))?;
                from = found.end();
            }
        }
        pattern.pieces(&text[from..]).try_for_each(|piece| self.add(piece, 1))
    }

    /// Adds all of `other`.
    ///
    /// # Errors
    ///
    /// A count passes 2^64 - 1.
    pub fn merge(&mut self, other: Counts) -> Result<()> {
        if self.pieces.is_empty() {
            *self = other;
            return Ok(());
        }
        other.pieces.into_iter().try_for_each(|(piece, n)| self.add(&piece, n))
    }

    /// Number of different pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Pieces and counts, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.pieces.iter().map(|(piece, n)| (&**piece, *n))
    }
}

fn overflow(piece: &[u8]) -> Error {
    Error::Invalid(format!("the count of {:?} passes 2^64 - 1", String::from_utf8_lossy(piece)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::special_finder;

    #[test]
    fn counts_go_beyond_32_bits_and_stop_at_64() {
        let mut counts = Counts::new();
        counts.add(b"a", u64::from(u32::MAX)).unwrap();
        counts.add(b"a", u64::from(u32::MAX)).unwrap();
        assert_eq!(counts.iter().collect::<Vec<_>>(), [(&b"a"[..], 2 * u64::from(u32::MAX))]);
        assert!(counts.add(b"a", u64::MAX).is_err());
    }

    #[test]
    fn special_tokens_are_cut_out_longest_first() {
        let specials = special_finder(&["<a>".into(), "<a><b>".into()]).unwrap();
        let mut counts = Counts::new();
        counts.add_text("x<a><b>x<a>y", &Pattern::Gpt2, specials.as_ref()).unwrap();
        let mut pieces: Vec<(&[u8], u64)> = counts.iter().collect();
        pieces.sort_unstable();
        assert_eq!(pieces, [(&b"x"[..], 2), (&b"y"[..], 1)]);
    }
}
