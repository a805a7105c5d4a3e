//! Near duplicates: what documents share of their word n-grams, by least hashes (`MinHash`) in bands.

use crate::error::{Error, Result};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How near duplicates are found.
///
/// Each document has `bands * rows` hashes, each the least of one random function over its n-grams, so two documents agree
/// in one with the probability `s` of their resemblance (n-grams in both over n-grams in either). Those that agree in all
/// rows of some band are taken for duplicates: with probability `1 - (1 - s^rows)^bands`, which rises steeply about
/// `s = (1 / bands)^(1 / rows)`. The default (5, 14, 8) has 0.72 there: 0.21 at `s = 0.6`, 0.92 at 0.8, 0.9996 at 0.9.
///
/// Source: Broder 1997, On the resemblance and containment of documents; parameters as for `FineWeb` (arXiv:2406.17557).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearOptions {
    /// Words of an n-gram.
    pub words: usize,
    /// Bands, any one of which makes duplicates.
    pub bands: usize,
    /// Hashes that must agree in a band.
    pub rows: usize,
}

impl Default for NearOptions {
    fn default() -> Self {
        NearOptions { words: 5, bands: 14, rows: 8 }
    }
}

const MAX_WORDS: usize = 100;
const MAX_HASHES: usize = 1024;

impl NearOptions {
    /// # Errors
    ///
    /// A number out of its range.
    pub fn check(&self) -> Result<()> {
        if !(1..=MAX_WORDS).contains(&self.words) {
            return Err(Error::Invalid(format!("near duplicates are of 1 to {MAX_WORDS} words, got {}", self.words)));
        }
        if !(1..=MAX_HASHES).contains(&self.bands.saturating_mul(self.rows)) {
            let message = format!("bands x rows must be 1 to {MAX_HASHES}, got {} x {}", self.bands, self.rows);
            return Err(Error::Invalid(message));
        }
        Ok(())
    }

    /// How likely two documents of this resemblance (0 to 1) are taken for duplicates.
    #[must_use]
    pub fn probability(&self, resemblance: f64) -> f64 {
        let band = resemblance.powf(self.rows as f64);
        1.0 - (1.0 - band).powf(self.bands as f64)
    }
}

/// Functions computed together: two vectors of the least of instruction sets.
const LANES: usize = 8;
/// N-grams that go through all functions before the next are taken, so that they stay in the nearest cache.
const TILE: usize = 1024;

/// Makes the band keys of documents.
#[derive(Clone)]
pub struct Signer {
    options: NearOptions,
    multipliers: Vec<[u32; LANES]>,
    words: Vec<u64>,
    grams: Vec<u64>,
}

impl Signer {
    /// For checked options.
    pub fn new(options: NearOptions) -> Self {
        let mut seed = 0u64;
        let mut multiplier = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed(seed) as u32 | 1
        };
        let multipliers = (0..(options.bands * options.rows).div_ceil(LANES)).map(|_| std::array::from_fn(|_| multiplier())).collect();
        Signer { options, multipliers, words: Vec::new(), grams: Vec::new() }
    }

    /// One key for each band, equal in documents that agree there; none for a document without words. One of fewer words
    /// than an n-gram has is one n-gram.
    pub fn bands(&mut self, text: &str) -> Vec<u64> {
        self.words.clear();
        for_each_word(text, |word| self.words.push(word));
        self.grams.clear();
        if self.words.is_empty() {
            return Vec::new();
        }
        let width = self.options.words.min(self.words.len());
        self.grams.extend(self.words.windows(width).map(gram));
        self.keys(&self.grams)
    }

    fn keys(&self, grams: &[u64]) -> Vec<u64> {
        let mut least = vec![[i32::MAX; LANES]; self.multipliers.len()];
        for tile in grams.chunks(TILE) {
            for (least, multipliers) in least.iter_mut().zip(&self.multipliers) {
                lower(least, multipliers, tile);
            }
        }
        let bytes: Vec<u8> = least.as_flattened().iter().flat_map(|hash| hash.to_le_bytes()).collect();
        let bands = bytes.chunks_exact(4 * self.options.rows).take(self.options.bands);
        // The band is in the key, so that agreement in different bands is none.
        (0..).zip(bands).map(|(band, bytes)| xxh3_64_with_seed(bytes, band)).collect()
    }
}

/// Takes the least of `low * multiplier + high` over the two halves of every n-gram. The high half makes the function of
/// each n-gram another one, so 32 bits suffice: n-grams that agree under one multiplier do not under the next.
fn lower(least: &mut [i32; LANES], multipliers: &[u32; LANES], grams: &[u64]) {
    let mut result = *least;
    for gram in grams {
        let (low, high) = (*gram as u32, (*gram >> 32) as u32);
        for i in 0..LANES {
            let hash = low.wrapping_mul(multipliers[i]).wrapping_add(high).cast_signed();
            result[i] = if hash < result[i] { hash } else { result[i] };
        }
    }
    *least = result;
}

/// The hash of words in a row.
fn gram(words: &[u64]) -> u64 {
    mixed(words.iter().fold(0, |hash: u64, word| (hash.rotate_left(23) ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25)))
}

/// A random function of 64 bits that loses none (the end of `SplitMix64`).
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The lower case of ASCII letters and digits, and zero for what is between words.
const LOWER: [u8; 128] = {
    let mut table = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// What an empty word hashes to.
const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: two instructions a byte, and nothing to copy.
fn longer(hash: u64, value: u32) -> u64 {
    (hash ^ u64::from(value)).wrapping_mul(0x0100_0000_01b3)
}

/// Calls `each` with a hash of every word in lower case: a run of letters and digits, or one character of a script that puts
/// no spaces between words.
fn for_each_word(text: &str, mut each: impl FnMut(u64)) {
    let mut hash = EMPTY;
    let mut end = |hash: &mut u64| {
        if *hash != EMPTY {
            each(std::mem::replace(hash, EMPTY));
        }
    };
    for c in text.chars() {
        match LOWER.get(c as usize) {
            Some(0) => end(&mut hash),
            Some(lower) => hash = longer(hash, u32::from(*lower)),
            None if is_word_alone(c) => {
                end(&mut hash);
                end(&mut longer(EMPTY, u32::from(c)));
            }
            None if c.is_alphanumeric() => hash = c.to_lowercase().fold(hash, |hash, c| longer(hash, u32::from(c))),
            None => end(&mut hash),
        }
    }
    end(&mut hash);
}

/// Thai, Lao, Burmese, Khmer, kana and Chinese characters.
fn is_word_alone(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
        && c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_runs_of_letters_in_lower_case() {
        let words = |text: &str| {
            let mut words = Vec::new();
            for_each_word(text, |word| words.push(word));
            words
        };
        for (a, b) in [
            ("It's  ONE,\n\ttwo-three.", "it s one two three"),
            ("ÉTÉ Straße ΣΑΣ 1990s", "été straße σασ 1990s"),
            ("“quoted”…", "quoted"),
            ("中文 ひと", "中 文 ひ と"),
            ("ภาษา", "ภ า ษ า"),
            ("a中b", "a 中 b"),
        ] {
            assert_eq!(words(a), words(b), "{a}");
        }
        assert_ne!(words("ab c"), words("a bc"));
        assert!(words(" .,!?\n").is_empty());
    }

    #[test]
    fn options_are_checked() {
        let error = |words, bands, rows| NearOptions { words, bands, rows }.check().map_err(|e| e.to_string());
        assert_eq!(error(0, 14, 8), Err("near duplicates are of 1 to 100 words, got 0".into()));
        assert_eq!(error(5, 0, 8), Err("bands x rows must be 1 to 1024, got 0 x 8".into()));
        assert_eq!(error(5, 14, usize::MAX), Err(format!("bands x rows must be 1 to 1024, got 14 x {}", usize::MAX)));
        assert_eq!(error(5, 14, 8), Ok(()));
    }

    /// Pairs of sets of `size` n-grams in all, of which that share is in both; how many pairs agree in a band.
    fn share_found(options: NearOptions, resemblance: f64, size: u64, pairs: u64) -> f64 {
        let signer = Signer::new(options);
        let common = (resemblance * size as f64).round() as u64;
        let found = (0..pairs).filter(|pair| {
            let grams: Vec<u64> = (0..size).map(|i| mixed(pair * size + i + 1)).collect();
            let middle = (common + (size - common) / 2) as usize;
            let one = signer.keys(&grams[..middle]);
            let other = signer.keys(&[&grams[..common as usize], &grams[middle..]].concat());
            one.iter().zip(&other).any(|(a, b)| a == b)
        });
        found.count() as f64 / pairs as f64
    }

    #[test]
    fn pairs_are_found_as_often_as_their_resemblance_says() {
        let pairs = 2000;
        for options in [NearOptions::default(), NearOptions { words: 5, bands: 9, rows: 5 }] {
            for (resemblance, size) in [(0.4, 200), (0.5, 40), (0.6, 200), (0.7, 1000), (0.75, 200), (0.8, 200), (0.9, 40)] {
                let expected = options.probability(resemblance);
                // Four standard deviations of a count of pairs, and one pair where that is nothing.
                let allowed = 4.0 * (expected * (1.0 - expected) / pairs as f64).sqrt() + 1.0 / pairs as f64;
                let found = share_found(options, resemblance, size, pairs);
                assert!((found - expected).abs() <= allowed, "{options:?}, {resemblance}: found {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn n_grams_that_are_not_alike_make_keys_that_are_not() {
        assert!(share_found(NearOptions::default(), 0.0, 500, 2000) < f64::EPSILON);
    }

    proptest! {
        #[test]
        fn keys_depend_on_the_words_alone(words in prop::collection::vec("[a-zé中]{1,4}", 0..40), ngram in 1usize..8) {
            let mut signer = Signer::new(NearOptions { words: ngram, ..NearOptions::default() });
            let one = signer.bands(&words.join(" "));
            prop_assert_eq!(one.len(), if words.is_empty() { 0 } else { 14 });
            prop_assert_eq!(&one, &signer.bands(&format!("“{}!”", words.join(",\n").to_uppercase())));
        }
    }
}
