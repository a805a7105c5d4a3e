//! Records -> documents in blocks: what is left out, which split a document goes to, and where a long one may be cut.

use super::records::Records;
use super::{Block, LONG_DOCUMENT_BYTES, Outlet, Part, Position, STRETCH_BYTES, Side, part_length, side_of};
use crate::added::AddedFinder;
use crate::clean::GutenbergBody;
use crate::error::Result;
use crate::pretokenize::Pattern;
use crate::screen::Verdicts;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How documents are cut.
#[derive(Clone)]
pub struct Cutting {
    /// How text is split into pieces, which no cut may change.
    pub pattern: Pattern,
    /// Never cuts what this finds.
    pub whole: Arc<AddedFinder>,
    /// Share of the documents to hold out, by a hash of their beginning.
    pub val_fraction: Option<f64>,
    /// Bytes of a block, about.
    pub block_bytes: usize,
    /// The first part of a long document holds at least its first 256 KiB, by which it is judged.
    pub whole_heads: bool,
    /// Whether the licence of Project Gutenberg around a book is left out.
    pub gutenberg: bool,
}

impl Cutting {
    /// Documents that are not held out, in blocks of so many bytes.
    #[must_use]
    pub fn new(pattern: Pattern, block_bytes: usize) -> Self {
        Cutting { pattern, whole: Arc::default(), val_fraction: None, block_bytes, whole_heads: false, gutenberg: false }
    }
}

/// What of the documents is handed on.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// All before it has been handed on in an earlier run.
    pub from: Position,
    /// Those that begin between these places, all inputs laid end to end; `None` takes all.
    pub range: Option<Range<u64>>,
    /// Those that were judged and removed.
    pub verdicts: Option<Arc<Verdicts>>,
}

/// The documents of one input after the other, cut into the parts of blocks.
pub struct Cutter<'a> {
    cutting: &'a Cutting,
    selection: &'a Selection,
    outlet: &'a mut dyn Outlet,
    /// Bytes read since the last block.
    consumed: Arc<AtomicU64>,
    block: Block,
    /// Up to where documents have been handed on.
    at: Position,
    /// Place of the input, all inputs laid end to end, and whether its documents lie at places of their own in it.
    base: (u64, bool),
    /// What is known of the open document and not yet handed on.
    held: Vec<u8>,
    /// Bytes held from which on it is worth looking for a place to cut.
    due: usize,
    body: Option<GutenbergBody>,
    open: Open,
}

/// The open document.
#[derive(Clone, Copy, Default)]
struct Open {
    start: u64,
    fate: Fate,
    /// Bytes of it so far, and those of them that are no licence.
    bytes: u64,
    kept: u64,
    /// Bytes of it that are handed on.
    done: u64,
    /// Its split, once it is known to be long.
    side: Option<Side>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    HandOn,
    /// It was handed on by an earlier run, or is left to another.
    PassOver,
    /// It was judged and removed.
    Remove,
}

impl<'a> Cutter<'a> {
    /// A cutter that hands blocks to `outlet`; whoever reads adds the bytes read to `consumed`.
    pub fn new(cutting: &'a Cutting, selection: &'a Selection, outlet: &'a mut dyn Outlet, consumed: Arc<AtomicU64>) -> Self {
        let (block, at, open) = (Block::default(), Position::default(), Open::default());
        let (base, held, due, body) = ((0, false), Vec::new(), 0, None);
        Cutter { cutting, selection, outlet, consumed, block, at, base, held, due, body, open }
    }

    /// The records to come are those of this input, which begins at `base` where all lie end to end; `has_places` says that
    /// they lie at places of their own in it. `ordinal` documents came before, if those were passed over.
    pub fn start_file(&mut self, file: u64, (base, has_places): (u64, bool), ordinal: Option<u64>) {
        self.at = Position { file, document: 0, offset: 0, ordinal: ordinal.unwrap_or(self.at.ordinal) };
        self.base = (base, has_places);
    }

    /// Documents of the input so far, those counted that are left out.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.at.document
    }

    /// Hands on the last block.
    ///
    /// # Errors
    ///
    /// The caller has given up.
    pub fn finish(mut self, n_files: u64) -> Result<()> {
        self.start_file(n_files, (0, false), None);
        self.exchange()
    }

    fn exchange(&mut self) -> Result<()> {
        self.block.consumed = self.consumed.swap(0, Ordering::Relaxed);
        self.block.end = self.at;
        self.block = self.outlet.exchange(std::mem::take(&mut self.block))?;
        self.block.clear();
        Ok(())
    }

    fn push(&mut self, text: &[u8], side: Side, end: Option<u64>) -> Result<()> {
        let (Open { start, done: offset, .. }, at) = (self.open, self.at);
        let (starts, ends, stop) = (offset == 0, end.is_some(), end.unwrap_or(0));
        self.block.push(text, Part { end: 0, side, starts, ends, file: at.file, ordinal: at.ordinal, offset, start, stop });
        self.open.done += text.len() as u64;
        self.at.offset = self.open.done;
        if ends {
            self.next_document();
        }
        if self.block.text.len() >= self.cutting.block_bytes { self.exchange() } else { Ok(()) }
    }

    fn next_document(&mut self) {
        self.at.document += 1;
        self.at.ordinal += 1;
        self.at.offset = 0;
    }

    fn fate(&self, start: u64) -> Fate {
        let Selection { from, range, verdicts } = self.selection;
        let place = self.base.0 + if self.base.1 { start } else { 0 };
        if (self.at.file, self.at.document) < (from.file, from.document) || range.as_ref().is_some_and(|range| !range.contains(&place)) {
            Fate::PassOver
        } else if verdicts.as_ref().is_some_and(|verdicts| verdicts.is_removed(self.at.ordinal)) {
            Fate::Remove
        } else {
            Fate::HandOn
        }
    }

    /// Hands on what can be of a document that is known to be long, and all of it where `end` says that it is whole.
    fn hand_on(&mut self, side: Side, end: Option<u64>) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        let from = &self.selection.from;
        let was_begun = (self.at.file, self.at.document) == (from.file, from.document);
        // What an earlier run handed on ended where it may be cut.
        let before = if was_begun { from.offset.saturating_sub(self.open.done) } else { 0 };
        let mut at = usize::try_from(before).map_or(held.len(), |before| before.min(held.len()));
        self.open.done += at as u64;
        while at < held.len() {
            let rest = &held[at..];
            let room = self.cutting.block_bytes.saturating_sub(self.block.text.len()).max(1);
            let want = if self.cutting.whole_heads && self.open.done == 0 { room.max(LONG_DOCUMENT_BYTES) } else { room };
            if end.is_none() && rest.len() < want {
                break;
            }
            let Some(length) = part_length(rest, want, end.is_some(), &self.cutting.pattern, &self.cutting.whole) else { break };
            self.push(&rest[..length], side, end.filter(|_| length == rest.len()))?;
            at += length;
        }
        self.due = if at == 0 { (2 * held.len()).min(STRETCH_BYTES) } else { self.least_due() };
        self.held = held;
        self.held.drain(..at);
        Ok(())
    }

    fn least_due(&self) -> usize {
        self.cutting.block_bytes.max(LONG_DOCUMENT_BYTES + 1)
    }

    // A result, for it stands where others have one.
    #[allow(clippy::unnecessary_wraps)]
    fn hold(&mut self, text: &[u8]) -> Result<()> {
        self.open.kept += text.len() as u64;
        if self.open.fate == Fate::HandOn {
            self.held.extend_from_slice(text);
        }
        Ok(())
    }

    /// The split of the open document, if it is known to be long.
    fn long_side(&mut self) -> Option<Side> {
        if self.open.side.is_none() && self.held.len() > LONG_DOCUMENT_BYTES {
            self.open.side = Some(side_of(&self.held, self.cutting.val_fraction));
        }
        self.open.side
    }
}

impl Records for Cutter<'_> {
    fn begin(&mut self, offset: u64) -> Result<()> {
        self.open = Open { start: offset, fate: self.fate(offset), ..Open::default() };
        self.body = (self.cutting.gutenberg && self.open.fate != Fate::PassOver).then(GutenbergBody::default);
        self.held.clear();
        self.due = self.least_due();
        Ok(())
    }

    fn text(&mut self, bytes: &[u8]) -> Result<()> {
        if self.open.fate == Fate::PassOver {
            return Ok(());
        }
        self.open.bytes += bytes.len() as u64;
        match self.body.take() {
            Some(mut body) => {
                body.push(bytes, &mut |kept| self.hold(kept))?;
                self.body = Some(body);
            }
            None => self.hold(bytes)?,
        }
        let side = self.long_side();
        side.filter(|_| self.held.len() >= self.due).map_or(Ok(()), |side| self.hand_on(side, None))
    }

    fn end(&mut self, offset: u64) -> Result<()> {
        if let Some(mut body) = self.body.take() {
            body.finish(&mut |kept| self.hold(kept))?;
        }
        if self.open.bytes > self.open.kept {
            self.block.left_out_of(self.at.file).stripped_bytes += self.open.bytes - self.open.kept;
        }
        if self.open.fate == Fate::Remove {
            self.block.left_out_of(self.at.file).removed.add(self.open.kept);
        }
        if self.open.fate != Fate::HandOn || self.open.kept == 0 {
            self.next_document();
            return Ok(());
        }
        if let Some(side) = self.long_side() {
            return self.hand_on(side, Some(offset));
        }
        let held = std::mem::take(&mut self.held);
        let pushed = self.push(&held, side_of(&held, self.cutting.val_fraction), Some(offset));
        self.held = held;
        pushed
    }

    fn refuse(&mut self, offset: u64, end: u64) -> Result<()> {
        if self.fate(offset) != Fate::PassOver {
            self.block.left_out_of(self.at.file).refused.add(end - offset);
        }
        self.next_document();
        Ok(())
    }

    fn whole(&mut self, text: &[u8], offset: u64, end: u64) -> Result<()> {
        self.begin(offset)?;
        if self.open.fate == Fate::HandOn && self.body.is_none() && !text.is_empty() && text.len() <= LONG_DOCUMENT_BYTES {
            // Without a copy between.
            (self.open.bytes, self.open.kept) = (text.len() as u64, text.len() as u64);
            return self.push(text, side_of(text, self.cutting.val_fraction), Some(end));
        }
        self.text(text)?;
        self.end(end)
    }
}
