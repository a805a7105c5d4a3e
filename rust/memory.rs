//! A word to the machine about memory, which changes no result: what will be wanted soon, and what no longer.
//!
//! One of the two places of the crate with `unsafe`; the other is `transformer`. Tables of pieces are larger than the core's caches, and nearly all the time of a lookup
//! is the wait for its slot. Asking for the slots of a batch before looking at the first takes encoding of 50 MB from 204
//! to 229 MB/s (English, new cache) and from 178 to 245 (mixed text, second pass), and learning its merges from 0.59 to
//! 0.37 s; one thread, an AMD EPYC (Zen 5), medians of five rounds.
//!
//! Tried and lost: large pages for tables and results (`madvise`): 3 % with a new cache, nothing elsewhere.

/// Asks for `slice[at]`, if there is one.
#[inline]
pub(crate) fn prefetch<T>(slice: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(item) = slice.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint that changes nothing and faults at no address; SSE belongs to every x86-64.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch(std::ptr::from_ref(item).cast::<i8>(), _MM_HINT_T0);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, at);
}

/// Gives memory that was freed back to the system, where glibc keeps it: tables of counts that threads made are in pieces
/// too small to go by themselves, and learning needs the room.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no argument that could be wrong, and touches nothing that is in use.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}
