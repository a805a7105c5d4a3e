//! JSON lines: each line is a record.

use super::jsonfield::{Field, Taken, guess, hand_on, judged, members, no_guess, record};
use super::jsonscan::{Scanned, Trouble, flaw, is_space, space};
use super::reading::{LOOK_BYTES, Place, Reading};
use super::records::{Malformed, Records};
use super::window::{Bytes, Slice, Stream, Window};
use crate::error::Result;
use memchr::memchr;
use std::io::Read;
use std::path::Path;

/// Reads a record from each line that is not blank. A line that is a string is its own text. Of a key that occurs twice the last
/// counts, as in Python.
///
/// # Errors
///
/// The stream fails; a record is malformed, and such are not to be left out or it is long; nothing says where the first record
/// has its text; or `out` gives an error.
pub fn read(input: &mut dyn Read, path: &Path, options: &Reading, out: &mut dyn Records) -> Result<()> {
    read_lines(&mut Window::new(input, path)?, path, options, out)
}

struct Lines<'a> {
    place: Place<'a>,
    options: &'a Reading,
    field: Option<Field>,
    taken: Taken<'static>,
}

pub(crate) fn read_lines(window: &mut Window, path: &Path, options: &Reading, out: &mut dyn Records) -> Result<()> {
    let place = Place { path, unit: "line", number: 0 };
    let field = options.text_field.as_deref().map(Field::named);
    let mut lines = Lines { place, options, field, taken: Taken::default() };
    let whole_bytes = options.whole_bytes;
    loop {
        let (ahead, offset) = (window.ahead(), window.offset());
        match memchr(b'\n', &ahead[..ahead.len().min(whole_bytes + 1)]) {
            Some(end) => {
                lines.line(&ahead[..end], offset, out)?;
                window.pass(end + 1);
            }
            None if ahead.len() > whole_bytes => lines.long_line(window, out)?,
            None if !window.ended() => window.fill(whole_bytes + 1)?,
            None => return lines.line(ahead, offset, out),
        }
    }
}

impl Lines<'_> {
    fn line(&mut self, line: &[u8], offset: u64, out: &mut dyn Records) -> Result<()> {
        self.place.number += 1;
        let Some(first) = line.iter().position(|byte| !is_space(*byte)) else { return Ok(()) };
        let last = line.iter().rposition(|byte| !is_space(*byte)).unwrap_or(first);
        let (line, start) = (&line[first..=last], offset + first as u64);
        let end = start + line.len() as u64;
        self.taken.clear();
        match self.record(line, start) {
            Ok(()) => hand_on(out, self.taken.whole(), start, end),
            Err(Trouble::Flaw(..)) if self.options.malformed == Malformed::Skip => out.refuse(start, end),
            Err(Trouble::Flaw(at, what)) => Err(self.place.malformed(at, &what)),
            Err(Trouble::Fatal(at, what)) => Err(self.place.error(at, &what)),
            Err(Trouble::Other(error)) => Err(error),
        }
    }

    fn record(&mut self, line: &[u8], start: u64) -> Scanned<()> {
        let unknown = self.field.is_none() && line.first() == Some(&b'{');
        let members = if unknown { members(line) } else { Vec::new() };
        let guessed = guess(&members);
        let field = self.field.as_ref().or(guessed.as_ref());
        let mut input = Slice::new(line, start);
        record(&mut input, field, &mut self.taken)?;
        if !input.rest().is_empty() && space(&mut input)?.is_some() {
            return flaw(&mut input, "the line's end");
        }
        if unknown && guessed.is_none() {
            return Err(Trouble::Fatal(start, no_guess(&members)));
        }
        judged(Ok(()), &self.taken, field, start)?;
        self.field = self.field.take().or(guessed);
        Ok(())
    }

    /// A line longer than what is checked whole.
    fn long_line(&mut self, window: &mut Window, out: &mut dyn Records) -> Result<()> {
        self.place.number += 1;
        if let Some(first) = first_byte(window)? {
            let start = window.offset();
            let guessed = self.long_field(window, first)?;
            let field = self.field.as_ref().or(guessed.as_ref());
            let mut taken = Taken::long(out, start);
            let mut input = Stream::line(window);
            let (read, end) = read_long(&mut input, field, &mut taken);
            let outcome = judged(read, &taken, field, start);
            let begun = taken.begun();
            match outcome {
                Ok(()) => {
                    taken.end_long(end)?;
                    self.field = self.field.take().or(guessed);
                }
                Err(Trouble::Flaw(..)) if !begun && self.options.malformed == Malformed::Skip => {
                    let end = input.pass_all()?;
                    out.refuse(start, end)?;
                }
                Err(Trouble::Flaw(at, what)) if !begun => return Err(self.place.malformed(at, &what)),
                Err(Trouble::Flaw(at, what) | Trouble::Fatal(at, what)) => return Err(self.place.error(at, &what)),
                Err(Trouble::Other(error)) => return Err(error),
            }
        }
        if !window.ahead().is_empty() {
            window.pass(1);
        }
        Ok(())
    }

    /// Where the text of the record that comes has its place, if that is to be guessed.
    fn long_field(&self, window: &mut Window, first: u8) -> Result<Option<Field>> {
        if self.field.is_some() || first != b'{' {
            return Ok(None);
        }
        window.fill(LOOK_BYTES)?;
        let ahead = window.ahead();
        let members = members(&ahead[..memchr(b'\n', ahead).unwrap_or(ahead.len())]);
        let guessed = guess(&members);
        if guessed.is_none() {
            return Err(self.place.error(window.offset(), &no_guess(&members)));
        }
        Ok(guessed)
    }
}

/// Passes white space of a line; the byte that comes next.
fn first_byte(window: &mut Window) -> Result<Option<u8>> {
    match space(&mut Stream::line(window)) {
        Ok(first) => Ok(first),
        Err(Trouble::Other(error)) => Err(error),
        Err(_) => Ok(None), // white space has no flaws
    }
}

/// Reads the record of a line, and white space after it; and where the record ended.
fn read_long(input: &mut Stream, field: Option<&Field>, taken: &mut Taken) -> (Scanned<()>, u64) {
    let read = record(input, field, taken);
    let end = input.offset();
    let read = read.and_then(|()| match space(input)? {
        None => Ok(()),
        Some(_) => flaw(input, "the line's end"),
    });
    (read, end)
}

#[cfg(test)]
mod tests {
    use super::super::formats::Format;
    use super::super::reading::tests::{collect, hash, holds_at_every_cut, holds_in_any_pieces, sample, skip, texts};
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn field(name: &str) -> Reading {
        Reading { text_field: Some(name.into()), ..Reading::default() }
    }

    #[test]
    fn the_place_of_the_text_is_seen_in_the_first_record() {
        for (line, expected) in [
            (r#"{"body": "c", "content": "b", "text": "a"}"#, vec!["a"]),
            (r#"{"text": null, "body": "c"}"#, vec!["c"]),
            (r#"{"messages": [{"role": "user", "content": "a"}, {"content": "b"}]}"#, vec!["a\nb\n"]),
            (r#"{"completion": "b", "prompt": "a"}"#, vec!["a\nb\n"]),
            (r#""a""#, vec!["a"]),
            (r#"{"text": ""}"#, vec![]),
        ] {
            assert_eq!(texts(Format::Jsonl, line.as_bytes(), &Reading::default()), expected, "{line}");
        }
    }

    #[test]
    fn a_path_leads_to_the_text() {
        let line = br#"{"a": {"b": [1, {"text": "x"}], "c.d": "y"}, "text": "z"}"#;
        for (path, expected) in [("a.b.1.text", vec!["x"]), ("text", vec!["z"])] {
            assert_eq!(texts(Format::Jsonl, line, &field(path)), expected);
        }
        assert_eq!(texts(Format::Jsonl, br#"{"a": {"t": "x"}, "a": {"t": "y"}}"#, &field("a.t")), ["y"]);
        let (_, error) = collect(Format::Jsonl, br#"{"a": {"t": "x"}, "a": {}}"#, &field("a.t"));
        assert!(error.unwrap().contains(r#"there is no "a.t""#));
    }

    #[test]
    fn what_cannot_be_used_is_named_or_left_out() {
        for (line, what) in [
            (
                "{\"text\": \"a\"",
                "(byte 31): it ends where `,` or `}` should follow; mend it, or leave such records out with --malformed skip",
            ),
            ("{\"text\": null}", "(byte 19): \"text\" is null, not a text"),
            ("{\"texts\": 1}", "(byte 19): there is no \"text\""),
            ("{\"text\": [1]}", "\"text\" is an array of something else than messages, not a text"),
            ("{\"text\": \"a\"} x", "(byte 33): `x` stands where the line's end should follow"),
            ("[\"a\"]", "there is no \"text\""),
            ("7", "\"text\" is a number, not a text"),
        ] {
            let input = format!("{{\"text\": \"first\"}}\n\n{line}\n{{\"text\": \"last\"}}");
            let (_, error) = collect(Format::Jsonl, input.as_bytes(), &Reading::default());
            let error = error.unwrap();
            assert!(error.starts_with("a.x: line 3 (byte ") && error.contains(what), "{error}");
            let (out, error) = collect(Format::Jsonl, input.as_bytes(), &skip());
            assert_eq!((out.texts(), out.refused(), error), (vec!["first".into(), "last".into()], 1, None), "{line}");
        }
    }

    #[test]
    fn places_are_those_of_the_input() {
        let (out, error) = collect(Format::Jsonl, "\u{feff}{\"text\": \"a\"}\n x\r\n  {\"text\": \"b\"} \r\n".as_bytes(), &skip());
        assert_eq!((out.found, error), (vec![(Some(b"a".into()), 3, 16), (None, 18, 19), (Some(b"b".into()), 23, 36)], None));
    }

    #[test]
    fn white_space_behind_a_long_line_that_is_refused_is_none_of_it() {
        for whole_bytes in [0, 1 << 20] {
            let (out, error) = collect(
                Format::Jsonl,
                b"{\"n\": [] \t\n{\"text\": \"b\"}",
                &Reading { whole_bytes, malformed: Malformed::Skip, ..field("text") },
            );
            assert_eq!((out.found, error), (vec![(None, 0, 8), (Some(b"b".into()), 11, 24)], None));
        }
    }

    #[test]
    fn a_first_record_without_a_text_ends_the_reading() {
        let (_, error) = collect(Format::Jsonl, br#"{"id": 1, "title": "a", "abstract": "b"}"#, &skip());
        let expected = "a.x: line 1 (byte 0): no text under text, content, body, messages, or prompt and completion; \
                        fields with a text are \"title\", \"abstract\"; name the one to use with --text-field NAME";
        assert_eq!(error.unwrap(), expected);
    }

    #[test]
    fn a_line_of_many_megabytes_is_handed_on_in_chunks() {
        let text = "a line\n\"字\" ".repeat(500_000);
        let line = format!(" {{\"id\": [{}1], \"text\": {}, \"n\": 1}}\n{{\"text\": \"b\"}}", "1,".repeat(1 << 20), Value::from(&*text));
        let (out, error) = collect(Format::Jsonl, line.as_bytes(), &field("text"));
        assert_eq!((out.found.len(), error), (2, None));
        assert!(out.found[0].0.as_deref() == Some(text.as_bytes()) && out.found[0].1 == 1);
        assert_eq!(out.found[0].2 as usize, line.len() - b"\n{\"text\": \"b\"}".len());
        let (_, error) =
            collect(Format::Jsonl, &line.as_bytes()[..line.len() / 2], &Reading { malformed: Malformed::Skip, ..field("text") });
        assert!(error.unwrap().ends_with("it ends where the rest of a string (control characters are escaped) should follow"));
        let (out, error) = collect(Format::Jsonl, line.as_bytes(), &Reading { malformed: Malformed::Skip, ..field("n") });
        assert_eq!((out.refused(), error), (2, None));
    }

    #[test]
    fn the_sample_gives_what_python_reads() {
        let Some(bytes) = sample("jsonl/cc_en_head-0174.jsonl") else { return };
        let found = texts(Format::Jsonl, &bytes, &Reading::default());
        assert_eq!((found.len(), &*hash(&found)), (10, "52a2342eaf96989f7e37ccccc8de98031143d1aa17ba33d850c5f7c91f9dcf6e"));
    }

    #[test]
    fn a_cut_file_is_an_error_or_whole_lines() {
        let lines = "{\"text\": \"a\\u00e9字\"}\n\n{\"id\": {\"x\": [1, null]}, \"text\": \"b\"}\r\n";
        for whole_bytes in [1, 1 << 20] {
            holds_at_every_cut(Format::Jsonl, lines.as_bytes(), &Reading { whole_bytes, ..field("text") }, false);
        }
    }

    /// A value as text, strings and nesting included.
    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".into()),
            Just("-0.5e1".into()),
            any::<u32>().prop_map(|n| n.to_string()),
            any::<String>().prop_map(|text| Value::from(text).to_string()),
            "[a-z \\n\"]{0,40}".prop_map(|text| Value::from(text).to_string()),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(|values| format!("[{}]", values.join(" , "))),
                prop::collection::vec(("text|data|content|1", inner), 0..4).prop_map(|members| {
                    let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    /// The text of a record by the library that owns the format.
    fn text_slowly(line: &[u8], path: &str) -> Option<String> {
        let record: Value = serde_json::from_slice(line).ok()?;
        if let Value::String(text) = record {
            return Some(text);
        }
        let found = path.split('.').try_fold(&record, |value, key| match value {
            Value::Array(values) => values.get(key.parse::<usize>().ok()?),
            _ => value.get(key),
        });
        match found? {
            Value::String(text) => Some(text.clone()),
            Value::Array(messages) => messages.iter().map(|message| Some(message.get("content")?.as_str()?.to_string() + "\n")).collect(),
            _ => None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn records_are_those_of_serde_json(
            lines in prop::collection::vec((value(), prop::option::weighted(0.2, (any::<usize>(), "[ -DF-df-~]"))), 0..6),
            path in "text|data|data.text|content.1|1",
            whole_bytes in prop::sample::select(vec![0usize, 1, 16, 100]),
            pieces in prop::collection::vec(1usize..50, 1..4),
        ) {
            let lines: Vec<Vec<u8>> = lines.into_iter().map(|(value, damage)| {
                let mut line = format!("{{\"data\": 0, {}", value.strip_prefix('{').map_or(format!("\"text\":{value}}}"), |rest| match rest {
                    "}" => "\"1\":[]}".into(),
                    rest => rest.to_string(),
                })).into_bytes();
                if let Some((at, byte)) = damage {
                    let at = at % line.len();
                    line[at] = if line[at].is_ascii() { byte.as_bytes()[0] } else { line[at] };
                }
                line
            }).collect();
            let bytes = lines.join(&b"\n"[..]);
            let options = Reading { malformed: Malformed::Skip, ..field(&path) };
            let (out, error) = collect(Format::Jsonl, &bytes, &options);
            prop_assert_eq!(&error, &None);
            let expected: Vec<Option<String>> =
                lines.iter().map(|line| text_slowly(line, &path)).filter(|text| text.as_deref() != Some("")).collect();
            let found: Vec<Option<String>> =
                out.found.iter().map(|(text, ..)| text.clone().map(|text| String::from_utf8(text).unwrap())).collect();
            prop_assert_eq!(&found, &expected);
            for (text, start, end) in &out.found {
                let text = text.clone().map(|text| String::from_utf8(text).unwrap());
                prop_assert_eq!(text, text_slowly(&bytes[*start as usize..*end as usize], &path));
            }
            let streamed = Reading { whole_bytes, ..options };
            holds_in_any_pieces(Format::Jsonl, &bytes, &streamed, &pieces)?;
            let (long, error) = collect(Format::Jsonl, &bytes, &streamed);
            prop_assert!(out.found.starts_with(&long.found) && (error.is_some() || long == out));
        }
    }
}
