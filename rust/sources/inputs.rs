//! Files of every format -> blocks: opens each, takes it apart, and has its records cut.

use super::archives::{Member, each_member};
use super::cutter::{Cutter, Cutting, Selection};
use super::files::InputFile;
use super::formats::Format;
use super::reading::Reading;
use super::records::{Malformed, Records, stream_error};
use super::streams::{RawFacts, Stream, Utf8, binary_at};
use super::{Outlet, Source};
use crate::error::{Error, Result};
use crate::shard::hash_file;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Texts of the rows of a file that somebody else reads, some at a time; no more are left when there are none.
pub type Rows = Box<dyn FnMut() -> Result<Vec<Option<String>>> + Send>;
/// Opens such a file.
pub type OpenRows = Arc<dyn Fn(&Path) -> Result<Rows> + Send + Sync>;

/// A file that was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Length as it lies on the disk.
    pub bytes: u64,
    /// xxh3-64 of that.
    pub xxh3: u64,
    /// Documents in it, those counted that were left out.
    pub documents: u64,
}

/// Which files, what is a record in them, and what of it is handed on.
#[derive(Clone)]
pub struct Inputs {
    /// The files, in order.
    pub files: Arc<Vec<InputFile>>,
    /// What a record is.
    pub reading: Arc<Reading>,
    /// Who reads Parquet.
    pub open_rows: Option<OpenRows>,
    /// How documents are cut.
    pub cutting: Cutting,
    /// Which of them are handed on.
    pub selection: Selection,
    /// Number of the first file that is not read; `None` reads all.
    pub until: Option<usize>,
    /// What each file was found to be that was read to its end, by its number.
    pub found: Arc<Mutex<Vec<Option<Found>>>>,
}

impl Inputs {
    /// All documents of these files.
    #[must_use]
    pub fn new(files: Arc<Vec<InputFile>>, reading: Arc<Reading>, cutting: Cutting) -> Self {
        let found = Arc::new(Mutex::new(vec![None; files.len()]));
        Inputs { files, reading, open_rows: None, cutting, selection: Selection::default(), until: None, found }
    }
}

impl Source for Inputs {
    fn read(&mut self, outlet: &mut dyn Outlet, stop: &Arc<AtomicBool>, threads: usize) -> Result<()> {
        let consumed = Arc::new(AtomicU64::new(0));
        let mut cutter = Cutter::new(&self.cutting, &self.selection, outlet, consumed.clone());
        let Selection { from, range, verdicts } = &self.selection;
        let mut base = 0;
        for (number, file) in self.files.iter().enumerate().take(self.until.unwrap_or(usize::MAX)) {
            let place = base;
            base += file.bytes;
            let is_elsewhere = range.as_ref().is_some_and(|range| range.end <= place || (base <= range.start && place < range.start));
            // Documents of files that are not read cannot be counted, and verdicts go by their count.
            if (number as u64) < from.file || (is_elsewhere && verdicts.is_none()) {
                continue;
            }
            let opening = Opening { file, reading: &self.reading, open_rows: self.open_rows.as_ref(), stop, consumed: &consumed, threads };
            let ordinal = (number as u64 == from.file).then(|| from.ordinal - from.document);
            let start = |cutter: &mut Cutter, has_places| cutter.start_file(number as u64, (place, has_places), ordinal);
            let RawFacts { bytes, hash: xxh3 } = opening.read(&mut cutter, start)?;
            if bytes != file.bytes {
                let (name, was) = (file.path.display(), file.bytes);
                return Err(Error::Invalid(format!(
                    "{name}: {bytes} bytes when it was read, {was} when it was found; it changed meanwhile, start again"
                )));
            }
            let found = Found { bytes, xxh3, documents: cutter.documents() };
            self.found.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(found);
        }
        cutter.finish(self.until.unwrap_or(self.files.len()) as u64)
    }
}

/// A file, and what it takes to read it.
struct Opening<'a> {
    file: &'a InputFile,
    reading: &'a Reading,
    open_rows: Option<&'a OpenRows>,
    stop: &'a Arc<AtomicBool>,
    consumed: &'a Arc<AtomicU64>,
    threads: usize,
}

impl Opening<'_> {
    /// Hands on all records, once `start` has been told whether they lie at places of their own in the file; what the file
    /// was found to be.
    fn read(&self, out: &mut Cutter, start: impl Fn(&mut Cutter, bool)) -> Result<RawFacts> {
        let path = &self.file.path;
        match self.file.format {
            Format::Tar | Format::Zip => {
                start(out, false);
                each_member(path, self.file.format, self.stop, self.consumed, &mut |mut member| self.member(&mut member, out))
            }
            Format::Parquet => {
                start(out, false);
                self.rows(out)
            }
            format => {
                let mut stream = Stream::open(path, self.stop, self.consumed)?;
                stream.use_threads(self.threads);
                start(out, !stream.is_packed());
                refuse_binary(stream.head().map_err(stream_error(path))?, path)?;
                self.records(&mut stream, format, path, 0, out)?;
                stream.finish().map_err(stream_error(path))
            }
        }
    }

    /// A file in an archive, if it is one that is read; bytes of its text.
    fn member(&self, member: &mut Member, out: &mut Cutter) -> Result<u64> {
        member.text_format().map_or(Ok(0), |format| self.records(member.reader, format, &member.path, member.offset, out))
    }

    /// All records of a reader; bytes of its text.
    fn records(&self, reader: &mut dyn Read, format: Format, path: &Path, offset: u64, out: &mut dyn Records) -> Result<u64> {
        let mut text = Utf8::new(reader).map_err(stream_error(path))?;
        let mut out = Moved { out, by: offset + text.start() };
        format.read(&mut text, path, self.reading, &mut out)?;
        Ok(text.length())
    }

    /// The rows of a file that somebody else reads; a row's place is its number.
    fn rows(&self, out: &mut Cutter) -> Result<RawFacts> {
        let path = &self.file.path;
        let open = self.open_rows.ok_or_else(|| refuse_no_reader(path))?;
        let (mut rows, mut number) = (open(path)?, 0);
        loop {
            let some = rows()?;
            if some.is_empty() || self.stop.load(Ordering::Relaxed) {
                break;
            }
            for text in some {
                match text {
                    Some(text) => out.whole(text.as_bytes(), number, number + 1)?,
                    None if self.reading.malformed == Malformed::Skip => out.refuse(number, number)?,
                    None => {
                        let what = "has no text; leave such rows out with --malformed skip";
                        return Err(Error::Format(format!("{}: row {number} {what}", path.display())));
                    }
                }
                number += 1;
            }
        }
        let hash = hash_file(path)?;
        self.consumed.fetch_add(self.file.bytes, Ordering::Relaxed);
        Ok(RawFacts { bytes: self.file.bytes, hash })
    }
}

/// Records of a part of an input, at their places in all of it.
struct Moved<'a> {
    out: &'a mut dyn Records,
    by: u64,
}

impl Records for Moved<'_> {
    fn begin(&mut self, offset: u64) -> Result<()> {
        self.out.begin(self.by + offset)
    }

    fn text(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.text(bytes)
    }

    fn end(&mut self, offset: u64) -> Result<()> {
        self.out.end(self.by + offset)
    }

    fn refuse(&mut self, offset: u64, end: u64) -> Result<()> {
        self.out.refuse(self.by + offset, self.by + end)
    }

    fn whole(&mut self, text: &[u8], offset: u64, end: u64) -> Result<()> {
        self.out.whole(text, self.by + offset, self.by + end)
    }
}

/// What is said of Parquet where nobody reads it.
pub(super) fn refuse_no_reader(path: &Path) -> Error {
    Error::Invalid(format!("{}: nobody reads Parquet here", path.display()))
}

fn refuse_binary(head: &[u8], path: &Path) -> Result<()> {
    binary_at(head)
        .map_or(Ok(()), |at| Err(Error::Invalid(format!("{}: a binary file (zero byte at offset {at}), not text", path.display()))))
}
