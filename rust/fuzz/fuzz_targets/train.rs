//! Learnt merges are those of the plain algorithm: count every pair anew, merge the most frequent, smaller ids first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use tinygpt::{Counts, Job, learn};

fuzz_target!(|input: (u8, Vec<(u8, &[u8])>)| {
    let (n_merges, mut pieces) = input;
    pieces.retain(|(_, piece)| !piece.is_empty());
    let pieces: Vec<(u64, &[u8])> = pieces.iter().map(|(n, piece)| (u64::from(*n), &piece[..piece.len().min(200)])).collect();
    let mut counts = Counts::new();
    for (n, piece) in &pieces {
        counts.add(piece, *n).unwrap();
    }
    let mut proceed = |_| true;
    let learnt = learn(counts, n_merges.into(), None, &mut Job::new(Some(1), &mut proceed).unwrap()).unwrap().merges;
    assert_eq!(learnt, learn_plainly(&pieces, n_merges.into()));
});

fn learn_plainly(pieces: &[(u64, &[u8])], n_merges: usize) -> Vec<(u32, u32)> {
    let mut words: Vec<(u64, Vec<u32>)> =
        pieces.iter().map(|(n, piece)| (*n, piece.iter().map(|byte| u32::from(*byte)).collect())).collect();
    let mut merges = Vec::new();
    while merges.len() < n_merges {
        let mut pairs: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        for (n, word) in words.iter().filter(|(n, _)| *n > 0) {
            word.windows(2).for_each(|pair| *pairs.entry((pair[0], pair[1])).or_default() += n);
        }
        let Some(best) = pairs.values().max() else { break };
        let pair = *pairs.iter().find(|(_, n)| *n == best).unwrap().0;
        let new = 256 + merges.len() as u32;
        words.iter_mut().for_each(|(_, word)| merge(word, pair, new));
        merges.push(pair);
    }
    merges
}

/// Every occurrence of the pair replaced, from left to right.
fn merge(word: &mut Vec<u32>, pair: (u32, u32), new: u32) {
    let (mut kept, mut at) = (0, 0);
    while at < word.len() {
        let found = word.get(at + 1).is_some_and(|next| (word[at], *next) == pair);
        word[kept] = if found { new } else { word[at] };
        (kept, at) = (kept + 1, at + 1 + usize::from(found));
    }
    word.truncate(kept);
}
