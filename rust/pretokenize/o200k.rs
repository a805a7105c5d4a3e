//! The pattern of GPT-4o as a scanner: the two alternatives of a word,
//! `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?` and
//! `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?`, then
//! `\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`.
//!
//! Source: tiktoken `tiktoken_ext/openai_public.py`, `o200k_base`.

use super::alternatives::{Tail, contraction, letters_start, run_end, tail_end, window};
use super::{CLASSES, Class, class_at};

/// Where the piece that starts at `start` ends; `start` is a character boundary before the end of `text`.
#[inline]
pub(super) fn piece_end(text: &str, start: usize) -> usize {
    let window = window(text, start);
    match word_end(window, start) {
        Some(end) => end + contraction(&window.as_bytes()[end..]).unwrap_or(0),
        None => tail_end(text, start, Tail { digits: 3, after_punctuation: b"\r\n/", trailing: false }),
    }
}

/// End of the word at `start` without its contraction: the first alternative with its prefix, without, then the second.
#[inline]
fn word_end(window: &str, start: usize) -> Option<usize> {
    let letters = letters_start(window, start)?;
    let (upper_end, lower_end) = parts_end(window, letters);
    // A mark before letters may be the prefix or, where no first alternative follows, a word by itself.
    let is_mark = letters > start && class_at(&CLASSES[..], window, start).0.has(Class::LOWER);
    lower_end.or(is_mark.then_some(letters)).or((upper_end > letters).then_some(upper_end))
}

/// Where `UPPER*` from `start` ends, and `UPPER*LOWER+` if it is there. Its first part takes all it can; where nothing
/// lower follows, it gives back as far as the last character that is both, and the second part is that one.
#[inline]
fn parts_end(window: &str, start: usize) -> (usize, Option<usize>) {
    let (mut at, mut both_end) = (start, None);
    while at < window.len() {
        let (class, width) = class_at(&CLASSES[..], window, at);
        if class.has(Class::UPPER) {
            at += width;
            both_end = if class.has(Class::LOWER) { Some(at) } else { both_end };
        } else if class.has(Class::LOWER) {
            return (at, Some(run_end(window, at, |class| class.has(Class::LOWER))));
        } else {
            break;
        }
    }
    (at, both_end)
}
