//! A buffer over a reader that knows where it stands.

use std::io::{self, Read};

/// Bytes of a reader, looked at before they are taken, and counted.
pub(in crate::sources) struct Counted<R> {
    inner: R,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
    offset: u64,
}

impl<R: Read> Counted<R> {
    pub(in crate::sources) fn new(inner: R, buffer_bytes: usize) -> Self {
        Counted { inner, buffer: vec![0; buffer_bytes].into(), at: 0, end: 0, offset: 0 }
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
        while self.end - self.at < n {
            if self.at > 0 {
                self.buffer.copy_within(self.at..self.end, 0);
                (self.at, self.end) = (0, self.end - self.at);
            }
            let read = retry(|| self.inner.read(&mut self.buffer[self.end..]))?;
            if read == 0 {
                break;
            }
            self.end += read;
        }
        Ok(&self.buffer[self.at..self.end])
    }

    /// Takes `n` of the bytes that were looked at.
    pub(in crate::sources) fn consume(&mut self, n: usize) {
        self.at += n;
        self.offset += n as u64;
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = if self.at == self.end && out.len() >= self.buffer.len() {
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
