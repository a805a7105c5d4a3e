//! The members of tar and zip archives, one after another, without unpacking the archive to anywhere.

use super::formats::Format;
use super::records::stream_error;
use super::streams::{RawFacts, Stream, binary_at, read_head};
use super::unpack::Unpacker;
use super::{tar, zip};
use crate::error::{Error, Result};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// A file in an archive. What its reader gives is unpacked if it was packed by itself.
pub struct Member<'a> {
    /// The archive's path and the member's name, for messages; nothing is written there.
    pub path: PathBuf,
    /// Plain bytes of the members before it: where its first byte stands in all members' contents joined, those that were
    /// UTF-16 as UTF-8 if that is longer.
    pub offset: u64,
    /// The first plain bytes, 8 KiB where there are as many; the reader begins with them.
    pub head: Vec<u8>,
    /// Its plain bytes. What is left unread is read, and checked, after the call.
    pub reader: &'a mut dyn Read,
}

impl Member<'_> {
    /// The format of its records, if its ending is one that folders are searched for and it is text; else it is passed over.
    #[must_use]
    pub fn text_format(&self) -> Option<Format> {
        let format = Format::known(&self.path).filter(|format| !matches!(format, Format::Tar | Format::Zip | Format::Parquet));
        format.filter(|_| binary_at(&self.head).is_none())
    }
}

/// Takes each member in its turn, and gives the bytes of its text: they are more than its own where that was UTF-16, and the
/// places of the next member's come after them.
pub type EachMember<'a> = dyn FnMut(Member) -> Result<u64> + 'a;

/// Calls `each` with every regular file in an archive, in the order in which they stand there. Folders, links and devices
/// are passed over.
///
/// # Errors
///
/// The archive cannot be read or is damaged, cut short, encrypted or not of this format; or what `each` returns.
pub fn each_member(
    path: &Path,
    format: Format,
    stop: &Arc<AtomicBool>,
    consumed: &Arc<AtomicU64>,
    each: &mut EachMember,
) -> Result<RawFacts> {
    match format {
        Format::Zip => zip::each_member(path, stop, consumed, each),
        Format::Tar => {
            let mut stream = Stream::open(path, stop, consumed)?;
            each_tar_member(&mut stream, path, each)?;
            stream.finish().map_err(stream_error(path))
        }
        _ => Err(Error::Invalid(format!("{}: {} is no format of archives; use tar or zip", path.display(), format.name()))),
    }
}

/// The same for a tar archive from any stream, such as standard input; `name` stands for it.
///
/// # Errors
///
/// As [`each_member`].
pub fn each_tar_member(stream: &mut dyn Read, name: &Path, each: &mut EachMember) -> Result<()> {
    let mut offset = 0;
    tar::each_file(stream, name, &mut |member, content| {
        offset += hand_on(name, member, offset, content, each)?;
        Ok(())
    })
}

/// Unpacks a member and hands it on; its length when unpacked, or that of its text if that is longer.
pub(super) fn hand_on(archive: &Path, member: &[u8], offset: u64, content: &mut dyn Read, each: &mut EachMember) -> Result<u64> {
    let path = PathBuf::from(format!("{}/{}", archive.display(), String::from_utf8_lossy(member)));
    let damaged = stream_error(&path);
    let mut unpacker = Unpacker::new(content, &path).map_err(&damaged)?;
    let head = read_head(&mut unpacker).map_err(&damaged)?;
    let mut reader = Measured { reader: head.as_slice().chain(unpacker), bytes: 0 };
    let text_bytes = each(Member { path: path.clone(), offset, head: head.clone(), reader: &mut reader })?;
    io::copy(&mut reader, &mut io::sink()).map_err(&damaged)?;
    Ok(reader.bytes.max(text_bytes))
}

struct Measured<R> {
    reader: R,
    bytes: u64,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(out)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use xxhash_rust::xxh3::xxh3_64;

    type Found = Vec<(String, u64, Vec<u8>)>;

    fn members(bytes: &[u8], name: &str) -> Result<Found> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut found = Vec::new();
        let facts = each_member(&path, Format::of(&path), &Arc::default(), &Arc::default(), &mut |member| {
            let mut content = Vec::new();
            member.reader.read_to_end(&mut content).map_err(stream_error(&member.path))?;
            assert!(content.starts_with(&member.head));
            let name = member.path.strip_prefix(&path).unwrap().to_string_lossy().into_owned();
            found.push((name, member.offset, content));
            Ok(0)
        })?;
        assert_eq!(facts, RawFacts { bytes: bytes.len() as u64, hash: xxh3_64(bytes) });
        Ok(found)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(content).unwrap();
        packer.finish().unwrap()
    }

    fn contents() -> Vec<(String, Vec<u8>)> {
        let book = b"call me ishmael\n".repeat(2000);
        let deep = "folder/".repeat(40) + "deep.txt";
        vec![("a.txt".into(), b"first".to_vec()), (deep, book.clone()), ("empty.txt".into(), vec![]), ("b.txt.gz".into(), gzip(&book))]
    }

    fn expected() -> Found {
        let book = b"call me ishmael\n".repeat(2000);
        let deep = "folder/".repeat(40) + "deep.txt";
        let after = 5 + book.len() as u64;
        vec![
            ("a.txt".into(), 0, b"first".to_vec()),
            (deep, 5, book.clone()),
            ("empty.txt".into(), after, vec![]),
            ("b.txt.gz".into(), after, book),
        ]
    }

    fn tar(contents: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut packer = ::tar::Builder::new(Vec::new());
        let mut link = ::tar::Header::new_gnu();
        link.set_entry_type(::tar::EntryType::Symlink);
        link.set_size(0);
        packer.append_link(&mut link, "link.txt", "a.txt").unwrap();
        for (name, content) in contents {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            packer.append_data(&mut header, name, &content[..]).unwrap();
        }
        packer.into_inner().unwrap()
    }

    fn zip(contents: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut packer = ::zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        let options = |method| ::zip::write::SimpleFileOptions::default().compression_method(method);
        packer.add_directory("folder", options(::zip::CompressionMethod::Stored)).unwrap();
        packer.add_symlink("link.txt", "a.txt", options(::zip::CompressionMethod::Stored)).unwrap();
        for (i, (name, content)) in contents.iter().enumerate() {
            let method = [::zip::CompressionMethod::Stored, ::zip::CompressionMethod::Deflated][i % 2];
            packer.start_file(name, options(method).large_file(i == 1)).unwrap();
            packer.write_all(content).unwrap();
        }
        packer.finish().unwrap().into_inner()
    }

    #[test]
    fn archives_give_their_files_in_order_and_unpacked() {
        assert_eq!(members(&tar(&contents()), "a.tar").unwrap(), expected());
        assert_eq!(members(&gzip(&tar(&contents())), "a.tgz").unwrap(), expected());
        assert_eq!(members(&zip(&contents()), "a.zip").unwrap(), expected());
    }

    #[test]
    fn an_archive_cut_short_anywhere_is_an_error() {
        let small = [("a.txt".to_string(), b"first".to_vec()), ("b.txt".to_string(), b"second ".repeat(90))];
        let (tar, zip) = (tar(&small), zip(&small));
        for length in 0..tar.len() - 512 {
            let error = members(&tar[..length], "a.tar").expect_err(&format!("tar cut at {length} of {}", tar.len())).to_string();
            assert!(error.contains("a.tar") && error.contains("byte"), "{error}");
        }
        for length in 0..zip.len() {
            let error = members(&zip[..length], "a.zip").expect_err(&format!("zip cut at {length}")).to_string();
            assert!(error.contains("a.zip"), "{error}");
        }
    }

    #[test]
    fn a_flipped_byte_in_a_zip_is_found_or_changes_no_content() {
        let zip = zip(&[("a.txt".to_string(), b"first".to_vec()), ("b.txt".to_string(), b"second ".repeat(90))]);
        let just_contents = |found: Found| found.into_iter().map(|(_, _, content)| content).collect::<Vec<_>>();
        let whole = just_contents(members(&zip, "a.zip").unwrap());
        let mut found = 0;
        for (at, mask) in (0..zip.len()).flat_map(|at| [1, 0x40, 0xff].map(|mask| (at, mask))) {
            let mut damaged = zip.clone();
            damaged[at] ^= mask;
            match members(&damaged, "a.zip") {
                Ok(members) => {
                    // A folder or a link may become a file: then it is empty, or holds where the link led.
                    let left = just_contents(members);
                    assert!(left.iter().all(|content| whole.contains(content) || content.is_empty() || content == b"a.txt"), "byte {at}");
                }
                Err(_) => found += 1,
            }
        }
        assert!(found > zip.len() / 3, "{found} of {}", 3 * zip.len());
    }

    #[test]
    fn a_damaged_tar_header_is_found() {
        let small = tar(&[("a.txt".to_string(), b"first".to_vec())]);
        for at in 512..1024 {
            let mut damaged = small.clone();
            damaged[at] ^= 0x15;
            assert!(members(&damaged, "a.tar").is_err(), "{at}");
        }
    }

    #[test]
    fn bytes_after_the_end_are_an_error() {
        let after = |archive: Vec<u8>, name| members(&[&archive[..], b"more"].concat(), name).unwrap_err().to_string();
        assert!(after(tar(&contents()), "a.tar").ends_with("but other bytes follow; cut those off or fetch the file again"));
        assert!(after(zip(&contents()), "a.zip").contains("no end of a zip archive"));
    }

    #[test]
    fn a_damaged_member_is_named() {
        let mut packed = gzip(b"some text");
        packed[12] ^= 1;
        let message = members(&tar(&[("b.txt.gz".to_string(), packed)]), "a.tar").unwrap_err().to_string();
        assert!(message.contains("a.tar/b.txt.gz: the gzip data are damaged at or before byte"), "{message}");
    }

    #[test]
    fn an_encrypted_zip_is_refused() {
        let mut zip = zip(&[("a.txt".to_string(), b"first".to_vec())]);
        let at = memchr::memmem::rfind(&zip, b"PK\x01\x02").unwrap();
        zip[at + 8] |= 1;
        let message = members(&zip, "a.zip").unwrap_err().to_string();
        assert!(message.ends_with("a.zip/a.txt: encrypted; unpack the archive by hand"), "{message}");
    }

    #[test]
    fn members_left_unread_are_checked_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        std::fs::write(&path, zip(&contents())).unwrap();
        let mut offsets = Vec::new();
        each_member(&path, Format::Zip, &Arc::default(), &Arc::default(), &mut |member| {
            offsets.push(member.offset);
            Ok(0)
        })
        .unwrap();
        assert_eq!(offsets, [0, 5, 32_005, 32_005]);
    }
}
