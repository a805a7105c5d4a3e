//! The pattern of GPT-2, `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, as a scanner.
//!
//! Source: openai/gpt-2 `encoder.py`; spelled as in tiktoken.

use super::{CLASSES, Class, MAX_PIECE_BYTES, class_at};

/// Where the piece that starts at `start` ends; `start` is a character boundary before the end of `text`.
#[inline]
pub(super) fn piece_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let classes = &CLASSES[..];
    if bytes[start] == b'\''
        && let Some(length) = contraction(&bytes[start + 1..])
    {
        return start + 1 + length;
    }
    let (mut class, mut width) = class_at(classes, text, start);
    let mut at = start;
    if bytes[start] == b' ' && start + 1 < bytes.len() {
        // One space goes with what follows it, unless that is white space again.
        let (next, next_width) = class_at(classes, text, start + 1);
        if next.basic() != Class::SPACE {
            (class, width, at) = (next, next_width, start + 1);
        }
    }
    at += width;
    if class.basic() == Class::SPACE {
        white_space_end(classes, text, start, at, width)
    } else {
        run_end(classes, text, start, at, class.basic())
    }
}

/// Length of `s d m t ll ve re` at the start of `bytes`.
fn contraction(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b's' | b'd' | b'm' | b't', ..] => Some(1),
        [b'l', b'l', ..] | [b'v' | b'r', b'e', ..] => Some(2),
        _ => None,
    }
}

/// End of the run of `class` that has reached `at`.
#[inline]
fn run_end(classes: &[Class], text: &str, start: usize, mut at: usize, class: Class) -> usize {
    while at < text.len() {
        let (next, width) = class_at(classes, text, at);
        if next.basic() != class || at + width - start > MAX_PIECE_BYTES {
            break;
        }
        at += width;
    }
    at
}

/// End of a white-space piece: the last character of the run belongs to what follows, unless it is the only one or the
/// run ends the text.
fn white_space_end(classes: &[Class], text: &str, start: usize, mut at: usize, mut last_width: usize) -> usize {
    let mut longest = at; // last boundary within the longest piece
    while at < text.len() {
        let (class, width) = class_at(classes, text, at);
        if class.basic() != Class::SPACE {
            let end = if at - last_width > start { at - last_width } else { at };
            return end.min(longest);
        }
        at += width;
        last_width = width;
        if at - start <= MAX_PIECE_BYTES {
            longest = at;
        } else if at - start > MAX_PIECE_BYTES + 4 {
            break; // even without its last character the piece is too long
        }
    }
    longest
}
