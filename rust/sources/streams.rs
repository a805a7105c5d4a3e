//! Files as streams of plain bytes: unpacked, counted and hashed on the way, whatever their size.

use super::records::GivenUp;
use super::unpack::{Unpacker, retry};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xxhash_rust::xxh3::Xxh3;

/// Bytes by which text is told from what is not.
const HEAD_BYTES: usize = 8 << 10;
/// Bytes of UTF-16 text turned into UTF-8 at once.
const UTF16_BYTES: usize = 8 << 10;

/// A file as it was read: packed, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFacts {
    /// Length in bytes.
    pub bytes: u64,
    /// xxh3-64 of all of them.
    pub hash: u64,
}

/// The plain bytes of a file that may be packed by gzip, zstd, xz or bzip2.
pub struct Stream {
    head: Vec<u8>,
    head_at: usize,
    unpacker: Unpacker<Raw>,
}

impl Stream {
    /// Opens a file. `consumed` grows by its raw bytes as they are read; once `stop` is set, every read fails with [`GivenUp`].
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is cut short within its first bytes.
    pub fn open(path: &Path, stop: &Arc<AtomicBool>, consumed: &Arc<AtomicU64>) -> Result<Stream> {
        let file = File::open(path).map_err(Error::io(path))?;
        Self::new(Box::new(file), path, stop, consumed)
    }

    /// A stream over any reader, such as standard input; `name` stands for it.
    ///
    /// # Errors
    ///
    /// As [`Stream::open`].
    pub fn new(reader: Box<dyn Read + Send>, name: &Path, stop: &Arc<AtomicBool>, consumed: &Arc<AtomicU64>) -> Result<Stream> {
        let raw = Raw::new(reader, stop, consumed);
        let unpacker = Unpacker::new(raw, name).map_err(super::records::stream_error(name))?;
        Ok(Stream { head: Vec::new(), head_at: 0, unpacker })
    }

    /// Lets so many threads unpack a file of many members.
    pub fn use_threads(&mut self, threads: usize) {
        self.unpacker.use_threads(threads);
    }

    /// Whether the file is packed.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.unpacker.is_packed()
    }

    /// The first plain bytes, 8 KiB where there are as many, before any was read; they stay to be read.
    ///
    /// # Errors
    ///
    /// As reading.
    pub fn head(&mut self) -> io::Result<&[u8]> {
        if self.head.is_empty() {
            self.head = read_head(&mut self.unpacker)?;
        }
        Ok(&self.head)
    }

    /// Reads whatever is left, so that all checks of the packing are made, and says what the file was.
    ///
    /// # Errors
    ///
    /// As reading.
    pub fn finish(mut self) -> io::Result<RawFacts> {
        io::copy(&mut self.unpacker, &mut io::sink())?;
        Ok(self.unpacker.raw().facts())
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.head_at == self.head.len() {
            return self.unpacker.read(out);
        }
        let n = (&self.head[self.head_at..]).read(out)?;
        self.head_at += n;
        Ok(n)
    }
}

/// The first bytes of a reader, which are then gone from it.
pub(super) fn read_head(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Where a zero byte shows that this is the head of no text; UTF-16 text with its mark is text.
#[must_use]
pub fn binary_at(head: &[u8]) -> Option<usize> {
    let is_utf16 = head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff");
    memchr::memchr(0, head).filter(|_| !is_utf16)
}

/// What is read from the disk, before it is unpacked.
pub(super) struct Raw {
    reader: Box<dyn Read + Send>,
    hash: Box<Xxh3>,
    bytes: u64,
    stop: Arc<AtomicBool>,
    consumed: Arc<AtomicU64>,
}

impl Raw {
    pub(super) fn new(reader: Box<dyn Read + Send>, stop: &Arc<AtomicBool>, consumed: &Arc<AtomicU64>) -> Raw {
        Raw { reader, hash: Box::new(Xxh3::new()), bytes: 0, stop: stop.clone(), consumed: consumed.clone() }
    }

    pub(super) fn facts(&self) -> RawFacts {
        RawFacts { bytes: self.bytes, hash: self.hash.digest() }
    }
}

impl Read for Raw {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(GivenUp));
        }
        let n = self.reader.read(out)?;
        self.hash.update(&out[..n]);
        self.bytes += n as u64;
        self.consumed.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Text as UTF-8: its byte order mark is left out, and UTF-16 that begins with one is turned into UTF-8.
///
/// Half a surrogate pair and half a unit become the byte 0xFF, which UTF-8 never holds, so that whoever counts or refuses
/// damaged text finds each once.
pub struct Utf8<R> {
    reader: R,
    /// Bytes ready to be handed on.
    ready: Vec<u8>,
    at: usize,
    start: u64,
    /// Bytes of text handed on.
    handed: u64,
    utf16: Option<Utf16>,
}

impl<R: Read> Utf8<R> {
    /// Looks at the first bytes of a reader that stands at the start of a text.
    ///
    /// # Errors
    ///
    /// As reading.
    pub fn new(mut reader: R) -> io::Result<Utf8<R>> {
        let mut ready = Vec::new();
        reader.by_ref().take(3).read_to_end(&mut ready)?;
        let (mut at, mut utf16) = (0, None);
        if ready.starts_with(b"\xef\xbb\xbf") {
            at = 3;
        } else if ready.starts_with(b"\xff\xfe") || ready.starts_with(b"\xfe\xff") {
            let of_bytes = if ready[0] == 0xff { u16::from_le_bytes } else { u16::from_be_bytes };
            utf16 = Some(Utf16 { of_bytes, half_unit: ready.get(2).copied(), half_pair: None, ended: false });
            ready.clear();
        }
        Ok(Utf8 { reader, ready, at, start: at as u64, handed: 0, utf16 })
    }

    /// Where the text starts: 3 after a byte order mark of UTF-8, by which offsets then count in the input. In text that was
    /// UTF-16 they count in the UTF-8 made of it, from 0.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Where the text ends so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.start + self.handed
    }

    /// Whether the bytes are others than those of the reader.
    #[must_use]
    pub fn was_utf16(&self) -> bool {
        self.utf16.is_some()
    }
}

impl<R: Read> Read for Utf8<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.ready.len() {
            let Some(utf16) = self.utf16.as_mut() else {
                let n = self.reader.read(out)?;
                self.handed += n as u64;
                return Ok(n);
            };
            if out.is_empty() || utf16.ended {
                return Ok(0);
            }
            self.at = 0;
            self.ready.clear();
            let mut bytes = [0; UTF16_BYTES];
            let n = retry(|| self.reader.read(&mut bytes))?;
            utf16.decode(&bytes[..n], &mut self.ready);
        }
        let n = (&self.ready[self.at..]).read(out)?;
        self.at += n;
        self.handed += n as u64;
        Ok(n)
    }
}

struct Utf16 {
    of_bytes: fn([u8; 2]) -> u16,
    half_unit: Option<u8>,
    half_pair: Option<u16>,
    ended: bool,
}

impl Utf16 {
    /// Appends the UTF-8 of more bytes; none means that the text ends.
    fn decode(&mut self, bytes: &[u8], text: &mut Vec<u8>) {
        let mut bytes = bytes.iter().copied();
        self.ended = bytes.len() == 0;
        while let Some(first) = self.half_unit.take().or_else(|| bytes.next()) {
            let Some(second) = bytes.next() else {
                self.half_unit = Some(first);
                break;
            };
            let unit = (self.of_bytes)([first, second]);
            let pair = self.half_pair.take();
            let is_low = (0xdc00..0xe000).contains(&unit);
            let code = match pair {
                Some(high) if is_low => 0x1_0000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(unit) - 0xdc00),
                _ => {
                    text.extend(pair.map(|_| 0xff));
                    u32::from(unit)
                }
            };
            if (0xd800..0xdc00).contains(&unit) {
                self.half_pair = Some(unit);
                continue;
            }
            match char::from_u32(code) {
                Some(char) => text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
                None => text.push(0xff),
            }
        }
        if self.ended {
            text.extend(self.half_pair.take().map(|_| 0xff));
            text.extend(self.half_unit.take().map(|_| 0xff));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn open(path: &Path) -> Stream {
        Stream::open(path, &Arc::default(), &Arc::default()).unwrap()
    }

    #[test]
    fn a_file_is_hashed_and_counted_to_its_end_though_it_was_not_read_so_far() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let bytes: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &bytes).unwrap();
        let consumed = Arc::new(AtomicU64::new(0));
        let mut stream = Stream::open(&path, &Arc::default(), &consumed).unwrap();
        assert_eq!(stream.head().unwrap(), &bytes[..8192]);
        let mut first = [0; 10_000];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(first, bytes[..10_000]);
        assert_eq!(stream.finish().unwrap(), RawFacts { bytes: 1_200_000, hash: xxh3_64(&bytes) });
        assert_eq!(consumed.load(Ordering::Relaxed), 1_200_000);
    }

    #[test]
    fn a_stream_gives_up_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, vec![b'a'; 1 << 20]).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let mut stream = Stream::open(&path, &stop, &Arc::default()).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        stop.store(true, Ordering::Relaxed);
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(matches!(super::super::records::stream_error(&path)(error), Error::Cancelled));
    }

    #[test]
    fn a_packed_file_has_the_facts_of_its_packed_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt.zst");
        let packed = ruzstd::encoding::compress_to_vec(&b"some text"[..], ruzstd::encoding::CompressionLevel::Fastest);
        std::fs::write(&path, &packed).unwrap();
        let mut stream = open(&path);
        assert!(stream.is_packed());
        assert_eq!(stream.head().unwrap(), b"some text");
        assert_eq!(stream.finish().unwrap(), RawFacts { bytes: packed.len() as u64, hash: xxh3_64(&packed) });
    }

    #[test]
    fn zero_bytes_tell_binary_files_but_not_utf_16() {
        assert_eq!([binary_at(b"ab\0"), binary_at(b"\xff\xfea\0"), binary_at(b"text")], [Some(2), None, None]);
    }

    fn utf8(bytes: &[u8]) -> (Vec<u8>, u64) {
        let mut reader = Utf8::new(OneByOne(bytes)).unwrap();
        let (mut text, start) = (Vec::new(), reader.start());
        reader.read_to_end(&mut text).unwrap();
        (text, start)
    }

    /// Hands out a byte at a time, so that every unit and pair is torn.
    struct OneByOne<'a>(&'a [u8]);

    impl Read for OneByOne<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = out.len().min(1);
            self.0.read(&mut out[..n])
        }
    }

    proptest! {
        #[test]
        fn utf_16_becomes_the_text_it_says(text in any::<String>(), little in any::<bool>()) {
            let bytes_of = |unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() };
            let bytes: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(bytes_of).collect();
            prop_assert_eq!(utf8(&bytes), (text.into_bytes(), 0));
        }

        #[test]
        fn damaged_utf_16_has_one_odd_byte_for_each_place(units in prop::collection::vec(prop_oneof![Just(0xd83du16), Just(0xde00), Just(0x61)], 0..20)) {
            let bytes: Vec<u8> = std::iter::once(0xfeff).chain(units.iter().copied()).flat_map(u16::to_le_bytes).collect();
            let (found, _) = utf8(&bytes);
            prop_assert_eq!(String::from_utf8_lossy(&found), String::from_utf16_lossy(&units));
        }
    }

    #[allow(clippy::type_complexity)] // a table
    #[test]
    fn marks_are_left_out_and_offsets_told() {
        let cases: [(&[u8], (&[u8], u64)); 5] = [
            (b"\xef\xbb\xbfab", (b"ab", 3)),
            (b"\xef\xbb", (b"\xef\xbb", 0)),
            (b"", (b"", 0)),
            (b"abcd", (b"abcd", 0)),
            (b"\xff\xfea\0b", (b"a\xff", 0)),
        ];
        for (bytes, expected) in cases {
            let (text, start) = utf8(bytes);
            assert_eq!((&text[..], start), expected, "{bytes:?}");
        }
    }
}
