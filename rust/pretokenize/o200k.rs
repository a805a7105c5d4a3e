//! The pattern of GPT-4o as a scanner.

pub(super) fn piece_end(text: &str, start: usize) -> usize {
    super::gpt2::piece_end(text, start)
}
