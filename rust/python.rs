//! The border to Python: converts, releases the GIL, maps errors; no algorithm.
//!
//! Across it go strings, bytes, integers, lists of them and flat little-endian buffers that numpy views. Long calls let
//! other Python threads run, report progress and answer Ctrl-C a few times a second.

// Arguments come by value from Python, and what they are and raise stands in `_core.pyi`, where Python's readers look.
#![allow(clippy::needless_pass_by_value, missing_docs)]

use crate::clean::{RULES, rules};
use crate::error::Error;
use crate::sources::{Block, Documents, Sample, SampleSize, Source, TextFile, TextFiles, Texts, list_files};
use crate::{
    AddedToken, Cleaning, Encoder, Flags, Job, Pattern, Report, ShardFacts, Shards, Vocab, count_pieces, encode_to_shards, hash_file, learn,
};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pyo3::create_exception!(tinygpt, FormatError, PyValueError, "A file is damaged, or is not what it should be.");

/// Bytes that a thread is given at once.
const BLOCK_BYTES: usize = 1 << 20;
/// A shorter text is done before another Python thread could have used the time.
const SHORT_TEXT: usize = 1 << 12;
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
    let threads = match threads {
        Some(n) if n < 1 => return Err(PyValueError::new_err(format!("threads must be at least 1, got {n}"))),
        n => n.map(|n| n as usize),
    };
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

fn pattern_of(name: &str) -> PyResult<Pattern> {
    Ok(Pattern::from_name(name)?)
}

/// UTF-8 of Python strings, without a copy.
fn texts_of<'a>(texts: &'a [Bound<'_, PyString>]) -> PyResult<Vec<&'a str>> {
    let text = |(i, text): (usize, &'a Bound<'_, PyString>)| text.to_str().map_err(|_| surrogate(text, &format!("texts[{i}]")));
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

fn report_of(py: Python<'_>, report: Report) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("documents", report.documents)?;
    dict.set_item("bytes_read", report.bytes_read)?;
    dict.set_item("bytes_used", report.bytes_used)?;
    dict.set_item("invalid_sequences", report.invalid_sequences)?;
    Ok(dict)
}

/// Text files: which, what a document is in them, how they are cleaned.
#[pyclass(frozen, module = "tinygpt._core")]
struct Files {
    files: Vec<TextFile>,
    documents: Documents,
    cleaning: Cleaning,
}

impl Files {
    fn source(&self, pattern: &Pattern, val_fraction: Option<f64>, block_bytes: usize) -> TextFiles {
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
struct DocumentIterator {
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
#[derive(Clone, Default)]
struct Counts(crate::Counts);

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
        Ok(Counts(counts))
    }

    #[pyo3(signature = (texts, *, pattern="gpt2", special_tokens=Vec::new(), clean=Vec::new(), threads=None))]
    fn add_texts<'py>(
        &mut self,
        py: Python<'py>,
        texts: Vec<Bound<'py, PyString>>,
        pattern: &str,
        special_tokens: Vec<String>,
        clean: Vec<String>,
        threads: Option<i64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (pattern, texts) = (pattern_of(pattern)?, texts_of(&texts)?);
        let cleaning = Cleaning { rules: rules(&clean)?, ..Cleaning::none() };
        let mut source = Texts::new(&texts, pattern.clone(), None, BLOCK_BYTES);
        let (counts, report) =
            call_with_job(py, threads, None, |job| count_pieces(&mut source, &pattern, &special_tokens, &cleaning, job))?;
        self.0.merge(counts)?;
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
        let pattern = pattern_of(pattern)?;
        let size = SampleSize { bytes: max_bytes, documents: max_documents };
        let mut whole = files.source(&pattern, None, BLOCK_BYTES);
        // Smaller parts let a small sample come from many places.
        let part_bytes = max_bytes.map_or(BLOCK_BYTES, |bytes| (bytes / 64).clamp(1 << 12, BLOCK_BYTES as u64) as usize);
        let mut share = Sample::new(files.source(&pattern, None, part_bytes), size, files.total_bytes());
        let sampled = max_bytes.is_some() || max_documents.is_some();
        let (counts, report) = call_with_job(py, threads, progress, |job| {
            let source: &mut dyn Source = if sampled { &mut share } else { &mut whole };
            count_pieces(source, &pattern, &special_tokens, &files.cleaning, job)
        })?;
        self.0.merge(counts)?;
        let dict = report_of(py, report)?;
        if sampled {
            let (taken, seen) = share.taken_of();
            dict.set_item("sample", (taken.documents, taken.bytes))?;
            dict.set_item("sampled_from", (seen.documents, seen.bytes))?;
        }
        Ok(dict)
    }

    fn add(&mut self, other: &Counts) -> PyResult<()> {
        Ok(self.0.merge(other.0.clone())?)
    }

    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let mut result = Ok(());
        self.0
            .for_each(|piece, n| result = std::mem::replace(&mut result, Ok(())).and_then(|()| dict.set_item(PyBytes::new(py, piece), n)));
        result.map(|()| dict)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

/// A vocabulary, indexed for speed; immutable.
#[pyclass(frozen, module = "tinygpt._core")]
struct Bpe(Encoder);

impl Bpe {
    fn ids_of(&self, text: &Bound<'_, PyString>, allowed: &[String]) -> PyResult<Vec<u32>> {
        let (py, specials, text) = (text.py(), self.0.specials(allowed)?, text_of(text)?);
        if text.len() < SHORT_TEXT {
            return Ok(self.0.encode_one(&specials, text, &mut Job::new(Some(1), &mut |_| true)?)?);
        }
        call_with_job(py, Some(1), None, |job| self.0.encode_one(&specials, text, job))
    }

    fn batch(
        &self,
        py: Python<'_>,
        texts: &[Bound<'_, PyString>],
        allowed: &[String],
        threads: Option<i64>,
    ) -> PyResult<(Vec<u32>, Vec<u64>)> {
        let (specials, texts) = (self.0.specials(allowed)?, texts_of(texts)?);
        call_with_job(py, threads, None, |job| self.0.encode_batch(&specials, &texts, job))
    }
}

#[pymethods]
impl Bpe {
    #[staticmethod]
    #[pyo3(signature = (counts, *, n_merges, pattern, special_tokens, consume=false, progress=None))]
    fn learn(
        py: Python<'_>,
        mut counts: PyRefMut<'_, Counts>,
        n_merges: usize,
        pattern: &str,
        special_tokens: Vec<String>,
        consume: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bpe> {
        let pattern = pattern_of(pattern)?;
        let counts = if consume { std::mem::take(&mut counts.0) } else { counts.0.clone() };
        let vocab = call_with_job(py, Some(1), progress, |job| Vocab::trained(pattern, &learn(counts, n_merges, job)?, &special_tokens))?;
        Ok(Bpe(Encoder::new(vocab)))
    }

    /// Merges are `None` where ids are ranks; added tokens are content, id and the bits of [`Flags`].
    #[staticmethod]
    fn from_tokens(
        py: Python<'_>,
        pattern: &str,
        tokens: Vec<(Vec<u8>, u32)>,
        merges: Option<Vec<(Vec<u8>, Vec<u8>)>>,
        added: Vec<(String, u32, u8)>,
        whole_pieces: bool,
    ) -> PyResult<Bpe> {
        let pattern = pattern_of(pattern)?;
        let flags = |bits| Flags::from_bits(bits).ok_or_else(|| PyValueError::new_err(format!("flags must be from 0 to 31, got {bits}")));
        let token = |(content, id, bits)| Ok(AddedToken { content, id, flags: flags(bits)? });
        let added = added.into_iter().map(token).collect::<PyResult<Vec<AddedToken>>>()?;
        let vocab = call(py, || match merges {
            Some(merges) => Vocab::from_tokens(pattern, tokens, &merges, added, whole_pieces),
            None => Vocab::from_ranks(pattern, tokens, added),
        })?;
        Ok(Bpe(Encoder::new(vocab)))
    }

    fn encode(&self, text: &Bound<'_, PyString>, allowed_special: Vec<String>) -> PyResult<Vec<u32>> {
        self.ids_of(text, &allowed_special)
    }

    fn encode_to_numpy<'py>(&self, text: &Bound<'py, PyString>, allowed_special: Vec<String>) -> PyResult<Bound<'py, PyArray1<u32>>> {
        Ok(self.ids_of(text, &allowed_special)?.into_pyarray(text.py()))
    }

    fn encode_batch(
        &self,
        py: Python<'_>,
        texts: Vec<Bound<'_, PyString>>,
        allowed_special: Vec<String>,
        threads: Option<i64>,
    ) -> PyResult<Vec<Vec<u32>>> {
        let (ids, ends) = self.batch(py, &texts, &allowed_special, threads)?;
        let starts = std::iter::once(0).chain(ends.iter().copied());
        Ok(starts.zip(&ends).map(|(start, end)| ids[start as usize..*end as usize].to_vec()).collect())
    }

    fn encode_batch_to_numpy<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<Bound<'py, PyString>>,
        allowed_special: Vec<String>,
        threads: Option<i64>,
    ) -> PyResult<(Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u64>>)> {
        let (ids, ends) = self.batch(py, &texts, &allowed_special, threads)?;
        Ok((ids.into_pyarray(py), ends.into_pyarray(py)))
    }

    fn decode<'py>(&self, py: Python<'py>, ids: PyReadonlyArray1<'_, u32>) -> PyResult<Bound<'py, PyBytes>> {
        let ids = ids.as_slice()?;
        let length = call(py, || self.0.decoded_bytes(ids))?;
        PyBytes::new_with(py, length, |bytes| {
            py.detach(|| self.0.decode_into(ids, bytes));
            Ok(())
        })
    }

    fn token_bytes<'py>(&self, py: Python<'py>, id: u32) -> PyResult<Bound<'py, PyBytes>> {
        let size = self.0.vocab().len();
        let unknown = || PyValueError::new_err(format!("id {id} is not in the vocabulary of {size} ids"));
        Ok(PyBytes::new(py, self.0.vocab().bytes(id).ok_or_else(unknown)?))
    }

    fn token_to_id(&self, token: &[u8]) -> Option<u32> {
        self.0.id(token)
    }

    /// Text bytes of every id; empty for special tokens and unused ids.
    fn tokens<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.vocab().tokens().iter().map(|token| PyBytes::new(py, token)).collect()
    }

    fn merges(&self) -> Vec<(u32, u32)> {
        self.0.vocab().merges().iter().map(|merge| (merge.left, merge.right)).collect()
    }

    /// The tokens that merging or looking up a piece may give.
    fn model_tokens<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, u32)> {
        self.0.vocab().model_tokens().map(|(id, token)| (PyBytes::new(py, token), id)).collect()
    }

    fn special_tokens(&self) -> Vec<(String, u32)> {
        self.0.vocab().specials().to_vec()
    }

    /// Content, id and flags of every added token, special or not.
    fn added_tokens(&self) -> Vec<(String, u32, u8)> {
        self.0.vocab().added().iter().map(|token| (token.content.clone(), token.id, token.flags.bits())).collect()
    }

    fn whole_pieces(&self) -> bool {
        self.0.vocab().whole_pieces()
    }

    /// Why ids as ranks would not give the same ids, if they would not.
    fn rank_fault(&self, py: Python<'_>) -> PyResult<Option<String>> {
        call(py, || self.0.vocab().rank_fault())
    }

    fn pattern(&self) -> String {
        self.0.vocab().pattern().name().into_owned()
    }

    fn fingerprint(&self) -> String {
        self.0.vocab().fingerprint().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn __len__(&self) -> usize {
        self.0.vocab().len()
    }
}

/// The shards of a folder, being written: add files or texts, then finish once.
#[pyclass(module = "tinygpt._core")]
struct ShardSet {
    /// `None` where ids come from outside.
    bpe: Option<Py<Bpe>>,
    val_fraction: f64,
    shards: Option<Shards>,
}

#[pymethods]
impl ShardSet {
    #[new]
    #[pyo3(signature = (folder, bpe, *, eot_id, shard_tokens, val_fraction))]
    fn new(folder: PathBuf, bpe: Py<Bpe>, eot_id: Option<u32>, shard_tokens: u64, val_fraction: f64) -> PyResult<ShardSet> {
        let shards = Shards::new(&folder, &bpe.get().0, eot_id, shard_tokens, val_fraction)?;
        Ok(ShardSet { bpe: Some(bpe), val_fraction, shards: Some(shards) })
    }

    /// For ids of another tokenizer; `lengths` are the bytes of text of each.
    #[staticmethod]
    #[pyo3(signature = (folder, *, lengths, fingerprint, eot_id, shard_tokens, val_fraction))]
    fn of_ids(
        folder: PathBuf,
        lengths: Vec<u32>,
        fingerprint: [u8; 32],
        eot_id: Option<u32>,
        shard_tokens: u64,
        val_fraction: f64,
    ) -> PyResult<ShardSet> {
        let shards = Shards::of_ids(&folder, lengths, fingerprint, eot_id, shard_tokens, val_fraction)?;
        Ok(ShardSet { bpe: None, val_fraction, shards: Some(shards) })
    }

    /// Documents and their ids, little-endian uint32.
    fn add_ids(&mut self, py: Python<'_>, texts: Vec<Bound<'_, PyString>>, ids: Vec<Vec<u8>>) -> PyResult<()> {
        let (texts, shards) = (texts_of(&texts)?, self.shards.as_mut().ok_or_else(finished)?);
        call(py, || {
            texts.iter().zip(&ids).try_for_each(|(text, ids)| {
                let ids: Vec<u32> = ids.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect();
                shards.add_document(text, &ids)
            })
        })
    }

    /// Name of the tokens' type.
    fn dtype(&self) -> PyResult<&'static str> {
        self.shards.as_ref().map(|shards| shards.token_type().name()).ok_or_else(finished)
    }

    #[pyo3(signature = (files, *, threads=None, progress=None))]
    fn add_files<'py>(
        &mut self,
        py: Python<'py>,
        files: &Files,
        threads: Option<i64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (encoder, shards) = (&self.bpe.as_ref().ok_or_else(of_ids)?.get().0, self.shards.as_mut().ok_or_else(finished)?);
        let mut source = files.source(encoder.vocab().pattern(), Some(self.val_fraction), BLOCK_BYTES);
        let report = call_with_job(py, threads, progress, |job| encode_to_shards(&mut source, encoder, &files.cleaning, shards, job))?;
        let dict = report_of(py, report)?;
        let read: Vec<(u64, String)> = source.read().iter().map(|(bytes, hash)| (*bytes, format!("{hash:016x}"))).collect();
        dict.set_item("read", read)?;
        Ok(dict)
    }

    #[pyo3(signature = (texts, *, clean=Vec::new(), threads=None))]
    fn add_texts<'py>(
        &mut self,
        py: Python<'py>,
        texts: Vec<Bound<'py, PyString>>,
        clean: Vec<String>,
        threads: Option<i64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (encoder, shards) = (&self.bpe.as_ref().ok_or_else(of_ids)?.get().0, self.shards.as_mut().ok_or_else(finished)?);
        let cleaning = Cleaning { rules: rules(&clean)?, ..Cleaning::none() };
        let texts = texts_of(&texts)?;
        let mut source = Texts::new(&texts, encoder.vocab().pattern().clone(), Some(self.val_fraction), BLOCK_BYTES);
        let report = call_with_job(py, threads, None, |job| encode_to_shards(&mut source, encoder, &cleaning, shards, job))?;
        report_of(py, report)
    }

    /// The facts of train and val, a dict a shard.
    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<[Vec<Bound<'py, PyDict>>; 2]> {
        let shards = self.shards.take().ok_or_else(finished)?;
        let [train, val] = call(py, || shards.finish())?;
        let dicts = |facts: Vec<ShardFacts>| facts.iter().map(|facts| facts_of(py, facts)).collect::<PyResult<Vec<_>>>();
        Ok([dicts(train)?, dicts(val)?])
    }
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
    Ok(crate::clean(&rules(&names)?, text_of(text)?, true).into_owned())
}

/// The pieces of a text, as bytes.
#[pyfunction]
#[pyo3(signature = (text, pattern="gpt2"))]
fn pieces<'py>(text: &Bound<'py, PyString>, pattern: &str) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    Ok(pattern_of(pattern)?.pieces(text_of(text)?).map(|piece| PyBytes::new(text.py(), piece)).collect())
}

#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("FormatError", m.py().get_type::<FormatError>())?;
    m.add("CLEANING_RULES", RULES.map(|(name, _)| name))?;
    m.add("PATTERNS", Pattern::NAMES.map(|(name, _)| name))?;
    m.add_class::<Files>()?;
    m.add_class::<DocumentIterator>()?;
    m.add_class::<Counts>()?;
    m.add_class::<Bpe>()?;
    m.add_class::<ShardSet>()?;
    m.add_function(wrap_pyfunction!(xxh3_file, m)?)?;
    m.add_function(wrap_pyfunction!(clean, m)?)?;
    m.add_function(wrap_pyfunction!(pieces, m)?)?;
    Ok(())
}
