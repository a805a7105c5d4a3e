//! A seeded shuffle of the documents of a folder, in bounded memory: by a hash of what they hold.
//!
//! The order depends on the seed and the documents alone, not on how they were cut into files, parts and shards. A first
//! pass scatters documents to files by the first bits of their hash, a second one sorts each of these in memory; one that
//! memory does not hold is scattered again. A document too long to hold is left where it lies, and read when its turn comes.

use crate::error::{Error, Result};
use crate::job::Job;
use crate::shard::{ORIGIN_BYTES, Origin};
use crate::shards::join::{Prepared, Ticks};
use crate::shards::read::{ShardDocuments, StoredSplit};
use crate::shards::set::Shards;
use crate::sources::Side;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Memory that a shuffle takes unless told otherwise.
pub const SHUFFLE_MEMORY: usize = 64 << 20;
/// Less would make files of a few documents each.
const MIN_MEMORY: usize = 1 << 16;
/// At most 2 to that many files are open at once.
const MAX_BITS: u32 = 8;

/// How documents are shuffled.
#[derive(Clone, Debug)]
pub struct Shuffle {
    /// Another seed gives another order.
    pub seed: u64,
    /// Bytes of memory to use, about.
    pub memory: usize,
    /// A folder for what lies on the disk meanwhile, as much as the tokens; what is there is removed.
    pub temporary: PathBuf,
}

/// Appends the documents of a folder to `into`, those of each split in a random order. Progress counts bytes of tokens
/// twice.
///
/// # Errors
///
/// The folder is damaged or of another tokenizer, the disk refuses, or the job was cancelled.
pub fn shuffle(from: &Prepared, into: &mut Shards, how: &Shuffle, job: &mut Job) -> Result<()> {
    for side in [Side::Train, Side::Val] {
        let stored = from.open(side)?;
        stored.check_kind(&into.kind)?;
        let (number, known) = (side as usize, stored.text_bytes());
        let before = into.series[number].text_bytes();
        let folder = Temporary::create(&how.temporary)?;
        let mut pass = Pass { stored: &stored, how, into: &mut *into, number, job: &mut *job, ticks: Ticks::default() };
        let buckets = pass.scatter(folder.0)?;
        buckets.iter().try_for_each(|bucket| pass.gather(bucket))?;
        // Only where a tokenizer's ids do not say how long their text is.
        let counted = into.series[number].text_bytes() - before;
        into.correct_text_bytes(number, known, counted);
    }
    job.tick()
}

/// A folder that vanishes with this.
struct Temporary<'a>(&'a Path);

impl<'a> Temporary<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(path)(error)),
            _ => {}
        }
        std::fs::create_dir_all(path).map_err(Error::io(path))?;
        Ok(Temporary(path))
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // Whoever reuses the folder removes what is left.
        let _ = std::fs::remove_dir_all(self.0);
    }
}

/// What is known of a document that waits for its turn.
#[derive(Clone, Copy)]
struct Record {
    key: u64,
    origin: Origin,
    /// Token at which it starts where it came from.
    start: u64,
    n_bytes: u64,
    /// Whether its tokens stand behind this.
    is_here: bool,
}

const RECORD_BYTES: usize = 8 + ORIGIN_BYTES as usize + 16;
/// Bit of the length that says that tokens stand behind the record.
const HERE: u64 = 1 << 63;

impl Record {
    fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let words = [self.key, self.start, self.n_bytes | if self.is_here { HERE } else { 0 }];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes[24..].copy_from_slice(&self.origin.to_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        let word = |i: usize| bytes.as_chunks::<8>().0.get(i).map_or(0, |word| u64::from_le_bytes(*word));
        let mut origin = [0; ORIGIN_BYTES as usize];
        origin.copy_from_slice(&bytes[24..]);
        let length = word(2);
        Record { key: word(0), origin: Origin::from_bytes(origin), start: word(1), n_bytes: length & !HERE, is_here: length & HERE != 0 }
    }

    fn bytes_here(&self) -> usize {
        if self.is_here { self.n_bytes as usize } else { 0 }
    }
}

/// A file of records whose keys start alike.
struct Bucket {
    path: PathBuf,
    n_bytes: u64,
    records: usize,
    /// First bits that are the same in all of its keys.
    used: u32,
    /// Its only key, if it has but one.
    key: Option<u64>,
}

/// Buckets being filled.
struct Buckets {
    buckets: Vec<(Bucket, BufWriter<File>)>,
    used: u32,
    bits: u32,
}

impl Buckets {
    /// Files whose names start with `prefix`, for about `n_bytes` of records whose first `used` bits are the same.
    fn create(prefix: &Path, n_bytes: u64, used: u32, memory: usize) -> Result<Self> {
        let wanted = (4 * n_bytes).div_ceil(memory as u64).max(1);
        let bits = (u64::BITS - (wanted - 1).leading_zeros()).min(MAX_BITS).min(64 - used);
        let buffer_bytes = ((memory / 4) >> bits).clamp(1 << 12, 1 << 18);
        let bucket = |number: usize| {
            let mut name = prefix.as_os_str().to_owned();
            name.push(format!("-{number}"));
            let path = PathBuf::from(name);
            let file = File::create(&path).map_err(Error::io(&path))?;
            Ok((Bucket { path, n_bytes: 0, records: 0, used: used + bits, key: None }, BufWriter::with_capacity(buffer_bytes, file)))
        };
        Ok(Buckets { buckets: (0..1 << bits).map(bucket).collect::<Result<_>>()?, used, bits })
    }

    fn put(&mut self, record: Record, tokens: &[u8]) -> Result<()> {
        // Two shifts, since one by all 64 bits is none.
        let number = if self.bits == 0 { 0 } else { record.key << self.used >> (64 - self.bits) };
        let (bucket, file) = &mut self.buckets[number as usize];
        bucket.key = if bucket.records == 0 { Some(record.key) } else { bucket.key.filter(|key| *key == record.key) };
        bucket.records += 1;
        bucket.n_bytes += (RECORD_BYTES + tokens.len()) as u64;
        file.write_all(&record.to_bytes()).and_then(|()| file.write_all(tokens)).map_err(Error::io(&bucket.path))
    }

    fn close(self) -> Result<Vec<Bucket>> {
        let close = |(bucket, mut file): (Bucket, BufWriter<File>)| {
            file.flush().map_err(Error::io(&bucket.path))?;
            Ok(bucket)
        };
        self.buckets.into_iter().map(close).collect()
    }
}

/// The shuffle of one split.
struct Pass<'a, 'b> {
    stored: &'a StoredSplit,
    how: &'a Shuffle,
    into: &'a mut Shards,
    number: usize,
    job: &'a mut Job<'b>,
    ticks: Ticks,
}

impl Pass<'_, '_> {
    fn memory(&self) -> usize {
        self.how.memory.max(MIN_MEMORY)
    }

    fn scatter(&mut self, folder: &Path) -> Result<Vec<Bucket>> {
        let width = self.into.token_type().width() as u64;
        let n_bytes = self.stored.tokens() * width + self.stored.documents() * RECORD_BYTES as u64;
        let buckets = Buckets::create(&folder.join("bucket"), n_bytes, 0, self.memory())?;
        let (seed, limit) = (self.how.seed, self.memory() / 16);
        let (held, ticks) = (Vec::new(), Ticks::default());
        let mut scattering = Scattering { buckets, seed, limit, width, held, long: None, n_bytes: 0, start: 0, job: self.job, ticks };
        self.stored.each_document(0..self.stored.documents(), &mut scattering)?;
        scattering.buckets.close()
    }

    fn gather(&mut self, bucket: &Bucket) -> Result<()> {
        let path = &bucket.path;
        // With the list of its records it takes at most as much again and a half.
        let fits = bucket.n_bytes <= self.memory() as u64 / 5 * 2;
        // Equal documents are in order already, as they came.
        if bucket.key.is_some() || fits && bucket.records < 2 {
            self.each_record(bucket, |pass, record, tokens| pass.emit(&record, tokens))?;
            std::fs::remove_file(path).map_err(Error::io(path))
        } else if fits {
            self.sort(bucket)?;
            std::fs::remove_file(path).map_err(Error::io(path))
        } else {
            let mut buckets = Buckets::create(path, bucket.n_bytes, bucket.used, self.memory())?;
            self.each_record(bucket, |_, record, tokens| buckets.put(record, tokens))?;
            std::fs::remove_file(path).map_err(Error::io(path))?;
            buckets.close()?.iter().try_for_each(|bucket| self.gather(bucket))
        }
    }

    fn each_record(&mut self, bucket: &Bucket, mut take: impl FnMut(&mut Self, Record, &[u8]) -> Result<()>) -> Result<()> {
        let path = &bucket.path;
        let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(Error::io(path))?);
        let (mut raw, mut tokens) = ([0; RECORD_BYTES], Vec::new());
        for _ in 0..bucket.records {
            file.read_exact(&mut raw).map_err(Error::io(path))?;
            let record = Record::from_bytes(&raw);
            tokens.resize(record.bytes_here(), 0);
            file.read_exact(&mut tokens).map_err(Error::io(path))?;
            take(self, record, &tokens)?;
        }
        Ok(())
    }

    fn sort(&mut self, bucket: &Bucket) -> Result<()> {
        let raw = std::fs::read(&bucket.path).map_err(Error::io(&bucket.path))?;
        let mut records = Vec::with_capacity(bucket.records);
        let mut rest = &raw[..];
        while let Some((record, behind)) = rest.split_first_chunk::<RECORD_BYTES>() {
            let record = Record::from_bytes(record);
            let (tokens, behind) = behind.split_at(record.bytes_here());
            records.push((record, tokens));
            rest = behind;
        }
        records.sort_unstable_by_key(|(record, _)| (record.key, record.origin));
        records.iter().try_for_each(|(record, tokens)| self.emit(record, tokens))
    }

    fn emit(&mut self, record: &Record, tokens: &[u8]) -> Result<()> {
        let (into, number, job, ticks) = (&mut *self.into, self.number, &mut *self.job, &mut self.ticks);
        let end = record.start + record.n_bytes / into.token_type().width() as u64;
        let mut append = |tokens: &[u8]| {
            into.append(number, tokens, None)?;
            ticks.add(tokens.len() as u64, job)
        };
        if record.is_here {
            append(tokens)?;
        } else {
            self.stored.each_run(record.start..end, &mut append)?;
        }
        self.into.end_document(self.number, record.origin)
    }
}

/// Hashes documents and puts them into buckets.
struct Scattering<'a, 'b> {
    buckets: Buckets,
    seed: u64,
    /// Documents of more bytes are not held.
    limit: usize,
    width: u64,
    held: Vec<u8>,
    /// The hash of a document that is not held.
    long: Option<Box<Xxh3>>,
    n_bytes: u64,
    start: u64,
    job: &'a mut Job<'b>,
    ticks: Ticks,
}

impl ShardDocuments for Scattering<'_, '_> {
    fn tokens(&mut self, tokens: &[u8]) -> Result<()> {
        self.n_bytes += tokens.len() as u64;
        if let Some(hash) = &mut self.long {
            hash.update(tokens);
        } else if self.held.len() + tokens.len() <= self.limit {
            self.held.extend_from_slice(tokens);
        } else {
            let mut hash = Box::new(Xxh3::with_seed(self.seed));
            hash.update(&self.held);
            hash.update(tokens);
            self.held.clear();
            self.long = Some(hash);
        }
        Ok(())
    }

    fn end(&mut self, origin: Origin) -> Result<()> {
        let long = self.long.take();
        let key = long.as_ref().map_or_else(|| xxh3_64_with_seed(&self.held, self.seed), |hash| hash.digest());
        let n_bytes = std::mem::take(&mut self.n_bytes);
        self.buckets.put(Record { key, origin, start: self.start, n_bytes, is_here: long.is_none() }, &self.held)?;
        self.held.clear();
        self.start += n_bytes / self.width;
        self.ticks.add(n_bytes, self.job)
    }
}
