//! Judging whole documents: which are kept, and which rule removed the others.
//!
//! A [`Judge`] looks at one document, in any thread; a [`Screening`] takes its judgements in reading order, finds what is
//! there twice, and ends in [`Verdicts`]. The rules apply in a fixed order, and a document counts for the first that removes
//! it: invalid, lengths, language, quality, exact duplicates, near duplicates. Duplicates are looked for among the documents
//! that the rules before kept, and the first of them in reading order stays.
//!
//! On disk: 24 bytes a document for exact duplicates, 16 for each band of near ones (224 by default), 8 for either. In
//! memory: 3 bits a document, 26 MiB of keys, 2 MiB of buffers, and 20 to 40 bytes for each near duplicate removed. Keys of
//! bands have 64 bits, so of a thousand million documents about five are joined to another by chance.

mod clusters;
mod judge;
mod language;
mod near;
mod quality;
mod spool;
mod verdicts;

pub use judge::{DocumentHash, HEAD_BYTES, Judge, Judgement};
pub use language::Languages;
pub use near::NearOptions;
pub use quality::{Preset, judge as judge_quality};
pub use verdicts::{Removed, Verdicts};

use crate::error::{Error, Result};
use clusters::Clusters;
use spool::{Keyed, MAX_KEYS, Spool};
use std::ops::ControlFlow;
use std::path::Path;
use verdicts::Bits;

const INVALID: &str = "invalid";
const MIN_CHARS: &str = "min-chars";
const MAX_CHARS: &str = "max-chars";
const LANGUAGE: &str = "language";
const EXACT: &str = "exact-duplicate";
const NEAR: &str = "near-duplicate";

/// Which documents are to be removed; by default none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Those with bytes that are not UTF-8.
    pub invalid: bool,
    /// Those of fewer characters, after cleaning.
    pub min_chars: Option<u64>,
    /// Those of more characters, after cleaning.
    pub max_chars: Option<u64>,
    /// Those in other languages.
    pub language: Option<Languages>,
    /// Those that fail a rule of this preset.
    pub quality: Option<Preset>,
    /// Those whose text after cleaning is that of an earlier one.
    pub exact: bool,
    /// Those nearly like an earlier one.
    pub near: Option<NearOptions>,
}

impl Filters {
    /// # Errors
    ///
    /// Options that contradict each other or are out of range.
    pub fn check(&self) -> Result<()> {
        if let (Some(min), Some(max)) = (self.min_chars, self.max_chars)
            && min > max
        {
            return Err(Error::Invalid(format!("min_chars must be at most max_chars, got {min} and {max}")));
        }
        self.near.map_or(Ok(()), |near| near.check())
    }

    /// Whether nothing is removed, so that no screening is needed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Filters::default()
    }

    /// Names of the rules in force, in the order in which they apply.
    #[must_use]
    pub fn rules(&self) -> Vec<&'static str> {
        let before = [
            (self.invalid, INVALID),
            (self.min_chars.is_some(), MIN_CHARS),
            (self.max_chars.is_some(), MAX_CHARS),
            (self.language.is_some(), LANGUAGE),
        ];
        let after = [(self.exact, EXACT), (self.near.is_some(), NEAR)];
        let named = |rules: &[(bool, &'static str)]| rules.iter().filter(|(used, _)| *used).map(|(_, name)| *name).collect::<Vec<_>>();
        [named(&before), self.quality.map_or(Vec::new(), |preset| preset.rules().to_vec()), named(&after)].concat()
    }

    /// The first of the rules before quality and language that removes a document.
    fn first_failed(&self, is_invalid: bool, chars: u64) -> Option<&'static str> {
        if self.invalid && is_invalid {
            return Some(INVALID);
        }
        if self.min_chars.is_some_and(|min| chars < min) {
            return Some(MIN_CHARS);
        }
        self.max_chars.is_some_and(|max| chars > max).then_some(MAX_CHARS)
    }
}

/// Takes judgements in reading order and finds duplicates among the documents.
pub struct Screening {
    filters: Filters,
    verdicts: Verdicts,
    exact: Option<Keyed<24>>,
    near: Option<Keyed<16>>,
    /// Bytes of each document, where duplicates are looked for.
    sizes: Option<Spool<8>>,
}

impl Screening {
    /// Keeps what does not fit into memory in files in a folder, which is there; they are gone when this is.
    ///
    /// # Errors
    ///
    /// The filters fail their check.
    pub fn new(filters: &Filters, folder: &Path) -> Result<Self> {
        filters.check()?;
        let counts = filters.rules().into_iter().map(|rule| Removed { rule, documents: 0, bytes: 0 }).collect();
        Ok(Screening {
            verdicts: Verdicts { counts, ..Verdicts::default() },
            exact: filters.exact.then(|| Keyed::new(folder, "exact", MAX_KEYS)),
            near: filters.near.map(|_| Keyed::new(folder, "near", MAX_KEYS)),
            sizes: (filters.exact || filters.near.is_some()).then(|| Spool::new(folder, "sizes", 1)),
            filters: filters.clone(),
        })
    }

    /// Takes all documents before that number as kept: nothing is in them, or they could not be read.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn pass_over(&mut self, ordinal: u64) -> Result<()> {
        while self.verdicts.documents < ordinal {
            self.verdicts.documents += 1;
            self.sizes.as_mut().map_or(Ok(()), |sizes| sizes.push(0, &0u64.to_le_bytes()))?;
        }
        Ok(())
    }

    /// Takes the next document: what was found in it, and the bytes that are to be counted if it is removed.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn push(&mut self, judgement: &Judgement, bytes: u64) -> Result<()> {
        let ordinal = self.verdicts.documents;
        self.verdicts.documents += 1;
        if let Some(sizes) = &mut self.sizes {
            sizes.push(0, &bytes.to_le_bytes())?;
        }
        let failed = self.filters.first_failed(judgement.is_invalid, judgement.chars).or(judgement.failed);
        if let Some(rule) = failed {
            self.verdicts.removed.set(ordinal);
            self.count(rule, bytes);
            return Ok(());
        }
        if let Some(exact) = &mut self.exact {
            exact.push([(judgement.hash >> 64) as u64, judgement.hash as u64], ordinal)?;
        }
        if let Some(near) = &mut self.near {
            judgement.bands.iter().try_for_each(|band| near.push([*band, 0], ordinal))?;
        }
        Ok(())
    }

    /// Finds the duplicates.
    ///
    /// # Errors
    ///
    /// A file cannot be read or written.
    pub fn finish(mut self) -> Result<Verdicts> {
        let mut exact = Bits::default();
        if let Some(keyed) = self.exact.take() {
            keyed.for_each_repeat(&|_| true, &mut |_, later| {
                exact.set(later);
            })?;
        }
        let mut near = Bits::default();
        if let Some(keyed) = self.near.take() {
            let mut clusters = Clusters::default();
            keyed.for_each_repeat(&|ordinal| !exact.get(ordinal), &mut |first, later| clusters.join(first, later))?;
            for ordinal in clusters.others() {
                near.set(ordinal);
            }
        }
        self.count_duplicates(&exact, &near)?;
        self.verdicts.removed.add(&exact);
        self.verdicts.removed.add(&near);
        Ok(self.verdicts)
    }

    fn count_duplicates(&mut self, exact: &Bits, near: &Bits) -> Result<()> {
        let Some(mut sizes) = self.sizes.take() else {
            return Ok(());
        };
        let mut ordinal = 0;
        sizes.for_each(0, |bytes| {
            let bytes = u64::from_le_bytes(*bytes);
            if exact.get(ordinal) {
                self.count(EXACT, bytes);
            } else if near.get(ordinal) {
                self.count(NEAR, bytes);
            }
            ordinal += 1;
            Ok(ControlFlow::Continue(()))
        })
    }

    fn count(&mut self, rule: &str, bytes: u64) {
        if let Some(count) = self.verdicts.counts.iter_mut().find(|count| count.rule == rule) {
            count.documents += 1;
            count.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests;
