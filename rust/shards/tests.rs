//! Laws of shards: however they are written, interrupted, joined or grown, the same documents give the same bytes.

use crate::error::{Error, Result};
use crate::job::Job;
use crate::shard::Origin;
use crate::shards::join::{OldFolder, Prepared, copy_of_file, join};
use crate::shards::read::{ShardDocuments, StoredSplit};
use crate::shards::set::{EncodedPart, Shards, Split};
use crate::shards::shuffle::{Shuffle, shuffle};
use crate::shards::tail::Finished;
use crate::sources::Side;
use proptest::prelude::*;
use std::path::Path;

const EOT: u32 = 299;

/// A document of one of the files 0, 1, 2 ..., its number its place in the file.
#[derive(Clone, Debug, PartialEq)]
struct Document {
    ids: Vec<u32>,
    side: Side,
    origin: Origin,
}

/// Documents of a few files in a row.
fn documents(most: usize) -> impl Strategy<Value = Vec<Document>> {
    let one = (prop::collection::vec(0u32..EOT, 0..12), prop::bool::weighted(0.3), 0u64..2);
    prop::collection::vec(one, 0..most).prop_map(|all| {
        let mut file = 0;
        let numbered = all.into_iter().zip(0u64..).map(|((ids, val, next), number)| {
            file += next;
            let origin = Origin { file, start: 10 * number, end: 10 * number + 9 };
            Document { ids, side: if val { Side::Val } else { Side::Train }, origin }
        });
        numbered.collect()
    })
}

fn open(folder: &Path, shard_tokens: u64, split: Split) -> Shards {
    std::fs::create_dir_all(folder).unwrap();
    let lengths = (0..=EOT).map(|id| if id == EOT { 0 } else { id % 7 }).collect();
    Shards::of_ids(folder, lengths, [7; 32], Some(EOT), shard_tokens, 0.2).unwrap().split_by(split)
}

/// The parts that documents are written in.
fn parts(documents: &[Document]) -> Vec<(Vec<u8>, EncodedPart)> {
    let mut parts = Vec::new();
    for document in documents {
        let chunks: Vec<&[u32]> = if document.ids.is_empty() { vec![&[]] } else { document.ids.chunks(5).collect() };
        for (i, ids) in chunks.iter().enumerate() {
            let tokens: Vec<u8> = ids.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect();
            let text_bytes = ids.iter().map(|id| u64::from(*id % 7)).sum();
            let ends = (i + 1 == chunks.len()).then_some(document.origin);
            parts.push((tokens.clone(), EncodedPart { end: tokens.len(), text_bytes, side: document.side, ends }));
        }
    }
    parts
}

fn put(shards: &mut Shards, documents: &[Document]) {
    for (tokens, part) in parts(documents) {
        shards.write(&tokens, &part).unwrap();
    }
}

fn write(folder: &Path, documents: &[Document], shard_tokens: u64, split: Split, fallback: bool) -> Finished {
    let mut shards = open(folder, shard_tokens, split);
    put(&mut shards, documents);
    shards.finish(fallback).unwrap()
}

fn prepared(folder: &Path, finished: &Finished) -> Prepared {
    let splits = [&finished.train, &finished.val].map(|shards| shards.iter().map(|facts| facts.file.clone()).collect());
    Prepared { folder: folder.to_path_buf(), splits, tail_of: finished.tail_of, first_file: 0 }
}

/// Every file's bytes by name, in order.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.filter(|path| path.is_file()).map(|path| (name(&path), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

/// Keeps documents, as ids and origins.
#[derive(Default)]
struct Kept {
    open: Vec<u32>,
    all: Vec<(Vec<u32>, Origin)>,
}

impl ShardDocuments for Kept {
    fn tokens(&mut self, tokens: &[u8]) -> Result<()> {
        self.open.extend(tokens.chunks(2).map(|id| u32::from(u16::from_le_bytes([id[0], id[1]]))));
        Ok(())
    }

    fn end(&mut self, origin: Origin) -> Result<()> {
        self.all.push((std::mem::take(&mut self.open), origin));
        Ok(())
    }
}

fn read(folder: &Prepared, side: Side) -> Vec<(Vec<u32>, Origin)> {
    let (stored, mut kept) = (folder.open(side).unwrap(), Kept::default());
    stored.each_document(0..stored.documents(), &mut kept).unwrap();
    kept.all
}

/// What should be read of a side.
fn expected(documents: &[Document], side: Side) -> Vec<(Vec<u32>, Origin)> {
    let mine = documents.iter().filter(|document| document.side == side && !document.ids.is_empty());
    mine.map(|document| ([&document.ids[..], &[EOT]].concat(), document.origin)).collect()
}

fn job<R>(work: impl FnOnce(&mut Job) -> R) -> R {
    work(&mut Job::new(Some(1), &mut |_| true).unwrap())
}

fn shard_tokens() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![1u64, 7, 20, 1000])
}

fn split() -> impl Strategy<Value = Split> {
    prop::sample::select(vec![Split::Hash, Split::Last])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]

    #[test]
    fn documents_are_read_back_with_their_origins(all in documents(30), shard_tokens in shard_tokens()) {
        let folder = tempfile::tempdir().unwrap();
        let folder = prepared(folder.path(), &write(folder.path(), &all, shard_tokens, Split::Hash, false));
        for side in [Side::Train, Side::Val] {
            prop_assert_eq!(read(&folder, side), expected(&all, side));
        }
    }

    #[test]
    fn resumed_shards_equal_undisturbed_ones(
        all in documents(30),
        shard_tokens in shard_tokens(),
        split in split(),
        at in any::<prop::sample::Index>(),
        lost in 0usize..40,
        finished in any::<bool>(),
    ) {
        let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let facts = write(whole.path(), &all, shard_tokens, split, true);
        let all = parts(&all);
        let at = if all.is_empty() { 0 } else { at.index(all.len() + 1) };
        let mut shards = open(killed.path(), shard_tokens, split);
        all[..at].iter().for_each(|(tokens, part)| shards.write(tokens, part).unwrap());
        let state = shards.checkpoint().unwrap();
        let state = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
        all[at..].iter().take(lost).for_each(|(tokens, part)| shards.write(tokens, part).unwrap());
        if finished && split == Split::Hash {
            shards.finish(false).unwrap();
        } else {
            drop(shards);
        }
        let mut shards = open(killed.path(), shard_tokens, split).resume(state).unwrap();
        all[at..].iter().for_each(|(tokens, part)| shards.write(tokens, part).unwrap());
        prop_assert_eq!(shards.finish(true).unwrap(), facts);
        prop_assert!(files(killed.path()) == files(whole.path()));
    }

    #[test]
    fn a_tail_is_the_end_of_all_tokens(all in documents(30), shard_tokens in shard_tokens()) {
        let (hash, last) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let all: Vec<Document> = all.into_iter().map(|document| Document { side: Side::Train, ..document }).collect();
        let finished = write(last.path(), &all, shard_tokens, Split::Last, true);
        // Where every document falls to train, the split by hash falls back on the same.
        prop_assert_eq!(&finished, &write(hash.path(), &all, shard_tokens, Split::Hash, true));
        prop_assert!(files(last.path()) == files(hash.path()));
        let folder = prepared(last.path(), &finished);
        let [train, val] = [Side::Train, Side::Val].map(|side| read(&folder, side));
        let tokens = |documents: &[(Vec<u32>, Origin)]| documents.iter().flat_map(|(ids, _)| ids.clone()).collect::<Vec<u32>>();
        let wanted = tokens(&expected(&all, Side::Train));
        prop_assert_eq!([tokens(&train), tokens(&val)].concat(), &wanted[..]);
        let wished = (wanted.len() as f64 * 0.2).ceil() as usize;
        if wanted.len() > 1 {
            let moved = tokens(&val).len();
            prop_assert!(wished.min(wanted.len() - 1) <= moved && moved <= 2 * wished && !train.is_empty());
        }
        let facts = [&finished.train, &finished.val].map(|shards| shards.iter().map(|facts| facts.bytes).sum::<u64>());
        let text_bytes = |ids: Vec<u32>| ids.iter().filter(|id| **id != EOT).map(|id| u64::from(id % 7)).sum::<u64>();
        let bytes = [train, val].map(|documents| text_bytes(tokens(&documents)));
        prop_assert_eq!(facts, bytes);
    }

    #[test]
    fn a_tail_that_was_interrupted_is_finished(all in documents(30), shard_tokens in shard_tokens(), val in any::<bool>(), step in 0usize..20) {
        let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let side = if val { Side::Val } else { Side::Train };
        let all: Vec<Document> = all.into_iter().map(|document| Document { side, ..document }).collect();
        let facts = write(whole.path(), &all, shard_tokens, Split::Hash, true);
        let mut shards = open(killed.path(), shard_tokens, Split::Hash);
        put(&mut shards, &all);
        let mut saved = None;
        let stopped = shards.finish_with(true, &mut |state| {
            saved = Some(state.clone());
            Err(Error::Cancelled)
        });
        if let Some(state) = saved {
            prop_assert!(matches!(stopped, Err(Error::Cancelled)));
            let before = files(killed.path());
            crate::shards::tail::STEPS.set(Some(step));
            let stopped = open(killed.path(), shard_tokens, Split::Hash).resume(state.clone()).unwrap().finish(true);
            crate::shards::tail::STEPS.set(None);
            prop_assert!(stopped.is_err() || stopped.unwrap() == facts);
            prop_assert!(step > 0 || files(killed.path()) == before);
            let again = open(killed.path(), shard_tokens, Split::Hash).resume(state).unwrap();
            prop_assert_eq!(again.finish(true).unwrap(), facts);
        }
        prop_assert!(files(killed.path()) == files(whole.path()));
    }

    #[test]
    fn joined_parts_equal_one_run(
        all in documents(40),
        part_tokens in shard_tokens(),
        shard_tokens in shard_tokens(),
        split in split(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(all.len() + 1)).chain([0, all.len()]).collect();
        cuts.sort_unstable();
        let parts: Vec<Prepared> = cuts
            .windows(2)
            .enumerate()
            .map(|(i, cut)| {
                let place = folder.path().join(i.to_string());
                prepared(&place, &write(&place, &all[cut[0]..cut[1]], part_tokens, split, false))
            })
            .collect();
        let [whole, joined] = ["whole", "joined"].map(|name| folder.path().join(name));
        let facts = write(&whole, &all, shard_tokens, split, true);
        let mut shards = open(&joined, shard_tokens, split);
        job(|job| join(&parts, &mut shards, job)).unwrap();
        prop_assert_eq!(shards.finish(true).unwrap(), facts);
        prop_assert!(files(&joined) == files(&whole));
    }

    #[test]
    fn a_grown_corpus_equals_one_from_nothing(
        old in documents(30),
        new in documents(10),
        shard_tokens in shard_tokens(),
        split in split(),
        changed in 0u64..6,
        one_side in prop::option::of(prop::sample::select(vec![Side::Train, Side::Val])),
    ) {
        let place = tempfile::tempdir().unwrap();
        let sided = |documents: Vec<Document>| -> Vec<Document> {
            documents.into_iter().map(|document| Document { side: one_side.unwrap_or(document.side), ..document }).collect()
        };
        let (old, new) = (sided(old), sided(new));
        let [before, copied, whole] = ["before", "copied", "whole"].map(|name| place.path().join(name));
        let finished = write(&before, &old, shard_tokens, split, true);
        // File `changed` holds other documents now, and a file came before all others.
        let renumbered = |file: u64, document: &Document| Document { origin: Origin { file, ..document.origin }, ..document.clone() };
        let file = |number: u64| old.iter().filter(|d| d.origin.file == number).map(|d| renumbered(number + 1, d)).collect::<Vec<_>>();
        let fresh = |number: u64| new.iter().map(|d| renumbered(number, d)).collect::<Vec<_>>();
        let n_files = old.last().map_or(0, |document| document.origin.file + 1);
        let mut all = fresh(0);
        let mut shards = open(&copied, shard_tokens, split);
        let folder = OldFolder::open(&prepared(&before, &finished), &shards).unwrap();
        put(&mut shards, &all);
        for number in 0..n_files {
            if number == changed {
                all.extend(fresh(number + 1));
                put(&mut shards, &fresh(number + 1));
            } else {
                all.extend(file(number));
                let n = job(|job| copy_of_file(&folder, number, number + 1, &mut shards, job)).unwrap();
                prop_assert_eq!(n, file(number).iter().filter(|document| !document.ids.is_empty()).count() as u64);
            }
        }
        prop_assert_eq!(shards.finish(true).unwrap(), write(&whole, &all, shard_tokens, split, true));
        prop_assert!(files(&copied) == files(&whole));
    }

    #[test]
    fn a_shuffle_is_a_permutation_that_depends_on_documents_and_seed(
        all in documents(60),
        shard_tokens in shard_tokens(),
        memory in prop::sample::select(vec![1usize, 1 << 26]),
        seed in any::<u64>(),
    ) {
        let place = tempfile::tempdir().unwrap();
        let shuffled = |name: &str, documents: &[Document], memory| {
            let [from, to] = ["from", "to"].map(|kind| place.path().join(format!("{kind}-{name}")));
            let from = prepared(&from, &write(&from, documents, shard_tokens, Split::Hash, false));
            let mut shards = open(&to, 7, Split::Hash);
            let how = Shuffle { seed, memory, temporary: place.path().join("temporary") };
            job(|job| shuffle(&from, &mut shards, &how, job)).unwrap();
            assert!(!how.temporary.exists());
            prepared(&to, &shards.finish(false).unwrap())
        };
        let reversed: Vec<Document> = all.iter().rev().cloned().collect();
        let (one, other) = (shuffled("one", &all, memory), shuffled("other", &reversed, 1 << 20));
        for side in [Side::Train, Side::Val] {
            let (mut found, mut wanted) = (read(&one, side), expected(&all, side));
            let ids = |documents: Vec<(Vec<u32>, Origin)>| documents.into_iter().map(|(ids, _)| ids).collect::<Vec<_>>();
            prop_assert_eq!(ids(found.clone()), ids(read(&other, side)));
            found.sort();
 wanted.sort();
            prop_assert_eq!(found, wanted);
        }
    }
}

fn numbered(n: u32) -> Vec<Document> {
    let document = |i: u32| Document { ids: vec![i % 256, i / 256], side: Side::Train, origin: Origin::of_number(u64::from(i)) };
    (0..n).map(document).collect()
}

#[test]
fn a_shuffle_is_even_and_another_seed_gives_another_order() {
    let place = tempfile::tempdir().unwrap();
    let from = place.path().join("from");
    let from = prepared(&from, &write(&from, &numbered(20_000), 1000, Split::Hash, false));
    let order = |seed: u64| {
        let to = place.path().join(seed.to_string());
        let mut shards = open(&to, 1 << 20, Split::Hash);
        let how = Shuffle { seed, memory: 1 << 16, temporary: place.path().join("temporary") };
        job(|job| shuffle(&from, &mut shards, &how, job)).unwrap();
        let all = read(&prepared(&to, &shards.finish(false).unwrap()), Side::Train);
        all.into_iter().map(|(_, origin)| origin.start as usize).collect::<Vec<usize>>()
    };
    let (one, other) = (order(1), order(2));
    assert_ne!(one, other);
    // Each tenth of the old order is spread evenly over the tenths of the new: 100 cells of 200 expected.
    let mut cells = [0u32; 100];
    one.iter().enumerate().for_each(|(new, old)| cells[new / 2000 * 10 + old / 2000] += 1);
    let chi_square: f64 = cells.iter().map(|n| (f64::from(*n) - 200.0).powi(2) / 200.0).sum();
    // 81 degrees of freedom: outside of these once in 10^5.
    assert!((35.0..150.0).contains(&chi_square), "{chi_square}");
}

#[test]
fn documents_too_long_to_hold_and_equal_ones_are_shuffled_too() {
    let place = tempfile::tempdir().unwrap();
    let long = |id: u32, n: usize| Document { ids: vec![id; n], side: Side::Train, origin: Origin::of_number(u64::from(id)) };
    let mut all: Vec<Document> = (0..8).map(|id| long(id, 300_000 + id as usize)).collect();
    all.extend((0..10_000).map(|i| Document { origin: Origin::of_number(100 + i), ..long(9, 3) }));
    let from = place.path().join("from");
    let from = prepared(&from, &write(&from, &all, 1_000_000, Split::Hash, false));
    let to = place.path().join("to");
    let mut shards = open(&to, 1 << 20, Split::Hash);
    let how = Shuffle { seed: 3, memory: 1, temporary: place.path().join("temporary") };
    job(|job| shuffle(&from, &mut shards, &how, job)).unwrap();
    let finished = shards.finish(false).unwrap();
    let mut found = read(&prepared(&to, &finished), Side::Train);
    let equal: Vec<u64> = found.iter().map(|(_, origin)| origin.start).filter(|start| *start >= 100).collect();
    assert!(equal.is_sorted() && equal.len() == 10_000);
    let mut wanted = expected(&all, Side::Train);
    found.sort();
    wanted.sort();
    assert!(found == wanted);
}

#[test]
fn shards_that_disagree_are_refused_by_file_and_both_numbers() {
    let place = tempfile::tempdir().unwrap();
    let finished = write(place.path(), &numbered(10), 9, Split::Hash, false);
    let paths: Vec<_> = finished.train.iter().map(|facts| place.path().join(&facts.file)).collect();
    let refused = |extension: &str, change: &dyn Fn(&mut Vec<u8>), wanted: &str| {
        let path = paths[1].with_extension(extension);
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        change(&mut damaged);
        std::fs::write(&path, damaged).unwrap();
        let stored = StoredSplit::open(&paths);
        let error = stored.and_then(|stored| stored.each_document(0..stored.documents(), &mut Kept::default())).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
        std::fs::write(&path, whole).unwrap();
    };
    refused("bin", &|bytes| bytes.push(0), "train_000001.bin: 1043 bytes, but its header promises 9 tokens (1042 bytes)");
    refused("bin", &|bytes| bytes.truncate(1000), "train_000001.bin: 1000 bytes, too short for the 1024 of a shard's header");
    refused("bin", &|bytes| bytes[0] = 1, "train_000001.bin: starts with 20240385, 1, no shard of ours");
    refused("bin", &|bytes| bytes[24] = 1, "train_000001.bin: vocab_size 257, but ");
    refused("idx", &|bytes| bytes.truncate(20), "train_000001.idx: 20 bytes, but the shard's header promises 3 documents (24 bytes)");
    refused("map", &|bytes| bytes.push(0), "train_000001.map: 73 bytes, but the shard's header promises 3 documents (72 bytes)");
    refused("idx", &|bytes| bytes[8] = 10, "train_000001.idx: document end 10 does not rise to at most 9 tokens");
    refused("idx", &|bytes| bytes[8] = 2, "train_000001.idx: document end 2 does not rise to at most 9 tokens");
}

#[test]
fn parts_of_another_tokenizer_or_with_an_end_set_apart_are_not_joined() {
    let place = tempfile::tempdir().unwrap();
    let part = place.path().join("part");
    let part = prepared(&part, &write(&part, &numbered(100), 50, Split::Hash, false));
    let whole = place.path().join("whole");
    let whole = prepared(&whole, &write(&whole, &numbered(100), 50, Split::Hash, true));
    let message = |part: &Prepared, shards: &mut Shards| job(|job| join(std::slice::from_ref(part), shards, job)).unwrap_err().to_string();
    let into = tempfile::tempdir().unwrap();
    let mut shards = open(into.path(), 50, Split::Hash);
    assert!(message(&whole, &mut shards).contains("its end was set apart for val, so it is no part of a whole"));
    let mut other = Shards::of_ids(into.path(), vec![1; 300], [8; 32], Some(EOT), 50, 0.2).unwrap();
    assert!(message(&part, &mut other).contains("train_000000.bin: tokenizer fingerprint 07070707.., but 08080808.. is wanted"));
}
