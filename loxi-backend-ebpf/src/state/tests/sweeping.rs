//! Live expiry.

use super::fixture::*;
use crate::state::flow::{Key, Seat};
use crate::state::{Sweeper, Swept, sweep};
use crate::sys::{SOURCES, ZONE_COUNT};
use loxi_core::dataplane::{FlowStore, StateStore};
use loxi_core::packet::{Flow, FlowState, Timestamp};
use loxi_ebpf_layout::flow::{BUSY, FAST, Seen, rest, state};
use loxi_ebpf_layout::l3::Source;

fn v6(n: u32) -> Flow {
    let mut flow = nth(n);
    flow.id.tuple.src = format!("fd00::{n:x}").parse().unwrap();
    flow.id.tuple.dst = addr("fd00:1::1");
    flow.reply = flow.id.tuple.reversed();
    flow
}

/// The flow of another end.
fn ending(mut flow: Flow, seconds: u32) -> Flow {
    flow.created = NOW;
    flow.expires = NOW.plus_s(seconds);
    flow
}

#[test]
fn what_has_expired_goes_and_nothing_else() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    for n in 0..20 {
        let seconds = if n % 2 == 0 { 50 } else { 110 };
        store.insert(ending(nth(n), seconds), NOW).unwrap();
        store.insert(ending(v6(n), seconds), NOW).unwrap();
    }
    assert_eq!(sweep(&mut store, NOW.plus_s(49)), Swept::default());
    assert_eq!(sweep(&mut store, NOW.plus_s(50)), Swept { flows: 20, ..Swept::default() });
    for n in 0..20 {
        assert_eq!(store.get(&nth(n).id).is_some(), n % 2 == 1);
        assert_eq!(store.get(&v6(n).id).is_some(), n % 2 == 1);
    }
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 20);
    assert_eq!(sweep(&mut store, NOW.plus_s(110)).flows, 20);
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 0);
    assert_eq!(crate::state::recount(&mut store).unwrap().corrected, 0);
}

#[test]
fn a_flow_lives_by_either_direction() {
    let mut node = Node::new([4, 4]);
    let mut store = node.store();
    store.insert(nth(1), NOW).unwrap();
    let (family, key) = Key::of(1, &nth(1).id.tuple).unwrap();
    let table = store.table(family);
    let (_, record) = table.record(table.find(&key).unwrap()).unwrap();
    let later = crate::state::flow::times::tick(NOW.plus_s(100));
    table.seen_word(record.partner, 0).store(u64::from(later) << 32);
    assert_eq!(sweep(&mut store, NOW.plus_s(130)).flows, 0);
    assert_eq!(sweep(&mut store, NOW.plus_s(221)).flows, 1);
}

#[test]
fn a_packet_from_a_later_time_ends_nothing() {
    // Another processor's clock may be read after ours.
    let mut node = Node::new([4, 4]);
    let mut store = node.store();
    store.insert(nth(1), NOW).unwrap();
    let early = Timestamp(NOW.0 - Timestamp::SECOND);
    assert_eq!(sweep(&mut store, early).flows, 0);
    assert!(store.lookup(&zone("z1"), &nth(1).id.tuple, early).is_some());
}

#[test]
fn steps_come_round_to_every_bucket() {
    let mut node = Node::new([32, 16]);
    let mut store = node.store();
    for n in 0..60 {
        store.insert(ending(nth(n), 10), NOW).unwrap();
        if n < 20 {
            store.insert(ending(v6(n), 10), NOW).unwrap();
        }
    }
    let mut sweeper = Sweeper::new();
    let mut some = Vec::new();
    // 48 buckets, 5 at a time.
    for _ in 0..10 {
        some.push(sweeper.step(&mut store, NOW.plus_s(20), 5).flows);
    }
    assert_eq!(some.iter().sum::<u64>(), 80);
    assert!(some.iter().filter(|flows| **flows > 0).count() >= 8, "{some:?}: a part at each step");
    store.insert(ending(nth(1), 30), NOW.plus_s(20)).unwrap();
    let again: u64 = (0..10).map(|_| sweeper.step(&mut store, NOW.plus_s(40), 5).flows).sum();
    assert_eq!(again, 1);
}

#[test]
fn sources_without_flows_go_and_those_of_zones_without_limit() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    for n in 0..3 {
        let mut flow = ending(nth(n), 10 + 100 * n.min(1));
        flow.id.zone = zone("z2");
        store.insert(flow, NOW).unwrap();
    }
    let below = Source { zone: 2, family: 6, ..Source::default() };
    let unlimited = Source { zone: 1, family: 4, ..Source::default() };
    store.kernel.set(SOURCES, &below, &u64::MAX).unwrap();
    store.kernel.set(SOURCES, &unlimited, &9).unwrap();
    let swept = sweep(&mut store, NOW.plus_s(50));
    assert_eq!(swept, Swept { flows: 1, others: 3, ..Swept::default() });
    let mut left: Vec<_> = store.kernel.all(SOURCES).unwrap();
    left.sort_unstable();
    assert_eq!(left.iter().map(|(key, flows)| (key.zone, *flows)).collect::<Vec<_>>(), [(2, 1), (2, 1)]);
}

#[test]
fn a_reply_without_its_original_goes() {
    let mut node = Node::new([4, 4]);
    let mut store = node.store();
    store.insert(nth(1), NOW).unwrap();
    store.insert(nth(2), NOW).unwrap();
    let (_, key) = Key::of(1, &nth(1).id.tuple).unwrap();
    let table = store.table(4);
    let (_, record) = table.record(table.find(&key).unwrap()).unwrap();
    assert!(table.clear(record.original, record.word));
    assert_eq!(sweep(&mut store, NOW.plus_s(121)), Swept { flows: 1, broken: 1, others: 0 });
    // The cleared original was never taken off the accounts here.
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 1);
    assert_eq!(store.table(4).tagged(0) | store.table(4).tagged(1), 0);
}

#[test]
fn an_entry_that_nobody_finishes_is_freed_and_a_whole_flow_opened() {
    let mut node = Node::new([8, 8]);
    let mut store = node.store();
    let mut living = nth(1);
    living.state = FlowState::Tcp(loxi_core::packet::TcpState::Established);
    living.expires = NOW.plus_s(86_400);
    store.insert(living.clone(), NOW).unwrap();
    let (family, key) = Key::of(1, &living.id.tuple).unwrap();
    let table = store.table(family);
    let place = table.find(&key).unwrap();
    let word = table.rest(place).load();
    table.rest(place).store(word | u64::from(BUSY | FAST) << rest::FLAGS);
    let (_, left) = Key::of(1, &nth(2).id.tuple).unwrap();
    let seat = Seat { key: left, new: left, state: state::SYN_SENT, flags: 0, seen: Seen::default() };
    let claimed = table.claim(&seat).unwrap();
    let mut sweeper = Sweeper::new();
    for second in [10, 11] {
        assert_eq!(sweeper.step(&mut store, NOW.plus_s(second), u32::MAX).broken, 0, "not yet");
    }
    assert_eq!(store.get(&living.id), None);
    assert_eq!(sweeper.step(&mut store, NOW.plus_s(12), u32::MAX).broken, 2);
    assert_eq!(store.get(&living.id), Some(as_stored(&living)));
    let table = store.table(family);
    assert_eq!(rest::flags(table.rest(place).load()) & (BUSY | FAST), 0);
    assert_eq!(table.rest(claimed).load(), 0);
    store.insert(nth(2), NOW.plus_s(12)).unwrap();
    // One that is written again and again is nobody's fault.
    for second in [20, 22, 24] {
        let table = store.table(family);
        let word = table.rest(place).load();
        table.rest(place).store(rest::revised(word, rest::state(word), BUSY));
        assert_eq!(sweeper.step(&mut store, NOW.plus_s(second), u32::MAX).broken, 0);
    }
}

#[test]
fn learned_things_go_in_their_time() {
    let mut node = Node::new([4, 4]);
    super::learning::learn_one_of_each(&mut node);
    let mut store = node.store();
    assert_eq!(sweep(&mut store, NOW.plus_s(9)), Swept::default());
    // Station, neighbour, endpoint of a client and path MTU at 10 s; the fragment 30 s later.
    assert_eq!(sweep(&mut store, NOW.plus_s(10)), Swept { others: 4, ..Swept::default() });
    let key = super::learning::fragment().key();
    assert!(store.fragment(&key).is_some(), "late ones are told from those without a first");
    assert_eq!(sweep(&mut store, NOW.plus_s(39)).others, 0);
    assert_eq!(sweep(&mut store, NOW.plus_s(40)).others, 1);
    assert_eq!(store.fragment(&key), None);
    assert_eq!(crate::state::recount(&mut store).unwrap().corrected, 0);
}

#[test]
fn each_step_sweeps_one_table() {
    let mut node = Node::new([4, 4]);
    super::learning::learn_one_of_each(&mut node);
    let mut store = node.store();
    let mut sweeper = Sweeper::new();
    let steps: Vec<u64> = (0..6).map(|_| sweeper.step(&mut store, NOW.plus_s(100), 0).others).collect();
    assert_eq!(steps.iter().sum::<u64>(), 5);
    assert!(steps.iter().all(|taken| *taken <= 1), "{steps:?}");
}
