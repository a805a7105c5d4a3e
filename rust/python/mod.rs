//! The border to Python: converts, releases the GIL, maps errors; no algorithm.
//!
//! Across it go strings, bytes, integers, lists of them and flat little-endian buffers that numpy views. Long calls let
//! other Python threads run, report progress and answer Ctrl-C a few times a second.

// Arguments come by value from Python, and what they are and raise stands in `_core.pyi`, where Python's readers look.
#![allow(clippy::needless_pass_by_value, missing_docs)]

mod bpe;
mod corpus;
mod files;
mod shards;
mod transformer;

use crate::clean::{GUTENBERG, GutenbergBody, RULES, rules, split_gutenberg};
use crate::error::Error;
use crate::{AddedFinder, Cleaning, Job, MAX_PIECES_BYTES, Pattern, Reports, hash_file};
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pyo3::create_exception!(tinygpt, FormatError, PyValueError, "A file is damaged, or is not what it should be.");

/// Bytes that a thread is given at once: little enough to stay in its own cache.
const BLOCK_BYTES: usize = 1 << 18;
/// Time between two looks at what Python wants.
const TICK: Duration = Duration::from_millis(100);

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        match error {
            // The number and the name make Python choose FileNotFoundError and its like.
            Error::Io { path, source } => match source.raw_os_error() {
                Some(number) => {
                    let said = source.to_string();
                    let reason = said.split(" (os error").next().unwrap_or_default().to_string();
                    PyOSError::new_err((number, reason, path))
                }
                None => PyOSError::new_err(format!("{}: {source}", path.display())),
            },
            Error::Format(message) => FormatError::new_err(message),
            Error::Invalid(message) => PyValueError::new_err(message),
            Error::Cancelled => PyKeyboardInterrupt::new_err(()),
        }
    }
}

/// Runs without the GIL; a panic, which only a fault of ours can cause, becomes a `RuntimeError`.
fn call<T: Send>(py: Python<'_>, work: impl Send + FnOnce() -> Result<T, Error>) -> PyResult<T> {
    let result = py.detach(|| catch_unwind(AssertUnwindSafe(work)));
    let panicked = |_| PyRuntimeError::new_err("internal error in tinygpt; please report it with the message above");
    Ok(result.map_err(panicked)??)
}

/// As [`call`], with a job that reports to `progress` and asks Python for signals.
fn call_with_job<T: Send>(
    py: Python<'_>,
    threads: Option<i64>,
    progress: Option<Py<PyAny>>,
    work: impl Send + FnOnce(&mut Job) -> Result<T, Error>,
) -> PyResult<T> {
    let threads = threads_of(threads)?;
    let mut raised = None;
    let result = call(py, || {
        let mut last = Instant::now();
        let mut tick = |bytes| {
            if last.elapsed() < TICK {
                return true;
            }
            last = Instant::now();
            let report = |py: Python<'_>| progress.as_ref().map_or(Ok(()), |call| call.call1(py, (bytes,)).map(drop));
            raised = Python::attach(|py| py.check_signals().and_then(|()| report(py))).err();
            raised.is_none()
        };
        work(&mut Job::new(threads, &mut tick)?)
    });
    match raised {
        Some(error) => Err(error),
        None => result,
    }
}

fn threads_of(threads: Option<i64>) -> PyResult<Option<usize>> {
    match threads {
        Some(n) if n < 1 => Err(PyValueError::new_err(format!("threads must be at least 1, got {n}"))),
        n => Ok(n.map(|n| n as usize)),
    }
}

fn pattern_of(name: &str) -> PyResult<Pattern> {
    Ok(Pattern::from_name(name)?)
}

/// UTF-8 of Python strings, without a copy; the first has the number `first` in messages.
fn texts_of<'a>(texts: &'a [Bound<'_, PyString>], first: usize) -> PyResult<Vec<&'a str>> {
    let text = |(i, text): (usize, &'a Bound<'_, PyString>)| text.to_str().map_err(|_| surrogate(text, &format!("texts[{}]", first + i)));
    texts.iter().enumerate().map(text).collect()
}

fn text_of<'a>(text: &'a Bound<'_, PyString>) -> PyResult<&'a str> {
    text.to_str().map_err(|_| surrogate(text, "text"))
}

fn surrogate(text: &Bound<'_, PyString>, name: &str) -> PyErr {
    let found = text.call_method0("__iter__").and_then(|characters| {
        for (i, character) in characters.try_iter()?.enumerate() {
            if character?.cast::<PyString>()?.to_str().is_err() {
                return Ok(i);
            }
        }
        Ok(0)
    });
    PyValueError::new_err(format!("{name} holds a lone surrogate at character {}, which no UTF-8 text can", found.unwrap_or(0)))
}

/// What was seen of all inputs as a dict; `rules` are the names of the cleaning rules, gutenberg first, and `names` those of the files.
fn report_of<'py>(py: Python<'py>, reports: &Reports, rules: &[&str], names: &[PathBuf]) -> PyResult<Bound<'py, PyDict>> {
    let report = reports.total();
    if !report.adds_up() {
        return Err(PyRuntimeError::new_err(format!("internal error in tinygpt; please report it: bytes do not add up in {report:?}")));
    }
    let dict = PyDict::new(py);
    dict.set_item("documents", report.documents)?;
    dict.set_item("bytes_read", report.bytes_read)?;
    dict.set_item("bytes_used", report.bytes_used)?;
    dict.set_item("invalid_sequences", report.invalid_sequences)?;
    let place = |(file, offset): (u64, u64)| names.get(file as usize).map(|name| format!("{}, byte {offset}", name.display()));
    dict.set_item("first_invalid", reports.first_invalid().and_then(place))?;
    dict.set_item("repaired_bytes", report.repaired_bytes)?;
    let cleaned = PyDict::new(py);
    let stripped = (rules.len() > report.cleaned.len()).then_some(report.stripped_bytes as i64);
    for (name, bytes) in rules.iter().zip(stripped.iter().chain(&report.cleaned)) {
        let before: i64 = cleaned.get_item(name)?.map_or(Ok(0), |before| before.extract())?;
        cleaned.set_item(name, before + bytes)?;
    }
    dict.set_item("cleaned", cleaned)?;
    dict.set_item("removed", (report.removed.records, report.removed.bytes))?;
    dict.set_item("refused", (report.refused.records, report.refused.bytes))?;
    Ok(dict)
}

/// xxh3-64 of a file's content, as 16 hexadecimal digits.
#[pyfunction]
fn xxh3_file(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    Ok(format!("{:016x}", call(py, || hash_file(&path))?))
}

/// A text after the cleaning rules of those names.
#[pyfunction]
fn clean(text: &Bound<'_, PyString>, names: Vec<String>) -> PyResult<String> {
    let (gutenberg, cleaning) = cleaning_of(&names)?;
    let text = text_of(text)?;
    if !gutenberg {
        return Ok(crate::clean(&cleaning.rules, text, true).into_owned());
    }
    let (mut body, mut kept) = (GutenbergBody::default(), Vec::new());
    let mut keep = |bytes: &[u8]| {
        kept.extend_from_slice(bytes);
        Ok(())
    };
    body.push(text.as_bytes(), &mut keep)?;
    body.finish(&mut keep)?;
    // What is left out is whole lines.
    Ok(crate::clean(&cleaning.rules, &String::from_utf8_lossy(&kept), true).into_owned())
}

/// Whether gutenberg is among the rules, and the others.
fn cleaning_of(names: &[String]) -> PyResult<(bool, Cleaning)> {
    let (gutenberg, others) = split_gutenberg(names)?;
    Ok((gutenberg, Cleaning { rules: rules(others)?, ..Cleaning::none() }))
}

/// The pieces of a text, as bytes.
#[pyfunction]
#[pyo3(signature = (text, pattern="gpt2"))]
fn pieces<'py>(text: &Bound<'py, PyString>, pattern: &str) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    Ok(pattern_of(pattern)?.pieces(text_of(text)?).map(|piece| PyBytes::new(text.py(), piece)).collect())
}

/// How many characters of a text, of which more may follow, can be encoded by themselves; `whole` are strings that may
/// become ids before text is split. 0 if there is no such place.
#[pyfunction]
fn last_cut(py: Python<'_>, text: &Bound<'_, PyString>, pattern: &str, whole: Vec<String>) -> PyResult<usize> {
    let (text, pattern, finder) = (text_of(text)?, pattern_of(pattern)?, AddedFinder::of_names(&whole)?);
    let at = call(py, || Ok(crate::last_cut(text, &pattern, &finder, whole.iter().map(String::len).max().unwrap_or(0))))?;
    Ok(text[..at].chars().count())
}

#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("FormatError", m.py().get_type::<FormatError>())?;
    m.add("CLEANING_RULES", [GUTENBERG].into_iter().chain(RULES.map(|(name, _)| name)).collect::<Vec<_>>())?;
    m.add("MAX_PIECES_BYTES", MAX_PIECES_BYTES)?;
    m.add("PATTERNS", Pattern::NAMES.map(|(name, _)| name))?;
    m.add_class::<files::Files>()?;
    m.add_class::<transformer::PyDecoder>()?;
    m.add_class::<files::DocumentIterator>()?;
    m.add_class::<files::Verdicts>()?;
    m.add_class::<corpus::Counts>()?;
    m.add_class::<bpe::Bpe>()?;
    m.add_class::<shards::ShardSet>()?;
    m.add_function(wrap_pyfunction!(xxh3_file, m)?)?;
    m.add_function(wrap_pyfunction!(files::check_filters, m)?)?;
    m.add_function(wrap_pyfunction!(clean, m)?)?;
    m.add_function(wrap_pyfunction!(pieces, m)?)?;
    m.add_function(wrap_pyfunction!(last_cut, m)?)?;
    Ok(())
}
