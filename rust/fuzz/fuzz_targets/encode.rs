//! Decoding gives the text back, and neither a used cache nor a cut of the text nor the order of merging changes ids.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinygpt::{Cache, Counts, Encoder, Job, Pattern, Vocab, learn};

fuzz_target!(|input: (u8, u16, &str)| {
    let (pattern, n_merges, text) = input;
    let (_, pattern) = &Pattern::NAMES[usize::from(pattern) % Pattern::NAMES.len()];
    // Merges across pieces, so that other pieces are other ids.
    let mut counts = Counts::new();
    if !text.is_empty() {
        counts.add(text.as_bytes(), 1).unwrap();
    }
    let mut proceed = |_| true;
    let merges = learn(counts, usize::from(n_merges) % 1000, None, &mut Job::new(Some(1), &mut proceed).unwrap()).unwrap().merges;
    let encoder = Encoder::new(Vocab::trained(pattern.clone(), &merges, &[]).unwrap());

    let (mut ids, mut again, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    let mut cache = Cache::default();
    encoder.encode(text, &mut cache, &mut ids);
    encoder.encode(text, &mut cache, &mut again);
    assert_eq!(ids, again);
    assert_eq!(encoder.decode(&ids).unwrap(), text.as_bytes());

    let at = pattern.last_cut(text.as_bytes(), text.len()).unwrap_or(0);
    encoder.encode(&text[..at], &mut cache, &mut parts);
    encoder.encode(&text[at..], &mut cache, &mut parts);
    assert_eq!(ids, parts);
    if text.len() < 1000 {
        assert_eq!(ids, encode_plainly(pattern, &merges, text));
    }
});

/// Merges one after the other, each wherever it fits.
fn encode_plainly(pattern: &Pattern, merges: &[(u32, u32)], text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    for piece in pattern.pieces(text) {
        let mut word: Vec<u32> = piece.iter().map(|byte| u32::from(*byte)).collect();
        for (new, pair) in (256..).zip(merges) {
            let mut at = 0;
            while at + 1 < word.len() {
                if (word[at], word[at + 1]) == *pair {
                    word.splice(at..at + 2, [new]);
                }
                at += 1;
            }
        }
        ids.extend(word);
    }
    ids
}
