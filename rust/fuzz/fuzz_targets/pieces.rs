//! Pieces add up to the text, and text cut where it may be has the same ones; a named pattern equals its expression.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tinygpt::Pattern;

/// Each named pattern, with its expression where a linear-time engine knows it.
static PATTERNS: LazyLock<Vec<(Pattern, Option<Pattern>)>> = LazyLock::new(|| {
    let contraction = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    let [upper, lower] = [r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"];
    let prefix = r"[^\r\n\p{L}\p{N}]?";
    let space = r"\s*[\r\n]+|\s+(?!\S)|\s+";
    let cl100k = |number: &str| format!(r"{contraction}|{prefix}\p{{L}}+|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{space}");
    let words = format!("{prefix}{upper}*{lower}+{contraction}?|{prefix}{upper}+{lower}*{contraction}?");
    let expression = |name: &str| match name {
        "gpt2" => Some(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+".into()),
        "cl100k" => Some(cl100k(r"\p{N}{1,3}")),
        "qwen2" => Some(cl100k(r"\p{N}")),
        "o200k" => Some(format!(r"{words}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{space}")),
        "char" => Some("(?s:.)".into()),
        _ => None,
    };
    let custom = |name: &str| expression(name).map(|expression| Pattern::from_name(&format!("regex:{expression}")).unwrap());
    Pattern::NAMES.iter().map(|(name, pattern)| (pattern.clone(), custom(name))).collect()
});

fuzz_target!(|text: &str| {
    for (pattern, custom) in PATTERNS.iter() {
        let pieces: Vec<&[u8]> = pattern.pieces(text).collect();
        assert!(pieces.iter().all(|piece| !piece.is_empty()) && pieces.concat() == text.as_bytes(), "{pattern:?}");
        if let Some(custom) = custom {
            assert!(custom.pieces(text).eq(pieces.iter().copied()), "{pattern:?}");
        }
        let (mut parts, mut end) = (Vec::new(), text.len());
        while let Some(at) = pattern.last_cut(text.as_bytes(), end) {
            parts.push(&text[at..end]);
            end = at;
        }
        parts.push(&text[..end]);
        assert!(parts.iter().rev().flat_map(|part| pattern.pieces(part)).eq(pieces), "{pattern:?}");
    }
});
