//! How long a flow lives, and what its end takes back.

use crate::atomic;
use crate::maps::{BACKEND_FLOWS, KEPT, SOURCES, ZONE_COUNT, ZONES};
use crate::stage::{SECOND, packet, tick};
use crate::table::{Family, at, cold_at, remove};
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::flow::{Cold, REPLY, TICK_SHIFT, rest, state};
use loxi_ebpf_layout::l3::{Source, Zone, ZoneCount, timeout};
use loxi_ebpf_layout::scratch::{Packet, flag};

/// A zone's attributes.
#[inline(always)]
pub fn zone_of(number: u8) -> Option<&'static Zone> {
    ZONES.get(&(number as u32)).map(loxi_ebpf_layout::pair::Pair::current)
}

/// Flows of a zone.
#[inline(always)]
pub fn count_of(zone: u8) -> Option<*mut ZoneCount> {
    ZONE_COUNT.ptr(&(zone as u32))
}

/// Counts a learned thing.
#[inline(always)]
pub fn keep(kind: u32) {
    if let Some(count) = KEPT.ptr(&kind) {
        atomic::add(count, 1);
    }
}

/// Whether there are fewer learned things of a kind than may be.
#[inline(always)]
pub fn has_room(kind: u32, most: u32) -> bool {
    // SAFETY: a word of an array.
    KEPT.ptr(&kind).is_some_and(|count| (unsafe { count.read_volatile() } as i64) < most as i64)
}

/// One less.
#[inline(always)]
pub fn less(word: *mut u64) {
    atomic::add(word, u64::MAX);
}

/// Ticks of an idle time.
#[inline(always)]
fn idle_ticks(zone: &Zone, state: u8, protocol: u8) -> u64 {
    let seconds = zone.timeouts[(timeout::index(state, protocol) & 15) as usize];
    seconds as u64 * SECOND >> TICK_SHIFT
}

/// Whether the flow at a place lives: the later of its directions' packets is not too long ago.
#[inline(always)]
pub fn is_alive<F: Family>(number: u32) -> bool {
    let Some(p) = packet() else { return false };
    let Some(entry) = at::<F>(number) else { return false };
    let Some(zone) = zone_of(p.zone) else { return false };
    let now = tick(p.now);
    // SAFETY: words of an entry, each read at once, here and below.
    let word = unsafe { F::rest(entry).read_volatile() };
    let idle = idle_ticks(zone, rest::state(word), rest::protocol(word));
    if is_recent(now, unsafe { (*F::seen(entry)).seen }, idle) {
        return true;
    }
    let Some(cold) = cold_at::<F>(number) else { return false };
    let partner = unsafe { (*cold).partner };
    let Some(other) = at::<F>(partner) else { return false };
    is_recent(now, unsafe { (*F::seen(other)).seen }, idle)
}

/// Whether a tick is less than `idle` ticks ago. One that another processor has written is not yet
/// here at times.
#[inline(always)]
fn is_recent(now: u32, seen: u32, idle: u64) -> bool {
    (now.wrapping_sub(seen) as i32 as i64) < idle as i64
}

/// The cold record of a flow, that of its original direction, and its place.
#[inline(always)]
pub fn cold_of<F: Family>(word: u64, number: u32) -> Option<(&'static Cold, u32)> {
    let own = cold_at::<F>(number)?;
    // SAFETY: records live as long as the table.
    let own = unsafe { &*own };
    if rest::flags(word) & REPLY == 0 {
        return Some((own, number));
    }
    let original = own.partner;
    // SAFETY: as above.
    cold_at::<F>(original).map(|cold| (unsafe { &*cold }, original))
}

/// Takes out the flow at a place, both directions.
#[inline(always)]
pub fn forget<F: Family>(number: u32) {
    let Some(p) = packet() else { return };
    if p.flags & flag::DRY != 0 {
        p.flags |= flag::OVER;
        return;
    }
    let Some(entry) = at::<F>(number) else { return };
    // SAFETY: as above.
    let word = unsafe { F::rest(entry).read_volatile() };
    let Some((cold, original)) = cold_of::<F>(word, number) else { return };
    let (backend, partner) = (cold.backend, cold.partner);
    let Some(first) = at::<F>(original) else { return };
    let key = F::key(first);
    let reply = F::new_key(first).reversed();
    if original != number && (partner != number || !F::is(entry, &reply)) {
        // A reply whose flow has ended without it: what its record leads to is another's.
        remove::<F>(number, &F::key(entry));
        return;
    }
    // SAFETY: as above.
    let state = rest::state(unsafe { F::rest(first).read_volatile() });
    // Whoever takes the original's entry out does the accounts.
    if remove::<F>(original, &key) {
        uncount(p, state, backend, &key.src);
    }
    if partner != original {
        remove::<F>(partner, &reply);
    }
}

/// What a flow's end takes back.
#[inline(always)]
pub fn uncount(p: &Packet, was: u8, backend: u32, source: &Addr) {
    if let Some(count) = count_of(p.zone) {
        // SAFETY: words of an array, here and below.
        unsafe {
            less(&raw mut (*count).flows);
            if state::is_half_open(was) {
                less(&raw mut (*count).half_open);
            }
        }
    }
    if backend != 0
        && let Some(flows) = BACKEND_FLOWS.ptr(&backend)
    {
        less(flows);
    }
    // Sources are counted where they are limited; one may have been counted from later on.
    if zone_of(p.zone).is_none_or(|zone| zone.max_per_source == u32::MAX) {
        return;
    }
    let key = Source { zone: p.zone as u32, family: p.family as u32, addr: *source };
    if let Some(flows) = SOURCES.ptr(&key) {
        for _ in 0..ATTEMPTS {
            // SAFETY: as above.
            let now = unsafe { flows.read_volatile() };
            if now == 0 || atomic::replace(flows, now, now - 1) {
                break;
            }
        }
    }
}

/// Attempts to take one off a count.
const ATTEMPTS: u32 = 8;
