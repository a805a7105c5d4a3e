//! The passes over a corpus: judge its documents, count its pieces, encode it to shards.
//!
//! One thread reads blocks, a pool works on them, and the calling thread takes the results in the order of the text. The
//! blocks go round: a reader may only fill a block that has come back, so what is in flight is bounded whatever the
//! speeds of the three.

use crate::cache::Cache;
use crate::cleaning::{Cleaning, Reports};
use crate::count::{CommonCounts, Counts};
use crate::encode::Encoder;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::pretokenize::Pattern;
use crate::screen::{DocumentHash, Filters, Judge, Judgement, Screening, Verdicts};
use crate::shard::Origin;
use crate::shards::set::{EncodedPart, Shards};
use crate::sources::{Block, Outlet, Position, Source};
use crate::tally::Tally;
use crate::vocab::special_finder;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Blocks in flight for each thread: one being worked on, one waiting, and room for unequal speeds.
const BLOCKS_PER_THREAD: usize = 3;

/// Runs `work` over every block on the job's threads, each with a state of its own, and `consume` on this thread over
/// the results in order. Each thread ends with `finish`; what those return is returned. One thread is this thread.
fn run<S, T: Send, R: Send>(
    source: &mut dyn Source,
    job: &mut Job,
    new_state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &Block) -> Result<T> + Sync,
    finish: impl Fn(S) -> Result<R> + Sync,
    mut consume: impl FnMut(T) -> Result<()>,
) -> Result<Vec<R>> {
    let threads = job.threads();
    let stop = Arc::new(AtomicBool::new(false));
    if threads == 1 {
        let mut state = new_state();
        let mut alone = |block: &Block| {
            consume(work(&mut state, block)?)?;
            job.add_bytes(block.consumed);
            job.tick()
        };
        source.read(&mut Alone(&mut alone), &stop, 1)?;
        return Ok(vec![finish(state)?]);
    }
    let pool = job.pool()?;
    let finished = Mutex::new(Vec::new());
    let (free_in, free_out) = mpsc::channel::<Block>();
    let (todo_in, todo_out) = mpsc::channel::<Result<(u64, Block)>>();
    let todo_out = Mutex::new(todo_out);
    let (done_in, done_out) = mpsc::channel();
    for _ in 1..threads * BLOCKS_PER_THREAD {
        // The receiver is alive: it is moved to the reader below, which begins with a block of its own.
        let _ = free_in.send(Block::default());
    }
    let worker = |done: mpsc::Sender<_>| {
        let _guard = StopOnPanic(&stop);
        let mut state = new_state();
        loop {
            let next = todo_out.lock().map_err(drop).and_then(|todo| todo.recv().map_err(drop));
            let Ok(next) = next else { break };
            let result = next.and_then(|(number, block)| work(&mut state, &block).map(|result| (number, block, result)));
            if done.send(result).is_err() || stop.load(Ordering::Relaxed) {
                break;
            }
        }
        let result = finish(state);
        if let Ok(mut finished) = finished.lock() {
            finished.push(result);
        }
    };
    let result = std::thread::scope(|threads_of_call| {
        threads_of_call.spawn(|| {
            let _guard = StopOnPanic(&stop);
            let mut handing = Handing { number: 0, todo: todo_in, free: free_out };
            if let Err(error) = source.read(&mut handing, &stop, threads) {
                // Nobody is there to hear it where the caller has given up.
                let _ = handing.todo.send(Err(error));
            }
        });
        pool.in_place_scope(|scope| {
            for _ in 0..threads {
                let done = done_in.clone();
                scope.spawn(|_| worker(done));
            }
            drop(done_in);
            let result = take_in_order(&done_out, &free_in, job, &stop, &mut consume);
            // Whatever happened, nobody waits for this thread any longer.
            stop.store(true, Ordering::Relaxed);
            drop((done_out, free_in));
            result
        })
    });
    result?;
    finished.into_inner().unwrap_or_default().into_iter().collect()
}

/// Works on each block as it comes.
struct Alone<'a>(&'a mut dyn FnMut(&Block) -> Result<()>);

impl Outlet for Alone<'_> {
    fn exchange(&mut self, full: Block) -> Result<Block> {
        (self.0)(&full)?;
        Ok(full)
    }
}

/// The reader's side: numbers blocks, and waits for one to come back for each that it gives.
struct Handing {
    number: u64,
    todo: mpsc::Sender<Result<(u64, Block)>>,
    free: mpsc::Receiver<Block>,
}

impl Outlet for Handing {
    fn exchange(&mut self, full: Block) -> Result<Block> {
        let number = self.number;
        self.number += 1;
        self.todo.send(Ok((number, full))).map_err(|_| Error::Cancelled)?;
        self.free.recv().map_err(|_| Error::Cancelled)
    }
}

/// The writer: takes results in order, hands blocks back, keeps the caller informed.
fn take_in_order<T>(
    done: &mpsc::Receiver<Result<(u64, Block, T)>>,
    free: &mpsc::Sender<Block>,
    job: &mut Job,
    stop: &AtomicBool,
    consume: &mut impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    loop {
        match done.recv_timeout(Duration::from_millis(50)) {
            Ok(result) => {
                let (number, block, result) = result?;
                waiting.insert(number, (block, result));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return job.tick(),
            Err(mpsc::RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => return Ok(()),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        while let Some((block, result)) = waiting.remove(&next) {
            next += 1;
            job.add_bytes(block.consumed);
            consume(result)?;
            // A reader that has finished needs no blocks.
            let _ = free.send(block);
        }
        job.tick()?;
    }
}

/// Tells the other threads when one panics, so that none waits for it; the panic itself goes to the caller.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Judges every document by the filters. What does not fit into memory is kept in files in `folder`, which is there.
///
/// # Errors
///
/// A file cannot be read or is not text, `folder` cannot be written, or the job was cancelled.
pub fn judge_documents(source: &mut dyn Source, filters: &Filters, cleaning: &Cleaning, folder: &Path, job: &mut Job) -> Result<Verdicts> {
    let mut screening = Screening::new(filters, folder)?;
    let mut open: Option<Open> = None;
    let work = |judge: &mut Judge, block: &Block| {
        let (mut judged, mut from) = (Vec::with_capacity(block.parts.len()), 0);
        cleaning.for_each_part(block, |text, part| {
            let raw = &block.text[from..part.end];
            from = part.end;
            let (is_whole, is_invalid) = (part.starts && part.ends, filters.invalid && std::str::from_utf8(raw).is_err());
            let judgement = part.starts.then(|| judge.judge(text, is_whole, is_invalid));
            let text = if is_whole { String::new() } else { text.into() };
            judged.push(JudgedPart { ordinal: part.ordinal, ends: part.ends, bytes: raw.len() as u64, is_invalid, judgement, text });
            Ok(())
        })?;
        Ok(judged)
    };
    let consume = |judged: Vec<JudgedPart>| {
        judged.into_iter().try_for_each(|part| {
            let is_whole = part.ends && part.judgement.is_some();
            if let Some(judgement) = part.judgement {
                screening.pass_over(part.ordinal)?;
                open = Some(Open { judgement, hash: DocumentHash::default(), bytes: 0, is_invalid: false });
            }
            let Some(document) = &mut open else { return Ok(()) };
            document.bytes += part.bytes;
            if !is_whole {
                document.hash.update(&part.text);
                document.is_invalid |= part.is_invalid;
            }
            if let Some(mut document) = open.take_if(|_| part.ends) {
                if !is_whole {
                    document.judgement.complete(&document.hash, document.is_invalid);
                }
                screening.push(&document.judgement, document.bytes)?;
            }
            Ok(())
        })
    };
    run(source, job, || Judge::new(filters), work, |_| Ok(()), consume)?;
    screening.finish()
}

/// What was found in a part of a document.
struct JudgedPart {
    ordinal: u64,
    ends: bool,
    bytes: u64,
    is_invalid: bool,
    /// Of a document that starts with it.
    judgement: Option<Judgement>,
    /// Its text, if it is not all of a document.
    text: String,
}

/// A document whose parts are being judged.
struct Open {
    judgement: Judgement,
    hash: DocumentHash,
    bytes: u64,
    is_invalid: bool,
}

/// Counts the pieces of a corpus; what `specials` names is cut out of the text first. What was counted is added to `counts`,
/// which are lost where this fails.
///
/// # Errors
///
/// A file cannot be read or is not text, a special name holds white space, the disk refuses, or the job was cancelled.
pub fn count_pieces(
    source: &mut dyn Source,
    pattern: &Pattern,
    specials: &[String],
    cleaning: &Cleaning,
    counts: Counts,
    job: &mut Job,
) -> Result<(Counts, Reports)> {
    // Text is cut before white space, so a name that holds some could be cut in two.
    if let Some(name) = specials.iter().find(|name| name.contains(char::is_whitespace)) {
        return Err(Error::Invalid(format!("the special token {name:?} holds white space, which no special token may")));
    }
    let finder = special_finder(specials)?;
    let common = CommonCounts::new(counts);
    let work = |(tally, reports): &mut (Tally, Reports), block: &Block| {
        reports.add(&cleaning.for_each_part(block, |text, _| tally.add_text(text, pattern, finder.as_ref()))?);
        Ok(())
    };
    let finish = |(mut tally, reports): (Tally, Reports)| tally.flush().map(|()| reports);
    let seen = run(source, job, || (Tally::new(&common), Reports::default()), work, finish, Ok)?;
    let mut reports = Reports::default();
    for of_thread in seen {
        reports.add(&of_thread);
    }
    Ok((common.into_counts(), reports))
}

/// Encodes a corpus to shards, each document ended by the end-of-text id. `after` is called with what was seen so far and up
/// to where, whenever a block has been written.
///
/// # Errors
///
/// A file cannot be read or is not text, the disk refuses, or the job was cancelled; or what `after` returns.
pub fn encode_to_shards(
    source: &mut dyn Source,
    encoder: &Encoder,
    cleaning: &Cleaning,
    shards: &mut Shards,
    job: &mut Job,
    mut after: impl FnMut(&mut Shards, &Reports, Position) -> Result<()>,
) -> Result<Reports> {
    let token_type = shards.token_type();
    let work = |(cache, ids): &mut (Cache, Vec<u32>), block: &Block| {
        let (mut tokens, mut parts) = (Vec::new(), Vec::with_capacity(block.parts.len()));
        let seen = cleaning.for_each_part(block, |text, part| {
            ids.clear();
            encoder.encode(text, cache, ids);
            token_type.write(ids, &mut tokens);
            let ends = part.ends.then_some(Origin { file: part.file, start: part.start, end: part.stop });
            parts.push(EncodedPart { end: tokens.len(), text_bytes: text.len() as u64, side: part.side, ends });
            Ok(())
        })?;
        Ok((tokens, parts, seen, block.end))
    };
    let mut reports = Reports::default();
    run(
        source,
        job,
        Default::default,
        work,
        |_| Ok(()),
        |(tokens, parts, seen, end): (Vec<u8>, Vec<EncodedPart>, Reports, Position)| {
            reports.add(&seen);
            let mut from = 0;
            for part in parts {
                shards.write(&tokens[from..part.end], &part)?;
                from = part.end;
            }
            after(shards, &reports, end)
        },
    )?;
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cleaning::Cleaning;
    use crate::sources::{Cutting, Side, Texts, tests::documents};
    use crate::vocab::Vocab;
    use proptest::prelude::*;

    fn encoder() -> Encoder {
        Encoder::new(Vocab::trained(Pattern::Gpt2, &[(97, 98), (32, 97)], &["<|endoftext|>".into()]).unwrap())
    }

    /// Encodes texts and returns every file's bytes by name, in order.
    fn shards(texts: &[&str], threads: usize, block_bytes: usize, shard_tokens: u64, val_fraction: f64) -> Vec<(String, Vec<u8>)> {
        let folder = tempfile::tempdir().unwrap();
        let encoder = encoder();
        let mut shards = Shards::new(folder.path(), &encoder, Some(258), shard_tokens, val_fraction).unwrap();
        let mut source = Texts::new(texts, 0, Cutting { val_fraction: Some(val_fraction), ..Cutting::new(Pattern::Gpt2, block_bytes) });
        let mut proceed = |_| true;
        let mut job = Job::new(Some(threads), &mut proceed).unwrap();
        encode_to_shards(&mut source, &encoder, &Cleaning::none(), &mut shards, &mut job, |_, _, _| Ok(())).unwrap();
        shards.finish(true).unwrap();
        let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    const NAMES: [&str; 6] =
        ["train_000000.bin", "train_000000.idx", "train_000000.map", "val_000000.bin", "val_000000.idx", "val_000000.map"];

    /// All tokens of a split, joined over its shards.
    fn tokens(files: &[(String, Vec<u8>)], split: &str) -> Vec<u32> {
        let bins = files.iter().filter(|(name, _)| name.starts_with(split) && name.ends_with("bin"));
        bins.flat_map(|(_, bytes)| bytes[1024..].chunks(2).map(|t| u32::from(u16::from_le_bytes([t[0], t[1]])))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn shards_do_not_depend_on_threads_and_blocks(
            texts in prop::collection::vec("(ab| a|\n|é){0,60}", 0..12),
            threads in 1usize..4,
            block_bytes in prop::sample::select(vec![1usize, 7, 4096]),
            shard_tokens in prop::sample::select(vec![7u64, 50, 1000]),
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let one = shards(&texts, 1, 1 << 20, shard_tokens, 0.2);
            prop_assert!(one == shards(&texts, threads, block_bytes, shard_tokens, 0.2));
            let whole = shards(&texts, 1, 1 << 20, 1_000_000, 0.2);
            prop_assert_eq!(tokens(&one, "val").len() + tokens(&one, "train").len(), tokens(&whole, "val").len() + tokens(&whole, "train").len());
        }

        #[test]
        fn shards_hold_the_encoded_documents(texts in prop::collection::vec("(ab| a|\n|é){0,60}", 0..12)) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let encoder = encoder();
            let mut expected = Vec::new();
            for (side, text) in documents(Texts::new(&texts, 0, Cutting::new(Pattern::Gpt2, 100))) {
                prop_assert_eq!(side, Side::Train);
                let before = expected.len();
                encoder.encode(&text, &mut Cache::default(), &mut expected);
                if expected.len() > before {
                    expected.push(258);
                }
            }
            prop_assert_eq!(tokens(&shards(&texts, 2, 50, 1000, 0.0), "train"), expected);
        }
    }

    #[test]
    fn an_empty_val_takes_the_end_of_train() {
        let text = "ab ".repeat(500);
        let files = shards(&[&text], 1, 1 << 20, 10_000, 0.1);
        let names: Vec<&str> = files.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, NAMES);
        assert_eq!((tokens(&files, "train").len(), tokens(&files, "val").len()), (900, 101));
        assert_eq!(files[1].1, 900u64.to_le_bytes());
        assert_eq!(files[4].1, 101u64.to_le_bytes());
    }

    #[test]
    fn train_is_not_empty_though_every_document_fell_to_val() {
        for i in 0..20 {
            let text = format!("document {i}");
            let names: Vec<String> = shards(&[&text], 1, 1 << 20, 1000, 0.5).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, NAMES);
            let files = shards(&[&text], 1, 1 << 20, 4, 0.5);
            assert_eq!(tokens(&files, "train").len() + tokens(&files, "val").len(), text.len() + 1);
            assert_eq!(files[0].0, "train_000000.bin");
        }
    }

    #[test]
    fn a_panic_in_a_worker_reaches_the_caller_and_nobody_waits() {
        let texts = vec!["a"; 100];
        let mut source = Texts::new(&texts, 0, Cutting::new(Pattern::Gpt2, 1));
        let mut proceed = |_| true;
        let mut job = Job::new(Some(2), &mut proceed).unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run(&mut source, &mut job, || (), |(), _| -> Result<()> { panic!("on purpose") }, Ok, Ok)
        }));
        assert!(panicked.is_err());
    }

    #[test]
    fn a_cancelled_job_ends_a_pass() {
        let texts = vec!["a b c"; 1000];
        let mut source = Texts::new(&texts, 0, Cutting::new(Pattern::Gpt2, 10));
        let mut ticks = 0;
        let mut refuse = |_| {
            ticks += 1;
            ticks < 3
        };
        let mut job = Job::new(Some(2), &mut refuse).unwrap();
        let result = count_pieces(&mut source, &Pattern::Gpt2, &[], &Cleaning::none(), Counts::new(), &mut job);
        assert!(matches!(result, Err(Error::Cancelled)));
    }
}
