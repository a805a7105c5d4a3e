//! Folders of shards into one: the parts of a whole, and what stays of a corpus that has grown.
//!
//! Either way documents are copied as they are, and what results is what encoding all their text at once gives.

use crate::error::{Error, Result};
use crate::job::Job;
use crate::shard::Origin;
use crate::shards::read::{ShardDocuments, StoredSplit};
use crate::shards::set::Shards;
use crate::sources::Side;
use std::ops::Range;
use std::path::PathBuf;

/// Progress is told after so many bytes.
const TICK_BYTES: u64 = 1 << 20;
const SIDES: [Side; 2] = [Side::Train, Side::Val];

/// A folder of finished shards, as its manifest says.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Where it lies.
    pub folder: PathBuf,
    /// Names of the shards of train and val, in order.
    pub splits: [Vec<String>; 2],
    /// [`crate::Finished::tail_of`].
    pub tail_of: Option<Side>,
    /// Added to the numbers of its files.
    pub first_file: u64,
}

impl Prepared {
    pub(crate) fn paths(&self, side: Side) -> impl Iterator<Item = PathBuf> {
        self.splits[side as usize].iter().map(|name| self.folder.join(name))
    }

    pub(crate) fn open(&self, side: Side) -> Result<StoredSplit> {
        StoredSplit::open(&self.paths(side).collect::<Vec<PathBuf>>())
    }
}

/// Appends the documents of `parts`, which were finished without fall-backs, to `into`; finished with them it is what one
/// run over all of their text gives. Progress counts bytes of tokens.
///
/// # Errors
///
/// A part is of another tokenizer, damaged, or no part; the disk refuses; or the job was cancelled.
pub fn join(parts: &[Prepared], into: &mut Shards, job: &mut Job) -> Result<()> {
    for part in parts {
        if part.tail_of.is_some() {
            let message = format!("{}: its end was set apart for val, so it is no part of a whole; prepare parts", part.folder.display());
            return Err(Error::Invalid(message));
        }
        for side in SIDES {
            let stored = part.open(side)?;
            stored.check_kind(&into.kind)?;
            let number = into.number_of(side);
            let all = 0..stored.documents();
            let known = stored.text_bytes();
            let before = into.series[number].text_bytes();
            let renumber = |origin: Origin| Origin { file: origin.file + part.first_file, ..origin };
            stored.each_document(all, &mut Copying::new(into, number, &renumber, job))?;
            // Only where a tokenizer's ids do not say how long their text is.
            let counted = into.series[number].text_bytes() - before;
            into.correct_text_bytes(number, known, counted);
        }
    }
    job.tick()
}

/// Tells of progress, not of every document.
#[derive(Default)]
pub(crate) struct Ticks(u64);

impl Ticks {
    pub(crate) fn add(&mut self, n_bytes: u64, job: &mut Job) -> Result<()> {
        self.0 += n_bytes;
        if self.0 < TICK_BYTES {
            return Ok(());
        }
        job.add_bytes(std::mem::take(&mut self.0));
        job.tick()
    }
}

/// A folder whose documents are still those of its files.
#[derive(Debug)]
pub struct OldFolder {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    /// Where documents fell to.
    side: Side,
    stored: StoredSplit,
    /// Entry that is no document's end but the place where one was cut in two.
    cut: Option<u64>,
}

impl OldFolder {
    /// Opens a folder whose documents lie in the order of its files, not shuffled.
    ///
    /// # Errors
    ///
    /// It is damaged, or its tokens are not of the kind of those that `shards` takes.
    pub fn open(folder: &Prepared, shards: &Shards) -> Result<OldFolder> {
        let [train, val] = SIDES.map(|side| folder.paths(side).collect::<Vec<PathBuf>>());
        let rows = match folder.tail_of {
            None => vec![Row::open(Side::Train, &train, &[])?, Row::open(Side::Val, &val, &[])?],
            Some(side) => vec![Row::open(side, &train, &val)?],
        };
        rows.iter().try_for_each(|row| row.stored.check_kind(&shards.kind))?;
        Ok(OldFolder { rows })
    }
}

impl Row {
    /// What lies in `start` and then in `tail`, a document that the border cuts in two made whole.
    fn open(side: Side, start: &[PathBuf], tail: &[PathBuf]) -> Result<Row> {
        let before = StoredSplit::open(start)?.documents();
        let stored = StoredSplit::open(&[start, tail].concat())?;
        let mut lookup = stored.lookup();
        let is_cut = 0 < before && before < stored.documents() && lookup.origin(before - 1)? == lookup.origin(before)?;
        Ok(Row { side, stored, cut: is_cut.then(|| before - 1) })
    }

    /// The documents of a file: they lie side by side, since files were read one after the other.
    fn documents_of(&self, file: u64) -> Result<Range<u64>> {
        let mut lookup = self.stored.lookup();
        let start = lookup.partition_point(|lookup, document| Ok(lookup.origin(document)?.file < file))?;
        let end = lookup.partition_point(|lookup, document| Ok(lookup.origin(document)?.file <= file))?;
        Ok(start..end)
    }
}

/// Appends the documents of one file of `old` to `shards`, as those of a file with another number. Files must come in the
/// order in which they are read, others encoded in between. Returns how many documents there were.
///
/// # Errors
///
/// The folder is damaged, the disk refuses, or the job was cancelled.
pub fn copy_of_file(old: &OldFolder, old_file: u64, new_file: u64, shards: &mut Shards, job: &mut Job) -> Result<u64> {
    let mut copied = 0;
    for row in &old.rows {
        let documents = row.documents_of(old_file)?;
        let number = shards.number_of(row.side);
        let renumber = |origin: Origin| Origin { file: new_file, ..origin };
        let mut copying = Copying::new(shards, number, &renumber, job);
        copying.open_entry = row.cut.and_then(|cut| cut.checked_sub(documents.start));
        row.stored.each_document(documents, &mut copying)?;
        copied += copying.documents;
    }
    job.tick()?;
    Ok(copied)
}

/// Appends documents to a series of shards and tells of it.
struct Copying<'a, 'b> {
    shards: &'a mut Shards,
    number: usize,
    renumber: &'a dyn Fn(Origin) -> Origin,
    job: &'a mut Job<'b>,
    /// Entries until the one after which the document goes on.
    open_entry: Option<u64>,
    documents: u64,
    ticks: Ticks,
}

impl<'a, 'b> Copying<'a, 'b> {
    fn new(shards: &'a mut Shards, number: usize, renumber: &'a dyn Fn(Origin) -> Origin, job: &'a mut Job<'b>) -> Self {
        Copying { shards, number, renumber, job, open_entry: None, documents: 0, ticks: Ticks::default() }
    }
}

impl ShardDocuments for Copying<'_, '_> {
    fn tokens(&mut self, tokens: &[u8]) -> Result<()> {
        self.shards.append(self.number, tokens, None)?;
        self.ticks.add(tokens.len() as u64, self.job)
    }

    fn end(&mut self, origin: Origin) -> Result<()> {
        if self.open_entry == Some(self.documents) {
            self.open_entry = None;
            return Ok(());
        }
        self.documents += 1;
        self.shards.end_document(self.number, (self.renumber)(origin))
    }
}
