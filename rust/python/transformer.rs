//! `_core.Decoder`: the forward pass for generation.

use super::call;
use crate::transformer::{Activation, Decoder, Feed, Norm, Places, Precision, Shape, Tensors};
use numpy::{IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArrayDyn};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, TryLockError};

#[pyclass(name = "Decoder", module = "tinygpt._core", frozen)]
pub(super) struct PyDecoder {
    decoder: Mutex<Decoder>,
    vocab_size: usize,
}

impl PyDecoder {
    /// The decoder, unless another thread is using it, which is a fault of the caller's.
    fn lock(&self) -> PyResult<MutexGuard<'_, Decoder>> {
        match self.decoder.try_lock() {
            Ok(decoder) => Ok(decoder),
            Err(TryLockError::WouldBlock) => Err(PyRuntimeError::new_err("a decoder belongs to one thread at a time")),
            Err(TryLockError::Poisoned(_)) => Err(PyRuntimeError::new_err("this decoder has failed; make another")),
        }
    }
}

#[pymethods]
impl PyDecoder {
    #[new]
    #[pyo3(signature = (tensors, *, vocab_size, block_size, n_layer, n_head, n_kv, d_model, d_inner, norm, norm_eps, mlp, rope_theta, dtype, n_slots, threads))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        tensors: HashMap<String, PyReadonlyArrayDyn<'_, f32>>,
        vocab_size: usize,
        block_size: usize,
        n_layer: usize,
        n_head: usize,
        n_kv: usize,
        d_model: usize,
        d_inner: usize,
        norm: &str,
        norm_eps: f32,
        mlp: &str,
        rope_theta: Option<f32>,
        dtype: &str,
        n_slots: usize,
        threads: usize,
    ) -> PyResult<PyDecoder> {
        let unknown = |name: &str, found: &str| PyValueError::new_err(format!("{name} {found:?} is unknown here"));
        let shape = Shape {
            vocab_size,
            block_size,
            n_layer,
            n_head,
            n_kv,
            d_model,
            d_inner,
            norm_eps,
            places: rope_theta.map_or(Places::Table, Places::Rotary),
            norm: match norm {
                "rmsnorm" => Norm::Rms,
                "layernorm" => Norm::Layer,
                _ => return Err(unknown("norm", norm)),
            },
            activation: match mlp {
                "swiglu" => Activation::SwiGlu,
                "geglu" => Activation::GeGlu,
                "gelu" => Activation::Gelu,
                _ => return Err(unknown("mlp", mlp)),
            },
        };
        let precision = match dtype {
            "float32" => Precision::Float32,
            "bfloat16" => Precision::Bfloat16,
            "int8" => Precision::Int8,
            _ => return Err(unknown("dtype", dtype)),
        };
        let mut slices = Tensors::new();
        for (name, tensor) in &tensors {
            slices.insert(name.clone(), tensor.as_slice().map_err(|_| PyValueError::new_err(format!("{name} must be contiguous")))?);
        }
        let decoder = call(py, || Decoder::new(&shape, &slices, precision, n_slots, threads))?;
        Ok(PyDecoder { decoder: Mutex::new(decoder), vocab_size })
    }

    fn n_seen(&self) -> PyResult<Vec<usize>> {
        Ok(self.lock()?.n_seen().to_vec())
    }

    fn cut(&self, slot: usize, n: usize) -> PyResult<()> {
        Ok(self.lock()?.cut(slot, n)?)
    }

    #[pyo3(signature = (feeds, *, every = false))]
    fn extend<'py>(&self, py: Python<'py>, feeds: Vec<(usize, Vec<u32>)>, every: bool) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let feeds: Vec<Feed> = feeds.into_iter().map(|(slot, ids)| Feed { slot, ids }).collect();
        let mut decoder = self.lock()?;
        let decoder: &mut Decoder = &mut decoder;
        let logits = call(py, || decoder.extend(&feeds, every))?;
        let n_rows = logits.len() / self.vocab_size;
        logits.into_pyarray(py).reshape([n_rows, self.vocab_size])
    }
}
