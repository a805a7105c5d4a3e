//! Pre-tokenisation: a document is cut into pieces, and merges never cross a piece.
//!
//! Each named pattern is a hand-written scanner that gives what its regular expression gives, in time linear in the
//! text. A piece longer than [`MAX_PIECE_BYTES`] is cut at the last character boundary before that length and scanning
//! goes on from there, so a scanner never looks further ahead than that and ids do not depend on how text was chunked.

mod gpt2;
mod unicode;

use std::sync::LazyLock;

/// Length in bytes from which a piece is cut.
pub const MAX_PIECE_BYTES: usize = 1 << 20;

/// How a document is split into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The pattern of GPT-2: contractions, words, numbers and punctuation with an optional leading space, white space.
    Gpt2,
    /// Every byte is a piece, so no merge is ever learnt.
    Byte,
}

impl Pattern {
    /// Every pattern, by name.
    pub const NAMES: [(&'static str, Pattern); 2] = [("gpt2", Pattern::Gpt2), ("byte", Pattern::Byte)];

    /// The pattern of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Pattern> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, pattern)| *pattern)
    }

    /// The name by which files and flags know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Gpt2 => "gpt2",
            Pattern::Byte => "byte",
        }
    }

    /// The pieces of `text`, in order; together they are the text.
    #[must_use]
    pub fn pieces(self, text: &str) -> Pieces<'_> {
        Pieces { text, at: 0, pattern: self }
    }
}

/// Iterator over the pieces of a text.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    text: &'a str,
    at: usize,
    pattern: Pattern,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let bytes = self.text.as_bytes();
        if self.at >= bytes.len() {
            return None;
        }
        let end = match self.pattern {
            Pattern::Gpt2 => gpt2::piece_end(self.text, self.at),
            Pattern::Byte => self.at + 1,
        };
        let piece = &bytes[self.at..end];
        self.at = end;
        Some(piece)
    }
}

/// What the patterns distinguish of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// Anything else: punctuation, symbols, marks, controls.
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`: the property `White_Space`
    Space,
}

/// The class of every code point, one byte each: the pages of a text's scripts stay in the cache.
static CLASSES: LazyLock<Box<[Class]>> = LazyLock::new(|| {
    let mut classes = vec![Class::Other; 0x11_0000].into_boxed_slice();
    for (first, last, class) in unicode::RANGES {
        classes[first as usize..=last as usize].fill(class);
    }
    classes
});

/// The class and the length in bytes of the character that starts at `at`.
#[inline]
fn class_at(classes: &[Class], text: &str, at: usize) -> (Class, usize) {
    let byte = text.as_bytes()[at];
    if byte < 0x80 {
        return (classes[byte as usize], 1);
    }
    // `at` is a character boundary before the end of `text`, so there is a character.
    text[at..].chars().next().map_or((Class::Other, 1), |c| (classes[c as usize], c.len_utf8()))
}

/// The last place before `limit` where `bytes` may be cut without changing a piece: before a space or a line feed that
/// follows a character other than white space. Such a place is a piece boundary in every pattern here, and white space
/// stays in one run, so the rules of [`crate::clean`] see what they would see in the whole.
#[must_use]
pub fn last_cut(bytes: &[u8], limit: usize) -> Option<usize> {
    let mut end = limit.min(bytes.len());
    loop {
        let at = memchr::memrchr2(b' ', b'\n', &bytes[..end])?;
        if at > 0 && !ends_in_space(&bytes[..at]) {
            return Some(at);
        }
        end = at;
    }
}

/// The first such place from `from` on.
#[must_use]
pub fn first_cut(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr2_iter(b' ', b'\n', &bytes[from..]).map(|i| from + i).find(|&at| at > 0 && !ends_in_space(&bytes[..at]))
}

/// Whether the last character is white space; bytes that are no character count as none.
pub(crate) fn ends_in_space(bytes: &[u8]) -> bool {
    let last = bytes[bytes.len() - 1];
    if last < 0x80 {
        return CLASSES[last as usize] == Class::Space;
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
            if let Some(at) = last_cut(text.as_bytes(), limit) {
                let whole: Vec<&[u8]> = Pattern::Gpt2.pieces(&text).collect();
                let parts: Vec<&[u8]> = Pattern::Gpt2.pieces(&text[..at]).chain(Pattern::Gpt2.pieces(&text[at..])).collect();
                prop_assert_eq!(whole, parts);
            }
        }

        #[test]
        fn the_first_cut_is_the_last_one_before_the_next(text in hard_text()) {
            let bytes = text.as_bytes();
            let mut forward = Vec::new();
            while let Some(at) = first_cut(bytes, forward.last().map_or(0, |last| last + 1)) {
                forward.push(at);
            }
            let mut backward = Vec::new();
            while let Some(at) = last_cut(bytes, backward.last().copied().unwrap_or(bytes.len())) {
                backward.push(at);
            }
            backward.reverse();
            prop_assert_eq!(forward, backward);
        }
    }

    #[test]
    fn classes_are_those_of_the_regex_crate() {
        for (class, regex) in [(Class::Letter, r"\p{L}"), (Class::Number, r"\p{N}"), (Class::Space, r"\s")] {
            let regex = Regex::new(regex).unwrap();
            for c in (0..0x11_0000).filter_map(char::from_u32) {
                assert_eq!(CLASSES[c as usize] == class, regex.is_match(c.encode_utf8(&mut [0; 4])), "{class:?} {:x}", c as u32);
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
