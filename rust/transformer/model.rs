//! The weights of a GPT by name and shape, checked and laid out for the pass.

use super::matrix::{Element, Matrix, Rows, Store, padded};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// What is written before, between and after the matrices; the names are those of `modelconfig.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Over the root mean square.
    Rms,
    /// Less the mean, over the deviation.
    Layer,
}

/// The feed-forward's middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Gated by `SiLU`.
    SwiGlu,
    /// Gated by GELU.
    GeGlu,
    /// GELU alone.
    Gelu,
}

/// How a token knows its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Places {
    /// Queries and keys turned, with this base of the wavelengths.
    Rotary(f32),
    /// A vector added, one for each place, given as the tensor `position.weight`.
    Table,
}

/// Sizes and options of a model; the fields are those of `GPTConfig`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Shape {
    pub vocab_size: usize,
    pub block_size: usize,
    pub n_layer: usize,
    pub n_head: usize,
    pub n_kv: usize,
    pub d_model: usize,
    pub d_inner: usize,
    pub places: Places,
    pub norm: Norm,
    pub activation: Activation,
    pub norm_eps: f32,
}

/// Tensors by their names in `model.py`, float32, by rows.
pub type Tensors<'a> = HashMap<String, &'a [f32]>;

impl Shape {
    pub(crate) fn d_head(&self) -> usize {
        self.d_model / self.n_head
    }

    /// Outputs of the layer that makes queries, keys and values.
    pub(crate) fn d_qkv(&self) -> usize {
        (self.n_head + 2 * self.n_kv) * self.d_head()
    }

    /// Outputs of the feed-forward's first layer.
    pub(crate) fn d_up(&self) -> usize {
        self.d_inner * if self.activation == Activation::Gelu { 1 } else { 2 }
    }

    /// Rows and columns of all matrices.
    fn matrices(&self, has_head: bool) -> impl Iterator<Item = (usize, usize)> {
        let c = self.d_model;
        let layer = [(self.d_qkv(), c), (c, c), (self.d_up(), c), (c, self.d_inner)];
        let ends = [(self.vocab_size, c)].repeat(if has_head { 2 } else { 1 });
        ends.into_iter().chain([layer].repeat(self.n_layer).into_iter().flatten())
    }

    fn check(&self) -> Result<()> {
        let sizes = [self.vocab_size, self.block_size, self.n_layer, self.n_head, self.n_kv, self.d_model, self.d_inner];
        let is_whole = !sizes.contains(&0) && self.d_model.is_multiple_of(self.n_head) && self.n_head.is_multiple_of(self.n_kv);
        if !is_whole || (self.places != Places::Table && !self.d_head().is_multiple_of(2)) {
            return Err(Error::Invalid(format!("no model has the shape {self:?}")));
        }
        Ok(())
    }
}

pub(crate) struct Linear {
    pub weight: Matrix,
    pub bias: Vec<f32>,
}

pub(crate) struct Gain {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

pub(crate) struct Layer {
    pub attention_norm: Gain,
    pub qkv: Linear,
    /// Empty where queries and keys are not normalised.
    pub q_norm: Vec<f32>,
    pub k_norm: Vec<f32>,
    pub output: Linear,
    pub feed_forward_norm: Gain,
    pub up: Linear,
    pub down: Linear,
}

pub(crate) struct Model<E> {
    pub shape: Shape,
    store: Store<E>,
    pub embedding: Matrix,
    /// Vectors added by place, or nothing.
    pub places: Vec<f32>,
    /// Cosines and sines by place, `d_head / 2` each, or nothing.
    pub turns: Vec<(f32, f32)>,
    pub layers: Vec<Layer>,
    pub norm: Gain,
    /// None where the embedding is the head, too.
    pub head: Option<Matrix>,
}

impl<E: Element> Model<E> {
    pub fn new(shape: &Shape, tensors: &Tensors<'_>) -> Result<Model<E>> {
        shape.check()?;
        let (c, d) = (shape.d_model, shape.d_head());
        let vector = |name: &str, n: usize| -> Result<Vec<f32>> { Ok(find(tensors, name, n)?.to_vec()) };
        let maybe = |name: &str, n: usize| if tensors.contains_key(name) { vector(name, n) } else { Ok(Vec::new()) };
        let has_head = tensors.contains_key("head.weight");
        let mut store = Store::new(shape.matrices(has_head));
        let mut matrix = |name: &str, n_rows: usize, n_columns: usize| Ok(store.push(find(tensors, name, n_rows * n_columns)?, n_rows));
        let embedding = matrix("token_embedding.weight", shape.vocab_size, c)?;
        let head = if has_head { Some(matrix("head.weight", shape.vocab_size, c)?) } else { None };
        let mut linear = |name: &str, n_rows: usize, n_columns: usize| -> Result<Linear> {
            Ok(Linear { weight: matrix(&format!("{name}.weight"), n_rows, n_columns)?, bias: maybe(&format!("{name}.bias"), n_rows)? })
        };
        let gain = |name: &str| -> Result<Gain> {
            Ok(Gain { weight: vector(&format!("{name}.weight"), c)?, bias: maybe(&format!("{name}.bias"), c)? })
        };
        let mut layer = |i: usize| -> Result<Layer> {
            let name = |part: &str| format!("blocks.{i}.{part}");
            Ok(Layer {
                attention_norm: gain(&name("attention_norm"))?,
                qkv: linear(&name("attention.qkv"), shape.d_qkv(), c)?,
                q_norm: maybe(&name("attention.q_norm.weight"), d)?,
                k_norm: maybe(&name("attention.k_norm.weight"), d)?,
                output: linear(&name("attention.output"), c, c)?,
                feed_forward_norm: gain(&name("feed_forward_norm"))?,
                up: linear(&name("feed_forward.up"), shape.d_up(), c)?,
                down: linear(&name("feed_forward.down"), c, shape.d_inner)?,
            })
        };
        let layers = (0..shape.n_layer).map(&mut layer).collect::<Result<_>>()?;
        Ok(Model {
            embedding,
            places: if shape.places == Places::Table { vector("position.weight", shape.block_size * c)? } else { Vec::new() },
            turns: if let Places::Rotary(theta) = shape.places { turns(shape, theta) } else { Vec::new() },
            layers,
            norm: gain("norm")?,
            head,
            store,
            shape: shape.clone(),
        })
    }

    /// The rows of one of its matrices.
    #[inline(always)]
    pub fn rows(&self, matrix: &Matrix) -> Rows<'_, E> {
        self.store.rows(matrix)
    }

    /// A head's width as keys and values lie in memory.
    pub fn d_padded(&self) -> usize {
        padded(self.shape.d_head())
    }
}

fn find<'a>(tensors: &Tensors<'a>, name: &str, n: usize) -> Result<&'a [f32]> {
    let found = tensors.get(name).ok_or_else(|| Error::Invalid(format!("the model has no tensor {name}")))?;
    if found.len() != n {
        return Err(Error::Invalid(format!("{name} must hold {n} numbers for this shape, got {}", found.len())));
    }
    Ok(found)
}

/// Angles as `positions.py` has them: in float32, one step after the other.
fn turns(shape: &Shape, theta: f32) -> Vec<(f32, f32)> {
    let half = shape.d_head() / 2;
    let frequencies: Vec<f32> = (0..half).map(|i| 1.0 / theta.powf((2 * i) as f32 / shape.d_head() as f32)).collect();
    (0..shape.block_size)
        .flat_map(|place| frequencies.iter().map(move |f| place as f32 * f))
        .map(|angle| (angle.cos(), angle.sin()))
        .collect()
}
