//! The pattern of GPT-4o as a scanner.

pub(super) fn piece_end(text: &str, start: usize) -> usize {
    super::class_at(&super::CLASSES[..], text, start).1 + start
}
