//! The pattern of GPT-4 and its kin as a scanner.

/// What the kin differ in.
#[derive(Clone, Copy)]
pub(super) struct Variant {
    pub digits: usize,
    pub trailing: bool,
}

pub(super) fn piece_end(text: &str, start: usize, variant: Variant) -> usize {
    let _ = variant;
    super::class_at(&super::CLASSES[..], text, start).1 + start
}
