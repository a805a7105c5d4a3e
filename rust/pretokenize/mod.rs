//! Pre-tokenisation: a document is cut into pieces, and merges never cross a piece.
//!
//! Each named pattern is a hand-written scanner that gives what its regular expression gives, in time linear in the
//! text. A piece longer than [`MAX_PIECE_BYTES`] is cut at the last character boundary before that length and scanning
//! goes on from there, so a scanner never looks further ahead than that and ids do not depend on how text was chunked.

mod alternatives;
mod cl100k;
mod custom;
mod gpt2;
mod o200k;
mod unicode;

use crate::error::{Error, Result};
pub use custom::Custom;
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

/// Length in bytes from which a piece is cut.
pub const MAX_PIECE_BYTES: usize = 1 << 20;

/// How a document is split into pieces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The pattern of GPT-2: contractions, words, numbers and punctuation with an optional leading space, white space.
    Gpt2,
    /// The pattern of GPT-4 as published, and of Llama 3: numbers in threes, line ends apart.
    Cl100k,
    /// As tiktoken writes it from version 0.8 on: white space that ends the text is one piece, line ends or not.
    Cl100kTrailing,
    /// As `Cl100k` with each digit by itself.
    Qwen2,
    /// The pattern of GPT-4o: words split where lower case turns to upper, contractions as suffixes.
    O200k,
    /// Every character is a piece.
    Char,
    /// Every byte is a piece, so no merge is ever learnt.
    Byte,
    /// A regular expression of the user's.
    Custom(Arc<Custom>),
}

/// What stands before a regular expression where a pattern's name is expected.
const CUSTOM_PREFIX: &str = "regex:";

impl Pattern {
    /// Every named pattern.
    pub const NAMES: [(&'static str, Pattern); 7] = [
        ("gpt2", Pattern::Gpt2),
        ("cl100k", Pattern::Cl100k),
        ("cl100k-trailing", Pattern::Cl100kTrailing),
        ("qwen2", Pattern::Qwen2),
        ("o200k", Pattern::O200k),
        ("char", Pattern::Char),
        ("byte", Pattern::Byte),
    ];

    /// The pattern of that name; `regex:` and a regular expression is one, too.
    ///
    /// # Errors
    ///
    /// No such name, or a regular expression that cannot be matched in linear time or matches nothing.
    pub fn from_name(name: &str) -> Result<Pattern> {
        if let Some(expression) = name.strip_prefix(CUSTOM_PREFIX) {
            return Ok(Pattern::Custom(Arc::new(Custom::new(expression)?)));
        }
        let found = Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, pattern)| pattern.clone());
        found.ok_or_else(|| {
            let known: Vec<&str> = Self::NAMES.iter().map(|(known, _)| *known).collect();
            Error::Invalid(format!("unknown pattern {name:?}; the patterns are {}, regex:EXPRESSION", known.join(", ")))
        })
    }

    /// The name by which files and flags know it.
    #[must_use]
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Pattern::Custom(custom) => Cow::Owned(format!("{CUSTOM_PREFIX}{}", custom.expression())),
            named => {
                let found = Self::NAMES.iter().find(|(_, pattern)| pattern == named).map(|(name, _)| *name);
                Cow::Borrowed(found.unwrap_or_default())
            }
        }
    }

    /// The pieces of `text`, in order; together they are the text.
    #[must_use]
    pub fn pieces<'a>(&'a self, text: &'a str) -> Pieces<'a> {
        Pieces { scanner: Scanner::new(self, text), bounds: Bounds::default(), next: 0 }
    }

    /// The bytes before which text may be cut where they follow a character that is no white space: no piece of this
    /// pattern goes across, and none depends on what comes after.
    fn cuts_before(&self) -> &'static [u8] {
        match self {
            Pattern::Gpt2 | Pattern::Char | Pattern::Byte => b" \n",
            // Punctuation takes the line ends that follow it.
            Pattern::Cl100k | Pattern::Cl100kTrailing | Pattern::Qwen2 | Pattern::O200k => b" ",
            Pattern::Custom(_) => b"",
        }
    }

    /// The last place before `limit` where `bytes` may be cut without changing a piece. White space stays in one run, so
    /// the rules of [`crate::clean`] see what they would see in the whole.
    #[must_use]
    pub fn last_cut(&self, bytes: &[u8], limit: usize) -> Option<usize> {
        let mut end = limit.min(bytes.len());
        loop {
            let at = match self.cuts_before() {
                [] => return None,
                [one] => memchr::memrchr(*one, &bytes[..end])?,
                [one, two, ..] => memchr::memrchr2(*one, *two, &bytes[..end])?,
            };
            if at > 0 && !ends_in_space(&bytes[..at]) {
                return Some(at);
            }
            end = at;
        }
    }

    /// The first such place from `from` on.
    #[must_use]
    pub fn first_cut(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let allowed = |at: &usize| *at > 0 && !ends_in_space(&bytes[..*at]);
        match self.cuts_before() {
            [] => None,
            [one] => memchr::memchr_iter(*one, &bytes[from..]).map(|i| from + i).find(allowed),
            [one, two, ..] => memchr::memchr2_iter(*one, *two, &bytes[from..]).map(|i| from + i).find(allowed),
        }
    }
}

/// Iterator over the pieces of a text.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    scanner: Scanner<'a>,
    bounds: Bounds,
    next: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.next + 1 >= self.bounds.as_slice().len() {
            if !self.scanner.fill(&mut self.bounds) {
                return None;
            }
            self.next = 0;
        }
        let bounds = self.bounds.as_slice();
        self.next += 1;
        Some(&self.scanner.text.as_bytes()[bounds[self.next - 1]..bounds[self.next]])
    }
}

/// The bounds of some hundred pieces in a row: where the first starts, then where each ends. Pieces are found and worked
/// on in batches, so that one step's memory is fetched while another computes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    /// Of fixed length, so that a block's bounds are written without a look at the capacity.
    places: Vec<usize>,
    len: usize,
}

impl Bounds {
    /// Pieces in a batch, and a block's more.
    const ROOM: usize = 512 + 64;

    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.places[..self.len]
    }

    fn restart(&mut self, start: usize) {
        self.places.resize(Self::ROOM, 0);
        self.places[0] = start;
        self.len = 1;
    }

    fn last(&self) -> usize {
        self.places[self.len - 1]
    }

    /// Whether a block's bounds may be added: a batch is no more than so many pieces, nor much more than one long one.
    fn has_room(&self) -> bool {
        self.len <= Self::ROOM - 64 && self.last() - self.places[0] < MAX_PIECE_BYTES
    }

    #[inline]
    fn push(&mut self, end: usize) {
        self.places[self.len] = end;
        self.len += 1;
    }

    /// Adds `base` and the place of each bit.
    #[inline]
    fn push_all(&mut self, base: usize, mut bits: u64) {
        // There is room for 64 more; eight at a time need no branch for each.
        let n = bits.count_ones() as usize;
        let mut at = self.len;
        while bits != 0 {
            for place in self.places[at..].iter_mut().take(8) {
                *place = base + bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
            }
            at += 8;
        }
        self.len += n;
    }
}

/// Pieces of a batch by a regular expression.
const CUSTOM_BATCH: usize = 32;

/// Finds the pieces of a text, a batch at a time.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    pattern: &'a Pattern,
    gpt2: gpt2::State,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(pattern: &'a Pattern, text: &'a str) -> Self {
        Scanner { text, at: 0, pattern, gpt2: gpt2::State::default() }
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// Whether one piece may take as long as a megabyte by another pattern.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.pattern, Pattern::Custom(_))
    }

    /// Where the next batch starts.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The bounds of the next pieces, at least one; false at the end of the text.
    pub(crate) fn fill(&mut self, bounds: &mut Bounds) -> bool {
        if self.at >= self.text.len() {
            return false;
        }
        bounds.restart(self.at);
        let text = self.text;
        match self.pattern {
            Pattern::Gpt2 => gpt2::scan(text, &mut self.gpt2, bounds),
            Pattern::Cl100k => self.each(bounds, |at| cl100k::piece_end(text, at, cl100k::Variant { digits: 3, trailing: false })),
            Pattern::Cl100kTrailing => self.each(bounds, |at| cl100k::piece_end(text, at, cl100k::Variant { digits: 3, trailing: true })),
            Pattern::Qwen2 => self.each(bounds, |at| cl100k::piece_end(text, at, cl100k::Variant { digits: 1, trailing: false })),
            Pattern::O200k => self.each(bounds, |at| o200k::piece_end(text, at)),
            Pattern::Char => self.each(bounds, |at| at + class_at(&CLASSES[..], text, at).1),
            Pattern::Byte => self.each(bounds, |at| at + 1),
            Pattern::Custom(custom) => {
                // An expression may look at a megabyte for each piece, and somebody may want to stop.
                for _ in 0..CUSTOM_BATCH {
                    if bounds.last() < text.len() {
                        bounds.push(custom.piece_end(text, bounds.last()));
                    }
                }
            }
        }
        self.at = bounds.last();
        true
    }

    /// Adds the ends of pieces one by one, each found from the last.
    #[inline]
    fn each(&self, bounds: &mut Bounds, piece_end: impl Fn(usize) -> usize) {
        while bounds.last() < self.text.len() && bounds.has_room() {
            bounds.push(piece_end(bounds.last()));
        }
    }
}

/// Where a piece that starts at `start` and is too long ends: the last character boundary that it may reach.
fn longest_end(text: &str, start: usize) -> usize {
    text.floor_char_boundary(start + MAX_PIECE_BYTES)
}

/// What the patterns distinguish of a character, as flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(u8);

impl Class {
    /// Anything else: punctuation, symbols, controls.
    pub(crate) const OTHER: Class = Class(0);
    /// `\p{L}`
    pub(crate) const LETTER: Class = Class(1);
    /// `\p{N}`
    pub(crate) const NUMBER: Class = Class(2);
    /// `\s`: the property `White_Space`
    pub(crate) const SPACE: Class = Class(4);
    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, what may stand before lower case in a word of `o200k`.
    pub(crate) const UPPER: Class = Class(8);
    /// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`, what may end a word of `o200k`.
    pub(crate) const LOWER: Class = Class(16);

    /// Which of `OTHER LETTER NUMBER SPACE` it is.
    #[inline]
    pub(crate) const fn basic(self) -> Class {
        Class(self.0 & 7)
    }

    /// Whether it has all flags of `other`.
    #[inline]
    pub(crate) const fn has(self, other: Class) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The class of every code point, one byte each: the pages of a text's scripts stay in the cache.
static CLASSES: LazyLock<Box<[Class]>> = LazyLock::new(|| {
    let mut classes = vec![Class::OTHER; 0x11_0000].into_boxed_slice();
    for &(first, last, flags) in &unicode::RANGES {
        classes[first as usize..=last as usize].fill(Class(flags));
    }
    classes
});

/// The number that the first byte's bits and the continuation bytes of a character spell.
#[inline]
fn tail(first: u8, rest: &[u8]) -> u32 {
    rest.iter().fold(u32::from(first), |code, byte| code << 6 | u32::from(byte & 0x3f))
}

/// The class and the length in bytes of the character that starts at `at`.
#[inline]
fn class_at(classes: &[Class], text: &str, at: usize) -> (Class, usize) {
    let bytes = &text.as_bytes()[at..];
    let (code, width) = match bytes {
        [one @ ..0x80, ..] => (u32::from(*one), 1),
        [one @ ..0xe0, two, ..] => (tail(*one & 0x1f, &[*two]), 2),
        [one @ ..0xf0, two, three, ..] => (tail(*one & 0xf, &[*two, *three]), 3),
        [one, two, three, four, ..] => (tail(*one & 7, &[*two, *three, *four]), 4),
        _ => (0, 1), // `at` is a character's start, so there is all of it
    };
    (classes[code as usize], width)
}

/// Whether the last character is white space; bytes that are no character count as none.
pub(crate) fn ends_in_space(bytes: &[u8]) -> bool {
    let last = bytes[bytes.len() - 1];
    if last < 0x80 {
        return CLASSES[last as usize] == Class::SPACE;
    }
    (2..=bytes.len().min(4))
        .find_map(|width| std::str::from_utf8(&bytes[bytes.len() - width..]).ok()?.chars().next())
        .is_some_and(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::Regex;

    /// Text with every hard case of the patterns close together.
    pub(crate) fn hard_text() -> impl Strategy<Value = String> {
        let hard = prop::sample::select(vec![
            "'",
            "'s",
            "'ll",
            "'re",
            "ve",
            " ",
            "  ",
            "\n",
            "\r\n",
            "\t",
            "\u{a0}",
            "\u{3000}",
            "\u{85}",
            "\u{2028}",
            "\u{200b}",
            "\u{1c}",
            "\u{feff}",
            "a",
            "Z",
            "é",
            "ß",
            "Ⅷ",
            "1",
            "٣",
            "½",
            "字",
            "한",
            "🙂",
            "\u{301}",
            "\u{fe0f}",
            "!",
            "...",
            "-",
            "\0",
            "\u{fffd}",
            "ﬁ",
            "𝒳",
            "<|endoftext|>",
        ]);
        prop::collection::vec(prop_oneof![4 => hard.prop_map(String::from), 1 => any::<char>().prop_map(String::from)], 0..40)
            .prop_map(|parts| parts.concat())
    }

    /// The pattern by regular expression; the look-ahead by its meaning: the run gives up its last character.
    fn pieces_by_regex(text: &str) -> Vec<&str> {
        let regex = Regex::new(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+").unwrap();
        let (mut pieces, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let found = regex.find_at(text, at).unwrap();
            let mut end = found.end();
            let run = found.as_str();
            if run.chars().all(char::is_whitespace) && end < text.len() && run.chars().count() > 1 {
                end -= run.chars().next_back().unwrap().len_utf8();
            }
            pieces.push(&text[at..end]);
            at = end;
        }
        pieces
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn gpt2_scanner_equals_the_regular_expression(text in hard_text()) {
            let pieces: Vec<&[u8]> = Pattern::Gpt2.pieces(&text).collect();
            let expected: Vec<&[u8]> = pieces_by_regex(&text).into_iter().map(str::as_bytes).collect();
            prop_assert_eq!(pieces, expected);
        }

        #[test]
        fn a_cut_changes_no_piece(text in hard_text(), limit in 0usize..200) {
            if let Some(at) = Pattern::Gpt2.last_cut(text.as_bytes(), limit) {
                let whole: Vec<&[u8]> = Pattern::Gpt2.pieces(&text).collect();
                let parts: Vec<&[u8]> = Pattern::Gpt2.pieces(&text[..at]).chain(Pattern::Gpt2.pieces(&text[at..])).collect();
                prop_assert_eq!(whole, parts);
            }
        }

        #[test]
        fn the_first_cut_is_the_last_one_before_the_next(text in hard_text()) {
            let bytes = text.as_bytes();
            let mut forward = Vec::new();
            while let Some(at) = Pattern::Gpt2.first_cut(bytes, forward.last().map_or(0, |last| last + 1)) {
                forward.push(at);
            }
            let mut backward = Vec::new();
            while let Some(at) = Pattern::Gpt2.last_cut(bytes, backward.last().copied().unwrap_or(bytes.len())) {
                backward.push(at);
            }
            backward.reverse();
            prop_assert_eq!(forward, backward);
        }
    }

    #[test]
    fn classes_are_those_of_the_regex_crate() {
        let upper = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]";
        let lower = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]";
        for (class, regex) in
            [(Class::LETTER, r"\p{L}"), (Class::NUMBER, r"\p{N}"), (Class::SPACE, r"\s"), (Class::UPPER, upper), (Class::LOWER, lower)]
        {
            let regex = Regex::new(regex).unwrap();
            for c in (0..0x11_0000).filter_map(char::from_u32) {
                let found = CLASSES[c as usize];
                assert_eq!(found.has(class), regex.is_match(c.encode_utf8(&mut [0; 4])), "{class:?} {:x}", c as u32);
            }
        }
    }

    #[test]
    fn a_long_piece_is_cut_at_a_character_boundary() {
        for unit in ["a", "é", "字", "7", "!", " ", "\u{3000}"] {
            let text = unit.repeat((2 * MAX_PIECE_BYTES + 100) / unit.len());
            let lengths: Vec<usize> = Pattern::Gpt2.pieces(&text).map(<[u8]>::len).collect();
            let longest = MAX_PIECE_BYTES / unit.len() * unit.len();
            assert_eq!(lengths, [longest, longest, text.len() - 2 * longest], "{unit}");
        }
    }

    #[test]
    fn the_byte_pattern_gives_single_bytes() {
        assert_eq!(Pattern::Byte.pieces("é!").collect::<Vec<_>>(), [&[0xc3][..], &[0xa9], b"!"]);
    }
}
