//! The shards of a folder, train and val, being written.

use crate::encode::Encoder;
use crate::error::{Error, Result};
use crate::shard::{END_BYTES, HEADER_BYTES, MAX_SHARD_TOKENS, ORIGIN_BYTES, Origin, ShardFacts, ShardKind, TokenType, hash_file};
use crate::shards::journal::{sync_file, sync_folder};
use crate::shards::tail::Settled;
use crate::shards::writer::{OpenShard, ShardWriter};
use crate::sources::{Side, side_of};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A part of a document as tokens; `end` is where it ends in the block's, `ends` where its document came from if that
/// ends with it.
pub(crate) struct EncodedPart {
    pub end: usize,
    pub text_bytes: u64,
    pub side: Side,
    pub ends: Option<Origin>,
}

/// How documents fall to train and val.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// Each goes to one side whole, by a hash of its text.
    #[default]
    Hash,
    /// The last share of all tokens is val.
    Last,
}

impl Split {
    /// The splits and their names.
    pub const NAMES: [(&str, Split); 2] = [("hash", Split::Hash), ("last", Split::Last)];
}

/// Names of the series of shards; what lies in the last becomes val in the end.
pub(crate) const SERIES: [&str; 3] = ["train", "val", "tail"];
/// Files of a shard; the one that makes it a shard comes last.
pub(crate) const EXTENSIONS: [&str; 3] = ["idx", "map", "bin"];

/// The shards of a folder, train and val, being written.
#[derive(Debug)]
pub struct Shards {
    pub(crate) folder: PathBuf,
    pub(crate) kind: ShardKind,
    pub(crate) shard_tokens: u64,
    pub(crate) val_fraction: f64,
    pub(crate) split: Split,
    eot: Vec<u8>,
    /// Bytes of text of each id.
    pub(crate) lengths: Vec<u32>,
    pub(crate) series: [Series; 3],
    /// Tokens of the open document, so that one without text leaves no trace.
    document_tokens: u64,
    pub(crate) settled: Option<Settled>,
}

#[derive(Debug, Default)]
pub(crate) struct Series {
    pub finished: Vec<ShardFacts>,
    open: Option<ShardWriter>,
    /// How many of the finished ones are on the disk for certain.
    synced: usize,
}

impl Series {
    pub(crate) fn tokens(&self) -> u64 {
        self.finished.iter().map(|shard| shard.tokens).sum::<u64>() + self.open.as_ref().map_or(0, |shard| shard.so_far().tokens)
    }

    pub(crate) fn text_bytes(&self) -> u64 {
        self.finished.iter().map(|shard| shard.bytes).sum::<u64>() + self.open.as_ref().map_or(0, |shard| shard.so_far().bytes)
    }
}

/// How far the shards of a folder have got: what [`Shards::resume`] takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardsState {
    series: [SeriesState; 3],
    document_tokens: u64,
    settled: Option<Settled>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SeriesState {
    finished: Vec<ShardFacts>,
    open: Option<OpenShard>,
}

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
        Ok(Shards {
            folder: folder.to_path_buf(),
            kind,
            shard_tokens,
            val_fraction,
            split: Split::Hash,
            eot,
            lengths,
            series: Default::default(),
            document_tokens: 0,
            settled: None,
        })
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

    /// The same, with documents split in that way.
    #[must_use]
    pub fn split_by(self, split: Split) -> Self {
        Shards { split, ..self }
    }

    /// Goes on where shards of the same settings had got to; what was written after that is removed.
    ///
    /// # Errors
    ///
    /// A file is missing or not as long as it was, or the disk refuses.
    pub fn resume(mut self, state: ShardsState) -> Result<Shards> {
        let is_settled = state.settled.is_some();
        (self.document_tokens, self.settled) = (state.document_tokens, state.settled);
        for (number, SeriesState { finished, open }) in state.series.into_iter().enumerate() {
            let series = &mut self.series[number];
            (series.synced, series.finished) = (finished.len(), finished);
            // From there on names change; what is missing is found when it is renamed or cut.
            if is_settled {
                continue;
            }
            let finished = &self.series[number].finished;
            finished.iter().try_for_each(|facts| self.check_files(facts))?;
            self.remove_from(number, finished.len() + usize::from(open.is_some()))?;
            let path = self.folder.join(self.name(number));
            self.series[number].open = open.map(|so_far| ShardWriter::resume(&path, self.kind, so_far)).transpose()?;
        }
        Ok(self)
    }

    /// Puts everything written so far on the disk, and says how far that is.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn checkpoint(&mut self) -> Result<ShardsState> {
        for series in &mut self.series {
            for facts in &series.finished[series.synced..] {
                let path = self.folder.join(&facts.file);
                EXTENSIONS.iter().try_for_each(|extension| sync_file(&path.with_extension(extension)))?;
            }
            series.synced = series.finished.len();
            if let Some(shard) = &mut series.open {
                shard.sync()?;
            }
        }
        sync_folder(&self.folder)?;
        let series = [0, 1, 2].map(|number: usize| {
            let Series { finished, open, .. } = &self.series[number];
            SeriesState { finished: finished.clone(), open: open.as_ref().map(ShardWriter::so_far) }
        });
        Ok(ShardsState { series, document_tokens: self.document_tokens, settled: self.settled.clone() })
    }

    /// How many shards are finished.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.series.iter().map(|series| series.finished.len() as u64).sum()
    }

    /// Appends a document that was encoded elsewhere: whole to the side that a hash of its text says.
    ///
    /// # Errors
    ///
    /// An id that the vocabulary does not have, or the disk refuses.
    pub fn add_document(&mut self, text: &str, ids: &[u32], origin: Origin) -> Result<()> {
        if let Some(place) = ids.iter().position(|id| *id >= self.kind.vocab_size) {
            let (id, size) = (ids[place], self.kind.vocab_size);
            return Err(Error::Invalid(format!("id {id} at place {place} is not in the vocabulary of {size} ids")));
        }
        let side = side_of(text.as_bytes(), Some(self.val_fraction));
        let mut tokens = Vec::new();
        self.kind.token_type.write(ids, &mut tokens);
        self.write(&tokens, &EncodedPart { end: tokens.len(), text_bytes: text.len() as u64, side, ends: Some(origin) })
    }

    /// Width of the tokens.
    #[must_use]
    pub fn token_type(&self) -> TokenType {
        self.kind.token_type
    }

    /// Appends a part of a document.
    pub(crate) fn write(&mut self, tokens: &[u8], part: &EncodedPart) -> Result<()> {
        let number = self.number_of(part.side);
        self.append(number, tokens, Some(part.text_bytes))?;
        self.document_tokens += tokens.len() as u64;
        if let Some(origin) = part.ends
            && std::mem::take(&mut self.document_tokens) > 0
        {
            let eot = std::mem::take(&mut self.eot);
            self.append(number, &eot, Some(0))?;
            self.eot = eot;
            self.end_document(number, origin)?;
        }
        Ok(())
    }

    /// The series that what falls to a side is written to.
    pub(crate) fn number_of(&self, side: Side) -> usize {
        match self.split {
            Split::Hash => side as usize,
            Split::Last => Side::Train as usize,
        }
    }

    pub(crate) fn end_document(&mut self, number: usize, origin: Origin) -> Result<()> {
        self.series[number].open.as_mut().map_or(Ok(()), |shard| shard.end_document(origin))
    }

    /// Appends tokens, over as many shards as they take. `text_bytes` is what they stand for, where that is known.
    pub(crate) fn append(&mut self, number: usize, tokens: &[u8], text_bytes: Option<u64>) -> Result<()> {
        let width = self.kind.token_type.width();
        let mut rest = tokens;
        while !rest.is_empty() {
            if self.series[number].open.as_ref().is_some_and(|shard| shard.so_far().tokens == self.shard_tokens) {
                self.finish_shard(number)?;
            }
            let shard = match self.series[number].open.take() {
                Some(shard) => shard,
                None => ShardWriter::create(&self.folder.join(self.name(number)), self.kind)?,
            };
            let room = usize::try_from(self.shard_tokens - shard.so_far().tokens).map_or(usize::MAX, |n| n.saturating_mul(width));
            let (now, later) = rest.split_at(room.min(rest.len()));
            let known = text_bytes.filter(|_| now.len() == tokens.len());
            let shard = self.series[number].open.insert(shard);
            shard.write(now, known.unwrap_or_else(|| text_bytes_of(now, width, &self.lengths)))?;
            rest = later;
        }
        Ok(())
    }

    /// Corrects the bytes of text of the open shard by what was found out later.
    pub(crate) fn correct_text_bytes(&mut self, number: usize, known: u64, counted: u64) {
        if let Some(shard) = &mut self.series[number].open {
            shard.correct_text_bytes(known, counted);
        }
    }

    /// The name of the first shard of a series that is not finished.
    fn name(&self, number: usize) -> String {
        shard_name(number, self.series[number].finished.len())
    }

    pub(crate) fn finish_shard(&mut self, number: usize) -> Result<()> {
        let series = &mut self.series[number];
        if let Some(shard) = series.open.take() {
            series.finished.push(shard.finish()?);
        }
        Ok(())
    }

    /// Whether the files of a finished shard are still those that were written.
    fn check_files(&self, facts: &ShardFacts) -> Result<()> {
        let (path, remove) = (self.folder.join(&facts.file), self.folder.parent().unwrap_or(&self.folder).display());
        let files = [
            ("bin", HEADER_BYTES + facts.tokens * self.kind.token_type.width() as u64, Some(facts.xxh3)),
            ("idx", END_BYTES * facts.documents, Some(facts.idx_xxh3)),
            ("map", ORIGIN_BYTES * facts.documents, facts.map_xxh3),
        ];
        for (extension, wanted, xxh3) in files {
            let path = path.with_extension(extension);
            let found = std::fs::metadata(&path).map_err(Error::io(&path))?.len();
            if found != wanted {
                let message = format!("{}: {found} bytes, but {wanted} were written; remove {remove} and start anew", path.display());
                return Err(Error::Format(message));
            }
            if let Some(wanted) = xxh3
                && wanted != hash_file(&path)?
            {
                let message = format!("{}: not what was written, by its checksum; remove {remove} and start anew", path.display());
                return Err(Error::Format(message));
            }
        }
        Ok(())
    }

    /// Removes the shards of a series from that one on.
    pub(crate) fn remove_from(&self, number: usize, first: usize) -> Result<()> {
        for entry in std::fs::read_dir(&self.folder).map_err(Error::io(&self.folder))? {
            let path = entry.map_err(Error::io(&self.folder))?.path();
            if number_in(&path, SERIES[number]).is_some_and(|found| found >= first) {
                std::fs::remove_file(&path).map_err(Error::io(&path))?;
            }
        }
        Ok(())
    }
}

/// The name of a shard.
pub(crate) fn shard_name(number: usize, shard: usize) -> String {
    format!("{}_{shard:06}.bin", SERIES[number])
}

/// The shard's number, if a file is one of a series.
fn number_in(path: &Path, series: &str) -> Option<usize> {
    let name = path.file_name()?.to_str()?.strip_prefix(series)?.strip_prefix('_')?;
    let (number, extension) = name.split_once('.')?;
    EXTENSIONS.contains(&extension).then(|| number.parse().ok())?
}

/// Bytes of text that a run of tokens on disk stands for.
pub(crate) fn text_bytes_of(tokens: &[u8], width: usize, lengths: &[u32]) -> u64 {
    // An id that the vocabulary lacks stands in a damaged file only, which others find.
    let length = |id: usize| lengths.get(id).map_or(0, |n| u64::from(*n));
    if width == 2 {
        return tokens.as_chunks::<2>().0.iter().map(|id| length(usize::from(u16::from_le_bytes(*id)))).sum();
    }
    tokens.as_chunks::<4>().0.iter().map(|id| length(u32::from_le_bytes(*id) as usize)).sum()
}
