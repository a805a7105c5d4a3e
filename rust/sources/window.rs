//! A window on a stream: what was read and not yet passed, with its place in the whole.

use super::jsonscan::is_space;
use super::records::stream_error;
use crate::error::Result;
use memchr::memchr;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Bytes asked of a stream at once.
pub(crate) const READ_BYTES: usize = 1 << 20;
/// The first buffer, so that a small file costs little.
const FIRST_BYTES: usize = 64 << 10;

/// What was read of a stream and not yet passed.
pub(crate) struct Window<'a> {
    input: &'a mut dyn Read,
    path: &'a Path,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    /// Offset in the stream of the buffer's first byte.
    base: u64,
    ended: bool,
}

impl<'a> Window<'a> {
    /// A window at the start of `input`, whose errors are about `path`. A byte order mark is left out: it says nothing in UTF-8.
    pub fn new(input: &'a mut dyn Read, path: &'a Path) -> Result<Self> {
        let mut window = Window { input, path, buffer: Vec::new(), at: 0, end: 0, base: 0, ended: false };
        window.fill(3)?;
        if window.ahead().starts_with(b"\xef\xbb\xbf") {
            window.pass(3);
        }
        Ok(window)
    }

    /// What was read and not yet passed.
    pub fn ahead(&self) -> &[u8] {
        &self.buffer[self.at..self.end]
    }

    /// Where in the stream `ahead` starts.
    pub fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Whether nothing comes after `ahead`.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Lets the first `n` bytes go.
    pub fn pass(&mut self, n: usize) {
        self.at += n;
        debug_assert!(self.at <= self.end);
    }

    /// Reads until at least `want` bytes are ahead or the stream ends, whatever pieces it comes in.
    pub fn fill(&mut self, want: usize) -> Result<()> {
        while self.end - self.at < want && !self.ended {
            self.make_room(want);
            let room = self.end..self.buffer.len().min(self.end + READ_BYTES);
            match self.input.read(&mut self.buffer[room]) {
                Ok(0) => self.ended = true,
                Ok(n) => self.end += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(stream_error(self.path)(error)),
            }
        }
        Ok(())
    }

    /// Room for a read. What is ahead moves to the front only when a fraction of the buffer has been passed, so that each
    /// byte is moved a bounded number of times even if the stream comes byte by byte.
    fn make_room(&mut self, want: usize) {
        let size = self.buffer.len();
        if size - self.end >= READ_BYTES.min(size / 4).max(1) {
            return;
        }
        self.buffer.copy_within(self.at..self.end, 0);
        self.base += self.at as u64;
        (self.at, self.end) = (0, self.end - self.at);
        if self.end >= size / 2 {
            self.buffer.resize((2 * size).max(FIRST_BYTES).min(want + 2 * READ_BYTES).max(size), 0);
        }
    }
}

/// Bytes to be read forward.
pub(crate) trait Bytes {
    /// Some bytes not yet passed; none at the end alone.
    fn ahead(&mut self) -> Result<&[u8]>;

    /// Lets the first `n` bytes go.
    fn pass(&mut self, n: usize);

    /// Where in the stream `ahead` starts.
    fn offset(&self) -> u64;

    /// The byte that comes next.
    fn peek(&mut self) -> Result<Option<u8>> {
        Ok(self.ahead()?.first().copied())
    }
}

/// Bytes that are all there.
#[derive(Clone, Copy)]
pub(crate) struct Slice<'a> {
    bytes: &'a [u8],
    offset: u64,
}

impl<'a> Slice<'a> {
    /// Bytes that start at `offset` of the stream.
    pub fn new(bytes: &'a [u8], offset: u64) -> Self {
        Slice { bytes, offset }
    }

    /// What was not passed.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

impl Bytes for Slice<'_> {
    fn ahead(&mut self) -> Result<&[u8]> {
        Ok(self.bytes)
    }

    fn pass(&mut self, n: usize) {
        self.bytes = &self.bytes[n..];
        self.offset += n as u64;
    }

    fn offset(&self) -> u64 {
        self.offset
    }
}

/// Bytes of a window that goes on as they are passed, to the end of the stream or of a line.
pub(crate) struct Stream<'w, 'a> {
    window: &'w mut Window<'a>,
    line: bool,
    /// Bytes ahead that are known to belong to it.
    known: usize,
    /// Of a line: where the last byte that was passed and is not white space ends.
    solid_end: u64,
}

impl<'w, 'a> Stream<'w, 'a> {
    /// All that comes.
    pub fn all(window: &'w mut Window<'a>) -> Self {
        Stream { window, line: false, known: 0, solid_end: 0 }
    }

    /// What comes before the next `\n`.
    pub fn line(window: &'w mut Window<'a>) -> Self {
        Stream { solid_end: window.offset(), window, line: true, known: 0 }
    }

    /// Passes all that is left of a line; where it ends but for white space.
    pub fn pass_all(&mut self) -> Result<u64> {
        loop {
            let n = self.ahead()?.len();
            if n == 0 {
                return Ok(self.solid_end);
            }
            self.pass(n);
        }
    }
}

impl Bytes for Stream<'_, '_> {
    fn ahead(&mut self) -> Result<&[u8]> {
        if self.known == 0 {
            if self.window.ahead().is_empty() {
                self.window.fill(READ_BYTES)?;
            }
            let ahead = self.window.ahead();
            let line_end = if self.line { memchr(b'\n', ahead) } else { None };
            self.known = line_end.unwrap_or(ahead.len());
        }
        Ok(&self.window.ahead()[..self.known])
    }

    fn pass(&mut self, n: usize) {
        if self.line
            && let Some(last) = self.window.ahead()[..n].iter().rposition(|byte| !is_space(*byte))
        {
            self.solid_end = self.window.offset() + last as u64 + 1;
        }
        self.window.pass(n);
        self.known -= n;
    }

    fn offset(&self) -> u64 {
        self.window.offset()
    }
}
