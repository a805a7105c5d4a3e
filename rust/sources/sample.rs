//! Part of a corpus, spread evenly over the whole.

use super::{Block, Part, Source};
use crate::error::Result;
use crate::pretokenize::Pattern;
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
    size: SampleSize,
    total_bytes: u64,
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
        let (seen, taken) = (Share::default(), Share::default());
        Sample { source, size, total_bytes, seen, taken, taking: false, has_taken: false, kept: Block::default() }
    }

    /// What has been taken so far, and of how much.
    pub fn taken_of(&self) -> (Share, Share) {
        (self.taken, self.seen)
    }

    /// What a limit allows by now.
    fn due(&self, limit: u64) -> u64 {
        let share = (self.seen.bytes as f64 / self.total_bytes as f64).min(1.0);
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

impl<S: Source> Source for Sample<S> {
    fn fill(&mut self, block: &mut Block, stop: &AtomicBool) -> Result<bool> {
        let more = self.source.fill(block, stop)?;
        self.kept.clear();
        let mut from = 0;
        for part in &block.parts {
            self.take(&block.text[from..part.end], *part);
            from = part.end;
        }
        self.kept.consumed = block.consumed;
        std::mem::swap(block, &mut self.kept);
        Ok(more)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Texts;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Number of the text and length of everything taken; what is said of it is checked.
    fn taken(texts: &[&str], size: SampleSize, block_bytes: usize) -> Vec<(usize, usize)> {
        let total = texts.iter().map(|text| text.len() as u64).sum();
        let mut sample = Sample::new(Texts::new(texts, Pattern::Gpt2, None, block_bytes), size, total);
        let (mut block, mut all) = (Block::default(), Vec::new());
        while sample.fill(&mut block, &AtomicBool::new(false)).unwrap() {
            let mut from = 0;
            for part in &block.parts {
                all.push((part.file, part.end - from));
                from = part.end;
            }
        }
        let amount = |documents: usize, bytes| Share { documents: documents as u64, bytes };
        let documents: BTreeSet<usize> = all.iter().map(|(file, _)| *file).collect();
        let said = (amount(documents.len(), all.iter().map(|(_, n)| *n as u64).sum()), amount(texts.len(), total));
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
