//! Files and texts -> documents, a block at a time, in order, in bounded memory whatever the size of a file or a line.
//!
//! A block holds some millions of bytes of one or many documents. A long document is handed on in parts, cut where no
//! piece and no cleaning rule can tell the difference (see [`Pattern::last_cut`]). Where nothing in 4 MiB
//! allows such a cut, pieces are looked for one by one and the cut is made between two of them.

mod files;
mod sample;
mod text;

pub use files::{TextFile, list_files};
pub use sample::{Sample, SampleSize};
pub use text::{Documents, TextFiles};

use crate::added::{AddedFinder, Segment, divides_word};
use crate::error::Result;
use crate::pretokenize::{MAX_PIECE_BYTES, Pattern, ends_in_space};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use xxhash_rust::xxh3::xxh3_64;

/// Documents longer than this give their end to the validation split; shorter ones go to one side whole.
pub const LONG_DOCUMENT_BYTES: usize = 256 << 10;
/// Bytes without a place to cut after which pieces are looked for.
const STRETCH_BYTES: usize = 4 * MAX_PIECE_BYTES;

/// Which split a part belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// For training.
    Train,
    /// Held out.
    Val,
}

/// A stretch of one document in a block.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Where it ends in the block's text; it starts where the part before it ends.
    pub end: usize,
    /// Its split.
    pub side: Side,
    /// Whether a document, or its share of one side, starts with it.
    pub starts: bool,
    /// Whether a document, or its share of one side, ends with it.
    pub ends: bool,
    /// Whether a document ends with it, both sides taken together.
    pub last: bool,
    /// Number of its file in the list, or of its text.
    pub file: usize,
    /// Byte at which it starts in its file or text.
    pub offset: u64,
}

/// Some of a corpus.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Raw bytes, not yet known to be UTF-8.
    pub text: Vec<u8>,
    /// How they fall into documents.
    pub parts: Vec<Part>,
    /// Bytes read for this block, separators counted.
    pub consumed: u64,
}

/// Documents in blocks, in order.
pub trait Source: Send {
    /// Fills an empty block; false when there is no more. `stop` asks it to give up, however far it has to look ahead.
    ///
    /// # Errors
    ///
    /// A file cannot be read or is not text.
    fn fill(&mut self, block: &mut Block, stop: &AtomicBool) -> Result<bool>;
}

impl Block {
    fn clear(&mut self) {
        self.text.clear();
        self.parts.clear();
        self.consumed = 0;
    }

    fn push(&mut self, text: &[u8], part: Part) {
        self.text.extend_from_slice(text);
        self.parts.push(Part { end: self.text.len(), ..part });
    }
}

/// Where a long document's validation part would start, before it is moved to a line end.
fn val_start(length: u64, val_fraction: f64) -> u64 {
    // Exact below 2^53 bytes.
    length - ((length as f64 * val_fraction).ceil() as u64).min(length)
}

/// The split of a short document: a share of all possible contents is held out, whatever else is in the corpus.
pub(crate) fn side_of(text: &[u8], val_fraction: Option<f64>) -> Side {
    let share = xxh3_64(text) as f64 / 2f64.powi(64);
    if val_fraction.is_some_and(|fraction| share < fraction) { Side::Val } else { Side::Train }
}

/// How much of `available` to hand on, about `want` bytes; `None` when more must be read first. `complete` says that the
/// document ends with `available`.
fn part_length(available: &[u8], want: usize, complete: bool, pattern: &Pattern, whole: &AddedFinder) -> Option<usize> {
    if complete && available.len() <= want {
        return Some(available.len());
    }
    if let Some(at) = pattern.last_cut(available, want) {
        return Some(at);
    }
    let stretch = &available[..available.len().min(STRETCH_BYTES)];
    if let Some(at) = (want < stretch.len()).then(|| pattern.first_cut(stretch, want)).flatten() {
        return Some(at);
    }
    if stretch.len() < STRETCH_BYTES {
        return complete.then_some(available.len());
    }
    Some(last_piece_end(stretch, pattern, whole))
}

/// The end of the last piece whose end cannot depend on what comes after `stretch`; if any stand before white space, of
/// those, for the rules of [`crate::clean`] must see white space in one run; else, if any, of those after other characters.
/// What `whole` finds is no text, and no place within it or beside a word that it might be part of will do.
pub(crate) fn last_piece_end(stretch: &[u8], pattern: &Pattern, whole: &AddedFinder) -> usize {
    let text = &*String::from_utf8_lossy(stretch);
    let (mut anywhere, mut between, mut after_text, mut before_space) = (0, 0, None, None);
    whole.split(text, |segment| {
        let Segment::Text(segment) = segment else { return };
        let start = segment.as_ptr() as usize - text.as_ptr() as usize;
        let (mut at, mut length_before) = (start, 0);
        for piece in pattern.pieces(segment) {
            let before = at - length_before;
            at += piece.len();
            if at + MAX_PIECE_BYTES + 8 > text.len() {
                return;
            }
            // A piece of the byte pattern may end within a character.
            if !text.is_char_boundary(at) {
                continue;
            }
            if whole.minds_words() && divides_word(text, at) {
                anywhere = at;
                continue;
            }
            if !ends_in_space(&text.as_bytes()[..at]) {
                after_text = Some(at);
                before_space = if text[at..].starts_with(char::is_whitespace) { after_text } else { before_space };
            } else if after_text.is_none() {
                // White space may be split otherwise where it ends the text.
                let lengths = [length_before, piece.len()].into_iter().filter(|length| *length > 0);
                let stays = text.get(before..at).is_none_or(|alone| pattern.pieces(alone).map(<[u8]>::len).eq(lengths));
                between = if between == 0 || stays { at } else { between };
            }
            length_before = piece.len();
        }
    });
    let between = if between == 0 { anywhere } else { between };
    let end = before_space.or(after_text).unwrap_or(between);
    // Back from the repaired text to the raw bytes.
    let (mut repaired, mut raw) = (0, 0);
    for chunk in stretch.utf8_chunks() {
        if repaired + chunk.valid().len() >= end {
            return raw + (end - repaired);
        }
        let replacement = if chunk.invalid().is_empty() { 0 } else { '\u{fffd}'.len_utf8() };
        repaired += chunk.valid().len() + replacement;
        raw += chunk.valid().len() + chunk.invalid().len();
    }
    raw
}

/// The last place where `text`, of which more may follow, can be cut without changing an id; 0 if there is none. What
/// `whole` finds, of `longest` bytes at most, may take white space beside it, and is kept whole.
#[must_use]
pub fn last_cut(text: &str, pattern: &Pattern, whole: &AddedFinder, longest: usize) -> usize {
    let bytes = text.as_bytes();
    let mut end = bytes.len().saturating_sub(longest);
    while let Some(at) = pattern.last_cut(bytes, end) {
        let around = text.floor_char_boundary(at.saturating_sub(longest))..text.ceil_char_boundary(at + longest);
        if whole.is_empty() || !whole.finds_any(&text[around]) {
            return at;
        }
        end = at;
    }
    let end = last_piece_end(bytes, pattern, whole);
    if end > 0 && !whole.is_empty() && ends_in_space(&bytes[..end]) { 0 } else { end }
}

/// Texts in memory, one document each.
pub struct Texts<'a> {
    texts: &'a [&'a str],
    pattern: Pattern,
    val_fraction: Option<f64>,
    block_bytes: usize,
    next: usize,
    /// Where the open text has got to, and where its validation part starts.
    open: Option<(usize, usize)>,
    whole: Arc<AddedFinder>,
}

impl<'a> Texts<'a> {
    /// Documents out of `texts`; with a `val_fraction` they are split.
    #[must_use]
    pub fn new(texts: &'a [&'a str], pattern: Pattern, val_fraction: Option<f64>, block_bytes: usize) -> Self {
        Texts { texts, pattern, val_fraction, block_bytes, next: 0, open: None, whole: Arc::default() }
    }

    /// Never cuts what this finds.
    #[must_use]
    pub fn keeping(self, whole: Arc<AddedFinder>) -> Self {
        Texts { whole, ..self }
    }

    fn step(&mut self, block: &mut Block) {
        let text = self.texts[self.next].as_bytes();
        let file = self.next;
        let Some((at, cut)) = self.open else {
            if text.len() > LONG_DOCUMENT_BYTES {
                let cut = self.val_fraction.map_or(text.len(), |fraction| long_cut(self.texts[self.next], fraction));
                self.open = Some((0, cut));
            } else {
                let side = side_of(text, self.val_fraction);
                block.push(text, Part { end: 0, side, starts: true, ends: true, last: true, file, offset: 0 });
                self.next += 1;
            }
            return;
        };
        let (start, end, side) = if at < cut { (0, cut, Side::Train) } else { (cut, text.len(), Side::Val) };
        let want = self.block_bytes.saturating_sub(block.text.len()).max(1);
        // All of the text is here, so some length is always found.
        let length = part_length(&text[at..end], want, true, &self.pattern, &self.whole).unwrap_or(end - at);
        let part =
            Part { end: 0, side, starts: at == start, ends: at + length == end, last: at + length == text.len(), file, offset: at as u64 };
        block.push(&text[at..at + length], part);
        self.open = Some((at + length, cut));
        if at + length == text.len() {
            self.open = None;
            self.next += 1;
        }
    }
}

/// The first line end from the wished place on that leaves something after it, or else the wished place.
fn long_cut(text: &str, val_fraction: f64) -> usize {
    let mut wished = val_start(text.len() as u64, val_fraction) as usize;
    let bytes = text.as_bytes();
    let line_end = memchr::memchr(b'\n', &bytes[wished.saturating_sub(1)..]).map(|i| wished.saturating_sub(1) + i + 1);
    if let Some(at) = line_end.filter(|at| *at < bytes.len()) {
        return at;
    }
    while !text.is_char_boundary(wished) {
        wished -= 1;
    }
    wished
}

impl Source for Texts<'_> {
    fn fill(&mut self, block: &mut Block, _: &AtomicBool) -> Result<bool> {
        block.clear();
        while self.next < self.texts.len() && block.text.len() < self.block_bytes {
            self.step(block);
        }
        block.consumed = block.text.len() as u64;
        Ok(!block.parts.is_empty())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every document of a source with its split, joined from its parts.
    pub(crate) fn documents(mut source: impl Source) -> Vec<(Side, String)> {
        let (mut block, mut all, mut open) = (Block::default(), Vec::new(), Vec::new());
        while source.fill(&mut block, &AtomicBool::new(false)).unwrap() {
            let mut from = 0;
            for part in &block.parts {
                assert_eq!(part.starts, open.is_empty());
                open.extend_from_slice(&block.text[from..part.end]);
                from = part.end;
                if part.ends {
                    all.push((part.side, String::from_utf8_lossy(&std::mem::take(&mut open)).into_owned()));
                }
            }
        }
        assert!(open.is_empty());
        all
    }

    fn split(text: &str, val_fraction: f64, block_bytes: usize) -> Vec<(Side, String)> {
        documents(Texts::new(&[text], Pattern::Gpt2, Some(val_fraction), block_bytes))
    }

    #[test]
    fn a_long_document_gives_its_end_to_val_at_a_line_end() {
        let text = "one line of text\n".repeat(20_000);
        let found = split(&text, 0.01, 1 << 20);
        let sides: Vec<Side> = found.iter().map(|(side, _)| *side).collect();
        assert_eq!(sides, [Side::Train, Side::Val]);
        assert!(found[0].1.ends_with('\n') && found[1].1.len().abs_diff(text.len() / 100) < 20);
    }

    #[test]
    fn a_long_line_is_split_at_a_character() {
        let text = "字".repeat(100_000);
        let found = split(&text, 0.1, 1 << 20);
        assert_eq!(found[0].1.clone() + &found[1].1, text);
        assert!(found[1].1.len().abs_diff(30_000) < 4);
    }

    #[test]
    fn short_documents_go_to_the_side_that_their_content_says() {
        let texts: Vec<String> = (0..2000).map(|i| format!("document {i}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let all = documents(Texts::new(&texts, Pattern::Gpt2, Some(0.1), 100));
        let held_out = all.iter().filter(|(side, _)| *side == Side::Val).count();
        assert!((150..250).contains(&held_out), "{held_out}");
        let half = documents(Texts::new(&texts[1000..], Pattern::Gpt2, Some(0.1), 100));
        assert_eq!(all[1000..], half);
    }

    #[test]
    fn parts_do_not_change_the_pieces() {
        let unit = "a\u{a0}b, it's  \n\n 字";
        for text in [unit.repeat(20_000), "x".repeat(9 << 20), "y z".repeat(3) + &"!?'ll".repeat(2 << 20), " ".repeat(5 << 20) + "a"] {
            let whole: Vec<&[u8]> = Pattern::Gpt2.pieces(&text).collect();
            for block_bytes in [1, 7, 4096, 1 << 20] {
                let block_bytes = if text.len() > 1 << 20 { block_bytes.max(4096) } else { block_bytes };
                let mut source = Texts::new(std::slice::from_ref(&text.as_str()), Pattern::Gpt2, None, block_bytes).fill_all();
                assert_eq!(source.iter().flat_map(|part| Pattern::Gpt2.pieces(part)).collect::<Vec<_>>(), whole, "{block_bytes}");
                source.clear();
            }
        }
    }

    impl Texts<'_> {
        fn fill_all(mut self) -> Vec<String> {
            let (mut block, mut parts) = (Block::default(), Vec::new());
            while self.fill(&mut block, &AtomicBool::new(false)).unwrap() {
                let mut from = 0;
                for part in &block.parts {
                    parts.push(String::from_utf8(block.text[from..part.end].to_vec()).unwrap());
                    from = part.end;
                }
            }
            parts
        }
    }

    #[test]
    fn a_forced_cut_tears_no_character_and_no_white_space() {
        for (start, unit) in [("x", "ab\r\n"), ("", "a\t"), ("", "字"), ("", "字字\u{3000}")] {
            let text = start.to_string() + &unit.repeat((5 << 20) / unit.len());
            for pattern in [Pattern::Gpt2, Pattern::Byte] {
                let parts = Texts::new(&[&text], pattern.clone(), None, 4096).fill_all();
                assert!(parts.len() > 1 && parts.concat() == text);
                for (name, rule) in crate::clean::RULES {
                    let cleaned: String = parts.iter().enumerate().map(|(i, part)| rule(part, i == 0).into_owned()).collect();
                    assert!(cleaned == rule(&text, true), "{name} of {unit:?}, {pattern:?}");
                }
            }
        }
    }

    #[test]
    fn a_forced_cut_changes_no_piece() {
        let [lines, ragged] = ["!\n\t\t".repeat(5 << 18), "\t".repeat((3 << 20) - 2) + &"1".repeat(2 << 20)];
        let run = Pattern::from_name(r"regex:\s+(?!\S)|\s|\w+").unwrap();
        for text in [&lines, &ragged] {
            for pattern in [&Pattern::Gpt2, &Pattern::Cl100kTrailing, &Pattern::O200k, &Pattern::Char, &run] {
                let parts = Texts::new(&[text], pattern.clone(), None, 4096).fill_all();
                let of_parts: Vec<&[u8]> = parts.iter().flat_map(|part| pattern.pieces(part)).collect();
                assert!(of_parts == pattern.pieces(text).collect::<Vec<_>>(), "{pattern:?} {:?}", &text[..4]);
            }
        }
    }

    #[test]
    fn damaged_bytes_do_not_move_a_forced_cut_off_a_piece() {
        let stretch: Vec<u8> = b"ab\xff".iter().copied().cycle().take(STRETCH_BYTES).collect();
        let end = last_piece_end(&stretch, &Pattern::Gpt2, &AddedFinder::default());
        let (head, tail) = (String::from_utf8_lossy(&stretch[..end]), String::from_utf8_lossy(&stretch[end..]));
        let whole = String::from_utf8_lossy(&stretch);
        let parts: Vec<&[u8]> = Pattern::Gpt2.pieces(&head).chain(Pattern::Gpt2.pieces(&tail)).collect();
        assert_eq!(parts, Pattern::Gpt2.pieces(&whole).collect::<Vec<_>>());
    }
}
