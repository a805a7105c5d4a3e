//! Documents out of finished shards, in order, in bounded memory however long a document is.

use crate::error::{Error, Result};
use crate::shard::{END_BYTES, HEADER_BYTES, ORIGIN_BYTES, Origin, ShardHeader, ShardKind};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of tokens that are read at once.
const BLOCK_BYTES: u64 = 1 << 20;

/// Takes documents, one after the other. An error it returns ends the reading.
pub trait ShardDocuments {
    /// More of the document's tokens, as on disk: any number of times, at most a megabyte each.
    ///
    /// # Errors
    ///
    /// The caller has given up, or what is behind it failed.
    fn tokens(&mut self, tokens: &[u8]) -> Result<()>;

    /// The document is whole.
    ///
    /// # Errors
    ///
    /// As [`ShardDocuments::tokens`].
    fn end(&mut self, origin: Origin) -> Result<()>;
}

/// The finished shards of a split, in order, as one row of tokens and one of documents.
#[derive(Debug, Default)]
pub struct StoredSplit {
    shards: Vec<StoredShard>,
    width: u64,
}

#[derive(Debug)]
struct StoredShard {
    path: PathBuf,
    header: ShardHeader,
    /// Tokens and documents of the shards before it.
    first_token: u64,
    first_document: u64,
}

impl StoredShard {
    fn end(&self) -> u64 {
        self.first_token + self.header.tokens
    }

    fn documents(&self) -> Range<u64> {
        self.first_document..self.first_document + self.header.documents
    }
}

impl StoredSplit {
    /// The shards at these paths, headers and sizes found to agree.
    ///
    /// # Errors
    ///
    /// A file is missing, damaged, or of another kind than the first; the message names it and both numbers.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let (mut shards, mut first_token, mut first_document) = (Vec::with_capacity(paths.len()), 0, 0);
        for path in paths {
            let header = ShardHeader::read(path)?;
            for (extension, entry_bytes) in [("idx", END_BYTES), ("map", ORIGIN_BYTES)] {
                check_size(&path.with_extension(extension), header.documents, entry_bytes)?;
            }
            let shard = StoredShard { path: path.clone(), header, first_token, first_document };
            if let Some(first) = shards.first() {
                check_alike(&shard, first)?;
            }
            (first_token, first_document) = (shard.end(), shard.documents().end);
            shards.push(shard);
        }
        let width = shards.first().map_or(1, |shard| shard.header.token_type.width() as u64);
        Ok(StoredSplit { shards, width })
    }

    /// Nothing, if these are tokens of that kind.
    ///
    /// # Errors
    ///
    /// They are not; the message names what differs.
    pub fn check_kind(&self, kind: &ShardKind) -> Result<()> {
        let Some(first) = self.shards.first() else { return Ok(()) };
        let wanted = ShardHeader::new(kind, first.header.tokens, first.header.documents, first.header.bytes);
        match difference(&first.header, &wanted) {
            None => Ok(()),
            Some((name, found, wanted)) => {
                let message =
                    format!("{}: {name} {found}, but {wanted} is wanted; prepare it with the same settings", first.path.display());
                Err(Error::Invalid(message))
            }
        }
    }

    /// Tokens of all shards.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.shards.last().map_or(0, StoredShard::end)
    }

    /// Documents that end in one of the shards.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.shards.last().map_or(0, |shard| shard.documents().end)
    }

    /// Bytes of text, as the headers say.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        self.shards.iter().fold(0, |sum, shard| shard.header.bytes.saturating_add(sum))
    }

    /// The shard, the token in it before which it ends, for a place after the first token.
    pub(crate) fn shard_before(&self, place: u64) -> (usize, u64) {
        let shard = self.shards.partition_point(|shard| shard.end() < place);
        (shard, place - self.shards.get(shard).map_or(0, |shard| shard.first_token))
    }

    /// The token at which a shard starts.
    pub(crate) fn start_of_shard(&self, shard: usize) -> u64 {
        self.shards.get(shard).map_or(self.tokens(), |shard| shard.first_token)
    }

    /// The first document of a shard's list of ends.
    pub(crate) fn first_document_of_shard(&self, shard: usize) -> u64 {
        self.shards.get(shard).map_or(self.documents(), |shard| shard.first_document)
    }

    /// Looks entries up one by one.
    pub(crate) fn lookup(&self) -> Lookup<'_> {
        Lookup { split: self, open: None }
    }

    /// Hands on the documents of a range, each whole.
    ///
    /// # Errors
    ///
    /// A file cannot be read or is damaged, or what `documents` returns.
    pub fn each_document(&self, range: Range<u64>, documents: &mut dyn ShardDocuments) -> Result<()> {
        let start = if range.start == 0 { 0 } else { self.lookup().end(range.start - 1)? };
        self.each_document_from(start, range, documents)
    }

    /// The same, the first document from some token of it on.
    pub(crate) fn each_document_from(&self, token: u64, range: Range<u64>, documents: &mut dyn ShardDocuments) -> Result<()> {
        let mut tokens = Tokens::new(self, token);
        let mut at = token;
        for shard in self.shards.iter().filter(|shard| shard.documents().start < range.end && range.start < shard.documents().end) {
            let here = shard.documents();
            let (first, last) = (range.start.max(here.start), range.end.min(here.end));
            let mut ends = entries(&shard.path.with_extension("idx"), END_BYTES * (first - here.start))?;
            let mut origins = entries(&shard.path.with_extension("map"), ORIGIN_BYTES * (first - here.start))?;
            for _ in first..last {
                let (mut end, mut origin) = ([0; END_BYTES as usize], [0; ORIGIN_BYTES as usize]);
                ends.read_exact(&mut end).map_err(Error::io(&shard.path))?;
                origins.read_exact(&mut origin).map_err(Error::io(&shard.path))?;
                let end = place_in(shard, u64::from_le_bytes(end), at)?;
                while at < end {
                    let some = tokens.next(end)?;
                    documents.tokens(some)?;
                    at += some.len() as u64 / self.width;
                }
                documents.end(Origin::from_bytes(origin))?;
            }
        }
        Ok(())
    }

    /// Hands on the tokens of a range.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or what `take` returns.
    pub(crate) fn each_run(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (mut tokens, mut at) = (Tokens::new(self, range.start), range.start);
        while at < range.end {
            let some = tokens.next(range.end)?;
            take(some)?;
            at += some.len() as u64 / self.width;
        }
        Ok(())
    }
}

/// Reads tokens on from some place, a block at a time.
struct Tokens<'a> {
    split: &'a StoredSplit,
    /// Where the next block starts.
    next: u64,
    block: Vec<u8>,
    used: usize,
    open: Option<(usize, File)>,
}

impl<'a> Tokens<'a> {
    fn new(split: &'a StoredSplit, token: u64) -> Self {
        Tokens { split, next: token, block: Vec::new(), used: 0, open: None }
    }

    /// The next tokens, at least one and none from `end` on, which lies ahead.
    fn next(&mut self, end: u64) -> Result<&[u8]> {
        if self.used == self.block.len() {
            self.fill()?;
        }
        let width = self.split.width;
        let at = self.next - (self.block.len() - self.used) as u64 / width;
        let n_bytes = ((end - at) * width).min((self.block.len() - self.used) as u64) as usize;
        self.used += n_bytes;
        Ok(&self.block[self.used - n_bytes..self.used])
    }

    fn fill(&mut self) -> Result<()> {
        let number = self.split.shards.partition_point(|shard| shard.end() <= self.next);
        let Some(shard) = self.split.shards.get(number) else {
            return Err(Error::Invalid(format!("token {} of {}: there is none", self.next, self.split.tokens())));
        };
        let path = &shard.path;
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            let mut file = File::open(path).map_err(Error::io(path))?;
            let offset = HEADER_BYTES + (self.next - shard.first_token) * self.split.width;
            file.seek(SeekFrom::Start(offset)).map_err(Error::io(path))?;
            self.open = Some((number, file));
        }
        let n_bytes = ((shard.end() - self.next) * self.split.width).min(BLOCK_BYTES);
        self.block.resize(n_bytes as usize, 0);
        if let Some((_, file)) = &mut self.open {
            file.read_exact(&mut self.block).map_err(Error::io(path))?;
        }
        self.used = 0;
        self.next += n_bytes / self.split.width;
        Ok(())
    }
}

/// Looks up ends and origins of single documents.
pub(crate) struct Lookup<'a> {
    split: &'a StoredSplit,
    /// The file last looked into.
    open: Option<(usize, &'static str, File)>,
}

impl Lookup<'_> {
    /// The place before which a document ends.
    pub(crate) fn end(&mut self, document: u64) -> Result<u64> {
        let mut end = [0; END_BYTES as usize];
        let shard = self.read(document, "idx", &mut end)?;
        place_in(&self.split.shards[shard], u64::from_le_bytes(end), 0)
    }

    /// Where a document came from.
    pub(crate) fn origin(&mut self, document: u64) -> Result<Origin> {
        let mut origin = [0; ORIGIN_BYTES as usize];
        self.read(document, "map", &mut origin)?;
        Ok(Origin::from_bytes(origin))
    }

    /// How many documents from the first on are `before`, where those that are come first.
    pub(crate) fn partition_point(&mut self, mut before: impl FnMut(&mut Self, u64) -> Result<bool>) -> Result<u64> {
        let (mut low, mut high) = (0, self.split.documents());
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self, middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn read(&mut self, document: u64, extension: &'static str, entry: &mut [u8]) -> Result<usize> {
        let number = self.split.shards.partition_point(|shard| shard.documents().end <= document);
        let Some(shard) = self.split.shards.get(number) else {
            return Err(Error::Invalid(format!("document {document} of {}: there is none", self.split.documents())));
        };
        let path = shard.path.with_extension(extension);
        let mut file = match self.open.take() {
            Some((open, kind, file)) if open == number && kind == extension => file,
            _ => File::open(&path).map_err(Error::io(&path))?,
        };
        let offset = (document - shard.first_document) * entry.len() as u64;
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(entry)).map_err(Error::io(&path))?;
        self.open = Some((number, extension, file));
        Ok(number)
    }
}

fn entries(path: &Path, offset: u64) -> Result<BufReader<File>> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    file.seek(SeekFrom::Start(offset)).map_err(Error::io(path))?;
    Ok(BufReader::with_capacity(1 << 16, file))
}

/// The place of a document's end in the row of tokens, found to lie in its shard and not before `least`.
fn place_in(shard: &StoredShard, end: u64, least: u64) -> Result<u64> {
    let place = shard.first_token.saturating_add(end);
    if end > shard.header.tokens || place < least {
        let (path, tokens) = (shard.path.with_extension("idx"), shard.header.tokens);
        let message = format!("{}: document end {end} does not rise to at most {tokens} tokens; write the shards again", path.display());
        return Err(Error::Format(message));
    }
    Ok(place)
}

fn check_size(path: &Path, documents: u64, entry_bytes: u64) -> Result<()> {
    let (size, wanted) = (std::fs::metadata(path).map_err(Error::io(path))?.len(), documents.saturating_mul(entry_bytes));
    if size == wanted {
        return Ok(());
    }
    let message = format!(
        "{}: {size} bytes, but the shard's header promises {documents} documents ({wanted} bytes); write the shards again",
        path.display()
    );
    Err(Error::Format(message))
}

fn check_alike(shard: &StoredShard, first: &StoredShard) -> Result<()> {
    let Some((name, found, wanted)) = difference(&shard.header, &first.header) else { return Ok(()) };
    let (path, first) = (shard.path.display(), first.path.display());
    Err(Error::Format(format!("{path}: {name} {found}, but {first} has {wanted}; write the shards again")))
}

/// The first of what must be the same in shards that are not, with both values.
fn difference(found: &ShardHeader, wanted: &ShardHeader) -> Option<(&'static str, String, String)> {
    let hex = |header: &ShardHeader| header.fingerprint[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "..";
    let id = |header: &ShardHeader| header.eot_id.map_or("none".into(), |id| id.to_string());
    let values = |h: &ShardHeader| [h.token_type.name().into(), h.vocab_size.to_string(), id(h), hex(h)];
    let names = ["token type", "vocab_size", "end-of-text id", "tokenizer fingerprint"];
    let same = [
        found.token_type == wanted.token_type,
        found.vocab_size == wanted.vocab_size,
        found.eot_id == wanted.eot_id,
        found.fingerprint == wanted.fingerprint,
    ];
    let at = same.iter().position(|same| !same)?;
    let [found, wanted] = [values(found), values(wanted)].map(|values| values[at].clone());
    Some((names[at], found, wanted))
}
