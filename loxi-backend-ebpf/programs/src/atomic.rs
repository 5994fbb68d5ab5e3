//! Atomic operations, which `core::sync::atomic` does not have for this target.
//!
//! Only sequentially consistent ones: a relaxed fetch-and-add whose result is
//! used is miscompiled, and the others cost the same on the machines at hand.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};

const SEQ: AtomicOrdering = AtomicOrdering::SeqCst;

/// Adds, and returns the value before. `at` is a word of a map's value.
#[inline(always)]
pub fn add(at: *mut u64, n: u64) -> u64 {
    // SAFETY: the caller has the pointer from a map look-up and every word there is an aligned u64.
    unsafe { atomic_xadd::<u64, u64, { SEQ }>(at, n) }
}

/// Replaces `old` by `new`; whether it was `old`.
#[inline(always)]
pub fn replace(at: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: as above.
    unsafe { atomic_cxchg::<u64, { SEQ }, { SEQ }>(at, old, new).1 }
}

/// Writes, and returns the value before.
#[inline(always)]
pub fn swap(at: *mut u64, new: u64) -> u64 {
    // SAFETY: as above.
    unsafe { atomic_xchg::<u64, { SEQ }>(at, new) }
}
