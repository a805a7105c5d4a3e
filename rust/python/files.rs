//! Files, and the documents in them.

use super::{BLOCK_BYTES, call, call_with_job, report_of, threads_of};
use crate::clean::{rules, split_gutenberg};
use crate::screen::{Languages, NearOptions, Preset};
use crate::sources::{Choice, Cutting, Format, InputFile, Inputs, Malformed, OpenRows, Outlet, Passage, Reading, Rows, Source};
use crate::{Block, Cleaning, Documents, Error, Filters, Job, Origin, Pattern, Reports, Result, judge_documents, list_files};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Files of a corpus: which, what a document is in them, how they are cleaned.
#[pyclass(frozen, module = "tinygpt._core")]
pub(super) struct Files {
    pub(super) files: Arc<Vec<InputFile>>,
    skipped: Vec<(PathBuf, String)>,
    reading: Arc<Reading>,
    gutenberg: bool,
    pub(super) cleaning: Cleaning,
    /// Names of the rules, without gutenberg.
    pub(super) rules: Vec<String>,
    open_rows: Option<OpenRows>,
}

impl Files {
    /// Documents in blocks of so many bytes.
    pub(super) fn source(&self, pattern: &Pattern, block_bytes: usize, verdicts: Option<&Verdicts>) -> Inputs {
        let cutting = Cutting { gutenberg: self.gutenberg, ..Cutting::new(pattern.clone(), block_bytes) };
        let mut inputs = Inputs::new(self.files.clone(), self.reading.clone(), cutting);
        inputs.open_rows.clone_from(&self.open_rows);
        inputs.selection.verdicts = verdicts.map(|verdicts| verdicts.verdicts.clone());
        inputs
    }

    pub(super) fn report<'py>(&self, py: Python<'py>, reports: &Reports) -> PyResult<Bound<'py, PyDict>> {
        let names: Vec<&str> = self.gutenberg.then_some("gutenberg").into_iter().chain(self.rules.iter().map(String::as_str)).collect();
        report_of(py, reports, &names, &self.cleaning.names)
    }
}

#[pymethods]
impl Files {
    #[new]
    #[pyo3(signature = (paths, *, include=None, exclude=None, format=None, documents="file", separator="<|endoftext|>", text_field=None, header=None, delimiter=None, malformed="error", clean=Vec::new(), invalid="replace", open_rows=None))]
    #[allow(clippy::too_many_arguments)] // keywords in Python
    fn new(
        py: Python<'_>,
        paths: Vec<PathBuf>,
        include: Option<Vec<String>>,
        exclude: Option<PathBuf>,
        format: Option<&str>,
        documents: &str,
        separator: &str,
        text_field: Option<String>,
        header: Option<bool>,
        delimiter: Option<&str>,
        malformed: &str,
        clean: Vec<String>,
        invalid: &str,
        open_rows: Option<Py<PyAny>>,
    ) -> PyResult<Files> {
        let format = format.map(|format| one_of("format", &Format::NAMES, format)).transpose()?;
        if separator.is_empty() || separator.contains(['\n', '\r']) {
            return Err(PyValueError::new_err(format!("separator must be the text of one line, got {separator:?}")));
        }
        let delimiter = match delimiter.map(str::as_bytes) {
            None => None,
            Some([byte]) if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Some(*byte),
            Some(_) => {
                let found = delimiter.unwrap_or_default();
                return Err(PyValueError::new_err(format!("delimiter must be one ASCII character other than a quote, got {found:?}")));
            }
        };
        let reading = Reading {
            documents: one_of("documents", &Documents::NAMES, documents)?,
            separator: separator.into(),
            header,
            delimiter,
            malformed: one_of("malformed", &[("error", Malformed::Error), ("skip", Malformed::Skip)], malformed)?,
            text_field: text_field.clone(),
            ..Reading::default()
        };
        let strict = one_of("invalid", &[("replace", false), ("error", true)], invalid)?;
        let (gutenberg, others) = split_gutenberg(&clean)?;
        let (others, rules) = (others.to_vec(), rules(others)?);
        let choice = Choice { include: include.as_deref(), format, exclude: exclude.as_deref() };
        let listing = call(py, || list_files(&paths, &choice))?;
        let names = listing.files.iter().map(|file| file.path.clone()).collect();
        Ok(Files {
            files: Arc::new(listing.files),
            skipped: listing.skipped,
            reading: Arc::new(reading),
            gutenberg,
            cleaning: Cleaning { rules, strict, names },
            rules: others,
            open_rows: open_rows.map(|open| rows_by(open, text_field)),
        })
    }

    /// Paths and sizes in bytes.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        self.files.iter().map(|file| (file.path.clone(), file.bytes)).collect()
    }

    /// Names of their formats.
    fn formats(&self) -> Vec<&'static str> {
        self.files.iter().map(|file| file.format.name()).collect()
    }

    /// Files that were found and are not read, and why.
    fn skipped(&self) -> Vec<(PathBuf, String)> {
        self.skipped.clone()
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// What stands at a place of a file, or its first and last `most` bytes and how many are between them.
    #[pyo3(signature = (file, start, end, *, most))]
    fn passage<'py>(
        &self,
        py: Python<'py>,
        file: usize,
        start: u64,
        end: u64,
        most: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, u64, Bound<'py, PyBytes>)> {
        let file = self.files.get(file).ok_or_else(|| PyValueError::new_err(format!("no file {file} of {}", self.files.len())))?;
        let passage = Passage { file, place: start..end, open_rows: self.open_rows.as_ref() };
        let ends = call_with_job(py, None, None, |job| passage.ends(most, job))?;
        Ok((PyBytes::new(py, &ends.head), ends.between, PyBytes::new(py, &ends.tail)))
    }

    /// `is_raw` gives documents before they are cleaned.
    #[pyo3(signature = (*, verdicts=None, is_raw=false, threads=None))]
    fn documents(&self, verdicts: Option<PyRef<'_, Verdicts>>, is_raw: bool, threads: Option<i64>) -> PyResult<DocumentIterator> {
        let threads = Job::new(threads_of(threads)?, &mut |_| true)?.threads();
        let mut source = self.source(&Pattern::Gpt2, BLOCK_BYTES, verdicts.as_deref());
        source.cutting.gutenberg &= !is_raw;
        let (sender, blocks) = sync_channel(2);
        let stop = Arc::new(AtomicBool::new(false));
        let its_stop = stop.clone();
        // It ends when nobody listens, for then what it sends comes back.
        std::thread::spawn(move || {
            if let Err(error) = source.read(&mut Sending(&sender), &its_stop, threads) {
                let _ = sender.send(Err(error));
            }
        });
        let (rules, reports) = (self.rules.clone(), Reports::default());
        let cleaning = if is_raw { Cleaning { rules: Vec::new(), ..self.cleaning.clone() } } else { self.cleaning.clone() };
        let names = self.gutenberg.then(|| "gutenberg".to_string()).into_iter().chain(rules).collect();
        Ok(DocumentIterator {
            blocks: Mutex::new(blocks),
            stop,
            cleaning,
            names,
            ready: Vec::new().into_iter(),
            number: 0,
            origin: Origin::default(),
            open: String::new(),
            reports,
        })
    }

    #[pyo3(signature = (folder, *, min_chars=None, max_chars=None, language=None, quality=None, dedup=None, skip_invalid=false, threads=None, progress=None))]
    #[allow(clippy::too_many_arguments)] // keywords in Python
    fn judge(
        &self,
        py: Python<'_>,
        folder: PathBuf,
        min_chars: Option<u64>,
        max_chars: Option<u64>,
        language: Option<Vec<String>>,
        quality: Option<&str>,
        dedup: Option<&str>,
        skip_invalid: bool,
        threads: Option<i64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Verdicts> {
        let filters = filters_of(min_chars, max_chars, language.as_deref(), quality, dedup, skip_invalid)?;
        let mut source = self.source(&Pattern::Gpt2, BLOCK_BYTES, None);
        source.cutting.whole_heads = true;
        let verdicts = call_with_job(py, threads, progress, |job| judge_documents(&mut source, &filters, &self.cleaning, &folder, job))?;
        let found = source.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut firsts = vec![0];
        for file in found.iter() {
            firsts.push(firsts[firsts.len() - 1] + file.as_ref().map_or(0, |file| file.documents));
        }
        Ok(Verdicts { verdicts: Arc::new(verdicts), firsts })
    }
}

/// Which documents are left out.
#[pyclass(frozen, module = "tinygpt._core")]
pub(super) struct Verdicts {
    pub(super) verdicts: Arc<crate::Verdicts>,
    /// Number of each file's first document, and of all.
    pub(super) firsts: Vec<u64>,
}

#[pymethods]
impl Verdicts {
    /// Each rule, the documents that it was the first to leave out, and their bytes.
    fn counts(&self) -> Vec<(&'static str, u64, u64)> {
        self.verdicts.counts().iter().map(|removed| (removed.rule, removed.documents, removed.bytes)).collect()
    }

    fn is_removed(&self, number: u64) -> bool {
        self.verdicts.is_removed(number)
    }

    /// What is left out of a file, as a hash.
    fn digest(&self, file: usize) -> String {
        format!("{:016x}", self.verdicts.digest(self.firsts[file], self.firsts[file + 1]))
    }
}

/// Raises where filters are not what they should be.
#[pyfunction]
#[pyo3(signature = (*, min_chars=None, max_chars=None, language=None, quality=None, dedup=None, skip_invalid=false))]
pub(super) fn check_filters(
    min_chars: Option<u64>,
    max_chars: Option<u64>,
    language: Option<Vec<String>>,
    quality: Option<&str>,
    dedup: Option<&str>,
    skip_invalid: bool,
) -> PyResult<()> {
    filters_of(min_chars, max_chars, language.as_deref(), quality, dedup, skip_invalid).map(drop)
}

fn filters_of(
    min_chars: Option<u64>,
    max_chars: Option<u64>,
    language: Option<&[String]>,
    quality: Option<&str>,
    dedup: Option<&str>,
    invalid: bool,
) -> PyResult<Filters> {
    let language = language.filter(|codes| !codes.is_empty()).map(Languages::parse).transpose()?;
    let quality = quality.map(|quality| one_of("quality", &Preset::NAMES, quality)).transpose()?;
    let kinds = [("exact", None), ("near", Some(NearOptions::default()))];
    let near = dedup.map(|dedup| one_of("dedup", &kinds, dedup)).transpose()?.flatten();
    let filters = Filters { invalid, min_chars, max_chars, language, quality, exact: dedup.is_some(), near };
    filters.check()?;
    Ok(filters)
}

/// The value that a choice stands for.
pub(super) fn one_of<T: Clone>(what: &str, known: &[(&str, T)], found: &str) -> PyResult<T> {
    let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let chosen = known.iter().find(|(name, _)| *name == found).map(|(_, value)| value.clone());
    chosen.ok_or_else(|| PyValueError::new_err(format!("{what} must be one of {}, got {found:?}", names())))
}

/// Opens files by a function of Python that gives lists of texts.
fn rows_by(open: Py<PyAny>, column: Option<String>) -> OpenRows {
    Arc::new(move |path: &Path| {
        let begun = Python::attach(|py| open.call1(py, (path, column.as_deref()))?.bind(py).try_iter().map(Bound::unbind));
        let rows = begun.map_err(|error| raised(&error))?;
        let next = move || {
            let some = Python::attach(|py| rows.bind(py).clone().next().map(|some| some.and_then(|some| some.extract())).transpose());
            some.map(Option::unwrap_or_default).map_err(|error| raised(&error))
        };
        Ok(Box::new(next) as Rows)
    })
}

/// An error of Python's as one of ours; only its message crosses.
fn raised(error: &PyErr) -> Error {
    Python::attach(|py| Error::Invalid(error.value(py).to_string()))
}

/// Hands blocks to whoever iterates.
struct Sending<'a>(&'a SyncSender<Result<Block>>);

impl Outlet for Sending<'_> {
    fn exchange(&mut self, full: Block) -> Result<Block> {
        self.0.send(Ok(full)).map_err(|_| Error::Cancelled)?;
        Ok(Block::default())
    }
}

/// The clean documents of files, one string each.
#[pyclass(module = "tinygpt._core")]
pub(super) struct DocumentIterator {
    blocks: Mutex<Receiver<Result<Block>>>,
    stop: Arc<AtomicBool>,
    cleaning: Cleaning,
    names: Vec<String>,
    ready: std::vec::IntoIter<(u64, Origin, String)>,
    number: u64,
    origin: Origin,
    open: String,
    reports: Reports,
}

#[pymethods]
impl DocumentIterator {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<String>> {
        loop {
            if let Some((number, origin, text)) = self.ready.next() {
                (self.number, self.origin) = (number, origin);
                return Ok(Some(text));
            }
            py.check_signals()?;
            let more = call(py, || {
                let Ok(block) = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).recv() else { return Ok(false) };
                let (mut ready, open) = (Vec::new(), &mut self.open);
                let seen = self.cleaning.for_each_part(&block?, |text, part| {
                    open.push_str(text);
                    if part.ends && !open.is_empty() {
                        let origin = Origin { file: part.file, start: part.start, end: part.stop };
                        ready.push((part.ordinal, origin, std::mem::take(open)));
                    }
                    Ok(())
                })?;
                self.reports.add(&seen);
                self.ready = ready.into_iter();
                Ok(true)
            })?;
            if !more {
                return Ok(None);
            }
        }
    }

    /// Number of the last document, those counted that are left out.
    #[getter]
    fn number(&self) -> u64 {
        self.number
    }

    /// Where the last document came from: number of its file, first byte and end of its record.
    #[getter]
    fn origin(&self) -> (u64, u64, u64) {
        (self.origin.file, self.origin.start, self.origin.end)
    }

    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        report_of(py, &self.reports, &names, &self.cleaning.names)
    }
}

impl Drop for DocumentIterator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
