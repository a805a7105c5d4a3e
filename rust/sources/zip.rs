//! Reading zip archives: the directory at their end first, then all of the file from front to back.

use super::archives::{EachMember, hand_on};
use super::records::stream_error;
use super::streams::{Raw, RawFacts};
use super::unpack::{Counted, Inflated, Unpacker, cut_short, damaged};
use crate::error::{Error, Result};
use flate2::Crc;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// A directory of half a million members; it is held in memory.
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;
/// The end record and the longest comment that may follow it.
const MAX_END_BYTES: u64 = 22 + 0xffff;
const BUFFER_BYTES: usize = 128 << 10;
/// Bytes that members may become; see the bound of other packed data.
const FREE_BYTES: u64 = 1 << 30;
const MAX_RATIO: u64 = 2000;

struct Entry {
    name: Vec<u8>,
    method: u16,
    flags: u16,
    crc: u32,
    packed: u64,
    unpacked: u64,
    /// Where its own header stands.
    at: u64,
}

/// Calls `each` with every regular file of a zip archive, as [`super::archives::each_member`].
pub(super) fn each_member(path: &Path, stop: &Arc<AtomicBool>, consumed: &Arc<AtomicU64>, each: &mut EachMember) -> Result<RawFacts> {
    let error = stream_error(path);
    let mut file = File::open(path).map_err(&error)?;
    let mut entries = directory(&mut file).map_err(&error)?;
    entries.sort_by_key(|entry| entry.at);
    file.rewind().map_err(&error)?;
    let mut from = Counted::new(Raw::new(Box::new(file), stop, consumed), BUFFER_BYTES);
    let mut offset = 0;
    for entry in entries {
        let named = |what: &str| Error::Format(format!("{}/{}: {what}", path.display(), String::from_utf8_lossy(&entry.name)));
        if entry.flags & 0x41 != 0 {
            return Err(named("encrypted; unpack the archive by hand"));
        }
        if entry.unpacked > FREE_BYTES.saturating_add(entry.packed.saturating_mul(MAX_RATIO)) {
            let (packed, unpacked) = (entry.packed, entry.unpacked);
            let bound = format!("{packed} packed bytes become {unpacked}, over {FREE_BYTES} + {MAX_RATIO} for each");
            return Err(named(&format!("{bound}: a bomb; if it is sound, unpack it by hand")));
        }
        go_to(&mut from, &entry).map_err(&error)?;
        let packed = Packed { from: &mut from, left: entry.packed };
        let content: Box<dyn Read> = match entry.method {
            0 => Box::new(packed),
            8 => Box::new(Inflated::new(packed)),
            12 | 93 | 95 => {
                let unpacker = Unpacker::new(packed, path).map_err(&error)?;
                if !unpacker.is_packed() {
                    return Err(named("damaged: not packed as its header says; fetch the archive again"));
                }
                Box::new(unpacker)
            }
            method => return Err(named(&format!("packed by method {method}, which is not read; pack it anew by deflate"))),
        };
        let mut checked = Checked { content, entry: &entry, crc: Crc::new(), bytes: 0 };
        offset += hand_on(path, &entry.name, offset, &mut checked, each)?;
    }
    io::copy(&mut from, &mut io::sink()).map_err(&error)?;
    Ok(from.inner().facts())
}

/// The regular files of an archive.
fn directory(file: &mut File) -> io::Result<Vec<Entry>> {
    let length = file.seek(SeekFrom::End(0))?;
    let end = find_end(file, length)?;
    let misplaced =
        || damaged(format!("its directory is not at byte {} as its end says: it is cut short or damaged; fetch it again", end.at));
    if end.bytes > MAX_DIRECTORY_BYTES {
        return Err(damaged(format!(
            "its directory takes {} bytes, {MAX_DIRECTORY_BYTES} at most are read; unpack the archive by hand",
            end.bytes
        )));
    }
    if end.at.checked_add(end.bytes).is_none_or(|after| after > length) {
        return Err(misplaced());
    }
    let mut records = vec![0; end.bytes as usize];
    file.seek(SeekFrom::Start(end.at))?;
    file.read_exact(&mut records)?;
    let (mut rest, mut entries, mut count) = (&records[..], Vec::new(), 0);
    while !rest.is_empty() {
        let (entry, after) = directory_entry(rest).ok_or_else(misplaced)?;
        rest = after;
        count += 1;
        entries.extend(entry);
    }
    // Archives of more than 65,535 members made by old programs count modulo 65,536.
    if count % (1 << 16) != end.members % (1 << 16) {
        return Err(damaged(format!("its directory has {count} members but its end promises {}; fetch it again", end.members)));
    }
    Ok(entries)
}

struct End {
    at: u64,
    bytes: u64,
    members: u64,
}

fn find_end(file: &mut File, length: u64) -> io::Result<End> {
    let start = length.saturating_sub(MAX_END_BYTES);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(MAX_END_BYTES).read_to_end(&mut tail)?;
    let is_end = |at: &usize| u16_at(&tail, at + 20).is_some_and(|comment| at + 22 + usize::from(comment) == tail.len());
    let Some(at) = memchr::memmem::rfind_iter(&tail, b"PK\x05\x06").find(is_end) else {
        return Err(cut_short(format!(
            "no end of a zip archive in {length} bytes: it is cut short, or other bytes follow; fetch it again"
        )));
    };
    let record = &tail[at..];
    let short = |i| u16_at(record, i).map_or(0, u64::from);
    let long = |i| u32_at(record, i).map_or(0, u64::from);
    let end = End { members: short(10), bytes: long(12), at: long(16) };
    if end.members < 0xffff && end.bytes < 0xffff_ffff && end.at < 0xffff_ffff {
        return if short(4) == 0 && short(6) == 0 { Ok(end) } else { Err(damaged("one of several volumes; join them first".into())) };
    }
    zip64_end(file, &tail[..at]).map(|wide| wide.unwrap_or(end))
}

/// The end record of the wide form, if there is one; its locator stands right before the other's end record.
fn zip64_end(file: &mut File, before: &[u8]) -> io::Result<Option<End>> {
    let locator = before.len().checked_sub(20).map(|at| &before[at..]).filter(|locator| locator.starts_with(b"PK\x06\x07"));
    let Some(at) = locator.and_then(|locator| u64_at(locator, 8)) else { return Ok(None) };
    let mut record = [0; 56];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut record)?;
    match (u64_at(&record, 32), u64_at(&record, 40), u64_at(&record, 48)) {
        (Some(members), Some(bytes), Some(at)) if record.starts_with(b"PK\x06\x06") => Ok(Some(End { at, bytes, members })),
        _ => Err(damaged(format!("no end record at byte {at} as its locator says; fetch it again"))),
    }
}

/// The first entry of a directory, if it is a regular file, and what follows it.
fn directory_entry(record: &[u8]) -> Option<(Option<Entry>, &[u8])> {
    let short = |at| u16_at(record, at);
    let long = |at| u32_at(record, at);
    if !record.starts_with(b"PK\x01\x02") {
        return None;
    }
    let (name, extra, comment) = (usize::from(short(28)?), usize::from(short(30)?), usize::from(short(32)?));
    let after = record.get(46 + name + extra + comment..)?;
    let mut wide = wide_fields(&record[46 + name..46 + name + extra]);
    let mut field = |narrow: u32| if narrow == u32::MAX { wide.next() } else { Some(u64::from(narrow)) };
    let (unpacked, packed, at) = (field(long(24)?)?, field(long(20)?)?, field(long(42)?)?);
    let name = record[46..46 + name].to_vec();
    // Where Unix wrote it, the upper half of its attributes says what kind of file it is; 0xa is a link.
    let is_link = record[5] == 3 && long(38)? >> 28 == 0xa;
    let is_file = !name.ends_with(b"/") && !is_link;
    let entry = Entry { name, method: short(10)?, flags: short(8)?, crc: long(16)?, packed, unpacked, at };
    Some((is_file.then_some(entry), after))
}

/// The wide forms of those numbers that are too large for their fields, in order.
fn wide_fields(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut found: &[u8] = &[];
    while let (Some(tag), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let end = extra.len().min(4 + usize::from(length));
        if tag == 1 {
            found = &extra[4..end];
        }
        extra = &extra[end..];
    }
    (0..found.len() / 8).filter_map(|i| u64_at(found, 8 * i))
}

/// Goes on to where the content of an entry begins.
fn go_to(from: &mut Counted<Raw>, entry: &Entry) -> io::Result<()> {
    let here = from.offset();
    let misplaced = |at| damaged(format!("no member begins at byte {at} as its directory says: it is damaged; fetch it again"));
    let skip = entry.at.checked_sub(here).ok_or_else(|| misplaced(entry.at))?;
    io::copy(&mut from.by_ref().take(skip), &mut io::sink())?;
    let header: [u8; 30] = *from.look(30)?.first_chunk().ok_or_else(|| misplaced(entry.at))?;
    if !header.starts_with(b"PK\x03\x04") {
        return Err(misplaced(entry.at));
    }
    from.consume(30);
    let rest: u64 = [26, 28].into_iter().filter_map(|i| u16_at(&header, i)).map(u64::from).sum();
    io::copy(&mut from.by_ref().take(rest), &mut io::sink()).map(drop)
}

/// The packed bytes of one member, exactly so many, or an error.
struct Packed<'a> {
    from: &'a mut Counted<Raw>,
    left: u64,
}

impl Read for Packed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.from.read(&mut out[..want])?;
        if n == 0 && want > 0 {
            let at = self.from.offset();
            return Err(cut_short(format!("the zip archive ends within this member at byte {at}: it is cut short; fetch it again")));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// The content of one member, held against what the directory says of it.
struct Checked<'a> {
    content: Box<dyn Read + 'a>,
    entry: &'a Entry,
    crc: Crc,
    bytes: u64,
}

impl Read for Checked<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(out)?;
        self.crc.update(&out[..n]);
        self.bytes += n as u64;
        let ended = n == 0 && !out.is_empty();
        let promised = self.entry.unpacked;
        if self.bytes > promised || (ended && self.bytes < promised) {
            return Err(damaged(format!("{} bytes where the directory promises {promised}; fetch the archive again", self.bytes)));
        }
        if ended && self.crc.sum() != self.entry.crc {
            return Err(damaged(format!("the content before byte {} does not fit its checksum; fetch the archive again", self.bytes)));
        }
        Ok(n)
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}
