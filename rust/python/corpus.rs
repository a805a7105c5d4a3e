//! Counts of pieces.

use super::files::{Files, Verdicts};
use super::{BLOCK_BYTES, call, call_with_job, cleaning_of, pattern_of, report_of, texts_of};
use crate::error::Error;
use crate::sources::{Cutting, Sample, SampleSize, Source, Texts};
use crate::{AddedFinder, count_pieces, load_counts, save_counts};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use std::path::PathBuf;
use std::sync::Arc;

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

    fn note(&mut self, pattern: Option<&str>) {
        if let Some(pattern) = pattern {
            self.pattern = Some(pattern.into());
        }
    }
}

#[pymethods]
impl Counts {
    #[new]
    #[pyo3(signature = (pieces=None, *, temporary=None))]
    fn new(pieces: Option<Bound<'_, PyDict>>, temporary: Option<PathBuf>) -> PyResult<Counts> {
        let mut counts = temporary.map_or_else(crate::Counts::new, |folder| crate::Counts::in_folder(&folder));
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
        let (gutenberg, cleaning) = cleaning_of(&clean)?;
        let whole = Arc::new(AddedFinder::of_names(&special_tokens)?);
        let cutting = Cutting { whole, gutenberg, ..Cutting::new(split.clone(), BLOCK_BYTES) };
        let mut source = Texts::new(&texts, first as u64, cutting);
        // By themselves first: these are few, and those of before are there still where a text cannot be counted.
        let new = self.counts.empty();
        let counted = call_with_job(py, threads, None, |job| {
            let counted = count_pieces(&mut source, &split, &special_tokens, &cleaning, new, job)?;
            self.counts.merge(&counted.0).map(|()| counted.1)
        });
        let report = counted?;
        self.note(Some(pattern));
        let names: Vec<&str> = clean.iter().map(String::as_str).collect();
        report_of(py, &report, &names, &[])
    }

    /// In the memory of these counts, which are lost where this fails.
    #[pyo3(signature = (files, *, pattern="gpt2", special_tokens=Vec::new(), max_bytes=None, max_documents=None, verdicts=None, threads=None, progress=None))]
    #[allow(clippy::too_many_arguments)] // keywords in Python
    fn add_files<'py>(
        &mut self,
        py: Python<'py>,
        files: &Files,
        pattern: &str,
        special_tokens: Vec<String>,
        max_bytes: Option<u64>,
        max_documents: Option<u64>,
        verdicts: Option<PyRef<'_, Verdicts>>,
        threads: Option<i64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.check_pattern(pattern)?;
        let split = pattern_of(pattern)?;
        let size = SampleSize { bytes: max_bytes, documents: max_documents };
        let names = Arc::new(AddedFinder::of_names(&special_tokens)?);
        // Smaller parts let a small sample come from many places.
        let part_bytes = max_bytes.map_or(BLOCK_BYTES, |bytes| (bytes / 64).clamp(1 << 12, BLOCK_BYTES as u64) as usize);
        let source = |block_bytes| {
            let mut source = files.source(&split, block_bytes, verdicts.as_deref());
            source.cutting.whole = names.clone();
            source
        };
        let mut whole = source(BLOCK_BYTES);
        let mut share = Sample::new(source(part_bytes), size, files.total_bytes());
        let sampled = max_bytes.is_some() || max_documents.is_some();
        let empty = self.counts.empty();
        let before = std::mem::replace(&mut self.counts, empty);
        let (counts, report) = call_with_job(py, threads, progress, |job| {
            let source: &mut dyn Source = if sampled { &mut share } else { &mut whole };
            count_pieces(source, &split, &special_tokens, &files.cleaning, before, job)
        })?;
        self.counts = counts;
        self.note(Some(pattern));
        let dict = files.report(py, &report)?;
        if sampled {
            let (taken, seen) = share.taken_of();
            dict.set_item("sample", (taken.documents, taken.bytes))?;
            dict.set_item("sampled_from", (seen.documents, seen.bytes))?;
        }
        Ok(dict)
    }

    fn add(&mut self, py: Python<'_>, other: &Counts) -> PyResult<()> {
        other.pattern.as_deref().map_or(Ok(()), |pattern| self.check_pattern(pattern))?;
        call(py, || self.counts.merge(&other.counts))?;
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
        let mut raised = None;
        let result = self.counts.for_each(|piece, n| {
            dict.set_item(PyBytes::new(py, piece), n).map_err(|error| {
                raised = Some(error);
                Error::Cancelled
            })
        });
        match raised {
            Some(error) => Err(error),
            None => Ok(result.map(|()| dict)?),
        }
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(call(py, || self.counts.len())? as usize)
    }

    fn __bool__(&self) -> bool {
        !self.counts.is_empty()
    }
}
