//! Within a bucket: places, tags, the lock.

use super::{Family, Key};
use crate::atomic;
use loxi_ebpf_layout::flow::{self, Tags};

/// Attempts to take a bucket's lock.
const ATTEMPTS: u32 = 64;

/// The entry at a place of a bucket. Its head is as long as an entry, so that a masked number never
/// leads out of the bucket.
#[inline(always)]
pub(super) fn entry<F: Family>(bucket: *mut u8, place: u32) -> *mut F::Entry {
    const { assert!(F::HEAD == size_of::<F::Entry>()) };
    let mut slot = place as u64 + 1;
    // The bound is written where the verifier needs it: before 6.8 it forgets what was compared once
    // the number has been on the stack, and the compiler would leave a mask out that it knows to do nothing.
    // SAFETY: the instruction masks a register.
    unsafe {
        if F::PLACES > 8 {
            core::arch::asm!("{0} &= 15", inout(reg) slot, options(pure, nomem, nostack));
        } else {
            core::arch::asm!("{0} &= 7", inout(reg) slot, options(pure, nomem, nostack));
        }
    }
    // SAFETY: the place is below the number of places, which the bucket has room for.
    unsafe { bucket.add(slot as usize * size_of::<F::Entry>()).cast() }
}

/// Four bits, one per lane in which bit 15 is set.
#[inline(always)]
fn gather(lanes: u64) -> u32 {
    const INTO_ROW: u64 = 1 << 48 | 1 << 33 | 1 << 18 | 1 << 3;
    ((lanes >> 15).wrapping_mul(INTO_ROW) >> 48) as u32 & 15
}

/// A bit per place whose tag is this one.
#[inline(always)]
pub(super) fn candidates<F: Family>(bucket: *const u8, tag: u16) -> u32 {
    let tags = bucket.cast::<Tags>();
    // SAFETY: a bucket begins with its tags.
    let word = |n: usize| unsafe { (&raw const (*tags).words[n]).read_volatile() };
    let low = gather(flow::matching(word(0), tag)) | gather(flow::matching(word(1), tag)) << 4;
    let all = if F::PLACES > 8 {
        low | gather(flow::matching(word(2), tag)) << 8 | gather(flow::matching(word(3), tag)) << 12
    } else {
        low
    };
    all & ((1 << F::PLACES) - 1)
}

/// Number of the lowest bit of 16; the bits are not all 0.
#[inline(always)]
pub(super) fn lowest(bits: u32) -> u32 {
    let b = bits & bits.wrapping_neg();
    let mut n = 0;
    if b & 0xff00 != 0 {
        n += 8;
    }
    if b & 0xf0f0 != 0 {
        n += 4;
    }
    if b & 0xcccc != 0 {
        n += 2;
    }
    if b & 0xaaaa != 0 {
        n += 1;
    }
    n
}

/// Bits that are set among 16.
#[inline(always)]
pub(super) fn bits(x: u32) -> u32 {
    let x = x - (x >> 1 & 0x5555);
    let x = (x & 0x3333) + (x >> 2 & 0x3333);
    let x = (x + (x >> 4)) & 0x0f0f;
    (x + (x >> 8)) & 0x1f
}

#[inline(always)]
pub(super) fn search<F: Family>(bucket: *mut u8, key: &Key, tag: u16) -> Option<u32> {
    let mut bits = candidates::<F>(bucket, tag);
    for _ in 0..F::PLACES {
        if bits == 0 {
            return None;
        }
        let place = lowest(bits);
        bits &= bits - 1;
        if place < F::PLACES && F::is(entry::<F>(bucket, place), key) {
            return Some(place);
        }
    }
    None
}

#[inline(always)]
fn lock_of(bucket: *mut u8) -> *mut u64 {
    // SAFETY: a bucket begins with its tags.
    unsafe { &raw mut (*bucket.cast::<Tags>()).lock }
}

#[inline(always)]
pub(super) fn lock(bucket: *mut u8) -> bool {
    for _ in 0..ATTEMPTS {
        if atomic::replace(lock_of(bucket), flow::lock::FREE, flow::lock::PROGRAM) {
            return true;
        }
    }
    false
}

#[inline(always)]
pub(super) fn unlock(bucket: *mut u8) {
    atomic::swap(lock_of(bucket), flow::lock::FREE);
}

/// The lane of a place, in its word of tags.
#[inline(always)]
pub(super) fn set_tag(bucket: *mut u8, place: u32, tag: u16) {
    // SAFETY: the place is below 16, so the lane is within the four words; the bucket is locked.
    unsafe { bucket.cast::<u16>().add((place & 15) as usize).write_volatile(tag) };
}
