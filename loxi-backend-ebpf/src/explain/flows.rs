//! Records of flows: found as the programs find them, and whether they are alive.

use super::Walk;
use crate::sys::{COLD_V4, COLD_V6, FLOWS_V4, FLOWS_V6, ZONES};
use loxi_ebpf_layout::flow::{
    self, Cold, IPIP, Out, PLACES_V4, PLACES_V6, REPLY, Seen, Spot, TICK_SHIFT, Tags, rest,
};
use loxi_ebpf_layout::l3::{Zone, timeout};
use loxi_ebpf_layout::{Addr, family};

/// A key: both addresses, and the second word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) src: Addr,
    pub(super) dst: Addr,
    pub(super) rest: u64,
}

impl Key {
    /// The key of packets in the other direction.
    pub(super) fn reversed(self) -> Self {
        let r = self.rest;
        let rest = rest::key(rest::dport(r), rest::sport(r), rest::protocol(r), rest::zone(r));
        Self { src: self.dst, dst: self.src, rest }
    }

    /// Whether both directions have this key.
    pub(super) fn is_own_reverse(self) -> bool {
        self.src == self.dst && rest::sport(self.rest) == rest::dport(self.rest)
    }

    fn is(&self, other: &Self) -> bool {
        self.src == other.src && self.dst == other.dst && (self.rest ^ other.rest) & rest::KEY == 0
    }
}

/// One direction's record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Second word of the key, with state and flags.
    pub(super) word: u64,
    pub(super) key: Key,
    /// The tuple with which its packets leave.
    pub(super) new: Key,
    /// Its pair of new addresses: in IP in IP the outer header's.
    pub(super) pair: [Addr; 2],
    pub(super) seen: Seen,
    pub(super) out: Out,
}

/// A bucket of either family.
struct Bucket {
    tags: Tags,
    entries: Vec<Entry>,
}

fn narrow(words: [u64; 2]) -> Addr {
    let low = |word: u64| (word & 0xffff_ffff) as u32;
    Addr([low(words[0]), low(words[0] >> 32), low(words[1]), low(words[1] >> 32)])
}

fn wide(addr: Addr) -> [u64; 2] {
    let [a, b, c, d] = addr.0.map(u64::from);
    [a | b << 32, c | d << 32]
}

fn entry(addrs: [Addr; 2], pair: [Addr; 2], ports: [u16; 2], word: u64, seen: Seen, out: Out) -> Entry {
    let [src, dst] = addrs;
    let [new_src, new_dst] = if rest::flags(word) & IPIP == 0 { pair } else { addrs };
    let new_rest = rest::key(ports[0], ports[1], rest::protocol(word), rest::zone(word));
    Entry {
        word,
        key: Key { src, dst, rest: word & rest::KEY },
        new: Key { src: new_src, dst: new_dst, rest: new_rest },
        pair,
        seen,
        out,
    }
}

/// Four bits, one per lane in which bit 15 is set.
fn gather(lanes: u64) -> u32 {
    (0..4).filter(|lane| lanes >> (16 * lane + 15) & 1 != 0).fold(0, |bits, lane| bits | 1 << lane)
}

impl Bucket {
    /// A bit per place whose tag is this one, as exact as the programs see it.
    fn candidates(&self, tag: u16) -> u32 {
        let words = self.tags.words.iter().enumerate();
        let all = words.fold(0, |bits, (n, word)| bits | gather(flow::matching(*word, tag)) << (4 * n));
        all & ((1 << self.entries.len()) - 1)
    }

    fn search(&self, key: &Key, tag: u16) -> Option<u32> {
        let bits = self.candidates(tag);
        let places = self.entries.iter().zip(0u32..);
        places
            .filter(|(_, place)| bits >> place & 1 != 0)
            .find(|(entry, _)| entry.key.is(key))
            .map(|(_, n)| n)
    }
}

/// A place's number.
fn number(bucket: u32, place: u32) -> u32 {
    bucket.wrapping_mul(16).wrapping_add(place).wrapping_add(1)
}

impl Walk<'_> {
    fn bucket(&self, family: u8, index: u32) -> Option<Bucket> {
        if family == family::V4 {
            let bucket = self.t.array(FLOWS_V4, index)?;
            let v4 = |addr| Addr([addr, 0, 0, 0]);
            let entries = bucket
                .places
                .iter()
                .map(|e| entry(e.addrs.map(v4), e.new_addrs.map(v4), e.new_ports, e.rest, e.seen, e.out));
            return Some(Bucket { tags: bucket.tags, entries: entries.collect() });
        }
        let bucket = self.t.array(FLOWS_V6, index)?;
        let entries = bucket
            .places
            .iter()
            .map(|e| entry([narrow(e.src), narrow(e.dst)], e.new_addrs, e.new_ports, e.rest, e.seen, e.out));
        Some(Bucket { tags: bucket.tags, entries: entries.collect() })
    }

    fn spot(&self, family: u8, key: &Key) -> Spot {
        if family == family::V4 {
            let mask = self.t.kernel.length(FLOWS_V4).wrapping_sub(1);
            let hash = flow::hash_v4(self.seed, [key.src.0[0], key.dst.0[0]], key.rest);
            return flow::spot(hash, mask, PLACES_V4);
        }
        let mask = self.t.kernel.length(FLOWS_V6).wrapping_sub(1);
        flow::spot(flow::hash_v6(self.seed, wide(key.src), wide(key.dst), key.rest), mask, PLACES_V6)
    }

    /// The place of a key's record, unless the packet has ended that flow.
    pub(super) fn find(&self, family: u8, key: &Key) -> Option<u32> {
        self.find_any(family, key).filter(|number| !self.forgotten.contains(number))
    }

    fn find_any(&self, family: u8, key: &Key) -> Option<u32> {
        let spot = self.spot(family, key);
        let (first, second) = (self.bucket(family, spot.first)?, self.bucket(family, spot.second)?);
        for (away, place) in spot.own() {
            let bucket = if away { &second } else { &first };
            if bucket.entries.get(place as usize).is_some_and(|entry| entry.key.is(key)) {
                return Some(number(spot.bucket(away), place));
            }
        }
        if let Some(place) = first.search(key, spot.tag) {
            return Some(number(spot.first, place));
        }
        let place = second.search(key, spot.tag)?;
        Some(number(spot.second, place))
    }

    /// The packet ends the flow at a place, both directions, where it is one that is kept.
    pub(super) fn forget(&mut self, family: u8, number: u32) {
        if !self.commits {
            return;
        }
        let Some(entry) = self.entry(family, number) else { return };
        let Some((cold, original)) = self.cold_of(family, entry.word, number) else { return };
        let Some(first) = self.entry(family, original) else { return };
        let reply = first.new.reversed();
        self.forgotten.push(number);
        // A reply whose flow has ended without it: what its record leads to is another's.
        if original == number || cold.partner == number && entry.key.is(&reply) {
            self.forgotten.extend([original, cold.partner]);
            self.freed = Some((rest::state(first.word), first.key.src));
        }
    }

    /// Whether one of a key's buckets has room.
    pub(super) fn has_place(&self, family: u8, key: &Key) -> bool {
        let spot = self.spot(family, key);
        let free = |n| self.bucket(family, n).is_some_and(|bucket| bucket.candidates(0) != 0);
        free(spot.first) || free(spot.second)
    }

    /// The record at a place.
    pub(super) fn entry(&self, family: u8, number: u32) -> Option<Entry> {
        let place = number.wrapping_sub(1) & 15;
        if number == 0 {
            return None;
        }
        self.bucket(family, (number - 1) >> 4)?.entries.get(place as usize).copied()
    }

    fn cold_at(&self, family: u8, number: u32) -> Option<Cold> {
        let (bucket, place) = (number.checked_sub(1)? >> 4, (number - 1) & 15);
        if family == family::V4 {
            return self.t.array(COLD_V4, bucket)?.get(place as usize).copied();
        }
        self.t.array(COLD_V6, bucket)?.get((place & 7) as usize).copied()
    }

    /// What both directions of a flow share, and the place of its original one.
    pub(super) fn cold_of(&self, family: u8, word: u64, number: u32) -> Option<(Cold, u32)> {
        let own = self.cold_at(family, number)?;
        if rest::flags(word) & REPLY == 0 {
            return Some((own, number));
        }
        self.cold_at(family, own.partner).map(|cold| (cold, own.partner))
    }

    /// A zone's attributes.
    pub(super) fn zone(&self, number: u8) -> Option<Zone> {
        self.t.current(ZONES, number.into())
    }

    /// Whether the flow at a place lives: the later of its directions' packets is not too long ago.
    pub(super) fn is_alive(&self, family: u8, number: u32) -> bool {
        let Some((entry, zone)) = self.entry(family, number).zip(self.zone(self.p.zone)) else {
            return false;
        };
        let index = timeout::index(rest::state(entry.word), rest::protocol(entry.word)) & 15;
        let seconds = u64::from(zone.timeouts[usize::from(index)]);
        let idle = (seconds * super::SECOND) >> TICK_SHIFT;
        let now = tick(self.p.now);
        let recent = |seen: u32| i64::from(now.wrapping_sub(seen).cast_signed()) < idle.cast_signed();
        if recent(entry.seen.seen) {
            return true;
        }
        let partner = self.cold_at(family, number).map_or(0, |cold| cold.partner);
        self.entry(family, partner).is_some_and(|other| recent(other.seen.seen))
    }

    /// Whether a key is that of a flow that lives.
    pub(super) fn is_taken(&self, family: u8, key: &Key) -> bool {
        self.find(family, key).is_some_and(|number| self.is_alive(family, number))
    }
}

/// A time in ticks.
pub(super) fn tick(ns: u64) -> u32 {
    (ns >> TICK_SHIFT) as u32
}
