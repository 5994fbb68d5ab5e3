//! Flows in order, a page at a time.
//!
//! The table has no order, so a page is found by going through it once and keeping the first flows behind
//! the cursor: as many as the page has and one more. Nothing is allocated for a flow
//! that isn't kept.

use super::flow::times::{Near, Timeouts};
use super::flow::{FAMILIES, Flows, Key, Record, codec};
use super::store::Store;
use crate::install::Names;
use loxi_core::dataplane::{FlowFilter, FlowPage, FlowQuery};
use loxi_core::net::IpPrefix;
use loxi_core::packet::{FlowTuple, Timestamp};
use loxi_ebpf_layout::flow::{BUSY, Cold, REPLY, rest};
use std::collections::BinaryHeap;
use std::mem::offset_of;

/// Where a flow is in the order: its zone's place among the names, its tuple.
type Rank = (usize, FlowTuple);

/// A flow that may be on the page.
struct Kept {
    rank: Rank,
    record: Record,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Kept {}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

/// A page as it comes into being.
struct Page<'a> {
    filter: &'a FlowFilter,
    /// Ports that are asked for, by number; none: all.
    ingress: Option<u32>,
    /// Order of the zones by number; none: nobody's, or not asked for.
    zones: Vec<Option<usize>>,
    /// Where the last page ended: no flow up to there.
    after: Option<(usize, Option<FlowTuple>)>,
    most: usize,
    kept: BinaryHeap<Kept>,
}

impl Page<'_> {
    /// Whether a flow of this rank comes behind the cursor and before what the page is full with.
    fn wants(&self, rank: &Rank) -> bool {
        let behind = self.after.as_ref().is_none_or(|(zone, tuple)| match tuple {
            Some(tuple) => *rank > (*zone, *tuple),
            None => rank.0 >= *zone,
        });
        behind && (self.kept.len() < self.most || self.kept.peek().is_some_and(|last| *rank < last.rank))
    }

    /// Whether it takes more than zone, protocol and port to tell whether a flow is asked for.
    fn looks_inside(&self) -> bool {
        self.filter.address.is_some() || self.filter.l4_port.is_some()
    }

    /// Whether a flow of these keys is asked for.
    fn admits(&self, family: u8, key: &Key, new: &Key) -> bool {
        let (o, r) = (key.tuple(family), new.tuple(family));
        let within =
            |prefix: IpPrefix| [o.src, o.dst, r.src, r.dst].iter().any(|addr| prefix.contains(*addr));
        let has = |port| [o.src_port, o.dst_port, r.src_port, r.dst_port].contains(&port);
        self.filter.address.is_none_or(within) && self.filter.l4_port.is_none_or(has)
    }

    /// Whether flows that came in there are asked for, and anybody's.
    fn admits_port(&self, names: &Names, port: u16) -> bool {
        self.ingress.is_none_or(|asked| asked == u32::from(port)) && names.ports.live(port.into()).is_some()
    }

    fn look_through(&mut self, store: &Store<'_>, table: &Flows<'_>, timeouts: &[Timeouts], now: Timestamp) {
        let (near, family) = (Near::now(now), table.family());
        table.scan(0..table.buckets(), |place, word| {
            let zone = usize::from(rest::zone(word));
            let Some(order) = self.zones[zone] else { return };
            let protocol = rest::protocol(word);
            if rest::flags(word) & REPLY != 0 || self.filter.protocol.is_some_and(|p| p.0 != protocol) {
                return;
            }
            // What is only compared is not copied; an entry that somebody writes is waited for.
            if rest::flags(word) & BUSY == 0 {
                if !self.wants(&(order, table.key(place, word).tuple(family))) {
                    return;
                }
                if self.looks_inside() {
                    let half = table.read(place, word);
                    if !self.admits(family, &half.key, &half.new) {
                        return;
                    }
                }
                let [.., a, b, _, _] = table.cold_word(place, offset_of!(Cold, in_port)).load().to_ne_bytes();
                if !self.admits_port(store.names, u16::from_ne_bytes([a, b])) {
                    return;
                }
            }
            let Ok((_, record)) = table.record(place) else { return };
            let same = record.original == place && usize::from(record.zone()) == zone;
            let rank = (order, record.key.tuple(family));
            let asked = self.admits(family, &record.key, &record.new)
                && self.admits_port(store.names, record.cold.in_port);
            let lives = record.expires(&timeouts[zone], near) > now;
            if same && asked && lives && self.wants(&rank) {
                self.kept.push(Kept { rank, record });
                if self.kept.len() > self.most {
                    self.kept.pop();
                }
            }
        });
    }
}

const _: () = assert!(offset_of!(Cold, in_port) % 8 == 4);

/// A page of flows that haven't expired, by zone and tuple.
#[must_use]
pub fn flows(store: &Store<'_>, query: &FlowQuery, now: Timestamp) -> FlowPage {
    let size = query.page_size();
    let mut zones = vec![None; 256];
    let asked = query.filter.zone.as_ref();
    for (order, (name, number)) in store.names.zones.all().enumerate() {
        let its = asked.is_none_or(|asked| asked == name);
        if let Some(zone) = usize::try_from(number).ok().and_then(|at| zones.get_mut(at)).filter(|_| its) {
            *zone = Some(order);
        }
    }
    let ingress = query.filter.ingress.as_ref().map(|name| codec::number(&store.names.ports, name));
    // A cursor's zone may have gone since: then what comes behind it begins with the next zone.
    let after = query.cursor.as_ref().map(|cursor| {
        let order = store.names.zones.all().take_while(|(name, _)| **name < cursor.zone).count();
        let there = store.names.zones.number(&cursor.zone).is_some();
        (order, there.then_some(cursor.tuple))
    });
    let most = size + 1;
    let mut page = Page { filter: &query.filter, ingress, zones, after, most, kept: BinaryHeap::new() };
    let timeouts = Timeouts::all(&*store.kernel);
    for family in FAMILIES {
        page.look_through(store, &store.table(family), &timeouts, now);
    }
    let mut records = page.kept.into_sorted_vec();
    let more = records.len() > size;
    records.truncate(size);
    let flow =
        |kept: &Kept| codec::flow(store.names, &timeouts[usize::from(kept.record.zone())], &kept.record);
    let flows: Vec<_> = records.iter().filter_map(flow).collect();
    let next = if more { flows.last().map(|flow| flow.id.clone()) } else { None };
    FlowPage { flows, next }
}
