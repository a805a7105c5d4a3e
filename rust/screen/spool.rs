//! Records on disk by key, and which keys come again, in bounded memory.

use crate::error::{Error, Result};
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Parts that a key's next bits choose among, so as many files are open at once at each depth.
pub const FAN: usize = 1 << FAN_BITS;
const FAN_BITS: usize = 6;
/// Depth at which the first 64 bits of a key are used up.
const MAX_DEPTH: usize = 64 / FAN_BITS - 1;
/// Bytes of a part held back from disk: 1 MiB for all parts.
const WAITING_BYTES: usize = 16 << 10;

/// Keys that may be held at once: 26 MiB of table.
pub const MAX_KEYS: usize = (1 << 20) / 8 * 7;

/// Records of `N` bytes in parts, each in the order written. A part gets a file when it outgrows its buffer; the files go
/// away with the spool.
pub struct Spool<const N: usize> {
    folder: PathBuf,
    name: String,
    parts: Vec<Part>,
}

#[derive(Default)]
struct Part {
    waiting: Vec<u8>,
    file: Option<(PathBuf, File)>,
    records: u64,
}

impl<const N: usize> Spool<N> {
    /// An empty spool; its files will be those in `folder` whose names begin with `name`, replaced if they are there.
    pub fn new(folder: &Path, name: &str, parts: usize) -> Self {
        Spool { folder: folder.to_path_buf(), name: name.to_string(), parts: (0..parts).map(|_| Part::default()).collect() }
    }

    /// Adds a record to a part.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn push(&mut self, part: usize, record: &[u8; N]) -> Result<()> {
        let target = &mut self.parts[part];
        target.records += 1;
        if target.waiting.len() + N > WAITING_BYTES {
            let path = self.folder.join(format!("{}-{part:02}", self.name));
            target.write(path)?;
        }
        target.waiting.extend_from_slice(record);
        Ok(())
    }

    /// Calls `each` with the records of a part until it breaks off.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or what `each` returns.
    pub fn for_each(&mut self, part: usize, mut each: impl FnMut(&[u8; N]) -> Result<ControlFlow<()>>) -> Result<()> {
        let part = &mut self.parts[part];
        let (waiting, _) = part.waiting.as_chunks::<N>();
        if let Some((path, file)) = &mut part.file {
            file.rewind().map_err(Error::io(path))?;
            let mut reader = BufReader::with_capacity(WAITING_BYTES, file);
            let mut record = [0; N];
            for _ in 0..part.records - waiting.len() as u64 {
                reader.read_exact(&mut record).map_err(Error::io(path))?;
                if each(&record)?.is_break() {
                    return Ok(());
                }
            }
        }
        for record in waiting {
            if each(record)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Forgets a part and takes its file away.
    fn discard(&mut self, part: usize) {
        std::mem::take(&mut self.parts[part]).remove();
    }
}

impl Part {
    fn write(&mut self, path: PathBuf) -> Result<()> {
        let (path, file) = match &mut self.file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).map_err(Error::io(&path))?;
                none.insert((path, file))
            }
        };
        file.write_all(&self.waiting).map_err(Error::io(path))?;
        self.waiting.clear();
        Ok(())
    }

    fn remove(self) {
        if let Some((path, file)) = self.file {
            drop(file);
            // What is left is in a folder that its owner clears.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl<const N: usize> Drop for Spool<N> {
    fn drop(&mut self) {
        for part in self.parts.drain(..) {
            part.remove();
        }
    }
}

/// The part of a key at a depth.
fn part_of(key: [u64; 2], depth: usize) -> usize {
    (key[0] >> (64 - FAN_BITS * (depth + 1))) as usize % FAN
}

/// Keys of 128 evenly spread bits with the ordinals they came with, which rise; a key of 64 bits ends in zeros, and `N` is 8
/// bytes for each word of key and for the ordinal.
pub struct Keyed<const N: usize> {
    spool: Spool<N>,
    depth: usize,
    /// Keys that may be held at once.
    max_keys: usize,
}

impl<const N: usize> Keyed<N> {
    /// Nothing yet; see [`Spool::new`].
    pub fn new(folder: &Path, name: &str, max_keys: usize) -> Self {
        Keyed { spool: Spool::new(folder, name, FAN), depth: 0, max_keys }
    }

    /// Adds a key.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn push(&mut self, key: [u64; 2], ordinal: u64) -> Result<()> {
        let mut record = [0; N];
        let (words, _) = record.as_chunks_mut::<8>();
        for (word, value) in words.iter_mut().zip(key) {
            *word = value.to_le_bytes();
        }
        if let Some(last) = words.last_mut() {
            *last = ordinal.to_le_bytes();
        }
        self.spool.push(part_of(key, self.depth), &record)
    }

    /// Calls `each` with the first ordinal and a later one of every key that comes again, leaving out the ordinals that are
    /// not wanted; more than once for some. Parts of more keys than may be held are divided by the bits that follow.
    ///
    /// # Errors
    ///
    /// A file cannot be read or written.
    pub fn for_each_repeat(mut self, wanted: &dyn Fn(u64) -> bool, each: &mut dyn FnMut(u64, u64)) -> Result<()> {
        for part in 0..FAN {
            if !self.repeats_in(part, wanted, each)? {
                self.divide(part)?.for_each_repeat(wanted, each)?;
            }
            self.spool.discard(part);
        }
        Ok(())
    }

    /// False when the part has too many keys.
    fn repeats_in(&mut self, part: usize, wanted: &dyn Fn(u64) -> bool, each: &mut dyn FnMut(u64, u64)) -> Result<bool> {
        let max_keys = if self.depth == MAX_DEPTH { usize::MAX } else { self.max_keys };
        let records = self.spool.parts[part].records;
        let mut first = FxHashMap::with_capacity_and_hasher(self.max_keys.min(records as usize), rustc_hash::FxBuildHasher);
        let mut is_complete = true;
        self.spool.for_each(part, |record| {
            let (key, ordinal) = parse(record);
            if !wanted(ordinal) {
                return Ok(ControlFlow::Continue(()));
            }
            let has_room = first.len() < max_keys;
            match first.entry(key) {
                Entry::Occupied(entry) => each(*entry.get(), ordinal),
                Entry::Vacant(entry) if has_room => {
                    entry.insert(ordinal);
                }
                Entry::Vacant(_) => {
                    is_complete = false;
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(is_complete)
    }

    fn divide(&mut self, part: usize) -> Result<Keyed<N>> {
        let spool = Spool::new(&self.spool.folder, &format!("{}-{part:02}", self.spool.name), FAN);
        let mut finer = Keyed { spool, depth: self.depth + 1, max_keys: self.max_keys };
        self.spool.for_each(part, |record| {
            finer.spool.push(part_of(parse(record).0, finer.depth), record)?;
            Ok(ControlFlow::Continue(()))
        })?;
        self.spool.discard(part);
        Ok(finer)
    }
}

fn parse<const N: usize>(record: &[u8; N]) -> ([u64; 2], u64) {
    let (words, _) = record.as_chunks::<8>();
    let word = |i: usize| u64::from_le_bytes(words[i]);
    let last = words.len() - 1;
    ([word(0), if last == 2 { word(1) } else { 0 }], word(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn repeats<const N: usize>(keys: &[[u64; 2]], max_keys: usize) -> BTreeSet<(u64, u64)> {
        let folder = tempfile::tempdir().unwrap();
        let mut keyed = Keyed::<N>::new(folder.path(), "keys", max_keys);
        for (ordinal, key) in (0..).zip(keys) {
            keyed.push(*key, ordinal).unwrap();
        }
        let mut found = BTreeSet::new();
        keyed
            .for_each_repeat(&|ordinal| ordinal % 5 != 1, &mut |first, later| {
                found.insert((first, later));
            })
            .unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        found
    }

    fn expected(keys: &[[u64; 2]]) -> BTreeSet<(u64, u64)> {
        let mut first = BTreeMap::new();
        let pairs = (0u64..).zip(keys).filter(|(ordinal, _)| ordinal % 5 != 1);
        pairs
            .filter_map(|(ordinal, key)| Some((*first.entry(*key).or_insert(ordinal), ordinal)).filter(|(first, later)| first != later))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn repeats_are_those_of_a_map_whatever_may_be_held(seeds in prop::collection::vec(0u64..40, 0..300), shift in 0u32..58, max_keys in 1usize..50) {
            let wide: Vec<[u64; 2]> = seeds.iter().map(|seed| [(seed / 2) << shift, seed % 2]).collect();
            prop_assert_eq!(repeats::<24>(&wide, max_keys), expected(&wide));
            let narrow: Vec<[u64; 2]> = seeds.iter().map(|seed| [seed << shift, 0]).collect();
            prop_assert_eq!(repeats::<16>(&narrow, max_keys), expected(&narrow));
        }
    }

    #[test]
    fn keys_go_through_files_when_there_are_many() {
        let keys: Vec<[u64; 2]> = (0..200_000u64).map(|i| [(i % 150_000).wrapping_mul(0x9e37_79b9_7f4a_7c15), 7]).collect();
        assert_eq!(repeats::<24>(&keys, 1000), expected(&keys));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let mut spool = Spool::<8>::new(Path::new("no-such-folder"), "sizes", 1);
        let error = (0..10_000u64).find_map(|i| spool.push(0, &i.to_le_bytes()).err()).unwrap().to_string();
        assert!(error.starts_with("no-such-folder/sizes-00: "), "{error}");
    }
}
