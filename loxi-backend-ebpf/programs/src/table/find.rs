//! Finding an entry.

use super::bucket::{entry, search};
use super::{Family, Found, Key, number};

/// A number of which the compiler is to know nothing: what it knows it does not check, and what is
/// not checked the verifier does not know.
#[inline(always)]
fn unknown(number: u32) -> u32 {
    let mut number = number as u64;
    // SAFETY: adds nothing.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) number, options(pure, nomem, nostack)) };
    number as u32
}

/// The entry of a key if it is at its home place. A freed place keeps its addresses, but its
/// second word is 0, which is no key's.
#[inline(always)]
pub fn find_home<F: Family>(key: &Key) -> Option<*mut F::Entry> {
    let spot = F::spot(key);
    let home = unknown(spot.home);
    if home >= F::PLACES {
        return None;
    }
    let home = entry::<F>(F::bucket(spot.first)?, home);
    if F::is(home, key) { Some(home) } else { None }
}

/// Finds an entry. The home place is looked at before any tag.
#[inline(always)]
pub(super) fn find<F: Family>(key: &Key) -> Option<Found<F>> {
    let spot = F::spot(key);
    let first = F::bucket(spot.first)?;
    if spot.home < F::PLACES {
        let home = entry::<F>(first, spot.home);
        if F::is(home, key) {
            return Some(Found { entry: home, number: number(spot.first, spot.home) });
        }
    }
    if let Some(place) = search::<F>(first, key, spot.tag) {
        return Some(Found { entry: entry::<F>(first, place), number: number(spot.first, place) });
    }
    let second = F::bucket(spot.second)?;
    let place = search::<F>(second, key, spot.tag)?;
    Some(Found { entry: entry::<F>(second, place), number: number(spot.second, place) })
}
