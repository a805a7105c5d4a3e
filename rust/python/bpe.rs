//! The tokenizer.

use super::corpus::Counts;
use super::{call, call_with_job, pattern_of, text_of, texts_of};
use crate::{AddedToken, Encoder, Flags, Job, Vocab, learn};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// A shorter text is done before another Python thread could have used the time.
const SHORT_TEXT: usize = 1 << 12;
/// Ids of texts in a row, and where each text's end.
type Batch<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u64>>);

/// A vocabulary, indexed for speed; immutable.
#[pyclass(frozen, module = "tinygpt._core")]
pub(super) struct Bpe(pub(super) Encoder);

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
        let (specials, texts) = (self.0.specials(allowed)?, texts_of(texts, 0)?);
        call_with_job(py, threads, None, |job| self.0.encode_batch(&specials, &texts, job))
    }
}

#[pymethods]
impl Bpe {
    /// And how many different pieces it was learnt from, of how many, and the share of the text that they are.
    #[staticmethod]
    #[pyo3(signature = (counts, *, n_merges, pattern, special_tokens, max_bytes=None, consume=false))]
    #[allow(clippy::too_many_arguments)] // keywords in Python
    fn learn(
        py: Python<'_>,
        mut counts: PyRefMut<'_, Counts>,
        n_merges: usize,
        pattern: &str,
        special_tokens: Vec<String>,
        max_bytes: Option<u64>,
        consume: bool,
    ) -> PyResult<(Bpe, (u64, u64, f64))> {
        counts.check_pattern(pattern)?;
        let pattern = pattern_of(pattern)?;
        let empty = counts.counts.empty();
        let counts = if consume { std::mem::replace(&mut counts.counts, empty) } else { counts.counts.clone() };
        let (vocab, from) = call_with_job(py, Some(1), None, |job| {
            let learnt = learn(counts, n_merges, max_bytes, job)?;
            Ok((Vocab::trained(pattern, &learnt.merges, &special_tokens)?, learnt.coverage))
        })?;
        Ok((Bpe(Encoder::new(vocab)), (from.pieces, from.all_pieces, from.fraction)))
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
        let ids = self.ids_of(text, &allowed_special)?;
        // The first array imports numpy, which a signal that waits to be seen would break.
        text.py().check_signals()?;
        Ok(ids.into_pyarray(text.py()))
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
    ) -> PyResult<Batch<'py>> {
        let (ids, ends) = self.batch(py, &texts, &allowed_special, threads)?;
        py.check_signals()?;
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

    /// Both tokens of each merge; one that stands in several is one object.
    fn merge_tokens<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let tokens = self.tokens(py);
        let token = |id: u32| tokens[id as usize].clone();
        self.0.vocab().merges().iter().map(|merge| (token(merge.left), token(merge.right))).collect()
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
