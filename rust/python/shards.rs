//! Shards being written.

use super::bpe::Bpe;
use super::corpus::Files;
use super::{BLOCK_BYTES, call, call_with_job, report_of, texts_of};
use crate::clean::rules;
use crate::sources::Texts;
use crate::{Cleaning, ShardFacts, Shards, encode_to_shards};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::path::PathBuf;

/// The shards of a folder, being written: add files or texts, then finish once.
#[pyclass(module = "tinygpt._core")]
pub(super) struct ShardSet {
    /// `None` where ids come from outside.
    bpe: Option<Py<Bpe>>,
    val_fraction: f64,
    shards: Option<Shards>,
}

#[pymethods]
impl ShardSet {
    #[new]
    #[pyo3(signature = (folder, bpe, *, eot_id, shard_tokens, val_fraction))]
    fn new(folder: PathBuf, bpe: Py<Bpe>, eot_id: Option<u32>, shard_tokens: i64, val_fraction: f64) -> PyResult<ShardSet> {
        let shards = Shards::new(&folder, &bpe.get().0, eot_id, positive(shard_tokens)?, val_fraction)?;
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
        shard_tokens: i64,
        val_fraction: f64,
    ) -> PyResult<ShardSet> {
        let shards = Shards::of_ids(&folder, lengths, fingerprint, eot_id, positive(shard_tokens)?, val_fraction)?;
        Ok(ShardSet { bpe: None, val_fraction, shards: Some(shards) })
    }

    /// Documents and their ids, little-endian uint32.
    #[pyo3(signature = (texts, ids, *, first=0))]
    fn add_ids(&mut self, py: Python<'_>, texts: Vec<Bound<'_, PyString>>, ids: Vec<Vec<u8>>, first: usize) -> PyResult<()> {
        let (texts, shards) = (texts_of(&texts, first)?, self.shards.as_mut().ok_or_else(finished)?);
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
        let mut source = files.source(encoder.vocab().pattern(), Some(self.val_fraction), BLOCK_BYTES).keeping(encoder.ordinary());
        let report = call_with_job(py, threads, progress, |job| encode_to_shards(&mut source, encoder, &files.cleaning, shards, job))?;
        let dict = report_of(py, report)?;
        let read: Vec<(u64, String)> = source.read().iter().map(|(bytes, hash)| (*bytes, format!("{hash:016x}"))).collect();
        dict.set_item("read", read)?;
        Ok(dict)
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
        let cleaning = Cleaning { rules: rules(&clean)?, ..Cleaning::none() };
        let texts = texts_of(&texts, first)?;
        let pattern = encoder.vocab().pattern().clone();
        let mut source = Texts::new(&texts, pattern, Some(self.val_fraction), BLOCK_BYTES).keeping(encoder.ordinary());
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
    Ok(dict)
}
