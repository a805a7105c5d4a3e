//! How merging builds a token: which two parts are left before the last merge.
//!
//! Merges within a stretch of text do not depend on what stands around it as long as none crosses its edges. So a token
//! has one last pair at most, in whatever text it is built, and a merge of another pair to the same token never happens.

use rustc_hash::{FxBuildHasher, FxHashMap};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

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

/// Merges, indexed by their pairs.
pub(crate) struct Derivation<'a> {
    byte_ids: &'a [u32; 256],
    merges: &'a [Merge],
    places: FxHashMap<(u32, u32), u32>,
}

impl<'a> Derivation<'a> {
    /// Indexes `merges`; of equal pairs the first counts.
    pub(crate) fn new(byte_ids: &'a [u32; 256], merges: &'a [Merge]) -> Self {
        let mut places = FxHashMap::with_capacity_and_hasher(merges.len(), FxBuildHasher);
        for (place, merge) in (0u32..).zip(merges) {
            places.entry((merge.left, merge.right)).or_insert(place);
        }
        Derivation { byte_ids, merges, places }
    }

    /// The first merge of a pair that an earlier one merges.
    pub(crate) fn repeated(&self) -> Option<usize> {
        (0u32..).zip(self.merges).position(|(place, merge)| self.places[&(merge.left, merge.right)] != place)
    }

    /// The place of the merge that makes `token` of its last two parts, if merging gets that far.
    pub(crate) fn last_merge(&self, token: &[u8]) -> Option<u32> {
        if token.len() < 2 {
            return None;
        }
        let place = |left: Part, right: Part| self.places.get(&(left.id, right.id)).copied();
        let join = |left, right| place(left, right).map(|rank| (rank, self.merges[rank as usize].id));
        let (left, right) = last_pair(token, self.byte_ids, join)?;
        place(left, right)
    }
}

/// A stretch of a token that has become one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where it starts.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// What it is.
    pub id: u32,
}

/// The last two parts of `token`: pairs merge, the lowest rank first and the leftmost of equals, until two are left. `join`
/// gives rank and id of the merge of two parts. `None` where merging comes to an end before that.
///
/// `token` has at least two bytes.
pub(crate) fn last_pair(token: &[u8], byte_ids: &[u32; 256], join: impl Fn(Part, Part) -> Option<(u32, u32)>) -> Option<(Part, Part)> {
    let n = token.len();
    let mut parts: Vec<Part> =
        token.iter().enumerate().map(|(i, byte)| Part { start: i, end: i + 1, id: byte_ids[*byte as usize] }).collect();
    // Parts lie at the place where they start; those that became part of another end at 0. `before` is the left neighbour.
    let mut before: Vec<usize> = (0..n).map(|i| i.saturating_sub(1)).collect();
    let candidate = |left: Part, right: Part| join(left, right).map(|(rank, id)| Reverse((rank, left.start, left.end, right.end, id)));
    let mut heap: BinaryHeap<_> = parts.windows(2).filter_map(|pair| candidate(pair[0], pair[1])).collect();
    let mut left_over = n;
    while left_over > 2 {
        let Reverse((_, start, middle, end, id)) = heap.pop()?;
        if parts[start].end != middle || parts[middle].end != end {
            continue;
        }
        parts[start] = Part { start, end, id };
        parts[middle].end = 0;
        left_over -= 1;
        if end < n {
            before[end] = start;
            heap.extend(candidate(parts[start], parts[end]));
        }
        if start > 0 {
            heap.extend(candidate(parts[before[start]], parts[start]));
        }
    }
    Some((parts[0], parts[parts[0].end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The rule, word for word.
    fn slowly(token: &[u8], ranks: &FxHashMap<Vec<u8>, u32>) -> Option<(usize, usize, usize)> {
        let mut ends: Vec<usize> = (0..=token.len()).collect();
        while ends.len() > 3 {
            let rank = |i: usize| Some((*ranks.get(&token[ends[i]..ends[i + 2]])?, i));
            let (_, i) = (0..ends.len() - 2).filter_map(rank).min()?;
            ends.remove(i + 1);
        }
        Some((ends[0], ends[1], ends[2]))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_last_pair_is_that_of_the_rule(
            tokens in prop::collection::vec("[abc]{2,5}", 0..12),
            token in "[abc]{2,12}",
        ) {
            let ranks: FxHashMap<Vec<u8>, u32> = tokens.iter().zip(256..).map(|(token, rank)| (token.as_bytes().to_vec(), rank)).collect();
            let join = |left: Part, right: Part| ranks.get(&token.as_bytes()[left.start..right.end]).map(|rank| (*rank, *rank));
            let found = last_pair(token.as_bytes(), &std::array::from_fn(|byte| byte as u32), join);
            let expected = slowly(token.as_bytes(), &ranks);
            prop_assert_eq!(found.map(|(left, right)| (left.start, left.end, right.end)), expected);
            prop_assert!(found.is_none_or(|(left, right)| left.end == right.start));
        }
    }
}
