//! A word to the processor about memory that will be wanted soon.
//!
//! The only `unsafe` of the crate. Tables of pieces are larger than any cache, and nearly all the time of a lookup is the
//! wait for its slot: asking for a batch's slots before looking at the first makes encoding XX and counting XX faster
//! (measured; reading the slots into a buffer instead, which needs no `unsafe`, gains less than half of that).

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
