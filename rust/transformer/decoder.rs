//! Decoder: a model, what some streams have seen, and the threads that take them further.

use super::kernels::Plain;
#[cfg(target_arch = "x86_64")]
use super::kernels::{Avx2, Avx512, Avx512Bf16};
use super::matrix::{Bfloat16, Element, Precision};
use super::model::{Model, Shape, Tensors};
use super::pass::{Buffers, Cache, MAX_ROWS, Pass, Row, run};
use super::shared::{Barrier, Shared};
use crate::error::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::any::Any;

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
    machine: Choice,
}

/// The widest instructions that this processor has.
#[derive(Clone, Copy, Debug)]
enum Choice {
    /// With products of bfloat16, for weights of that kind; else as the next.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Plain,
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
    machine: Choice,
}

struct Typed<E: Element> {
    model: Model<E>,
    cache: Cache<E::Cached>,
    buffers: Buffers,
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
            Precision::Float32 => Typed::<f32>::boxed(shape, tensors, n_slots)?,
            Precision::Bfloat16 => Typed::<Bfloat16>::boxed(shape, tensors, n_slots)?,
            Precision::Int8 => Typed::<i8>::boxed(shape, tensors, n_slots)?,
        };
        let pool = || ThreadPoolBuilder::new().num_threads(n_threads).build().map_err(|e| Error::Invalid(format!("threads: {e}")));
        Ok(Decoder {
            shape: shape.clone(),
            engine,
            n_seen: vec![0; n_slots],
            pool: if n_threads > 1 { Some(pool()?) } else { None },
            barrier: Barrier::new(n_threads),
            n_threads,
            machine: Choice::here(),
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
            let (barrier, n_threads, machine) = (&self.barrier, self.n_threads, self.machine);
            let work = Work { rows, wanted: &wanted, logits: &some, barrier, n_threads, machine };
            match &self.pool {
                None => self.engine.run(&work),
                Some(pool) => drop(pool.broadcast(|_| self.engine.run(&work))),
            }
            let some = some.into_vec();
            logits = if logits.is_empty() { some } else { [logits, some].concat() };
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

impl<E: Element> Typed<E> {
    fn boxed(shape: &Shape, tensors: &Tensors<'_>, n_slots: usize) -> Result<Box<dyn Engine>> {
        let model = Model::<E>::new(shape, tensors)?;
        Ok(Box::new(Typed { cache: Cache::new(&model, n_slots), buffers: Buffers::new(&model), model }))
    }

    fn pass<'a>(&'a self, work: &Work<'a>) -> Pass<'a, E> {
        let &Work { rows, wanted, logits, barrier, n_threads, .. } = work;
        Pass { model: &self.model, cache: &self.cache, buffers: &self.buffers, rows, wanted, logits, barrier, n_threads }
    }
}

impl<E: Element> Engine for Typed<E> {
    fn begin(&mut self) {
        self.buffers.begin();
    }

    fn run(&self, work: &Work<'_>) {
        let pass = self.pass(work);
        match work.machine {
            // SAFETY: `Choice::here` found the instructions.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Choice::Avx512Bf16 => match (self as &dyn Any).downcast_ref::<Typed<Bfloat16>>() {
                Some(typed) => unsafe { run_avx512_bf16(&typed.pass(work)) },
                None => unsafe { run_avx512(&pass) },
            },
            // SAFETY: the same.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Choice::Avx512 => unsafe { run_avx512(&pass) },
            // SAFETY: the same.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Choice::Avx2 => unsafe { run_avx2(&pass) },
            Choice::Plain => run::<E, Plain>(&pass),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
fn run_avx512_bf16(pass: &Pass<'_, Bfloat16>) {
    run::<Bfloat16, Avx512Bf16>(pass);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2")]
fn run_avx512<E: Element>(pass: &Pass<'_, E>) {
    run::<E, Avx512>(pass);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi2")]
fn run_avx2<E: Element>(pass: &Pass<'_, E>) {
    run::<E, Avx2>(pass);
}

impl Choice {
    fn here() -> Choice {
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("bmi2");
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if has_avx2 && has_avx512 {
                let has_bf16 = is_x86_feature_detected!("avx512bf16");
                return if has_bf16 { Choice::Avx512Bf16 } else { Choice::Avx512 };
            }
            if has_avx2 {
                return Choice::Avx2;
            }
        }
        Choice::Plain
    }
}
