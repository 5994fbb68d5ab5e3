//! Changing a flow in place.
//!
//! Programs change the same words. State moves by exchange of the whole word, and only from the state
//! that was seen; counters and time are words of their own; the rest of the record is written while
//! the entry is held busy.

use super::Store;
use crate::state::flow::times::{Near, last_packet};
use crate::state::flow::{Flows, Key, Place, Record, accounts, codec};
use loxi_core::packet::Flow;
use loxi_ebpf_layout::flow::{BUSY, Cold, rest, state};

/// Attempts to exchange a word that others exchange too.
const ATTEMPTS: u32 = 64;

impl Store<'_> {
    /// Makes a flow what `after` says where that differs from `before`. Its tuples stay.
    pub(super) fn rewrite(&mut self, record: &Record, before: &Flow, after: &Flow) {
        if before == after {
            return;
        }
        let table = self.table(record.family);
        if after.state != before.state {
            self.change_state(&table, record, codec::state_number(after.state));
        }
        let places = [record.original, record.partner];
        for (n, place) in places.into_iter().enumerate().filter(|(n, _)| *n == 0 || !record.is_single()) {
            let deltas = [
                after.packets[n].wrapping_sub(before.packets[n]),
                after.bytes[n].wrapping_sub(before.bytes[n]),
            ];
            for (word, delta) in (1..).zip(deltas).filter(|(_, delta)| *delta != 0) {
                let _ = table.seen_word(place, word).fetch_add(delta);
            }
        }
        if (after.expires, after.state) != (before.expires, before.state) {
            self.change_end(&table, record, before, after);
        }
        self.change_cold(&table, record, before, after);
    }

    /// Both directions' state. Whoever changes the original's does the accounts.
    fn change_state(&self, table: &Flows<'_>, record: &Record, new: u8) {
        let old = record.state();
        if becomes(table, record.original, &record.key, old, new) {
            let word = accounts::zone_word(&*self.kernel, record.zone(), accounts::HALF_OPEN);
            match (state::is_half_open(old), state::is_half_open(new)) {
                (true, false) => accounts::less(word),
                (false, true) => accounts::more(word),
                _ => {}
            }
        }
        if !record.is_single() {
            becomes(table, record.partner, &record.reply(), old, new);
        }
    }

    /// The time of the last packet, from which the end follows: that of the direction
    /// which has had one, or of both where the end comes nearer.
    fn change_end(&self, table: &Flows<'_>, record: &Record, before: &Flow, after: &Flow) {
        let idle = self.timeouts(record.zone()).ns(codec::state_number(after.state), record.protocol());
        let (near, wanted) = (Near::created(record.cold.created), last_packet(after.expires, idle));
        let reply = !record.is_single() && after.packets[1] != before.packets[1];
        let places = [record.original, record.partner];
        if wanted >= record.last(near) {
            set_tick(table, places[usize::from(reply)], wanted as u32);
            return;
        }
        for (place, seen) in places.into_iter().zip(record.seen) {
            if near.whole(seen.seen) > wanted {
                set_tick(table, place, wanted as u32);
            }
        }
    }

    /// Everything else: what both drafts say alike stays as it is.
    fn change_cold(&self, table: &Flows<'_>, record: &Record, before: &Flow, after: &Flow) {
        let timeouts = self.timeouts(record.zone());
        let draft = |flow| codec::draft(self.names, &timeouts, flow);
        let (Some(old), Some(new)) = (draft(before), draft(after)) else { return };
        if old.cold == new.cold || !table.hold(record.original, &record.key) {
            return;
        }
        let now = table.cold(record.original);
        let next = merged(&old.cold, &new.cold, &now);
        table.set_cold(record.original, &next);
        table.publish(record.original, &record.key);
        if next.backend != now.backend {
            for (word, change) in [
                (accounts::backend_word(&*self.kernel, now.backend), accounts::less as fn(_)),
                (accounts::backend_word(&*self.kernel, next.backend), accounts::more),
            ] {
                word.into_iter().for_each(change);
            }
        }
    }
}

/// The record as it is now, with what differs between two drafts taken from the new one.
fn merged(old: &Cold, new: &Cold, now: &Cold) -> Cold {
    fn pick<T: PartialEq>(old: T, new: T, now: T) -> T {
        if old == new { now } else { new }
    }
    Cold {
        created: pick(old.created, new.created, now.created),
        partner: now.partner,
        service: pick(old.service, new.service, now.service),
        backend: pick(old.backend, new.backend, now.backend),
        backend_generation: pick(old.backend_generation, new.backend_generation, now.backend_generation),
        source_generation: pick(old.source_generation, new.source_generation, now.source_generation),
        destination_generation: pick(
            old.destination_generation,
            new.destination_generation,
            now.destination_generation,
        ),
        source_port: pick(old.source_port, new.source_port, now.source_port),
        destination_port: pick(old.destination_port, new.destination_port, now.destination_port),
        in_port: pick(old.in_port, new.in_port, now.in_port),
        in_tunnel: pick(old.in_tunnel, new.in_tunnel, now.in_tunnel),
        in_mac: pick(old.in_mac, new.in_mac, now.in_mac),
        translation: pick(old.translation, new.translation, now.translation),
        hairpin: pick(old.hairpin, new.hairpin, now.hairpin),
        dsr_target: pick(old.dsr_target, new.dsr_target, now.dsr_target),
    }
}

/// Moves the entry of a key from one state to another; whether it was in the first one.
fn becomes(table: &Flows<'_>, place: Place, key: &Key, old: u8, new: u8) -> bool {
    for _ in 0..ATTEMPTS {
        let Some(word) = table.settled(place) else { return false };
        if rest::state(word) != old || !table.is(place, key) {
            return false;
        }
        if table.rest(place).replace(word, rest::revised(word, new, rest::flags(word) & !BUSY)) {
            return true;
        }
    }
    false
}

/// Writes the time of the last packet, and leaves the epoch beside it.
fn set_tick(table: &Flows<'_>, place: Place, tick: u32) {
    for _ in 0..ATTEMPTS {
        let word = table.seen_word(place, 0).load();
        let [a, b, c, d, ..] = word.to_ne_bytes();
        let [e, f, g, h] = tick.to_ne_bytes();
        if table.seen_word(place, 0).replace(word, u64::from_ne_bytes([a, b, c, d, e, f, g, h])) {
            return;
        }
    }
}
