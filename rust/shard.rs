//! The `.bin` shard: a header of 256 little-endian 32-bit words, then the tokens.
//!
//! | word | holds |
//! | --- | --- |
//! | 0, 1 | 20240520, 1: uint16 tokens; 20240801, 7: uint32 tokens (the headers of llm.c and modded-nanogpt) |
//! | 2 | number of tokens, below 2^31 |
//! | 3 | the letters `tGPT` |
//! | 4 | version of what follows, 1 |
//! | 5 | code of the token type: 8 uint16, 4 uint32 (Megatron's codes) |
//! | 6 | `vocab_size` |
//! | 7 | id that ends a document, or -1 |
//! | 8-9 | documents that end in this shard, as 64 bits |
//! | 10-11 | bytes of text that the tokens stand for, as 64 bits |
//! | 12-15 | first 16 bytes of the tokenizer's fingerprint |
//!
//! Words from 3 on are ignored by others. Beside `x.bin` lies `x.idx`: the document ends as little-endian 64-bit numbers,
//! in tokens from the shard's start. This file alone knows the layout.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Bytes before the first token.
pub const HEADER_BYTES: u64 = 1024;
/// A shard holds fewer tokens than this: its count is a signed 32-bit word.
pub const MAX_SHARD_TOKENS: u64 = (1 << 31) - 1;

/// Width of a token on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// Two bytes, for vocabularies of up to 65,536 ids.
    Uint16,
    /// Four bytes.
    Uint32,
}

impl TokenType {
    /// The narrowest type that holds every id of a vocabulary.
    #[must_use]
    pub fn for_vocab(vocab_size: usize) -> Self {
        if vocab_size <= 1 << 16 { TokenType::Uint16 } else { TokenType::Uint32 }
    }

    /// Bytes of one token.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            TokenType::Uint16 => 2,
            TokenType::Uint32 => 4,
        }
    }

    /// The name that numpy knows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TokenType::Uint16 => "uint16",
            TokenType::Uint32 => "uint32",
        }
    }

    /// Appends ids in this width.
    pub fn write(self, ids: &[u32], bytes: &mut Vec<u8>) {
        match self {
            // The caller chose the type by the vocabulary, so every id fits.
            TokenType::Uint16 => append(bytes, ids, |id| (id as u16).to_le_bytes()),
            TokenType::Uint32 => append(bytes, ids, u32::to_le_bytes),
        }
    }

    fn magic(self) -> (u32, u32, u32) {
        match self {
            TokenType::Uint16 => (20_240_520, 1, 8),
            TokenType::Uint32 => (20_240_801, 7, 4),
        }
    }
}

/// Room first, then a plain loop, of which the compiler makes vector stores.
fn append<const N: usize>(bytes: &mut Vec<u8>, ids: &[u32], spell: impl Fn(u32) -> [u8; N]) {
    let start = bytes.len();
    bytes.resize(start + N * ids.len(), 0);
    for (place, id) in bytes[start..].as_chunks_mut::<N>().0.iter_mut().zip(ids) {
        *place = spell(*id);
    }
}

/// What is the same in every shard of a folder.
#[derive(Clone, Copy, Debug)]
pub struct ShardKind {
    /// Width of the tokens.
    pub token_type: TokenType,
    /// Ids of the tokenizer.
    pub vocab_size: u32,
    /// Id that ends a document.
    pub eot_id: Option<u32>,
    /// Fingerprint of the tokenizer.
    pub fingerprint: [u8; 32],
}

/// A finished shard, as the manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFacts {
    /// File name.
    pub file: String,
    /// Tokens.
    pub tokens: u64,
    /// Documents that end here.
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// xxh3-64 of the `.bin` file.
    pub xxh3: u64,
    /// xxh3-64 of the `.idx` file.
    pub idx_xxh3: u64,
}

/// Writes one shard; the header is filled in at the end.
#[derive(Debug)]
pub struct ShardWriter {
    path: PathBuf,
    kind: ShardKind,
    file: BufWriter<File>,
    ends: Vec<u64>,
    tokens: u64,
    bytes: u64,
}

impl ShardWriter {
    /// Starts `path`, which must not exist.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn create(path: &Path, kind: ShardKind) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(Error::io(path))?;
        let mut file = BufWriter::with_capacity(1 << 18, file);
        file.write_all(&[0; HEADER_BYTES as usize]).map_err(Error::io(path))?;
        Ok(ShardWriter { path: path.to_path_buf(), kind, file, ends: Vec::new(), tokens: 0, bytes: 0 })
    }

    /// Tokens written so far.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Bytes of text written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends of documents so far, in tokens.
    #[must_use]
    pub fn ends(&self) -> &[u64] {
        &self.ends
    }

    /// Goes on under another name.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn rename(&mut self, path: &Path) -> Result<()> {
        std::fs::rename(&self.path, path).map_err(Error::io(&self.path))?;
        self.path = path.to_path_buf();
        Ok(())
    }

    /// Appends tokens, already in the shard's width, that stand for so many bytes of text.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn write(&mut self, tokens: &[u8], text_bytes: u64) -> Result<()> {
        self.file.write_all(tokens).map_err(Error::io(&self.path))?;
        self.tokens += (tokens.len() / self.kind.token_type.width()) as u64;
        self.bytes += text_bytes;
        Ok(())
    }

    /// A document ends here.
    pub fn end_document(&mut self) {
        self.ends.push(self.tokens);
    }

    /// Takes back the tokens from `keep` on, with the document ends among them; `text_bytes` tells what a run of tokens
    /// stands for. Returns the tokens in the shard's width and the ends counted from `keep`.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn split_off(&mut self, keep: u64, text_bytes: impl Fn(&[u8]) -> u64) -> Result<(Vec<u8>, Vec<u64>)> {
        let width = self.kind.token_type.width() as u64;
        let mut tail = Vec::new();
        let mut read = || {
            self.file.flush()?;
            let file = self.file.get_mut();
            file.seek(SeekFrom::Start(HEADER_BYTES + keep * width))?;
            file.read_to_end(&mut tail)?;
            file.set_len(HEADER_BYTES + keep * width)?;
            file.seek(SeekFrom::End(0))
        };
        read().map_err(Error::io(&self.path))?;
        self.tokens = keep;
        self.bytes -= text_bytes(&tail);
        let moved = self.ends.split_off(self.ends.partition_point(|end| *end <= keep));
        Ok((tail, moved.into_iter().map(|end| end - keep).collect()))
    }

    /// Writes the header and the index. A document that goes on in the next shard has no end here.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn finish(mut self) -> Result<ShardFacts> {
        let path = self.path.clone();
        let header = self.header();
        let mut write = || {
            self.file.flush()?;
            self.file.get_mut().seek(SeekFrom::Start(0))?;
            self.file.get_mut().write_all(&header)
        };
        write().map_err(Error::io(&path))?;
        let idx = path.with_extension("idx");
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        std::fs::write(&idx, ends).map_err(Error::io(&idx))?;
        Ok(ShardFacts {
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            tokens: self.tokens,
            documents: self.ends.len() as u64,
            bytes: self.bytes,
            xxh3: hash_file(&path)?,
            idx_xxh3: hash_file(&idx)?,
        })
    }

    fn header(&self) -> [u8; HEADER_BYTES as usize] {
        let (magic, version, code) = self.kind.token_type.magic();
        let mut header = [0; HEADER_BYTES as usize];
        let mut put = |word: usize, bytes: &[u8]| header[word * 4..word * 4 + bytes.len()].copy_from_slice(bytes);
        // Fits: the writer's owner starts a new shard before MAX_SHARD_TOKENS.
        for (word, value) in [(0, magic), (1, version), (2, self.tokens as u32), (4, 1), (5, code), (6, self.kind.vocab_size)] {
            put(word, &value.to_le_bytes());
        }
        put(3, b"tGPT");
        put(7, &self.kind.eot_id.unwrap_or(u32::MAX).to_le_bytes());
        put(8, &(self.ends.len() as u64).to_le_bytes());
        put(10, &self.bytes.to_le_bytes());
        put(12, &self.kind.fingerprint[..16]);
        header
    }
}

/// xxh3-64 of a file, read in blocks.
///
/// # Errors
///
/// The file cannot be read.
pub fn hash_file(path: &Path) -> Result<u64> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut hash, mut block) = (Xxh3::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut block).map_err(Error::io(path))? {
            0 => return Ok(hash.digest()),
            n => hash.update(&block[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: ShardKind = ShardKind { token_type: TokenType::Uint16, vocab_size: 300, eot_id: Some(299), fingerprint: [7; 32] };

    fn shard(folder: &Path) -> ShardWriter {
        let mut writer = ShardWriter::create(&folder.join("a.bin"), KIND).unwrap();
        writer.write(&[1, 0, 2, 0, 43, 1], 2).unwrap();
        writer.end_document();
        writer.write(&[3, 0, 43, 1], 1).unwrap();
        writer.end_document();
        writer
    }

    #[test]
    fn the_file_is_what_the_table_says() {
        let folder = tempfile::tempdir().unwrap();
        let facts = shard(folder.path()).finish().unwrap();
        let bytes = std::fs::read(folder.path().join("a.bin")).unwrap();
        let words: Vec<u32> = bytes[..64].chunks(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
        let seven = 0x0707_0707;
        let text = u32::from_le_bytes(*b"tGPT");
        assert_eq!(words, [20_240_520, 1, 5, text, 1, 8, 300, 299, 2, 0, 3, 0, seven, seven, seven, seven]);
        assert_eq!(bytes[1024..], [1, 0, 2, 0, 43, 1, 3, 0, 43, 1]);
        assert_eq!(std::fs::read(folder.path().join("a.idx")).unwrap(), [3u64, 5].map(u64::to_le_bytes).concat());
        assert_eq!((facts.tokens, facts.documents, facts.bytes), (5, 2, 3));
    }

    #[test]
    fn a_tail_can_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = shard(folder.path());
        let (tail, ends) = writer.split_off(3, |_| 1).unwrap();
        assert_eq!((tail, ends), (vec![3, 0, 43, 1], vec![2]));
        let facts = writer.finish().unwrap();
        assert_eq!((facts.tokens, facts.documents, facts.bytes), (3, 1, 2));
        assert_eq!(std::fs::metadata(folder.path().join("a.bin")).unwrap().len(), 1024 + 6);
    }

    #[test]
    fn a_file_that_exists_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.bin"), "precious").unwrap();
        assert!(ShardWriter::create(&folder.path().join("a.bin"), KIND).is_err());
    }
}
