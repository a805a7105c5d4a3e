//! Part of a corpus, spread evenly over the whole.

use super::{Block, Outlet, Part, Source};
use crate::error::Result;
use crate::pretokenize::Pattern;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How much of a corpus to take; `None` takes all.
#[derive(Clone, Copy, Debug, Default)]
pub struct SampleSize {
    /// At most so many bytes.
    pub bytes: Option<u64>,
    /// Text of at most so many documents.
    pub documents: Option<u64>,
}

/// A source that hands on a share: after any part of the corpus, about that part of the sample has been taken. What is
/// taken of a document is its beginning.
pub struct Sample<S> {
    source: S,
    choice: Choice,
}

/// What has been taken, and whether more is due.
struct Choice {
    size: SampleSize,
    total_bytes: u64,
    /// Bytes read so far, as they lie on the disk, which is how `total_bytes` counts.
    at: u64,
    seen: Share,
    taken: Share,
    /// Whether the open document is one of those to be taken.
    taking: bool,
    /// Whether some of it was.
    has_taken: bool,
    kept: Block,
}

/// An amount of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Documents of which it holds some.
    pub documents: u64,
    /// Bytes as they were read.
    pub bytes: u64,
}

/// Less than this is not cut off a longer document.
const LEAST_BYTES: u64 = 4096;

impl<S: Source> Sample<S> {
    /// A share of `source`, which holds about `total_bytes`.
    pub fn new(source: S, size: SampleSize, total_bytes: u64) -> Self {
        let total_bytes = total_bytes.max(1);
        let (seen, taken, at) = (Share::default(), Share::default(), 0);
        let choice = Choice { size, total_bytes, at, seen, taken, taking: false, has_taken: false, kept: Block::default() };
        Sample { source, choice }
    }

    /// What has been taken so far, and of how much.
    pub fn taken_of(&self) -> (Share, Share) {
        (self.choice.taken, self.choice.seen)
    }

    /// The source, which has been read.
    pub fn source(&self) -> &S {
        &self.source
    }
}

impl Choice {
    /// What a limit allows by now.
    fn due(&self, limit: u64) -> u64 {
        let share = (self.at as f64 / self.total_bytes as f64).min(1.0);
        (limit as f64 * share).ceil() as u64
    }

    fn take(&mut self, text: &[u8], part: Part) {
        self.seen.bytes += text.len() as u64;
        if part.starts {
            self.seen.documents += 1;
            self.taking = self.size.documents.is_none_or(|limit| self.taken.documents < self.due(limit).min(limit));
            self.has_taken = false;
        }
        if !self.taking {
            return;
        }
        let allowed = self.size.bytes.map_or(u64::MAX, |limit| self.due(limit).min(limit).saturating_sub(self.taken.bytes));
        let text = if allowed >= text.len() as u64 {
            text
        } else if allowed >= LEAST_BYTES.min(self.size.bytes.unwrap_or(0)) {
            {
                // Without white space, after any character.
                let mut end = allowed as usize;
                while end > 0 && text[end] & 0xc0 == 0x80 {
                    end -= 1;
                }
                &text[..Pattern::Gpt2.last_cut(text, allowed as usize).unwrap_or(end)]
            }
        } else {
            &[]
        };
        if !text.is_empty() {
            self.taken.bytes += text.len() as u64;
            self.taken.documents += u64::from(!self.has_taken);
            self.has_taken = true;
            self.kept.push(text, part);
        }
    }
}

/// Hands on what is chosen of each block.
struct Chosen<'a> {
    choice: &'a mut Choice,
    outlet: &'a mut dyn Outlet,
}

impl Outlet for Chosen<'_> {
    fn exchange(&mut self, full: Block) -> Result<Block> {
        let choice = &mut *self.choice;
        choice.kept.clear();
        let (before, bytes) = (choice.at, full.text.len().max(1) as u64);
        let mut from = 0;
        for part in &full.parts {
            // What lies packed on the disk is unpacked evenly.
            choice.at = before + full.consumed * part.end as u64 / bytes;
            choice.take(&full.text[from..part.end], *part);
            from = part.end;
        }
        choice.at = before + full.consumed;
        choice.kept.consumed = full.consumed;
        let empty = self.outlet.exchange(std::mem::replace(&mut choice.kept, full))?;
        Ok(std::mem::replace(&mut choice.kept, empty))
    }
}

impl<S: Source> Source for Sample<S> {
    fn read(&mut self, outlet: &mut dyn Outlet, stop: &Arc<AtomicBool>, threads: usize) -> Result<()> {
        self.source.read(&mut Chosen { choice: &mut self.choice, outlet }, stop, threads)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::blocks;
    use super::super::{Cutting, Texts};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Number of the text and length of everything taken; what is said of it is checked.
    fn taken(texts: &[&str], size: SampleSize, block_bytes: usize) -> Vec<(usize, usize)> {
        let total = texts.iter().map(|text| text.len() as u64).sum();
        let mut sample = Sample::new(Texts::new(texts, 0, Cutting::new(Pattern::Gpt2, block_bytes)), size, total);
        let mut all = Vec::new();
        for block in blocks(&mut sample) {
            let mut from = 0;
            for part in &block.parts {
                all.push((part.ordinal as usize, part.end - from));
                from = part.end;
            }
        }
        let amount = |documents: usize, bytes| Share { documents: documents as u64, bytes };
        let documents: BTreeSet<usize> = all.iter().map(|(text, _)| *text).collect();
        let n_texts = texts.iter().filter(|text| !text.is_empty()).count();
        let said = (amount(documents.len(), all.iter().map(|(_, n)| *n as u64).sum()), amount(n_texts, total));
        assert_eq!(sample.taken_of(), said);
        all
    }

    #[test]
    fn a_sample_of_bytes_is_spread_over_the_corpus() {
        let texts = vec!["some words of text "; 1000];
        let found = taken(&texts, SampleSize { bytes: Some(1900), documents: None }, 500);
        assert!(found.len() >= 90 && found.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 12), "{found:?}");
    }

    #[test]
    fn a_sample_of_documents_is_spread_over_the_corpus() {
        let texts = vec!["some words of text "; 1000];
        let found = taken(&texts, SampleSize { bytes: None, documents: Some(10) }, 500);
        assert_eq!(found.iter().map(|(text, _)| *text / 100).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_small_sample_of_one_long_document_is_not_empty() {
        let text = "some words of text ".repeat(100_000);
        let bytes: usize = taken(&[&text], SampleSize { bytes: Some(50_000), documents: None }, 4096).iter().map(|(_, n)| n).sum();
        assert!((40_000..=50_000).contains(&bytes), "{bytes}");
    }

    proptest! {
        #[test]
        fn limits_hold(lengths in prop::collection::vec(0usize..3000, 1..40), bytes in 1u64..50_000, documents in 1u64..50) {
            let texts: Vec<String> = lengths.iter().map(|n| "word ".repeat(n / 5)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let found = taken(&texts, SampleSize { bytes: Some(bytes), documents: Some(documents) }, 1000);
            prop_assert!(found.iter().map(|(_, n)| *n as u64).sum::<u64>() <= bytes);
            prop_assert!(found.len() as u64 <= documents);
        }
    }
}
