//! The end of train becomes val: where that is how text is split, and where nothing else is held out.
//!
//! A tail is first written beside what it is the end of, and only when that is whole are shards cut, removed and renamed.
//! Each of these steps can be done again, so that they may be interrupted.

use crate::error::{Error, Result};
use crate::shard::{Origin, ShardFacts};
use crate::shards::read::{ShardDocuments, StoredSplit};
use crate::shards::set::{EXTENSIONS, Shards, ShardsState, Split, shard_name, text_bytes_of};
use crate::shards::writer::{OpenShard, ShardWriter};
use crate::sources::Side;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// At most so many tokens are moved where the split by hash left nothing to hold out.
const MAX_MOVED_TOKENS: u64 = 1 << 22;
/// Places of the series.
const TRAIN: usize = 0;
const VAL: usize = 1;
const TAIL: usize = 2;

#[cfg(test)]
thread_local! {
    /// Files that may be renamed before a test is cut off, as a kill would do it.
    pub(crate) static STEPS: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

/// What is to be done once the tail is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settled {
    /// The series that becomes train.
    from: usize,
    cut: Option<Cut>,
}

/// Where a series ends now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cut {
    /// The shard that becomes its last, and how much of it stays.
    shard: usize,
    stays: OpenShard,
    /// The document that is cut in two, if one is.
    divides: Option<Origin>,
}

/// Shards that are finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Those of train.
    pub train: Vec<ShardFacts>,
    /// Those of val.
    pub val: Vec<ShardFacts>,
    /// If val is the end of train: the side that documents had fallen to before.
    pub tail_of: Option<Side>,
}

impl Shards {
    /// Finishes the last shards. With `fallback`, where [`Split::Last`] asks for it or val is empty, the end becomes val:
    /// from a document's start where one lies near, else from the very token. If nothing fell to train, what fell to val
    /// becomes train before. A part of a whole goes without.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn finish(self, fallback: bool) -> Result<Finished> {
        self.finish_with(fallback, &mut |_| Ok(()))
    }

    /// The same, with `save` called before shards are cut or renamed, if any are: from the state that it is given, and from
    /// no earlier one, [`Shards::resume`] finishes what was interrupted.
    ///
    /// # Errors
    ///
    /// The disk refuses, or what `save` returns.
    pub fn finish_with(mut self, fallback: bool, save: &mut dyn FnMut(&ShardsState) -> Result<()>) -> Result<Finished> {
        [TRAIN, VAL].into_iter().try_for_each(|number| self.finish_shard(number))?;
        if fallback && self.settled.is_none() {
            self.settled = self.settle()?;
            if self.settled.is_some() {
                save(&self.checkpoint()?)?;
            }
        }
        let mut tail_of = None;
        if let Some(settled) = self.settled.take() {
            tail_of = settled.cut.is_some().then_some(if settled.from == VAL { Side::Val } else { Side::Train });
            self.carry_out(settled)?;
        }
        let [train, val, _] = self.series.map(|series| series.finished);
        Ok(Finished { train, val, tail_of })
    }

    /// Writes the tail, if there is to be one.
    fn settle(&mut self) -> Result<Option<Settled>> {
        let from = if self.series[TRAIN].finished.is_empty() { VAL } else { TRAIN };
        let total = self.series[from].tokens();
        let is_wanted = self.val_fraction > 0.0 && (from == VAL || self.series[VAL].finished.is_empty());
        let cut = if is_wanted && total > 1 { Some(self.write_tail(from, total)?) } else { None };
        Ok((cut.is_some() || from == VAL && total > 0).then_some(Settled { from, cut }))
    }

    fn write_tail(&mut self, from: usize, total: u64) -> Result<Cut> {
        let paths: Vec<PathBuf> = self.series[from].finished.iter().map(|facts| self.folder.join(&facts.file)).collect();
        let stored = StoredSplit::open(&paths)?;
        let mut lookup = stored.lookup();
        let at = self.start_of_tail(&stored, total)?;
        let first = lookup.partition_point(|lookup, document| Ok(lookup.end(document)? <= at))?;
        let divides = match first {
            0 => true,
            n => lookup.end(n - 1)? < at,
        };
        let divides = if divides && first < stored.documents() { Some(lookup.origin(first)?) } else { None };
        stored.each_document_from(at, first..stored.documents(), &mut Appending { shards: self, number: TAIL })?;
        self.finish_shard(TAIL)?;
        let (shard, tokens) = stored.shard_before(at);
        let (mut moved, width) = (0, self.kind.token_type.width());
        stored.each_run(at..stored.start_of_shard(shard + 1), &mut |tokens| {
            moved += text_bytes_of(tokens, width, &self.lengths);
            Ok(())
        })?;
        let documents = first - stored.first_document_of_shard(shard);
        let bytes = self.series[from].finished[shard].bytes.saturating_sub(moved);
        Ok(Cut { shard, stays: OpenShard { tokens, documents, bytes }, divides })
    }

    /// The token with which the tail starts; at least one comes before it.
    fn start_of_tail(&self, stored: &StoredSplit, total: u64) -> Result<u64> {
        let most = if self.split == Split::Last { total } else { MAX_MOVED_TOKENS };
        let wished = ((total as f64 * self.val_fraction).ceil() as u64).min(most);
        let at = total.saturating_sub(wished).max(1);
        let mut lookup = stored.lookup();
        let before = lookup.partition_point(|lookup, document| Ok(lookup.end(document)? <= at))?;
        let end = if before == 0 { 0 } else { lookup.end(before - 1)? };
        // A whole document, if it is not more than twice what was wished.
        Ok(if end > 0 && total - end <= 2 * wished { end } else { at })
    }

    fn carry_out(&mut self, Settled { from, cut }: Settled) -> Result<()> {
        // The tail takes the names of val, so while it has its own, those of val are what fell there.
        if from == VAL && (cut.is_none() || self.path(TAIL, 0).with_extension(EXTENSIONS[0]).exists()) {
            self.rename(VAL, TRAIN)?;
        }
        if from == VAL {
            self.series[TRAIN].finished = std::mem::take(&mut self.series[VAL].finished);
        }
        if let Some(cut) = cut {
            self.rename(TAIL, VAL)?;
            self.series[VAL].finished = std::mem::take(&mut self.series[TAIL].finished);
            let mut last = ShardWriter::resume(&self.path(TRAIN, cut.shard), self.kind, cut.stays)?;
            #[cfg(test)]
            step()?;
            if let Some(origin) = cut.divides {
                last.end_document(origin)?;
            }
            self.remove_from(TRAIN, cut.shard + 1)?;
            #[cfg(test)]
            step()?;
            let finished = &mut self.series[TRAIN].finished;
            finished.truncate(cut.shard);
            finished.push(last.finish()?);
        }
        for number in [TRAIN, VAL] {
            for (shard, facts) in self.series[number].finished.iter_mut().enumerate() {
                facts.file = shard_name(number, shard);
            }
        }
        Ok(())
    }

    fn path(&self, number: usize, shard: usize) -> PathBuf {
        self.folder.join(shard_name(number, shard))
    }

    /// Gives the files of a series the names of another, those that have them not yet.
    fn rename(&self, from: usize, to: usize) -> Result<()> {
        for shard in 0..self.series[from].finished.len() {
            for extension in EXTENSIONS {
                let path = |number| self.path(number, shard).with_extension(extension);
                rename(&path(from), &path(to))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
fn step() -> Result<()> {
    if let Some(left) = STEPS.get() {
        STEPS.set(Some(left.checked_sub(1).ok_or(Error::Cancelled)?));
    }
    Ok(())
}

/// Renames a file; done already, if the new one alone is there.
fn rename(from: &Path, to: &Path) -> Result<()> {
    #[cfg(test)]
    step()?;
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && to.exists() => Ok(()),
        result => result.map_err(Error::io(from)),
    }
}

/// Appends documents to a series.
pub(crate) struct Appending<'a> {
    pub shards: &'a mut Shards,
    pub number: usize,
}

impl ShardDocuments for Appending<'_> {
    fn tokens(&mut self, tokens: &[u8]) -> Result<()> {
        self.shards.append(self.number, tokens, None)
    }

    fn end(&mut self, origin: Origin) -> Result<()> {
        self.shards.end_document(self.number, origin)
    }
}
