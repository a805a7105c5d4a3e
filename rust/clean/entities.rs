//! HTML's character references.

use super::spaces::{finish, push};
use html_escape::NAMED_ENTITIES;
use std::borrow::Cow;

/// Names that HTML knows without their semicolon too.
const BARE: [&str; 106] = [
    "AElig", "AMP", "Aacute", "Acirc", "Agrave", "Aring", "Atilde", "Auml", "COPY", "Ccedil", "ETH", "Eacute", "Ecirc", "Egrave", "Euml",
    "GT", "Iacute", "Icirc", "Igrave", "Iuml", "LT", "Ntilde", "Oacute", "Ocirc", "Ograve", "Oslash", "Otilde", "Ouml", "QUOT", "REG",
    "THORN", "Uacute", "Ucirc", "Ugrave", "Uuml", "Yacute", "aacute", "acirc", "acute", "aelig", "agrave", "amp", "aring", "atilde",
    "auml", "brvbar", "ccedil", "cedil", "cent", "copy", "curren", "deg", "divide", "eacute", "ecirc", "egrave", "eth", "euml", "frac12",
    "frac14", "frac34", "gt", "iacute", "icirc", "iexcl", "igrave", "iquest", "iuml", "laquo", "lt", "macr", "micro", "middot", "nbsp",
    "not", "ntilde", "oacute", "ocirc", "ograve", "ordf", "ordm", "oslash", "otilde", "ouml", "para", "plusmn", "pound", "quot", "raquo",
    "reg", "sect", "shy", "sup1", "sup2", "sup3", "szlig", "thorn", "times", "uacute", "ucirc", "ugrave", "uml", "uuml", "yacute", "yen",
    "yuml",
];
/// Length of the longest of them.
const LONGEST_BARE: usize = 6;
/// Length of the longest name.
const LONGEST: usize = 31;
/// What the numbers 0x80 to 0x9f stand for: those of Windows-1252.
const WINDOWS: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–',
    '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// HTML's character references become what they stand for, once: `&amp;lt;` becomes `&lt;`. Names and numbers are read as
/// HTML5 has it outside of attributes and Python's `html.unescape` does: names as in `&copy2024` need no semicolon, and
/// numbers that are no characters become nothing.
pub fn html_entities(text: &str, _: bool) -> Cow<'_, str> {
    let mut result = String::new();
    let mut kept = 0;
    for at in memchr::memchr_iter(b'&', text.as_bytes()) {
        if let Some((value, width)) = reference(&text[at + 1..]) {
            push(&mut result, text, kept..at);
            match value {
                Value::Named(value) => result.push_str(value),
                Value::Number(value) => result.extend(value),
            }
            kept = at + 1 + width;
        }
    }
    finish(result, text, kept)
}

enum Value {
    Named(&'static str),
    Number(Option<char>),
}

/// What the text after an `&` refers to, and how many bytes of it that takes.
fn reference(text: &str) -> Option<(Value, usize)> {
    let bytes = text.as_bytes();
    if bytes.first() == Some(&b'#') {
        return number(&bytes[1..]).map(|(value, width)| (Value::Number(value), 1 + width));
    }
    let length = bytes.iter().take(LONGEST + 1).take_while(|byte| byte.is_ascii_alphanumeric()).count();
    if bytes.get(length) == Some(&b';')
        && let Some(value) = named(&bytes[..length])
    {
        return Some((Value::Named(value), length + 1));
    }
    let bare = (2..=length.min(LONGEST_BARE)).rev().find(|&width| BARE.binary_search(&&text[..width]).is_ok())?;
    named(&bytes[..bare]).map(|value| (Value::Named(value), bare))
}

fn named(name: &[u8]) -> Option<&'static str> {
    NAMED_ENTITIES.binary_search_by_key(&name, |(known, _)| known).ok().map(|at| NAMED_ENTITIES[at].1)
}

/// The character of a number, decimal or after an `x` hexadecimal; none for numbers that stand for nothing.
fn number(bytes: &[u8]) -> Option<(Option<char>, usize)> {
    let (radix, start) = if matches!(bytes.first(), Some(b'x' | b'X')) { (16, 1) } else { (10, 0) };
    let digits = bytes[start..].iter().map_while(|byte| char::from(*byte).to_digit(radix));
    let mut end = start;
    let mut value = 0u32;
    for digit in digits {
        value = value.saturating_mul(radix).saturating_add(digit);
        end += 1;
    }
    if end == start {
        return None;
    }
    Some((numbered(value), end + usize::from(bytes.get(end) == Some(&b';'))))
}

fn numbered(value: u32) -> Option<char> {
    match value {
        0 => Some(char::REPLACEMENT_CHARACTER),
        0x80..=0x9f => Some(WINDOWS[value as usize - 0x80]),
        1..=8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        _ if value <= 0x10_ffff && value & 0xfffe == 0xfffe => None,
        _ => Some(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_python_reads_them() {
        // Every right side is what `html.unescape` of Python 3.11 returns.
        for (text, expected) in [
            ("a &amp; b", "a & b"),
            ("&amp;lt;", "&lt;"),
            ("&lt;p&gt; &quot;x&quot; &apos;", "<p> \"x\" '"),
            ("&eacute;&Eacute &nbsp;|", "éÉ \u{a0}|"),
            ("&notit; &notin; &notin", "¬it; ∉ ¬in"),
            ("&copy2024 &COPY;", "©2024 ©"),
            ("&unknown; &; & &&amp;", "&unknown; &; & &&"),
            ("&#65;&#x42;&#X43 &#68", "AB\u{43} D"),
            ("&#;&#x;&#xg", "&#;&#x;&#xg"),
            ("&#128;&#x9f;&#129;", "€Ÿ\u{81}"),
            ("&#0;&#13;&#xd800;&#x110000;&#99999999999;", "\u{fffd}\r\u{fffd}\u{fffd}\u{fffd}"),
            ("a&#1;b&#x7f;c&#xfffe;d&#x1ffff;e&#xfdd0;f&#11;g", "abcdefg"),
            ("&CounterClockwiseContourIntegral;", "∳"),
            ("&NotEqualTilde;&nGg;", "≂̸⋙̸"),
            ("&ampamp; &ltfoo; &gtcir", "&amp; <foo; >cir"),
            ("&hellip &hellip;", "&hellip …"),
            ("&é;&中", "&é;&中"),
        ] {
            assert_eq!(html_entities(text, true), expected, "{text:?}");
        }
    }

    #[test]
    fn every_bare_name_is_a_name() {
        assert!(BARE.is_sorted());
        assert!(BARE.iter().all(|name| named(name.as_bytes()).is_some() && name.len() <= LONGEST_BARE));
        assert_eq!(NAMED_ENTITIES.iter().map(|(name, _)| name.len()).max(), Some(LONGEST));
    }
}
