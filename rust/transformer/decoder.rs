//! Decoder: a model, what some streams have seen, and the threads that take them further.

#[cfg(target_arch = "x86_64")]
use super::kernels::{Avx2, Avx512, Avx512Bf16};
use super::kernels::{Plain, Products};
use super::matrix::{Bfloat16, Element, Precision};
use super::model::{Model, Shape, Tensors};
use super::pass::{Buffers, Cache, MAX_ROWS, Pass, Row};
use super::shared::{Barrier, Shared};
use crate::error::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// New tokens of a stream.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Which stream.
    pub slot: usize,
    /// Its next tokens, one at least.
    pub ids: Vec<u32>,
}

/// Streams of tokens and the model that reads them.
///
/// Threads live as long as the decoder, because waking them is part of every token; a process that forks has to make
/// its own.
pub struct Decoder {
    shape: Shape,
    engine: Box<dyn Engine>,
    n_seen: Vec<usize>,
    pool: Option<ThreadPool>,
    barrier: Barrier,
    n_threads: usize,
}

trait Engine: Send + Sync {
    fn begin(&mut self);
    fn run(&self, work: &Work<'_>);
}

struct Work<'a> {
    rows: &'a [Row],
    wanted: &'a [usize],
    logits: &'a Shared<f32>,
    barrier: &'a Barrier,
    n_threads: usize,
}

struct Typed<E: Element, M: Products<E>> {
    model: Model<E>,
    cache: Cache<E::Cached>,
    buffers: Buffers<M::Input>,
}

impl Decoder {
    /// A decoder of `n_slots` empty streams.
    ///
    /// # Errors
    ///
    /// `Invalid`: a tensor is missing or of another size, or there is nothing to do.
    pub fn new(shape: &Shape, tensors: &Tensors<'_>, precision: Precision, n_slots: usize, n_threads: usize) -> Result<Decoder> {
        if n_slots == 0 || n_threads == 0 {
            return Err(Error::Invalid(format!("n_slots and threads must be at least 1, got {n_slots} and {n_threads}")));
        }
        let engine: Box<dyn Engine> = match precision {
            Precision::Float32 => engine::<f32>(shape, tensors, n_slots)?,
            #[cfg(target_arch = "x86_64")]
            Precision::Bfloat16 if has_avx512() && is_x86_feature_detected!("avx512bf16") => {
                Typed::<Bfloat16, Avx512Bf16>::boxed(shape, tensors, n_slots)?
            }
            Precision::Bfloat16 => engine::<Bfloat16>(shape, tensors, n_slots)?,
            Precision::Int8 => engine::<i8>(shape, tensors, n_slots)?,
        };
        let pool = || ThreadPoolBuilder::new().num_threads(n_threads).build().map_err(|e| Error::Invalid(format!("threads: {e}")));
        Ok(Decoder {
            shape: shape.clone(),
            engine,
            n_seen: vec![0; n_slots],
            pool: if n_threads > 1 { Some(pool()?) } else { None },
            barrier: Barrier::new(n_threads),
            n_threads,
        })
    }

    /// Tokens that each stream has seen.
    #[must_use]
    pub fn n_seen(&self) -> &[usize] {
        &self.n_seen
    }

    /// Makes a stream forget all but its first `n` tokens.
    ///
    /// # Errors
    ///
    /// `Invalid`: there is no such stream, or it has seen fewer.
    pub fn cut(&mut self, slot: usize, n: usize) -> Result<()> {
        match self.n_seen.get_mut(slot) {
            Some(seen) if n <= *seen => *seen = n,
            found => return Err(Error::Invalid(format!("stream {slot} cannot be cut to {n} tokens: it has {found:?}"))),
        }
        Ok(())
    }

    /// Reads new tokens; returns logits, a row of the vocabulary for each stream's last token, or for every token.
    ///
    /// # Errors
    ///
    /// `Invalid`: no such stream, or one that is named twice; an id that the model has not; a full context. Nothing is
    /// read then.
    pub fn extend(&mut self, feeds: &[Feed], is_every: bool) -> Result<Vec<f32>> {
        self.check(feeds)?;
        let rows = feeds.iter().flat_map(|feed| {
            let (n_seen, n) = (self.n_seen[feed.slot], feed.ids.len());
            feed.ids
                .iter()
                .enumerate()
                .map(move |(i, id)| (Row { slot: feed.slot, place: n_seen + i, id: *id as usize }, is_every || i + 1 == n))
        });
        let (rows, is_wanted): (Vec<Row>, Vec<bool>) = rows.unzip();
        let mut logits = Vec::new();
        for (rows, is_wanted) in rows.chunks(MAX_ROWS).zip(is_wanted.chunks(MAX_ROWS)) {
            let wanted: Vec<usize> = (0..rows.len()).filter(|r| is_wanted[*r]).collect();
            let some = Shared::new(wanted.len() * self.shape.vocab_size);
            self.engine.begin();
            let work = Work { rows, wanted: &wanted, logits: &some, barrier: &self.barrier, n_threads: self.n_threads };
            match &self.pool {
                None => self.engine.run(&work),
                Some(pool) => drop(pool.broadcast(|_| self.engine.run(&work))),
            }
            // Those of a single pass are not copied.
            if logits.is_empty() { logits = some.into_vec() } else { logits.extend(some.into_vec()) }
        }
        for feed in feeds {
            self.n_seen[feed.slot] += feed.ids.len();
        }
        Ok(logits)
    }

    fn check(&self, feeds: &[Feed]) -> Result<()> {
        let mut is_fed = vec![false; self.n_seen.len()];
        for Feed { slot, ids } in feeds {
            let Some(seen) = self.n_seen.get(*slot) else {
                return Err(Error::Invalid(format!("there are {} streams, got the number {slot}", self.n_seen.len())));
            };
            if std::mem::replace(&mut is_fed[*slot], true) || ids.is_empty() {
                return Err(Error::Invalid(format!("stream {slot} is named twice, or without a token")));
            }
            if seen + ids.len() > self.shape.block_size {
                let found = format!("{seen} + {}", ids.len());
                return Err(Error::Invalid(format!(
                    "the context holds block_size {} tokens, got {found}; cut them",
                    self.shape.block_size
                )));
            }
            if let Some(id) = ids.iter().find(|id| **id as usize >= self.shape.vocab_size) {
                return Err(Error::Invalid(format!("ids must be from 0 to {}, got {id}", self.shape.vocab_size - 1)));
            }
        }
        Ok(())
    }
}

/// The engine of the widest instructions that this processor has.
fn engine<E: Element>(shape: &Shape, tensors: &Tensors<'_>, n_slots: usize) -> Result<Box<dyn Engine>> {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            return Typed::<E, Avx512>::boxed(shape, tensors, n_slots);
        }
        if has_avx2() {
            return Typed::<E, Avx2>::boxed(shape, tensors, n_slots);
        }
    }
    Typed::<E, Plain>::boxed(shape, tensors, n_slots)
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("bmi2")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

impl<E: Element, M: Products<E>> Typed<E, M> {
    /// Of a machine whose instructions were found.
    fn boxed(shape: &Shape, tensors: &Tensors<'_>, n_slots: usize) -> Result<Box<dyn Engine>> {
        let model = Model::<E>::new(shape, tensors)?;
        Ok(Box::new(Typed::<E, M> { cache: Cache::new(&model, n_slots), buffers: Buffers::new(&model), model }))
    }
}

impl<E: Element, M: Products<E>> Engine for Typed<E, M> {
    fn begin(&mut self) {
        self.buffers.begin();
    }

    fn run(&self, work: &Work<'_>) {
        let &Work { rows, wanted, logits, barrier, n_threads } = work;
        let pass = Pass { model: &self.model, cache: &self.cache, buffers: &self.buffers, rows, wanted, logits, barrier, n_threads };
        // SAFETY: whoever called `boxed` had found the instructions.
        #[allow(unsafe_code)]
        unsafe {
            M::run(&pass);
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::model::{Activation, Norm, Places};
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    type Made = Result<Box<dyn Engine>>;

    /// What this processor can run, narrowest first.
    fn machines<E: Element>() -> Vec<fn(&Shape, &Tensors<'_>, usize) -> Made> {
        let mut all: Vec<fn(&Shape, &Tensors<'_>, usize) -> Made> = vec![Typed::<E, Plain>::boxed];
        if has_avx2() {
            all.push(Typed::<E, Avx2>::boxed);
        }
        if has_avx512() {
            all.push(Typed::<E, Avx512>::boxed);
        }
        all
    }

    /// Logits of a prompt in one piece, then of the same tokens one by one, which have the same bits.
    fn logits(engine: Box<dyn Engine>, shape: &Shape, ids: &[u32], n_threads: usize) -> Vec<f32> {
        let pool = (n_threads > 1).then(|| ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap());
        let (shape, barrier) = (shape.clone(), Barrier::new(n_threads));
        let mut decoder = Decoder { shape, engine, n_seen: vec![0], pool, barrier, n_threads };
        let whole = decoder.extend(&[Feed { slot: 0, ids: ids.to_vec() }], true).unwrap();
        decoder.cut(0, 0).unwrap();
        let each: Vec<f32> = ids.iter().flat_map(|id| decoder.extend(&[Feed { slot: 0, ids: vec![*id] }], true).unwrap()).collect();
        assert!(whole.iter().map(|x| x.to_bits()).eq(each.iter().map(|x| x.to_bits())), "one by one");
        whole
    }

    fn apart(found: &[f32], wanted: &[f32]) -> f32 {
        let deviation = (wanted.iter().map(|x| x * x).sum::<f32>() / wanted.len() as f32).sqrt();
        found.iter().zip(wanted).fold(0.0, |most, (a, b)| (a - b).abs().max(most)) / deviation
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn all_machines_agree(
            (n_head, half, d_inner, vocab_size, n_ids) in (1_usize..4, 1_usize..40, 1_usize..150, 33_usize..90, 1_usize..50),
            seed in any::<u32>(),
            n_threads in 1_usize..4,
        ) {
            let d_model = n_head * half * 2;
            let shape = Shape {
                vocab_size, block_size: 50, n_layer: 1, n_head, n_kv: 1, d_model, d_inner, norm_eps: 1e-5,
                places: Places::Rotary(1e4), norm: Norm::Layer, activation: Activation::SwiGlu,
            };
            let mut state = seed;
            let mut random = |n: usize| -> Vec<f32> {
                let next = |_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // Small enough that attention is no choice of one, which a rounding may turn.
                    (state >> 8) as f32 / 41_943_040.0 - 0.2
                };
                (0..n).map(next).collect()
            };
            let sizes = [
                ("token_embedding.weight", vocab_size * d_model), ("norm.weight", d_model), ("norm.bias", d_model),
                ("blocks.0.attention_norm.weight", d_model), ("blocks.0.attention.qkv.weight", shape.d_qkv() * d_model),
                ("blocks.0.attention.qkv.bias", shape.d_qkv()), ("blocks.0.attention.output.weight", d_model * d_model),
                ("blocks.0.feed_forward_norm.weight", d_model), ("blocks.0.feed_forward.up.weight", shape.d_up() * d_model),
                ("blocks.0.feed_forward.down.weight", d_model * d_inner),
            ];
            let tensors: HashMap<String, Vec<f32>> = sizes.iter().map(|(name, n)| ((*name).to_string(), random(*n))).collect();
            let tensors: Tensors<'_> = tensors.iter().map(|(name, values)| (name.clone(), values.as_slice())).collect();
            let ids: Vec<u32> = (0..n_ids as u32).map(|i| i * 31 % vocab_size as u32).collect();
            let of = |made: Made| logits(made.unwrap(), &shape, &ids, n_threads);
            let wanted = of(Typed::<f32, Plain>::boxed(&shape, &tensors, 1));
            for (i, machine) in machines::<f32>().into_iter().enumerate() {
                let apart = apart(&of(machine(&shape, &tensors, 1)), &wanted);
                prop_assert!(apart < 1e-4, "float32 {i}: {apart}");
            }
            let wanted = of(Typed::<i8, Plain>::boxed(&shape, &tensors, 1));
            for (i, machine) in machines::<i8>().into_iter().enumerate() {
                // The cache is bfloat16: what was nearly half-way may be rounded the other way.
                let apart = apart(&of(machine(&shape, &tensors, 1)), &wanted);
                prop_assert!(apart < 0.05, "int8 {i}: {apart}");
            }
            let wanted = of(Typed::<Bfloat16, Plain>::boxed(&shape, &tensors, 1));
            let mut all = machines::<Bfloat16>();
            if has_avx512() && is_x86_feature_detected!("avx512bf16") {
                all.push(Typed::<Bfloat16, Avx512Bf16>::boxed);
            }
            for (i, machine) in all.into_iter().enumerate() {
                let apart = apart(&of(machine(&shape, &tensors, 1)), &wanted);
                prop_assert!(apart < 0.05, "bfloat16 {i}: {apart}");
            }
        }
    }
}
