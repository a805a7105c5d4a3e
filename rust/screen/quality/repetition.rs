//! Gopher's rules on repetition.

use super::table::Table;
use super::words::Words;
use memchr::{memchr_iter, memmem};
use xxhash_rust::xxh3::xxh3_64;

/// Names, in order.
pub const RULES: [&str; 13] = [
    "quality:duplicate-paragraphs",
    "quality:duplicate-paragraph-characters",
    "quality:duplicate-lines",
    "quality:duplicate-line-characters",
    "quality:top-2-gram",
    "quality:top-3-gram",
    "quality:top-4-gram",
    "quality:duplicate-5-grams",
    "quality:duplicate-6-grams",
    "quality:duplicate-7-grams",
    "quality:duplicate-8-grams",
    "quality:duplicate-9-grams",
    "quality:duplicate-10-grams",
];

/// Fractions of the characters above which n-grams fail, from 2 on.
const MAX_FRACTIONS: [f64; 9] = [0.20, 0.18, 0.16, 0.15, 0.14, 0.13, 0.12, 0.11, 0.10];
const FIRST_GRAM_RULE: usize = 4;

/// Tables for the rules.
#[derive(Clone, Debug, Default)]
pub struct Repetition {
    table: Table,
    /// Hash of all words before each; those of n-grams are differences.
    prefixes: Vec<u64>,
}

impl Repetition {
    /// The first rule that a text with these words fails.
    pub fn judge(&mut self, text: &str, words: &Words) -> Option<&'static str> {
        let chars = text.chars().count() as f64;
        let [paragraphs, paragraph_chars, lines, line_chars, ..] = RULES;
        let repeats = self.repeats(parts(text.trim(), 2));
        if repeats.fraction() > 0.30 {
            return Some(paragraphs);
        }
        if repeats.chars as f64 / chars > 0.20 {
            return Some(paragraph_chars);
        }
        let repeats = self.repeats(parts(text, 1));
        if repeats.fraction() > 0.30 {
            return Some(lines);
        }
        if repeats.chars as f64 / chars > 0.20 {
            return Some(line_chars);
        }
        self.prefixes.clear();
        self.prefixes.push(0);
        for hash in &words.hashes {
            self.prefixes.push(self.prefixes[self.prefixes.len() - 1].wrapping_mul(FACTOR).wrapping_add(*hash));
        }
        let fails = |n: &usize| self.gram_chars(words, *n) as f64 / chars > MAX_FRACTIONS[n - 2];
        (2..=10).find(fails).map(|n| RULES[FIRST_GRAM_RULE + n - 2])
    }

    /// Parts that were there before, and their characters.
    fn repeats<'a>(&mut self, parts: impl Iterator<Item = &'a str> + Clone) -> Repeats {
        self.table.clear(parts.clone().count());
        let mut result = Repeats::default();
        for part in parts {
            result.all += 1;
            if self.table.add(xxh3_64(part.as_bytes())) > 0 {
                result.again += 1;
                result.chars += part.chars().count() as u64;
            }
        }
        result
    }

    /// Characters of the n-gram that is there most often, for n to 4, else of all that were there before.
    fn gram_chars(&mut self, words: &Words, n: usize) -> u64 {
        if words.hashes.len() < n {
            return 0;
        }
        if n <= 4 { self.top_gram_chars(words, n) } else { self.repeated_chars(words, n) }
    }

    fn top_gram_chars(&mut self, words: &Words, n: usize) -> u64 {
        let grams = Grams::new(&self.prefixes, n);
        self.table.clear(grams.len);
        let top = (0..grams.len).map(|at| self.table.add(grams.hash(at)) + 1).max().unwrap_or(0);
        // Of several the first counts.
        let first = (0..grams.len).find(|at| self.table.count(grams.hash(*at)) == top).unwrap_or(0);
        // With a space between the words.
        let chars = words.chars[first + n] - words.chars[first] + n as u32 - 1;
        u64::from(top) * u64::from(chars)
    }

    /// A repeated n-gram is passed over whole, so that no character counts twice.
    fn repeated_chars(&mut self, words: &Words, n: usize) -> u64 {
        let grams = Grams::new(&self.prefixes, n);
        self.table.clear(grams.len);
        let (mut at, mut chars) = (0, 0);
        while at < grams.len {
            if self.table.add(grams.hash(at)) > 0 {
                chars += u64::from(words.chars[at + n] - words.chars[at]);
                at += n;
            } else {
                at += 1;
            }
        }
        chars
    }
}

/// Of the polynomial that hashes n-grams.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

struct Grams<'a> {
    prefixes: &'a [u64],
    n: usize,
    factor: u64,
    len: usize,
}

impl<'a> Grams<'a> {
    fn new(prefixes: &'a [u64], n: usize) -> Self {
        let factor = (0..n).fold(1u64, |factor, _| factor.wrapping_mul(FACTOR));
        Grams { prefixes, n, factor, len: prefixes.len() - n }
    }

    fn hash(&self, at: usize) -> u64 {
        let hash = self.prefixes[at + self.n].wrapping_sub(self.prefixes[at].wrapping_mul(self.factor));
        let hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        hash ^ (hash >> 32)
    }
}

#[derive(Default)]
struct Repeats {
    all: u64,
    again: u64,
    chars: u64,
}

impl Repeats {
    fn fraction(&self) -> f64 {
        self.again as f64 / self.all as f64
    }
}

/// What stands between runs of at least so many `\n`, the empty ends included.
fn parts(text: &str, n_newlines: usize) -> impl Iterator<Item = &str> + Clone {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let bytes = text.as_bytes();
        let found = if n_newlines == 1 { memchr_iter(b'\n', bytes).next() } else { memmem::find(bytes, b"\n\n") };
        let Some(at) = found else {
            rest = None;
            return Some(text);
        };
        rest = Some(text[at..].trim_start_matches('\n'));
        Some(&text[..at])
    })
}
