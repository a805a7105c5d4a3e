//! Inputs -> documents, a block at a time, in order, in bounded memory whatever the size of a file or a record.
//!
//! A reader of each format pushes [`Records`]; the [`Cutter`] makes documents of them and puts them into blocks of some
//! hundred thousand bytes, of one or many documents. A long document is handed on in parts, cut where no piece and no
//! cleaning rule can tell the difference (see [`Pattern::last_cut`]). Where nothing in 4 MiB allows such a cut, pieces
//! are looked for one by one and the cut is made between two of them.

mod archives;
mod csv;
mod csvlayout;
mod cutter;
mod files;
mod formats;
mod inputs;
mod json;
mod jsonfield;
mod jsonl;
mod jsonscan;
mod jsonstring;
mod passage;
mod patterns;
mod plain;
mod reading;
mod records;
mod sample;
mod streams;
mod tar;
mod unpack;
mod warc;
mod window;
mod zip;

pub use cutter::{Cutter, Cutting, Selection};
pub use files::{Choice, InputFile, Listing, list_files};
pub use formats::Format;
pub use inputs::{Found, Inputs, OpenRows, Rows};
pub use passage::{Ends, Passage};
pub use reading::{Documents, Reading};
pub use records::{Malformed, Records};
pub use sample::{Sample, SampleSize};

use crate::added::{AddedFinder, Segment, divides_word};
use crate::error::Result;
use crate::pretokenize::{MAX_PIECE_BYTES, Pattern, ends_in_space};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// A document longer than this comes in parts, and is known by its beginning: its split, and what it is judged by.
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
    /// Whether the document starts with it.
    pub starts: bool,
    /// Whether the document ends with it.
    pub ends: bool,
    /// Number of its input in the list.
    pub file: u64,
    /// Number of the document over all inputs, those counted that were left out.
    pub ordinal: u64,
    /// Byte of the document's text at which it starts.
    pub offset: u64,
    /// First byte of the document's record in its input, unpacked.
    pub start: u64,
    /// The byte after that record, where the document ends with this part.
    pub stop: u64,
}

/// Up to where documents have been handed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Number of the input.
    pub file: u64,
    /// Number of the document in it.
    pub document: u64,
    /// Byte of the document's text.
    pub offset: u64,
    /// Number of the document over all inputs.
    pub ordinal: u64,
}

/// A number of records and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Records, or documents.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    /// One more, of so many bytes.
    pub fn add(&mut self, bytes: u64) {
        *self = self.plus(Amount { records: 1, bytes });
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Amount) -> Amount {
        Amount { records: self.records + other.records, bytes: self.bytes + other.bytes }
    }
}

/// What of an input was read and not handed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Number of the input.
    pub file: u64,
    /// Documents that were judged and removed.
    pub removed: Amount,
    /// Records that could not be used.
    pub refused: Amount,
    /// Bytes of documents that are licences.
    pub stripped_bytes: u64,
}

/// Some of a corpus.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Raw bytes, not yet known to be UTF-8.
    pub text: Vec<u8>,
    /// How they fall into documents.
    pub parts: Vec<Part>,
    /// Bytes read for this block, as they lie on the disk.
    pub consumed: u64,
    /// What was left out between the documents of the block or behind them, for each input of which some was.
    pub left_out: Vec<LeftOut>,
    /// Up to where documents have been handed on with this block.
    pub end: Position,
}

/// Where blocks go.
pub trait Outlet {
    /// Takes a block and gives an empty one.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Cancelled`] when nobody wants more.
    fn exchange(&mut self, full: Block) -> Result<Block>;
}

/// Documents in blocks, in order.
pub trait Source: Send {
    /// Hands on all blocks. `stop` asks it to give up, however far it has to look for the next document; so many `threads` may
    /// work beside the one that reads.
    ///
    /// # Errors
    ///
    /// An input cannot be read or is not what it should be.
    fn read(&mut self, outlet: &mut dyn Outlet, stop: &Arc<AtomicBool>, threads: usize) -> Result<()>;
}

impl Block {
    fn clear(&mut self) {
        let (mut text, mut parts) = (std::mem::take(&mut self.text), std::mem::take(&mut self.parts));
        text.clear();
        parts.clear();
        *self = Block { text, parts, ..Block::default() };
    }

    /// What was left out of an input; they come in order.
    fn left_out_of(&mut self, file: u64) -> &mut LeftOut {
        let at = match self.left_out.last() {
            Some(last) if last.file == file => self.left_out.len() - 1,
            _ => {
                self.left_out.push(LeftOut { file, ..LeftOut::default() });
                self.left_out.len() - 1
            }
        };
        &mut self.left_out[at]
    }

    fn push(&mut self, text: &[u8], part: Part) {
        self.text.extend_from_slice(text);
        self.parts.push(Part { end: self.text.len(), ..part });
    }
}

/// The split of a document, by what it begins with: a share of all possible contents is held out, whatever else is in the
/// corpus.
pub(crate) fn side_of(text: &[u8], val_fraction: Option<f64>) -> Side {
    let share = xxh3_64(&text[..text.len().min(LONG_DOCUMENT_BYTES)]) as f64 / 2f64.powi(64);
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
    first: u64,
    cutting: Cutting,
}

impl<'a> Texts<'a> {
    /// Documents out of `texts`, of which the first has the number `first`.
    #[must_use]
    pub fn new(texts: &'a [&'a str], first: u64, cutting: Cutting) -> Self {
        Texts { texts, first, cutting }
    }
}

impl Source for Texts<'_> {
    fn read(&mut self, outlet: &mut dyn Outlet, _: &Arc<AtomicBool>, _: usize) -> Result<()> {
        let (selection, consumed) = (Selection::default(), Arc::new(AtomicU64::new(0)));
        let mut cutter = Cutter::new(&self.cutting, &selection, outlet, consumed.clone());
        cutter.start_file(0, (0, true), Some(self.first));
        for (i, text) in (self.first..).zip(self.texts) {
            consumed.fetch_add(text.len() as u64, Ordering::Relaxed);
            cutter.whole(text.as_bytes(), i, i + 1)?;
        }
        cutter.finish(1)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Keeps every block.
    #[derive(Default)]
    struct Kept(Vec<Block>);

    impl Outlet for Kept {
        fn exchange(&mut self, full: Block) -> Result<Block> {
            self.0.push(full);
            Ok(Block::default())
        }
    }

    /// All blocks of a source.
    pub(crate) fn blocks(source: &mut impl Source) -> Vec<Block> {
        let mut kept = Kept::default();
        source.read(&mut kept, &Arc::default(), 1).unwrap();
        kept.0
    }

    /// Every document of a source with its split, joined from its parts.
    pub(crate) fn documents(mut source: impl Source) -> Vec<(Side, String)> {
        let (mut all, mut open) = (Vec::new(), Vec::new());
        for block in blocks(&mut source) {
            let mut from = 0;
            for part in &block.parts {
                assert_eq!((part.starts, part.offset), (open.is_empty(), open.len() as u64));
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

    fn parts(text: &str, pattern: &Pattern, block_bytes: usize) -> Vec<String> {
        let whole = blocks(&mut Texts::new(&[text], 0, Cutting::new(pattern.clone(), block_bytes)));
        let cut = |block: Block| {
            let starts = [0].into_iter().chain(block.parts.iter().map(|part| part.end)).collect::<Vec<_>>();
            starts.windows(2).map(|ends| String::from_utf8(block.text[ends[0]..ends[1]].to_vec()).unwrap()).collect::<Vec<_>>()
        };
        whole.into_iter().flat_map(cut).collect()
    }

    fn split(texts: &[&str], val_fraction: f64, block_bytes: usize) -> Vec<(Side, String)> {
        documents(Texts::new(texts, 0, Cutting { val_fraction: Some(val_fraction), ..Cutting::new(Pattern::Gpt2, block_bytes) }))
    }

    #[test]
    fn documents_go_whole_to_the_side_that_their_beginning_says() {
        let texts: Vec<String> = (0..2000).map(|i| format!("document {i}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let all = split(&texts, 0.1, 100);
        let held_out = all.iter().filter(|(side, _)| *side == Side::Val).count();
        assert!((150..250).contains(&held_out), "{held_out}");
        assert_eq!(all[1000..], split(&texts[1000..], 0.1, 100));
        for i in 0..8 {
            let [short, long] = [300_000, 400_000].map(|n| format!("{i} {}", "one line of text\n".repeat(n / 17)));
            let found = split(&[&short, &long], 0.5, 1 << 20);
            assert!(found[0].0 == found[1].0 && found[0].1 == short && found[1].1 == long);
        }
    }

    #[test]
    fn a_run_goes_on_at_every_block() {
        let texts = ["a b c d ".repeat(50_000), String::new(), "short".into(), "e f\n".repeat(70_000)];
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let cutting = Cutting { val_fraction: Some(0.5), ..Cutting::new(Pattern::Gpt2, 50_000) };
        let text_of = |blocks: &[Block]| blocks.iter().flat_map(|block| block.text.clone()).collect::<Vec<u8>>();
        let ends_of = |blocks: &[Block]| {
            let parts = blocks.iter().flat_map(|block| block.parts.iter().filter(|part| part.ends));
            parts.map(|part| (part.ordinal, part.side, part.start, part.stop)).collect::<Vec<_>>()
        };
        let all = blocks(&mut Texts::new(&texts, 0, cutting.clone()));
        assert!(all.len() > 10);
        for (i, block) in all.iter().enumerate() {
            let selection = Selection { from: block.end, ..Selection::default() };
            let mut kept = Kept::default();
            let mut cutter = Cutter::new(&cutting, &selection, &mut kept, Arc::default());
            for (i, text) in (0..).zip(&texts) {
                cutter.whole(text.as_bytes(), i, i + 1).unwrap();
            }
            cutter.finish(1).unwrap();
            assert!(text_of(&kept.0) == text_of(&all[i + 1..]), "{i}");
            assert_eq!(ends_of(&kept.0), ends_of(&all[i + 1..]), "{i}");
        }
    }

    #[test]
    fn parts_do_not_change_the_pieces() {
        let unit = "a\u{a0}b, it's  \n\n 字";
        for text in [unit.repeat(20_000), "x".repeat(9 << 20), "y z".repeat(3) + &"!?'ll".repeat(2 << 20), " ".repeat(5 << 20) + "a"] {
            let whole: Vec<&[u8]> = Pattern::Gpt2.pieces(&text).collect();
            for block_bytes in [1, 7, 4096, 1 << 20] {
                let block_bytes = if text.len() > 1 << 20 { block_bytes.max(4096) } else { block_bytes };
                let parts = parts(&text, &Pattern::Gpt2, block_bytes);
                assert_eq!(parts.iter().flat_map(|part| Pattern::Gpt2.pieces(part)).collect::<Vec<_>>(), whole, "{block_bytes}");
            }
        }
    }

    #[test]
    fn a_forced_cut_tears_no_character_and_no_white_space() {
        for (start, unit) in [("x", "ab\r\n"), ("", "a\t"), ("", "字"), ("", "字字\u{3000}")] {
            let text = start.to_string() + &unit.repeat((5 << 20) / unit.len());
            for pattern in [Pattern::Gpt2, Pattern::Byte] {
                let parts = parts(&text, &pattern, 4096);
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
                let parts = parts(text, pattern, 4096);
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
