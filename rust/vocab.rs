//! A vocabulary: what each id stands for, and in which order pairs merge.

use crate::added::{AddedToken, Flags, checked};
pub use crate::derivation::Merge;
use crate::derivation::{Derivation, last_pair};
use crate::error::{Error, Result};
use crate::pretokenize::Pattern;
use aho_corasick::{AhoCorasick, MatchKind};
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

/// Ids, their bytes, the merges in order and the tokens added beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocab {
    pattern: Pattern,
    /// Bytes of each id; empty for ids that stand for no text.
    tokens: Vec<Box<[u8]>>,
    byte_ids: [u32; 256],
    merges: Vec<Merge>,
    added: Vec<AddedToken>,
    /// Of `added`, those that are special.
    specials: Vec<(String, u32)>,
    /// Ids of added tokens that are text but that neither merging nor looking up a piece gives.
    beside: Vec<u32>,
    whole_pieces: bool,
}

/// Ids above this are refused, so that a hostile file cannot ask for a table of 2^32 rows.
pub const MAX_ID: u32 = (1 << 21) - 1;

/// Bytes of a token that a message shows.
const SHOWN_BYTES: usize = 60;

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
        let mut vocab = Self::of_tokens(pattern, tokens, &std::array::from_fn(|b| b as u32));
        vocab.merges = rows;
        vocab.with_added(specials.iter().zip(first..).map(|(name, id)| AddedToken::special(name, id)).collect())
    }

    /// A vocabulary with ids of its own and its merges as pairs of byte strings, in order. Several merges may make one token.
    /// `whole_pieces` says that a piece that is a token is that token, whatever the merges.
    ///
    /// # Errors
    ///
    /// A byte without an id, an id or token given twice, a merge of tokens that are not in the vocabulary, a pair that
    /// merges twice, added tokens that cannot be.
    pub fn from_tokens(
        pattern: Pattern,
        tokens: Vec<(Vec<u8>, u32)>,
        merges: &[(Vec<u8>, Vec<u8>)],
        added: Vec<AddedToken>,
        whole_pieces: bool,
    ) -> Result<Vocab> {
        let (ids, mut vocab) = Self::without_merges(pattern, tokens)?;
        let find = |bytes: &[u8], rank: usize| {
            let missing = || Error::Format(format!("merge {rank} needs the token {}, which has no id", show(bytes)));
            ids.get(bytes).copied().ok_or_else(missing)
        };
        for (rank, (left, right)) in merges.iter().enumerate() {
            let joined = [&**left, &**right].concat();
            let merge = Merge { left: find(left, rank)?, right: find(right, rank)?, id: find(&joined, rank)? };
            vocab.merges.push(merge);
        }
        if let Some(rank) = Derivation::new(&vocab.byte_ids, &vocab.merges).repeated() {
            let (left, right) = &merges[rank];
            return Err(Error::Format(format!("merge {rank} joins {} and {}, which an earlier one does", show(left), show(right))));
        }
        vocab.whole_pieces = whole_pieces && vocab.unmerged().is_some();
        vocab.with_added(added)
    }

    /// A vocabulary in which ids are ranks: of all adjacent pairs whose joined bytes are a token, the lowest merges first, and
    /// a piece that is a token is that token. The merges are the last pair of each token; no other pair ever makes it.
    ///
    /// # Errors
    ///
    /// As [`Vocab::from_tokens`].
    pub fn from_ranks(pattern: Pattern, ranks: Vec<(Vec<u8>, u32)>, added: Vec<AddedToken>) -> Result<Vocab> {
        let (ids, mut vocab) = Self::without_merges(pattern, ranks)?;
        for (id, token) in (0u32..).zip(&vocab.tokens).filter(|(_, token)| token.len() > 1) {
            let pair = last_pair(token, &vocab.byte_ids, |left, right| ids.get(&token[left.start..right.end]).map(|rank| (*rank, *rank)));
            match pair {
                Some((left, right)) => vocab.merges.push(Merge { left: left.id, right: right.id, id }),
                None => vocab.whole_pieces = true,
            }
        }
        vocab.with_added(added)
    }

    fn of_tokens(pattern: Pattern, tokens: Vec<Box<[u8]>>, byte_ids: &[u32; 256]) -> Vocab {
        let (merges, added, specials, beside) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Vocab { pattern, tokens, byte_ids: *byte_ids, merges, added, specials, beside, whole_pieces: false }
    }

    fn without_merges(pattern: Pattern, rows: Vec<(Vec<u8>, u32)>) -> Result<(FxHashMap<Vec<u8>, u32>, Vocab)> {
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
        Ok((ids, Self::of_tokens(pattern, tokens, &byte_ids)))
    }

    fn with_added(mut self, added: Vec<AddedToken>) -> Result<Vocab> {
        self.added = checked(added)?;
        if let Some(token) = self.added.last().filter(|token| token.id > MAX_ID) {
            let (kind, content, id) = (token.kind(), &token.content, token.id);
            return Err(Error::Invalid(format!("the {kind} {content:?} has the id {id}, larger than {MAX_ID}")));
        }
        let size = self.added.last().map_or(0, |token| token.id as usize + 1).max(self.tokens.len());
        self.tokens.resize(size, Box::from([]));
        let mut is_made = vec![false; size];
        self.merges.iter().for_each(|merge| is_made[merge.id as usize] = true);
        for added in &self.added {
            let (name, id) = (&added.content, added.id);
            // A token that no piece can become is one of text only because it was added.
            let is_reached = name.len() == 1 || self.whole_pieces || is_made[id as usize];
            let token = &mut self.tokens[id as usize];
            let is_same = !added.is_special() && **token == *name.as_bytes();
            if !token.is_empty() && !is_same {
                let (kind, token) = (added.kind(), show(token));
                return Err(Error::Invalid(format!("the {kind} {name:?} has the id {id}, which is the token {token}")));
            }
            if added.is_special() {
                self.specials.push((name.clone(), id));
            } else if !(is_same && is_reached) {
                *token = name.as_bytes().into();
                self.beside.push(id);
            }
        }
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

    /// Ids and bytes of the tokens that merging or looking up a piece may give: all text but what was added beside it.
    pub fn model_tokens(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let all = (0u32..).zip(self.tokens.iter().map(|token| &**token));
        all.filter(|(id, token)| !token.is_empty() && self.beside.binary_search(id).is_err())
    }

    /// The id of each byte.
    #[must_use]
    pub fn byte_ids(&self) -> &[u32; 256] {
        &self.byte_ids
    }

    /// The merges, first to be applied first; no pair stands there twice.
    #[must_use]
    pub fn merges(&self) -> &[Merge] {
        &self.merges
    }

    /// All added tokens, ascending by id: special ones, and ordinary ones that are found in every text.
    #[must_use]
    pub fn added(&self) -> &[AddedToken] {
        &self.added
    }

    /// The special tokens, ascending by id.
    #[must_use]
    pub fn specials(&self) -> &[(String, u32)] {
        &self.specials
    }

    /// Whether a piece that is one of the [`Vocab::model_tokens`] is that token, though merging would give others.
    #[must_use]
    pub fn whole_pieces(&self) -> bool {
        self.whole_pieces
    }

    /// Why a reader of ids as ranks would get other ids out of some text; `None` if it would not.
    ///
    /// # Errors
    ///
    /// None that a vocabulary could cause.
    pub fn rank_fault(&self) -> Result<Option<String>> {
        let ranks = self.model_tokens().map(|(id, token)| (token.to_vec(), id)).collect();
        let ranked = Self::from_ranks(self.pattern.clone(), ranks, Vec::new())?;
        if let Some(id) = self.unmerged().filter(|_| !self.whole_pieces) {
            let token = show(&self.tokens[id as usize]);
            return Ok(Some(format!("no merge builds the token {token}, but a reader of ranks finds it")));
        }
        let derivation = Derivation::new(&self.byte_ids, &self.merges);
        let mut used: Vec<u32> = self.model_tokens().filter_map(|(_, token)| derivation.last_merge(token)).collect();
        used.sort_unstable();
        let used: Vec<Merge> = used.into_iter().map(|place| self.merges[place as usize]).collect();
        let same = used.iter().zip(&ranked.merges).take_while(|(ours, theirs)| ours == theirs).count();
        let other = ranked.merges.get(same).or(used.get(same));
        Ok(other.map(|merge| {
            let (left, right) = (show(&self.tokens[merge.left as usize]), show(&self.tokens[merge.right as usize]));
            format!("ids as ranks would put the merge of {left} and {right} to the id {} elsewhere", merge.id)
        }))
    }

    /// The first token that its own bytes do not merge to.
    fn unmerged(&self) -> Option<u32> {
        let derivation = Derivation::new(&self.byte_ids, &self.merges);
        let is_unmerged = |(_, token): &(u32, &[u8])| token.len() > 1 && derivation.last_merge(token).is_none();
        self.model_tokens().find(is_unmerged).map(|(id, _)| id)
    }

    /// SHA-256 over all that decides ids: the pattern, the tokens with their ids, the merges and the added tokens.
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
        // What older versions did not know counts only where it is there, so that fingerprints last.
        for token in self.added.iter().filter(|token| token.flags != Flags::SPECIAL) {
            field(b"flags");
            let is_beside = self.beside.binary_search(&token.id).is_ok();
            field(&[token.id, u32::from(token.flags.bits()), u32::from(is_beside)].map(u32::to_le_bytes).concat());
        }
        if self.whole_pieces {
            field(b"whole pieces");
        }
        // A last token as long as a merge's field could pass for a merge.
        if self.tokens.last().is_some_and(|token| token.len() == 12) {
            field(b"merges");
            field(&(self.merges.len() as u64).to_le_bytes());
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
    let dots = if bytes.len() > SHOWN_BYTES { ".." } else { "" };
    format!("\"{}{dots}\"", bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii())
}

fn id_of(index: usize) -> Result<u32> {
    let id = u32::try_from(index).ok().filter(|id| *id <= MAX_ID);
    id.ok_or_else(|| Error::Invalid(format!("a vocabulary holds at most {} ids", MAX_ID + 1)))
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

    fn row(token: &str, id: u32) -> Vec<(Vec<u8>, u32)> {
        vec![(token.as_bytes().to_vec(), id)]
    }

    fn pair(left: &str, right: &str) -> (Vec<u8>, Vec<u8>) {
        (left.as_bytes().to_vec(), right.as_bytes().to_vec())
    }

    #[test]
    fn whole_pieces_matter_only_where_a_token_does_not_merge_to_itself() {
        let rows = [bytes(), row("ab", 256), row("abc", 257)].concat();
        let of = |merges: &[_], whole| Vocab::from_tokens(Pattern::Gpt2, rows.clone(), merges, vec![], whole).unwrap();
        let all = [pair("a", "b"), pair("ab", "c")];
        assert_eq!(of(&all, true), of(&all, false));
        assert!(of(&all[..1], true).whole_pieces());
        assert_ne!(of(&all[..1], true).fingerprint(), of(&all[..1], false).fingerprint());
        assert!(Vocab::from_ranks(Pattern::Gpt2, [bytes(), row("abc", 256)].concat(), vec![]).unwrap().whole_pieces());
    }

    #[test]
    fn ids_are_ranks_where_the_merges_that_happen_are_those_of_the_ranks() {
        let rows = [bytes(), row("ab", 256), row("bc", 257), row("abc", 258)].concat();
        let of =
            |merges: &[_], whole| Vocab::from_tokens(Pattern::Gpt2, rows.clone(), merges, vec![], whole).unwrap().rank_fault().unwrap();
        let in_order = [pair("a", "b"), pair("b", "c"), pair("ab", "c"), pair("a", "bc")];
        assert_eq!(of(&in_order, false), None);
        assert_eq!(of(&in_order[..2], false).unwrap(), "no merge builds the token \"abc\", but a reader of ranks finds it");
        let fault = "ids as ranks would put the merge of \"ab\" and \"c\" to the id 258 elsewhere";
        assert_eq!(of(&in_order[..2], true).unwrap(), fault);
        let reversed = [pair("b", "c"), pair("a", "b"), pair("ab", "c"), pair("a", "bc")];
        assert_eq!(of(&reversed, false).unwrap(), "ids as ranks would put the merge of \"a\" and \"b\" to the id 256 elsewhere");
    }

    #[test]
    fn ordinary_added_tokens_are_text_and_special_ones_are_not() {
        let token = |content: &str, id, bits| AddedToken { content: content.into(), id, flags: Flags::from_bits(bits).unwrap() };
        let added = vec![token("<s>", 257, 1), token("ab", 256, 0), token("<t>", 258, 8)];
        let vocab = Vocab::from_tokens(Pattern::Gpt2, [bytes(), row("ab", 256)].concat(), &[pair("a", "b")], added, false).unwrap();
        let text = |id: usize| String::from_utf8(vocab.tokens()[id].to_vec()).unwrap();
        assert_eq!([256, 257, 258].map(text), ["ab", "", "<t>"]);
        assert_eq!(vocab.bytes(257), Some(&b"<s>"[..]));
        assert_eq!((vocab.model_tokens().count(), vocab.specials().len(), vocab.added().len()), (257, 1, 3));
    }

    #[test]
    fn faults_are_named() {
        let with = |token: &str, id| [bytes(), row(token, id)].concat();
        let special = |name: &str, id| vec![AddedToken::special(name, id)];
        let of_merges = |merges: &[_]| Vocab::from_tokens(Pattern::Gpt2, with("ab", 256), merges, vec![], false);
        for (result, expected) in [
            (Vocab::from_ranks(Pattern::Gpt2, with("a", 256), vec![]), "token \"a\" has the ids 97 and 256"),
            (Vocab::from_ranks(Pattern::Gpt2, with("ab", 97), vec![]), "id 97 is given to \"a\" and to \"ab\""),
            (Vocab::from_ranks(Pattern::Gpt2, bytes()[1..].to_vec(), vec![]), "byte 0x00 has no id, so not every text could be encoded"),
            (Vocab::from_ranks(Pattern::Gpt2, with("", 256), vec![]), "id 256 is an empty token"),
            (Vocab::from_ranks(Pattern::Gpt2, with("ab", 1 << 21), vec![]), "id 2097152 is larger than any vocabulary's (2097151)"),
            (Vocab::from_ranks(Pattern::Gpt2, bytes(), special("", 256)), "the name of special token 256 is empty"),
            (
                Vocab::from_ranks(Pattern::Gpt2, bytes(), special("<s>", 1 << 21)),
                "the special token \"<s>\" has the id 2097152, larger than 2097151",
            ),
            (
                Vocab::from_ranks(Pattern::Gpt2, bytes(), special("<s>", 97)),
                "the special token \"<s>\" has the id 97, which is the token \"a\"",
            ),
            (of_merges(&[pair("a", "c")]), "merge 0 needs the token \"ac\", which has no id"),
            (of_merges(&[pair("a", "b"), pair("a", "b")]), "merge 1 joins \"a\" and \"b\", which an earlier one does"),
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
        let first = all[0].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(&first[..16], "55f1d5f2b626488b", "the fingerprints of tokenizers that exist must not change");
        assert!((0..all.len()).all(|i| (0..i).all(|j| all[i] != all[j])));
    }
}
