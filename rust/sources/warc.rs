//! WARC 1.0 and 1.1, and with it WET: texts are the bodies of `conversion` records of a text type.

use super::reading::{Place, Reading, finish, go_on};
use super::records::{Malformed, Records};
use super::window::{READ_BYTES, Window};
use crate::error::Result;
use memchr::memmem;
use std::io::Read;
use std::path::Path;

/// The longest header.
const HEADER_BYTES: usize = 64 << 10;
/// What follows a body.
const AFTER: &[u8] = b"\r\n\r\n";
/// What a record of any version starts with.
const ANY_START: &[u8] = b"WARC/";
/// What a record that can be read starts with.
const START: &[u8] = b"WARC/1.";

/// Reads the bodies of `conversion` records whose type is `text/...`; records of other kinds are passed over. Each body must end
/// where its `Content-Length` says, before another record or the end of the input. When malformed records are left out, reading goes
/// on at the next blank line after which a line starts with `WARC/1.`.
///
/// # Errors
///
/// The stream fails; the input ends within a record; a record is malformed, and such are not to be left out or some of its text was
/// handed on; or `out` gives an error.
pub fn read(input: &mut dyn Read, path: &Path, options: &Reading, out: &mut dyn Records) -> Result<()> {
    let mut window = Window::new(input, path)?;
    let mut reader = Reader { place: Place { path, unit: "record", number: 0 }, options };
    loop {
        window.fill(HEADER_BYTES + 1)?;
        if window.ahead().is_empty() {
            return Ok(());
        }
        reader.record(&mut window, out)?;
    }
}

struct Reader<'a> {
    place: Place<'a>,
    options: &'a Reading,
}

impl Reader<'_> {
    fn record(&mut self, window: &mut Window, out: &mut dyn Records) -> Result<()> {
        self.place.number += 1;
        let start = window.offset();
        let known = &window.ahead()[..window.ahead().len().min(HEADER_BYTES)];
        let header = match Header::of(known) {
            Ok(header) => header,
            Err(Unread::Short) if window.ended() && window.ahead().len() == known.len() => {
                return Err(self.place.error(start, "the input ends within the record's header"));
            }
            Err(Unread::Short) => return self.damaged(window, start, &format!("the header does not end within {HEADER_BYTES} bytes"), out),
            Err(Unread::Wrong(what)) => return self.damaged(window, start, &what, out),
        };
        let length = header.bytes as u64 + header.body_bytes;
        if length > self.options.whole_bytes as u64 {
            return self.long_record(window, &header, out);
        }
        let length = length as usize;
        window.fill(length + AFTER.len() + START.len())?;
        let (ahead, ended) = (window.ahead(), window.ended());
        match ahead.get(length..).map_or(Follows::Nothing, |after| follows(after, ended)) {
            Follows::Record => {}
            Follows::Nothing if next_record(ahead).is_none() => return Err(self.truncated(start, &header)),
            _ => return self.damaged(window, start, &wrong_length(&header), out),
        }
        if header.is_text && header.body_bytes > 0 {
            out.whole(&ahead[header.bytes..length], start, start + length as u64)?;
        }
        window.pass(length + AFTER.len());
        Ok(())
    }

    /// A record longer than what is checked whole.
    fn long_record(&mut self, window: &mut Window, header: &Header, out: &mut dyn Records) -> Result<()> {
        let (start, mut begun) = (window.offset(), false);
        window.pass(header.bytes);
        let mut left = header.body_bytes;
        while left > 0 {
            window.fill(READ_BYTES.min(left.try_into().unwrap_or(READ_BYTES)))?;
            let n = window.ahead().len().min(left.try_into().unwrap_or(usize::MAX));
            if n == 0 {
                return Err(self.truncated(start, header));
            }
            if header.is_text {
                go_on(out, &mut begun, &window.ahead()[..n], start)?;
            }
            window.pass(n);
            left -= n as u64;
        }
        window.fill(AFTER.len() + START.len())?;
        match follows(window.ahead(), window.ended()) {
            Follows::Record => {}
            Follows::Nothing => return Err(self.truncated(start, header)),
            Follows::Other if begun => return Err(self.place.error(start, &wrong_length(header))),
            Follows::Other => return self.damaged(window, start, &wrong_length(header), out),
        }
        if begun {
            finish(out, true, b"", window.offset())?;
        }
        window.pass(AFTER.len());
        Ok(())
    }

    fn truncated(&self, start: u64, header: &Header) -> crate::Error {
        self.place.error(start, &format!("the input ends within the record, whose Content-Length is {}", header.body_bytes))
    }

    /// Leaves a record out, up to where another starts, if such records may be.
    fn damaged(&self, window: &mut Window, start: u64, what: &str, out: &mut dyn Records) -> Result<()> {
        if self.options.malformed == Malformed::Error {
            return Err(self.place.malformed(start, what));
        }
        loop {
            window.fill(READ_BYTES)?;
            let length = window.ahead().len();
            if let Some(at) = next_record(window.ahead()) {
                window.pass(at);
                break;
            }
            if window.ended() {
                window.pass(length);
                break;
            }
            // What is kept may be the start of what is looked for.
            window.pass(length - START.len() - AFTER.len());
        }
        out.refuse(start, window.offset())
    }
}

fn wrong_length(header: &Header) -> String {
    format!("its Content-Length is {}, but no blank lines and then another record or the end follow there", header.body_bytes)
}

/// Where in `bytes`, after its first, a record seems to start: behind a blank line.
fn next_record(bytes: &[u8]) -> Option<usize> {
    let blank = |at: usize| bytes[..at].ends_with(b"\n\n") || bytes[..at].ends_with(b"\n\r\n");
    memmem::find_iter(bytes, START).find(|at| blank(*at))
}

/// What comes after a body.
enum Follows {
    /// Another record, or the end where it may be.
    Record,
    /// The end, where it may not be.
    Nothing,
    Other,
}

fn follows(after: &[u8], ended: bool) -> Follows {
    let expected = [AFTER, ANY_START].concat();
    let n = after.len().min(expected.len());
    if after[..n] != expected[..n] {
        return Follows::Other;
    }
    // What may be the start of another record is read as one.
    match n {
        _ if n >= AFTER.len() => Follows::Record,
        _ if ended => Follows::Nothing,
        _ => Follows::Other,
    }
}

/// What is used of a header.
#[derive(Debug, PartialEq)]
struct Header {
    /// Its length, the blank line counted.
    bytes: usize,
    body_bytes: u64,
    is_text: bool,
}

enum Unread {
    /// It goes on after what is there.
    Short,
    Wrong(String),
}

impl Header {
    fn of(bytes: &[u8]) -> std::result::Result<Header, Unread> {
        let wrong = |what: &str| Err(Unread::Wrong(what.into()));
        let version = [&b"WARC/1.0\r\n"[..], b"WARC/1.1\r\n"];
        let begins = |line: &[u8]| bytes.starts_with(line) || line.starts_with(bytes);
        if !version.into_iter().any(begins) {
            return wrong("a record should begin here with a line WARC/1.0 or WARC/1.1, ended by \\r\\n");
        }
        let Some(end) = memmem::find(bytes, AFTER) else { return Err(Unread::Short) };
        let (mut length, mut conversion, mut text) = (None, false, false);
        for line in bytes[..end].split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii());
            match name.as_slice() {
                b"content-length" if length.is_some() => return wrong("the header has two Content-Length"),
                b"content-length" => match number(value) {
                    Some(number) => length = Some(number),
                    None => return wrong("its Content-Length is no number"),
                },
                b"warc-type" => conversion = value.eq_ignore_ascii_case(b"conversion"),
                b"content-type" => text = value.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"text/")),
                _ => {}
            }
        }
        let Some(body_bytes) = length else { return wrong("the header has no Content-Length") };
        Ok(Header { bytes: end + AFTER.len(), body_bytes, is_text: conversion && text })
    }
}

/// Far from overflow when a header's length is added.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() < 19 && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |number, digit| 10 * number + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::super::formats::Format;
    use super::super::reading::tests::{Found, collect, holds_at_every_cut, holds_in_any_pieces, sample, skip, texts};
    use super::*;
    use proptest::prelude::*;

    fn record_of(kind: &str, media: &str, length: usize, body: &str) -> String {
        format!("WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n{body}\r\n\r\n")
    }

    fn conversion(body: &str) -> String {
        record_of("conversion", "text/plain", body.len(), body)
    }

    #[test]
    fn conversions_to_text_are_documents_and_other_records_are_passed_over() {
        let input = record_of("warcinfo", "application/warc-fields", 1, "x")
            + &record_of("response", "text/plain", 1, "x")
            + &conversion("a\r\n\r\nWARC/1.0\r\nWARC-Type: conversion\r\n\r\n")
            + &record_of("conversion", "image/png", 1, "x")
            + &conversion("")
            + &record_of("Conversion", "Text/html; charset=utf-8", 1, "b").replace("Content-L", "content-l").replace("/1.0", "/1.1");
        let expected = ["a\r\n\r\nWARC/1.0\r\nWARC-Type: conversion\r\n\r\n", "b"];
        assert_eq!(texts(Format::Warc, input.as_bytes(), &Reading::default()), expected);
        assert_eq!(texts(Format::Warc, b"", &Reading::default()), Vec::<String>::new());
    }

    #[test]
    fn damage_is_named_or_left_out() {
        let good = conversion("good");
        let wrong = |length: usize| record_of("conversion", "text/plain", length, "body");
        for (bad, what) in [
            (wrong(3), "its Content-Length is 3, but no blank lines and then another record or the end follow there"),
            (wrong(5), "its Content-Length is 5, but no blank lines"),
            (wrong(500), "its Content-Length is 500, but no blank lines"),
            (wrong(4).replace("Content-Length: 4\r\n", ""), "the header has no Content-Length"),
            (wrong(4).replace("Length: 4", "Length: -4"), "its Content-Length is no number"),
            (wrong(4).replace("Content-Type: text/plain", "Content-Length: 4"), "the header has two Content-Length"),
            (wrong(4).replace("WARC/1.0", "WARC/0.18"), "a record should begin here with a line WARC/1.0 or WARC/1.1, ended by \\r\\n"),
            (wrong(4).replace("WARC/1.0\r", "WARC/1.0"), "a record should begin here"),
        ] {
            let input = [&*good, &*bad, &*good].concat();
            let (_, error) = collect(Format::Warc, input.as_bytes(), &Reading::default());
            let expected = format!("a.x: record 2 (byte {}): {what}", good.len());
            assert!(error.as_ref().is_some_and(|error| error.starts_with(&expected)), "{error:?}");
            let (out, error) = collect(Format::Warc, input.as_bytes(), &skip());
            let second = (None, good.len() as u64, (good.len() + bad.len()) as u64);
            assert_eq!((out.texts(), &out.found[1], error), (vec!["good".into(), "good".into()], &second, None), "{bad}");
        }
    }

    #[test]
    fn an_input_that_ends_within_a_record_is_an_error_in_any_case() {
        let input = conversion("good") + &record_of("conversion", "text/plain", 5000, "body");
        for (end, what) in [(input.len(), "record, whose Content-Length is 5000"), (120, "record's header")] {
            let (out, error) = collect(Format::Warc, &input.as_bytes()[..end], &skip());
            assert_eq!(out.texts(), ["good"]);
            assert!(error.as_ref().unwrap().contains(&format!("the input ends within the {what}")), "{error:?}");
        }
    }

    #[test]
    fn a_body_of_many_megabytes_is_handed_on_in_chunks() {
        let body = "a line\n".repeat(500_000);
        let passed = record_of("response", "text/html", body.len(), &body);
        let input = [&*passed, &*conversion(&body), &*conversion("b")].concat();
        assert!(texts(Format::Warc, input.as_bytes(), &Reading::default()) == [&body, "b"]);
        let (_, error) = collect(Format::Warc, &input.as_bytes()[..input.len() / 2 + 1000], &skip());
        assert!(error.unwrap().contains("the input ends within the record, whose Content-Length is 3500000"));
        let wrong = record_of("conversion", "text/plain", body.len() - 1, &body) + &conversion("b");
        assert!(collect(Format::Warc, wrong.as_bytes(), &skip()).1.unwrap().contains("its Content-Length is 3499999, but"));
        let wrong = record_of("response", "text/html", body.len() - 1, &body) + &conversion("b");
        let (out, error) = collect(Format::Warc, wrong.as_bytes(), &skip());
        assert_eq!((out.texts(), out.refused(), error), (vec!["b".into()], 1, None));
    }

    #[test]
    fn the_sample_gives_what_warcio_reads() {
        let Some(bytes) = sample("wet/whirlwind.warc.wet") else { return };
        let (out, error) = collect(Format::Warc, &bytes, &Reading::default());
        let found = out.texts();
        assert_eq!((found.len(), found[0].len(), error), (1, 4456, None));
        assert_eq!(super::super::reading::tests::hash(&found), "f1f039e4e238795d63536018f51ecda3df75bc00e5b49afd3e40dff79f9ac491");
    }

    #[test]
    fn a_cut_file_is_an_error_or_whole_records() {
        let input = record_of("warcinfo", "text/plain", 4, "a: b") + &conversion("one\n\n") + &conversion("字");
        for whole_bytes in [0, 1 << 20] {
            holds_at_every_cut(Format::Warc, input.as_bytes(), &Reading { whole_bytes, ..Reading::default() }, false);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn records_are_those_that_were_written(
            records in prop::collection::vec((any::<bool>(), "[a字\r\n ]{0,20}", prop::option::weighted(0.2, 0usize..12)), 0..6),
            whole_bytes in prop::sample::select(vec![0usize, 90, 100, 1 << 20]),
            pieces in prop::collection::vec(1usize..60, 1..4),
        ) {
            let (mut input, mut expected, mut truncated) = (String::new(), Vec::<Found>::new(), false);
            for (i, (wanted, body, length)) in records.iter().enumerate() {
                let length = length.unwrap_or(body.len());
                let start = input.len();
                let kind = if *wanted { "conversion" } else { "metadata" };
                input += &record_of(kind, "text/plain", length, body);
                let end = input.len();
                let length_fits = length == body.len();
                if length_fits && *wanted && !body.is_empty() {
                    expected.push((Some(body.clone().into()), start as u64, end as u64 - 4));
                } else if !length_fits {
                    // Of the last record only what cannot be told from a longer one that was cut is an error.
                    truncated = i + 1 == records.len() && length > body.len();
                    if !truncated {
                        expected.push((None, start as u64, end as u64));
                    }
                }
            }
            let options = Reading { whole_bytes: 1 << 20, ..skip() };
            let (out, error) = collect(Format::Warc, input.as_bytes(), &options);
            if truncated {
                prop_assert!(out.found.starts_with(&expected) && (error.is_some() || out.found.len() == expected.len() + 1));
            } else {
                prop_assert_eq!((&out.found, &error), (&expected, &None));
            }
            let streamed = Reading { whole_bytes, ..options };
            holds_in_any_pieces(Format::Warc, input.as_bytes(), &streamed, &pieces)?;
            let strict = Reading { malformed: Malformed::Error, ..streamed };
            let (strict, error) = collect(Format::Warc, input.as_bytes(), &strict);
            prop_assert!(out.found.starts_with(&strict.found));
            prop_assert_eq!(error.is_some(), truncated || expected.iter().any(|(text, ..)| text.is_none()));
        }
    }
}
