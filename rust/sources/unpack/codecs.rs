//! What unpacks one member (gzip), frame (zstd) or stream (xz, bzip2) after another, with every check its format has.

use super::counted::Counted;
use super::kind::Kind;
use bzip2::{Decompress as Bunzip, Status as BzipStatus};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use lzma_rust2::{Action, Status as XzStatus, XzStream};
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, Read};

/// A dictionary of 128 MiB, which is what ruzstd allows of zstd, and what its decoder needs beside, in KiB.
const MAX_XZ_KIB: u32 = (128 << 10) + 1024;

/// Why a member cannot be unpacked.
pub(super) enum Fault {
    /// What is read from failed.
    Io(io::Error),
    /// The input ends before the member does.
    CutShort,
    /// The member contradicts itself or its format.
    Damaged(&'static str),
    /// The member is sound but will not be unpacked.
    Refused(&'static str),
    /// Other bytes follow the last member.
    Trailing,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

/// Unpacks one kind.
pub(super) enum Codec {
    Gzip(Gzip),
    Zstd(Zstd),
    Xz(Xz),
    Bzip2(Bzip2),
}

impl Codec {
    pub(super) fn new(kind: Kind) -> Codec {
        match kind {
            Kind::Gzip => Codec::Gzip(Gzip::new(FlushDecompress::None)),
            Kind::Zstd => Codec::Zstd(Zstd { frame: Box::new(FrameDecoder::new()), unpacked: 0 }),
            Kind::Xz => Codec::Xz(Xz { stream: xz_stream(), ended: false }),
            Kind::Bzip2 => Codec::Bzip2(Bzip2 { stream: Bunzip::new(false), ended: false }),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Codec::Gzip(_) => Kind::Gzip,
            Codec::Zstd(_) => Kind::Zstd,
            Codec::Xz(_) => Kind::Xz,
            Codec::Bzip2(_) => Kind::Bzip2,
        }
    }

    /// Starts the next member; false when the input ends as it may.
    pub(super) fn start<R: Read>(&mut self, from: &mut Counted<R>) -> Result<bool, Fault> {
        let kind = self.kind();
        let padding = from.offset() > 0
            && match kind {
                Kind::Gzip => skip_zeros(from)? > 0,
                Kind::Xz if skip_zeros(from)? % 4 != 0 => return Err(Fault::Damaged("padding that is no multiple of 4 bytes")),
                _ => false,
            };
        let head = from.look(kind.certain_bytes())?;
        if head.is_empty() {
            return Ok(false);
        }
        if !kind.may_begin(head) || padding {
            return Err(Fault::Trailing);
        }
        if head.len() < kind.certain_bytes() {
            return Err(Fault::CutShort);
        }
        match self {
            Codec::Gzip(gzip) => gzip.start(from)?,
            Codec::Zstd(zstd) => return zstd.start(from),
            Codec::Xz(xz) => *xz = Xz { stream: xz_stream(), ended: false },
            Codec::Bzip2(bzip2) => *bzip2 = Bzip2 { stream: Bunzip::new(false), ended: false },
        }
        Ok(true)
    }

    /// Bytes of the open member; 0 once it has ended and its checks have passed.
    pub(super) fn read<R: Read>(&mut self, from: &mut Counted<R>, out: &mut [u8]) -> Result<usize, Fault> {
        match self {
            Codec::Gzip(gzip) => gzip.read(from, out),
            Codec::Zstd(zstd) => zstd.read(from, out),
            Codec::Xz(xz) => xz.read(from, out),
            Codec::Bzip2(bzip2) => bzip2.read(from, out),
        }
    }
}

fn xz_stream() -> Box<XzStream> {
    Box::new(XzStream::new_mem_limit(false, MAX_XZ_KIB))
}

fn skip_zeros<R: Read>(from: &mut Counted<R>) -> io::Result<u64> {
    let start = from.offset();
    loop {
        let ahead = from.more()?;
        let zeros = ahead.iter().take_while(|byte| **byte == 0).count();
        let on = zeros > 0 && zeros == ahead.len();
        from.consume(zeros);
        if !on {
            return Ok(from.offset() - start);
        }
    }
}

fn take<const N: usize, R: Read>(from: &mut Counted<R>) -> Result<[u8; N], Fault> {
    let bytes = *from.look(N)?.first_chunk().ok_or(Fault::CutShort)?;
    from.consume(N);
    Ok(bytes)
}

/// RFC 1952. Its header is read here, so that one inflater serves all members: a WET file has one a page.
pub(super) struct Gzip {
    inflate: Decompress,
    /// Whether output comes in one go, so that no window of it need be kept: `Finish`, which takes a sixth of the time away.
    flush: FlushDecompress,
    content: Crc,
    ended: bool,
}

impl Gzip {
    pub(super) fn new(flush: FlushDecompress) -> Gzip {
        Gzip { inflate: Decompress::new(false), flush, content: Crc::new(), ended: false }
    }

    pub(super) fn start<R: Read>(&mut self, from: &mut Counted<R>) -> Result<(), Fault> {
        let mut header = Crc::new();
        let fixed: [u8; 10] = take(from)?;
        header.update(&fixed);
        let flags = fixed[3];
        if flags & 0xe0 != 0 {
            return Err(Fault::Damaged("a header with unknown flags"));
        }
        if flags & 4 != 0 {
            let length: [u8; 2] = take(from)?;
            header.update(&length);
            for _ in 0..u16::from_le_bytes(length) {
                header.update(&take::<1, R>(from)?);
            }
        }
        for flag in [8, 16] {
            let mut byte = [u8::from(flags & flag != 0)];
            while byte != [0] {
                byte = take(from)?;
                header.update(&byte);
            }
        }
        if flags & 2 != 0 && u16::from_le_bytes(take(from)?) != header.sum() as u16 {
            return Err(Fault::Damaged("a header that its checksum does not fit"));
        }
        self.inflate.reset(false);
        self.content.reset();
        self.ended = false;
        Ok(())
    }

    pub(super) fn read<R: Read>(&mut self, from: &mut Counted<R>, out: &mut [u8]) -> Result<usize, Fault> {
        if self.ended {
            return Ok(0);
        }
        let (n, ended) = inflate(&mut self.inflate, from, out, self.flush)?;
        self.content.update(&out[..n]);
        if ended {
            self.ended = true;
            let (sum, length) = (u32::from_le_bytes(take(from)?), u32::from_le_bytes(take(from)?));
            if (sum, length) != (self.content.sum(), self.content.amount()) {
                return Err(Fault::Damaged("content that its checksum does not fit"));
            }
        }
        Ok(n)
    }
}

/// Bytes of raw deflate data, and whether they are the last. None without being the last is only for want of room.
pub(super) fn inflate<R: Read>(
    inflate: &mut Decompress,
    from: &mut Counted<R>,
    out: &mut [u8],
    flush: FlushDecompress,
) -> Result<(usize, bool), Fault> {
    loop {
        let input = from.more()?;
        let at_end = input.is_empty();
        let before = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(input, out, flush).map_err(|_| Fault::Damaged("codes that deflate does not have"))?;
        let n = (inflate.total_out() - before.1) as usize;
        from.consume((inflate.total_in() - before.0) as usize);
        let ended = status == Status::StreamEnd;
        if ended || n > 0 || out.is_empty() {
            return Ok((n, ended));
        }
        if at_end {
            return Err(Fault::CutShort);
        }
    }
}

/// RFC 8878.
pub(super) struct Zstd {
    frame: Box<FrameDecoder>,
    unpacked: u64,
}

impl Zstd {
    fn start<R: Read>(&mut self, from: &mut Counted<R>) -> Result<bool, Fault> {
        while from.look(4)?.get(..4).is_some_and(|magic| magic != b"\x28\xb5\x2f\xfd") {
            if !Kind::Zstd.may_begin(from.look(4)?) {
                return Err(Fault::Trailing);
            }
            let [_, _, _, _, length @ ..]: [u8; 8] = take(from)?;
            let length = u64::from(u32::from_le_bytes(length));
            if io::copy(&mut from.by_ref().take(length), &mut io::sink())? < length {
                return Err(Fault::CutShort);
            }
        }
        if from.more()?.is_empty() {
            return Ok(false);
        }
        self.unpacked = 0;
        Watched::new(from).run(|from| self.frame.reset(from))?;
        Ok(true)
    }

    fn read<R: Read>(&mut self, from: &mut Counted<R>, out: &mut [u8]) -> Result<usize, Fault> {
        while self.frame.can_collect() == 0 && !self.frame.is_finished() {
            Watched::new(from).run(|from| self.frame.decode_blocks(from, BlockDecodingStrategy::UptoBlocks(1)))?;
        }
        let n = self.frame.read(out)?;
        self.unpacked += n as u64;
        if self.frame.is_finished() && self.frame.can_collect() == 0 {
            let promised = self.frame.content_size();
            let sum = self.frame.get_checksum_from_data();
            if sum.is_some() && sum != self.frame.get_calculated_checksum() {
                return Err(Fault::Damaged("content that its checksum does not fit"));
            }
            if promised > 0 && promised != self.unpacked {
                return Err(Fault::Damaged("content of another length than promised"));
            }
        }
        Ok(n)
    }
}

/// A reader for a decoder that keeps the errors of its input to itself.
struct Watched<'a, R> {
    from: &'a mut Counted<R>,
    failed: Option<io::Error>,
    ended: bool,
}

impl<'a, R: Read> Watched<'a, R> {
    fn new(from: &'a mut Counted<R>) -> Self {
        Watched { from, failed: None, ended: false }
    }

    fn run<T>(mut self, decode: impl FnOnce(&mut Self) -> Result<T, FrameDecoderError>) -> Result<T, Fault> {
        decode(&mut self).map_err(|error| match error {
            _ if self.failed.is_some() => self.failed.take().map_or(Fault::CutShort, Fault::Io),
            _ if self.ended => Fault::CutShort,
            FrameDecoderError::WindowSizeTooBig { .. } => Fault::Refused("a window of more than 128 MiB"),
            FrameDecoderError::DictNotProvided { .. } => Fault::Refused("a dictionary kept elsewhere"),
            _ => Fault::Damaged("a block that zstd does not have"),
        })
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.from.read(out) {
            Ok(n) => {
                self.ended |= n == 0 && !out.is_empty();
                Ok(n)
            }
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

/// The .xz file format 1.2.1.
pub(super) struct Xz {
    stream: Box<XzStream>,
    ended: bool,
}

impl Xz {
    fn read<R: Read>(&mut self, from: &mut Counted<R>, out: &mut [u8]) -> Result<usize, Fault> {
        while !self.ended {
            let input = from.more()?;
            let at_end = input.is_empty();
            let step = self.stream.process(input, out, Action::Run).map_err(|error| match error.kind() {
                io::ErrorKind::OutOfMemory => Fault::Refused("a dictionary of more than 128 MiB"),
                io::ErrorKind::Unsupported => Fault::Refused("a filter or check that is not read"),
                _ => Fault::Damaged("content that its format or its checksum does not fit"),
            })?;
            from.consume(step.bytes_consumed);
            self.ended = step.status == XzStatus::StreamEnd;
            if step.bytes_produced > 0 || out.is_empty() {
                return Ok(step.bytes_produced);
            }
            if at_end && !self.ended {
                return Err(Fault::CutShort);
            }
        }
        Ok(0)
    }
}

/// The format of bzip2 1.0.
pub(super) struct Bzip2 {
    stream: Bunzip,
    ended: bool,
}

impl Bzip2 {
    fn read<R: Read>(&mut self, from: &mut Counted<R>, out: &mut [u8]) -> Result<usize, Fault> {
        while !self.ended {
            let input = from.more()?;
            let at_end = input.is_empty();
            let before = (self.stream.total_in(), self.stream.total_out());
            let status =
                self.stream.decompress(input, out).map_err(|_| Fault::Damaged("content that its format or its checksum does not fit"))?;
            let n = (self.stream.total_out() - before.1) as usize;
            from.consume((self.stream.total_in() - before.0) as usize);
            self.ended = status == BzipStatus::StreamEnd;
            if n > 0 || out.is_empty() {
                return Ok(n);
            }
            if at_end && !self.ended {
                return Err(Fault::CutShort);
            }
        }
        Ok(0)
    }
}
