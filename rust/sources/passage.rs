//! What stands at a known place of an input: the record of a document again, by the place that was noted when it was read.

use super::archives::each_member;
use super::files::InputFile;
use super::formats::Format;
use super::inputs::{OpenRows, refuse_no_reader};
use super::records::stream_error;
use super::streams::{Stream, Utf8};
use crate::error::{Error, Result};
use crate::job::Job;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const BUFFER_BYTES: usize = 64 << 10;
/// Time between two looks at what the caller wants.
const TICK: Duration = Duration::from_millis(5);

/// A place in a file, in the bytes that records are counted by: those of the unpacked file, of the members' contents joined in
/// an archive, of the UTF-8 made of UTF-16 text; in Parquet, rows.
pub struct Passage<'a> {
    /// The file.
    pub file: &'a InputFile,
    /// First and end.
    pub place: Range<u64>,
    /// Who reads Parquet.
    pub open_rows: Option<&'a OpenRows>,
}

/// The two ends of something long, or all of something short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The first bytes; all of them where nothing is left out.
    pub head: Vec<u8>,
    /// Bytes that are left out.
    pub between: u64,
    /// The last bytes.
    pub tail: Vec<u8>,
}

impl Ends {
    fn push(&mut self, bytes: &[u8], most: usize) {
        let (first, rest) = bytes.split_at(bytes.len().min(most.saturating_sub(self.head.len())));
        self.head.extend_from_slice(first);
        self.tail.extend_from_slice(rest);
        if self.tail.len() > most.saturating_add(BUFFER_BYTES) {
            self.cut(most);
        }
    }

    fn cut(&mut self, most: usize) {
        let n = self.tail.len().saturating_sub(most);
        self.tail.drain(..n);
        self.between += n as u64;
    }

    fn finished(mut self, most: usize) -> Self {
        self.cut(most);
        if self.between == 0 {
            self.head.append(&mut self.tail);
        }
        self
    }
}

impl Passage<'_> {
    /// The first and the last `most` bytes that stand there, in memory that depends on these alone. What is packed is unpacked
    /// up to there.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is damaged before that place, ends before it, or the job was cancelled.
    pub fn ends(&self, most: usize, job: &mut Job) -> Result<Ends> {
        let (stop, threads) = (Arc::new(AtomicBool::new(false)), job.threads());
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| self.read(most, &stop, threads));
            while !reading.is_finished() {
                if job.tick().is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                std::thread::sleep(TICK);
            }
            reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn read(&self, most: usize, stop: &Arc<AtomicBool>, threads: usize) -> Result<Ends> {
        let path = &self.file.path;
        match self.file.format {
            Format::Tar | Format::Zip => self.in_archive(most, stop),
            Format::Parquet => self.of_row(most, stop),
            _ => {
                let mut stream = Stream::open(path, stop, &Arc::default())?;
                stream.use_threads(threads);
                let is_packed = stream.is_packed();
                let mut text = Utf8::new(stream).map_err(stream_error(path))?;
                if !is_packed && !text.was_utf16() {
                    return self.of_plain(most);
                }
                let start = text.start();
                self.after(&mut text, start, most)?.ok_or_else(|| self.missing())
            }
        }
    }

    fn missing(&self) -> Error {
        let (path, Range { start, end }) = (self.file.path.display(), &self.place);
        Error::Format(format!("{path}: nothing at {start} to {end}; it is not the file that was read"))
    }

    /// Of a file whose bytes are those that are counted: no more is read than is kept.
    fn of_plain(&self, most: usize) -> Result<Ends> {
        let (path, Range { start, end }) = (&self.file.path, self.place.clone());
        let mut file = File::open(path).map_err(Error::io(path))?;
        let mut piece = |from: u64, length: u64| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(from)).and_then(|_| (&file).take(length).read_to_end(&mut bytes)).map_err(Error::io(path))?;
            if (bytes.len() as u64) < length { Err(self.missing()) } else { Ok(bytes) }
        };
        let (length, most) = (end.saturating_sub(start), most as u64);
        if length <= most.saturating_mul(2) {
            return Ok(Ends { head: piece(start, length)?, ..Ends::default() });
        }
        Ok(Ends { head: piece(start, most)?, between: length - 2 * most, tail: piece(end - most, most)? })
    }

    /// Of a reader that stands at byte `at`; `None` where it ends before the passage begins.
    fn after(&self, reader: &mut dyn Read, at: u64, most: usize) -> Result<Option<Ends>> {
        let (damaged, Range { start, end }) = (stream_error(&self.file.path), self.place.clone());
        let before = start.checked_sub(at).ok_or_else(|| self.missing())?;
        let passed = io::copy(&mut reader.take(before), &mut io::sink()).map_err(&damaged)?;
        let (mut ends, mut left, mut buffer) = (Ends::default(), end.saturating_sub(start), vec![0; BUFFER_BYTES]);
        while passed == before && left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = reader.read(&mut buffer[..want]).map_err(&damaged)?;
            if n == 0 && left == end - start {
                return Ok(None);
            }
            if n == 0 {
                return Err(self.missing());
            }
            ends.push(&buffer[..n], most);
            left -= n as u64;
        }
        Ok((passed == before).then(|| ends.finished(most)))
    }

    fn in_archive(&self, most: usize, stop: &Arc<AtomicBool>) -> Result<Ends> {
        let mut found = None;
        let outcome = each_member(&self.file.path, self.file.format, stop, &Arc::default(), &mut |member| {
            if member.text_format().is_none() || member.offset > self.place.start {
                return Ok(0);
            }
            let mut text = Utf8::new(&mut *member.reader).map_err(stream_error(&member.path))?;
            let at = member.offset + text.start();
            if at <= self.place.start {
                found = self.after(&mut text, at, most)?;
            }
            // Nothing more is wanted.
            if found.is_some() { Err(Error::Cancelled) } else { Ok(text.length()) }
        });
        match found {
            Some(ends) => Ok(ends),
            None => outcome.and_then(|_| Err(self.missing())),
        }
    }

    fn of_row(&self, most: usize, stop: &Arc<AtomicBool>) -> Result<Ends> {
        let path = &self.file.path;
        let (mut rows, mut passed) = (self.open_rows.ok_or_else(|| refuse_no_reader(path))?(path)?, 0);
        loop {
            let some = rows()?;
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            if some.is_empty() {
                return Err(self.missing());
            }
            let at = usize::try_from(self.place.start - passed).unwrap_or(usize::MAX);
            if let Some(row) = some.get(at) {
                let mut ends = Ends::default();
                ends.push(row.as_deref().unwrap_or_default().as_bytes(), most);
                return Ok(ends.finished(most));
            }
            passed += some.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn ends(path: &std::path::Path, format: Format, place: Range<u64>, most: usize) -> Result<Ends> {
        let file = InputFile { path: path.to_path_buf(), bytes: 0, format };
        let mut proceed = |_| true;
        Passage { file: &file, place, open_rows: None }.ends(most, &mut Job::new(Some(1), &mut proceed)?)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn plain_or_packed_the_ends_are_those_of_the_bytes(
            text in prop::collection::vec(any::<u8>().prop_filter("no mark of UTF-16", |byte| *byte < 0xfe), 1..400),
            most in 0usize..60,
            from in 0.0..1.0,
            length in 0.0..1.0,
        ) {
            let from = (from * text.len() as f64) as usize;
            let to = from + (length * (text.len() - from) as f64) as usize;
            let folder = tempfile::tempdir().unwrap();
            let (plain, packed) = (folder.path().join("a.txt"), folder.path().join("a.txt.gz"));
            std::fs::write(&plain, &text).unwrap();
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packer.write_all(&text).unwrap();
            std::fs::write(&packed, packer.finish().unwrap()).unwrap();
            for path in [&plain, &packed] {
                let Ends { head, between, tail } = ends(path, Format::Text, from as u64..to as u64, most).unwrap();
                let n = head.len() + tail.len();
                prop_assert_eq!([&head[..], &text[from + head.len()..to - tail.len()], &tail[..]].concat(), &text[from..to]);
                prop_assert_eq!((between as usize, n), (to - from - n, (to - from).min(2 * most)));
            }
        }
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "text").unwrap();
        for place in [2..9, 5..6] {
            let error = ends(&path, Format::Text, place, 9).unwrap_err().to_string();
            assert!(error.contains("a.txt: nothing at ") && error.ends_with("it is not the file that was read"), "{error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_search_without_end_ends_when_the_caller_gives_up() {
        let mut refuse = |_| false;
        let file = InputFile { path: "/dev/zero".into(), bytes: 0, format: Format::Tar };
        let passage = Passage { file: &file, place: 0..1, open_rows: None };
        let found = passage.ends(1, &mut Job::new(Some(1), &mut refuse).unwrap());
        assert!(matches!(found, Err(Error::Cancelled)));
    }
}
