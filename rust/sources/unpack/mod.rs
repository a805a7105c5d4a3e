//! Packed data -> plain bytes, as they are read. What packs them is told from the data, not from the name.
//!
//! Damage never shortens the content in silence: data cut short anywhere, a checksum that does not fit and bytes after the
//! end are errors that name the place in the packed data.

mod ahead;
mod codecs;
mod counted;
mod kind;

use ahead::Ahead;
use codecs::{Codec, Fault};
use flate2::FlushDecompress;
use kind::Kind;
use std::io::{self, Read};
use std::path::Path;

pub(super) use counted::{Counted, retry};

/// Bytes that any packed data may become.
const FREE_BYTES: u64 = 1 << 30;
/// Times its own size that packed data may become beyond that; text reaches a tenth of it.
const MAX_RATIO: u64 = 2000;
/// Bytes read at once.
const BUFFER_BYTES: usize = 128 << 10;

/// The plain bytes of what may be packed.
pub(super) struct Unpacker<R> {
    raw: Counted<R>,
    codec: Option<Box<Codec>>,
    ahead: Option<Box<Ahead>>,
    /// Whether a member is open.
    open: bool,
    /// Whether nothing follows.
    done: bool,
    failed: bool,
    unpacked: u64,
    free_bytes: u64,
}

impl<R: Read> Unpacker<R> {
    /// Looks at the first bytes. `name` only tells data cut short within these from others.
    pub(super) fn new(raw: R, name: &Path) -> io::Result<Self> {
        let mut raw = Counted::new(raw, BUFFER_BYTES);
        let head = raw.look(10)?;
        let kind = Kind::of(head);
        if let Some(named) = Kind::named(name).filter(|named| kind.is_none() && head.len() < named.certain_bytes() && named.may_begin(head))
        {
            let (kind, length) = (named.name(), head.len());
            return Err(cut_short(format!("{length} bytes are no whole {kind} data, as its name promises; fetch it again")));
        }
        let codec = kind.map(|kind| Box::new(Codec::new(kind)));
        Ok(Unpacker { raw, codec, ahead: None, open: false, done: false, failed: false, unpacked: 0, free_bytes: FREE_BYTES })
    }

    /// Lets so many threads unpack what comes in many members of gzip.
    pub(super) fn use_threads(&mut self, threads: usize) {
        let is_gzip = self.codec.as_ref().is_some_and(|codec| codec.kind() == Kind::Gzip);
        self.ahead = (is_gzip && threads > 1).then(|| Box::new(Ahead::new(threads)));
    }

    /// Whether the data are packed.
    pub(super) fn is_packed(&self) -> bool {
        self.codec.is_some()
    }

    /// What is unpacked.
    pub(super) fn raw(&self) -> &R {
        self.raw.inner()
    }

    fn unpack(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        let Some(codec) = &mut self.codec else { return Ok(self.raw.read(out)?) };
        while !self.done {
            if let Some(ahead) = self.ahead.as_mut().filter(|_| !self.open) {
                let n = ahead.read(&mut self.raw, out)?;
                if n > 0 {
                    self.unpacked += n as u64;
                    return Ok(n);
                }
            }
            if !self.open && !codec.start(&mut self.raw)? {
                self.done = true;
                break;
            }
            self.open = true;
            let n = codec.read(&mut self.raw, out)?;
            if n > 0 {
                self.unpacked += n as u64;
                return Ok(n);
            }
            self.open = false;
        }
        Ok(0)
    }

    fn error(&self, fault: Fault) -> io::Error {
        // What is not packed has no faults but those of reading.
        let kind = self.codec.as_ref().map_or(Kind::Gzip, |codec| codec.kind());
        let (name, unit, at) = (kind.name(), kind.unit(), self.raw.offset());
        match fault {
            Fault::Io(error) => error,
            Fault::CutShort => {
                cut_short(format!("the {name} data end within a {unit} at byte {at}: the file is cut short; fetch it again"))
            }
            Fault::Damaged(what) => damaged(format!("the {name} data are damaged at or before byte {at} ({what}); fetch it again")),
            Fault::Refused(what) => damaged(format!("the {name} data need {what} at byte {at}; unpack the file by hand")),
            Fault::Trailing => {
                damaged(format!("the {name} data end at byte {at} but other bytes follow; cut those off or fetch the file again"))
            }
        }
    }
}

impl<R: Read> Read for Unpacker<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(damaged("damaged further up".into()));
        }
        if out.is_empty() {
            return Ok(0);
        }
        let result = self.unpack(out).map_err(|fault| self.error(fault)).and_then(|n| {
            // With members ahead more is packed than was unpacked; gzip comes not near the ratio in any case.
            let (unpacked, packed) = (self.unpacked, self.raw.offset());
            if unpacked > self.free_bytes.saturating_add(packed.saturating_mul(MAX_RATIO)) {
                let free = self.free_bytes;
                return Err(damaged(format!(
                    "{packed} packed bytes become {unpacked} and more, over {free} + {MAX_RATIO} for each: a bomb; if it is sound, unpack it by hand"
                )));
            }
            Ok(n)
        });
        self.failed = result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        result
    }
}

/// What packs `head`, if anything does.
pub(super) fn is_packed(head: &[u8]) -> bool {
    Kind::of(head).is_some()
}

/// Raw deflate data, as a zip archive holds them.
pub(super) struct Inflated<R> {
    raw: Counted<R>,
    inflate: flate2::Decompress,
    ended: bool,
}

impl<R: Read> Inflated<R> {
    pub(super) fn new(raw: R) -> Self {
        Inflated { raw: Counted::new(raw, BUFFER_BYTES), inflate: flate2::Decompress::new(false), ended: false }
    }
}

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let (n, ended) = codecs::inflate(&mut self.inflate, &mut self.raw, out, FlushDecompress::None).map_err(|fault| match fault {
            Fault::Io(error) => error,
            _ => damaged(format!("the deflate data are damaged at or before byte {}; fetch the archive again", self.raw.offset())),
        })?;
        self.ended = ended;
        if ended && !self.raw.more()?.is_empty() {
            return Err(damaged(format!(
                "the deflate data end at byte {} but other bytes follow; fetch the archive again",
                self.raw.offset()
            )));
        }
        Ok(n)
    }
}

pub(super) fn damaged(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

pub(super) fn cut_short(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

#[cfg(test)]
mod tests;
