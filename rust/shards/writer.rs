//! One shard being written: three files that grow together, so that memory does not grow with documents.

use crate::error::{Error, Result};
use crate::shard::{END_BYTES, HEADER_BYTES, ORIGIN_BYTES, Origin, ShardFacts, ShardHeader, ShardKind, hash_file};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How far a shard has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenShard {
    /// Tokens so far.
    pub tokens: u64,
    /// Documents that ended so far.
    pub documents: u64,
    /// Bytes of text so far.
    pub bytes: u64,
}

/// Writes one shard; the header is filled in at the end.
#[derive(Debug)]
pub struct ShardWriter {
    path: PathBuf,
    kind: ShardKind,
    bin: Growing,
    idx: Growing,
    map: Growing,
    so_far: OpenShard,
}

impl ShardWriter {
    /// Starts `path`, which must not exist.
    ///
    /// # Errors
    ///
    /// A file cannot be made.
    pub fn create(path: &Path, kind: ShardKind) -> Result<Self> {
        let mut bin = Growing::create(path, 1 << 18)?;
        bin.write(&[0; HEADER_BYTES as usize])?;
        let idx = Growing::create(&path.with_extension("idx"), 1 << 15)?;
        let map = Growing::create(&path.with_extension("map"), 1 << 16)?;
        Ok(ShardWriter { path: path.to_path_buf(), kind, bin, idx, map, so_far: OpenShard::default() })
    }

    /// Goes on with `path` where it had got to; what was written after that is cut off.
    ///
    /// # Errors
    ///
    /// A file is missing or shorter than that, or the disk refuses.
    pub fn resume(path: &Path, kind: ShardKind, so_far: OpenShard) -> Result<Self> {
        let bin = Growing::resume(path, 1 << 18, HEADER_BYTES + so_far.tokens * kind.token_type.width() as u64)?;
        let idx = Growing::resume(&path.with_extension("idx"), 1 << 15, END_BYTES * so_far.documents)?;
        let map = Growing::resume(&path.with_extension("map"), 1 << 16, ORIGIN_BYTES * so_far.documents)?;
        Ok(ShardWriter { path: path.to_path_buf(), kind, bin, idx, map, so_far })
    }

    /// How far it has got.
    #[must_use]
    pub fn so_far(&self) -> OpenShard {
        self.so_far
    }

    /// Appends tokens, already in the shard's width, that stand for so many bytes of text.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn write(&mut self, tokens: &[u8], text_bytes: u64) -> Result<()> {
        self.bin.write(tokens)?;
        self.so_far.tokens += (tokens.len() / self.kind.token_type.width()) as u64;
        self.so_far.bytes += text_bytes;
        Ok(())
    }

    /// Corrects the bytes of text by what was found out later.
    pub(crate) fn correct_text_bytes(&mut self, known: u64, counted: u64) {
        self.so_far.bytes = self.so_far.bytes.saturating_add(known).saturating_sub(counted);
    }

    /// A document ends here.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn end_document(&mut self, origin: Origin) -> Result<()> {
        self.idx.write(&self.so_far.tokens.to_le_bytes())?;
        self.map.write(&origin.to_bytes())?;
        self.so_far.documents += 1;
        Ok(())
    }

    /// Everything written so far is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn sync(&mut self) -> Result<()> {
        [&mut self.bin, &mut self.idx, &mut self.map].into_iter().try_for_each(Growing::sync)
    }

    /// Writes the header. A document that goes on in the next shard has no end here.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn finish(mut self) -> Result<ShardFacts> {
        let OpenShard { tokens, documents, bytes } = self.so_far;
        self.bin.put_first(&ShardHeader::new(&self.kind, tokens, documents, bytes).to_bytes())?;
        self.idx.flush()?;
        self.map.flush()?;
        Ok(ShardFacts {
            file: self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            tokens,
            documents,
            bytes,
            xxh3: hash_file(&self.path)?,
            idx_xxh3: hash_file(&self.idx.path)?,
            map_xxh3: Some(hash_file(&self.map.path)?),
        })
    }
}

/// A file that is appended to.
#[derive(Debug)]
struct Growing {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Growing {
    fn create(path: &Path, buffer_bytes: usize) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(Error::io(path))?;
        Ok(Growing { path: path.to_path_buf(), file: BufWriter::with_capacity(buffer_bytes, file) })
    }

    fn resume(path: &Path, buffer_bytes: usize, size: u64) -> Result<Self> {
        let mut file = OpenOptions::new().write(true).open(path).map_err(Error::io(path))?;
        let found = file.metadata().map_err(Error::io(path))?.len();
        if found < size {
            let message = format!("{}: {found} bytes, but {size} of it were written; remove it and start anew", path.display());
            return Err(Error::Format(message));
        }
        file.set_len(size).and_then(|()| file.seek(SeekFrom::End(0))).map_err(Error::io(path))?;
        Ok(Growing { path: path.to_path_buf(), file: BufWriter::with_capacity(buffer_bytes, file) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io(&self.path))
    }

    fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.get_ref().sync_all().map_err(Error::io(&self.path))
    }

    fn put_first(&mut self, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        let file = self.file.get_mut();
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(bytes)).map_err(Error::io(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::TokenType;

    const KIND: ShardKind = ShardKind { token_type: TokenType::Uint16, vocab_size: 300, eot_id: Some(299), fingerprint: [7; 32] };
    const FIRST: Origin = Origin { file: 0, start: 5, end: 9 };
    const SECOND: Origin = Origin { file: 1, start: 0, end: 3 };

    fn shard(folder: &Path) -> ShardWriter {
        let mut writer = ShardWriter::create(&folder.join("a.bin"), KIND).unwrap();
        writer.write(&[1, 0, 2, 0, 43, 1], 2).unwrap();
        writer.end_document(FIRST).unwrap();
        writer.write(&[3, 0, 43, 1], 1).unwrap();
        writer.end_document(SECOND).unwrap();
        writer
    }

    #[test]
    fn the_files_are_what_the_table_says() {
        let folder = tempfile::tempdir().unwrap();
        let facts = shard(folder.path()).finish().unwrap();
        let bytes = std::fs::read(folder.path().join("a.bin")).unwrap();
        let words: Vec<u32> = bytes[..64].chunks(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
        let seven = 0x0707_0707;
        let text = u32::from_le_bytes(*b"tGPT");
        assert_eq!(words, [20_240_520, 1, 5, text, 1, 8, 300, 299, 2, 0, 3, 0, seven, seven, seven, seven]);
        assert_eq!(bytes[1024..], [1, 0, 2, 0, 43, 1, 3, 0, 43, 1]);
        assert_eq!(std::fs::read(folder.path().join("a.idx")).unwrap(), [3u64, 5].map(u64::to_le_bytes).concat());
        assert_eq!(std::fs::read(folder.path().join("a.map")).unwrap(), [0u64, 5, 9, 1, 0, 3].map(u64::to_le_bytes).concat());
        assert_eq!((facts.tokens, facts.documents, facts.bytes), (5, 2, 3));
        let header = ShardHeader::read(&folder.path().join("a.bin")).unwrap();
        assert_eq!(header, ShardHeader::new(&KIND, 5, 2, 3));
    }

    #[test]
    fn what_was_written_after_the_place_to_go_on_from_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let facts = shard(folder.path()).finish().unwrap();
        let so_far = OpenShard { tokens: 3, documents: 1, bytes: 2 };
        let mut writer = ShardWriter::resume(&folder.path().join("a.bin"), KIND, so_far).unwrap();
        writer.write(&[3, 0, 43, 1], 1).unwrap();
        writer.end_document(SECOND).unwrap();
        assert_eq!(writer.finish().unwrap(), facts);
    }

    #[test]
    fn a_file_that_is_too_short_to_go_on_with_is_named() {
        let folder = tempfile::tempdir().unwrap();
        shard(folder.path()).finish().unwrap();
        let so_far = OpenShard { tokens: 6, documents: 2, bytes: 3 };
        let error = ShardWriter::resume(&folder.path().join("a.bin"), KIND, so_far).unwrap_err().to_string();
        assert!(error.ends_with("a.bin: 1034 bytes, but 1036 of it were written; remove it and start anew"), "{error}");
    }

    #[test]
    fn a_file_that_exists_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.bin"), "precious").unwrap();
        assert!(ShardWriter::create(&folder.path().join("a.bin"), KIND).is_err());
    }
}
