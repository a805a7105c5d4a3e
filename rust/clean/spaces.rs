//! Rules about white space and line ends.

// Branches keep the compiler from making vector code of what `find` is given.
#![allow(clippy::needless_bitwise_bool)]

use super::scan::find;
use memchr::{memchr, memchr_iter};
use std::borrow::Cow;

/// Line ends `\r\n` and `\r` become `\n`.
pub fn newlines(text: &str, _: bool) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    if memchr(b'\r', bytes).is_none() {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len());
    let mut kept = 0;
    for at in memchr_iter(b'\r', bytes) {
        result.push_str(&text[kept..at]);
        // Of `\r\n` the `\n` is left by the next copy.
        if bytes.get(at + 1) != Some(&b'\n') {
            result.push('\n');
        }
        kept = at + 1;
    }
    result.push_str(&text[kept..]);
    Cow::Owned(result)
}

/// Runs of white space within a line become one space; none is left at a line's end.
pub fn whitespace(text: &str, _: bool) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut result = String::new();
    let (mut kept, mut from) = (0, 0);
    while let Some(at) = find(bytes, from, is_doubtful) {
        // A space alone is in no doubt until white space of several bytes follows it.
        let start = if at > from && bytes[at - 1] == b' ' { at - 1 } else { at };
        let end = text[at..].find(|c: char| c == '\n' || !c.is_whitespace()).map_or(text.len(), |width| at + width);
        let space = if matches!(bytes.get(end), None | Some(b'\n')) { "" } else { " " };
        if &text[start..end] != space {
            push(&mut result, text, kept..start);
            result.push_str(space);
            kept = end;
        }
        from = end;
    }
    finish(result, text, kept)
}

/// Whether white space that may have to change begins here: all of it but `\n` and a space before something else.
fn is_doubtful(byte: u8, next: u8, last: u8) -> bool {
    let ascii = |byte: u8| (byte == b' ') | (byte.wrapping_sub(b'\t') < 5);
    let alone = (byte == b' ') & ascii(next) | (byte.wrapping_sub(b'\t') < 5) & (byte != b'\n');
    let two = (byte == 0xc2) & ((next == 0x85) | (next == 0xa0));
    let spaces = (last < 0x8b) | (last == 0xa8) | (last == 0xa9) | (last == 0xaf);
    let general = (byte == 0xe2) & ((next == 0x80) & spaces | (next == 0x81) & (last == 0x9f));
    let others = (byte == 0xe1) & (next == 0x9a) & (last == 0x80) | (byte == 0xe3) & (next == 0x80) & (last == 0x80);
    alone | two | general | others
}

/// Lines that hold nothing but white space are removed.
pub fn drop_empty_lines(text: &str, starts_document: bool) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut result = String::new();
    let (mut kept, mut start) = (0, 0);
    let mut drop_if_empty = |start: usize, end: usize| {
        // What comes first in a later part is the end of a line that began before it.
        let counts = start > 0 || starts_document;
        let visible = (b'!'..0x80).contains(&bytes[start]);
        if counts && !visible && text[start..end].trim_start().is_empty() {
            push(&mut result, text, kept..start);
            kept = end;
        }
    };
    for at in memchr_iter(b'\n', bytes) {
        drop_if_empty(start, at + 1);
        start = at + 1;
    }
    if start < text.len() {
        drop_if_empty(start, text.len());
    }
    finish(result, text, kept)
}

/// Copies a range of the text; the first takes room for all of it.
pub fn push(result: &mut String, text: &str, range: std::ops::Range<usize>) {
    if result.capacity() == 0 {
        result.reserve(text.len());
    }
    result.push_str(&text[range]);
}

/// The text itself when nothing of it was dealt with, else the result and what is left.
pub fn finish(mut result: String, text: &str, kept: usize) -> Cow<'_, str> {
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    result.push_str(&text[kept..]);
    Cow::Owned(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spaced() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            prop::sample::select(vec!["a", "bc", "é", "Ω", "“", "\n", "\r\n", "\t", " ", "  ", "\u{85}", "\u{200b}", "\u{202e}"])
                .prop_map(String::from),
            any::<char>().prop_map(String::from),
            prop::sample::select(('\0'..='\u{3100}').filter(|c| c.is_whitespace()).collect::<Vec<_>>()).prop_map(String::from),
        ];
        prop::collection::vec(part, 0..80).prop_map(|parts| parts.concat())
    }

    fn plain_whitespace(text: &str) -> String {
        let line = |line: &str| {
            let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
            let mut result = String::new();
            for c in body.trim_end().chars() {
                match c.is_whitespace() {
                    false => result.push(c),
                    true if !result.ends_with(' ') => result.push(' '),
                    true => {}
                }
            }
            result + end
        };
        text.split_inclusive('\n').map(line).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn newlines_are_those_of_two_replacements(text in spaced()) {
            prop_assert_eq!(newlines(&text, true), text.replace("\r\n", "\n").replace('\r', "\n"));
        }

        #[test]
        fn white_space_is_that_of_a_loop_over_characters(text in spaced()) {
            prop_assert_eq!(whitespace(&text, true), plain_whitespace(&text));
        }

        #[test]
        fn lines_dropped_are_those_without_a_visible_character(text in spaced(), starts: bool) {
            let kept = |(i, line): &(usize, &str)| (*i == 0 && !starts) || !line.trim().is_empty();
            let expected: String = text.split_inclusive('\n').enumerate().filter(kept).map(|(_, line)| line).collect();
            prop_assert_eq!(drop_empty_lines(&text, starts), expected);
        }

        #[test]
        fn text_that_needs_no_change_is_lent(text in spaced()) {
            for rule in [newlines, whitespace, drop_empty_lines] {
                let once = rule(&text, true).into_owned();
                prop_assert!(matches!(rule(&once, true), Cow::Borrowed(_)));
            }
        }
    }
}
