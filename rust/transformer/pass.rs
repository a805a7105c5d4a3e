//! One pass: rows of new tokens through all layers, by all threads together.

use super::kernels::{Block, Machine, Products, exponentials, fused, gelu, layer_norm, product, rms_norm, silu, total};
use super::matrix::{Element, LANES, Lanes, Rows, SIDE, padded};
use super::model::{Activation, Gain, Layer, Linear, Model, Norm};
use super::shared::{Barrier, Shared};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows of a pass at most: what lies between two layers stays within a few megabytes.
pub(crate) const MAX_ROWS: usize = 256;
/// Rows of weights in a task at most: 128 of 512 numbers in bfloat16 stay in the second cache.
const MAX_TASK_ROWS: usize = 128;

/// A new token: of which stream, at which place in it.
pub(crate) struct Row {
    pub slot: usize,
    pub place: usize,
    pub id: usize,
}

/// Keys and values of what each stream has seen, by layer, stream, head and place.
pub(crate) struct Cache<C> {
    pub keys: Shared<C>,
    pub values: Shared<C>,
    pub n_slots: usize,
}

impl<C: Element> Cache<C> {
    pub fn new<E: Element>(model: &Model<E>, n_slots: usize) -> Cache<C> {
        let shape = &model.shape;
        let n = shape.n_layer * n_slots * shape.n_kv * shape.block_size * model.d_padded();
        Cache { keys: Shared::large(n), values: Shared::large(n), n_slots }
    }
}

/// What lies between the layers, a row for each token, padded with zeros as the weights are; what linear layers multiply
/// is kept as the machine wants it.
pub(crate) struct Buffers<I> {
    x: Shared<f32>,
    normed: Shared<I>,
    qkv: Shared<f32>,
    queries: Shared<f32>,
    mixed: Shared<I>,
    up: Shared<f32>,
    inner: Shared<I>,
    counters: Vec<AtomicUsize>,
}

impl<I: Element> Buffers<I> {
    pub fn new<E: Element>(model: &Model<E>) -> Buffers<I> {
        let shape = &model.shape;
        let size = |n: usize| MAX_ROWS * padded(n);
        Buffers {
            x: Shared::new(size(shape.d_model)),
            normed: Shared::new(size(shape.d_model)),
            qkv: Shared::new(size(shape.d_qkv())),
            queries: Shared::new(size(shape.n_head * model.d_padded())),
            mixed: Shared::new(size(shape.d_model)),
            up: Shared::new(size(shape.d_up())),
            inner: Shared::new(size(shape.d_inner)),
            counters: (0..shape.n_layer * 9 + 3).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// To be called before each pass.
    pub fn begin(&mut self) {
        for counter in &mut self.counters {
            *counter.get_mut() = 0;
        }
    }
}

/// All that the threads of a pass have in common.
pub(crate) struct Pass<'a, E: Element, M: Products<E>> {
    pub model: &'a Model<E>,
    pub cache: &'a Cache<E::Cached>,
    pub buffers: &'a Buffers<M::Input>,
    pub rows: &'a [Row],
    /// The rows whose logits are wanted, and where they go, a row of the vocabulary for each.
    pub wanted: &'a [usize],
    pub logits: &'a Shared<f32>,
    pub barrier: &'a Barrier,
    pub n_threads: usize,
}

/// One thread's way through the phases.
struct Worker<'a, E: Element, M: Products<E>> {
    pass: &'a Pass<'a, E, M>,
    phase: usize,
    scores: Vec<Lanes>,
}

/// The whole pass, as each of its threads runs it.
#[inline(always)]
pub(crate) fn run<E: Element, M: Products<E>>(pass: &Pass<'_, E, M>) {
    let (model, buffers) = (pass.model, pass.buffers);
    let scores = vec![[0.0; LANES]; model.shape.block_size.div_ceil(LANES)];
    let mut worker = Worker { pass, phase: 0, scores };
    worker.embed();
    for (i, layer) in model.layers.iter().enumerate() {
        worker.normalise(&layer.attention_norm);
        worker.linear(&layer.qkv, &buffers.normed, &buffers.qkv, false);
        worker.place(i, layer);
        worker.attend(i);
        worker.linear(&layer.output, &buffers.mixed, &buffers.x, true);
        worker.normalise(&layer.feed_forward_norm);
        worker.linear(&layer.up, &buffers.normed, &buffers.up, false);
        worker.activate();
        worker.linear(&layer.down, &buffers.inner, &buffers.x, true);
    }
    worker.choose();
    let head = model.rows(model.head.as_ref().unwrap_or(&model.embedding));
    worker.multiply(&head, &[], &buffers.normed, pass.wanted.len(), pass.logits, model.shape.vocab_size, false);
}

// SAFETY, for all that follows: a task of a phase writes the rows, or the columns, that its number stands for, and reads
// what earlier phases wrote; `end` is the barrier between them.
#[allow(unsafe_code)]
impl<E: Element, M: Products<E>> Worker<'_, E, M> {
    /// The next task of `n` in this phase, for whoever comes first.
    #[inline(always)]
    fn next(&self, n: usize) -> Option<usize> {
        let task = self.pass.buffers.counters[self.phase].fetch_add(1, Ordering::Relaxed);
        (task < n).then_some(task)
    }

    #[inline(always)]
    fn end(&mut self) {
        self.phase += 1;
        self.pass.barrier.wait();
    }

    #[inline(always)]
    fn embed(&mut self) {
        let (model, c) = (self.pass.model, self.pass.model.shape.d_model);
        while let Some(r) = self.next(self.pass.rows.len()) {
            let row = &self.pass.rows[r];
            let x = unsafe { self.pass.buffers.x.write(r * padded(c), c) };
            model.rows(&model.embedding).read(row.id, x);
            if !model.places.is_empty() {
                for (x, added) in x.iter_mut().zip(&model.places[row.place * c..]) {
                    *x += added;
                }
            }
        }
        self.end();
    }

    #[inline(always)]
    fn normalise(&mut self, gain: &Gain) {
        while let Some(r) = self.next(self.pass.rows.len()) {
            self.norm(gain, r, r);
        }
        self.end();
    }

    /// The last norm, of the rows whose logits are wanted.
    #[inline(always)]
    fn choose(&mut self) {
        while let Some(i) = self.next(self.pass.wanted.len()) {
            self.norm(&self.pass.model.norm, self.pass.wanted[i], i);
        }
        self.end();
    }

    #[inline(always)]
    fn norm(&self, gain: &Gain, from: usize, to: usize) {
        let (shape, buffers) = (&self.pass.model.shape, self.pass.buffers);
        let (c, stride) = (shape.d_model, padded(shape.d_model));
        let (x, y) = unsafe { (buffers.x.read(from * stride, c), buffers.normed.write(to * stride, c)) };
        match shape.norm {
            Norm::Rms => rms_norm::<_, M>(x, &gain.weight, shape.norm_eps, y),
            Norm::Layer => layer_norm::<_, M>(x, &gain.weight, &gain.bias, shape.norm_eps, y),
        }
    }

    #[inline(always)]
    fn linear(&mut self, layer: &Linear, inputs: &Shared<M::Input>, outputs: &Shared<f32>, is_added: bool) {
        let stride = padded(layer.weight.n_rows);
        let weights = self.pass.model.rows(&layer.weight);
        self.multiply(&weights, &layer.bias, inputs, self.pass.rows.len(), outputs, stride, is_added);
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn multiply(
        &mut self,
        weights: &Rows<'_, E>,
        bias: &[f32],
        inputs: &Shared<M::Input>,
        n_inputs: usize,
        outputs: &Shared<f32>,
        output_stride: usize,
        is_added: bool,
    ) {
        // Four tasks a thread at least, so that none waits long for another.
        let n = (weights.n_rows / (4 * self.pass.n_threads)).clamp(SIDE, MAX_TASK_ROWS) / SIDE * SIDE;
        let inputs = unsafe { inputs.read(0, n_inputs * weights.stride) };
        while let Some(task) = self.next(weights.n_rows.div_ceil(n)) {
            let rows = task * n..((task + 1) * n).min(weights.n_rows);
            M::block(&Block { weights, bias, rows, inputs, n_inputs, outputs, output_stride, is_added });
        }
        self.end();
    }

    /// Queries to their buffer, keys and values into the cache; the first two normalised and turned as the model wants.
    #[inline(always)]
    fn place(&mut self, i: usize, layer: &Layer) {
        let (shape, buffers) = (&self.pass.model.shape, self.pass.buffers);
        let (d, d_padded) = (shape.d_head(), self.pass.model.d_padded());
        let mut turned = vec![0.0; d];
        while let Some(r) = self.next(self.pass.rows.len()) {
            let row = &self.pass.rows[r];
            let qkv = unsafe { buffers.qkv.read(r * padded(shape.d_qkv()), shape.d_qkv()) };
            for (head, from) in qkv.chunks_exact(d).enumerate() {
                if head < shape.n_head {
                    let first = r * padded(shape.n_head * d_padded) + head * d_padded;
                    self.turn(from, &layer.q_norm, row.place, &mut turned);
                    unsafe { buffers.queries.write(first, d) }.copy_from_slice(&turned);
                } else if head < shape.n_head + shape.n_kv {
                    self.turn(from, &layer.k_norm, row.place, &mut turned);
                    let first = self.cached(i, row.slot, head - shape.n_head) + row.place * d_padded;
                    store(&turned, unsafe { self.pass.cache.keys.write(first, d) });
                } else {
                    let first = self.cached(i, row.slot, head - shape.n_head - shape.n_kv) + row.place * d_padded;
                    store(from, unsafe { self.pass.cache.values.write(first, d) });
                }
            }
        }
        self.end();
    }

    #[inline(always)]
    fn turn(&self, from: &[f32], norm: &[f32], place: usize, to: &mut [f32]) {
        let model = self.pass.model;
        if norm.is_empty() {
            to.copy_from_slice(from);
        } else {
            rms_norm::<_, M>(from, norm, model.shape.norm_eps, to);
        }
        if !model.turns.is_empty() {
            let half = to.len() / 2;
            let (first, second) = to.split_at_mut(half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(&model.turns[place * half..]) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }

    /// Where the keys and values of a stream's head begin.
    #[inline(always)]
    fn cached(&self, layer: usize, slot: usize, head: usize) -> usize {
        let shape = &self.pass.model.shape;
        ((layer * self.pass.cache.n_slots + slot) * shape.n_kv + head) * shape.block_size * self.pass.model.d_padded()
    }

    /// Values mixed by softmax of queries times keys.
    #[inline(always)]
    fn attend(&mut self, i: usize) {
        let (shape, buffers, cache) = (&self.pass.model.shape, self.pass.buffers, self.pass.cache);
        let (d, d_padded) = (shape.d_head(), self.pass.model.d_padded());
        let scale = 1.0 / (d as f32).sqrt();
        while let Some(task) = self.next(self.pass.rows.len() * shape.n_head) {
            let (r, head) = (task / shape.n_head, task % shape.n_head);
            let row = &self.pass.rows[r];
            let first = self.cached(i, row.slot, head / (shape.n_head / shape.n_kv));
            let n = row.place + 1;
            let (keys, values) = unsafe { (cache.keys.read(first, n * d_padded), cache.values.read(first, n * d_padded)) };
            let query = unsafe { buffers.queries.read(r * padded(shape.n_head * d_padded) + head * d_padded, d_padded) };
            let scores = &mut self.scores[..n.div_ceil(LANES)];
            let sum = weigh::<E::Cached, M>(query, keys, scale, n, scores);
            let mixed = unsafe { buffers.mixed.write(r * padded(shape.d_model) + head * d, d) };
            mix::<E::Cached, _, M>(scores.as_flattened(), values, d_padded, 1.0 / sum, mixed);
        }
        self.end();
    }

    #[inline(always)]
    fn activate(&mut self) {
        let (shape, buffers) = (&self.pass.model.shape, self.pass.buffers);
        let n = shape.d_inner;
        // A single row is cut, so that all threads have some of it.
        let parts = n.div_ceil(n.div_ceil(self.pass.n_threads).next_multiple_of(LANES));
        let width = n.div_ceil(parts).next_multiple_of(LANES);
        while let Some(task) = self.next(self.pass.rows.len() * parts) {
            let (r, first) = (task / parts, task % parts * width);
            let width = width.min(n.saturating_sub(first));
            let y = unsafe { buffers.inner.write(r * padded(n) + first, width) };
            let up = unsafe { buffers.up.read(r * padded(shape.d_up()), shape.d_up()) };
            let x = &up[first..first + width];
            let gated = if shape.activation == Activation::Gelu { x } else { &up[n + first..][..width] };
            // Loops, no closures: those would be compiled for the plain machine.
            for i in 0..width {
                let value = match shape.activation {
                    Activation::Gelu => gelu::<M>(x[i]),
                    Activation::GeGlu => gelu::<M>(x[i]) * gated[i],
                    Activation::SwiGlu => silu::<M>(x[i]) * gated[i],
                };
                y[i] = M::Input::store(value, 1.0);
            }
        }
        self.end();
    }
}

#[inline(always)]
fn store<C: Element>(from: &[f32], to: &mut [C]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = C::store(*from, 1.0);
    }
}

/// e to each scaled product of the query with `n` keys less the largest; returns their sum.
#[inline(always)]
fn weigh<C: Element, M: Machine>(query: &[f32], keys: &[C], scale: f32, n: usize, scores: &mut [Lanes]) -> f32 {
    let query = query.as_chunks::<LANES>().0;
    let flat = scores.as_flattened_mut();
    flat[n..].fill(f32::NEG_INFINITY);
    let mut largest = f32::NEG_INFINITY;
    for (score, key) in flat.iter_mut().zip(keys.chunks_exact(query.len() * LANES)) {
        *score = product::<C, M>(query, key.as_chunks().0) * scale;
        largest = largest.max(*score);
    }
    for score in flat {
        *score -= largest;
    }
    exponentials::<M>(scores);
    let mut sums = [0.0; LANES];
    for lanes in &*scores {
        for i in 0..LANES {
            sums[i] += lanes[i];
        }
    }
    total(&sums)
}

/// The sum of the values, each times its weight, times `scale`.
#[inline(always)]
fn mix<C: Element, O: Element, M: Machine>(weights: &[f32], values: &[C], d_padded: usize, scale: f32, mixed: &mut [O]) {
    // Four registers at once: heads are 64 wide, or padded to that.
    for (part, mixed) in mixed.chunks_mut(4 * LANES).enumerate() {
        let mut sums = [[0.0_f32; LANES]; 4];
        for (value, weight) in values.chunks_exact(d_padded).zip(weights) {
            let lanes = value[part * 4 * LANES..(part + 1) * 4 * LANES].as_chunks::<LANES>().0;
            for i in 0..4 {
                fused::<M>(&C::lanes(&lanes[i]), &[*weight; LANES], &mut sums[i]);
            }
        }
        for (mixed, sum) in mixed.iter_mut().zip(sums.as_flattened()) {
            *mixed = O::store(sum * scale, 1.0);
        }
    }
}
