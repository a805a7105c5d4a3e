//! A buffer over a reader that knows where it stands.

use std::io::{self, Read};

/// Bytes of a reader, looked at before they are taken, and counted.
pub(in crate::sources) struct Counted<R> {
    inner: R,
    buffer: Vec<u8>,
    /// Length of the buffer, unless it holds more that was given back; 0 where it holds all that there is.
    buffer_bytes: usize,
    at: usize,
    end: usize,
    offset: u64,
    /// Why what lies behind the buffer could not be read, until somebody needs it.
    failed: Option<io::Error>,
}

impl Counted<io::Empty> {
    /// Bytes that are all there.
    pub(in crate::sources) fn of(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Counted { inner: io::empty(), buffer: bytes, buffer_bytes: 0, at: 0, end, offset: 0, failed: None }
    }

    /// All of them, taken or not.
    pub(in crate::sources) fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }
}

impl<R: Read> Counted<R> {
    pub(in crate::sources) fn new(inner: R, buffer_bytes: usize) -> Self {
        Counted { inner, buffer: vec![0; buffer_bytes], buffer_bytes, at: 0, end: 0, offset: 0, failed: None }
    }

    /// Bytes taken so far.
    pub(in crate::sources) fn offset(&self) -> u64 {
        self.offset
    }

    pub(in crate::sources) fn inner(&self) -> &R {
        &self.inner
    }

    /// Some bytes ahead; none only at the end.
    pub(in crate::sources) fn more(&mut self) -> io::Result<&[u8]> {
        self.look(1)
    }

    /// The bytes ahead: `n` or more, or all that are left. `n` is far smaller than the buffer.
    pub(in crate::sources) fn look(&mut self, n: usize) -> io::Result<&[u8]> {
        while self.end - self.at < n && self.buffer_bytes > 0 {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.at > 0 {
                self.buffer.copy_within(self.at..self.end, 0);
                (self.at, self.end) = (0, self.end - self.at);
                self.buffer.truncate(self.buffer_bytes.max(self.end));
            }
            let read = retry(|| self.inner.read(&mut self.buffer[self.end..]))?;
            if read == 0 {
                break;
            }
            self.end += read;
        }
        Ok(&self.buffer[self.at..self.end])
    }

    /// Takes bytes until `bytes` holds `n` of them; fewer at the end, or before what cannot be read, which is an error once
    /// it is needed.
    pub(in crate::sources) fn take_up_to(&mut self, bytes: &mut Vec<u8>, n: usize) {
        let wanted = n.saturating_sub(bytes.len());
        let held = wanted.min(self.end - self.at);
        bytes.extend_from_slice(&self.buffer[self.at..self.at + held]);
        self.consume(held);
        if held == wanted || self.failed.is_some() {
            return;
        }
        let before = bytes.len();
        // What was read before an error is in `bytes`, and a signal is no error.
        self.failed = self.inner.by_ref().take((wanted - held) as u64).read_to_end(bytes).err();
        self.offset += (bytes.len() - before) as u64;
    }

    /// Puts bytes back that were taken last, before all others.
    pub(in crate::sources) fn give_back(&mut self, mut bytes: Vec<u8>) {
        self.offset -= bytes.len() as u64;
        bytes.extend_from_slice(&self.buffer[self.at..self.end]);
        (self.at, self.end) = (0, bytes.len());
        bytes.resize(self.end.max(self.buffer_bytes), 0);
        self.buffer = bytes;
    }

    /// Takes `n` of the bytes that were looked at.
    pub(in crate::sources) fn consume(&mut self, n: usize) {
        self.at += n;
        self.offset += n as u64;
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = if self.at == self.end && out.len() >= self.buffer.len() && self.failed.is_none() {
            let n = self.inner.read(out)?;
            self.offset += n as u64;
            return Ok(n);
        } else {
            let ahead = self.more()?;
            let n = ahead.len().min(out.len());
            out[..n].copy_from_slice(&ahead[..n]);
            n
        };
        self.consume(n);
        Ok(n)
    }
}

/// Reads again after a signal.
pub(in crate::sources) fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
