//! What a long call is given beside its data: threads, progress and the wish to stop.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};

/// Called now and then with the bytes done so far; `false` asks to stop.
pub type Progress<'a> = dyn FnMut(u64) -> bool + 'a;

/// Starting 3,000 threads takes 12 s, and 40,000 more than a minute: no call gains by it.
const MAX_THREADS: usize = 1024;

/// One long call's circumstances, handed down; there is no global state.
pub struct Job<'a> {
    threads: usize,
    progress: &'a mut Progress<'a>,
    done: AtomicU64,
}

impl<'a> Job<'a> {
    /// A job on that many threads (`None`: one for each core).
    ///
    /// # Errors
    ///
    /// No thread at all, or more than any machine has use for.
    pub fn new(threads: Option<usize>, progress: &'a mut Progress<'a>) -> Result<Self> {
        let threads = match threads {
            Some(0) => return Err(Error::Invalid("threads must be at least 1, got 0".into())),
            Some(n) if n > MAX_THREADS => return Err(Error::Invalid(format!("threads must be at most {MAX_THREADS}, got {n}"))),
            Some(n) => n,
            None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        };
        Ok(Job { threads, progress, done: AtomicU64::new(0) })
    }

    /// How many threads may work.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// A pool that lives as long as the call, so that a later fork finds nothing locked.
    ///
    /// # Errors
    ///
    /// The system gives no more threads.
    pub fn pool(&self) -> Result<rayon::ThreadPool> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).thread_name(|i| format!("tinygpt-{i}")).build();
        pool.map_err(|e| Error::Invalid(format!("{} threads could not be started ({e}); use fewer", self.threads)))
    }

    /// Adds to the bytes done; any thread may.
    pub fn add_bytes(&self, n: u64) {
        self.done.fetch_add(n, Ordering::Relaxed);
    }

    /// Reports progress.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] when the caller asked to stop.
    pub fn tick(&mut self) -> Result<()> {
        if (self.progress)(self.done.load(Ordering::Relaxed)) { Ok(()) } else { Err(Error::Cancelled) }
    }
}
