//! How inputs are read: the formats, and the options of their readers.

use super::formats::Format;
use super::records::{Malformed, Records};
use super::{csv, json, jsonl, plain, warc};
use crate::error::{Error, Result};
use std::io::Read;
use std::path::Path;

/// The start of an input that may be looked at before a choice is made.
pub(crate) const LOOK_BYTES: usize = 1 << 20;
/// Names under which a record's text is looked for, in this order.
pub(crate) const TEXT_NAMES: [&str; 3] = ["text", "content", "body"];

/// What a document is in a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Documents {
    /// The file, or each part of it between lines that are the separator.
    File,
    /// Each line, without its end.
    Line,
    /// Each run of lines between blank ones, without the last line's end. Only ASCII white space makes a line blank.
    Blank,
}

impl Documents {
    /// Every kind, by name.
    pub const NAMES: [(&'static str, Documents); 3] = [("file", Documents::File), ("line", Documents::Line), ("blank", Documents::Blank)];
}

/// How inputs are read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What a document is in a text file.
    pub documents: Documents,
    /// The line that ends a document of a text file.
    pub separator: String,
    /// Where the text of a record is: a path such as `data.text` or `messages.0.content` in JSON, a column's name or its number
    /// from 0 in CSV; `None` looks for it.
    pub text_field: Option<String>,
    /// Whether a CSV file's first row names the columns; `None` looks.
    pub header: Option<bool>,
    /// What stands between the fields of a CSV file; `None` looks.
    pub delimiter: Option<u8>,
    /// What becomes of a record that cannot be used.
    pub malformed: Malformed,
    /// Records up to this many bytes of input are checked whole before they are handed on; in a longer one damage is an error
    /// even if malformed records are left out.
    pub whole_bytes: usize,
}

impl Default for Reading {
    fn default() -> Self {
        Reading {
            documents: Documents::File,
            separator: "<|endoftext|>".into(),
            text_field: None,
            header: None,
            delimiter: None,
            malformed: Malformed::Error,
            whole_bytes: 1 << 20,
        }
    }
}

impl Format {
    /// Reads an unpacked input to its end.
    ///
    /// # Errors
    ///
    /// The stream fails, the input is damaged, an option does not fit it, or `out` gives an error.
    pub fn read(self, input: &mut dyn Read, path: &Path, options: &Reading, out: &mut dyn Records) -> Result<()> {
        match self {
            Format::Text => plain::read(input, path, options, out),
            Format::Jsonl => jsonl::read(input, path, options, out),
            Format::Json => json::read(input, path, options, out),
            Format::Csv => csv::read(input, path, options, out),
            Format::Tsv => csv::read(input, path, &Reading { delimiter: options.delimiter.or(Some(b'\t')), ..options.clone() }, out),
            Format::Warc => warc::read(input, path, options, out),
            Format::Parquet | Format::Tar | Format::Zip => {
                Err(Error::Invalid(format!("{}: {} is read from files alone", path.display(), self.name())))
            }
        }
    }
}

/// Where a reader is: what it calls its records, and the number of the present one.
pub(crate) struct Place<'a> {
    pub path: &'a Path,
    pub unit: &'static str,
    pub number: u64,
}

impl Place<'_> {
    /// A record that cannot be used, where the caller may say that it be left out.
    pub fn malformed(&self, offset: u64, what: &str) -> Error {
        self.error(offset, &format!("{what}; mend it, or leave such records out with --malformed skip"))
    }

    /// Damage that ends the reading whatever the caller says.
    pub fn error(&self, offset: u64, what: &str) -> Error {
        Error::Format(format!("{}: {} {} (byte {offset}): {what}", self.path.display(), self.unit, self.number))
    }
}

/// Hands on the last of a record's text, which stands at `offset`: all of it if the record has not begun, and nothing if it is empty.
pub(crate) fn finish(out: &mut dyn Records, begun: bool, text: &[u8], offset: u64) -> Result<()> {
    let end = offset + text.len() as u64;
    match (begun, text.is_empty()) {
        (false, true) => Ok(()),
        (false, false) => out.whole(text, offset, end),
        (true, true) => out.end(end),
        (true, false) => {
            out.text(text)?;
            out.end(end)
        }
    }
}

/// Hands on more of a record's text.
pub(crate) fn go_on(out: &mut dyn Records, begun: &mut bool, text: &[u8], start: u64) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    if !*begun {
        out.begin(start)?;
        *begun = true;
    }
    out.text(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A text with its first and last byte in the input; no text where a record was refused.
    pub type Found = (Option<Vec<u8>>, u64, u64);

    /// What was handed on.
    #[derive(Debug, Default, PartialEq)]
    pub struct Collected {
        pub found: Vec<Found>,
        open: Option<(Vec<u8>, u64)>,
    }

    impl Records for Collected {
        fn begin(&mut self, offset: u64) -> Result<()> {
            assert!(self.open.is_none());
            self.open = Some((Vec::new(), offset));
            Ok(())
        }

        fn text(&mut self, bytes: &[u8]) -> Result<()> {
            self.open.as_mut().unwrap().0.extend_from_slice(bytes);
            Ok(())
        }

        fn end(&mut self, offset: u64) -> Result<()> {
            let (text, start) = self.open.take().unwrap();
            assert!(!text.is_empty() && start < offset);
            self.found.push((Some(text), start, offset));
            Ok(())
        }

        fn refuse(&mut self, offset: u64, end: u64) -> Result<()> {
            assert!(self.open.is_none() && offset <= end);
            self.found.push((None, offset, end));
            Ok(())
        }
    }

    impl Collected {
        pub fn texts(&self) -> Vec<String> {
            self.found.iter().flat_map(|(text, ..)| text).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
        }

        pub fn refused(&self) -> usize {
            self.found.iter().filter(|(text, ..)| text.is_none()).count()
        }
    }

    /// Bytes that come in pieces of these lengths, again and again.
    pub struct Trickle<'a>(pub &'a [u8], pub &'a [usize], pub usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.1[self.2 % self.1.len()].min(buffer.len()).min(self.0.len());
            self.2 += 1;
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    /// What is read of these bytes, and how it ended.
    pub fn collect(format: Format, bytes: &[u8], options: &Reading) -> (Collected, Option<String>) {
        collect_named(format, "a.x", bytes, options)
    }

    pub fn collect_named(format: Format, name: &str, bytes: &[u8], options: &Reading) -> (Collected, Option<String>) {
        let mut out = Collected::default();
        let result = format.read(&mut &*bytes, Path::new(name), options, &mut out);
        assert!(out.open.is_none() || result.is_err());
        (out, result.err().map(|error| error.to_string()))
    }

    /// The texts of an input that is as it should be.
    pub fn texts(format: Format, bytes: &[u8], options: &Reading) -> Vec<String> {
        let (out, error) = collect(format, bytes, options);
        assert_eq!((error, out.refused()), (None, 0));
        out.texts()
    }

    pub fn skip() -> Reading {
        Reading { malformed: Malformed::Skip, ..Reading::default() }
    }

    /// That the pieces in which a stream comes change nothing, and that records lie in the input one after the other.
    pub fn holds_in_any_pieces(
        format: Format,
        bytes: &[u8],
        options: &Reading,
        pieces: &[usize],
    ) -> std::result::Result<(), TestCaseError> {
        let whole = collect(format, bytes, options);
        let mut out = Collected::default();
        let result = format.read(&mut Trickle(bytes, pieces, 0), Path::new("a.x"), options, &mut out);
        prop_assert_eq!(&(out, result.err().map(|error| error.to_string())), &whole);
        for (text, start, end) in &whole.0.found {
            prop_assert!(*end <= bytes.len() as u64 && (text.is_none() || start < end));
        }
        prop_assert!(whole.0.found.windows(2).all(|pair| pair[0].2 <= pair[1].1));
        Ok(())
    }

    /// That every cut of an input gives a prefix of its records, of which the last may be `shortened`, or an error besides.
    pub fn holds_at_every_cut(format: Format, bytes: &[u8], options: &Reading, shortened: bool) {
        let whole = collect(format, bytes, options).0.found;
        for n in 0..bytes.len() {
            let (mut cut, error) = collect(format, &bytes[..n], options);
            if let Some((Some(text), start, _)) = cut.found.last().filter(|_| shortened) {
                let of_whole = &whole[cut.found.len() - 1];
                assert!(of_whole.1 == *start && of_whole.0.as_ref().unwrap().starts_with(text), "cut at {n}");
                cut.found.pop();
            }
            assert!(whole.starts_with(&cut.found), "cut at {n}: {error:?}");
            assert!(shortened && error.is_none() || error.is_none_or(|error| !error.contains('\n')), "cut at {n}");
        }
    }

    /// A sample file of the shared data, if it is there.
    pub fn sample(name: &str) -> Option<Vec<u8>> {
        let folder = std::env::var("TINYGPT_SAMPLES").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data").into());
        let bytes = std::fs::read(Path::new(&folder).join(name)).ok();
        if bytes.is_none() {
            eprintln!("skipped: no sample {name} (TINYGPT_SAMPLES names their folder)");
        }
        bytes
    }

    /// SHA-256 of the texts joined by a zero byte.
    pub fn hash(texts: &[String]) -> String {
        use sha2::Digest;
        sha2::Sha256::digest(texts.join("\0")).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_stream_that_fails_is_named() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("torn"))
            }
        }
        let error = Format::Text.read(&mut Failing, Path::new("a.txt"), &Reading::default(), &mut Collected::default());
        assert_eq!(error.unwrap_err().to_string(), "a.txt: torn");
    }
}
