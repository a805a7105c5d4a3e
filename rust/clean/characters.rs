//! Rules about single characters: case, control characters, composition.

// Branches keep the compiler from making vector code of what `find` is given.
#![allow(clippy::needless_bitwise_bool)]

use super::scan::find;
use super::spaces::{finish, push};
use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Unicode lower case.
pub fn lowercase(text: &str, _: bool) -> Cow<'_, str> {
    let is_upper_or_wide = |byte: u8, _, _| (byte.wrapping_sub(b'A') < 26) | (byte > 0x7f);
    let Some(first) = find(text.as_bytes(), 0, is_upper_or_wide) else {
        return Cow::Borrowed(text);
    };
    // The lower case of a sigma depends on what stands around it.
    if memchr::memmem::find(text.as_bytes(), "Σ".as_bytes()).is_some() {
        return changed(text.to_lowercase(), text);
    }
    let mut result = String::with_capacity(text.len());
    result.push_str(&text[..first]);
    let mut from = first;
    while from < text.len() {
        let wide = find(text.as_bytes(), from, |byte, _, _| byte > 0x7f).unwrap_or(text.len());
        let start = result.len();
        result.push_str(&text[from..wide]);
        result[start..].make_ascii_lowercase();
        from = wide;
        for c in text[wide..].chars().take_while(|c| !c.is_ascii()) {
            from += c.len_utf8();
            result.extend(c.to_lowercase());
        }
    }
    changed(result, text)
}

fn changed(result: String, text: &str) -> Cow<'_, str> {
    if result == text { Cow::Borrowed(text) } else { Cow::Owned(result) }
}

/// Control characters are removed: class Cc but tab, `\n` and `\r`, and the byte order mark U+FEFF. What joins or parts
/// letters (U+200B to U+200F) stays, because many scripts are written with it.
pub fn strip_control(text: &str, _: bool) -> Cow<'_, str> {
    let is_control = |byte: u8, next: u8, last: u8| {
        let ascii = (byte < b' ') & (byte != b'\t') & (byte != b'\n') & (byte != b'\r') | (byte == 0x7f);
        ascii | (byte == 0xc2) & (next < 0xa0) | (byte == 0xef) & (next == 0xbb) & (last == 0xbf)
    };
    let mut result = String::new();
    let mut kept = 0;
    while let Some(at) = find(text.as_bytes(), kept, is_control) {
        push(&mut result, text, kept..at);
        kept = text.ceil_char_boundary(at + 1);
    }
    finish(result, text, kept)
}

/// Below this nothing combines with what comes before it, and every character alone is in form C.
const FIRST_COMBINING: char = '\u{300}';
/// First byte of the characters from there on.
const FIRST_COMBINING_BYTE: u8 = 0xcc;

/// Unicode normalization form C.
pub fn nfc(text: &str, _: bool) -> Cow<'_, str> {
    let mut result = String::new();
    let (mut kept, mut from) = (0, 0);
    while let Some(at) = find(text.as_bytes(), from, |byte, _, _| byte >= FIRST_COMBINING_BYTE) {
        let mut is_settled = true;
        from = at;
        for c in text[at..].chars().take_while(|c| *c >= FIRST_COMBINING) {
            is_settled &= is_composed(c);
            from += c.len_utf8();
        }
        if is_settled || is_nfc_quick(text[at..from].chars()) == IsNormalized::Yes {
            continue;
        }
        // The first may combine with the one character before it, whatever that is.
        let start = if at == 0 { 0 } else { text.floor_char_boundary(at - 1) };
        let composed: String = text[start..from].nfc().collect();
        if composed != text[start..from] {
            push(&mut result, text, kept..start);
            result.push_str(&composed);
            kept = from;
        }
    }
    finish(result, text, kept)
}

/// Common characters that are in form C wherever they stand and leave the order of others alone.
fn is_composed(c: char) -> bool {
    matches!(c, '\u{2010}'..='\u{2027}' | '\u{400}'..='\u{482}' | '\u{5d0}'..='\u{5ea}' | '\u{621}'..='\u{64a}'
        | '\u{3001}'..='\u{3029}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30ff}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{ff01}'..='\u{ff5e}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unicode_normalization::char::canonical_combining_class;

    #[test]
    fn characters_held_to_be_composed_are() {
        for c in ('\0'..=char::MAX).filter(|c| *c < FIRST_COMBINING || is_composed(*c)) {
            assert_eq!(is_nfc_quick(std::iter::once(c)), IsNormalized::Yes, "{c:?}");
            assert_eq!(canonical_combining_class(c), 0, "{c:?}");
        }
    }

    #[test]
    fn characters_stripped_are_those_of_the_class() {
        for c in '\0'..=char::MAX {
            let stripped = (c.is_control() && !matches!(c, '\t' | '\n' | '\r')) || c == '\u{feff}';
            let text = format!("a{c}b");
            assert_eq!(strip_control(&text, true).len(), if stripped { 2 } else { text.len() }, "{c:?}");
        }
    }

    fn letters() -> impl Strategy<Value = String> {
        let hard = "aÅAΣσςİıßẞÉé\u{300}\u{301}\u{323}\u{345}\u{1100}\u{1161}\u{11a8}\u{ac00}\u{915}\u{93c}\u{212b}\u{2126}\u{1f71}\u{3099}か”中Жж\u{10400} \n.";
        let c = prop_oneof![3 => prop::sample::select(hard.chars().collect::<Vec<_>>()), 1 => any::<char>()];
        prop::collection::vec(c, 0..60).prop_map(String::from_iter)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn lower_case_is_that_of_the_standard_library(text in letters()) {
            prop_assert_eq!(lowercase(&text, true), text.to_lowercase());
        }

        #[test]
        fn composed_text_is_that_of_the_whole(text in letters()) {
            prop_assert_eq!(nfc(&text, true), text.nfc().collect::<String>());
        }
    }
}
