//! Strings of JSON, handed on unescaped in chunks.
//!
//! A lone surrogate, which Python keeps, becomes U+FFFD, for it has no place in UTF-8. Bytes that are no UTF-8 are handed on as
//! they are.

use super::jsonscan::{Scanned, Trouble, flaw};
use super::window::Bytes;

fn next(input: &mut impl Bytes) -> Scanned<u8> {
    match input.peek()? {
        Some(byte) => {
            input.pass(1);
            Ok(byte)
        }
        None => flaw(input, "the rest of a string"),
    }
}

/// Bytes before the first that means something in a string: a quote, a backslash or a control character.
fn plain(bytes: &[u8]) -> usize {
    // Eight at once: in the words below the lowest high bit that is set marks the first such byte.
    const ONES: u64 = u64::MAX / 0xff;
    let words = bytes.chunks_exact(8);
    let tail = words.remainder();
    for (i, word) in words.enumerate() {
        let word = word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control) & (ONES << 7);
        if found != 0 {
            return 8 * i + found.trailing_zeros() as usize / 8;
        }
    }
    let means = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
    bytes.len() - tail.len() + tail.iter().position(means).unwrap_or(tail.len())
}

/// Passes the rest of a string, whose quote has been passed, and gives its text.
pub(crate) fn string(input: &mut impl Bytes, take: &mut impl FnMut(&[u8]) -> Scanned<()>) -> Scanned<()> {
    loop {
        let ahead = input.ahead()?;
        let n = plain(ahead);
        let stop = ahead.get(n).copied();
        if n > 0 {
            take(&ahead[..n])?;
        }
        match stop {
            Some(b'"') => {
                input.pass(n + 1);
                return Ok(());
            }
            Some(b'\\') => {
                input.pass(n + 1);
                let kind = next(input)?;
                escape(input, kind, take)?;
            }
            None if n > 0 => input.pass(n),
            _ => {
                input.pass(n);
                return flaw(input, "the rest of a string (control characters are escaped)");
            }
        }
    }
}

fn escape(input: &mut impl Bytes, kind: u8, take: &mut impl FnMut(&[u8]) -> Scanned<()>) -> Scanned<()> {
    let byte = match kind {
        b'"' | b'\\' | b'/' => kind,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unicode(input, take),
        _ => return Err(Trouble::Flaw(input.offset() - 1, "an unknown escape in a string".into())),
    };
    take(&[byte])
}

/// The character of an escape whose `\u` has been passed, and of the one after it if the two are a surrogate pair.
fn unicode(input: &mut impl Bytes, take: &mut impl FnMut(&[u8]) -> Scanned<()>) -> Scanned<()> {
    let mut give = |code: u32| take(char::from_u32(code).unwrap_or('\u{fffd}').encode_utf8(&mut [0; 4]).as_bytes());
    let mut unit = four_digits(input)?;
    while (0xd800..0xdc00).contains(&unit) && input.peek()? == Some(b'\\') {
        input.pass(1);
        let kind = next(input)?;
        if kind != b'u' {
            give(unit)?;
            return escape(input, kind, take);
        }
        let low = four_digits(input)?;
        if (0xdc00..0xe000).contains(&low) {
            return give(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
        }
        give(unit)?;
        unit = low;
    }
    give(unit)
}

fn four_digits(input: &mut impl Bytes) -> Scanned<u32> {
    let mut unit = 0;
    for _ in 0..4 {
        match next(input).map(|byte| char::from(byte).to_digit(16))? {
            Some(digit) => unit = 16 * unit + digit,
            None => return Err(Trouble::Flaw(input.offset() - 1, "`\\u` without four hexadecimal digits after it".into())),
        }
    }
    Ok(unit)
}

#[cfg(test)]
mod tests {
    use super::super::window::Slice;
    use super::*;
    use proptest::prelude::*;

    fn unescaped(text: &str) -> Option<String> {
        let mut found = Vec::new();
        let mut input = Slice::new(text.as_bytes(), 0);
        let take = &mut |bytes: &[u8]| {
            found.extend_from_slice(bytes);
            Ok(())
        };
        string(&mut input, take).ok().map(|()| String::from_utf8(found).unwrap())
    }

    #[test]
    fn escapes_become_characters() {
        for (text, expected) in [
            (r#"\"\\\/\b\f\n\r\t""#, Some("\"\\/\u{8}\u{c}\n\r\t")),
            (r#"\ud83d\ude00x""#, Some("😀x")),
            (r#"\ud83dx\ude00""#, Some("\u{fffd}x\u{fffd}")),
            (r#"\ud83d\n\ud83d\ud83d\ude00""#, Some("\u{fffd}\n\u{fffd}😀")),
            (r#"\ud83d\u00e9""#, Some("\u{fffd}é")),
            (r#"\u00g0""#, None),
            (r#"\x""#, None),
            ("a", None),
        ] {
            assert_eq!(unescaped(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_means_something_is_found(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x1fu8..0x24, 0x5bu8..0x5e], 0..40)) {
            let slowly = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20));
            prop_assert_eq!(plain(&bytes), slowly.unwrap_or(bytes.len()));
        }

        #[test]
        fn strings_come_back(text in any::<String>()) {
            let escaped = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(unescaped(&escaped[1..]), Some(text.clone()));
            let ascii: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(unescaped(&(ascii + "\"")), Some(text));
        }
    }
}
