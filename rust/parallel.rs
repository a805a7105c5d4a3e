//! Many small tasks on several threads, with the calling thread free to report and to be stopped.

use crate::error::{Error, Result};
use crate::job::Job;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// The results of `work` on 0 to `n` - 1, in order; each thread has a state of its own. `work` is given a flag that asks it
/// to give up, which it should look at now and then.
pub(crate) fn map<S, T: Send>(
    n: usize,
    job: &mut Job,
    new_state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize, &AtomicBool) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (stop, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let threads = job.threads().min(n);
    if threads < 2 {
        let mut state = new_state();
        return (0..n).map(|task| job.tick().and_then(|()| work(&mut state, task, &stop))).collect();
    }
    let pool = job.pool()?;
    let (done_in, done_out) = channel();
    let mut results: Vec<Option<T>> = std::iter::repeat_with(|| None).take(n).collect();
    pool.in_place_scope(|scope| {
        for _ in 0..threads {
            let done = done_in.clone();
            scope.spawn(|_| {
                let done = done;
                let mut state = new_state();
                loop {
                    let task = next.fetch_add(1, Ordering::Relaxed);
                    if task >= n || stop.load(Ordering::Relaxed) || done.send((task, work(&mut state, task, &stop))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done_in);
        let result = take(&done_out, &mut results, job);
        // Whatever happened, nobody waits for this thread any longer.
        stop.store(true, Ordering::Relaxed);
        drop(done_out);
        result
    })?;
    results.into_iter().map(|result| result.ok_or(Error::Cancelled)).collect()
}

fn take<T>(done: &std::sync::mpsc::Receiver<(usize, Result<T>)>, results: &mut [Option<T>], job: &mut Job) -> Result<()> {
    loop {
        match done.recv_timeout(Duration::from_millis(50)) {
            Ok((task, result)) => results[task] = Some(result?),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        job.tick()?;
    }
}
