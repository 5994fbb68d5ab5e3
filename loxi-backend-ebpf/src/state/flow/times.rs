//! When a flow ends: the later of its directions' last packets, and the idle time of its state.
//!
//! Entries have a time of 32 bits of ticks, which come round after more than two years. A tick is
//! taken for the one nearest to a time that is known.

use crate::sys::{Kernel, ZONES};
use loxi_core::packet::Timestamp;
use loxi_ebpf_layout::flow::TICK_SHIFT;
use loxi_ebpf_layout::l3::timeout;
use loxi_ebpf_layout::limits;

/// Ticks before a flow's beginning in which its last packet is looked for; the rest is after it.
const BEFORE: u64 = 1 << 30;

/// The tick of a time.
pub(in crate::state) fn tick(at: Timestamp) -> u32 {
    (at.0 >> TICK_SHIFT) as u32
}

/// The tick with these low bits that is nearest to `near`.
fn widen(tick: u32, near: u64) -> u64 {
    let difference = tick.wrapping_sub(near as u32) as i32;
    near.saturating_add_signed(difference.into())
}

/// What ticks are counted from.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct Near(u64);

impl Near {
    /// The time that it is.
    pub(in crate::state) fn now(now: Timestamp) -> Self {
        Self(now.0 >> TICK_SHIFT)
    }

    /// A flow's beginning: most of its packets come later.
    pub(in crate::state) fn created(ns: u64) -> Self {
        Self((ns >> TICK_SHIFT).saturating_add((1 << 31) - BEFORE))
    }

    /// The whole tick.
    pub(in crate::state) fn whole(self, tick: u32) -> u64 {
        widen(tick, self.0)
    }
}

/// A zone's idle times.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct Timeouts([u32; 16]);

impl Timeouts {
    /// Those of a zone.
    pub(in crate::state) fn of(kernel: &dyn Kernel, zone: u8) -> Self {
        Self(kernel.at(ZONES, zone.into()).current().timeouts)
    }

    /// Those of every zone, by number.
    pub(in crate::state) fn all(kernel: &dyn Kernel) -> Vec<Self> {
        (0..=limits::ZONES).map(|zone| Self(kernel.at(ZONES, zone).current().timeouts)).collect()
    }

    /// How long a flow of this state and protocol may idle, ns.
    pub(in crate::state) fn ns(&self, state: u8, protocol: u8) -> u64 {
        let index = timeout::index(state, protocol) & 15;
        u64::from(self.0[usize::from(index)]) * Timestamp::SECOND
    }
}

/// When a flow ends whose last packet was at a tick.
pub(in crate::state) fn end(last: u64, idle: u64) -> Timestamp {
    Timestamp(last.saturating_mul(1 << TICK_SHIFT).saturating_add(idle))
}

/// The last packet of a flow that ends at a time: the inverse of [`end`].
pub(in crate::state) fn last_packet(end: Timestamp, idle: u64) -> u64 {
    end.0.saturating_sub(idle) >> TICK_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_the_one_nearest_to_what_is_known() {
        let day = 86_400 * Timestamp::SECOND;
        for now in [0, 1, 5 * day, 833 * day, 834 * day, 835 * day, 5000 * day] {
            let near = Near::now(Timestamp(now));
            for off in [0, 1, 50, 10 * day, 400 * day] {
                let seen = Timestamp(now.saturating_sub(off));
                assert_eq!(near.whole(tick(seen)), seen.0 >> TICK_SHIFT, "{off} before {now}");
                let ahead = Timestamp(now + off);
                assert_eq!(near.whole(tick(ahead)), ahead.0 >> TICK_SHIFT, "{off} after {now}");
            }
        }
    }

    #[test]
    fn a_flow_may_live_for_longer_than_half_a_round() {
        let day = 86_400 * Timestamp::SECOND;
        for created in [3 * day, 700 * day, 900 * day] {
            for seen in [created, created - 2 * day, created + day, created + 600 * day] {
                let whole = Near::created(created).whole(tick(Timestamp(seen)));
                assert_eq!(whole, seen >> TICK_SHIFT, "{seen} of {created}");
            }
        }
    }

    #[test]
    fn end_and_last_packet_are_inverse() {
        for last in [0, 1, 60_000_000, 1 << 33] {
            for idle in [0, 3, 30 * Timestamp::SECOND, 86_400 * Timestamp::SECOND] {
                assert_eq!(last_packet(end(last, idle), idle), last);
            }
        }
        assert_eq!(end(u64::MAX, 1), Timestamp(u64::MAX));
        assert_eq!(last_packet(Timestamp(5), 6), 0);
    }
}
