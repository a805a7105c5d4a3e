//! What one thread counts: a table of bounded size, which is added to the common counts when it is full.

use crate::count::CommonCounts;
use crate::error::Result;
use crate::key::{Key, SHORT_BYTES, hash_long};
use crate::memory::prefetch;
use crate::piecetable::Table;
use crate::pretokenize::{Bounds, Pattern, Scanner};
use aho_corasick::AhoCorasick;

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
        self.table.clear(TALLY_SLOTS, TALLY_BYTES);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::Counts;
    use crate::key::hash_piece;
    use crate::vocab::special_finder;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn count(texts: &[&str], specials: &[&str], into: Counts) -> Counts {
        let finder = special_finder(&specials.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        let common = CommonCounts::new(into);
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
            prop_assert_eq!(&count(&texts, &[], Counts::new()).to_map(), &expected);
            prop_assert_eq!(&count(&texts, &[], Counts::tiny(1)).to_map(), &expected);
            let mut ordered = Vec::new();
            count(&texts, &[], Counts::tiny(2)).into_each(true, |piece, n| {
                ordered.push((hash_piece(piece), piece.to_vec(), n));
                Ok(())
            }).unwrap();
            prop_assert!(ordered.is_sorted());
            prop_assert_eq!(ordered.into_iter().map(|(_, piece, n)| (piece, n)).collect::<BTreeMap<_, _>>(), expected);
        }
    }

    #[test]
    fn a_full_tally_is_added_and_starts_anew() {
        let text: String = (0..TALLY_SLOTS).map(|i| format!(" {i} and-some-longer-word-{i}")).collect();
        let counts = count(&[&text], &[], Counts::new()).to_map();
        assert_eq!(counts.values().sum::<u64>(), Pattern::Gpt2.pieces(&text).count() as u64);
        assert_eq!(counts[&b" and"[..]], TALLY_SLOTS as u64);
    }

    #[test]
    fn special_tokens_are_cut_out_longest_first() {
        let counts = count(&["x<a><b>x<a>y"], &["<a>", "<a><b>"], Counts::new()).to_map();
        assert_eq!(counts, BTreeMap::from([(b"x".to_vec(), 2), (b"y".to_vec(), 1)]));
    }
}
