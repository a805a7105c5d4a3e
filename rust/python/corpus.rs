//! Files, documents and counts.

use super::{BLOCK_BYTES, call, call_with_job, pattern_of, report_of, texts_of};
use crate::clean::rules;
use crate::sources::{Block, Documents, Sample, SampleSize, Source, TextFile, TextFiles, Texts, list_files};
use crate::{AddedFinder, Cleaning, Pattern, Report, count_pieces, load_counts, save_counts};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Text files: which, what a document is in them, how they are cleaned.
#[pyclass(frozen, module = "tinygpt._core")]
pub(super) struct Files {
    files: Vec<TextFile>,
    documents: Documents,
    pub(super) cleaning: Cleaning,
}

impl Files {
    pub(super) fn source(&self, pattern: &Pattern, val_fraction: Option<f64>, block_bytes: usize) -> TextFiles {
        TextFiles::new(self.files.clone(), self.documents, pattern.clone(), val_fraction, block_bytes)
    }
}

#[pymethods]
impl Files {
    #[new]
    #[pyo3(signature = (paths, *, include=None, documents="file", clean=Vec::new(), invalid="replace"))]
    fn new(
        py: Python<'_>,
        paths: Vec<PathBuf>,
        include: Option<Vec<String>>,
        documents: &str,
        clean: Vec<String>,
        invalid: &str,
    ) -> PyResult<Files> {
        let known: Vec<&str> = Documents::NAMES.iter().map(|(name, _)| *name).collect();
        let kind = Documents::NAMES.iter().find(|(name, _)| *name == documents).map(|(_, kind)| *kind);
        let documents =
            kind.ok_or_else(|| PyValueError::new_err(format!("documents must be one of {}, got {documents:?}", known.join(", "))))?;
        let strict = match invalid {
            "replace" => false,
            "error" => true,
            _ => return Err(PyValueError::new_err(format!("invalid must be replace or error, got {invalid:?}"))),
        };
        let rules = rules(&clean)?;
        let files = call(py, || list_files(&paths, include.as_deref()))?;
        let names = files.iter().map(|file| file.path.clone()).collect();
        Ok(Files { files, documents, cleaning: Cleaning { rules, strict, names } })
    }

    /// Paths and sizes in bytes.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        self.files.iter().map(|file| (file.path.clone(), file.bytes)).collect()
    }

    fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    fn documents(&self) -> DocumentIterator {
        let source = self.source(&Pattern::Gpt2, None, BLOCK_BYTES);
        let cleaning = self.cleaning.clone();
        DocumentIterator {
            source,
            cleaning,
            block: Block::default(),
            ready: Vec::new().into_iter(),
            open: String::new(),
            report: Report::default(),
        }
    }
}

/// The clean documents of files, one string each.
#[pyclass(module = "tinygpt._core")]
pub(super) struct DocumentIterator {
    source: TextFiles,
    cleaning: Cleaning,
    block: Block,
    ready: std::vec::IntoIter<String>,
    open: String,
    report: Report,
}

#[pymethods]
impl DocumentIterator {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<String>> {
        loop {
            if let Some(text) = self.ready.next() {
                return Ok(Some(text));
            }
            py.check_signals()?;
            let more = call(py, || {
                let more = self.source.fill(&mut self.block, &AtomicBool::new(false))?;
                let (mut ready, open) = (Vec::new(), &mut self.open);
                let report = self.cleaning.for_each_part(&self.block, |text, part| {
                    open.push_str(text);
                    if part.ends && !open.is_empty() {
                        ready.push(std::mem::take(open));
                    }
                    Ok(())
                })?;
                self.report.add(report);
                self.ready = ready.into_iter();
                Ok(more)
            })?;
            if !more {
                return Ok(None);
            }
        }
    }

    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        report_of(py, self.report)
    }
}

/// How often each piece occurs; counts of parts add up.
#[pyclass(module = "tinygpt._core")]
#[derive(Default)]
pub(super) struct Counts {
    pub(super) counts: crate::Counts,
    /// How text was split, once that is known.
    pub(super) pattern: Option<String>,
}

impl Counts {
    /// Counts of pieces by one pattern are no use with those by another.
    pub(super) fn check_pattern(&self, other: &str) -> PyResult<()> {
        match &self.pattern {
            Some(mine) if mine != other => {
                Err(PyValueError::new_err(format!("these counts are of pieces by the pattern {mine}, not {other}; count them alike")))
            }
            _ => Ok(()),
        }
    }

    /// What was just counted.
    fn take(&mut self, counts: crate::Counts, pattern: &str) -> PyResult<()> {
        if self.counts.is_empty() {
            self.counts = counts;
        } else {
            self.counts.merge(&counts)?;
        }
        self.note(Some(pattern));
        Ok(())
    }

    fn note(&mut self, pattern: Option<&str>) {
        if let Some(pattern) = pattern {
            self.pattern = Some(pattern.into());
        }
    }
}

#[pymethods]
impl Counts {
    #[new]
    #[pyo3(signature = (pieces=None))]
    fn new(pieces: Option<Bound<'_, PyDict>>) -> PyResult<Counts> {
        let mut counts = crate::Counts::new();
        for (piece, n) in pieces.iter().flat_map(PyDictMethods::iter) {
            let piece = piece.cast::<PyBytes>().map_err(|_| PyTypeError::new_err(format!("pieces must be bytes, got {piece:?}")))?;
            let amount = n.extract::<u64>();
            let n = amount.map_err(|_| PyValueError::new_err(format!("the count of {piece:?} must be from 0 to 2^64 - 1, got {n}")))?;
            counts.add(piece.as_bytes(), n)?;
        }
        Ok(Counts { counts, pattern: None })
    }

    /// `first` is the number of the first text, for messages.
    #[pyo3(signature = (texts, *, first=0, pattern="gpt2", special_tokens=Vec::new(), clean=Vec::new(), threads=None))]
    #[allow(clippy::too_many_arguments)] // keywords in Python
    fn add_texts<'py>(
        &mut self,
        py: Python<'py>,
        texts: Vec<Bound<'py, PyString>>,
        first: usize,
        pattern: &str,
        special_tokens: Vec<String>,
        clean: Vec<String>,
        threads: Option<i64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.check_pattern(pattern)?;
        let (split, texts) = (pattern_of(pattern)?, texts_of(&texts, first)?);
        let cleaning = Cleaning { rules: rules(&clean)?, ..Cleaning::none() };
        let whole = Arc::new(AddedFinder::of_names(&special_tokens)?);
        let mut source = Texts::new(&texts, split.clone(), None, BLOCK_BYTES).keeping(whole);
        let (counts, report) = call_with_job(py, threads, None, |job| count_pieces(&mut source, &split, &special_tokens, &cleaning, job))?;
        self.take(counts, pattern)?;
        report_of(py, report)
    }

    #[pyo3(signature = (files, *, pattern="gpt2", special_tokens=Vec::new(), max_bytes=None, max_documents=None, threads=None, progress=None))]
    #[allow(clippy::too_many_arguments)] // keywords in Python
    fn add_files<'py>(
        &mut self,
        py: Python<'py>,
        files: &Files,
        pattern: &str,
        special_tokens: Vec<String>,
        max_bytes: Option<u64>,
        max_documents: Option<u64>,
        threads: Option<i64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.check_pattern(pattern)?;
        let split = pattern_of(pattern)?;
        let size = SampleSize { bytes: max_bytes, documents: max_documents };
        let names = Arc::new(AddedFinder::of_names(&special_tokens)?);
        let mut whole = files.source(&split, None, BLOCK_BYTES).keeping(names.clone());
        // Smaller parts let a small sample come from many places.
        let part_bytes = max_bytes.map_or(BLOCK_BYTES, |bytes| (bytes / 64).clamp(1 << 12, BLOCK_BYTES as u64) as usize);
        let mut share = Sample::new(files.source(&split, None, part_bytes).keeping(names), size, files.total_bytes());
        let sampled = max_bytes.is_some() || max_documents.is_some();
        let (counts, report) = call_with_job(py, threads, progress, |job| {
            let source: &mut dyn Source = if sampled { &mut share } else { &mut whole };
            count_pieces(source, &split, &special_tokens, &files.cleaning, job)
        })?;
        self.take(counts, pattern)?;
        let dict = report_of(py, report)?;
        if sampled {
            let (taken, seen) = share.taken_of();
            dict.set_item("sample", (taken.documents, taken.bytes))?;
            dict.set_item("sampled_from", (seen.documents, seen.bytes))?;
        }
        Ok(dict)
    }

    fn add(&mut self, other: &Counts) -> PyResult<()> {
        other.pattern.as_deref().map_or(Ok(()), |pattern| self.check_pattern(pattern))?;
        self.counts.merge(&other.counts)?;
        self.note(other.pattern.as_deref());
        Ok(())
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        call(py, || save_counts(&self.counts, self.pattern.as_deref().unwrap_or_default(), &path))
    }

    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Counts> {
        let (counts, pattern) = call(py, || load_counts(&path))?;
        Ok(Counts { counts, pattern: Some(pattern).filter(|pattern| !pattern.is_empty()) })
    }

    #[getter]
    fn pattern(&self) -> Option<&str> {
        self.pattern.as_deref()
    }

    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let mut result = Ok(());
        self.counts
            .for_each(|piece, n| result = std::mem::replace(&mut result, Ok(())).and_then(|()| dict.set_item(PyBytes::new(py, piece), n)));
        result.map(|()| dict)
    }

    fn __len__(&self) -> usize {
        self.counts.len()
    }
}
