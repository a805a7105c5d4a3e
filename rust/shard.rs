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
//! Words from 3 on are ignored by others. Beside `x.bin` lie two files with an entry for each document that ends in the
//! shard, of little-endian 64-bit numbers: `x.idx` holds its end, in tokens from the shard's start, and `x.map` its
//! [`Origin`]: file, first byte, end byte. This file alone knows the layout.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Bytes before the first token.
pub const HEADER_BYTES: u64 = 1024;
/// A shard holds fewer tokens than this: its count is a signed 32-bit word.
pub const MAX_SHARD_TOKENS: u64 = (1 << 31) - 1;

/// The letters `tGPT`.
const OURS: u32 = u32::from_le_bytes(*b"tGPT");
/// Bytes of an entry of an `.idx`.
pub(crate) const END_BYTES: u64 = 8;
/// Bytes of an entry of a `.map`.
pub(crate) const ORIGIN_BYTES: u64 = 24;

/// Where a document came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// Number of its file in the list of files.
    pub file: u64,
    /// Byte at which its record starts, in the unpacked file.
    pub start: u64,
    /// Byte before which its record ends.
    pub end: u64,
}

impl Origin {
    /// Of a document that came from no file: its number stands in place of the bytes.
    #[must_use]
    pub fn of_number(number: u64) -> Self {
        Origin { file: 0, start: number, end: number + 1 }
    }

    pub(crate) fn to_bytes(self) -> [u8; ORIGIN_BYTES as usize] {
        let mut bytes = [0; ORIGIN_BYTES as usize];
        for (place, value) in bytes.as_chunks_mut::<8>().0.iter_mut().zip([self.file, self.start, self.end]) {
            *place = value.to_le_bytes();
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; ORIGIN_BYTES as usize]) -> Self {
        let [file, start, end] = [0, 1, 2].map(|i| bytes.as_chunks::<8>().0.get(i).map_or(0, |bytes| u64::from_le_bytes(*bytes)));
        Origin { file, start, end }
    }
}

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// xxh3-64 of the `.map` file; `None` in folders of before there were any.
    pub map_xxh3: Option<u64>,
}

/// What a shard's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardHeader {
    /// Width of the tokens.
    pub token_type: TokenType,
    /// Tokens in the file.
    pub tokens: u64,
    /// Ids of the tokenizer.
    pub vocab_size: u32,
    /// Id that ends a document.
    pub eot_id: Option<u32>,
    /// Documents that end in the file.
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// First half of the tokenizer's fingerprint.
    pub fingerprint: [u8; 16],
}

impl ShardHeader {
    pub(crate) fn new(kind: &ShardKind, tokens: u64, documents: u64, bytes: u64) -> Self {
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&kind.fingerprint[..16]);
        let ShardKind { token_type, vocab_size, eot_id, .. } = *kind;
        ShardHeader { token_type, tokens, vocab_size, eot_id, documents, bytes, fingerprint }
    }

    /// The header of a shard of ours, found to agree with the file's size.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no such shard, or is longer or shorter than its header promises.
    pub fn read(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let size = file.metadata().map_err(Error::io(path))?.len();
        let refuse = |what: String| Err(Error::Format(format!("{}: {what}", path.display())));
        let mut raw = [0; HEADER_BYTES as usize];
        if size < HEADER_BYTES {
            return refuse(format!("{size} bytes, too short for the {HEADER_BYTES} of a shard's header"));
        }
        file.read_exact(&mut raw).map_err(Error::io(path))?;
        let word = |i: usize| u32::from_le_bytes([raw[4 * i], raw[4 * i + 1], raw[4 * i + 2], raw[4 * i + 3]]);
        let long = |i: usize| u64::from(word(i)) | u64::from(word(i + 1)) << 32;
        let kinds = [TokenType::Uint16, TokenType::Uint32];
        let Some(token_type) = kinds.into_iter().find(|kind| kind.magic() == (word(0), word(1), word(5))) else {
            return refuse(format!("starts with {}, {}, no shard of ours", word(0), word(1)));
        };
        if word(3) != OURS || word(4) != 1 {
            return refuse(format!("header version {}, but this tinygpt reads 1", word(4)));
        }
        let (tokens, promised) = (u64::from(word(2)), HEADER_BYTES + u64::from(word(2)) * token_type.width() as u64);
        if size != promised {
            return refuse(format!("{size} bytes, but its header promises {tokens} tokens ({promised} bytes); write the shards again"));
        }
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&raw[48..64]);
        let eot_id = (word(7) != u32::MAX).then_some(word(7));
        Ok(ShardHeader { token_type, tokens, vocab_size: word(6), eot_id, documents: long(8), bytes: long(10), fingerprint })
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES as usize] {
        let (magic, version, code) = self.token_type.magic();
        let mut header = [0; HEADER_BYTES as usize];
        let mut put = |word: usize, bytes: &[u8]| header[word * 4..word * 4 + bytes.len()].copy_from_slice(bytes);
        // Fits: the writer's owner starts a new shard before MAX_SHARD_TOKENS.
        let tokens = self.tokens as u32;
        for (word, value) in [(0, magic), (1, version), (2, tokens), (3, OURS), (4, 1), (5, code), (6, self.vocab_size)] {
            put(word, &value.to_le_bytes());
        }
        put(7, &self.eot_id.unwrap_or(u32::MAX).to_le_bytes());
        put(8, &self.documents.to_le_bytes());
        put(10, &self.bytes.to_le_bytes());
        put(12, &self.fingerprint);
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
