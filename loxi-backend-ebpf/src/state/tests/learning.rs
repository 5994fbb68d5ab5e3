//! Stations, neighbours and the rest, with their counts.

use super::fixture::*;
use crate::state::{Pace, Store, recount};
use crate::sys::{
    AFFINITY, ENDPOINTS, KEPT, Kernel, NEIGHBORS, PATH_MTUS, PORT_POLICY, STATION_COUNT, STATIONS, TURNS,
};
use loxi_core::dataplane::StateStore;
use loxi_core::ir::{FdbKey, NeighborKey};
use loxi_core::net::{MacAddr, VlanId};
use loxi_core::packet::{
    AffinityEntry, FdbEntry, FragmentEntry, NeighborEntry, NeighborState, PathMtuEntry, Timestamp,
};
use loxi_core::reason::DropReason;
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::flow::TICK_SHIFT;
use loxi_ebpf_layout::l2::{Link, PortPolicy, Station, StationAt};
use loxi_ebpf_layout::l3::{self, Neighbor, neighbor};
use loxi_ebpf_layout::limits;
use loxi_ebpf_layout::tunnel::{EndpointKey, outer_mtu};

pub(super) fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 9, n])
}

pub(super) fn station(n: u8) -> FdbEntry {
    let key = FdbKey { bridge: "br".parse().unwrap(), vlan: VlanId::default(), mac: mac(n) };
    FdbEntry { key, port: port("p1"), tunnel: None, expires: NOW.plus_s(10) }
}

pub(super) fn neighbor(n: u8) -> NeighborEntry {
    NeighborEntry {
        key: NeighborKey { interface: "if1".parse().unwrap(), address: addr(&format!("10.0.0.{n}")) },
        state: NeighborState::Reachable(mac(n)),
        asked: NOW,
        expires: NOW.plus_s(10),
    }
}

pub(super) fn client() -> AffinityEntry {
    AffinityEntry {
        service: service(),
        client: addr("fd00::77"),
        backend: ("b2".parse().unwrap(), 6),
        expires: NOW.plus_s(10),
    }
}

pub(super) fn lowered(remote: &str, mtu: u16) -> PathMtuEntry {
    let expires = Timestamp(NOW.plus_s(10).0 >> TICK_SHIFT << TICK_SHIFT);
    PathMtuEntry { remote: addr(remote), mtu, expires }
}

pub(super) fn fragment() -> FragmentEntry {
    let tuple = tuple("10.0.0.1", 1234, "10.0.0.2", 80);
    FragmentEntry {
        zone: zone("z1"),
        src: tuple.src,
        dst: tuple.dst,
        id: 0xabcd_0123,
        protocol: 6,
        first: Ok(tuple),
        expires: NOW.plus_s(10),
    }
}

/// Gives a remote address a place among path MTUs.
pub(super) fn endpoint(node: &mut Node, remote: &str, place: u32) {
    let (family, addr) = crate::state::flow::key::wire(addr(remote));
    let kernel: &mut dyn Kernel = &mut node.kernel;
    kernel.set(ENDPOINTS, &EndpointKey { family: family.into(), addr }, &place).unwrap();
}

pub(super) fn learn_one_of_each(node: &mut Node) {
    endpoint(node, "192.0.2.50", 3);
    let mut store = node.store();
    store.put_station(station(1));
    store.put_neighbor(neighbor(1));
    store.put_affinity(client());
    store.put_path_mtu(lowered("192.0.2.50", 1400));
    store.put_fragment(fragment());
}

fn counts(store: &Store<'_>) -> [u64; 4] {
    let [stations, neighbors, fragments] =
        [kept::STATIONS, kept::NEIGHBORS, kept::FRAGMENTS].map(|kind| store.kernel.at(KEPT, kind));
    [stations, store.kernel.at(STATION_COUNT, 1), neighbors, fragments]
}

#[test]
fn everything_is_told_as_it_was_learned() {
    let mut node = Node::new([4, 4]);
    learn_one_of_each(&mut node);
    let mut store = node.store();
    assert_eq!(counts(&store), [1, 1, 1, 1]);
    assert_eq!(store.station(&station(1).key), Some(station(1)));
    assert_eq!(store.neighbor(&neighbor(1).key), Some(neighbor(1)));
    assert_eq!(store.affinity(&service(), client().client), Some(client()));
    assert_eq!(store.path_mtu(addr("192.0.2.50")), Some(lowered("192.0.2.50", 1400)));
    assert_eq!(store.fragment(&fragment().key()), Some(fragment()));
    let mut behind = station(2);
    (behind.port, behind.tunnel) = (port("p4"), Some("t1".parse().unwrap()));
    store.put_station(behind.clone());
    assert_eq!(store.station(&behind.key), Some(behind));
    let mut asked = neighbor(2);
    (asked.state, asked.key.address) = (NeighborState::Incomplete, addr("fd00::5"));
    store.put_neighbor(asked.clone());
    assert_eq!(store.neighbor(&asked.key), Some(asked));
    let mut dropped = fragment();
    (dropped.id, dropped.first) = (1, Err(DropReason::PolicyDenied));
    store.put_fragment(dropped.clone());
    assert_eq!(store.fragment(&dropped.key()), Some(dropped));
    assert_eq!(counts(&store), [2, 2, 2, 2]);
    assert_eq!(recount(&mut store).unwrap().corrected, 0);
}

#[test]
fn learning_again_counts_once() {
    let mut node = Node::new([4, 4]);
    for _ in 0..3 {
        learn_one_of_each(&mut node);
    }
    let mut longer = fragment();
    longer.expires = NOW.plus_s(20);
    let mut store = node.store();
    store.put_fragment(longer.clone());
    assert_eq!(store.fragment(&longer.key()), Some(longer));
    assert_eq!(counts(&store), [1, 1, 1, 1]);
}

#[test]
fn what_is_configured_is_no_state() {
    let mut node = Node::new([4, 4]);
    let fixed = Station { link: Link { id: 1, vlan: 1 }, mac: mac(1).octets(), reserved: 0 };
    let at = StationAt { port: 2, tunnel: 0, fixed: 1, expires: 0 };
    let known = l3::NeighborKey { interface: 1, family: 4, addr: loxi_ebpf_layout::Addr::v4([10, 0, 0, 1]) };
    let has = Neighbor { mac: mac(8).octets(), state: neighbor::FIXED, ..Neighbor::default() };
    let mut store = node.store();
    store.kernel.set(STATIONS, &fixed, &at).unwrap();
    store.kernel.set(NEIGHBORS, &known, &has).unwrap();
    store.put_station(station(1));
    store.put_neighbor(neighbor(1));
    assert_eq!(store.station(&station(1).key), None);
    assert_eq!(store.neighbor(&neighbor(1).key), None);
    // Something learned, so that the tables are searched.
    store.put_station(station(2));
    store.put_neighbor(neighbor(2));
    crate::state::sweep(&mut store, NOW.plus_s(1000));
    assert_eq!(store.kernel.look(STATIONS, &fixed).unwrap(), Some(at));
    assert_eq!(store.kernel.look(NEIGHBORS, &known).unwrap(), Some(has));
    assert_eq!(counts(&store), [0; 4]);
    let exported = crate::state::export(&store).unwrap();
    assert!(exported.fdb.is_empty() && exported.neighbors.is_empty());
}

#[test]
fn decisions_are_outdated_by_what_changes_them_and_by_nothing_else() {
    let mut node = Node::new([4, 4]);
    let mut before = node.epoch();
    let mut changes = |node: &mut Node, wanted: bool, what: &str, change: fn(&mut Store<'_>)| {
        change(&mut node.store());
        assert_eq!(node.epoch() != before, wanted, "{what}");
        before = node.epoch();
    };
    endpoint(&mut node, "192.0.2.50", 3);
    changes(&mut node, false, "a new station", |store| store.put_station(station(1)));
    changes(&mut node, false, "a station heard again", |store| {
        store.put_station(FdbEntry { expires: NOW.plus_s(99), ..station(1) });
    });
    changes(&mut node, true, "a station at another port", |store| {
        store.put_station(FdbEntry { port: port("p2"), ..station(1) });
    });
    changes(&mut node, true, "a station behind a tunnel", |store| {
        let tunnel = Some("t1".parse().unwrap());
        store.put_station(FdbEntry { port: port("p2"), tunnel, ..station(1) });
    });
    changes(&mut node, false, "a question", |store| {
        store.put_neighbor(NeighborEntry { state: NeighborState::Incomplete, ..neighbor(1) });
    });
    changes(&mut node, false, "its answer", |store| store.put_neighbor(neighbor(1)));
    changes(&mut node, true, "another answer", |store| {
        store.put_neighbor(NeighborEntry { state: NeighborState::Reachable(mac(99)), ..neighbor(1) });
    });
    changes(&mut node, true, "a path MTU", |store| store.put_path_mtu(lowered("192.0.2.50", 1400)));
    changes(&mut node, false, "the same for longer", |store| {
        store.put_path_mtu(PathMtuEntry { expires: NOW.plus_s(99), ..lowered("192.0.2.50", 1400) });
    });
    changes(&mut node, true, "a lower one", |store| store.put_path_mtu(lowered("192.0.2.50", 1300)));
    changes(&mut node, false, "one without a place", |store| store.put_path_mtu(lowered("192.0.2.51", 1300)));
}

#[test]
fn a_path_mtu_is_what_the_programs_read() {
    let mut node = Node::new([4, 4]);
    endpoint(&mut node, "fd00::50", 7);
    let mut store = node.store();
    store.put_path_mtu(lowered("fd00::50", 1280));
    store.put_path_mtu(lowered("fd00::51", 1280));
    assert_eq!(store.path_mtu(addr("fd00::51")), None);
    let word = store.kernel.at(PATH_MTUS, 7);
    let ticks = |at: Timestamp| crate::state::flow::times::tick(at);
    assert_eq!(outer_mtu(word, ticks(NOW), 1500), 1280);
    assert_eq!(outer_mtu(word, ticks(NOW.plus_s(10)), 1500), 1500);
    let entry = store.path_mtu(addr("fd00::50")).unwrap();
    assert!(entry.expires > NOW.plus_s(9) && entry.expires <= NOW.plus_s(10));
}

#[test]
fn a_full_bridge_is_searched_for_expired_stations() {
    let mut node = Node::new([4, 4]);
    let bridge = "br".parse().unwrap();
    let mut pace = Pace::default();
    let mut store = node.store().paced(&mut pace);
    for n in 0..4 {
        assert_eq!(store.stations(&bridge, NOW), u64::from(n));
        store.put_station(FdbEntry { expires: NOW.plus_s(10 + u32::from(n)), ..station(n) });
    }
    assert_eq!(store.stations(&bridge, NOW.plus_s(9)), 4);
    assert_eq!(store.stations(&bridge, NOW.plus_s(10)), 3, "one has expired");
    store.put_station(FdbEntry { expires: NOW.plus_s(60), ..station(7) });
    // Two more have expired and there is room for one: the table isn't searched in between.
    assert_eq!(store.stations(&bridge, NOW.plus_s(12)), 2);
    assert_eq!(store.kernel.at(KEPT, kept::STATIONS), 2);
    assert_eq!(recount(&mut store).unwrap().corrected, 0);
}

#[test]
fn fragments_are_counted_and_stale_ones_make_room() {
    let mut node = Node::new([4, 4]);
    let mut pace = Pace::default();
    let mut store = node.store().paced(&mut pace);
    let nth = |id: u32, expires| FragmentEntry { id, expires, ..fragment() };
    for id in 0..limits::FRAGMENTS {
        store.put_fragment(nth(id, if id < 100 { NOW } else { NOW.plus_s(30) }));
    }
    assert_eq!(store.fragments(NOW.plus_s(29)), 4096, "a record is kept for 30 s after its end");
    assert_eq!(store.fragments(NOW.plus_s(30)), 3996);
    assert_eq!(store.fragment(&nth(5, NOW).key()), None);
    assert!(store.fragment(&nth(100, NOW).key()).is_some());
    store.put_fragment(nth(5, NOW));
    assert_eq!(store.fragments(NOW.plus_s(30)), 3997);
    assert_eq!(recount(&mut store).unwrap().corrected, 0);
}

#[test]
fn a_search_that_can_find_nothing_is_not_made() {
    let mut node = Node::new([4, 4]);
    let bridge = "br".parse().unwrap();
    let mut pace = Pace::default();
    let late = FdbEntry { expires: NOW.plus_s(500), ..station(1) };
    for n in 0..4 {
        node.store().put_station(FdbEntry { expires: NOW.plus_s(500), ..station(n) });
    }
    assert_eq!(node.store().paced(&mut pace).stations(&bridge, NOW), 4);
    // Gone behind the store's back: whoever searches would notice that it has expired.
    let key = Station { link: Link { id: 1, vlan: 1 }, mac: late.key.mac.octets(), reserved: 0 };
    let expired = StationAt { port: 1, tunnel: 0, fixed: 0, expires: NOW.0 };
    let kernel: &mut dyn Kernel = &mut node.kernel;
    kernel.set(STATIONS, &key, &expired).unwrap();
    let half = Timestamp(NOW.0 + Timestamp::SECOND / 2);
    assert_eq!(node.store().paced(&mut pace).stations(&bridge, half), 4);
    assert_eq!(node.store().paced(&mut pace).stations(&bridge, NOW.plus_s(1)), 3);
}

#[test]
fn a_count_that_is_wrong_does_not_go_below_nothing() {
    let mut node = Node::new([4, 4]);
    let mut store = node.store();
    store.put_station(station(1));
    store.put_station(station(2));
    // As if a program had put one of them in and counted neither.
    store.kernel.fill(KEPT, kept::STATIONS, &1);
    store.kernel.fill(STATION_COUNT, 1, &1);
    crate::state::sweep(&mut store, NOW.plus_s(10));
    assert_eq!(counts(&store), [0; 4]);
    store.put_station(station(3));
    assert_eq!(counts(&store), [1, 1, 0, 0]);
}

#[test]
fn learned_ones_leave_room_for_configured_ones() {
    let mut node = Node::new([4, 4]);
    let mut store = node.store();
    let word = store.kernel.memory(crate::sys::Table::Kept);
    word.word(8 * kept::STATIONS as usize).store(limits::LEARNED_STATIONS.into());
    word.word(8 * kept::NEIGHBORS as usize).store(limits::LEARNED_NEIGHBORS.into());
    store.put_station(station(1));
    store.put_neighbor(neighbor(1));
    assert_eq!(store.station(&station(1).key), None);
    assert_eq!(store.neighbor(&neighbor(1).key), None);
}

#[test]
fn a_table_that_is_full_leaves_a_client_out() {
    let mut node = Node::new([4, 4]);
    let kernel: &mut dyn Kernel = &mut node.kernel;
    for n in 0..limits::CLIENTS {
        let key = loxi_ebpf_layout::lb::AffinityKey { service: 99, family: n, ..Default::default() };
        kernel.set(AFFINITY, &key, &Default::default()).unwrap();
    }
    let mut store = node.store();
    store.put_affinity(client());
    assert_eq!(store.affinity(&service(), client().client), None);
}

#[test]
fn slots_turns_and_generations_are_those_of_the_tables() {
    let mut node = Node::new([4, 4]);
    let mut store = node.store();
    assert_eq!(store.slot(&"b1".parse().unwrap()), 5);
    assert_eq!(store.slot(&"b3".parse().unwrap()), 0);
    assert_eq!([store.turn(&service()), store.turn(&service())], [0, 1]);
    assert_eq!(store.kernel.at(TURNS, 1), 2);
    assert_eq!(store.policy_generation(&port("p2")), 0);
    store.kernel.fill(PORT_POLICY, 2, &PortPolicy { groups: 1, generation: 9 });
    assert_eq!(store.policy_generation(&port("p2")), 9);
    assert_eq!(store.policy_generation(&port("p9")), 0);
}

#[test]
fn what_names_strangers_is_left_out() {
    let mut node = Node::new([4, 4]);
    let mut store = node.store();
    store.put_station(FdbEntry { port: port("p9"), ..station(1) });
    let mut far = neighbor(1);
    far.key.interface = "if9".parse().unwrap();
    store.put_neighbor(far.clone());
    store.put_affinity(AffinityEntry { backend: ("b9".parse().unwrap(), 1), ..client() });
    store.put_fragment(FragmentEntry { zone: zone("z9"), ..fragment() });
    assert_eq!(counts(&store), [0; 4]);
    assert_eq!(store.affinity(&service(), client().client), None);
    assert_eq!(store.neighbor(&far.key), None);
}
