//! What can be said of one document alone.

use super::near::Signer;
use super::quality::QualityJudge;
use super::{Filters, LANGUAGE};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Language, quality and resemblance are judged by this many first bytes of the cleaned text.
pub const HEAD_BYTES: usize = 256 << 10;

/// What a [`Judge`] found in a document, for [`super::Screening`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether some of its bytes were not UTF-8.
    pub is_invalid: bool,
    /// Characters of the cleaned text.
    pub chars: u64,
    /// Hash of the cleaned text, where it is needed.
    pub hash: u128,
    /// The first rule on language or quality that it fails.
    pub(super) failed: Option<&'static str>,
    /// Keys of the bands, where near duplicates are looked for.
    pub(super) bands: Vec<u64>,
}

impl Judgement {
    /// Completes the judgement on the beginning of a long document with what is known of all of it.
    pub fn complete(&mut self, whole: &DocumentHash, is_invalid: bool) {
        (self.is_invalid, self.chars, self.hash) = (is_invalid, whole.chars(), whole.digest());
    }
}

/// Hash and length of a text that comes in parts.
#[derive(Clone, Default)]
pub struct DocumentHash {
    hash: Xxh3,
    chars: u64,
}

impl DocumentHash {
    /// Takes more of the cleaned text.
    pub fn update(&mut self, text: &str) {
        self.hash.update(text.as_bytes());
        self.chars += text.chars().count() as u64;
    }

    /// Characters so far.
    #[must_use]
    pub fn chars(&self) -> u64 {
        self.chars
    }

    /// The hash of the text so far: XXH3 of 128 bits, that of the parts joined.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.hash.digest128()
    }
}

/// Judges documents one by one; each thread has its own.
#[derive(Clone)]
pub struct Judge {
    filters: Filters,
    quality: QualityJudge,
    signer: Option<Signer>,
}

impl Judge {
    /// For checked filters.
    #[must_use]
    pub fn new(filters: &Filters) -> Self {
        Judge { filters: filters.clone(), quality: QualityJudge::default(), signer: filters.near.map(Signer::new) }
    }

    /// Judges a cleaned text: all of the document or, if that is longer, at least [`HEAD_BYTES`] of it; then
    /// [`Judgement::complete`] adds what only all of it can tell.
    pub fn judge(&mut self, text: &str, is_whole: bool, is_invalid: bool) -> Judgement {
        let chars = text.chars().count() as u64;
        let mut result = Judgement { is_invalid, chars, hash: 0, failed: None, bands: Vec::new() };
        if is_whole && self.filters.first_failed(is_invalid, chars).is_some() {
            return result;
        }
        let head = &text[..text.floor_char_boundary(HEAD_BYTES)];
        result.failed = self.failed(head);
        if result.failed.is_some() {
            return result;
        }
        if is_whole && self.filters.exact {
            result.hash = xxh3_128(text.as_bytes());
        }
        if let Some(signer) = &mut self.signer {
            result.bands = signer.bands(head);
        }
        result
    }

    fn failed(&mut self, head: &str) -> Option<&'static str> {
        if self.filters.language.as_ref().is_some_and(|languages| !languages.admit(head)) {
            return Some(LANGUAGE);
        }
        self.filters.quality.and_then(|preset| self.quality.judge(head, preset))
    }
}
