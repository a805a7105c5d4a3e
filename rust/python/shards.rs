//! Shards being written.

use super::bpe::Bpe;
use super::files::{Files, Verdicts, one_of};
use super::{BLOCK_BYTES, call, call_with_job, cleaning_of, report_of, texts_of};
use crate::shards::join::{OldFolder, Prepared, copy_of_file, join};
use crate::shards::journal::{Due, Journal};
use crate::shards::shuffle::{SHUFFLE_MEMORY, Shuffle, shuffle};
use crate::sources::{Cutting, Found, Position, Side, Texts};
use crate::{Error, Finished, Origin, Report, Reports, Result, ShardFacts, Shards, ShardsState, Split, encode_to_shards};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::path::PathBuf;
use std::sync::PoisonError;

/// A folder of shards that is finished: its path, the names of train's and val's shards, and the side whose end val is.
type Folder = (PathBuf, Vec<String>, Vec<String>, Option<String>);

/// A file of such a folder that is kept: its number there and here, its bytes, xxh3-64, documents and report.
type Kept = (u64, usize, u64, String, u64, String);

/// Facts of the shards of train and of val, and the side whose end val is.
type Facts<'py> = (Vec<Bound<'py, PyDict>>, Vec<Bound<'py, PyDict>>, Option<&'static str>);

/// The shards of a folder, being written: add files or texts, then finish once.
#[pyclass(module = "tinygpt._core")]
pub(super) struct ShardSet {
    /// `None` where ids come from outside.
    bpe: Option<Py<Bpe>>,
    val_fraction: f64,
    shards: Option<Shards>,
    progress: Progress,
}

/// How far files have got into the shards, and where that is written down.
#[derive(Default)]
struct Progress {
    /// Folder of the journal and what it is for.
    journal: Option<(PathBuf, String)>,
    from: Position,
    reports: Reports,
    found: Vec<Option<Found>>,
}

impl Progress {
    fn save(&self, shards: &mut Shards, position: Position, reports: Reports, found: Vec<Option<Found>>) -> Result<()> {
        let Some((folder, key)) = &self.journal else { return Ok(()) };
        Journal::new(key, position, shards.checkpoint()?, reports, found).save(folder)
    }
}

/// Bytes, xxh3-64 and documents of a file, and the report of those that were encoded, as JSON.
type Read = (u64, String, u64, String);

impl Progress {
    fn told(&self, file: u64, found: &Found) -> Result<Read> {
        let nothing = Report::default();
        let report = serde_json::to_string(self.reports.0.get(&file).unwrap_or(&nothing));
        let report = report.map_err(|error| Error::Invalid(format!("a report is no JSON: {error}")))?;
        Ok((found.bytes, format!("{:016x}", found.xxh3), found.documents, report))
    }
}

#[pymethods]
impl ShardSet {
    /// With a `journal` (a folder, and what it is for) they go on where an earlier process had got to.
    #[new]
    #[pyo3(signature = (folder, bpe, *, eot_id, shard_tokens, val_fraction, split="hash", journal=None))]
    #[allow(clippy::too_many_arguments)] // keywords in Python
    fn new(
        py: Python<'_>,
        folder: PathBuf,
        bpe: Py<Bpe>,
        eot_id: Option<u32>,
        shard_tokens: i64,
        val_fraction: f64,
        split: &str,
        journal: Option<(PathBuf, String)>,
    ) -> PyResult<ShardSet> {
        let split = one_of("split", &Split::NAMES, split)?;
        let mut shards = Shards::new(&folder, &bpe.get().0, eot_id, positive(shard_tokens)?, val_fraction)?.split_by(split);
        let mut progress = Progress { journal, ..Progress::default() };
        if let Some((folder, key)) = &progress.journal
            && let Some(journal) = call(py, || Journal::load(folder, key))?
        {
            shards = call(py, || shards.resume(journal.shards))?;
            (progress.from, progress.reports, progress.found) = (journal.position, journal.reports, journal.found);
        }
        Ok(ShardSet { bpe: Some(bpe), val_fraction, shards: Some(shards), progress })
    }

    /// For ids of another tokenizer; `lengths` are the bytes of text of each.
    #[staticmethod]
    #[pyo3(signature = (folder, *, lengths, fingerprint, eot_id, shard_tokens, val_fraction, split="hash"))]
    fn of_ids(
        folder: PathBuf,
        lengths: Vec<u32>,
        fingerprint: [u8; 32],
        eot_id: Option<u32>,
        shard_tokens: i64,
        val_fraction: f64,
        split: &str,
    ) -> PyResult<ShardSet> {
        let split = one_of("split", &Split::NAMES, split)?;
        let shards = Shards::of_ids(&folder, lengths, fingerprint, eot_id, positive(shard_tokens)?, val_fraction)?.split_by(split);
        Ok(ShardSet { bpe: None, val_fraction, shards: Some(shards), progress: Progress::default() })
    }

    /// Documents, their ids as little-endian uint32, and where each came from: file, first byte and end; with no `origins`
    /// they came from no file.
    #[pyo3(signature = (texts, ids, *, first=0, origins=None))]
    fn add_ids(
        &mut self,
        py: Python<'_>,
        texts: Vec<Bound<'_, PyString>>,
        ids: Vec<Vec<u8>>,
        first: usize,
        origins: Option<Vec<(u64, u64, u64)>>,
    ) -> PyResult<()> {
        let (texts, shards) = (texts_of(&texts, first)?, self.shards.as_mut().ok_or_else(finished)?);
        let told = |&(file, start, end): &(u64, u64, u64)| Origin { file, start, end };
        call(py, || {
            texts.iter().zip(&ids).enumerate().try_for_each(|(i, (text, ids))| {
                let ids: Vec<u32> = ids.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect();
                let origin = origins.as_ref().and_then(|origins| origins.get(i)).map(told);
                shards.add_document(text, &ids, origin.unwrap_or_else(|| Origin::of_number((first + i) as u64)))
            })
        })
    }

    /// Name of the tokens' type.
    fn dtype(&self) -> PyResult<&'static str> {
        self.shards.as_ref().map(|shards| shards.token_type().name()).ok_or_else(finished)
    }

    /// Number of the first file of which an earlier process left something to do.
    fn next_file(&self) -> u64 {
        self.progress.from.file
    }

    /// Encodes files; `until` is the number of the first one that is not for this call, those before the last call's are
    /// done, and `part` takes documents of the i-th of n parts of the whole alone. The report is of all calls.
    #[pyo3(signature = (files, *, until=None, part=None, verdicts=None, threads=None, progress=None))]
    #[allow(clippy::too_many_arguments)] // keywords in Python
    fn add_files<'py>(
        &mut self,
        py: Python<'py>,
        files: &Files,
        until: Option<usize>,
        part: Option<(u64, u64)>,
        verdicts: Option<PyRef<'_, Verdicts>>,
        threads: Option<i64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (encoder, shards) = (&self.bpe.as_ref().ok_or_else(of_ids)?.get().0, self.shards.as_mut().ok_or_else(finished)?);
        let mut source = files.source(encoder.vocab().pattern(), BLOCK_BYTES, verdicts.as_deref());
        (source.cutting.whole, source.cutting.val_fraction) = (encoder.ordinary(), Some(self.val_fraction));
        (source.selection.from, source.until) = (self.progress.from, until);
        let total = u128::from(files.total_bytes().max(1));
        let place = |i: u64, n: u64| u64::try_from(total * u128::from(i) / u128::from(n)).unwrap_or(u64::MAX);
        // The last part has what lies at the very end, too, which is where an empty file is.
        source.selection.range = part.map(|(i, n)| place(i, n)..if i + 1 == n { u64::MAX } else { place(i + 1, n) });
        self.progress.found.resize(files.files.len(), None);
        source.found.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.progress.found);
        let (found, begun, mut due) = (source.found.clone(), &self.progress, Due::new(shards.finished()));
        let mut end = begun.from;
        let seen = call_with_job(py, threads, progress, |job| {
            encode_to_shards(&mut source, encoder, &files.cleaning, shards, job, |shards, seen, position| {
                end = position;
                if !due.is_due(shards.finished()) {
                    return Ok(());
                }
                let mut reports = begun.reports.clone();
                reports.add(seen);
                begun.save(shards, position, reports, found.lock().unwrap_or_else(PoisonError::into_inner).clone())
            })
        })?;
        self.progress.reports.add(&seen);
        self.progress.from = end;
        self.progress.found.clone_from(&found.lock().unwrap_or_else(PoisonError::into_inner));
        let dict = files.report(py, &self.progress.reports)?;
        let read =
            (0..).zip(&self.progress.found).map(|(file, found)| found.as_ref().map(|found| self.progress.told(file, found)).transpose());
        dict.set_item("read", read.collect::<Result<Vec<_>>>()?)?;
        Ok(dict)
    }

    /// Copies the documents of some files from a finished folder: the number of each there and here, what it was found to be
    /// (bytes, xxh3-64, documents), and the report of its documents, as JSON.
    fn copy_files(&mut self, py: Python<'_>, folder: Folder, files: Vec<Kept>) -> PyResult<()> {
        let (shards, old, progress) = (self.shards.as_mut().ok_or_else(finished)?, prepared(folder)?, &mut self.progress);
        call_with_job(py, None, None, |job| {
            let old = OldFolder::open(&old, shards)?;
            for (there, here, bytes, xxh3, documents, report) in &files {
                copy_of_file(&old, *there, *here as u64, shards, job)?;
                let xxh3 = u64::from_str_radix(xxh3, 16).map_err(|_| Error::Format(format!("{xxh3:?} is no xxh3-64")))?;
                progress.reports.0.insert(*here as u64, report_from(*there, report)?);
                progress.found.resize(progress.found.len().max(here + 1), None);
                progress.found[*here] = Some(Found { bytes: *bytes, xxh3, documents: *documents });
                progress.from = Position { file: *here as u64 + 1, document: 0, offset: 0, ordinal: progress.from.ordinal + documents };
            }
            progress.save(shards, progress.from, progress.reports.clone(), progress.found.clone())
        })
    }

    /// Appends the documents of parts of a whole; the files of each have the numbers that they have there.
    #[pyo3(signature = (folders, *, progress=None))]
    fn join(&mut self, py: Python<'_>, folders: Vec<Folder>, progress: Option<Py<PyAny>>) -> PyResult<()> {
        let shards = self.shards.as_mut().ok_or_else(finished)?;
        let parts = folders.into_iter().map(prepared).collect::<PyResult<Vec<_>>>()?;
        call_with_job(py, None, progress, |job| join(&parts, shards, job))
    }

    /// Appends the documents of a folder in another order; `temporary` is made and removed.
    #[pyo3(signature = (folder, *, seed, temporary, progress=None))]
    fn shuffle(&mut self, py: Python<'_>, folder: Folder, seed: u64, temporary: PathBuf, progress: Option<Py<PyAny>>) -> PyResult<()> {
        let (shards, from) = (self.shards.as_mut().ok_or_else(finished)?, prepared(folder)?);
        let how = Shuffle { seed, memory: SHUFFLE_MEMORY, temporary };
        call_with_job(py, None, progress, |job| shuffle(&from, shards, &how, job))
    }

    #[pyo3(signature = (texts, *, first=0, clean=Vec::new(), threads=None))]
    fn add_texts<'py>(
        &mut self,
        py: Python<'py>,
        texts: Vec<Bound<'py, PyString>>,
        first: usize,
        clean: Vec<String>,
        threads: Option<i64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (encoder, shards) = (&self.bpe.as_ref().ok_or_else(of_ids)?.get().0, self.shards.as_mut().ok_or_else(finished)?);
        let (gutenberg, cleaning) = cleaning_of(&clean)?;
        let texts = texts_of(&texts, first)?;
        let cutting = Cutting::new(encoder.vocab().pattern().clone(), BLOCK_BYTES);
        let cutting = Cutting { whole: encoder.ordinary(), gutenberg, val_fraction: Some(self.val_fraction), ..cutting };
        let mut source = Texts::new(&texts, first as u64, cutting);
        let report =
            call_with_job(py, threads, None, |job| encode_to_shards(&mut source, encoder, &cleaning, shards, job, |_, _, _| Ok(())))?;
        let names: Vec<&str> = clean.iter().map(String::as_str).collect();
        report_of(py, &report, &names, &[])
    }

    /// The facts of train and val, a dict a shard, and the side whose end val is. Parts of a whole take no `fallback`: their
    /// val may be empty.
    #[pyo3(signature = (*, fallback=true))]
    fn finish<'py>(&mut self, py: Python<'py>, fallback: bool) -> PyResult<Facts<'py>> {
        let (shards, progress) = (self.shards.take().ok_or_else(finished)?, &self.progress);
        // From there on what was written earlier is moved, and an earlier journal would tell of what is gone.
        let mut save = |state: &ShardsState| {
            progress.journal.as_ref().map_or(Ok(()), |(folder, key)| {
                Journal::new(key, progress.from, state.clone(), progress.reports.clone(), progress.found.clone()).save(folder)
            })
        };
        let Finished { train, val, tail_of } = call(py, || shards.finish_with(fallback, &mut save))?;
        let dicts = |facts: Vec<ShardFacts>| facts.iter().map(|facts| facts_of(py, facts)).collect::<PyResult<Vec<_>>>();
        Ok((dicts(train)?, dicts(val)?, tail_of.map(|side| SIDES[side as usize].0)))
    }
}

/// What was told of a file's documents when they were encoded.
fn report_from(file: u64, json: &str) -> Result<Report> {
    let refuse = |why: String| Error::Format(format!("manifest.json: the report of source {file} {why}; write the shards again"));
    let report: Report = serde_json::from_str(json).map_err(|error| refuse(format!("is none ({error})")))?;
    if report.adds_up() { Ok(report) } else { Err(refuse("does not add up".into())) }
}

const SIDES: [(&str, Side); 2] = [("train", Side::Train), ("val", Side::Val)];

fn prepared((folder, train, val, tail_of): Folder) -> PyResult<Prepared> {
    let tail_of = tail_of.map(|side| one_of("tail_of", &SIDES, &side)).transpose()?;
    Ok(Prepared { folder, splits: [train, val], tail_of, first_file: 0 })
}

fn positive(shard_tokens: i64) -> PyResult<u64> {
    u64::try_from(shard_tokens).map_err(|_| PyValueError::new_err(format!("shard_tokens must be at least 1, got {shard_tokens}")))
}

fn of_ids() -> PyErr {
    PyRuntimeError::new_err("these shards take ids, not text")
}

fn finished() -> PyErr {
    PyRuntimeError::new_err("these shards are finished already")
}

fn facts_of<'py>(py: Python<'py>, facts: &ShardFacts) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("file", &facts.file)?;
    dict.set_item("tokens", facts.tokens)?;
    dict.set_item("documents", facts.documents)?;
    dict.set_item("bytes", facts.bytes)?;
    dict.set_item("xxh3", format!("{:016x}", facts.xxh3))?;
    dict.set_item("idx_xxh3", format!("{:016x}", facts.idx_xxh3))?;
    dict.set_item("map_xxh3", facts.map_xxh3.map(|xxh3| format!("{xxh3:016x}")))?;
    Ok(dict)
}
