//! What a tokenizer's file may say, in whatever numbers and order, is refused or is a tokenizer that gives every text back;
//! a file of counts is refused or is counts that are saved as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinygpt::{AddedToken, Cache, Encoder, Flags, Pattern, Vocab, load_counts, save_counts};

type Tokens = Vec<(Vec<u8>, u16)>;

fuzz_target!(|input: (Tokens, Vec<(u8, u8)>, Vec<(String, u16, u8)>, bool, &str, &[u8])| {
    let (extra, pairs, added, whole_pieces, text, counts) = input;
    let bytes = (0..=255u8).map(|byte| (vec![byte], u32::from(byte)));
    let tokens: Vec<(Vec<u8>, u32)> = bytes.chain(extra.into_iter().map(|(token, id)| (token, u32::from(id)))).collect();
    let part = |i: u8| tokens[tokens.len() - 1 - usize::from(i) % tokens.len()].0.clone();
    let merges: Vec<(Vec<u8>, Vec<u8>)> = pairs.iter().map(|(left, right)| (part(*left), part(*right))).collect();
    let token = |(content, id, bits): (String, u16, u8)| {
        Some(AddedToken { content, id: id.into(), flags: Flags::from_bits(bits % 32)? })
    };
    let added: Vec<AddedToken> = added.into_iter().filter_map(token).collect();
    let merged = Vocab::from_tokens(Pattern::Gpt2, tokens.clone(), &merges, added.clone(), whole_pieces);
    for vocab in [merged, Vocab::from_ranks(Pattern::Gpt2, tokens, added)].into_iter().flatten() {
        let encoder = Encoder::new(vocab);
        let mut ids = Vec::new();
        encoder.encode(text, &mut Cache::default(), &mut ids);
        assert_eq!(encoder.decode(&ids).unwrap(), text.as_bytes());
    }

    let folder = std::env::temp_dir();
    let (given, saved) = [".a", ".b"].map(|end| folder.join(format!("tinygpt-fuzz-{}{end}", std::process::id()))).into();
    std::fs::write(&given, counts).unwrap();
    if let Ok((found, pattern)) = load_counts(&given) {
        save_counts(&found, &pattern, &saved).unwrap();
        assert_eq!(std::fs::read(&saved).unwrap(), counts);
    }
});
