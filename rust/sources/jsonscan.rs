//! JSON read forward, once, in bounded memory: values are checked and passed over.
//!
//! What is accepted is what Python's `json.loads` accepts, `NaN` and `Infinity` too.

use super::jsonstring::string;
use super::window::Bytes;
use crate::error::Error;

/// Arrays and objects within each other; Python's reader gives up near 1,000.
const MAX_DEPTH: usize = 1000;
/// The longest key that is told apart from others.
const KEY_BYTES: usize = 1024;

/// Why a record is not read to its end.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It is malformed, at this byte.
    Flaw(u64, String),
    /// So too, but it cannot be left out.
    Fatal(u64, String),
    /// The stream or the taker failed.
    Other(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Other(error)
    }
}

pub(crate) type Scanned<T> = Result<T, Trouble>;

/// What stands here, where something else should.
pub(crate) fn flaw<T>(input: &mut impl Bytes, expected: &str) -> Scanned<T> {
    let found = match input.peek()? {
        None => "it ends".into(),
        Some(byte) if byte.is_ascii_graphic() => format!("`{}` stands", char::from(byte)),
        Some(byte) => format!("byte {byte:#04x} stands"),
    };
    Err(Trouble::Flaw(input.offset(), format!("{found} where {expected} should follow")))
}

pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Passes white space; the byte that comes next.
pub(crate) fn space(input: &mut impl Bytes) -> Scanned<Option<u8>> {
    loop {
        let ahead = input.ahead()?;
        let length = ahead.len();
        match ahead.iter().position(|byte| !is_space(*byte)) {
            Some(i) => {
                let byte = ahead[i];
                input.pass(i);
                return Ok(Some(byte));
            }
            None if length == 0 => return Ok(None),
            None => input.pass(length),
        }
    }
}

/// Passes a value.
pub(crate) fn skip(input: &mut impl Bytes) -> Scanned<()> {
    // What closes each array and object that is open.
    let mut open: Vec<u8> = Vec::new();
    let mut ignored = Vec::new();
    loop {
        let close = match space(input)? {
            Some(b'{') => b'}',
            Some(b'[') => b']',
            first => {
                scalar(input, first)?;
                if finished(input, &mut open, &mut ignored)? {
                    return Ok(());
                }
                continue;
            }
        };
        if open.len() == MAX_DEPTH {
            return Err(Trouble::Flaw(input.offset(), format!("more than {MAX_DEPTH} arrays and objects within each other")));
        }
        input.pass(1);
        open.push(close);
        if begins(input, close)? {
            if close == b'}' {
                key(input, &mut ignored)?;
            }
            continue;
        }
        open.pop();
        if finished(input, &mut open, &mut ignored)? {
            return Ok(());
        }
    }
}

/// After a value: closes what ends with it, and passes to the next value; true when nothing is open.
fn finished(input: &mut impl Bytes, open: &mut Vec<u8>, ignored: &mut Vec<u8>) -> Scanned<bool> {
    while let Some(close) = open.last() {
        if goes_on(input, *close)? {
            if *close == b'}' {
                key(input, ignored)?;
            }
            return Ok(false);
        }
        open.pop();
    }
    Ok(true)
}

/// After an opening bracket: whether there is anything within; if not, the closing one is passed.
pub(crate) fn begins(input: &mut impl Bytes, close: u8) -> Scanned<bool> {
    let empty = space(input)? == Some(close);
    if empty {
        input.pass(1);
    }
    Ok(!empty)
}

/// After a value within brackets: passes the comma or the closing bracket; whether it was the comma.
pub(crate) fn goes_on(input: &mut impl Bytes, close: u8) -> Scanned<bool> {
    match space(input)? {
        Some(b',') => {
            input.pass(1);
            Ok(true)
        }
        Some(byte) if byte == close => {
            input.pass(1);
            Ok(false)
        }
        _ => flaw(input, if close == b'}' { "`,` or `}`" } else { "`,` or `]`" }),
    }
}

/// Passes a key and its colon; `into` is the key, or the start of a long one.
pub(crate) fn key(input: &mut impl Bytes, into: &mut Vec<u8>) -> Scanned<()> {
    into.clear();
    if space(input)? != Some(b'"') {
        return flaw(input, "a key in quotes");
    }
    input.pass(1);
    string(input, &mut |bytes| {
        into.extend_from_slice(&bytes[..bytes.len().min(KEY_BYTES - into.len())]);
        Ok(())
    })?;
    if space(input)? != Some(b':') {
        return flaw(input, "`:`");
    }
    input.pass(1);
    Ok(())
}

/// Passes a string, number or name, of which `first` is the first byte.
fn scalar(input: &mut impl Bytes, first: Option<u8>) -> Scanned<()> {
    match first {
        Some(b'"') => {
            input.pass(1);
            string(input, &mut |_| Ok(()))
        }
        Some(b'-' | b'0'..=b'9') => number(input),
        Some(b't') => name(input, "true"),
        Some(b'f') => name(input, "false"),
        Some(b'n') => name(input, "null"),
        Some(b'N') => name(input, "NaN"),
        Some(b'I') => name(input, "Infinity"),
        _ => flaw(input, "a value"),
    }
}

fn name(input: &mut impl Bytes, name: &str) -> Scanned<()> {
    for byte in name.bytes() {
        if input.peek()? != Some(byte) {
            return flaw(input, "a value");
        }
        input.pass(1);
    }
    Ok(())
}

fn number(input: &mut impl Bytes) -> Scanned<()> {
    if input.peek()? == Some(b'-') {
        input.pass(1);
        if input.peek()? == Some(b'I') {
            return name(input, "Infinity");
        }
    }
    if input.peek()? == Some(b'0') {
        input.pass(1);
    } else {
        digits(input)?;
    }
    if input.peek()? == Some(b'.') {
        input.pass(1);
        digits(input)?;
    }
    if let Some(b'e' | b'E') = input.peek()? {
        input.pass(1);
        if let Some(b'+' | b'-') = input.peek()? {
            input.pass(1);
        }
        digits(input)?;
    }
    Ok(())
}

/// Passes one digit or more.
fn digits(input: &mut impl Bytes) -> Scanned<()> {
    let mut any = false;
    loop {
        let ahead = input.ahead()?;
        let n = ahead.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(ahead.len());
        let more = n > 0 && n == ahead.len();
        input.pass(n);
        any |= n > 0;
        match (more, any) {
            (true, _) => {}
            (false, true) => return Ok(()),
            (false, false) => return flaw(input, "a digit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::Slice;
    use super::*;
    use proptest::prelude::*;

    /// Whether these bytes are one value, and white space.
    fn accepts(text: &str) -> bool {
        let mut input = Slice::new(text.as_bytes(), 0);
        skip(&mut input).is_ok() && space(&mut input).unwrap().is_none()
    }

    #[test]
    fn values_are_told_from_what_is_none() {
        for text in ["{}", "[ ]", "[1, -0.5e+3,0]", r#"{"a" : [true,false,null] , "b":{"":"\u00e9"}}"#, "NaN", "-Infinity", " \"\" "] {
            assert!(accepts(text), "{text}");
        }
        for text in ["", "{", "[1,]", "{\"a\":1,}", "{\"a\"}", "{1:2}", "01", "1.", "-", "+1", "1e", "nul", "nulls", "[1}", "\"\n\"", "'a'"]
        {
            assert!(!accepts(text), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(accepts(&nested(MAX_DEPTH)) && !accepts(&nested(MAX_DEPTH + 1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_accepted_is_json(text in r#"([\[\]{},:0-9a-z"\\ .eE+-]|"[a-z]"|"[a-z]":|null|-?[0-9]\.[0-9]){0,12}"#) {
            // Of the two, serde_json alone minds numbers that are out of range.
            prop_assume!(!text.contains(['e', 'E']));
            prop_assert_eq!(accepts(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
