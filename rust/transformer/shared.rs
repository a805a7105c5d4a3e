//! What the threads of a pass share: buffers that they fill together, and the barrier where they meet.
//!
//! The threads of a pass run the same sequence of phases. In a phase each takes tasks from a common counter, a task
//! writes places that no other task of the phase reads or writes, and no thread begins a phase before all have ended the
//! one before. Safe Rust has no word for threads that write columns of one matrix. Nor is it only the words: with phases
//! of 20 us, two threads and two cores (AMD EPYC, Zen 5), a barrier took 0.4 to 1.8 us, a scope inside rayon's pool 1.0 to
//! 2.4, a parallel iterator from outside 7 to 13; a token of 3 ms has some eighty phases. Atomic floats keep the compiler
//! from using vectors.
//!
//! What holds the rule up: `tests/test_decoder.py` and the fuzz target `transformer`, which want the bits of one thread
//! from several, whatever comes together.

use crate::memory::in_large_pages;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::yield_now;

/// Numbers that the threads of a pass read and write by the rule above.
pub(crate) struct Shared<T> {
    data: Box<[UnsafeCell<T>]>,
}

// SAFETY: whoever reads or writes promises the rule of this file, by which no place is written while another thread
// touches it; the barrier's release and acquire make what was written before it visible after it.
#[allow(unsafe_code)]
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T: Copy + Default> Shared<T> {
    pub fn new(n: usize) -> Shared<T> {
        Shared { data: (0..n).map(|_| UnsafeCell::new(T::default())).collect() }
    }

    /// As `new`, for what is large and stays.
    pub fn large(n: usize) -> Shared<T> {
        let mut data = in_large_pages(n);
        data.extend((0..n).map(|_| UnsafeCell::new(T::default())));
        Shared { data: data.into_boxed_slice() }
    }

    /// The places from `first`, to read.
    ///
    /// # Safety
    ///
    /// No thread writes them before the next barrier.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub unsafe fn read(&self, first: usize, n: usize) -> &[T] {
        let cells = &self.data[first..first + n];
        // SAFETY: `UnsafeCell<T>` lies in memory as `T`; the slice's bounds were checked, and the caller promises the rest.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<T>(), n) }
    }

    /// The places from `first`, to write.
    ///
    /// # Safety
    ///
    /// No other thread reads or writes them before the next barrier, and this one holds no other slice of them.
    #[inline(always)]
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub unsafe fn write(&self, first: usize, n: usize) -> &mut [T] {
        let cells = &self.data[first..first + n];
        // SAFETY: as in `read`; a cell may be written through a shared reference.
        unsafe { std::slice::from_raw_parts_mut(cells.as_ptr().cast::<T>().cast_mut(), n) }
    }

    /// All places, when no thread is at work; nothing is copied.
    pub fn into_vec(self) -> Vec<T> {
        self.data.into_vec().into_iter().map(UnsafeCell::into_inner).collect()
    }
}

/// Where `n` threads wait for each other, again and again.
///
/// They spin, because the wait is shorter than a call to the system; after a while they let others run, because with
/// more threads than cores the one that is waited for may need the core.
pub(crate) struct Barrier {
    n: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
}

impl Barrier {
    pub fn new(n: usize) -> Barrier {
        Barrier { n, arrived: AtomicUsize::new(0), round: AtomicUsize::new(0) }
    }

    #[inline]
    pub fn wait(&self) {
        if self.n == 1 {
            return;
        }
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.n {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut turns = 0_u32;
        while self.round.load(Ordering::Acquire) == round {
            turns += 1;
            if turns.is_multiple_of(1 << 12) { yield_now() } else { spin_loop() }
        }
    }
}
