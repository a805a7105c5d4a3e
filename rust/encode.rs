//! Text -> ids and back. Pieces are found a batch at a time, looked up in a [`Cache`] of pieces seen before, and merged by
//! the rule where they are new.

use crate::added::{AddedFinder, AddedToken, Segment};
use crate::cache::Cache;
use crate::decode::Decoder;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::merge::Merges;
use crate::parallel;
use crate::pretokenize::Scanner;
use crate::vocab::Vocab;
use rustc_hash::FxHashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

/// A vocabulary, indexed for speed.
#[derive(Debug)]
pub struct Encoder {
    vocab: Vocab,
    merges: Merges,
    decoder: Decoder,
    /// Ids of the tokens that a piece may be, by their bytes.
    sorted: Vec<u32>,
    /// Finds the added tokens that every text may hold.
    ordinary: Arc<AddedFinder>,
    /// The same with all special tokens, once it was asked for.
    all: OnceLock<Arc<AddedFinder>>,
    /// Caches that no call is using. Nobody waits for the lock: in a forked child it may be held for ever.
    caches: Mutex<Vec<Cache>>,
    /// How many of them are kept: one for each core.
    most_caches: usize,
}

/// Which special tokens a text may hold, beside the added tokens that every text may.
#[derive(Clone, Debug)]
pub struct Specials(Arc<AddedFinder>);

/// What a batch of little text counts for.
const LOOK_BYTES: usize = 64;
/// Text between two looks at whether to stop.
const STEP_BYTES: usize = 1 << 20;
/// Texts that are shorter together are not worth a second thread.
const LEAST_PARALLEL_BYTES: usize = 1 << 16;
/// Size of a cache that lives as long as the encoder: 64 MB at most.
const MOST_SLOTS: usize = 1 << 20;
const STORE_BYTES: usize = 32 << 20;

impl Encoder {
    /// Indexes a vocabulary.
    #[must_use]
    pub fn new(vocab: Vocab) -> Encoder {
        let mut sorted: Vec<u32> = vocab.model_tokens().map(|(id, _)| id).collect();
        sorted.sort_unstable_by_key(|id| vocab.bytes(*id));
        // Cannot fail: a vocabulary bounds the bytes of its added tokens, far below what an automaton holds.
        let ordinary = AddedFinder::new(vocab.added().iter().filter(|token| !token.is_special())).unwrap_or_default();
        let (merges, decoder) = (Merges::new(&vocab), Decoder::new(&vocab));
        let most_caches = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Encoder {
            merges,
            decoder,
            sorted,
            ordinary: Arc::new(ordinary),
            all: OnceLock::new(),
            caches: Mutex::default(),
            most_caches,
            vocab,
        }
    }

    /// The vocabulary.
    #[must_use]
    pub fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// Finds the added tokens that every text may hold.
    #[must_use]
    pub fn ordinary(&self) -> Arc<AddedFinder> {
        self.ordinary.clone()
    }

    /// The id of these bytes, special tokens aside.
    #[must_use]
    pub fn id(&self, bytes: &[u8]) -> Option<u32> {
        let added = self.vocab.added().iter().find(|token| !token.is_special() && token.content.as_bytes() == bytes);
        added.map(|token| token.id).or_else(|| self.model_id(bytes))
    }

    fn model_id(&self, bytes: &[u8]) -> Option<u32> {
        let place = self.sorted.binary_search_by_key(&Some(bytes), |id| self.vocab.bytes(*id)).ok()?;
        Some(self.sorted[place])
    }

    /// The special tokens of those names, to be looked for in text.
    ///
    /// # Errors
    ///
    /// The first name that is no special token.
    pub fn specials(&self, names: &[String]) -> Result<Specials> {
        if names.is_empty() {
            return Ok(Specials(self.ordinary.clone()));
        }
        let (wanted, known): (FxHashSet<&String>, &[_]) = (names.iter().collect(), self.vocab.specials());
        let n_found = known.iter().filter(|(name, _)| wanted.contains(name)).count();
        if n_found < wanted.len() {
            let known: FxHashSet<&String> = known.iter().map(|(name, _)| name).collect();
            let name = wanted.iter().find(|name| !known.contains(*name)).copied().cloned().unwrap_or_default();
            return Err(Error::Invalid(format!("{name:?} is no special token of this tokenizer")));
        }
        if n_found == known.len()
            && let Some(all) = self.all.get()
        {
            return Ok(Specials(all.clone()));
        }
        let is_wanted = |token: &&AddedToken| !token.is_special() || wanted.contains(&token.content);
        let finder = Arc::new(AddedFinder::new(self.vocab.added().iter().filter(is_wanted))?);
        if n_found == known.len() {
            // Another thread may have been faster; its finder is as good.
            let _ = self.all.set(finder.clone());
        }
        Ok(Specials(finder))
    }

    /// Appends the ids of `text`; the strings of special tokens are ordinary text.
    pub fn encode(&self, text: &str, cache: &mut Cache, ids: &mut Vec<u32>) {
        // Nothing here can fail.
        let _ = self.encode_segments(&self.ordinary, text, cache, ids, || Ok(()));
    }

    /// Appends the ids of `text` with what `finder` finds in it. `go_on` is called now and then.
    ///
    /// # Errors
    ///
    /// What `go_on` returns.
    fn encode_segments(
        &self,
        finder: &AddedFinder,
        text: &str,
        cache: &mut Cache,
        ids: &mut Vec<u32>,
        mut go_on: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut result = Ok(());
        finder.split(text, |segment| match segment {
            _ if result.is_err() => {}
            Segment::Text(text) => result = self.encode_until(text, cache, ids, &mut go_on),
            Segment::Id(id) => {
                cache.since_look += LOOK_BYTES;
                ids.push(id);
            }
        });
        result
    }

    fn encode_until(&self, text: &str, cache: &mut Cache, ids: &mut Vec<u32>, go_on: &mut impl FnMut() -> Result<()>) -> Result<()> {
        let mut scanner = Scanner::new(self.vocab.pattern(), text);
        while self.encode_some(&mut scanner, cache, ids) {
            if cache.since_look >= STEP_BYTES {
                cache.since_look = 0;
                go_on()?;
            }
        }
        Ok(())
    }

    /// Encodes a batch of pieces; false when there is none.
    fn encode_some(&self, scanner: &mut Scanner, cache: &mut Cache, ids: &mut Vec<u32>) -> bool {
        let mut bounds = std::mem::take(&mut cache.bounds);
        let (before, more) = (scanner.at(), scanner.fill(&mut bounds));
        if more {
            cache.encode(scanner.text().as_bytes(), bounds.as_slice(), ids, |piece, ids| self.merge(piece, ids));
            let least = if scanner.is_slow() { STEP_BYTES / 4 } else { LOOK_BYTES };
            cache.since_look += (scanner.at() - before).max(least);
        }
        cache.bounds = bounds;
        more
    }

    fn merge(&self, piece: &[u8], ids: &mut Vec<u32>) {
        match self.vocab.whole_pieces().then(|| self.model_id(piece)).flatten() {
            Some(id) => ids.push(id),
            None => self.merges.merge(piece, ids),
        }
    }

    /// The ids of one text.
    ///
    /// # Errors
    ///
    /// The job was cancelled.
    pub fn encode_one(&self, specials: &Specials, text: &str, job: &mut Job) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut cache = self.cache();
        self.encode_segments(&specials.0, text, &mut cache, &mut ids, || job.tick())?;
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
                self.encode_segments(&specials.0, text, &mut borrowed.cache, &mut ids, go_on)?;
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
        free.unwrap_or_else(|| Cache::new(MOST_SLOTS, STORE_BYTES))
    }

    /// Keeps a cache for the next call.
    fn keep(&self, cache: Cache) {
        if let Ok(mut caches) = self.caches.try_lock()
            && caches.len() < self.most_caches
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
    use crate::added::Flags;
    use crate::merge::tests::odd_vocab;
    use crate::pretokenize::Pattern;
    use proptest::prelude::*;
    use rustc_hash::FxHashMap;

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
    fn ordinary_added_tokens_are_found_always_and_whole_pieces_first() {
        let tokens = (0..=255u8).map(|b| (vec![b], u32::from(b))).chain([(b"abc".to_vec(), 256)]).collect();
        let added = vec![AddedToken { content: "<x>".into(), id: 300, flags: Flags::default() }, AddedToken::special("<s>", 301)];
        let encoder = Encoder::new(Vocab::from_tokens(Pattern::Gpt2, tokens, &[], added, true).unwrap());
        let ids = encode(&encoder, "abc<x>abcd<s>");
        assert_eq!(ids, [256, 300, 97, 98, 99, 100, 60, 115, 62]);
        assert_eq!(encoder.decode(&ids).unwrap(), b"abc<x>abcd<s>");
    }

    proptest! {
        /// As tiktoken has it: of all adjacent parts whose joined bytes are a token the lowest rank merges first.
        #[test]
        fn ids_of_ranks_are_those_of_the_rule(
            tokens in prop::collection::btree_map("[abc]{2,5}", any::<u32>(), 0..14),
            text in "[abc]{1,90}",
        ) {
            let mut order: Vec<(&String, &u32)> = tokens.iter().collect();
            order.sort_by_key(|(_, place)| **place);
            let ranks: Vec<(Vec<u8>, u32)> = (0..=255u8).map(|b| vec![b]).chain(order.iter().map(|(token, _)| token.as_bytes().to_vec())).zip(0..).collect();
            let ids: FxHashMap<Vec<u8>, u32> = ranks.iter().cloned().collect();
            let mut ends: Vec<usize> = (0..=text.len()).collect();
            let rank = |ends: &[usize], i: usize| Some((*ids.get(&text.as_bytes()[ends[i]..ends[i + 2]])?, i));
            while let Some((_, i)) = (0..ends.len() - 2).filter_map(|i| rank(&ends, i)).min() {
                ends.remove(i + 1);
            }
            let whole = ids.get(text.as_bytes()).map(|id| vec![*id]);
            let expected = whole.unwrap_or_else(|| ends.windows(2).map(|edge| ids[&text.as_bytes()[edge[0]..edge[1]]]).collect());
            prop_assert_eq!(encode(&Encoder::new(Vocab::from_ranks(Pattern::Gpt2, ranks, vec![]).unwrap()), &text), expected);
        }
    }

    #[test]
    fn a_full_cache_starts_anew_and_gives_the_same_ids() {
        let encoder = Encoder::new(odd_vocab(&[(0, 1), (3, 2)]));
        let text: String = (0..1 << 18).map(|i| format!(" {i} some-longer-word{i}")).collect();
        let (mut cache, mut first, mut second) = (Cache::new(1 << 16, 1 << 20), Vec::new(), Vec::new());
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
