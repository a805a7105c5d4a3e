//! From the raw bytes of a block to clean text, and what is known of it in the end.

use crate::clean::{Rule, clean_counted};
use crate::error::{Error, Result};
use crate::sources::{Amount, Block, LeftOut, Part};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How raw bytes become text.
#[derive(Clone)]
pub struct Cleaning {
    /// Rules, applied in order.
    pub rules: Vec<Rule>,
    /// Whether bytes that are not UTF-8 are an error; else each sequence becomes U+FFFD and is counted.
    pub strict: bool,
    /// Names of the inputs, for messages.
    pub names: Vec<PathBuf>,
}

/// What a pass saw of an input: bytes read are those used, those that rules and the repair of damage took away, and those of
/// documents and records that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// Documents handed on.
    pub documents: u64,
    /// Bytes of text read.
    pub bytes_read: u64,
    /// Bytes of the documents handed on, after cleaning.
    pub bytes_used: u64,
    /// Bytes that each rule took away; less than none where it made text longer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cleaned: Vec<i64>,
    /// Bytes of the licences of Project Gutenberg.
    #[serde(skip_serializing_if = "is_nothing")]
    pub stripped_bytes: u64,
    /// Sequences that were not UTF-8 and became U+FFFD.
    #[serde(skip_serializing_if = "is_nothing")]
    pub invalid_sequences: u64,
    /// What that took away; less than none where the text became longer.
    #[serde(skip_serializing_if = "is_nothing")]
    pub repaired_bytes: i64,
    /// Byte of the input at which the first of them stands.
    #[serde(skip_serializing_if = "is_nothing")]
    pub first_invalid: Option<u64>,
    /// Documents that were judged and removed.
    #[serde(skip_serializing_if = "is_nothing")]
    pub removed: Amount,
    /// Records that could not be used.
    #[serde(skip_serializing_if = "is_nothing")]
    pub refused: Amount,
}

fn is_nothing<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a pass over a corpus saw of each input, by its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reports(pub BTreeMap<u64, Report>);

impl Reports {
    /// Adds what another thread or block saw.
    pub fn add(&mut self, other: &Reports) {
        for (file, report) in &other.0 {
            self.0.entry(*file).or_default().add(report);
        }
    }

    /// What was seen of all inputs.
    #[must_use]
    pub fn total(&self) -> Report {
        let mut total = Report::default();
        self.0.values().for_each(|report| total.add(report));
        Report { first_invalid: None, ..total }
    }

    /// Input and byte of the first sequence that was not UTF-8.
    #[must_use]
    pub fn first_invalid(&self) -> Option<(u64, u64)> {
        self.0.iter().find_map(|(file, report)| report.first_invalid.map(|offset| (*file, offset)))
    }

    /// The report of an input, with a place for each of so many rules.
    fn of(&mut self, file: u64, n_rules: usize) -> &mut Report {
        self.0.entry(file).or_insert_with(|| Report { cleaned: vec![0; n_rules], ..Report::default() })
    }
}

impl Report {
    /// Adds what another thread or block saw.
    pub fn add(&mut self, other: &Report) {
        self.documents += other.documents;
        self.bytes_read += other.bytes_read;
        self.bytes_used += other.bytes_used;
        self.cleaned.resize(self.cleaned.len().max(other.cleaned.len()), 0);
        self.cleaned.iter_mut().zip(&other.cleaned).for_each(|(sum, bytes)| *sum += bytes);
        self.stripped_bytes += other.stripped_bytes;
        self.invalid_sequences += other.invalid_sequences;
        self.repaired_bytes += other.repaired_bytes;
        self.first_invalid = [self.first_invalid, other.first_invalid].into_iter().flatten().min();
        self.removed = self.removed.plus(other.removed);
        self.refused = self.refused.plus(other.refused);
    }

    /// Whether every byte read is accounted for.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let taken: i128 = self.cleaned.iter().chain([&self.repaired_bytes]).map(|bytes| i128::from(*bytes)).sum();
        let left_out: i128 = [self.stripped_bytes, self.removed.bytes, self.refused.bytes].map(i128::from).iter().sum();
        i128::from(self.bytes_read) == i128::from(self.bytes_used) + taken + left_out
    }
}

impl Cleaning {
    /// Text as it is, damaged sequences replaced.
    #[must_use]
    pub fn none() -> Self {
        Cleaning { rules: Vec::new(), strict: false, names: Vec::new() }
    }

    /// Calls `each` with the clean text of every part of a block.
    ///
    /// # Errors
    ///
    /// Bytes that are not UTF-8, if those are an error; or what `each` returns.
    pub fn for_each_part(&self, block: &Block, mut each: impl FnMut(&str, &Part) -> Result<()>) -> Result<Reports> {
        let mut reports = Reports::default();
        for LeftOut { file, removed, refused, stripped_bytes } in &block.left_out {
            let report = reports.of(*file, self.rules.len());
            report.bytes_read += stripped_bytes + removed.bytes + refused.bytes;
            report.stripped_bytes += stripped_bytes;
            (report.removed, report.refused) = (report.removed.plus(*removed), report.refused.plus(*refused));
        }
        let mut from = 0;
        for part in &block.parts {
            let raw = &block.text[from..part.end];
            from = part.end;
            let report = reports.of(part.file, self.rules.len());
            report.bytes_read += raw.len() as u64;
            let text = self.decoded(raw, part, report)?;
            let clean = clean_counted(&self.rules, &text, part.starts, &mut report.cleaned);
            report.documents += u64::from(part.ends);
            report.bytes_used += clean.len() as u64;
            each(&clean, part)?;
        }
        Ok(reports)
    }

    /// The text of a part, repaired where it must be.
    fn decoded<'a>(&self, raw: &'a [u8], part: &Part, report: &mut Report) -> Result<Cow<'a, str>> {
        // Not the lossy form at once: it is several times slower on text that is sound.
        let at = match std::str::from_utf8(raw) {
            Ok(text) => return Ok(Cow::Borrowed(text)),
            Err(error) => error.valid_up_to(),
        };
        let offset = part.start + part.offset + at as u64;
        if self.strict {
            let name =
                self.names.get(part.file as usize).map_or_else(|| format!("text {}", part.ordinal), |path| path.display().to_string());
            let byte = raw[at];
            let message =
                format!("{name}: byte 0x{byte:02x} at offset {offset} is not UTF-8; convert the file, or let such bytes be replaced");
            return Err(Error::Invalid(message));
        }
        let text = String::from_utf8_lossy(raw);
        report.invalid_sequences += raw.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count() as u64;
        report.repaired_bytes += raw.len() as i64 - text.len() as i64;
        report.first_invalid = Some(report.first_invalid.map_or(offset, |first| first.min(offset)));
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Side;

    #[test]
    fn bytes_that_are_not_utf8_are_counted_or_refused_by_place() {
        let part = Part { end: 7, side: Side::Train, starts: true, ends: true, file: 0, ordinal: 0, offset: 0, start: 100, stop: 107 };
        let left_out = vec![LeftOut { file: 3, stripped_bytes: 5, ..LeftOut::default() }];
        let block = Block { text: b"ab\xffcd\xff\xff".to_vec(), parts: vec![part], left_out, ..Block::default() };
        let reports = Cleaning::none().for_each_part(&block, |_, _| Ok(())).unwrap();
        let report = reports.total();
        assert_eq!((report.documents, report.bytes_read, report.bytes_used, report.invalid_sequences), (1, 12, 13, 3));
        assert_eq!((reports.first_invalid(), report.adds_up()), (Some((0, 102)), true));
        assert_eq!((reports.0[&0].bytes_read, reports.0[&3].bytes_read, reports.0.len()), (7, 5, 2));
        let strict = Cleaning { strict: true, names: vec!["a.txt".into()], ..Cleaning::none() };
        let error = strict.for_each_part(&block, |_, _| Ok(())).unwrap_err().to_string();
        assert_eq!(error, "a.txt: byte 0xff at offset 102 is not UTF-8; convert the file, or let such bytes be replaced");
    }
}
