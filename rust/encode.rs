//! Text -> ids and back. Pieces are found a batch at a time, looked up in a [`Cache`] of pieces seen before, and merged by
//! the rule where they are new.

use crate::cache::Cache;
use crate::decode::Decoder;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::merge::Merges;
use crate::parallel;
use crate::pretokenize::Scanner;
use crate::vocab::{Vocab, special_finder};
use aho_corasick::AhoCorasick;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// A vocabulary, indexed for speed.
#[derive(Debug)]
pub struct Encoder {
    vocab: Vocab,
    merges: Merges,
    decoder: Decoder,
    /// Ids that stand for text, by their bytes.
    sorted: Vec<u32>,
    /// Caches that no call is using. Nobody waits for the lock: in a forked child it may be held for ever.
    caches: Mutex<Vec<Cache>>,
}

/// Which special tokens a text may hold.
#[derive(Debug)]
pub struct Specials {
    finder: Option<AhoCorasick>,
    ids: Vec<u32>,
}

/// Text between two looks at whether to stop.
const STEP_BYTES: usize = 1 << 20;
/// Texts that are shorter together are not worth a second thread.
const LEAST_PARALLEL_BYTES: usize = 1 << 16;
/// Bytes of long pieces in a cache that lives as long as the encoder.
const STORE_BYTES: usize = 32 << 20;

impl Encoder {
    /// Indexes a vocabulary.
    #[must_use]
    pub fn new(vocab: Vocab) -> Encoder {
        let mut sorted: Vec<u32> = (0u32..).zip(vocab.tokens()).filter(|(_, bytes)| !bytes.is_empty()).map(|(id, _)| id).collect();
        sorted.sort_unstable_by_key(|id| &vocab.tokens()[*id as usize]);
        Encoder { merges: Merges::new(&vocab), decoder: Decoder::new(&vocab), sorted, caches: Mutex::default(), vocab }
    }

    /// The vocabulary.
    #[must_use]
    pub fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// The id of these bytes, special tokens aside.
    #[must_use]
    pub fn id(&self, bytes: &[u8]) -> Option<u32> {
        let place = self.sorted.binary_search_by_key(&bytes, |id| &self.vocab.tokens()[*id as usize]).ok()?;
        Some(self.sorted[place])
    }

    /// The special tokens of those names, to be looked for in text.
    ///
    /// # Errors
    ///
    /// The first name that is no special token.
    pub fn specials(&self, names: &[String]) -> Result<Specials> {
        let find = |name: &String| {
            let found = self.vocab.specials().iter().find(|(known, _)| known == name);
            found.map(|(_, id)| *id).ok_or_else(|| Error::Invalid(format!("{name:?} is no special token of this tokenizer")))
        };
        Ok(Specials { finder: special_finder(names)?, ids: names.iter().map(find).collect::<Result<_>>()? })
    }

    /// Appends the ids of `text`; the strings of special tokens are ordinary text.
    pub fn encode(&self, text: &str, cache: &mut Cache, ids: &mut Vec<u32>) {
        let mut scanner = Scanner::new(self.vocab.pattern(), text);
        while self.encode_some(&mut scanner, usize::MAX, cache, ids) {}
    }

    /// Appends the ids of `text`, in which the strings of `specials` become their ids, the longest where several start.
    /// `go_on` is called now and then.
    ///
    /// # Errors
    ///
    /// What `go_on` returns.
    fn encode_with(
        &self,
        specials: &Specials,
        text: &str,
        cache: &mut Cache,
        ids: &mut Vec<u32>,
        mut go_on: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut from = 0;
        for found in specials.finder.iter().flat_map(|finder| finder.find_iter(text)) {
            self.encode_until(&text[from..found.start()], cache, ids, &mut go_on)?;
            ids.push(specials.ids[found.pattern().as_usize()]);
            from = found.end();
        }
        self.encode_until(&text[from..], cache, ids, &mut go_on)
    }

    fn encode_until(&self, text: &str, cache: &mut Cache, ids: &mut Vec<u32>, go_on: &mut impl FnMut() -> Result<()>) -> Result<()> {
        let mut scanner = Scanner::new(self.vocab.pattern(), text);
        while self.encode_some(&mut scanner, STEP_BYTES, cache, ids) {
            go_on()?;
        }
        Ok(())
    }

    /// Encodes about as many bytes; false when all is done.
    fn encode_some(&self, scanner: &mut Scanner, bytes: usize, cache: &mut Cache, ids: &mut Vec<u32>) -> bool {
        let end = scanner.at().saturating_add(bytes);
        let mut bounds = std::mem::take(&mut cache.bounds);
        let mut more = true;
        while more && scanner.at() < end {
            more = scanner.fill(&mut bounds);
            if more {
                cache.encode(scanner.text().as_bytes(), bounds.as_slice(), ids, |piece, ids| self.merges.merge(piece, ids));
            }
        }
        cache.bounds = bounds;
        more
    }

    /// The ids of one text.
    ///
    /// # Errors
    ///
    /// The job was cancelled.
    pub fn encode_one(&self, specials: &Specials, text: &str, job: &mut Job) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        let mut cache = self.cache();
        self.encode_with(specials, text, &mut cache, &mut ids, || job.tick())?;
        self.keep(cache);
        Ok(ids)
    }

    /// The ids of many texts in a row, and where each text's end.
    ///
    /// # Errors
    ///
    /// The job was cancelled.
    pub fn encode_batch(&self, specials: &Specials, texts: &[&str], job: &mut Job) -> Result<(Vec<u32>, Vec<u64>)> {
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        // Runs of texts, not single ones: a task should be worth its while.
        let n_runs = if bytes < LEAST_PARALLEL_BYTES { 1 } else { 8 * job.threads() };
        let runs: Vec<&[&str]> = texts.chunks(texts.len().div_ceil(n_runs).max(1)).collect();
        let new_cache = || Borrowed { encoder: self, cache: self.cache() };
        let parts = parallel::map(runs.len(), job, new_cache, |borrowed, run, stop| {
            let (mut ids, mut ends) = (Vec::new(), Vec::with_capacity(runs[run].len()));
            for text in runs[run] {
                let go_on = || if stop.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) };
                self.encode_with(specials, text, &mut borrowed.cache, &mut ids, go_on)?;
                ends.push(ids.len() as u64);
            }
            Ok((ids, ends))
        })?;
        let mut ids = Vec::with_capacity(parts.iter().map(|(ids, _)| ids.len()).sum());
        let mut ends = Vec::with_capacity(texts.len());
        for (part, part_ends) in parts {
            let before = ids.len() as u64;
            ends.extend(part_ends.iter().map(|end| before + end));
            ids.extend(part);
        }
        Ok((ids, ends))
    }

    /// A cache that was used before, if one is free.
    fn cache(&self) -> Cache {
        let free = self.caches.try_lock().ok().and_then(|mut caches| caches.pop());
        free.unwrap_or_else(|| Cache::new(STORE_BYTES))
    }

    /// Keeps a cache for the next call.
    fn keep(&self, cache: Cache) {
        let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if let Ok(mut caches) = self.caches.try_lock()
            && caches.len() < most
        {
            caches.push(cache);
        }
    }

    /// Bytes of all `ids` together.
    ///
    /// # Errors
    ///
    /// The first id that the vocabulary does not have, and its place.
    pub fn decoded_bytes(&self, ids: &[u32]) -> Result<usize> {
        self.decoder.length(&self.vocab, ids)
    }

    /// Writes the bytes of `ids`, special tokens by name, to `bytes`, which is as long as [`Encoder::decoded_bytes`] says.
    pub fn decode_into(&self, ids: &[u32], bytes: &mut [u8]) {
        self.decoder.write(&self.vocab, ids, bytes);
    }

    /// The bytes of `ids`, special tokens by name.
    ///
    /// # Errors
    ///
    /// The first id that the vocabulary does not have, and its place.
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.decoded_bytes(ids)?];
        self.decode_into(ids, &mut bytes);
        Ok(bytes)
    }
}

/// A cache that goes back when a thread has done its tasks.
struct Borrowed<'a> {
    encoder: &'a Encoder,
    cache: Cache,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.encoder.keep(std::mem::take(&mut self.cache));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::tests::odd_vocab;
    use proptest::prelude::*;

    fn encode(encoder: &Encoder, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        encoder.encode(text, &mut Cache::default(), &mut ids);
        ids
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn decoding_gives_the_text_back(text in any::<String>(), merges in prop::collection::vec(any::<(u8, u8)>(), 0..12)) {
            let encoder = Encoder::new(odd_vocab(&merges));
            prop_assert_eq!(encoder.decode(&encode(&encoder, &text)).unwrap(), text.as_bytes());
        }

        #[test]
        fn a_text_is_encoded_piece_by_piece(
            text in "( ?[a-c]{1,9}|[a-c]{10,80}|[ \n]{1,3}|é){0,60}",
            merges in prop::collection::vec(any::<(u8, u8)>(), 0..30),
        ) {
            let encoder = Encoder::new(odd_vocab(&merges));
            let mut expected = Vec::new();
            encoder.vocab().pattern().pieces(&text).for_each(|piece| encoder.merges.merge(piece, &mut expected));
            let specials = encoder.specials(&[]).unwrap();
            let mut proceed = |_| true;
            let mut job = Job::new(Some(2), &mut proceed).unwrap();
            prop_assert_eq!(&encode(&encoder, &text), &expected);
            prop_assert_eq!(&encoder.encode_one(&specials, &text, &mut job).unwrap(), &expected);
            prop_assert_eq!(&encoder.encode_one(&specials, &text, &mut job).unwrap(), &expected);
            let n = expected.len() as u64;
            let twice = encoder.encode_batch(&specials, &[&text, &text], &mut job).unwrap();
            prop_assert_eq!(twice, ([&expected[..], &expected].concat(), vec![n, 2 * n]));
        }
    }

    #[test]
    fn special_tokens_are_found_only_when_asked_for_and_longest_first() {
        let encoder = Encoder::new(odd_vocab(&[]));
        let all = encoder.specials(&["<s>".into(), "<s><t>".into()]).unwrap();
        let ids = encoder.encode_one(&all, "a<s><t><s>", &mut Job::new(Some(1), &mut |_| true).unwrap()).unwrap();
        assert_eq!(ids, [97, 257, 256]);
        assert_eq!(encode(&encoder, "<s>"), b"<s>".map(u32::from));
    }

    #[test]
    fn a_full_cache_starts_anew_and_gives_the_same_ids() {
        let encoder = Encoder::new(odd_vocab(&[(0, 1), (3, 2)]));
        let text: String = (0..1 << 18).map(|i| format!(" {i} some-longer-word{i}")).collect();
        let (mut cache, mut first, mut second) = (Cache::new(1 << 20), Vec::new(), Vec::new());
        encoder.encode(&text, &mut cache, &mut first);
        encoder.encode(&text, &mut cache, &mut second);
        assert_eq!(encoder.decode(&first).unwrap(), text.as_bytes());
        assert_eq!(first, second);
    }

    #[test]
    fn a_cancelled_job_ends_encoding() {
        let (encoder, text) = (Encoder::new(odd_vocab(&[])), "some words of text ".repeat(1 << 18));
        let specials = encoder.specials(&[]).unwrap();
        for threads in [1, 2] {
            let mut cancel = |_| false;
            let mut job = Job::new(Some(threads), &mut cancel).unwrap();
            assert!(matches!(encoder.encode_one(&specials, &text, &mut job), Err(Error::Cancelled)));
            assert!(matches!(encoder.encode_batch(&specials, &[text.as_str(); 9], &mut job), Err(Error::Cancelled)));
        }
    }

    #[test]
    fn an_unknown_id_is_named_with_its_place() {
        let error = Encoder::new(odd_vocab(&[])).decode(&[97, 300]).unwrap_err().to_string();
        assert_eq!(error, "id 300 at place 1 is not in the vocabulary of 258 ids");
    }
}
