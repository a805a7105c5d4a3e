//! Whatever stands in the three files of a shard is refused, or is documents whose tokens add up to at most the shard's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinygpt::{Origin, Result, ShardDocuments, StoredSplit};

#[derive(Default)]
struct Counted {
    tokens: u64,
    documents: u64,
}

impl ShardDocuments for Counted {
    fn tokens(&mut self, tokens: &[u8]) -> Result<()> {
        assert!(!tokens.is_empty() && tokens.len().is_multiple_of(2));
        self.tokens += tokens.len() as u64 / 2;
        Ok(())
    }

    fn end(&mut self, _: Origin) -> Result<()> {
        self.documents += 1;
        Ok(())
    }
}

fuzz_target!(|input: (Vec<u16>, Vec<u16>, Vec<(u8, u8)>, Vec<u8>, Vec<u8>)| {
    let (tokens, ends, header, idx, map) = input;
    let mut words = [0u32; 256];
    words[..9].copy_from_slice(&[20_240_520, 1, tokens.len() as u32, 0x5450_4774, 1, 8, 300, 299, ends.len() as u32]);
    let mut bin: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    header.iter().for_each(|(place, byte)| bin[usize::from(*place)] = *byte);
    bin.extend(tokens.iter().flat_map(|id| id.to_le_bytes()));
    let ends: Vec<u8> = ends.iter().flat_map(|end| u64::from(*end).to_le_bytes()).chain(idx).collect();
    let map: Vec<u8> = std::iter::repeat_n(7, ends.len() / 8 * 24).chain(map).collect();
    let path = std::env::temp_dir().join(format!("tinygpt-fuzz-{}.bin", std::process::id()));
    for (extension, bytes) in [("bin", bin), ("idx", ends), ("map", map)] {
        std::fs::write(path.with_extension(extension), bytes).unwrap();
    }
    let Ok(stored) = StoredSplit::open(&[path.clone(), path]) else { return };
    let mut counted = Counted::default();
    let whole = stored.each_document(0..stored.documents(), &mut counted);
    assert!(counted.tokens <= stored.tokens() && counted.documents <= stored.documents());
    assert!(whole.is_err() || counted.documents == stored.documents());
    let _ = stored.text_bytes();
});
