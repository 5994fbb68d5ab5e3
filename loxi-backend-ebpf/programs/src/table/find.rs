//! Finding an entry.

use super::bucket::{entry, search};
use super::{Family, Found, Key, find_apart, number};

/// A number of which the compiler is to know nothing: what it knows it does not check, and what is
/// not checked the verifier does not know.
#[inline(always)]
fn unknown(number: u32) -> u32 {
    let mut number = number as u64;
    // SAFETY: adds nothing.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) number, options(pure, nomem, nostack)) };
    number as u32
}

/// The entry of a key if it is at one of its own places. A freed place keeps its addresses, but its
/// second word is 0, which is no key's.
#[inline(always)]
fn find_near<F: Family>(key: &Key) -> Option<*mut F::Entry> {
    let spot = F::spot(key);
    let first = F::bucket(spot.first)?;
    let home = entry::<F>(first, unknown(spot.home));
    if F::is(home, key) {
        return Some(home);
    }
    let beside = entry::<F>(first, unknown(spot.beside));
    if F::is(beside, key) {
        return Some(beside);
    }
    let away = entry::<F>(F::bucket(spot.second)?, unknown(spot.home));
    if F::is(away, key) { Some(away) } else { None }
}

/// The entry of a key: looked for here at the key's own places, apart by its tags.
#[inline(always)]
pub fn look_up<F: Family>(key: &Key) -> Option<*mut F::Entry> {
    match find_near::<F>(key) {
        Some(entry) => Some(entry),
        None => Some(find_apart::<F>(key)?.entry),
    }
}

/// Finds an entry. The key's own places are looked at before any tag.
#[inline(always)]
pub(super) fn find<F: Family>(key: &Key) -> Option<Found<F>> {
    let spot = F::spot(key);
    let (first, second) = (F::bucket(spot.first)?, F::bucket(spot.second)?);
    for (away, place) in spot.own() {
        let (bucket, index) = if away { (second, spot.second) } else { (first, spot.first) };
        let entry = entry::<F>(bucket, place);
        if F::is(entry, key) {
            return Some(Found { entry, number: number(index, place) });
        }
    }
    if let Some(place) = search::<F>(first, key, spot.tag) {
        return Some(Found { entry: entry::<F>(first, place), number: number(spot.first, place) });
    }
    let place = search::<F>(second, key, spot.tag)?;
    Some(Found { entry: entry::<F>(second, place), number: number(spot.second, place) })
}
