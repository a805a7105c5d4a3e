//! Rows of fields (RFC 4180): one column holds the texts.

use super::csvlayout::Layout;
use super::reading::{LOOK_BYTES, Place, Reading, go_on};
use super::records::{Malformed, Records};
use super::window::{Bytes, Slice, Stream, Window};
use crate::error::Result;
use memchr::{memchr, memchr3};
use std::io::Read;
use std::path::Path;

/// Reads a text from each row; blank lines are no rows. A quote that does not start its field is an ordinary character, and what
/// follows a closing quote belongs to the field, as in Python. A row of another number of fields than the first is malformed, and
/// so is one whose quotes are not closed before the input ends.
///
/// # Errors
///
/// The stream fails; nothing says which column to read; a row is malformed, and such are not to be left out or some of its text
/// was handed on; or `out` gives an error.
pub fn read(input: &mut dyn Read, path: &Path, options: &Reading, out: &mut dyn Records) -> Result<()> {
    let mut window = Window::new(input, path)?;
    window.fill(LOOK_BYTES + 1)?;
    let look = window.ahead().len().min(LOOK_BYTES);
    let complete = window.ended() && window.ahead().len() == look;
    let Some(layout) = Layout::of(&window.ahead()[..look], complete, path, options)? else { return Ok(()) };
    let place = Place { path, unit: "row", number: 0 };
    let mut rows = Rows { layout, place, options, text: Vec::new() };
    loop {
        window.fill(options.whole_bytes + 1)?;
        match window.ahead().first() {
            None => return Ok(()),
            Some(b'\r' | b'\n') => window.pass(1),
            Some(_) => rows.row(&mut window, out)?,
        }
    }
}

struct Rows<'a> {
    layout: Layout,
    place: Place<'a>,
    options: &'a Reading,
    text: Vec<u8>,
}

impl Rows<'_> {
    fn row(&mut self, window: &mut Window, out: &mut dyn Records) -> Result<()> {
        self.place.number += 1;
        let wanted = if self.layout.header && self.place.number == 1 { None } else { Some(self.layout.column) };
        let (ahead, start) = (window.ahead(), window.offset());
        let part = &ahead[..ahead.len().min(self.options.whole_bytes)];
        let all = window.ended() && part.len() == ahead.len();
        let mut input = Slice::new(part, start);
        self.text.clear();
        let row = row(&mut input, self.layout.delimiter, wanted, &mut |bytes| {
            self.text.extend_from_slice(bytes);
            Ok(())
        })?;
        if !all && row.by != End::Row {
            return self.long_row(window, wanted, out);
        }
        match self.wrong(&row) {
            None if self.text.is_empty() => {}
            None => out.whole(&self.text, start, row.end)?,
            Some(_) if self.options.malformed == Malformed::Skip => out.refuse(start, row.end)?,
            Some(what) => return Err(self.place.malformed(start, &what)),
        }
        window.pass(part.len() - input.rest().len());
        Ok(())
    }

    /// A row longer than what is checked whole.
    fn long_row(&mut self, window: &mut Window, wanted: Option<usize>, out: &mut dyn Records) -> Result<()> {
        let start = window.offset();
        let (mut input, mut begun) = (Stream::all(window), false);
        let row = row(&mut input, self.layout.delimiter, wanted, &mut |bytes| go_on(out, &mut begun, bytes, start))?;
        match self.wrong(&row) {
            None if begun => out.end(row.end),
            None => Ok(()),
            Some(what) if begun => Err(self.place.error(start, &what)),
            Some(_) if self.options.malformed == Malformed::Skip => out.refuse(start, row.end),
            Some(what) => Err(self.place.malformed(start, &what)),
        }
    }

    fn wrong(&self, row: &Row) -> Option<String> {
        if row.by == End::Unclosed {
            return Some("a quoted field is not closed before the input ends".into());
        }
        let expected = self.layout.fields;
        (row.fields != expected).then(|| format!("{} fields where the first row has {expected}", row.fields))
    }
}

/// What ended a field.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    Field,
    Row,
    /// The input, in a field without quotes.
    Input,
    /// The input, within quotes.
    Unclosed,
}

/// A row that was passed.
pub(crate) struct Row {
    pub fields: usize,
    /// Where it ended, its line end not counted.
    pub end: u64,
    pub by: End,
}

/// Passes a row; the text of the wanted field goes to `take`.
fn row(input: &mut impl Bytes, delimiter: u8, wanted: Option<usize>, take: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<Row> {
    let mut fields = 0;
    loop {
        let by = if wanted == Some(fields) { field(input, delimiter, take)? } else { field(input, delimiter, &mut |_| Ok(()))? };
        fields += 1;
        if by != End::Field {
            return Ok(Row { fields, end: input.offset() - u64::from(by == End::Row), by });
        }
    }
}

/// Passes a field and the byte that ends it; its text goes to `take`.
pub(crate) fn field(input: &mut impl Bytes, delimiter: u8, take: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<End> {
    let mut quoted = input.peek()? == Some(b'"');
    if quoted {
        input.pass(1);
    }
    while quoted {
        let ahead = input.ahead()?;
        let length = ahead.len();
        let Some(i) = memchr(b'"', ahead) else {
            if length == 0 {
                return Ok(End::Unclosed);
            }
            take(ahead)?;
            input.pass(length);
            continue;
        };
        take(&ahead[..i])?;
        input.pass(i + 1);
        quoted = input.peek()? == Some(b'"');
        if quoted {
            take(b"\"")?;
            input.pass(1);
        }
    }
    loop {
        let ahead = input.ahead()?;
        let length = ahead.len();
        if length == 0 {
            return Ok(End::Input);
        }
        let stop = memchr3(delimiter, b'\n', b'\r', ahead);
        let n = stop.unwrap_or(length);
        if n > 0 {
            take(&ahead[..n])?;
        }
        if let Some(i) = stop {
            let end = if ahead[i] == delimiter { End::Field } else { End::Row };
            input.pass(i + 1);
            return Ok(end);
        }
        input.pass(length);
    }
}

#[cfg(test)]
mod tests {
    use super::super::formats::Format;
    use super::super::reading::tests::{collect, collect_named, hash, holds_at_every_cut, holds_in_any_pieces, sample, skip, texts};
    use super::*;
    use proptest::prelude::*;

    fn column(name: &str) -> Reading {
        Reading { text_field: Some(name.into()), ..Reading::default() }
    }

    #[test]
    fn quotes_hold_delimiters_line_ends_and_quotes() {
        let input = b"\xef\xbb\xbfid,text\r\n1,\"a,\"\"b\"\"\r\nc\"\r\n\r\n2,d \"e\" \n3,\r4,\"f\"g\"";
        assert_eq!(texts(Format::Csv, input, &column("text")), ["a,\"b\"\r\nc", "d \"e\" ", "fg\""]);
    }

    #[test]
    fn columns_and_headers_are_told_or_seen() {
        let no_header = Reading { header: Some(false), ..Reading::default() };
        let header = |name: &str| Reading { header: Some(true), ..column(name) };
        for (input, options, expected) in [
            ("n,Text,b\n1,x,long long\n", Reading::default(), vec!["x"]),
            ("n,b,c\n1,long long,x\n", Reading::default(), vec!["long long"]),
            ("1,long long,x\n", no_header.clone(), vec!["long long"]),
            ("a;b\n1,5;x,y\n2,5;z\n", column("b"), vec!["x,y", "z"]),
            ("a|b\n1|x\n", column("b"), vec!["x"]),
            ("text\nx y\nz\n", Reading::default(), vec!["x y", "z"]),
            ("x\ty\n", column("1"), vec!["y"]),
            ("x\ttext\nz\ty\n", column("1"), vec!["y"]),
            ("x,y\nz,w\n", header("0"), vec!["z"]),
            ("a:b\nx:y\n", Reading { delimiter: Some(b':'), ..column("b") }, vec!["y"]),
            ("", Reading::default(), vec![]),
            ("\r\n", Reading::default(), vec![]),
            ("text", Reading::default(), vec![]),
        ] {
            assert_eq!(texts(Format::Csv, input.as_bytes(), &options), expected, "{input:?}");
        }
        let (out, _) = collect_named(Format::Csv, "a.TSV.gz", b"text\tb,c\nx,y\tz\n", &Reading::default());
        assert_eq!(out.texts(), ["x,y"]);
    }

    #[test]
    fn a_missing_column_is_named() {
        for (options, what) in [
            (column("x"), r#"a.x: no column "x"; columns are "a", "b"; name one, or give its number from 0, with --text-field"#),
            (column("2"), r#"a.x: no column "2"; 2 columns without names; name one, or give its number from 0, with --text-field"#),
            (Reading { delimiter: Some(b'\n'), ..Reading::default() }, r"delimiter must not be a quote or a line end, got '\n'"),
        ] {
            assert_eq!(collect(Format::Csv, b"a,b\nc,d\n", &options).1.unwrap(), what);
        }
    }

    #[test]
    fn rows_of_another_length_are_named_or_left_out() {
        let input = b"id,text\n1,a\n2\n3,b,c\n4,d\n5,\"e\n";
        let (_, error) = collect(Format::Csv, input, &Reading::default());
        let expected = "a.x: row 3 (byte 12): 1 fields where the first row has 2; mend it, or leave such records out with --malformed skip";
        assert_eq!(error.unwrap(), expected);
        let (out, error) = collect(Format::Csv, input, &skip());
        assert_eq!((out.texts(), out.refused(), error), (vec!["a".into(), "d".into()], 3, None));
        let (_, error) = collect(Format::Csv, b"text\n\"x", &Reading::default());
        assert!(error.unwrap().starts_with("a.x: row 2 (byte 5): a quoted field is not closed before the input ends"));
    }

    #[test]
    fn a_field_of_many_megabytes_is_handed_on_in_chunks() {
        let text = "a \"quote\", and\n".repeat(200_000);
        let input = format!("id,text\n{},\"{}\"\n2,b\n", "1".repeat(2 << 20), text.replace('"', "\"\""));
        let (out, error) = collect(Format::Csv, input.as_bytes(), &Reading::default());
        assert!(out.texts() == [text, "b".into()] && error.is_none());
        assert_eq!((out.found[0].1, out.found[0].2), (8, input.len() as u64 - 5));
        let (_, error) = collect(Format::Csv, &input.as_bytes()[..input.len() - 6], &skip());
        assert!(error.unwrap().ends_with("row 2 (byte 8): a quoted field is not closed before the input ends"));
    }

    #[test]
    fn the_sample_gives_what_python_reads() {
        let Some(bytes) = sample("csv/sms_a.csv") else { return };
        for options in [column("masseges"), Reading::default()] {
            let found = texts(Format::Csv, &bytes, &options);
            assert_eq!((found.len(), &*hash(&found)), (2786, "e78da15482461f7052500ac3f0c585f91ccac9696c3d0283cc0bb9183e792603"));
        }
    }

    #[test]
    fn a_cut_file_gives_whole_rows_and_the_start_of_one() {
        let input = "id,text\n1,\"a\nb\"\r\n\n2,字\n3,\"\"\"c\"\"\"\n";
        for whole_bytes in [1, 1 << 20] {
            let options = Reading { whole_bytes, header: Some(true), delimiter: Some(b','), ..column("1") };
            holds_at_every_cut(Format::Csv, input.as_bytes(), &options, true);
        }
    }

    fn rows_of_library(bytes: &[u8]) -> Vec<csv::ByteRecord> {
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).flexible(true).from_reader(bytes).byte_records().map(std::result::Result::unwrap).collect()
    }

    /// By the library that owns the format; rows of which the quotes are not closed, which it hands on, are told by what a further
    /// line end does.
    fn rows_slowly(bytes: &[u8], column: usize) -> Vec<Option<Vec<u8>>> {
        let rows = rows_of_library(bytes);
        let longer = rows_of_library(&[bytes, b"\n"].concat());
        let fields = rows.first().map_or(0, csv::ByteRecord::len);
        let texts =
            rows.iter().zip(&longer).map(|(row, longer)| (row.len() == fields && row == longer).then(|| row.get(column).unwrap().to_vec()));
        texts.filter(|text| text.as_deref() != Some(b"")).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn rows_are_those_of_the_csv_crate(
            tokens in prop::collection::vec(prop::sample::select(vec![
                "a", "b ", "字", ",", ",", "\"", "\"\"", "\n", "\r\n", "\r", ";", "\",\"", "\"\n\"", ",x\n", "y,",
            ]), 0..40),
            column in 0usize..3,
            whole_bytes in prop::sample::select(vec![0usize, 1, 9]),
            pieces in prop::collection::vec(1usize..20, 1..4),
        ) {
            let input = tokens.concat().into_bytes();
            let options = Reading {
                text_field: Some(column.to_string()), header: Some(false), delimiter: Some(b','), ..skip()
            };
            let fields = rows_of_library(&input).first().map_or(0, csv::ByteRecord::len);
            let (out, error) = collect(Format::Csv, &input, &options);
            prop_assert_eq!(error.is_some(), fields > 0 && column >= fields);
            if error.is_some() {
                return Ok(());
            }
            let found: Vec<Option<Vec<u8>>> = out.found.iter().map(|(text, ..)| text.clone()).collect();
            prop_assert_eq!(found, rows_slowly(&input, column));
            for (text, start, end) in &out.found {
                let row = rows_of_library(&input[*start as usize..*end as usize]);
                prop_assert_eq!(row.len(), 1);
                prop_assert!(text.is_none() || row[0].get(column) == text.as_deref());
            }
            let streamed = Reading { whole_bytes, ..options };
            holds_in_any_pieces(Format::Csv, &input, &streamed, &pieces)?;
            let (long, error) = collect(Format::Csv, &input, &streamed);
            prop_assert!(out.found.starts_with(&long.found) && (error.is_some() || long == out));
        }
    }
}
