//! A vocabulary: what each id stands for, and in which order pairs merge.

use crate::error::{Error, Result};
use crate::pretokenize::Pattern;
use aho_corasick::{AhoCorasick, MatchKind};
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

/// A pair of adjacent ids and the id that replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The id on the left.
    pub left: u32,
    /// The id on the right.
    pub right: u32,
    /// The id that takes their place.
    pub id: u32,
}

/// Ids, their bytes, the merges in order and the special tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocab {
    pattern: Pattern,
    /// Bytes of each id; empty for ids that stand for no text.
    tokens: Vec<Box<[u8]>>,
    byte_ids: [u32; 256],
    merges: Vec<Merge>,
    specials: Vec<(String, u32)>,
}

/// Ids above this are refused, so that a hostile file cannot ask for a table of 2^32 rows.
const MAX_ID: u32 = 1 << 24;

impl Vocab {
    /// Ids 0 to 255 are the bytes, then one id for each merge, then the specials.
    ///
    /// # Errors
    ///
    /// A merge that names an id from its own place on, or special names that are empty or double.
    pub fn trained(pattern: Pattern, merges: &[(u32, u32)], specials: &[String]) -> Result<Vocab> {
        let mut tokens: Vec<Box<[u8]>> = (0..=255u8).map(|b| Box::from([b])).collect();
        let mut rows = Vec::with_capacity(merges.len());
        for &(left, right) in merges {
            let [Some(a), Some(b)] = [left, right].map(|id| tokens.get(id as usize)) else {
                return Err(Error::Invalid(format!("merge {} joins ids {left} and {right}, which come later", rows.len())));
            };
            let joined = [&**a, &**b].concat().into_boxed_slice();
            rows.push(Merge { left, right, id: id_of(tokens.len())? });
            tokens.push(joined);
        }
        let first = id_of(tokens.len())?;
        let specials = specials.iter().zip(first..).map(|(name, id)| (name.clone(), id)).collect();
        let vocab = Vocab { pattern, tokens, byte_ids: std::array::from_fn(|b| b as u32), merges: rows, specials };
        vocab.with_specials_checked()
    }

    /// A vocabulary with ids of its own and its merges as pairs of byte strings, in order.
    ///
    /// # Errors
    ///
    /// A byte without an id, an id or token given twice, a merge of tokens that are not in the vocabulary.
    pub fn from_tokens(
        pattern: Pattern,
        tokens: Vec<(Vec<u8>, u32)>,
        merges: &[(Vec<u8>, Vec<u8>)],
        specials: Vec<(String, u32)>,
    ) -> Result<Vocab> {
        let (ids, mut vocab) = Self::without_merges(pattern, tokens, specials)?;
        let find = |bytes: &[u8], rank: usize| {
            let missing = || Error::Format(format!("merge {rank} needs the token {}, which has no id", show(bytes)));
            ids.get(bytes).copied().ok_or_else(missing)
        };
        for (rank, (left, right)) in merges.iter().enumerate() {
            let joined = [&**left, &**right].concat();
            let merge = Merge { left: find(left, rank)?, right: find(right, rank)?, id: find(&joined, rank)? };
            vocab.merges.push(merge);
        }
        Ok(vocab)
    }

    /// A vocabulary in which ids are ranks: of all adjacent pairs whose joined bytes are a token, the lowest merges first.
    /// The merges are what builds each token from lower ones.
    ///
    /// # Errors
    ///
    /// As [`Vocab::from_tokens`]; or a token that lower ranks do not build from two parts.
    pub fn from_ranks(pattern: Pattern, ranks: Vec<(Vec<u8>, u32)>, specials: Vec<(String, u32)>) -> Result<Vocab> {
        let (ids, mut vocab) = Self::without_merges(pattern, ranks, specials)?;
        for id in 0..vocab.tokens.len() {
            let token = &vocab.tokens[id];
            if token.len() < 2 {
                continue;
            }
            let id = id_of(id)?;
            let parts = parts_below(&ids, token, id);
            let [left, right] = parts[..] else {
                let found = parts.len();
                return Err(Error::Format(format!("token {} (rank {id}) is built from {found} lower tokens, not 2", show(token))));
            };
            vocab.merges.push(Merge { left, right, id });
        }
        Ok(vocab)
    }

    fn without_merges(
        pattern: Pattern,
        rows: Vec<(Vec<u8>, u32)>,
        specials: Vec<(String, u32)>,
    ) -> Result<(FxHashMap<Vec<u8>, u32>, Vocab)> {
        let largest = rows.iter().map(|(_, id)| *id).max().unwrap_or(0);
        if largest > MAX_ID {
            return Err(Error::Format(format!("id {largest} is larger than any vocabulary's ({MAX_ID})")));
        }
        let mut tokens: Vec<Box<[u8]>> = vec![Box::from([]); largest as usize + 1];
        let mut ids = FxHashMap::with_capacity_and_hasher(rows.len(), rustc_hash::FxBuildHasher);
        for (bytes, id) in rows {
            if bytes.is_empty() {
                return Err(Error::Format(format!("id {id} is an empty token")));
            }
            if !tokens[id as usize].is_empty() {
                return Err(Error::Format(format!("id {id} is given to {} and to {}", show(&tokens[id as usize]), show(&bytes))));
            }
            tokens[id as usize] = bytes.clone().into();
            if let Some(other) = ids.insert(bytes, id) {
                return Err(Error::Format(format!("token {} has the ids {other} and {id}", show(&tokens[id as usize]))));
            }
        }
        let mut byte_ids = [0; 256];
        for byte in 0..=255u8 {
            let missing = || Error::Format(format!("byte 0x{byte:02x} has no id, so not every text could be encoded"));
            byte_ids[byte as usize] = *ids.get(&[byte][..]).ok_or_else(missing)?;
        }
        let vocab = Vocab { pattern, tokens, byte_ids, merges: Vec::new(), specials };
        Ok((ids, vocab.with_specials_checked()?))
    }

    fn with_specials_checked(mut self) -> Result<Vocab> {
        self.specials.sort_by_key(|(_, id)| *id);
        for (i, (name, id)) in self.specials.iter().enumerate() {
            if name.is_empty() {
                return Err(Error::Invalid("a special token's name is empty".into()));
            }
            if self.specials[..i].iter().any(|(other, _)| other == name) {
                return Err(Error::Invalid(format!("the special token {name:?} is named twice")));
            }
            if i > 0 && self.specials[i - 1].1 == *id {
                return Err(Error::Invalid(format!("the special tokens {:?} and {name:?} have the same id {id}", self.specials[i - 1].0)));
            }
            if self.tokens.get(*id as usize).is_some_and(|token| !token.is_empty()) {
                let token = show(&self.tokens[*id as usize]);
                return Err(Error::Invalid(format!("the special token {name:?} has the id {id}, which is the token {token}")));
            }
            if *id > MAX_ID {
                return Err(Error::Invalid(format!("the special token {name:?} has the id {id}, larger than {MAX_ID}")));
            }
        }
        let size = self.specials.last().map_or(0, |(_, id)| *id as usize + 1).max(self.tokens.len());
        self.tokens.resize(size, Box::from([]));
        Ok(self)
    }

    /// How text is split before merging.
    #[must_use]
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// One more than the largest id.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Never: the 256 bytes are always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The bytes that `id` stands for: a special token's name, or nothing for an unused id.
    #[must_use]
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        let token = self.tokens.get(id as usize)?;
        if !token.is_empty() {
            return Some(token);
        }
        let special = self.specials.binary_search_by_key(&id, |(_, id)| *id).ok()?;
        Some(self.specials[special].0.as_bytes())
    }

    /// The text bytes of every id; empty for special tokens and unused ids.
    #[must_use]
    pub fn tokens(&self) -> &[Box<[u8]>] {
        &self.tokens
    }

    /// The id of each byte.
    #[must_use]
    pub fn byte_ids(&self) -> &[u32; 256] {
        &self.byte_ids
    }

    /// The merges, first to be applied first.
    #[must_use]
    pub fn merges(&self) -> &[Merge] {
        &self.merges
    }

    /// The special tokens, ascending by id.
    #[must_use]
    pub fn specials(&self) -> &[(String, u32)] {
        &self.specials
    }

    /// SHA-256 over all that decides ids: the pattern, the tokens with their ids, the merges and the specials.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(b"tinygpt tokenizer 1");
        field(self.pattern.name().as_bytes());
        self.tokens.iter().for_each(|token| field(token));
        for merge in &self.merges {
            field(&[merge.left, merge.right, merge.id].map(u32::to_le_bytes).concat());
        }
        for (name, id) in &self.specials {
            field(name.as_bytes());
            field(&id.to_le_bytes());
        }
        hash.finalize().into()
    }
}

/// Finds any of `names` in text, the longest where several start.
///
/// # Errors
///
/// The names are too large for an automaton.
pub fn special_finder(names: &[String]) -> Result<Option<AhoCorasick>> {
    if names.is_empty() {
        return Ok(None);
    }
    let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(names);
    built.map(Some).map_err(|e| Error::Invalid(format!("special tokens: {e}")))
}

/// A token as a person can read it.
fn show(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

fn id_of(index: usize) -> Result<u32> {
    let id = u32::try_from(index).ok().filter(|id| *id <= MAX_ID);
    id.ok_or_else(|| Error::Invalid(format!("a vocabulary holds at most {MAX_ID} ids")))
}

/// What `token` becomes when only ranks below `rank` merge: the plain loop, on a token's few bytes.
fn parts_below(ids: &FxHashMap<Vec<u8>, u32>, token: &[u8], rank: u32) -> Vec<u32> {
    let mut ends: Vec<usize> = (0..=token.len()).collect();
    loop {
        let lowest = |i: usize| Some((*ids.get(&token[ends[i]..ends[i + 2]]).filter(|id| **id < rank)?, i));
        let Some((_, i)) = (0..ends.len().saturating_sub(2)).filter_map(lowest).min() else {
            return ends.windows(2).map(|edge| ids[&token[edge[0]..edge[1]]]).collect();
        };
        ends.remove(i + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Vec<(Vec<u8>, u32)> {
        (0..=255u8).map(|b| (vec![b], u32::from(b))).collect()
    }

    #[test]
    fn ranks_give_the_merges_that_build_each_token() {
        let ranks = [bytes(), vec![(b"ab".to_vec(), 256), (b"bc".to_vec(), 257), (b"abc".to_vec(), 258)]].concat();
        let vocab = Vocab::from_ranks(Pattern::Gpt2, ranks, vec![]).unwrap();
        assert_eq!(vocab, Vocab::trained(Pattern::Gpt2, &[(97, 98), (98, 99), (256, 99)], &[]).unwrap());
    }

    #[test]
    fn faults_are_named() {
        let row = |token: &[u8], id| [bytes(), vec![(token.to_vec(), id)]].concat();
        let special = |name: &str, id| vec![(name.to_string(), id)];
        for (result, expected) in [
            (Vocab::from_ranks(Pattern::Gpt2, row(b"abc", 256), vec![]), "token \"abc\" (rank 256) is built from 3 lower tokens, not 2"),
            (Vocab::from_ranks(Pattern::Gpt2, row(b"a", 256), vec![]), "token \"a\" has the ids 97 and 256"),
            (Vocab::from_ranks(Pattern::Gpt2, row(b"ab", 97), vec![]), "id 97 is given to \"a\" and to \"ab\""),
            (Vocab::from_ranks(Pattern::Gpt2, bytes()[1..].to_vec(), vec![]), "byte 0x00 has no id, so not every text could be encoded"),
            (Vocab::from_ranks(Pattern::Gpt2, row(b"", 256), vec![]), "id 256 is an empty token"),
            (Vocab::from_ranks(Pattern::Gpt2, bytes(), special("", 256)), "a special token's name is empty"),
            (
                Vocab::from_ranks(Pattern::Gpt2, bytes(), special("<s>", 97)),
                "the special token \"<s>\" has the id 97, which is the token \"a\"",
            ),
            (
                Vocab::from_tokens(Pattern::Gpt2, bytes(), &[(b"a".to_vec(), b"b".to_vec())], vec![]),
                "merge 0 needs the token \"ab\", which has no id",
            ),
            (Vocab::trained(Pattern::Gpt2, &[], &["<s>".into(), "<s>".into()]), "the special token \"<s>\" is named twice"),
            (Vocab::trained(Pattern::Gpt2, &[(97, 256)], &[]), "merge 0 joins ids 97 and 256, which come later"),
        ] {
            assert_eq!(result.unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn the_fingerprint_depends_on_every_part() {
        let of = |pattern, merges: &[(u32, u32)], specials: &[&str]| {
            let specials: Vec<String> = specials.iter().map(ToString::to_string).collect();
            Vocab::trained(pattern, merges, &specials).unwrap().fingerprint()
        };
        let all = [
            of(Pattern::Gpt2, &[(97, 98)], &["<s>"]),
            of(Pattern::Byte, &[(97, 98)], &["<s>"]),
            of(Pattern::Gpt2, &[(97, 99)], &["<s>"]),
            of(Pattern::Gpt2, &[(97, 98)], &["<t>"]),
            of(Pattern::Gpt2, &[(97, 98)], &[]),
        ];
        assert!((0..all.len()).all(|i| (0..i).all(|j| all[i] != all[j])));
    }
}
