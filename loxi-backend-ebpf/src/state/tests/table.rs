//! Finding, claiming, full buckets, changes.

use super::fixture::*;
use crate::state::flow::{Key, Place, Seat};
use crate::sys::ZONE_COUNT;
use loxi_core::dataplane::{FlowInsertError, FlowStore};
use loxi_core::net::MacAddr;
use loxi_core::packet::{Flow, FlowState, TcpState};
use loxi_ebpf_layout::flow::{BUSY, FAST, PLACES_V4, PLACES_V6, Seen, rest, state};

fn established(flow: &mut Flow) {
    flow.state = FlowState::Tcp(TcpState::Established);
}

#[test]
fn as_many_connections_fit_as_a_table_is_made_for() {
    for (v6, places, buckets) in [(false, PLACES_V4, 4096), (true, PLACES_V6, 4096)] {
        let mut node = Node::new([buckets, buckets]);
        let mut store = node.store();
        let promised = crate::load::flows(buckets, places);
        for n in 0..promised {
            let mut flow = nth(n);
            if v6 {
                flow.id.tuple.src = format!("fd00::{:x}:{:x}", n >> 16, n & 0xffff).parse().unwrap();
                flow.id.tuple.dst = addr("fd00:1::1");
                flow.reply = flow.id.tuple.reversed();
            }
            store.insert(flow, NOW).unwrap_or_else(|error| panic!("flow {n} of {promised}: {error:?}"));
        }
    }
}

#[test]
fn a_full_table_refuses_and_evicts_nobody() {
    // Two buckets; a flow needs two places.
    for (v6, places) in [(false, PLACES_V4), (true, PLACES_V6)] {
        let mut node = Node::new([2, 2]);
        let mut store = node.store();
        let mut stored = Vec::new();
        let mut full = 0;
        for n in 0..200 {
            let mut flow = nth(n);
            if v6 {
                flow.id.tuple.src = format!("fd00::{n:x}").parse().unwrap();
                flow.id.tuple.dst = addr("fd00:1::1");
                flow.reply = flow.id.tuple.reversed();
            }
            match store.insert(flow.clone(), NOW) {
                Ok(()) => stored.push(flow),
                Err(error) => {
                    assert_eq!(error, FlowInsertError::Full);
                    full += 1;
                }
            }
        }
        assert!(full > 150 && stored.len() as u32 <= places, "{full} of {}", stored.len());
        assert!(stored.len() as u32 + 1 >= places, "{} flows in {places} places twice", stored.len());
        for flow in &stored {
            assert_eq!(store.get(&flow.id), Some(as_stored(flow)));
            assert!(store.lookup(&flow.id.zone, &flow.reply, NOW).is_some());
        }
        // What a refused flow had claimed was given back, and it was not counted.
        let mut entries = 0;
        let table = store.table(if v6 { 6 } else { 4 });
        table.scan(0..2, |_, word| {
            assert_eq!(rest::flags(word) & BUSY, 0);
            entries += 1;
        });
        assert_eq!(entries, 2 * stored.len());
        let count = store.kernel.at(ZONE_COUNT, 1);
        assert_eq!((count.flows, count.created), (stored.len() as u64, stored.len() as u64));
    }
}

#[test]
fn expired_flows_make_room_in_full_buckets() {
    let mut node = Node::new([1, 1]);
    let mut store = node.store();
    let mut old = 0;
    while store.insert(nth(old), NOW).is_ok() {
        old += 1;
    }
    let later = NOW.plus_s(121);
    let young = Flow { created: later, expires: later.plus_s(120), ..nth(1000) };
    assert_eq!(store.insert(young.clone(), NOW.plus_s(100)), Err(FlowInsertError::Full));
    store.insert(young.clone(), later).unwrap();
    assert!(store.get(&young.id).is_some());
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 1, "all {old} old ones are gone");
}

#[test]
fn tuples_are_unique_in_their_zone() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    let flow = nth(1);
    store.insert(flow.clone(), NOW).unwrap();
    let mut other = nth(2);
    other.reply = flow.reply;
    let mut crossing = nth(3);
    crossing.id.tuple = flow.reply;
    crossing.reply = flow.reply.reversed();
    for taken in [flow.clone(), other.clone(), crossing] {
        assert_eq!(store.insert(taken, NOW), Err(FlowInsertError::Occupied));
    }
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).created, 1);
    other.id.zone = zone("z2");
    store.insert(other.clone(), NOW).unwrap();
    assert_eq!(store.get(&other.id), Some(as_stored(&other)));
    // An expired one makes room, whichever of its tuples is wanted.
    let mut third = nth(4);
    third.reply = flow.reply;
    third.created = NOW.plus_s(120);
    third.expires = NOW.plus_s(240);
    assert_eq!(store.insert(third.clone(), NOW.plus_s(119)), Err(FlowInsertError::Occupied));
    store.insert(third.clone(), NOW.plus_s(120)).unwrap();
    assert_eq!(store.get(&flow.id), None);
    assert_eq!(store.lookup(&third.id.zone, &third.reply, NOW.plus_s(121)).unwrap().1.id, third.id);
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 1);
}

#[test]
fn an_expired_flow_is_found_by_its_identity_only() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    let flow = nth(1);
    store.insert(flow.clone(), NOW).unwrap();
    let end = as_stored(&flow).expires;
    let before = loxi_core::packet::Timestamp(end.0 - 1);
    assert!(store.lookup(&flow.id.zone, &flow.id.tuple, before).is_some());
    assert_eq!(store.lookup(&flow.id.zone, &flow.id.tuple, end), None);
    assert!(store.get(&flow.id).is_some());
    store.expire(before);
    assert!(store.get(&flow.id).is_some());
    store.expire(end);
    assert_eq!(store.get(&flow.id), None);
}

#[test]
fn a_packet_in_either_direction_keeps_a_flow() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    let flow = nth(1);
    store.insert(flow.clone(), NOW).unwrap();
    let later = NOW.plus_s(100);
    store.update(&flow.id, &mut |flow| {
        flow.packets[1] += 1;
        flow.bytes[1] += 40;
        flow.expires = later.plus_s(120);
    });
    let (family, key) = Key::of(1, &flow.id.tuple).unwrap();
    let table = store.table(family);
    let (_, record) = table.record(table.find(&key).unwrap()).unwrap();
    assert!(record.seen[1].seen > record.seen[0].seen, "the reply's time has moved, the original's not");
    store.expire(NOW.plus_s(219));
    let found = store.lookup(&flow.id.zone, &flow.id.tuple, NOW.plus_s(219)).unwrap().1;
    assert_eq!((found.packets, found.bytes), ([1, 1], [60, 40]));
    store.expire(NOW.plus_s(221));
    assert_eq!(store.get(&flow.id), None);
}

#[test]
fn a_change_is_told_back_whatever_it_changes() {
    let changes: [fn(&mut Flow); 12] = [
        established,
        |flow| flow.expires = NOW.plus_s(500),
        |flow| flow.expires = NOW.plus_s(20),
        |flow| (flow.packets, flow.bytes) = ([9, 8], [700, 600]),
        |flow| flow.policy.source = Some((port("p1"), 77)),
        |flow| flow.policy.destination = None,
        |flow| flow.ingress.mac = MacAddr::new([2, 9, 9, 9, 9, 9]),
        |flow| flow.ingress.tunnel = Some("t1".parse().unwrap()),
        |flow| flow.backend = Some(("b1".parse().unwrap(), 4)),
        |flow| flow.service = Some(service()),
        |flow| flow.created.0 -= 1,
        |flow| {
            flow.hairpin = true;
            flow.translation = loxi_core::packet::Translation::DsrL2;
            flow.dsr_target = Some(addr("fd00::9"));
            established(flow);
            flow.expires = NOW.plus_s(86_400);
        },
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut node = Node::new([16, 16]);
        let mut store = node.store();
        let mut wanted = nth(1);
        store.insert(wanted.clone(), NOW).unwrap();
        wanted = as_stored(&wanted);
        change(&mut wanted);
        store.update(&wanted.id, &mut |flow| change(flow));
        assert_eq!(store.get(&wanted.id), Some(as_stored(&wanted)), "change {n}");
        assert_eq!(
            store.lookup(&wanted.id.zone, &wanted.reply, NOW).unwrap().1,
            as_stored(&wanted),
            "change {n}"
        );
        let recounted = crate::state::recount(&mut store).unwrap();
        assert_eq!(recounted.corrected, 0, "change {n}");
    }
}

#[test]
fn a_change_leaves_what_the_programs_have_decided() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    let flow = nth(1);
    store.insert(flow.clone(), NOW).unwrap();
    let (family, key) = Key::of(1, &flow.id.tuple).unwrap();
    let table = store.table(family);
    let place = table.find(&key).unwrap();
    let word = table.rest(place).load();
    table.rest(place).store(rest::with(word, rest::state(word), rest::flags(word) | FAST));
    let seen = table.seen_word(place, 0);
    seen.store(seen.load() & !0xffff_ffff | 42);
    store.update(&flow.id, &mut |flow| {
        established(flow);
        flow.expires = NOW.plus_s(86_400);
        flow.policy.source = Some((port("p1"), 8));
    });
    let table = store.table(family);
    let (_, record) = table.record(place).unwrap();
    assert_eq!(rest::flags(record.word) & (FAST | BUSY), FAST);
    assert_eq!(record.state(), state::ESTABLISHED);
    assert_ne!(rest::revised(word, 0, 0), record.word, "it is a later revision");
    assert_eq!(record.seen[0].epoch, 42);
}

#[test]
fn a_state_that_moved_meanwhile_stays() {
    let mut node = Node::new([16, 16]);
    let mut other = node.kernel.clone();
    let names = crate::install::Names::load(&other).unwrap();
    let mut store = node.store();
    let flow = nth(1);
    store.insert(flow.clone(), NOW).unwrap();
    store.update(&flow.id, &mut |of| {
        // A reset comes in while the slow path thinks.
        let mut packet = crate::state::Store::new(&mut other, &names, SEED);
        packet.update(&flow.id, &mut |flow| flow.state = FlowState::Tcp(TcpState::Close));
        established(of);
    });
    assert_eq!(store.get(&flow.id).unwrap().state, FlowState::Tcp(TcpState::Close));
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).half_open, 0);
}

#[test]
fn a_tag_of_one_above_a_free_place_is_no_free_place() {
    // Entries' tags are odd, and one of 1 looks free to a comparison of whole words.
    let mut node = Node::new([1, 1]);
    let mut store = node.store();
    let flow = nth(1);
    store.insert(flow.clone(), NOW).unwrap();
    let (family, key) = Key::of(1, &flow.id.tuple).unwrap();
    let table = store.table(family);
    let place = table.find(&key).unwrap();
    let word = table.tag_word(place.bucket, place.place as usize / 4);
    let shift = 16 * (place.place % 4);
    word.store(word.load() & !(0xffff << shift) | 1 << shift);
    for n in 2..40 {
        let _ = store.insert(nth(n), NOW);
    }
    let (_, record) = store.table(family).record(place).unwrap();
    assert_eq!(record.key, key, "it was not overwritten");
}

#[test]
fn a_lock_that_never_comes_free_is_a_refusal() {
    let mut node = Node::new([1, 1]);
    let mut store = node.store();
    store.table(4).lock_word(0).store(1);
    assert_eq!(store.insert(nth(1), NOW), Err(FlowInsertError::Full));
    store.table(4).lock_word(0).store(0);
    store.insert(nth(1), NOW).unwrap();
    store.table(4).lock_word(0).store(1);
    assert!(store.get(&nth(1).id).is_some(), "readers need no lock");
    assert_eq!(store.remove(&nth(1).id), None);
    store.table(4).lock_word(0).store(0);
    assert!(store.remove(&nth(1).id).is_some());
}

#[test]
fn an_entry_that_stays_busy_is_passed_over() {
    let mut node = Node::new([1, 1]);
    let mut store = node.store();
    store.insert(nth(1), NOW).unwrap();
    let (family, key) = Key::of(1, &nth(1).id.tuple).unwrap();
    let table = store.table(family);
    let place: Place = table.find(&key).unwrap();
    let word = table.rest(place).load();
    table.rest(place).store(word | u64::from(BUSY) << rest::FLAGS);
    assert_eq!(store.lookup(&zone("z1"), &nth(1).id.tuple, NOW), None);
    assert_eq!(store.remove(&nth(1).id), None);
    assert_eq!(store.insert(nth(1), NOW), Err(FlowInsertError::Occupied));
    store.table(family).rest(place).store(word);
    assert!(store.remove(&nth(1).id).is_some());
}

#[test]
fn only_what_is_still_held_is_published() {
    let mut node = Node::new([4, 4]);
    let store = node.store();
    let (_, key) = Key::of(1, &nth(1).id.tuple).unwrap();
    let seat = Seat { key, new: key, state: state::SYN_SENT, flags: 0, seen: Seen::default() };
    let table = store.table(4);
    let place = table.claim(&seat).unwrap();
    assert!(table.publish(place, &key));
    assert!(!table.publish(place, &key), "it is open");
    assert!(table.hold(place, &key) && !table.publish(place, &key.reversed()));
    // A program takes it out in the meantime.
    assert!(table.clear(place, table.rest(place).load()));
    assert!(!table.publish(place, &key));
    assert_eq!(table.rest(place).load(), 0);
    assert!(!table.hold(place, &key));
}
