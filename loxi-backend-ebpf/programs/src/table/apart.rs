//! What the verifier looks at apart: the table's functions for the stages.

use super::change::{claim, remove};
use super::find::find;
use super::{Family, Found, Key, Refused, V4, V6, at};
use loxi_ebpf_layout::flow::{Out, Seen};

/// What the functions below work on: one per processor.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Work {
    /// The key that is meant.
    pub key: Key,
    /// The tuple with which its packets leave.
    pub new: Key,
    /// State and flags of a new entry, in their places.
    pub bits: u64,
    /// Generations and counters of a new entry.
    pub seen: Seen,
    /// Where its packets go.
    pub out: Out,
    /// Family of an address that is asked about.
    pub family: u32,
}

/// This processor's.
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    // SAFETY: this processor's own value; programs don't nest.
    crate::maps::WORK.ptr(&0).map(|work| unsafe { &mut *work })
}

/// No place: both buckets are full.
pub const NO_ROOM: u64 = 1 << 32;
/// No place: another processor holds the buckets.
pub const CONTENDED: u64 = 2 << 32;
/// Added to the place of an entry that has the key already.
pub const TAKEN: u64 = 3 << 32;

/// [`find`] for the work's key; 0: none.
#[inline(always)]
pub fn find_for_work<F: Family>() -> u32 {
    let Some(work) = work() else { return 0 };
    let key = work.key;
    find::<F>(&key).map_or(0, |found| found.number)
}

#[inline(always)]
fn claim_for_work<F: Family>() -> u64 {
    let Some(work) = work() else { return NO_ROOM };
    let (key, new, bits, seen, out) = (work.key, work.new, work.bits, work.seen, work.out);
    match claim::<F>(&key, &new, bits, &seen, &out) {
        Ok(found) => found.number as u64,
        Err(Refused::Taken(number)) => TAKEN | number as u64,
        Err(Refused::Full) => NO_ROOM,
        Err(Refused::Contended) => CONTENDED,
    }
}

#[inline(always)]
fn remove_for_work<F: Family>(number: u32) -> u32 {
    let Some(work) = work() else { return 0 };
    let key = work.key;
    remove::<F>(number, &key) as u32
}

/// Functions that the verifier looks at by themselves, once, whoever calls them: they
/// take numbers only, and what they work on lies in [`Work`] and in the packet between programs.
/// Inlined into the stages, the searches would exceed what it is willing to look at.
macro_rules! apart {
    ($($family:ty: $find:ident, $claim:ident, $remove:ident, $alive:ident, $taken:ident, $forget:ident, $port:ident;)+) => {
        $(
            /// The place of the key; 0: none.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $find() -> u32 {
                find_for_work::<$family>()
            }

            /// A place for the key, or why there is none.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $claim() -> u64 {
                claim_for_work::<$family>()
            }

            /// Takes the key out of its place; 1: this call did it.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $remove(number: u32) -> u32 {
                remove_for_work::<$family>(number)
            }

            /// Whether the flow at a place still lives; 0: it has ended.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $alive(number: u32) -> u32 {
                crate::life::is_alive::<$family>(number) as u32
            }

            /// Whether the key is that of a flow that lives; 0: it is not.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $taken() -> u32 {
                let number = find_for_work::<$family>();
                (number != 0 && crate::life::is_alive::<$family>(number)) as u32
            }

            /// The first of some source ports that makes the work's key nobody's; see
            /// [`crate::stage::free_port`].
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $port(start: u32, first: u32, count: u32) -> u32 {
                crate::stage::free_port::<$family>(start, first, count)
            }

            /// Takes the flow at a place out, both directions; the number is of no use.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $forget(number: u32) -> u32 {
                crate::life::forget::<$family>(number);
                0
            }
        )+
    };
}

apart! {
    V4: find_v4, claim_v4, remove_v4, alive_v4, taken_v4, forget_v4, free_port_v4;
    V6: find_v6, claim_v6, remove_v6, alive_v6, taken_v6, forget_v6, free_port_v6;
}

/// [`find`], apart.
#[inline(always)]
pub fn find_apart<F: Family>(key: &Key) -> Option<Found<F>> {
    work()?.key = *key;
    let number = F::find_apart();
    Some(Found { entry: at::<F>(number)?, number })
}

/// [`claim`] for what the work says, apart.
#[inline(always)]
pub fn claim_apart<F: Family>() -> Result<Found<F>, Refused> {
    let result = F::claim_apart();
    let number = result as u32;
    match result & !0xffff_ffff {
        0 => match at::<F>(number) {
            Some(entry) => Ok(Found { entry, number }),
            None => Err(Refused::Full),
        },
        TAKEN => Err(Refused::Taken(number)),
        CONTENDED => Err(Refused::Contended),
        _ => Err(Refused::Full),
    }
}

/// [`remove`], apart.
#[inline(always)]
pub fn remove_apart<F: Family>(number: u32, key: &Key) -> bool {
    match work() {
        Some(work) => {
            work.key = *key;
            F::remove_apart(number) != 0
        }
        None => false,
    }
}

/// Whether a key is that of a flow that lives, apart.
#[inline(always)]
pub fn taken_apart<F: Family>(key: &Key) -> bool {
    match work() {
        Some(work) => {
            work.key = *key;
            F::taken_apart() != 0
        }
        None => true,
    }
}
