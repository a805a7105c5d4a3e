//! Text -> ids. Within a piece the pair with the lowest rank merges first, the leftmost of equals, until none is left.
//!
//! Short pieces are merged by scanning for the lowest rank, longer ones with a heap and linked places, so that no input
//! costs more than n log n. What was merged once is remembered in a [`Cache`] of bounded size: in ordinary text nearly
//! every piece was seen before.

use crate::error::{Error, Result};
use crate::vocab::{Vocab, special_finder};
use aho_corasick::AhoCorasick;
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A vocabulary, indexed for speed.
#[derive(Debug)]
pub struct Encoder {
    vocab: Vocab,
    /// (left, right) -> (rank, id)
    merges: FxHashMap<(u32, u32), (u32, u32)>,
    /// Text bytes -> id.
    ids: FxHashMap<Box<[u8]>, u32>,
}

/// Pieces already merged, and working space: one for each thread, for as long as a call.
#[derive(Debug, Default)]
pub struct Cache {
    pieces: FxHashMap<Box<[u8]>, (u32, u32)>,
    ids: Vec<u32>,
    parts: Vec<(u32, u32)>,
}

/// Which special tokens a text may hold.
#[derive(Debug)]
pub struct Specials {
    finder: Option<AhoCorasick>,
    ids: Vec<u32>,
}

/// Pieces that a cache holds before it starts anew; with their ids about 12 MB.
const CACHED_PIECES: usize = 1 << 17;
/// Longer pieces are not remembered: they seldom come again.
const CACHED_PIECE_BYTES: usize = 64;
/// Up to so many bytes a piece is merged by scanning.
const SCANNED_PIECE_BYTES: usize = 64;
/// No merge.
const NONE: u32 = u32::MAX;

impl Encoder {
    /// Indexes a vocabulary.
    #[must_use]
    pub fn new(vocab: Vocab) -> Encoder {
        let mut merges = FxHashMap::with_capacity_and_hasher(vocab.merges().len(), rustc_hash::FxBuildHasher);
        for (rank, merge) in (0u32..).zip(vocab.merges()) {
            merges.entry((merge.left, merge.right)).or_insert((rank, merge.id));
        }
        let ids = (0u32..).zip(vocab.tokens()).filter(|(_, bytes)| !bytes.is_empty()).map(|(id, bytes)| (bytes.clone(), id)).collect();
        Encoder { vocab, merges, ids }
    }

    /// The vocabulary.
    #[must_use]
    pub fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// The id of these bytes, special tokens aside.
    #[must_use]
    pub fn id(&self, bytes: &[u8]) -> Option<u32> {
        self.ids.get(bytes).copied()
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
        for piece in self.vocab.pattern().pieces(text) {
            self.encode_piece(piece, cache, ids);
        }
    }

    /// Appends the ids of `text`, in which the strings of `specials` become their ids, the longest where several start.
    pub fn encode_with(&self, specials: &Specials, text: &str, cache: &mut Cache, ids: &mut Vec<u32>) {
        let mut from = 0;
        for found in specials.finder.iter().flat_map(|finder| finder.find_iter(text)) {
            self.encode(&text[from..found.start()], cache, ids);
            ids.push(specials.ids[found.pattern().as_usize()]);
            from = found.end();
        }
        self.encode(&text[from..], cache, ids);
    }

    /// The ids of many texts in a row, and where each text's end.
    #[must_use]
    pub fn encode_batch(&self, specials: &Specials, texts: &[&str]) -> (Vec<u32>, Vec<u64>) {
        // Runs of texts, not single ones, so that a run's texts share a cache.
        let run = texts.len().div_ceil(8 * rayon::current_num_threads()).max(1);
        let parts: Vec<(Vec<u32>, Vec<u64>)> = texts
            .par_chunks(run)
            .map_init(Cache::default, |cache, texts| {
                let (mut ids, mut ends) = (Vec::new(), Vec::with_capacity(texts.len()));
                for text in texts {
                    self.encode_with(specials, text, cache, &mut ids);
                    ends.push(ids.len() as u64);
                }
                (ids, ends)
            })
            .collect();
        let mut ids = Vec::with_capacity(parts.iter().map(|(ids, _)| ids.len()).sum());
        let mut ends = Vec::with_capacity(texts.len());
        for (part, part_ends) in parts {
            let before = ids.len() as u64;
            ends.extend(part_ends.iter().map(|end| before + end));
            ids.extend(part);
        }
        (ids, ends)
    }

    /// The bytes of `ids`, special tokens by name.
    ///
    /// # Errors
    ///
    /// The first id that the vocabulary does not have, and its place.
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for (place, id) in ids.iter().enumerate() {
            let unknown = || Error::Invalid(format!("id {id} at place {place} is not in the vocabulary of {} ids", self.vocab.len()));
            bytes.extend_from_slice(self.vocab.bytes(*id).ok_or_else(unknown)?);
        }
        Ok(bytes)
    }

    #[inline]
    fn encode_piece(&self, piece: &[u8], cache: &mut Cache, ids: &mut Vec<u32>) {
        if let [byte] = piece {
            ids.push(self.vocab.byte_ids()[*byte as usize]);
            return;
        }
        if let Some(&(start, length)) = cache.pieces.get(piece) {
            ids.extend_from_slice(&cache.ids[start as usize..(start + length) as usize]);
            return;
        }
        let before = ids.len();
        if piece.len() <= SCANNED_PIECE_BYTES {
            self.merge_by_scanning(piece, &mut cache.parts, ids);
        } else {
            self.merge_by_heap(piece, ids);
        }
        if piece.len() <= CACHED_PIECE_BYTES {
            if cache.pieces.len() >= CACHED_PIECES {
                cache.pieces.clear();
                cache.ids.clear();
            }
            // Fits: at most CACHED_PIECES * CACHED_PIECE_BYTES ids.
            cache.pieces.insert(piece.into(), (cache.ids.len() as u32, (ids.len() - before) as u32));
            cache.ids.extend_from_slice(&ids[before..]);
        }
    }

    #[inline]
    fn merge_of(&self, left: u32, right: u32) -> (u32, u32) {
        self.merges.get(&(left, right)).copied().unwrap_or((NONE, NONE))
    }

    /// `parts` holds (id, rank of merging it with the next).
    fn merge_by_scanning(&self, piece: &[u8], parts: &mut Vec<(u32, u32)>, ids: &mut Vec<u32>) {
        parts.clear();
        parts.extend(piece.iter().map(|byte| (self.vocab.byte_ids()[*byte as usize], NONE)));
        for i in 0..parts.len() - 1 {
            parts[i].1 = self.merge_of(parts[i].0, parts[i + 1].0).0;
        }
        loop {
            let (mut lowest, mut at) = (NONE, 0);
            for (i, (_, rank)) in parts.iter().enumerate() {
                if *rank < lowest {
                    (lowest, at) = (*rank, i);
                }
            }
            if lowest == NONE {
                break;
            }
            parts[at].0 = self.vocab.merges()[lowest as usize].id;
            parts.remove(at + 1);
            parts[at].1 = parts.get(at + 1).map_or(NONE, |next| self.merge_of(parts[at].0, next.0).0);
            if at > 0 {
                parts[at - 1].1 = self.merge_of(parts[at - 1].0, parts[at].0).0;
            }
        }
        ids.extend(parts.iter().map(|(id, _)| *id));
    }

    /// A heap of (rank, place, left id, right id) over linked places; entries whose ids have changed are passed over.
    fn merge_by_heap(&self, piece: &[u8], ids: &mut Vec<u32>) {
        // A piece is at most MAX_PIECE_BYTES long, so places fit u32.
        let n = piece.len() as u32;
        let mut part: Vec<u32> = piece.iter().map(|byte| self.vocab.byte_ids()[*byte as usize]).collect();
        let mut next: Vec<u32> = (1..=n).collect();
        let mut previous: Vec<u32> = (0..n).map(|i| i.wrapping_sub(1)).collect();
        let candidate = |left: u32, right: u32, at: u32| {
            let (rank, _) = self.merge_of(left, right);
            (rank != NONE).then_some(Reverse((rank, at, left, right)))
        };
        let mut heap: BinaryHeap<_> = (0..n - 1).filter_map(|i| candidate(part[i as usize], part[i as usize + 1], i)).collect();
        while let Some(Reverse((rank, at, left, right))) = heap.pop() {
            let after = next[at as usize];
            if part[at as usize] != left || after == n || part[after as usize] != right {
                continue;
            }
            part[at as usize] = self.vocab.merges()[rank as usize].id;
            part[after as usize] = NONE;
            let beyond = next[after as usize];
            next[at as usize] = beyond;
            if beyond < n {
                previous[beyond as usize] = at;
                heap.extend(candidate(part[at as usize], part[beyond as usize], at));
            }
            let before = previous[at as usize];
            if before < n {
                heap.extend(candidate(part[before as usize], part[at as usize], before));
            }
        }
        ids.extend(part.iter().filter(|id| **id != NONE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretokenize::Pattern;
    use proptest::prelude::*;

    /// Some merges over `a b c`, in an order that no trainer would give.
    fn encoder(merges: &[(u8, u8)]) -> Encoder {
        let mut rows: Vec<(u32, u32)> = Vec::new();
        let ids = |i: u8, known: usize| 97 + (i as usize % (3 + known));
        for (left, right) in merges {
            let id = |i| match ids(i, rows.len()) {
                byte @ 97..=99 => byte as u32,
                merge => 256 + merge as u32 - 100,
            };
            let row = (id(*left), id(*right));
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        Encoder::new(Vocab::trained(Pattern::Gpt2, &rows, &["<s>".into(), "<s><t>".into()]).unwrap())
    }

    /// The rule, word for word.
    fn merge_slowly(encoder: &Encoder, piece: &[u8]) -> Vec<u32> {
        let mut ids: Vec<u32> = piece.iter().map(|byte| u32::from(*byte)).collect();
        while let Some((rank, i)) =
            (1..ids.len()).map(|i| (encoder.merge_of(ids[i - 1], ids[i]).0, i)).min().filter(|(rank, _)| *rank != NONE)
        {
            ids.splice(i - 1..=i, [encoder.vocab.merges()[rank as usize].id]);
        }
        ids
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn both_ways_of_merging_equal_the_rule(
            merges in prop::collection::vec(any::<(u8, u8)>(), 0..12),
            piece in prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'c']), 2..60),
        ) {
            let encoder = encoder(&merges);
            let (mut scanned, mut heaped) = (Vec::new(), Vec::new());
            encoder.merge_by_scanning(&piece, &mut Vec::new(), &mut scanned);
            encoder.merge_by_heap(&piece, &mut heaped);
            prop_assert_eq!(&scanned, &merge_slowly(&encoder, &piece));
            prop_assert_eq!(heaped, scanned);
        }

        #[test]
        fn decoding_gives_the_text_back(text in any::<String>(), merges in prop::collection::vec(any::<(u8, u8)>(), 0..12)) {
            let encoder = encoder(&merges);
            let mut ids = Vec::new();
            encoder.encode(&text, &mut Cache::default(), &mut ids);
            prop_assert_eq!(encoder.decode(&ids).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn special_tokens_are_found_only_when_asked_for_and_longest_first() {
        let encoder = encoder(&[]);
        let mut ids = Vec::new();
        let all = encoder.specials(&["<s>".into(), "<s><t>".into()]).unwrap();
        encoder.encode_with(&all, "a<s><t><s>", &mut Cache::default(), &mut ids);
        assert_eq!(ids, [97, 257, 256]);
        ids.clear();
        encoder.encode("<s>", &mut Cache::default(), &mut ids);
        assert_eq!(ids, b"<s>".map(u32::from));
    }

    #[test]
    fn a_full_cache_starts_anew_and_gives_the_same_ids() {
        let encoder = encoder(&[(0, 1), (3, 2)]);
        let text: String = (0..CACHED_PIECES + 10).map(|i| format!(" {i}")).collect();
        let (mut cache, mut first, mut second) = (Cache::default(), Vec::new(), Vec::new());
        encoder.encode(&text, &mut cache, &mut first);
        assert!(cache.pieces.len() < CACHED_PIECES);
        encoder.encode(&text, &mut cache, &mut second);
        assert_eq!(first, second);
    }

    #[test]
    fn an_unknown_id_is_named_with_its_place() {
        let error = encoder(&[]).decode(&[97, 300]).unwrap_err().to_string();
        assert_eq!(error, "id 300 at place 1 is not in the vocabulary of 258 ids");
    }
}
