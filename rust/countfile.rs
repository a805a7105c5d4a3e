//! Counts in a file, so that machines may count apart and learn together.
//!
//! Little-endian: the eight bytes `tGPTcnt1`; length (u32) and UTF-8 of the pattern's name; number of pieces (u64); for each
//! piece, ascending, its length (u32), count (u64) and bytes; xxh3-64 of all before (u64). Equal counts are equal bytes.

use crate::count::Counts;
use crate::error::{Error, Result};
use crate::pretokenize::MAX_PIECE_BYTES;
use crate::runs::{KeyOf, Records, Run, first_bytes, for_each_sum};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

const MAGIC: &[u8; 8] = b"tGPTcnt1";
/// The longest name of a pattern, which may be a regular expression.
const MAX_NAME_BYTES: usize = 1 << 16;
/// Bytes of pieces that are sorted at once.
const SORT_BYTES: usize = 8 << 20;
/// Bytes of sorted pieces that are read at once.
const FAN_BYTES: usize = 4 << 20;

/// Writes `counts` of pieces by the pattern of that name to `path`, whole or not at all.
///
/// # Errors
///
/// The disk refuses, or a count passes 2^64 - 1.
pub fn save_counts(counts: &Counts, pattern: &str, path: &Path) -> Result<()> {
    let sorted = Sorted::new(counts, SORT_BYTES)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = parent.join(format!(".tmp-{name}-{}", std::process::id()));
    let write = || -> std::result::Result<(), Fault> {
        let mut out = Hashed { inner: BufWriter::new(File::create(&beside)?), hash: Xxh3::new() };
        out.put(MAGIC)?;
        out.put(&(pattern.len() as u32).to_le_bytes())?;
        out.put(pattern.as_bytes())?;
        out.put(&sorted.n_pieces.to_le_bytes())?;
        sorted.for_each(|piece, n| {
            let written =
                out.put(&(piece.len() as u32).to_le_bytes()).and_then(|()| out.put(&n.to_le_bytes())).and_then(|()| out.put(piece));
            written.map_err(Error::io(path))
        })?;
        let hash = out.hash.digest();
        out.put(&hash.to_le_bytes())?;
        out.inner.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&beside, path)?;
        Ok(File::open(parent)?.sync_all()?)
    };
    write().map_err(|fault| {
        // What is there is not wanted, and its loss is no second error.
        let _ = std::fs::remove_file(&beside);
        fault.of(path)
    })
}

/// Pieces in the order of their bytes: few in memory, the rest in runs.
struct Sorted {
    n_pieces: u64,
    runs: Vec<Run>,
    last: Records,
}

impl Sorted {
    const KEY_OF: KeyOf = first_bytes;

    fn new(counts: &Counts, sort_bytes: usize) -> Result<Sorted> {
        let (mut bytes, mut pieces) = (Vec::new(), Vec::new());
        let (mut file, mut sorted) = (None, Sorted { n_pieces: 0, runs: Vec::new(), last: Records::default() });
        counts.for_each(|piece, n| {
            if bytes.len() + pieces.len() * size_of::<(u64, usize, usize, u64)>() > sort_bytes && !pieces.is_empty() {
                let file = match &file {
                    Some(file) => file,
                    None => file.insert(counts.new_file()?),
                };
                sorted.runs.push(file.append(&records(&bytes, &mut pieces))?);
                file.settle(&mut sorted.runs, FAN_BYTES, Sorted::KEY_OF)?;
                bytes.clear();
                pieces.clear();
            }
            sorted.n_pieces += 1;
            pieces.push((first_bytes(piece), bytes.len(), piece.len(), n));
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        sorted.last = records(&bytes, &mut pieces);
        Ok(sorted)
    }

    fn for_each(self, each: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        for_each_sum(&self.runs, self.last, Sorted::KEY_OF, each)
    }
}

/// Pieces, given by first bytes, place, length and count, in the order of their bytes.
fn records(bytes: &[u8], pieces: &mut [(u64, usize, usize, u64)]) -> Records {
    let piece_at = |at: usize, length: usize| &bytes[at..at + length];
    pieces.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| piece_at(a.1, a.2).cmp(piece_at(b.1, b.2))));
    let mut records = Records::with_capacity(bytes.len() + 8 * pieces.len());
    for (_, at, length, n) in &*pieces {
        records.put(piece_at(*at, *length), *n);
    }
    records
}

/// The counts in a file, and the name of the pattern.
///
/// # Errors
///
/// The file cannot be read, or is no such file or damaged.
pub fn load_counts(path: &Path) -> Result<(Counts, String)> {
    let file = File::open(path).map_err(Error::io(path))?;
    let size = file.metadata().map_err(Error::io(path))?.len();
    let mut input = Hashed { inner: BufReader::new(file), hash: Xxh3::new() };
    read(&mut input, size).map_err(|fault| match fault {
        Fault::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::Format(format!("{}: ends after {size} bytes, in the middle of its counts; copy it again", path.display()))
        }
        fault => fault.of(path),
    })
}

enum Fault {
    Io(std::io::Error),
    Format(String),
    /// It names its file.
    Other(Error),
}

impl Fault {
    fn of(self, path: &Path) -> Error {
        match self {
            Fault::Io(source) => Error::Io { path: path.to_path_buf(), source },
            Fault::Format(what) => Error::Format(format!("{}: {what}", path.display())),
            Fault::Other(error) => error,
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Fault::Io(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(what) => Fault::Format(what),
            error => Fault::Other(error),
        }
    }
}

fn read(input: &mut Hashed<impl Read>, size: u64) -> std::result::Result<(Counts, String), Fault> {
    let fault = |what: String| Err(Fault::Format(what));
    if &input.take::<8>()? != MAGIC {
        return fault("no file of counts (it does not begin with tGPTcnt1)".into());
    }
    let length = u32::from_le_bytes(input.take()?) as usize;
    if length > MAX_NAME_BYTES {
        return fault(format!("the name of the pattern has {length} bytes, and the longest may have {MAX_NAME_BYTES}"));
    }
    let mut piece = vec![0; length];
    input.fill(&mut piece)?;
    let Ok(pattern) = String::from_utf8(piece.clone()) else {
        return fault("the name of the pattern is not UTF-8".into());
    };
    let n = u64::from_le_bytes(input.take()?);
    if n > size / 13 {
        return fault(format!("{n} pieces do not fit into {size} bytes"));
    }
    let (mut counts, mut before) = (Counts::new(), Vec::new());
    for i in 0..n {
        let length = u32::from_le_bytes(input.take()?) as usize;
        let count = u64::from_le_bytes(input.take()?);
        if !(1..=MAX_PIECE_BYTES).contains(&length) || count == 0 {
            return fault(format!("piece {i} has {length} bytes and the count {count}, which no piece has"));
        }
        piece.resize(length, 0);
        input.fill(&mut piece)?;
        if i > 0 && piece <= before {
            return fault(format!("piece {i} is not after the one before it"));
        }
        counts.add(&piece, count)?;
        std::mem::swap(&mut before, &mut piece);
    }
    let expected = input.hash.digest();
    if u64::from_le_bytes(input.take()?) != expected {
        return fault("its checksum is not that of its content; copy it again".into());
    }
    if input.inner.read(&mut [0])? > 0 {
        return fault("something follows the counts".into());
    }
    Ok((counts, pattern))
}

/// A reader or writer that hashes what goes through.
struct Hashed<T> {
    inner: T,
    hash: Xxh3,
}

impl<T: Write> Hashed<T> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Hashed<T> {
    fn fill(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.hash.update(bytes);
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(counts: &Counts) -> Vec<(Vec<u8>, u64)> {
        let mut all = Vec::new();
        counts
            .for_each(|piece, n| {
                all.push((piece.to_vec(), n));
                Ok(())
            })
            .unwrap();
        all.sort_unstable();
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn counts_come_back_and_a_damaged_file_does_not(
            pieces in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..40), 1u64.., 0..20),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.counts");
            let mut counts = Counts::new();
            for (piece, n) in &pieces {
                counts.add(piece, *n).unwrap();
            }
            let mut in_order = Vec::new();
            Sorted::new(&counts, 1).unwrap().for_each(|piece, n| {
                in_order.push((piece.to_vec(), n));
                Ok(())
            }).unwrap();
            prop_assert_eq!(in_order, sorted(&counts));
            save_counts(&counts, "gpt2", &path).unwrap();
            let (found, pattern) = load_counts(&path).unwrap();
            prop_assert_eq!((sorted(&found), &*pattern), (pieces.into_iter().collect(), "gpt2"));
            let whole = std::fs::read(&path).unwrap();
            let mut damaged = whole.clone();
            damaged[at.index(whole.len())] ^= 1 << bit;
            for bytes in [&damaged[..], &whole[..at.index(whole.len())], &[&whole[..], b"x"].concat()] {
                std::fs::write(&path, bytes).unwrap();
                prop_assert!(matches!(load_counts(&path), Err(Error::Format(_))));
            }
        }
    }
}
