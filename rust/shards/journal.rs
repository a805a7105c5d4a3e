//! How far a long piece of work has got, so that the same command goes on there whatever killed the last one.

use crate::cleaning::Reports;
use crate::error::{Error, Result};
use crate::shards::set::ShardsState;
use crate::sources::{Found, Position};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Name of the file.
pub const JOURNAL_FILE: &str = "journal.json";
const VERSION: u32 = 2;
/// A journal is saved at most so often while no shard is finished: each time, what is in memory goes to the disk.
const EVERY: Duration = Duration::from_secs(10);

/// How far shards have got, and what of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    version: u32,
    /// Says what was asked for: with another key there is nothing to go on with.
    pub key: String,
    /// Where reading goes on.
    pub position: Position,
    /// The shards at that moment.
    pub shards: ShardsState,
    /// What the pass had seen until then.
    pub reports: Reports,
    /// The files that were read to their end, by their numbers.
    pub found: Vec<Option<Found>>,
}

impl Journal {
    /// A journal of that moment.
    #[must_use]
    pub fn new(key: &str, position: Position, shards: ShardsState, reports: Reports, found: Vec<Option<Found>>) -> Self {
        Journal { version: VERSION, key: key.into(), position, shards, reports, found }
    }

    /// The journal in a folder; `None` if there is none, or it is of something else than `key`.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is damaged.
    pub fn load(folder: &Path, key: &str) -> Result<Option<Journal>> {
        let path = folder.join(JOURNAL_FILE);
        let raw = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            raw => raw.map_err(Error::io(&path))?,
        };
        let refuse = |what: String| Error::Format(format!("{}: {what}; remove {} and start anew", path.display(), folder.display()));
        let journal: Journal = serde_json::from_slice(&raw).map_err(|error| refuse(format!("no journal: {error}")))?;
        if journal.version != VERSION {
            return Err(refuse(format!("version {}, but this tinygpt reads {VERSION}", journal.version)));
        }
        Ok((journal.key == key).then_some(journal))
    }

    /// Puts it in the place of the one before, such that whatever happens one of them is there whole.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let (path, beside) = (folder.join(JOURNAL_FILE), folder.join(format!("{JOURNAL_FILE}.new")));
        let raw = serde_json::to_vec(self).map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))?;
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(&raw)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)
        };
        write().map_err(Error::io(&path))?;
        sync_folder(folder)
    }
}

/// Says when a journal is due: when a shard was finished, and every ten seconds.
#[derive(Debug)]
pub struct Due {
    last: Instant,
    finished: u64,
}

impl Due {
    /// From now on, with so many shards finished already.
    #[must_use]
    pub fn new(finished: u64) -> Self {
        Due { last: Instant::now(), finished }
    }

    /// Whether one is due; the caller then saves it. `finished` is [`crate::Shards::finished`].
    pub fn is_due(&mut self, finished: u64) -> bool {
        let due = finished != self.finished || self.last.elapsed() >= EVERY;
        if due {
            *self = Due::new(finished);
        }
        due
    }
}

/// The names in a folder are on the disk when this returns.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    // Windows opens no folders, and puts names on the disk itself.
    if cfg!(unix) { File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io(folder)) } else { Ok(()) }
}

/// What was written to a file is on the disk when this returns.
pub(crate) fn sync_file(path: &Path) -> Result<()> {
    OpenOptions::new().write(true).open(path).and_then(|file| file.sync_all()).map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cleaning::Report;

    #[test]
    fn a_journal_comes_back_by_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Journal::load(folder.path(), "a").unwrap(), None);
        let position = Position { file: 3, document: u64::MAX, offset: 1 << 60, ordinal: 9 };
        let found = Found { bytes: 5, xxh3: u64::MAX, documents: 2 };
        let reports = Reports([(1 << 40, Report { documents: 7, first_invalid: Some(0), ..Report::default() })].into());
        let journal = Journal::new("a", position, ShardsState::default(), reports, vec![None, Some(found)]);
        journal.save(folder.path()).unwrap();
        journal.save(folder.path()).unwrap();
        assert_eq!(Journal::load(folder.path(), "a").unwrap(), Some(journal));
        assert_eq!(Journal::load(folder.path(), "b").unwrap(), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_journal_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(JOURNAL_FILE), "{").unwrap();
        let error = Journal::load(folder.path(), "a").unwrap_err().to_string();
        assert!(error.contains("journal.json: no journal: ") && error.ends_with("start anew"), "{error}");
    }

    #[test]
    fn a_journal_is_due_when_a_shard_was_finished() {
        let mut due = Due::new(2);
        assert_eq!([2, 3, 3, 5].map(|finished| due.is_due(finished)), [false, true, false, true]);
    }
}
