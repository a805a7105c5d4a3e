//! The pattern of GPT-4 and its kin as a scanner, `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
//! ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`.
//!
//! tiktoken from version 0.8 on ends it by `\s++$|\s*[\r\n]|\s+(?!\S)|\s`; Qwen takes digits one by one.
//!
//! Source: tiktoken `tiktoken_ext/openai_public.py`, `cl100k_base`, of 0.7 and of 0.8; Qwen2 `tokenizer.json`.

use super::Class;
use super::alternatives::{Tail, contraction, letters_start, run_end, tail_end, window};

/// What the kin differ in.
#[derive(Clone, Copy)]
pub(super) struct Variant {
    pub digits: usize,
    pub trailing: bool,
}

/// Where the piece that starts at `start` ends; `start` is a character boundary before the end of `text`.
#[inline]
pub(super) fn piece_end(text: &str, start: usize, variant: Variant) -> usize {
    let window = window(text, start);
    if let Some(length) = contraction(&window.as_bytes()[start..]) {
        return start + length;
    }
    if let Some(letters) = letters_start(window, start) {
        let end = run_end(window, letters, |class| class.has(Class::LETTER));
        if end > letters {
            return end;
        }
    }
    tail_end(text, start, Tail { digits: variant.digits, after_punctuation: b"\r\n", trailing: variant.trailing })
}
