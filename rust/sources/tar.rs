//! Reading tar archives: POSIX (ustar and pax), GNU and old ones.

use super::records::stream_error;
use super::unpack::{Counted, cut_short, damaged};
use crate::error::Result;
use std::io::{self, Read};
use std::path::Path;

const BLOCK_BYTES: usize = 512;
/// A name or a set of pax attributes longer than this is no one's.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
const BUFFER_BYTES: usize = 64 << 10;

type EachFile<'a> = dyn FnMut(&[u8], &mut dyn Read) -> Result<()> + 'a;

/// Calls `each` with the name and the content of every regular file.
///
/// # Errors
///
/// The archive is damaged or cut short, or what `each` returns.
pub(super) fn each_file(stream: &mut dyn Read, name: &Path, each: &mut EachFile) -> Result<()> {
    let mut tar = Tar { from: Counted::new(stream, BUFFER_BYTES) };
    while let Some(entry) = tar.entry().map_err(stream_error(name))? {
        let mut content = Content { tar: &mut tar, left: entry.bytes };
        if entry.is_file {
            each(&entry.name, &mut content)?;
        }
        content.skip(entry.bytes.wrapping_neg() % BLOCK_BYTES as u64).map_err(stream_error(name))?;
    }
    tar.check_end().map_err(stream_error(name))
}

struct Tar<'a> {
    from: Counted<&'a mut dyn Read>,
}

struct Entry {
    name: Vec<u8>,
    bytes: u64,
    is_file: bool,
}

impl Tar<'_> {
    fn cut_short(&self) -> io::Error {
        cut_short(format!(
            "the tar archive ends at byte {} without its end mark: the file is cut short; fetch it again",
            self.from.offset()
        ))
    }

    fn damaged(&self, what: &str) -> io::Error {
        damaged(format!("the tar archive is damaged at or before byte {} ({what}); fetch it again", self.from.offset()))
    }

    /// The next entry of any type, what describes it taken in; none at the end mark.
    fn entry(&mut self) -> io::Result<Option<Entry>> {
        let (mut long_name, mut pax) = (None, Attributes::default());
        loop {
            let block: Option<[u8; BLOCK_BYTES]> = self.from.look(BLOCK_BYTES)?.first_chunk().copied();
            let Some(header) = block else { return Err(self.cut_short()) };
            if header.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            if !checksum_fits(&header) {
                return Err(self.damaged("a header that its checksum does not fit"));
            }
            self.from.consume(BLOCK_BYTES);
            let bytes = number(&header[124..136]).ok_or_else(|| self.damaged("a size that is no number"))?;
            match header[156] {
                b'L' => long_name = Some(until_zero(&self.extension(bytes)?).to_vec()),
                b'x' => pax = attributes(&self.extension(bytes)?).ok_or_else(|| self.damaged("pax attributes that are none"))?,
                b'K' | b'g' => drop(self.extension(bytes)?),
                kind => {
                    if kind == b'S' || pax.is_sparse {
                        return Err(damaged(format!(
                            "a file with holes at byte {} is not read; unpack the archive by hand",
                            self.from.offset()
                        )));
                    }
                    let name = pax.name.take().or(long_name.take()).unwrap_or_else(|| short_name(&header));
                    let is_file = matches!(kind, 0 | b'0' | b'7') && !name.ends_with(b"/");
                    // Links, devices and folders have no content, whatever their size says.
                    let bytes = if (b'1'..=b'6').contains(&kind) { 0 } else { pax.bytes.unwrap_or(bytes) };
                    return Ok(Some(Entry { name, bytes, is_file }));
                }
            }
        }
    }

    /// The content of an entry that describes the next.
    fn extension(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        if bytes > MAX_EXTENSION_BYTES {
            return Err(self.damaged("a name of more than 1 MiB"));
        }
        let (mut all, mut content) = (Vec::new(), Content { tar: self, left: bytes });
        content.read_to_end(&mut all)?;
        content.skip(bytes.wrapping_neg() % BLOCK_BYTES as u64)?;
        Ok(all)
    }

    /// Nothing but zeros follows the end mark.
    fn check_end(&mut self) -> io::Result<()> {
        loop {
            let ahead = self.from.more()?;
            let length = ahead.len();
            if let Some(other) = ahead.iter().position(|byte| *byte != 0) {
                let at = self.from.offset() + other as u64;
                return Err(damaged(format!(
                    "the tar archive ends before byte {at} but other bytes follow; cut those off or fetch the file again"
                )));
            }
            if length == 0 {
                return Ok(());
            }
            self.from.consume(length);
        }
    }
}

/// The content of an entry: exactly its bytes, or an error.
struct Content<'a, 'b> {
    tar: &'a mut Tar<'b>,
    left: u64,
}

impl Content<'_, '_> {
    /// Passes over what is left, and the padding behind.
    fn skip(&mut self, padding: u64) -> io::Result<()> {
        self.left += padding;
        io::copy(self, &mut io::sink()).map(drop)
    }
}

impl Read for Content<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.tar.from.read(&mut out[..want])?;
        if n == 0 && want > 0 {
            return Err(self.tar.cut_short());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

fn checksum_fits(header: &[u8; BLOCK_BYTES]) -> bool {
    let byte = |i: usize| if (148..156).contains(&i) { b' ' } else { header[i] };
    let unsigned: u64 = (0..BLOCK_BYTES).map(|i| u64::from(byte(i))).sum();
    // Some old programs added signed bytes.
    let signed: i64 = (0..BLOCK_BYTES).map(|i| i64::from(byte(i).cast_signed())).sum();
    number(&header[148..156]).is_some_and(|sum| sum == unsigned || i64::try_from(sum) == Ok(signed))
}

/// A number in octal digits, or in binary after a byte 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field[1..].split_last_chunk()?;
        let fits = field[0] == 0x80 && high.iter().all(|byte| *byte == 0);
        return Some(u64::from_be_bytes(*low)).filter(|n| fits && *n < 1 << 62);
    }
    let digits = until_zero(field).trim_ascii();
    digits.iter().try_fold(0u64, |n, digit| (b'0'..=b'7').contains(digit).then(|| n * 8 + u64::from(digit - b'0')))
}

fn until_zero(field: &[u8]) -> &[u8] {
    &field[..memchr::memchr(0, field).unwrap_or(field.len())]
}

fn short_name(header: &[u8; BLOCK_BYTES]) -> Vec<u8> {
    let (name, prefix) = (until_zero(&header[..100]), until_zero(&header[345..500]));
    // GNU keeps other things where POSIX has the prefix.
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
}

#[derive(Default)]
struct Attributes {
    name: Option<Vec<u8>>,
    bytes: Option<u64>,
    is_sparse: bool,
}

/// Records "length key=value\n".
fn attributes(mut records: &[u8]) -> Option<Attributes> {
    let mut found = Attributes::default();
    while !records.is_empty() {
        let space = memchr::memchr(b' ', records)?;
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = memchr::memchr(b'=', record)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => found.name = Some(value.to_vec()),
            b"size" => found.bytes = Some(std::str::from_utf8(value).ok()?.parse().ok().filter(|bytes| *bytes < 1 << 62)?),
            _ => found.is_sparse |= key.starts_with(b"GNU.sparse."),
        }
        records = &records[length..];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b" 644 \0\0\0", Some(0o644)),
            (b"77777777777\0", Some(0o777_7777_7777)),
            (b"0009\0", None),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(2 << 32)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }

    #[test]
    fn pax_attributes_are_read() {
        let found = attributes(b"17 path=a b/\xc3\xa9.t\n12 size=123\n22 GNU.sparse.major=1\n").unwrap();
        assert_eq!((found.name.as_deref(), found.bytes, found.is_sparse), (Some(&b"a b/\xc3\xa9.t"[..]), Some(123), true));
        assert!(attributes(b"99 path=a\n").is_none() && attributes(b"0 path=a\n").is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(blocks in prop::collection::vec(any::<u8>(), 0..3000), records in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = each_file(&mut &blocks[..], Path::new("a.tar"), &mut |_, _| Ok(()));
            let _ = attributes(&records);
        }
    }
}
