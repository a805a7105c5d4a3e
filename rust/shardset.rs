//! The shards of a folder, train and val, being written.

use crate::encode::Encoder;
use crate::error::{Error, Result};
use crate::shard::{MAX_SHARD_TOKENS, ShardFacts, ShardKind, ShardWriter, TokenType};
use crate::sources::{Side, side_of};
use std::path::{Path, PathBuf};

/// A part of a document as tokens; `end` is where it ends in the block's.
pub(crate) struct EncodedPart {
    pub end: usize,
    pub text_bytes: u64,
    pub side: Side,
    pub ends: bool,
}

/// The shards of a folder, train and val, being written.
#[derive(Debug)]
pub struct Shards {
    folder: PathBuf,
    kind: ShardKind,
    shard_tokens: u64,
    val_fraction: f64,
    eot: Vec<u8>,
    /// Bytes of text of each id.
    lengths: Vec<u32>,
    splits: [Split; 2],
    /// Tokens of the open document, so that one without text leaves no trace.
    document_tokens: u64,
}

#[derive(Debug, Default)]
struct Split {
    finished: Vec<ShardFacts>,
    open: Option<ShardWriter>,
}

impl Split {
    fn is_empty(&self) -> bool {
        self.open.is_none() && self.finished.is_empty()
    }
}

/// At most so many tokens are moved to an empty validation split.
const MAX_MOVED_TOKENS: u64 = 1 << 22;

impl Shards {
    /// Starts writing to `folder`, which exists and holds no shards. `lengths` are the bytes of text of each id, and
    /// `fingerprint` is the tokenizer's.
    ///
    /// # Errors
    ///
    /// `shard_tokens` or `val_fraction` out of range.
    pub fn of_ids(
        folder: &Path,
        lengths: Vec<u32>,
        fingerprint: [u8; 32],
        eot_id: Option<u32>,
        shard_tokens: u64,
        val_fraction: f64,
    ) -> Result<Shards> {
        if !(1..=MAX_SHARD_TOKENS).contains(&shard_tokens) {
            return Err(Error::Invalid(format!("shard_tokens must be from 1 to {MAX_SHARD_TOKENS}, got {shard_tokens}")));
        }
        if !(0.0..1.0).contains(&val_fraction) {
            return Err(Error::Invalid(format!("val_fraction must be at least 0 and below 1, got {val_fraction}")));
        }
        let token_type = TokenType::for_vocab(lengths.len());
        // An id is below 2^32, and a token shorter than 4 GiB.
        let kind = ShardKind { token_type, vocab_size: lengths.len() as u32, eot_id, fingerprint };
        let mut eot = Vec::new();
        token_type.write(eot_id.as_slice(), &mut eot);
        let splits = [Split::default(), Split::default()];
        Ok(Shards { folder: folder.to_path_buf(), kind, shard_tokens, val_fraction, eot, lengths, splits, document_tokens: 0 })
    }

    /// As [`Shards::of_ids`], for the ids of `encoder`.
    ///
    /// # Errors
    ///
    /// `shard_tokens` or `val_fraction` out of range.
    pub fn new(folder: &Path, encoder: &Encoder, eot_id: Option<u32>, shard_tokens: u64, val_fraction: f64) -> Result<Shards> {
        let vocab = encoder.vocab();
        let lengths = vocab.tokens().iter().map(|token| token.len() as u32).collect();
        Self::of_ids(folder, lengths, vocab.fingerprint(), eot_id, shard_tokens, val_fraction)
    }

    /// Appends a document that was encoded elsewhere: whole to the side that a hash of its text says.
    ///
    /// # Errors
    ///
    /// An id that the vocabulary does not have, or the disk refuses.
    pub fn add_document(&mut self, text: &str, ids: &[u32]) -> Result<()> {
        if let Some(place) = ids.iter().position(|id| *id >= self.kind.vocab_size) {
            let (id, size) = (ids[place], self.kind.vocab_size);
            return Err(Error::Invalid(format!("id {id} at place {place} is not in the vocabulary of {size} ids")));
        }
        let side = side_of(text.as_bytes(), Some(self.val_fraction));
        let mut tokens = Vec::new();
        self.kind.token_type.write(ids, &mut tokens);
        self.write(&tokens, &EncodedPart { end: tokens.len(), text_bytes: text.len() as u64, side, ends: true })
    }

    /// Width of the tokens.
    #[must_use]
    pub fn token_type(&self) -> TokenType {
        self.kind.token_type
    }

    /// Appends a part of a document.
    pub(crate) fn write(&mut self, tokens: &[u8], part: &EncodedPart) -> Result<()> {
        self.append(part.side, tokens, Some(part.text_bytes))?;
        self.document_tokens += tokens.len() as u64;
        if part.ends && std::mem::take(&mut self.document_tokens) > 0 {
            let eot = std::mem::take(&mut self.eot);
            self.append(part.side, &eot, Some(0))?;
            self.eot = eot;
            self.end_document(part.side);
        }
        Ok(())
    }

    fn end_document(&mut self, side: Side) {
        if let Some(shard) = &mut self.splits[side as usize].open {
            shard.end_document();
        }
    }

    /// Appends tokens, over as many shards as they take. `text_bytes` is what they stand for, where that is known.
    fn append(&mut self, side: Side, tokens: &[u8], text_bytes: Option<u64>) -> Result<()> {
        let width = self.kind.token_type.width();
        let mut rest = tokens;
        while !rest.is_empty() {
            if self.splits[side as usize].open.as_ref().is_some_and(|shard| shard.tokens() == self.shard_tokens) {
                self.finish_shard(side)?;
            }
            let shard = match self.splits[side as usize].open.take() {
                Some(shard) => shard,
                None => ShardWriter::create(&self.folder.join(self.name(side)), self.kind)?,
            };
            let room = usize::try_from(self.shard_tokens - shard.tokens()).map_or(usize::MAX, |n| n.saturating_mul(width));
            let (now, later) = rest.split_at(room.min(rest.len()));
            let known = text_bytes.filter(|_| now.len() == tokens.len());
            let shard = self.splits[side as usize].open.insert(shard);
            shard.write(now, known.unwrap_or_else(|| text_bytes_of(now, width, &self.lengths)))?;
            rest = later;
        }
        Ok(())
    }

    fn name(&self, side: Side) -> String {
        let split = match side {
            Side::Train => "train",
            Side::Val => "val",
        };
        format!("{split}_{:06}.bin", self.splits[side as usize].finished.len())
    }

    fn finish_shard(&mut self, side: Side) -> Result<()> {
        let split = &mut self.splits[side as usize];
        if let Some(shard) = split.open.take() {
            split.finished.push(shard.finish()?);
        }
        Ok(())
    }

    /// Finishes the last shards and returns the facts of train and val. If nothing fell to train, what fell to val becomes
    /// train. If nothing is in val then, the end of the last train shard becomes val: from a document's start where one
    /// lies near, else from the very token.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn finish(mut self) -> Result<[Vec<ShardFacts>; 2]> {
        if self.splits[0].is_empty() {
            self.rename_val_to_train()?;
        }
        if self.splits[1].is_empty() && self.val_fraction > 0.0 {
            self.move_end_to_val()?;
        }
        self.finish_shard(Side::Train)?;
        self.finish_shard(Side::Val)?;
        Ok(self.splits.map(|split| split.finished))
    }

    /// All of a few short documents may fall to val, but there must be something to learn from.
    fn rename_val_to_train(&mut self) -> Result<()> {
        let mut split = std::mem::take(&mut self.splits[Side::Val as usize]);
        for shard in &mut split.finished {
            let old = self.folder.join(&shard.file);
            shard.file = self.name(Side::Train);
            let new = self.folder.join(&shard.file);
            std::fs::rename(old.with_extension("idx"), new.with_extension("idx")).map_err(Error::io(&old))?;
            std::fs::rename(&old, new).map_err(Error::io(&old))?;
            self.splits[Side::Train as usize].finished.push(shard.clone());
        }
        if let Some(shard) = &mut split.open {
            shard.rename(&self.folder.join(self.name(Side::Train)))?;
        }
        self.splits[Side::Train as usize].open = split.open;
        Ok(())
    }

    fn move_end_to_val(&mut self) -> Result<()> {
        let before: u64 = self.splits[0].finished.iter().map(|shard| shard.tokens).sum();
        let Some(shard) = self.splits[0].open.as_mut().filter(|shard| shard.tokens() > 1) else { return Ok(()) };
        let wished = (((before + shard.tokens()) as f64 * self.val_fraction).ceil() as u64).min(MAX_MOVED_TOKENS);
        let at = shard.tokens().saturating_sub(wished).max(1);
        // A whole document, if it is not more than twice what was wished.
        let start = shard.ends().iter().rev().find(|end| **end <= at);
        let keep = start.copied().filter(|end| *end > 0 && shard.tokens() - end <= 2 * wished).unwrap_or(at);
        let (width, lengths) = (self.kind.token_type.width(), &self.lengths);
        let (tail, ends) = shard.split_off(keep, |tokens| text_bytes_of(tokens, width, lengths))?;
        if shard.ends().last() != Some(&keep) {
            shard.end_document();
        }
        let mut from = 0;
        for end in ends {
            let to = end as usize * width;
            self.append(Side::Val, &tail[from..to], None)?;
            self.end_document(Side::Val);
            from = to;
        }
        self.append(Side::Val, &tail[from..], None)
    }
}

/// Bytes of text that a run of tokens on disk stands for.
fn text_bytes_of(tokens: &[u8], width: usize, lengths: &[u32]) -> u64 {
    let id = |token: &[u8]| token.iter().rev().fold(0usize, |id, byte| id << 8 | usize::from(*byte));
    tokens.chunks(width).map(|token| u64::from(lengths[id(token)])).sum()
}
