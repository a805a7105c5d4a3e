//! JSON files: an array of records, columns of texts, an object that holds an array of records, or values in a row.

use super::jsonfield::{Field, Kind, Taken, guess, hand_on, kind_of, members, no_guess, record};
use super::jsonl;
use super::jsonscan::{Scanned, Trouble, begins, goes_on, is_space, key, skip, space};
use super::reading::{LOOK_BYTES, Place, Reading, TEXT_NAMES};
use super::records::{Malformed, Records};
use super::window::{Bytes, Slice, Stream, Window};
use crate::error::Result;
use memchr::memchr;
use std::io::Read;
use std::path::Path;

/// Reads records out of values that stand one after the other: the elements of an array; the texts of a column, which is an array
/// under the name of the text field, or an object as pandas writes it; the elements of every array in an object whose first
/// element has a text, where the object has none; else the object itself. A string is its own text. A file whose first two lines
/// are objects is read as JSON lines. Damage that leaves it open where the next record starts is an error in any case.
///
/// # Errors
///
/// The stream fails; the input is no JSON; a record is malformed, and such are not to be left out or it is long; nothing says
/// where the text is; or `out` gives an error.
pub fn read(input: &mut dyn Read, path: &Path, options: &Reading, out: &mut dyn Records) -> Result<()> {
    let mut window = Window::new(input, path)?;
    window.fill(LOOK_BYTES + 1)?;
    if is_lines(&window.ahead()[..window.ahead().len().min(LOOK_BYTES)]) {
        return jsonl::read_lines(&mut window, path, options, out);
    }
    let place = Place { path, unit: "record", number: 0 };
    let field = options.text_field.as_deref().map(Field::named);
    let mut values = Values { window, place, options, field, taken: Taken::default(), out };
    values.all().map_err(|trouble| match trouble {
        Trouble::Flaw(at, what) | Trouble::Fatal(at, what) => values.place.error(at, &what),
        Trouble::Other(error) => error,
    })
}

/// Whether a line is a whole object and the next line that is not blank starts with one.
fn is_lines(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    let Some(end) = memchr(b'\n', bytes).filter(|_| bytes.first() == Some(&b'{')) else { return false };
    let mut line = Slice::new(&bytes[..end], 0);
    let whole = skip(&mut line).is_ok() && line.rest().iter().all(|byte| is_space(*byte));
    whole && bytes[end..].trim_ascii_start().first() == Some(&b'{')
}

struct Values<'a, 'o> {
    window: Window<'a>,
    place: Place<'a>,
    options: &'a Reading,
    field: Option<Field>,
    taken: Taken<'static>,
    out: &'o mut dyn Records,
}

/// What an object is read as.
enum Shape {
    Record,
    /// Members of these names hold texts; if `records`, arrays of other names may hold records.
    Members {
        names: Vec<String>,
        records: bool,
    },
}

impl<'a> Values<'a, '_> {
    fn stream(&mut self) -> Stream<'_, 'a> {
        Stream::all(&mut self.window)
    }

    fn all(&mut self) -> Scanned<()> {
        loop {
            match space(&mut self.stream())? {
                None => return Ok(()),
                Some(b'[') => self.elements(true)?,
                Some(b'{') => self.object()?,
                Some(_) => self.record(true)?,
            }
        }
    }

    /// Reads an array, or an object whose values stand for themselves; of a column, the elements are texts alone.
    fn elements(&mut self, records: bool) -> Scanned<()> {
        let close = if space(&mut self.stream())? == Some(b'{') { b'}' } else { b']' };
        let mut ignored = Vec::new();
        self.window.pass(1);
        let mut more = begins(&mut self.stream(), close)?;
        while more {
            if close == b'}' {
                key(&mut self.stream(), &mut ignored)?;
            }
            space(&mut self.stream())?;
            self.record(records)?;
            more = goes_on(&mut self.stream(), close)?;
        }
        Ok(())
    }

    fn object(&mut self) -> Scanned<()> {
        self.window.fill(LOOK_BYTES)?;
        let members = members(self.window.ahead());
        let Shape::Members { names, records } = shape(&members, self.options.text_field.as_deref()) else { return self.record(true) };
        let (start, mut name, mut any) = (self.window.offset(), Vec::new(), false);
        self.window.pass(1);
        let mut more = begins(&mut self.stream(), b'}')?;
        while more {
            key(&mut self.stream(), &mut name)?;
            space(&mut self.stream())?;
            self.window.fill(LOOK_BYTES)?;
            let named = names.iter().any(|known| known.as_bytes() == name);
            let mut used = true;
            match kind_of(self.window.ahead()) {
                Kind::Texts | Kind::Numbered if named => self.elements(false)?,
                Kind::Text if named => self.record(false)?,
                Kind::Records if records && self.holds_text()? => self.elements(true)?,
                _ => {
                    used = false;
                    skip(&mut self.stream())?;
                }
            }
            any |= used;
            more = goes_on(&mut self.stream(), b'}')?;
        }
        if any { Ok(()) } else { self.without_text(start, &members) }
    }

    /// An object that was passed, in which no text was found.
    fn without_text(&mut self, start: u64, members: &[(String, Kind)]) -> Scanned<()> {
        self.place.number += 1;
        if self.field.is_none() {
            return Err(Trouble::Fatal(start, no_guess(members)));
        }
        if self.options.malformed == Malformed::Skip {
            return Ok(self.out.refuse(start, self.window.offset())?);
        }
        let name = self.options.text_field.as_deref().unwrap_or("text");
        Err(Trouble::Other(self.place.malformed(start, &format!("there is no {name:?}, and no array of records that have one"))))
    }

    /// Whether the array that comes starts with a record that has a text; a record too long to be looked at is taken to have one.
    fn holds_text(&mut self) -> Scanned<bool> {
        self.window.fill(LOOK_BYTES)?;
        let ahead = &self.window.ahead()[..self.window.ahead().len().min(LOOK_BYTES)];
        let mut input = Slice::new(ahead, 0);
        input.pass(1);
        if space(&mut input)? != Some(b'{') {
            return Ok(false);
        }
        let field = self.field.clone().or_else(|| guess(&members(input.rest())));
        let Some(field) = field else { return Ok(false) };
        self.taken.clear();
        let read = record(&mut input, Some(&field), &mut self.taken);
        Ok(read.is_err() || self.taken.wrong(Some(&field)).is_none())
    }

    /// Reads the record that comes. If it is not to be one of `records`, it is a text.
    fn record(&mut self, records: bool) -> Scanned<()> {
        self.place.number += 1;
        let whole_bytes = self.options.whole_bytes;
        self.window.fill(whole_bytes.max(LOOK_BYTES) + 1)?;
        let (ahead, start) = (self.window.ahead(), self.window.offset());
        let all = self.window.ended() && ahead.len() <= whole_bytes;
        let unknown = records && self.field.is_none() && ahead.first() == Some(&b'{');
        let members = if unknown { members(ahead) } else { Vec::new() };
        let guessed = guess(&members);
        let field = self.field.as_ref().or(guessed.as_ref()).filter(|_| records);
        let mut input = Slice::new(&ahead[..ahead.len().min(whole_bytes)], start);
        self.taken.clear();
        let read = record(&mut input, field, &mut self.taken);
        if !all && input.rest().is_empty() {
            if unknown && guessed.is_none() {
                return Err(Trouble::Fatal(start, no_guess(&members)));
            }
            return self.long_record(records, guessed);
        }
        read?;
        if unknown && guessed.is_none() {
            return Err(Trouble::Fatal(start, no_guess(&members)));
        }
        let end = input.offset();
        match self.taken.wrong(field) {
            None => {
                hand_on(self.out, self.taken.whole(), start, end)?;
                self.field = self.field.take().or(guessed);
            }
            Some(_) if self.options.malformed == Malformed::Skip => self.out.refuse(start, end)?,
            Some(what) => return Err(Trouble::Other(self.place.malformed(start, &what))),
        }
        self.window.pass((end - start) as usize);
        Ok(())
    }

    /// Reads a record longer than what is checked whole.
    fn long_record(&mut self, records: bool, guessed: Option<Field>) -> Scanned<()> {
        let start = self.window.offset();
        let field = self.field.as_ref().or(guessed.as_ref()).filter(|_| records);
        let mut input = Stream::all(&mut self.window);
        let mut taken = Taken::long(self.out, start);
        let read = record(&mut input, field, &mut taken);
        let (end, begun) = (input.offset(), taken.begun());
        read?;
        match taken.wrong(field) {
            None => {
                taken.end_long(end)?;
                self.field = self.field.take().or(guessed);
            }
            Some(_) if !begun && self.options.malformed == Malformed::Skip => self.out.refuse(start, end)?,
            Some(what) if begun => return Err(Trouble::Fatal(start, what)),
            Some(what) => return Err(Trouble::Other(self.place.malformed(start, &what))),
        }
        Ok(())
    }
}

/// What an object that starts with these members is read as. Members that are not yet in sight may hold what is looked for.
fn shape(members: &[(String, Kind)], text_field: Option<&str>) -> Shape {
    let of = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, kind)| *kind);
    let names = text_field.map_or(TEXT_NAMES.to_vec(), |name| vec![name]);
    if text_field.is_none() && guess(members).is_some() {
        return Shape::Record;
    }
    for name in &names {
        match of(name) {
            Some(Kind::Texts | Kind::Numbered) => return Shape::Members { names: vec![(*name).into()], records: false },
            Some(_) if text_field.is_some() => return Shape::Record,
            _ => {}
        }
    }
    let outer = text_field.and_then(|name| name.split_once('.')).map(|(outer, _)| outer);
    if outer.is_some_and(|outer| of(outer).is_some()) {
        return Shape::Record;
    }
    Shape::Members { names: names.into_iter().map(String::from).collect(), records: true }
}

#[cfg(test)]
mod tests {
    use super::super::formats::Format;
    use super::super::reading::tests::{collect, holds_at_every_cut, holds_in_any_pieces, skip, texts};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn field(name: &str) -> Reading {
        Reading { text_field: Some(name.into()), ..Reading::default() }
    }

    #[test]
    fn every_shape_gives_its_texts() {
        for input in [
            r#"[{"text": "a"}, {"n": 1, "text": "b"}]"#,
            r#"["a", "b"]"#,
            r#"{"id": [1, 2], "text": ["a", "b"]}"#,
            r#"{"text": {"0": "a", "1": "b"}, "id": {"0": 1, "1": 2}}"#,
            r#"{"version": "1", "tags": [{"name": "x"}], "data": [{"text": "a"}, {"text": "b"}], "n": [1]}"#,
            "{\"text\": \"a\"}\n{\"text\": \"b\"}\n",
            "{\"text\": \"a\"} {\"text\":\n\"b\"}",
            "[{\"text\": \"a\"}]\n[{\"text\": \"b\"}]",
            "\"a\"\n\"b\"",
        ] {
            assert_eq!(texts(Format::Json, input.as_bytes(), &Reading::default()), ["a", "b"], "{input}");
        }
        assert_eq!(texts(Format::Json, b" \n[ ]\n", &Reading::default()), Vec::<String>::new());
        assert_eq!(texts(Format::Json, br#"{"tags": [{"name": "x"}], "text": "a"}"#, &Reading::default()), ["a"]);
    }

    #[test]
    fn a_given_field_is_looked_for_in_every_shape() {
        for input in [
            r#"{"a": ["x", "y"], "text": ["1", "2"]}"#,
            r#"{"rows": [{"a": "x"}, {"a": "y"}], "text": "1"}"#,
            r#"[{"a": "x", "text": "1"}, {"a": "y"}]"#,
        ] {
            assert_eq!(texts(Format::Json, input.as_bytes(), &field("a")), ["x", "y"], "{input}");
        }
        assert_eq!(texts(Format::Json, br#"{"a": {"b": "x"}, "c": [{"b": "y"}]}"#, &field("a.b")), ["x"]);
    }

    #[test]
    fn what_cannot_be_used_is_named_or_left_out() {
        for (input, texts, what) in [
            (
                r#"[{"text": "a"}, {"text": 1}, null, {"text": "b"}]"#,
                vec!["a", "b"],
                "record 2 (byte 16): \"text\" is a number, not a text",
            ),
            (r#"{"text": ["a", null, {"text": "x"}, "b"]}"#, vec!["a", "b"], "record 2 (byte 15): null, not a text"),
            (
                "{\"text\": \"a\"}\n{\"text\" \"b\"}\n{\"text\": \"b\"}",
                vec!["a", "b"],
                "line 2 (byte 22): `\"` stands where `:` should follow",
            ),
        ] {
            let (_, error) = collect(Format::Json, input.as_bytes(), &Reading::default());
            assert!(error.as_ref().is_some_and(|error| error.contains(what)), "{error:?}");
            let (out, error) = collect(Format::Json, input.as_bytes(), &skip());
            assert_eq!((out.texts(), error), (texts.into_iter().map(String::from).collect(), None), "{input}");
        }
    }

    #[test]
    fn damage_between_records_ends_the_reading() {
        for input in [r#"[{"text": "a"} {"text": "b"}]"#, r#"[{"text": "a"}, {"text" "b"}]"#, r#"[{"text": "a"},]"#, r#"{"text": ["a""#] {
            let (out, error) = collect(Format::Json, input.as_bytes(), &skip());
            assert_eq!((out.texts(), out.refused()), (vec!["a".into()], 0));
            assert!(error.unwrap().contains("should follow"));
        }
    }

    #[test]
    fn an_object_without_a_text_is_named() {
        let input = br#"{"title": "x", "data": [{"title": "a"}]}"#;
        let (_, error) = collect(Format::Json, input, &skip());
        assert!(error.unwrap().contains("record 1 (byte 0): no text under text, content, body, messages, or prompt and completion"));
        let (_, error) = collect(Format::Json, input, &field("text"));
        assert!(error.unwrap().contains("record 1 (byte 0): there is no \"text\", and no array of records that have one; mend it"));
        let (out, error) =
            collect(Format::Json, &[&input[..], b"\"a\""].concat(), &Reading { malformed: Malformed::Skip, ..field("text") });
        assert_eq!((out.texts(), out.refused(), error), (vec!["a".into()], 1, None));
    }

    #[test]
    fn texts_may_come_after_much_else() {
        let numbers = format!("[{}1]", "1,".repeat(1 << 20));
        for end in [r#""text": ["a", "b"]}"#, r#""text": {"0": "a", "1": "b"}}"#, r#""data": [{"text": "a"}, {"text": "b"}]}"#] {
            for options in [Reading::default(), field("text")] {
                assert_eq!(texts(Format::Json, format!("{{\"id\": {numbers}, {end}").as_bytes(), &options), ["a", "b"], "{end}");
            }
        }
        assert_eq!(texts(Format::Json, format!("{{\"id\": {numbers}, \"body\": \"a\"}}").as_bytes(), &Reading::default()), ["a"]);
    }

    #[test]
    fn every_cut_of_an_array_is_an_error() {
        for input in
            [r#"[{"text": "a"}, "b", {"text": "\u00e9"}]"#, r#"{"n": [1], "text": ["a", "b"]}"#, r#"{"d": [{"text": "a"}, {"text": "b"}]}"#]
        {
            for whole_bytes in [0, 1 << 20] {
                holds_at_every_cut(Format::Json, input.as_bytes(), &Reading { whole_bytes, ..field("text") }, false);
            }
        }
    }

    #[test]
    fn a_long_array_is_read_record_by_record() {
        let texts: Vec<String> = (0..30_000).map(|n| format!("text {n} ").repeat(20)).collect();
        let long = "long ".repeat(1 << 20);
        let records: Vec<Value> = texts.iter().map(|text| json!({"text": text})).chain([json!({"x": [1], "text": long})]).collect();
        let (out, error) = collect(Format::Json, Value::from(records).to_string().as_bytes(), &Reading::default());
        assert_eq!((out.found.len(), error), (30_001, None));
        assert!(out.texts()[..30_000] == texts && out.texts()[30_000] == long);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn every_shape_is_what_serde_json_reads(
            texts in prop::collection::vec(prop::option::weighted(0.9, any::<String>()), 1..6),
            shape in 0..6,
            pretty in any::<bool>(),
            whole_bytes in prop::sample::select(vec![0usize, 1, 20, 1 << 20]),
            pieces in prop::collection::vec(1usize..50, 1..4),
        ) {
            let records: Vec<Value> = texts.iter().map(|text| json!({"id": [1, {"text": "no"}], "text": text})).collect();
            let first = texts[0].is_some();
            let written = |value: &Value| if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap();
            let input = match shape {
                0 => written(&json!(records)),
                1 if first => written(&json!({"a": [1, 2], "text": texts, "z": null})),
                2 if first => written(&json!({"a": [{"b": "c"}], "data": records, "z": "text"})),
                3 => records.iter().map(&written).collect::<Vec<_>>().join("\n"),
                4 => written(&json!(texts)),
                _ => records.iter().map(&written).collect::<Vec<_>>().concat(),
            };
            let options = Reading { whole_bytes, malformed: Malformed::Skip, ..field("text") };
            holds_in_any_pieces(Format::Json, input.as_bytes(), &options, &pieces)?;
            let (out, error) = collect(Format::Json, input.as_bytes(), &options);
            prop_assert_eq!(error, None);
            let found: Vec<Option<String>> =
                out.found.iter().map(|(text, ..)| text.clone().map(|text| String::from_utf8(text).unwrap())).collect();
            let expected: Vec<Option<String>> = texts.into_iter().filter(|text| text.as_deref() != Some("")).collect();
            prop_assert_eq!(found, expected);
            for (text, start, end) in out.found {
                let value: Value = serde_json::from_str(&input[start as usize..end as usize]).unwrap();
                let text = text.map(|text| Value::from(String::from_utf8(text).unwrap()));
                prop_assert!([&value, value.get("text").unwrap_or(&Value::Null)].contains(&&text.unwrap_or(Value::Null)));
            }
        }
    }
}
