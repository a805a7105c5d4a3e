//! Counted pieces on disk: sorted runs in a file without a name, and their sum as one sorted stream.
//!
//! A record is the piece's length and its count, seven bits a byte, then its bytes. Runs are appended and never changed, so
//! whoever holds one may read it while others write. The file vanishes with the last who holds a run of it, or with the
//! process, however that ends.

use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// By what runs are sorted first, before the bytes themselves: smaller for smaller pieces, in whatever order is meant.
pub(crate) type KeyOf = fn(&[u8]) -> u64;

/// Bytes of a run that are held in memory while it is read, but for longer pieces.
const READ_BYTES: usize = 16 << 10;
/// Bytes of a run that are held back while it is written.
const WRITE_BYTES: usize = 256 << 10;

/// The first eight bytes of a piece: the key of the order of bytes.
pub(crate) fn first_bytes(piece: &[u8]) -> u64 {
    let mut first = [0; 8];
    let n = piece.len().min(8);
    first[..n].copy_from_slice(&piece[..n]);
    u64::from_be_bytes(first)
}

/// A file that has no name any longer.
#[derive(Debug)]
pub(crate) struct RunFile {
    /// What messages call it.
    name: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    end: u64,
}

/// A stretch of a file: different pieces, ascending.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    file: Arc<RunFile>,
    start: u64,
    end: u64,
    /// The largest count.
    pub(crate) largest: u64,
    /// Bytes of the longest piece.
    longest: usize,
    /// How often its records were merged before.
    level: u32,
}

impl RunFile {
    /// An empty one in a folder; none takes the system's for temporary files.
    pub(crate) fn new(folder: Option<&Path>) -> Result<Arc<RunFile>> {
        let place = folder.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let hint = if folder.is_none() { "; TMPDIR names another place" } else { "" };
        let name = PathBuf::from(format!("{} (pieces that do not fit into memory{hint})", place.display()));
        let file = tempfile::tempfile_in(&place).map_err(Error::io(&name))?;
        Ok(Arc::new(RunFile { name, inner: Mutex::new(Inner { file, end: 0 }) }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that panicked while it held the lock ends the call anyway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets so many bytes apart.
    fn reserve(&self, n_bytes: u64) -> u64 {
        let mut inner = self.lock();
        let start = inner.end;
        inner.end += n_bytes;
        start
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let mut inner = self.lock();
        inner.file.seek(SeekFrom::Start(at)).and_then(|_| inner.file.write_all(bytes)).map_err(Error::io(&self.name))
    }

    fn read_at(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let mut inner = self.lock();
        inner.file.seek(SeekFrom::Start(at)).and_then(|_| inner.file.read_exact(bytes)).map_err(Error::io(&self.name))
    }

    /// Adds sorted records.
    pub(crate) fn append(self: &Arc<Self>, records: &Records) -> Result<Run> {
        let n_bytes = records.bytes.len() as u64;
        let start = self.reserve(n_bytes);
        self.write_at(start, &records.bytes)?;
        Ok(Run { file: self.clone(), start, end: start + n_bytes, largest: records.largest, longest: records.longest, level: 0 })
    }

    /// Adds the sum of runs.
    fn append_sum(self: &Arc<Self>, runs: &[Run], key_of: KeyOf) -> Result<Run> {
        // A sum takes no more bytes than what is summed.
        let start = self.reserve(runs.iter().map(|run| run.end - run.start).sum());
        let (mut at, mut waiting) = (start, Records::default());
        for_each_sum(runs, Records::default(), key_of, |piece, n| {
            waiting.put(piece, n);
            if waiting.bytes.len() >= WRITE_BYTES {
                self.write_at(at, &waiting.bytes)?;
                at += waiting.bytes.len() as u64;
                waiting.bytes.clear();
            }
            Ok(())
        })?;
        self.write_at(at, &waiting.bytes)?;
        let end = at + waiting.bytes.len() as u64;
        let level = runs.iter().map(|run| run.level).max().unwrap_or(0) + 1;
        Ok(Run { file: self.clone(), start, end, largest: waiting.largest, longest: waiting.longest, level })
    }

    /// Replaces runs that were merged equally often by their sum when reading them at once takes more than `fan_bytes`. So
    /// each record is written again only as often as the number of runs has digits, and the sum of all can be read in
    /// little more memory than that.
    pub(crate) fn settle(self: &Arc<Self>, runs: &mut Vec<Run>, fan_bytes: usize, key_of: KeyOf) -> Result<()> {
        // Where the disk refuses, the runs are what they were.
        let (mut settled, mut level) = (runs.clone(), 0);
        while settled.iter().any(|run| run.level >= level) {
            let (same, others): (Vec<Run>, Vec<Run>) = settled.into_iter().partition(|run| run.level == level);
            settled = others;
            let (mut group, mut group_bytes) = (Vec::new(), 0);
            for run in same {
                group_bytes += run.longest.max(READ_BYTES);
                group.push(run);
                if group_bytes >= fan_bytes && group.len() > 1 {
                    settled.push(self.append_sum(&group, key_of)?);
                    (group, group_bytes) = (Vec::new(), 0);
                }
            }
            settled.append(&mut group);
            level += 1;
        }
        *runs = settled;
        Ok(())
    }
}

/// Records in memory.
#[derive(Debug, Default)]
pub(crate) struct Records {
    bytes: Vec<u8>,
    largest: u64,
    longest: usize,
}

impl Records {
    /// None, with room for so many bytes.
    pub(crate) fn with_capacity(n_bytes: usize) -> Records {
        Records { bytes: Vec::with_capacity(n_bytes), ..Records::default() }
    }

    /// Adds a piece, which comes after those that are there.
    pub(crate) fn put(&mut self, piece: &[u8], n: u64) {
        for mut number in [piece.len() as u64, n] {
            while number >= 128 {
                self.bytes.push(number as u8 | 128);
                number >>= 7;
            }
            self.bytes.push(number as u8);
        }
        self.bytes.extend_from_slice(piece);
        self.largest = self.largest.max(n);
        self.longest = self.longest.max(piece.len());
    }
}

/// Calls `each` with every piece of runs and of further `records`, ascending, and the sum of its counts.
///
/// # Errors
///
/// The file cannot be read, a sum passes 2^64 - 1, or what `each` returns.
pub(crate) fn for_each_sum(runs: &[Run], records: Records, key_of: KeyOf, mut each: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
    let mut readers: Vec<Reader> = runs.iter().map(Reader::of_run).chain([Reader::of_records(records.bytes)]).collect();
    let mut heads = BinaryHeap::with_capacity(readers.len());
    for (i, reader) in readers.iter_mut().enumerate() {
        if reader.next()? {
            heads.push(Reverse((key_of(reader.piece()), i)));
        }
    }
    let (mut same, mut piece) = (Vec::new(), Vec::new());
    while let Some(Reverse((key, first))) = heads.pop() {
        same.clear();
        same.push(first);
        while let Some(Reverse((other, i))) = heads.peek().copied()
            && other == key
        {
            heads.pop();
            same.push(i);
        }
        let least = same.iter().copied().min_by(|a, b| readers[*a].piece().cmp(readers[*b].piece())).unwrap_or(first);
        piece.clear();
        piece.extend_from_slice(readers[least].piece());
        let mut sum = 0u64;
        for &i in &same {
            if readers[i].piece() == piece {
                sum = sum.checked_add(readers[i].count).ok_or_else(overflow)?;
                if readers[i].next()? {
                    heads.push(Reverse((key_of(readers[i].piece()), i)));
                }
            } else {
                heads.push(Reverse((key, i)));
            }
        }
        each(&piece, sum)?;
    }
    Ok(())
}

/// A count that does not fit.
pub(crate) fn overflow() -> Error {
    Error::Invalid("the count of a piece passes 2^64 - 1".into())
}

/// Records, one after another.
struct Reader<'a> {
    /// What is to be read yet.
    rest: Option<(&'a RunFile, u64, u64)>,
    buffer: Vec<u8>,
    /// Where the next record begins in the buffer.
    next: usize,
    piece: std::ops::Range<usize>,
    count: u64,
}

impl Reader<'_> {
    fn of_run(run: &Run) -> Reader<'_> {
        Reader { rest: Some((&run.file, run.start, run.end)), buffer: Vec::new(), next: 0, piece: 0..0, count: 0 }
    }

    fn of_records(records: Vec<u8>) -> Reader<'static> {
        Reader { rest: None, buffer: records, next: 0, piece: 0..0, count: 0 }
    }

    fn piece(&self) -> &[u8] {
        &self.buffer[self.piece.clone()]
    }

    /// Goes to the next record; false at the end.
    fn next(&mut self) -> Result<bool> {
        // Two numbers of up to ten bytes.
        self.fill(20)?;
        if self.next == self.buffer.len() {
            return Ok(false);
        }
        let length = self.number() as usize;
        self.count = self.number();
        self.fill(length)?;
        self.piece = self.next..self.next + length;
        self.next = self.piece.end;
        Ok(true)
    }

    /// Makes so many bytes ready, or all that there are.
    fn fill(&mut self, n_bytes: usize) -> Result<()> {
        let here = self.buffer.len() - self.next;
        let Some((file, at, end)) = &mut self.rest else { return Ok(()) };
        if here >= n_bytes || at == end {
            return Ok(());
        }
        self.buffer.drain(..self.next);
        self.next = 0;
        let more = (READ_BYTES.max(n_bytes) - here).min((*end - *at) as usize);
        self.buffer.resize(here + more, 0);
        file.read_at(*at, &mut self.buffer[here..])?;
        *at += more as u64;
        // One long piece does not make every buffer long for ever.
        if self.buffer.capacity() > 4 * READ_BYTES && self.buffer.len() <= READ_BYTES {
            self.buffer.shrink_to_fit();
        }
        Ok(())
    }

    fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.buffer[self.next];
            self.next += 1;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return number;
            }
            shift += 7;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn records(pieces: &BTreeMap<Vec<u8>, u64>, key_of: KeyOf) -> Records {
        let mut sorted: Vec<_> = pieces.iter().collect();
        sorted.sort_by_key(|(piece, _)| (key_of(piece), *piece));
        let mut records = Records::default();
        for (piece, n) in sorted {
            records.put(piece, *n);
        }
        records
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn runs_add_up_in_order_however_they_were_merged(
            parts in prop::collection::vec(prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..12), 1u64..=u64::MAX >> 8, 0..20), 1..20),
            n_at_once in 2usize..5,
            // The length alone: most keys are equal.
            key_of in prop::sample::select(vec![first_bytes as KeyOf, |piece: &[u8]| piece.len() as u64]),
        ) {
            let file = RunFile::new(None).unwrap();
            let (mut runs, mut expected) = (Vec::new(), BTreeMap::new());
            for part in &parts[1..] {
                runs.push(file.append(&records(part, key_of)).unwrap());
                file.settle(&mut runs, n_at_once * READ_BYTES, key_of).unwrap();
            }
            for (piece, n) in parts.iter().flatten() {
                *expected.entry(piece.clone()).or_insert(0) += n;
            }
            let mut found = Vec::new();
            for_each_sum(&runs, records(&parts[0], key_of), key_of, |piece, n| {
                found.push((piece.to_vec(), n));
                Ok(())
            }).unwrap();
            let mut expected: Vec<(Vec<u8>, u64)> = expected.into_iter().collect();
            expected.sort_by_key(|(piece, _)| (key_of(piece), piece.clone()));
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn runs_that_cannot_be_summed_are_still_there() {
        let file = RunFile::new(None).unwrap();
        let one = records(&BTreeMap::from([(b"a".to_vec(), u64::MAX)]), first_bytes);
        let mut runs = vec![file.append(&one).unwrap(), file.append(&one).unwrap()];
        assert!(file.settle(&mut runs, 1, first_bytes).is_err());
        assert_eq!(runs.len(), 2);
    }

    #[test]
    fn pieces_longer_than_a_buffer_come_back() {
        let file = RunFile::new(None).unwrap();
        let pieces: Vec<Vec<u8>> = (0..4u8).map(|i| vec![i; 1 << (20 - 3 * i)]).collect();
        let runs: Vec<Run> = pieces
            .iter()
            .map(|piece| {
                let mut records = Records::default();
                records.put(piece, 7);
                file.append(&records).unwrap()
            })
            .collect();
        let mut found = Vec::new();
        for_each_sum(&runs, Records::default(), first_bytes, |piece, n| {
            found.push((piece.to_vec(), n));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, pieces.into_iter().map(|piece| (piece, 7)).collect::<Vec<_>>());
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = RunFile::new(Some(Path::new("no/such/folder"))).unwrap_err().to_string();
        assert!(error.starts_with("no/such/folder (pieces that do not fit into memory): "), "{error}");
    }
}
