//! The alternatives that the patterns of GPT-4 and GPT-4o share, and how far a piece may reach.

use super::{CLASSES, Class, MAX_PIECE_BYTES, class_at};

/// What the alternatives after the words differ in.
#[derive(Clone, Copy)]
pub(super) struct Tail {
    /// Characters of a number at most.
    pub digits: usize,
    /// Bytes that go with the punctuation before them.
    pub after_punctuation: &'static [u8],
    /// White space that ends the text is one piece.
    pub trailing: bool,
}

/// The text as far as a piece that starts at `start` may reach; the pattern is matched in it as if nothing followed, but
/// that a look-ahead sees what does.
#[inline]
pub(super) fn window(text: &str, start: usize) -> &str {
    &text[..text.floor_char_boundary(start + MAX_PIECE_BYTES)]
}

/// End of the run at `at` of characters whose class is `wanted`.
#[inline]
pub(super) fn run_end(window: &str, mut at: usize, mut wanted: impl FnMut(Class) -> bool) -> usize {
    let classes = &CLASSES[..];
    while at < window.len() {
        let (class, width) = class_at(classes, window, at);
        if !wanted(class) {
            break;
        }
        at += width;
    }
    at
}

/// Where the letters of `[^\r\n\p{L}\p{N}]?\p{L}+` would start: at `start` or after one other character.
#[inline]
pub(super) fn letters_start(window: &str, start: usize) -> Option<usize> {
    let (class, width) = class_at(&CLASSES[..], window, start);
    if class.has(Class::LETTER) {
        return Some(start);
    }
    let alone = class.has(Class::NUMBER) || matches!(window.as_bytes()[start], b'\r' | b'\n');
    (!alone).then_some(start + width)
}

/// Length of `(?i:'s|'t|'re|'ve|'m|'ll|'d)` at the start of `bytes`; the long s, U+017F, is an s in other case.
#[inline]
pub(super) fn contraction(bytes: &[u8]) -> Option<usize> {
    let [b'\'', rest @ ..] = bytes else { return None };
    match rest {
        [b's' | b'S' | b't' | b'T' | b'm' | b'M' | b'd' | b'D', ..] => Some(2),
        [b'r' | b'R' | b'v' | b'V', b'e' | b'E', ..] | [b'l' | b'L', b'l' | b'L', ..] | [0xc5, 0xbf, ..] => Some(3),
        _ => None,
    }
}

/// End of a piece that is no word: a number, ` ?[^\s\p{L}\p{N}]+` with what goes with it, or white space.
#[inline]
pub(super) fn tail_end(text: &str, start: usize, tail: Tail) -> usize {
    let window = window(text, start);
    if class_at(&CLASSES[..], window, start).0.has(Class::NUMBER) {
        return number_end(window, start, tail.digits);
    }
    let space = usize::from(window.as_bytes()[start] == b' ');
    match punctuation_end(window, start + space, tail.after_punctuation) {
        Some(end) => end,
        None => white_space_end(text, window, start, tail.trailing),
    }
}

/// `\p{N}{1,digits}`
#[inline]
fn number_end(window: &str, start: usize, digits: usize) -> usize {
    let mut room = digits;
    run_end(window, start, |class| {
        let taken = room > 0 && class.has(Class::NUMBER);
        room -= usize::from(taken);
        taken
    })
}

/// `[^\s\p{L}\p{N}]+` and the bytes that go with it.
#[inline]
fn punctuation_end(window: &str, start: usize, after: &[u8]) -> Option<usize> {
    let end = run_end(window, start, |class| class.basic() == Class::OTHER);
    (end > start).then(|| end + window.as_bytes()[end..].iter().take_while(|byte| after.contains(byte)).count())
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+`, before it `\s++$` where white space that ends the text is one piece.
fn white_space_end(text: &str, window: &str, start: usize, trailing: bool) -> usize {
    let classes = &CLASSES[..];
    let (mut at, mut last, mut line_end) = (start, start, None);
    while at < window.len() {
        let (class, width) = class_at(classes, window, at);
        if !class.has(Class::SPACE) {
            break;
        }
        if matches!(window.as_bytes()[at], b'\r' | b'\n') {
            line_end = Some(at + 1);
        }
        (last, at) = (at, at + width);
    }
    if at == text.len() && trailing {
        return at;
    }
    // What stands after the window may be white space, too.
    let gives_up_last = last > start && at < text.len() && !class_at(classes, text, at).0.has(Class::SPACE);
    line_end.unwrap_or(if gives_up_last { last } else { at })
}

#[cfg(test)]
pub(super) mod tests {
    use crate::pretokenize::tests::hard_text;
    use crate::{MAX_PIECE_BYTES, Pattern};
    use proptest::prelude::*;
    use regex::Regex;

    pub(crate) const GPT2: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|";
    pub(crate) const CL100K: &str =
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|";
    pub(crate) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|";
    pub(crate) const O200K: &str = concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|",
    );

    /// The patterns of regular expressions, each without its last two alternatives, `\s+(?!\S)|\s+`.
    pub(crate) const EXPRESSIONS: [(Pattern, &str); 5] = [
        (Pattern::Gpt2, GPT2),
        (Pattern::Cl100k, CL100K),
        (Pattern::Cl100kTrailing, CL100K),
        (Pattern::Qwen2, QWEN2),
        (Pattern::O200k, O200K),
    ];

    /// Hard text with letters of every case, marks and line ends close together.
    pub(crate) fn harder_text() -> impl Strategy<Value = String> {
        let dense =
            ["a", "s", "A", "S", "ǅ", "ʰ", "字", "ª", "\u{301}", "'", "ſ", "ll", "RE", "/", "!", " ", "\r", "\n", "\t", "7", "\u{3000}"];
        let dense = prop::collection::vec(prop::sample::select(dense.to_vec()), 0..40).prop_map(|parts| parts.concat());
        prop_oneof![dense, hard_text()]
    }

    /// The pieces by the regex crate, which finds what a backtracking engine would; the look-ahead by its meaning.
    pub(crate) fn pieces_by_regex<'a>(regex: &Regex, trailing: bool, text: &'a str) -> Vec<&'a str> {
        let (mut pieces, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let run = regex.find_at(text, at).unwrap().as_str();
            let last = run.chars().next_back().map_or(0, char::len_utf8);
            let after = &text[at + run.len()..];
            let is_space = run.chars().all(char::is_whitespace);
            let takes_line_ends = regex.as_str().contains(r"\s*[\r\n]+") && run.ends_with(['\r', '\n']);
            let length = if trailing && is_space && after.chars().all(char::is_whitespace) {
                run.len() + after.len()
            } else if is_space && !takes_line_ends && !after.is_empty() && run.len() > last {
                run.len() - last
            } else {
                run.len()
            };
            pieces.push(&text[at..at + length]);
            at += length;
        }
        pieces
    }

    fn pieces<'a>(pattern: &'a Pattern, text: &'a str) -> Vec<&'a str> {
        pattern.pieces(text).map(|piece| std::str::from_utf8(piece).unwrap()).collect()
    }

    #[test]
    fn pieces_are_those_of_the_regular_expression() {
        for (pattern, expression) in EXPRESSIONS {
            let regex = Regex::new(&(expression.to_string() + r"\s+")).unwrap();
            proptest!(ProptestConfig::with_cases(4000), |(text in harder_text())| {
                let expected = pieces_by_regex(&regex, pattern == Pattern::Cl100kTrailing, &text);
                prop_assert_eq!(pieces(&pattern, &text), expected, "{}", pattern.name());
            });
        }
    }

    #[test]
    fn text_cut_wherever_it_may_be_gives_the_same_pieces() {
        for (_, pattern) in Pattern::NAMES {
            proptest!(ProptestConfig::with_cases(1000), |(text in harder_text())| {
                let (mut parts, mut end) = (Vec::new(), text.len());
                while let Some(at) = pattern.last_cut(text.as_bytes(), end) {
                    parts.push(&text[at..end]);
                    end = at;
                }
                parts.push(&text[..end]);
                let of_parts: Vec<&[u8]> = parts.iter().rev().flat_map(|part| pattern.pieces(part)).collect();
                prop_assert_eq!(of_parts, pattern.pieces(&text).collect::<Vec<_>>(), "{}", pattern.name());
            });
        }
    }

    #[test]
    fn long_runs_are_cut_at_a_character_boundary() {
        for (pattern, _) in EXPRESSIONS {
            for unit in ["a", "é", "字", "\u{301}", "!", " ", "\n", "\u{3000}"] {
                let text = unit.repeat((2 * MAX_PIECE_BYTES + 100) / unit.len());
                let lengths: Vec<usize> = pattern.pieces(&text).map(<[u8]>::len).collect();
                let longest = MAX_PIECE_BYTES / unit.len() * unit.len();
                assert_eq!(lengths, [longest, longest, text.len() - 2 * longest], "{} {unit:?}", pattern.name());
            }
        }
    }

    #[test]
    fn megabytes_of_one_kind_take_linear_time() {
        let units = [
            "a", "A", "字", "\u{301}", "1", "!", "'", " ", "\t", "\n", "\u{3000}", "/\n", "'s", "aA", "字A", "\u{301}A", " \n", "\t1",
            "!\n",
        ];
        for (_, pattern) in Pattern::NAMES {
            for unit in units {
                // Quadratic time would be hours.
                let text = unit.repeat((3 << 20) / unit.len());
                assert_eq!(pattern.pieces(&text).map(<[u8]>::len).sum::<usize>(), text.len());
            }
            for (start, unit, end) in [("\n", " ", "x"), ("x\n", "\t", "\n"), ("字", "A", "a"), ("\u{301}", "A", ""), ("!", "\n", "/")] {
                let text = (start.to_string() + &unit.repeat(MAX_PIECE_BYTES) + end).repeat(3);
                assert_eq!(pattern.pieces(&text).map(<[u8]>::len).sum::<usize>(), text.len());
            }
        }
    }
}
