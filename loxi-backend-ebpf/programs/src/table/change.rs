//! Claiming, publishing and removing an entry.

use super::bucket::{bits, candidates, entry, lock, lowest, search, set_tag, unlock};
use super::{Family, Found, Key, Refused, number};
use crate::atomic;
use core::sync::atomic::{Ordering, compiler_fence};
use loxi_ebpf_layout::flow::{BUSY, Out, Room, Seen, Spot, own_place, rest};

/// Claims a place for a key that no entry has. The entry is left [`BUSY`]: the
/// caller publishes it.
#[inline(always)]
pub fn claim<F: Family>(
    key: &Key,
    new: &Key,
    state_and_flags: u64,
    seen: &Seen,
    out: &Out,
) -> Result<Found<F>, Refused> {
    let spot = F::spot(key);
    let (Some(first), Some(second)) = (F::bucket(spot.first), F::bucket(spot.second)) else {
        return Err(Refused::Full);
    };
    // In order, so that two processors can't wait for each other.
    let ordered = spot.first <= spot.second;
    let (low, high) = if ordered { (first, second) } else { (second, first) };
    if !lock(low) {
        return Err(Refused::Contended);
    }
    if spot.first != spot.second && !lock(high) {
        unlock(low);
        return Err(Refused::Contended);
    }
    let result = claim_locked::<F>(key, new, state_and_flags, seen, out, &spot, first, second);
    if spot.first != spot.second {
        unlock(high);
    }
    unlock(low);
    result
}

#[inline(always)]
#[allow(clippy::too_many_arguments)] // inlined into its one caller
fn claim_locked<F: Family>(
    key: &Key,
    new: &Key,
    state_and_flags: u64,
    seen: &Seen,
    out: &Out,
    spot: &Spot,
    first: *mut u8,
    second: *mut u8,
) -> Result<Found<F>, Refused> {
    if let Some(place) = search::<F>(first, key, spot.tag) {
        return Err(Refused::Taken(number(spot.first, place)));
    }
    if let Some(place) = search::<F>(second, key, spot.tag) {
        return Err(Refused::Taken(number(spot.second, place)));
    }
    let (free, other) = (candidates::<F>(first, 0), candidates::<F>(second, 0));
    let (room, elsewhere) = (bits(free), bits(other));
    let rooms = [Room { free, count: room }, Room { free: other, count: elsewhere }];
    let (bucket, index, place) = if let Some((away, place)) = own_place(spot, rooms[0], rooms[1], F::PLACES) {
        if away { (second, spot.second, place) } else { (first, spot.first, place) }
    } else if free != 0 && room >= elsewhere {
        (first, spot.first, lowest(free))
    } else if other != 0 {
        (second, spot.second, lowest(other))
    } else {
        return Err(Refused::Full);
    };
    if place >= F::PLACES {
        return Err(Refused::Full);
    }
    let found = entry::<F>(bucket, place);
    F::write(found, key, new, seen, out);
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the entry is this program's until it is published.
    unsafe {
        F::rest(found).write_volatile(key.rest & rest::KEY | state_and_flags | (BUSY as u64) << rest::FLAGS);
    }
    set_tag(bucket, place, spot.tag);
    Ok(Found { entry: found, number: number(index, place) })
}

/// Lets everybody see a claimed entry.
#[inline(always)]
pub fn publish<F: Family>(entry: *mut F::Entry) {
    let word = F::rest(entry);
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the entry is this program's while it is busy.
    unsafe { word.write_volatile(*word & !((BUSY as u64) << rest::FLAGS)) };
}

/// Takes an entry of this key out, if it is still there; whether this call did it.
#[inline(always)]
pub fn remove<F: Family>(place: u32, key: &Key) -> bool {
    let at = place.wrapping_sub(1) & 15;
    if place == 0 || at >= F::PLACES {
        return false;
    }
    let Some(bucket) = F::bucket((place - 1) >> 4) else { return false };
    if !lock(bucket) {
        return false;
    }
    let entry = entry::<F>(bucket, at);
    let is = F::is(entry, key);
    if is {
        atomic::swap(F::rest(entry), 0);
        set_tag(bucket, at, 0);
    }
    unlock(bucket);
    is
}
