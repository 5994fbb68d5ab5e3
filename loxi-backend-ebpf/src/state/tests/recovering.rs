//! What a killed daemon leaves, and how it is put right.

use super::fixture::*;
use crate::state::flow::record::Missing;
use crate::state::flow::{Key, Place, Seat};
use crate::state::{Recovered, Store, recount, recover};
use crate::sys::{
    BACKEND_FLOWS, FRAGMENTS, KEPT, NEIGHBORS, SOURCES, STATION_COUNT, STATIONS, Table, ZONE_COUNT,
};
use loxi_core::dataplane::FlowStore;
use loxi_core::packet::Flow;
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::flow::{BUSY, REPLY, Seen, rest, state};
use loxi_ebpf_layout::l2::{Link, Station, StationAt};
use loxi_ebpf_layout::l3::{Fragment, FragmentKey, Neighbor, NeighborKey, Source, neighbor};

fn key(of: &Flow) -> Key {
    Key::of(1, &of.id.tuple).unwrap().1
}

fn seat(of: &Flow) -> Seat {
    let seen = Seen { seen: crate::state::flow::times::tick(NOW), ..Seen::default() };
    Seat { key: key(of), new: key(of), state: state::SYN_SENT, flags: 0, seen }
}

fn place(store: &Store<'_>, of: &Flow) -> Place {
    store.table(4).find(&key(of)).unwrap()
}

#[test]
fn a_sound_table_is_left_alone() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    for n in 0..40 {
        store.insert(nth(n), NOW).unwrap();
    }
    let recovered = recover(&mut store).unwrap();
    assert_eq!(recovered.counts.flows, 40);
    assert_eq!(recovered, Recovered { counts: recovered.counts, ..Recovered::default() });
    assert_eq!(recovered.counts.corrected, 0);
    assert!((0..40).all(|n| store.get(&nth(n).id).is_some()));
}

#[test]
fn locks_of_a_killed_daemon_come_free_and_those_of_programs_stay() {
    let mut node = Node::new([4, 4]);
    let mut store = node.store();
    for bucket in [0, 3] {
        store.table(4).lock_word(bucket).store(2);
    }
    store.table(6).lock_word(1).store(2);
    store.table(6).lock_word(2).store(1);
    assert_eq!(recover(&mut store).unwrap().locks, 3);
    let locks = [4, 6].map(|family| [0, 1, 2, 3].map(|bucket| store.table(family).lock_word(bucket).load()));
    assert_eq!(locks, [[0; 4], [0, 0, 1, 0]]);
}

#[test]
fn a_place_claimed_and_not_published_is_freed() {
    let mut node = Node::new([4, 4]);
    let mut store = node.store();
    store.insert(nth(1), NOW).unwrap();
    // Killed with one entry claimed, and with both.
    store.table(4).claim(&seat(&nth(2))).unwrap();
    let both = nth(3);
    store.table(4).claim(&seat(&both)).unwrap();
    let mut reply = seat(&both);
    (reply.key, reply.flags) = (seat(&both).key.reversed(), REPLY);
    store.table(4).claim(&reply).unwrap();
    let recovered = recover(&mut store).unwrap();
    assert_eq!((recovered.unfinished, recovered.broken), (3, 0));
    for n in [2, 3] {
        store.insert(nth(n), NOW).unwrap();
    }
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 3);
    assert!(store.get(&nth(1).id).is_some());
}

#[test]
fn what_was_done_half_under_a_lock_is_undone() {
    let mut node = Node::new([1, 1]);
    let mut store = node.store();
    for n in 1..=4 {
        store.insert(nth(n), NOW).unwrap();
    }
    let places = [1, 2, 3, 4].map(|n| place(&store, &nth(n)));
    let table = store.table(4);
    // Killed between key and tag: of one that goes, and of one that comes.
    table.lock_word(0).store(2);
    table.rest(places[0]).store(0);
    let tags = table.tag_word(0, places[1].place as usize / 4);
    tags.store(tags.load() & !(0xffff << (16 * (places[1].place % 4))));
    let recovered = recover(&mut store).unwrap();
    assert_eq!(recovered.locks, 1);
    assert_eq!(recovered.broken, 2, "their replies");
    assert_eq!(recovered.counts.flows, 2);
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 2);
    let table = store.table(4);
    assert_eq!(table.rest(places[1]).load(), 0);
    assert_eq!(table.tagged(0).count_ones(), 4);
    for n in [1, 2] {
        assert_eq!(store.get(&nth(n).id), None);
        store.insert(nth(n), NOW).unwrap();
    }
    for n in 1..=4 {
        assert!(store.get(&nth(n).id).is_some(), "{n}");
    }
}

#[test]
fn a_flow_whose_record_was_being_written_ends_whole() {
    for which in [0, 1] {
        let mut node = Node::new([4, 4]);
        let mut store = node.store();
        store.insert(nth(1), NOW).unwrap();
        store.insert(nth(2), NOW).unwrap();
        let table = store.table(4);
        let (_, record) = table.record(place(&store, &nth(1))).unwrap();
        let at = [record.original, record.partner][which];
        table.rest(at).store(table.rest(at).load() | u64::from(BUSY) << rest::FLAGS);
        let recovered = recover(&mut store).unwrap();
        assert_eq!((recovered.unfinished, recovered.broken), (1, 1));
        assert_eq!(recovered.counts.flows, 1);
        let entries: u32 = (0..4).map(|bucket| store.table(4).tagged(bucket).count_ones()).sum();
        assert_eq!(entries, 2);
        assert_eq!(store.get(&nth(1).id), None);
        assert!(store.get(&nth(2).id).is_some());
        assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 1);
    }
}

#[test]
fn an_entry_without_its_other_direction_goes() {
    let mut node = Node::new([4, 4]);
    let mut store = node.store();
    for n in 1..=3 {
        store.insert(nth(n), NOW).unwrap();
    }
    let table = store.table(4);
    let [one, two, _] = [1, 2, 3].map(|n| table.record(place(&store, &nth(n))).unwrap().1);
    assert!(table.clear(one.original, one.word));
    assert!(table.clear(two.partner, table.rest(two.partner).load()));
    for place in [one.partner, two.original] {
        assert_eq!(table.record(place).err(), Some(Missing::Broken));
    }
    let recovered = recover(&mut store).unwrap();
    assert_eq!(recovered.broken, 2);
    assert_eq!(recovered.counts.flows, 1);
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 1);
    assert!(store.get(&nth(3).id).is_some());
}

#[test]
fn wrong_counts_become_right() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    for n in 0..10 {
        let mut flow = nth(n);
        flow.id.zone = zone("z2");
        flow.backend = Some(("b2".parse().unwrap(), 6));
        store.insert(flow, NOW).unwrap();
    }
    let kernel = &mut *store.kernel;
    let count = kernel.memory(Table::ZoneCount);
    // Below zero, too many, in a zone without flows; an endpoint without any.
    count.word(2 * 32).store(u64::MAX);
    count.word(2 * 32 + 8).store(99);
    count.word(32).store(5);
    kernel.memory(Table::BackendFlows).word(2 * 8).store(3);
    kernel.memory(Table::BackendFlows).word(8).store(u64::MAX - 1);
    let (known, other) =
        (kernel.all(SOURCES).unwrap()[0].0, Source { zone: 2, family: 4, ..Source::default() });
    kernel.set(SOURCES, &known, &77).unwrap();
    kernel.set(SOURCES, &other, &u64::MAX).unwrap();
    let missing = kernel.all(SOURCES).unwrap().into_iter().find(|(_, flows)| *flows == 1).unwrap().0;
    kernel.unset(SOURCES, &missing).unwrap();
    let station = |n: u8, fixed| {
        let key = Station { link: Link { id: 1, vlan: 1 }, mac: [2, 0, 0, 0, 0, n], reserved: 0 };
        (key, StationAt { port: 1, tunnel: 0, fixed, expires: u64::MAX })
    };
    for (key, at) in [station(1, 0), station(2, 0), station(3, 1)] {
        kernel.set(STATIONS, &key, &at).unwrap();
    }
    for (n, state) in [(1, neighbor::REACHABLE), (2, neighbor::FIXED)] {
        let key = NeighborKey { interface: n, family: 4, ..NeighborKey::default() };
        kernel.set(NEIGHBORS, &key, &Neighbor { state, ..Neighbor::default() }).unwrap();
    }
    kernel.set(FRAGMENTS, &FragmentKey { zone: 1, ..FragmentKey::default() }, &Fragment::default()).unwrap();
    kernel.memory(Table::Kept).word(8 * kept::NEIGHBORS as usize).store(9);
    let found = recount(&mut store).unwrap();
    // Three of zones, two of endpoints, three sources, stations twice, neighbours, fragments.
    assert_eq!((found.flows, found.corrected), (10, 12));
    let kernel = &*store.kernel;
    assert_eq!(kernel.at(ZONE_COUNT, 1).flows, 0);
    assert_eq!((kernel.at(ZONE_COUNT, 2).flows, kernel.at(ZONE_COUNT, 2).half_open), (10, 10));
    assert_eq!([1, 2].map(|n| kernel.at(BACKEND_FLOWS, n)), [0, 10]);
    assert_eq!([0, 1, 2].map(|kind| kernel.at(KEPT, kind)), [2, 1, 1]);
    assert_eq!(kernel.at(STATION_COUNT, 1), 2);
    let mut sources: Vec<_> = kernel.all(SOURCES).unwrap().iter().map(|(_, flows)| *flows).collect();
    sources.sort_unstable();
    assert_eq!(sources, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(recount(&mut store).unwrap().corrected, 0);
}

#[test]
fn a_zone_that_begins_to_limit_sources_has_them_counted() {
    let mut node = Node::new([16, 16]);
    for sport in 0..3 {
        node.store().insert(flow(tuple("10.0.0.1", sport, "10.0.0.2", 80), NOW), NOW).unwrap();
    }
    let mut pair = node.kernel().at(crate::sys::ZONES, 1);
    pair.halves[1].max_per_source = 10;
    node.kernel().fill(crate::sys::ZONES, 1, &pair);
    assert_eq!(node.store().of_source(&zone("z1"), addr("10.0.0.1")), 0);
    recount(&mut node.store()).unwrap();
    assert_eq!(node.store().of_source(&zone("z1"), addr("10.0.0.1")), 3);
    let id = flow(tuple("10.0.0.1", 1, "10.0.0.2", 80), NOW).id;
    node.store().remove(&id).unwrap();
    assert_eq!(node.store().of_source(&zone("z1"), addr("10.0.0.1")), 2);
}
