//! Plain text files: a document is a file, or what stands between separator lines in it, or a line.

use super::files::TextFile;
use super::{Block, LONG_DOCUMENT_BYTES, Part, STRETCH_BYTES, Side, Source, part_length, side_of, val_start};
use crate::added::AddedFinder;
use crate::error::{Error, Result};
use crate::pretokenize::Pattern;
use memchr::{memchr, memmem};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use xxhash_rust::xxh3::Xxh3;

/// A line that holds this and nothing else ends a document.
const SEPARATOR: &[u8] = b"<|endoftext|>";
/// Bytes asked of the system at once.
const READ_BYTES: usize = 1 << 20;
/// The start of a file that is searched for zero bytes.
const PROBE_BYTES: usize = 8 << 10;

/// What a document is in a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Documents {
    /// The file, or each part of it between lines that are `<|endoftext|>`.
    File,
    /// Each line, without its end.
    Line,
}

impl Documents {
    /// Every kind, by name.
    pub const NAMES: [(&'static str, Documents); 2] = [("file", Documents::File), ("line", Documents::Line)];

    /// The first document end in `text` from `from` on: where the document ends and where the next one starts. If there
    /// is none, up to where one can be ruled out. `eof` says that `text` is the end of the file; `start` is where the
    /// document starts, or 0 where that is further back.
    fn boundary(self, text: &[u8], from: usize, start: usize, eof: bool) -> std::result::Result<(usize, usize), usize> {
        match self {
            Documents::Line => match memchr(b'\n', &text[from..]) {
                Some(i) => {
                    let end = from + i;
                    let with_return = end > start && text[end - 1] == b'\r';
                    Ok((end - usize::from(with_return), end + 1))
                }
                // A carriage return at the end of what is known may belong to a line end.
                None => Err(if eof { text.len() } else { text.len().saturating_sub(1).max(from) }),
            },
            Documents::File => {
                for i in memmem::find_iter(&text[from..], SEPARATOR) {
                    let at = from + i;
                    let after = &text[at + SEPARATOR.len()..];
                    let at_line_start = at == start || text[at - 1] == b'\n';
                    match after {
                        _ if !at_line_start => {}
                        [b'\n', ..] => return Ok((at, at + SEPARATOR.len() + 1)),
                        [b'\r', b'\n', ..] => return Ok((at, at + SEPARATOR.len() + 2)),
                        [] | [b'\r'] if eof => return Ok((at, text.len())),
                        [] | [b'\r'] => return Err(at),
                        _ => {}
                    }
                }
                Err(if eof { text.len() } else { text.len().saturating_sub(SEPARATOR.len()).max(from) })
            }
        }
    }
}

/// Documents out of text files, in the order of the files.
pub struct TextFiles {
    files: Vec<TextFile>,
    documents: Documents,
    pattern: Pattern,
    val_fraction: Option<f64>,
    block_bytes: usize,
    next: usize,
    open: Option<Open>,
    read: Vec<(u64, u64)>,
    whole: Arc<AddedFinder>,
}

/// A file being read: `window` holds its bytes from `base` on.
struct Open {
    file: File,
    window: Vec<u8>,
    base: u64,
    at: u64,
    eof: bool,
    long: Option<Long>,
    /// Of all that was read, if it will be asked for.
    hash: Option<Xxh3>,
}

/// A document too long to be held whole.
struct Long {
    start: u64,
    /// Up to here no document end begins.
    searched: u64,
    /// Where it ends and the next one starts, once known.
    end: Option<(u64, u64)>,
    /// Where its validation part starts.
    cut: Option<u64>,
}

impl TextFiles {
    /// Documents out of `files`; with a `val_fraction` they are split.
    #[must_use]
    pub fn new(files: Vec<TextFile>, documents: Documents, pattern: Pattern, val_fraction: Option<f64>, block_bytes: usize) -> Self {
        TextFiles { files, documents, pattern, val_fraction, block_bytes, next: 0, open: None, read: Vec::new(), whole: Arc::default() }
    }

    /// Never cuts what this finds.
    #[must_use]
    pub fn keeping(self, whole: Arc<AddedFinder>) -> Self {
        TextFiles { whole, ..self }
    }

    /// Length and xxh3-64 of each file that was read to its end, in order, if documents are split.
    #[must_use]
    pub fn read(&self) -> &[(u64, u64)] {
        &self.read
    }

    /// Hands on the next document or part of one.
    fn step(&mut self, block: &mut Block, stop: &AtomicBool) -> Result<()> {
        let path = self.files[self.next].path.clone();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::new(&path, self.val_fraction.map(|_| Xxh3::new()))?,
        };
        let at = open.at;
        if open.long.is_none() && !self.short_document(&mut open, block).map_err(Error::io(&path))? {
            open.long = Some(self.long_document(&mut open, &path, stop)?);
        }
        if let Some(long) = open.long.take() {
            open.long = self.part(&mut open, long, block).map_err(Error::io(&path))?;
        }
        block.consumed += open.at - at;
        if open.long.is_none() && open.at_end().map_err(Error::io(&path))? {
            if let Some(hash) = &open.hash {
                self.read.push((open.end(), hash.digest()));
            }
            self.next += 1;
        } else {
            self.open = Some(open);
        }
        Ok(())
    }

    /// Hands on the document that starts here if it is short; false if it is long.
    fn short_document(&self, open: &mut Open, block: &mut Block) -> std::io::Result<bool> {
        open.read_to(open.at + (LONG_DOCUMENT_BYTES + 2 * SEPARATOR.len()) as u64)?;
        let start = open.index(open.at);
        let known = open.window.len().min(start + LONG_DOCUMENT_BYTES + 2 * SEPARATOR.len());
        let eof = open.eof && known == open.window.len();
        let (end, next) = match self.documents.boundary(&open.window[..known], start, start, eof) {
            Ok(found) => found,
            Err(_) if eof => (open.window.len(), open.window.len()),
            Err(_) => return Ok(false),
        };
        if end - start > LONG_DOCUMENT_BYTES {
            return Ok(false);
        }
        if end > start {
            let text = &open.window[start..end];
            let side = side_of(text, self.val_fraction);
            block.push(text, Part { end: 0, side, starts: true, ends: true, last: true, file: self.next, offset: open.at });
        }
        open.at = open.base + next as u64;
        Ok(true)
    }

    /// Looks ahead to where a long document ends, if it is to be split.
    fn long_document(&self, open: &mut Open, path: &Path, stop: &AtomicBool) -> Result<Long> {
        let mut long = Long { start: open.at, searched: open.at, end: None, cut: None };
        if let Some(fraction) = self.val_fraction.filter(|fraction| *fraction > 0.0) {
            let mut ahead = Open::again(path, open.at)?;
            let found = self.find_end(&mut ahead, open.at, stop).map_err(Error::io(path))?;
            let wished = open.at + val_start(found.0 - open.at, fraction);
            long.cut = Some(ahead.line_end(wished, found.0, stop).map_err(Error::io(path))?);
            long.end = Some(found);
        }
        Ok(long)
    }

    fn find_end(&self, ahead: &mut Open, start: u64, stop: &AtomicBool) -> std::io::Result<(u64, u64)> {
        let mut searched = start;
        loop {
            check(stop)?;
            ahead.read_to(searched + READ_BYTES as u64)?;
            let start = start.checked_sub(ahead.base).map_or(0, |start| start as usize);
            match self.documents.boundary(&ahead.window, ahead.index(searched), start, ahead.eof) {
                Ok((end, next)) => return Ok((ahead.base + end as u64, ahead.base + next as u64)),
                Err(_) if ahead.eof => return Ok((ahead.end(), ahead.end())),
                Err(up_to) => searched = ahead.base + up_to as u64,
            }
            ahead.at = searched;
        }
    }

    /// Hands on the next part of a long document; gives it back if it goes on.
    fn part(&self, open: &mut Open, mut long: Long, block: &mut Block) -> std::io::Result<Option<Long>> {
        let want = self.block_bytes.saturating_sub(block.text.len()).max(1);
        let mut reach = want.max(LONG_DOCUMENT_BYTES);
        let (length, limit, end) = loop {
            open.read_to(open.at + reach as u64)?;
            if long.end.is_none() {
                let start = long.start.checked_sub(open.base).map_or(0, |start| start as usize);
                match self.documents.boundary(&open.window, open.index(long.searched), start, open.eof) {
                    Ok((end, next)) => long.end = Some((open.base + end as u64, open.base + next as u64)),
                    Err(_) if open.eof => long.end = Some((open.end(), open.end())),
                    Err(up_to) => long.searched = open.base + up_to as u64,
                }
            }
            // A file that shrank since it was looked through ends where it ends now.
            let end = long.end.map(|(end, _)| if open.eof { end.min(open.end()) } else { end });
            let limit = [long.cut.filter(|cut| *cut > open.at), end].into_iter().flatten().min();
            let known = limit.unwrap_or(long.searched).min(open.end());
            let available = &open.window[open.index(open.at)..open.index(known)];
            if let Some(length) = part_length(available, want, limit == Some(known), &self.pattern, &self.whole) {
                break (length, limit, end);
            }
            reach = (2 * reach).min(2 * STRETCH_BYTES);
        };
        let start = open.index(open.at);
        let val = long.cut.is_some_and(|cut| open.at >= cut);
        let part = Part {
            end: 0,
            side: if val { Side::Val } else { Side::Train },
            starts: open.at == long.start || Some(open.at) == long.cut,
            ends: limit == Some(open.at + length as u64),
            last: end == Some(open.at + length as u64),
            file: self.next,
            offset: open.at,
        };
        block.push(&open.window[start..start + length], part);
        open.at += length as u64;
        let Some((_, next)) = long.end.filter(|_| end == Some(open.at)) else { return Ok(Some(long)) };
        open.read_to(next)?;
        open.at = next.min(open.end());
        Ok(None)
    }
}

impl Source for TextFiles {
    fn fill(&mut self, block: &mut Block, stop: &AtomicBool) -> Result<bool> {
        block.clear();
        while self.next < self.files.len() && block.text.len() < self.block_bytes {
            check(stop).map_err(|_| Error::Cancelled)?;
            self.step(block, stop)?;
        }
        Ok(block.consumed > 0 || self.next < self.files.len())
    }
}

impl Open {
    fn new(path: &Path, hash: Option<Xxh3>) -> Result<Open> {
        let mut open = Self::again(path, 0)?;
        open.hash = hash;
        open.read_to(PROBE_BYTES as u64).map_err(Error::io(path))?;
        let probe = &open.window[..open.window.len().min(PROBE_BYTES)];
        if probe.starts_with(b"\xff\xfe") || probe.starts_with(b"\xfe\xff") {
            return Err(Error::Invalid(format!("{}: UTF-16 text; convert it to UTF-8", path.display())));
        }
        if let Some(at) = memchr(0, probe) {
            return Err(Error::Invalid(format!("{}: a binary file (zero byte at offset {at}), not text", path.display())));
        }
        if probe.starts_with(b"\xef\xbb\xbf") {
            open.at = 3; // a byte order mark says nothing in UTF-8
        }
        Ok(open)
    }

    fn again(path: &Path, at: u64) -> Result<Open> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        // One byte further back, so that it can be seen whether a line starts at `at`.
        let base = at.saturating_sub(1);
        file.seek(SeekFrom::Start(base)).map_err(Error::io(path))?;
        Ok(Open { file, window: Vec::new(), base, at, eof: false, long: None, hash: None })
    }

    fn index(&self, offset: u64) -> usize {
        (offset - self.base) as usize
    }

    fn end(&self) -> u64 {
        self.base + self.window.len() as u64
    }

    /// Reads until the window reaches `offset` or the file ends. What lies before `at`, but for one byte, is let go.
    fn read_to(&mut self, offset: u64) -> std::io::Result<()> {
        if self.eof || self.end() >= offset {
            return Ok(());
        }
        let passed = self.index(self.at).saturating_sub(1).min(self.window.len());
        self.window.drain(..passed);
        self.base += passed as u64;
        while self.end() < offset && !self.eof {
            let length = self.window.len();
            self.window.reserve(READ_BYTES);
            let n = (&mut self.file).take(READ_BYTES as u64).read_to_end(&mut self.window)?;
            self.eof = n < READ_BYTES;
            if let Some(hash) = &mut self.hash {
                hash.update(&self.window[length..]);
            }
        }
        Ok(())
    }

    fn at_end(&mut self) -> std::io::Result<bool> {
        self.read_to(self.at + 1)?;
        Ok(self.at >= self.end())
    }

    /// The first line end from `wished` on that leaves something before `end`, or else `wished`, moved to a character.
    fn line_end(&mut self, wished: u64, end: u64, stop: &AtomicBool) -> std::io::Result<u64> {
        let from = wished.saturating_sub(4);
        self.file.seek(SeekFrom::Start(from))?;
        (self.base, self.at, self.eof) = (from, from, false);
        self.window.clear();
        let mut searched = wished.saturating_sub(1);
        let mut fallback = wished;
        loop {
            check(stop)?;
            self.read_to((searched + READ_BYTES as u64).min(end))?;
            if self.base == from {
                while fallback > from && self.window.get(self.index(fallback)).is_some_and(|byte| byte & 0xc0 == 0x80) {
                    fallback -= 1;
                }
            }
            let known = self.end().min(end);
            let from_here = searched.min(known); // a file that shrank may end before
            if let Some(i) = memchr(b'\n', &self.window[self.index(from_here)..self.index(known)]) {
                let line_end = searched + i as u64 + 1;
                return Ok(if line_end < end { line_end } else { fallback });
            }
            if known == end || self.eof {
                return Ok(fallback);
            }
            searched = known;
            self.at = searched;
        }
    }
}

/// An error, which nobody waits for any more, once the caller has given up.
fn check(stop: &AtomicBool) -> std::io::Result<()> {
    if stop.load(Ordering::Relaxed) { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::documents;
    use super::*;
    use proptest::prelude::*;

    /// The documents of one file with these bytes.
    fn read(bytes: &[u8], kind: Documents, val_fraction: Option<f64>, block_bytes: usize) -> Vec<(Side, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, bytes).unwrap();
        let files = super::super::list_files(&[path], None).unwrap();
        documents(TextFiles::new(files, kind, Pattern::Gpt2, val_fraction, block_bytes))
    }

    fn texts(bytes: &[u8], kind: Documents) -> Vec<String> {
        read(bytes, kind, None, 1 << 20).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn documents_stand_between_separator_lines() {
        for (text, expected) in [
            ("a\n<|endoftext|>\nb", vec!["a\n", "b"]),
            ("<|endoftext|>\na\n<|endoftext|>\r\n<|endoftext|>\nb\n<|endoftext|>", vec!["a\n", "b\n"]),
            ("a <|endoftext|>\n<|endoftext|> b", vec!["a <|endoftext|>\n<|endoftext|> b"]),
            ("\u{feff}a", vec!["a"]),
            ("", vec![]),
            ("<|endoftext|>", vec![]),
        ] {
            assert_eq!(texts(text.as_bytes(), Documents::File), expected, "{text:?}");
        }
    }

    #[test]
    fn lines_are_documents_without_their_ends() {
        assert_eq!(texts(b"a\r\n\n\r\nb\rc\nd", Documents::Line), ["a", "b\rc", "d"]);
    }

    #[test]
    fn a_binary_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        for (bytes, expected) in [(&b"ab\0c"[..], "a binary file (zero byte at offset 2), not text"), (b"\xff\xfea\0", "UTF-16 text")] {
            std::fs::write(&path, bytes).unwrap();
            let files = super::super::list_files(std::slice::from_ref(&path), None).unwrap();
            let mut source = TextFiles::new(files, Documents::File, Pattern::Gpt2, None, 1);
            assert!(source.fill(&mut Block::default(), &AtomicBool::new(false)).unwrap_err().to_string().contains(expected));
        }
    }

    #[test]
    fn a_file_that_shrank_while_it_was_looked_through_has_no_line_end_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "short now\n").unwrap();
        assert_eq!(Open::again(&path, 0).unwrap().line_end(100, 200, &AtomicBool::new(false)).unwrap(), 100);
    }

    /// The rule of the split, word for word, on a whole file.
    fn split_slowly(text: &str, kind: Documents, fraction: f64) -> Vec<(Side, String)> {
        let whole: Vec<String> = match kind {
            Documents::Line => text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_string()).collect(),
            Documents::File => {
                let mut all = vec![String::new()];
                for line in text.split_inclusive('\n') {
                    if line.trim_end_matches('\n').trim_end_matches('\r') == "<|endoftext|>" && !line.ends_with("\r\r\n") {
                        all.push(String::new());
                    } else {
                        all.last_mut().unwrap().push_str(line);
                    }
                }
                all
            }
        };
        let mut sides = Vec::new();
        for document in whole.iter().filter(|document| !document.is_empty()) {
            if document.len() <= LONG_DOCUMENT_BYTES {
                sides.push((side_of(document.as_bytes(), Some(fraction)), document.clone()));
            } else {
                let cut = super::super::long_cut(document, fraction);
                sides.push((Side::Train, document[..cut].to_string()));
                sides.push((Side::Val, document[cut..].to_string()));
            }
        }
        sides
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn reading_in_blocks_equals_the_rule_on_the_whole(
            parts in prop::collection::vec((prop::sample::select(vec![
                "a word or two. ", "\n", "\r\n", "<|endoftext|>", "\n<|endoftext|>\n", "字", " ", "x", "\n\n",
            ]), prop::sample::select(vec![1usize, 2, 30, 20_000, 200_000])), 0..14),
            line in any::<bool>(),
            block_bytes in prop::sample::select(vec![1usize, 7, 4096, 1 << 20]),
        ) {
            let text: String = parts.iter().map(|(part, n)| part.repeat(*n)).collect();
            let kind = if line { Documents::Line } else { Documents::File };
            let block_bytes = if text.len() > 1 << 16 { block_bytes.max(4096) } else { block_bytes };
            prop_assert!(read(text.as_bytes(), kind, Some(0.05), block_bytes) == split_slowly(&text, kind, 0.05));
        }
    }
}
