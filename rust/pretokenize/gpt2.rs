//! The pattern of GPT-2, `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, as a scanner.
//!
//! Sixty-four bytes at a time become one word for each class, a bit a byte; where pieces start is then a few operations on
//! words. A piece starts
//!
//! - at a character of another class than the one before it, unless that is a space: the space goes with what follows;
//! - at white space after other characters, and at white space before other characters: of a run, the last character
//!   belongs to what follows, unless it ends the text;
//! - after a contraction, and a contraction starts no piece at its letter.
//!
//! Wide characters are looked up one by one and give their class to each of their bytes; only blocks with wide white space
//! are gone through character by character, by the same rules.
//!
//! Source: openai/gpt-2 `encoder.py`; spelled as in tiktoken.

use super::{Bounds, CLASSES, Class, MAX_PIECE_BYTES, class_at};

/// Where a scan has got to, and what the next block must know of what came before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// Start of the next block.
    at: usize,
    /// Class of the character before it; none at the start of a text.
    before: Option<Class>,
    /// Whether that is a space.
    after_blank: bool,
    /// Bytes of the next block that belong to a character of the last one.
    skip: usize,
    /// Starts that a contraction in the last block gives and takes.
    add: u64,
    remove: u64,
}

/// A bit for each byte of a block, by class.
struct Masks {
    letter: u64,
    number: u64,
    space: u64,
    blank: u64,
    apostrophe: u64,
    not_ascii: u64,
}

/// Adds the ends of pieces to `bounds` until it is full or the text ends; `bounds` holds the start of the first.
pub(super) fn scan(text: &str, state: &mut State, bounds: &mut Bounds) {
    let mut start = bounds.last();
    while bounds.has_room() {
        let at = state.at;
        if at >= text.len() {
            if text.len() - start > MAX_PIECE_BYTES {
                start = cut(text, start, state, bounds);
                continue;
            }
            if text.len() > start {
                bounds.push(text.len());
            }
            return;
        }
        let starts = block(text, state);
        // The first start of a text, and of what follows a cut, is known.
        let first = starts & if at == start { !1 } else { !0 };
        if first == 0 {
            if state.at - start > MAX_PIECE_BYTES {
                start = cut(text, start, state, bounds);
            }
            continue;
        }
        if at + first.trailing_zeros() as usize - start > MAX_PIECE_BYTES {
            start = cut(text, start, state, bounds);
            continue;
        }
        // Within a block no piece is too long.
        bounds.push_all(at, first);
        start = bounds.last();
    }
}

/// Ends a piece that is too long and starts anew behind it.
fn cut(text: &str, start: usize, state: &mut State, bounds: &mut Bounds) -> usize {
    let end = super::longest_end(text, start);
    bounds.push(end);
    *state = State { at: end, ..State::default() };
    end
}

/// Where pieces start in the next block, a bit a byte.
#[inline]
fn block(text: &str, state: &mut State) -> u64 {
    let (bytes, at) = (text.as_bytes(), state.at);
    let (mut masks, valid) = match bytes[at..].first_chunk::<64>() {
        Some(whole) => (masks(whole), u64::MAX),
        None => {
            let mut padded = [b' '; 64];
            let rest = &bytes[at..];
            padded[..rest.len()].copy_from_slice(rest);
            (masks(&padded), (1 << rest.len()) - 1)
        }
    };
    let mut starts = if masks.not_ascii == 0 || add_wide_characters(text, state, &mut masks) {
        by_words(text, state, &masks, valid)
    } else {
        by_character(text, state)
    };
    starts = (starts | std::mem::take(&mut state.add)) & !std::mem::take(&mut state.remove);
    let mut apostrophes = masks.apostrophe & starts & valid;
    while apostrophes != 0 {
        let i = apostrophes.trailing_zeros() as usize;
        apostrophes &= apostrophes - 1;
        if let Some(length) = contraction(&bytes[at + i + 1..]) {
            // Positions beyond the block belong to the next.
            let (letter, next) = (1u128 << (i + 1), 1u128 << (i + 1 + length));
            starts = starts & !(letter as u64) | next as u64;
            state.remove |= (letter >> 64) as u64;
            state.add |= (next >> 64) as u64;
        }
    }
    state.at = at + 64;
    starts & valid
}

/// The rules on words, a bit a byte.
#[inline]
fn by_words(text: &str, state: &mut State, masks: &Masks, valid: u64) -> u64 {
    let other = !(masks.letter | masks.number | masks.space);
    let was = |class| u64::from(state.before == Some(class));
    let new_class = masks.letter & !(masks.letter << 1 | was(Class::LETTER))
        | masks.number & !(masks.number << 1 | was(Class::NUMBER))
        | other & !(other << 1 | was(Class::OTHER));
    let follows_blank = masks.blank << 1 | u64::from(state.after_blank);
    // Is there a character after each, and is it no white space?
    let mut before_other = !masks.space >> 1;
    if valid != u64::MAX {
        before_other &= valid >> 1;
    } else if masks.space >> 63 == 1 {
        before_other |= u64::from(begins_with_other(text, state.at + 64)) << 63;
    }
    let space_starts = masks.space & (!(masks.space << 1 | was(Class::SPACE)) | before_other);
    state.after_blank = masks.blank >> 63 == 1;
    state.before = Some(match (masks.letter >> 63, masks.number >> 63, masks.space >> 63) {
        (1, _, _) => Class::LETTER,
        (_, 1, _) => Class::NUMBER,
        (_, _, 1) => Class::SPACE,
        _ => Class::OTHER,
    });
    (new_class & !follows_blank | space_starts) & valid
}

/// Gives every byte of a wide character its class; false where one is white space, of which the words know only its last
/// byte.
#[inline]
fn add_wide_characters(text: &str, state: &mut State, masks: &mut Masks) -> bool {
    let (base, skip) = (state.at, state.skip);
    let mut rest = masks.not_ascii;
    if skip > 0 {
        let bits = (1 << skip) - 1;
        match state.before {
            Some(Class::LETTER) => masks.letter |= bits,
            Some(Class::NUMBER) => masks.number |= bits,
            Some(Class::SPACE) => return false,
            _ => {}
        }
        rest &= !bits;
    }
    let mut after = 0;
    while rest != 0 {
        let i = rest.trailing_zeros() as usize;
        let (class, width) = class_at(&CLASSES[..], text, base + i);
        let bits = ((1 << width) - 1) << i;
        if class.has(Class::LETTER) {
            masks.letter |= bits;
        } else if class.has(Class::NUMBER) {
            masks.number |= bits;
        } else if class == Class::SPACE {
            return false;
        }
        rest &= !bits;
        after = i + width;
    }
    state.skip = after.saturating_sub(64);
    true
}

/// Whether there is a character at `at` and it is no white space.
#[inline]
fn begins_with_other(text: &str, at: usize) -> bool {
    match text.as_bytes().get(at) {
        None | Some(b'\t'..=b'\r' | b' ') => false,
        Some(..0x80) => true,
        Some(_) => class_at(&CLASSES[..], text, at).0.basic() != Class::SPACE,
    }
}

/// As [`block`], for text of any kind.
#[inline(never)]
fn by_character(text: &str, state: &mut State) -> u64 {
    let (classes, base) = (&CLASSES[..], state.at);
    let end = text.len().min(base + 64);
    let mut at = base + state.skip;
    let mut starts = 0;
    let mut next = (at < end).then(|| class_at(classes, text, at));
    while at < end
        && let Some((class, width)) = next
    {
        let class = class.basic();
        next = (at + width < text.len()).then(|| class_at(classes, text, at + width));
        let is_start = if class == Class::SPACE {
            state.before != Some(class) || next.is_some_and(|(next, _)| next.basic() != Class::SPACE)
        } else {
            state.before != Some(class) && !state.after_blank
        };
        starts |= u64::from(is_start) << (at - base);
        state.before = Some(class);
        state.after_blank = text.as_bytes()[at] == b' ';
        at += width;
    }
    state.skip = at.saturating_sub(base + 64);
    starts
}

/// Length of `s d m t ll ve re` at the start of `bytes`.
fn contraction(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b's' | b'd' | b'm' | b't', ..] => Some(1),
        [b'l', b'l', ..] | [b'v' | b'r', b'e', ..] => Some(2),
        _ => None,
    }
}

#[inline]
fn masks(bytes: &[u8; 64]) -> Masks {
    Masks {
        letter: mask(bytes, |byte| (byte | 0x20).wrapping_sub(b'a') < 26),
        number: mask(bytes, |byte| byte.wrapping_sub(b'0') < 10),
        space: mask(bytes, |byte| byte == b' ' || byte.wrapping_sub(b'\t') < 5),
        blank: mask(bytes, |byte| byte == b' '),
        apostrophe: mask(bytes, |byte| byte == b'\''),
        not_ascii: mask(bytes, |byte| byte >= 0x80),
    }
}

/// A bit for each byte of which `is` holds.
#[inline]
fn mask(bytes: &[u8; 64], is: impl Fn(u8) -> bool) -> u64 {
    // The compiler makes this loop a few vector comparisons.
    let flags = bytes.map(|byte| u8::from(is(byte)));
    let eights = flags.as_chunks::<8>().0.iter().zip((0..64).step_by(8));
    // The product moves the flag of byte i to bit 56 + i; no two meet.
    eights.fold(0, |mask, (eight, at)| mask | (u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) << at)
}
