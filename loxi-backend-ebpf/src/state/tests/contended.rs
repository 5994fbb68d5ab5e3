//! Several writers on one memory.

use super::fixture::*;
use crate::state::flow::Key;
use crate::state::{Store, recount};
use crate::sys::{SimulatedKernel, ZONE_COUNT};
use loxi_core::dataplane::FlowStore;
use loxi_core::net::MacAddr;
use loxi_core::packet::{Flow, FlowDirection, FlowState, TcpState};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Lets two threads go on at once, as close together as can be.
struct Start(AtomicU64);

impl Start {
    fn wait(&self, round: u64) {
        self.0.fetch_add(1, Ordering::SeqCst);
        let mut looks = 0u32;
        while self.0.load(Ordering::SeqCst) < 2 * round {
            looks += 1;
            // Where there is one processor for both, the other must get it.
            if looks > 10_000 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

#[test]
fn two_writers_make_no_duplicate() {
    const ROUNDS: u64 = 4000;
    let node = Node::new([4, 4]);
    let start = Start(AtomicU64::new(0));
    // One way, and by every second flow the other way round: each is the other's reply.
    let flow_of = |round: u64, side: bool| {
        let mut flow = nth(u32::try_from(round / 2 % 8).unwrap());
        if side && !round.is_multiple_of(2) {
            (flow.id.tuple, flow.reply) = (flow.reply, flow.id.tuple);
        }
        flow
    };
    let work = |mut kernel: SimulatedKernel, side: bool| {
        let mut store = Store::new(&mut kernel, &node.names, SEED);
        // Of flows that both make the same way, and of those that cross.
        let mut made = [0u64; 2];
        for round in 0..ROUNDS {
            start.wait(3 * round + 1);
            let crossing = usize::from(!round.is_multiple_of(2));
            made[crossing] += u64::from(store.insert(flow_of(round, side), NOW).is_ok());
            start.wait(3 * round + 2);
            let table = store.table(4);
            let mut keys = BTreeSet::new();
            table.scan(0..table.buckets(), |place, word| {
                let fresh = keys.insert(format!("{:?}", table.key(place, word)));
                assert!(fresh, "a key is there twice in round {round}");
                assert!(table.record(place).is_ok());
            });
            assert!(keys.len() <= 2, "{keys:?} in round {round}");
            start.wait(3 * round + 3);
            // Whoever has made it; in the next round nothing is there.
            store.remove(&flow_of(round, side).id);
        }
        made
    };
    let (one, other) = std::thread::scope(|scope| {
        let (a, b) = (node.kernel.clone(), node.kernel.clone());
        let one = scope.spawn(|| work(a, false));
        let other = scope.spawn(|| work(b, true));
        (one.join().unwrap(), other.join().unwrap())
    });
    let mut node = node;
    let mut store = node.store();
    assert_eq!(one[0] + other[0], ROUNDS / 2);
    // Two that cross can both give way.
    let crossed = one[1] + other[1];
    assert!(crossed > 0 && crossed <= ROUNDS / 2, "{crossed} of {}", ROUNDS / 2);
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).created, ROUNDS / 2 + crossed);
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 0);
    assert_eq!(recount(&mut store).unwrap().corrected, 0);
}

#[test]
fn many_flows_from_two_sides_are_there_once() {
    const FLOWS: u32 = 2000;
    let node = Node::new([1024, 16]);
    let work = |mut kernel: SimulatedKernel, reversed: bool| {
        let mut store = Store::new(&mut kernel, &node.names, SEED);
        let all = (0..FLOWS).map(|n| if reversed { FLOWS - 1 - n } else { n });
        all.filter(|n| store.insert(nth(*n), NOW).is_ok()).count()
    };
    let made: usize = std::thread::scope(|scope| {
        let (a, b) = (node.kernel.clone(), node.kernel.clone());
        let threads = [scope.spawn(|| work(a, false)), scope.spawn(|| work(b, true))];
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(made, FLOWS as usize);
    let mut node = node;
    let mut store = node.store();
    assert!((0..FLOWS).all(|n| store.get(&nth(n).id) == Some(as_stored(&nth(n)))));
    assert_eq!(recount(&mut store).unwrap(), crate::state::Recount { flows: FLOWS.into(), corrected: 0 });
}

/// What a flow of the next test has in every field, so that a mixture of two is found out.
fn marked(n: u32, round: u64) -> Flow {
    let mut flow = nth(n);
    flow.state = FlowState::Tcp(TcpState::Established);
    flow.created.0 += round;
    flow.packets = [round, round];
    flow.bytes = [round, round];
    flow.policy.source = Some((port("p1"), round & 0xffff_ffff));
    flow.policy.destination = Some((port("p2"), round & 0xffff_ffff));
    flow.expires = NOW.plus_s(86_400);
    flow
}

#[test]
fn what_is_read_is_of_one_time() {
    const KEYS: u32 = 6;
    let node = Node::new([1, 1]);
    let (stop, read) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (kernel, names) = (node.kernel.clone(), &node.names);
        let (stop, read) = (&stop, &read);
        scope.spawn(move || {
            let mut kernel = kernel;
            let store = Store::new(&mut kernel, names, SEED);
            while !stop.load(Ordering::Relaxed) {
                for n in 0..KEYS {
                    let wanted = nth(n);
                    let found = if n % 2 == 0 { wanted.id.tuple } else { wanted.reply };
                    let Some((direction, flow)) = store.lookup(&wanted.id.zone, &found, NOW) else {
                        continue;
                    };
                    let round = flow.packets[0];
                    assert_eq!(flow, as_stored(&marked(n, round)));
                    assert_eq!(direction == FlowDirection::Original, n % 2 == 0);
                    read.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut kernel = node.kernel.clone();
        let mut store = Store::new(&mut kernel, names, SEED);
        let mut round = 1;
        while round < 200_000 && (round < 20_000 || read.load(Ordering::Relaxed) < 5_000) {
            let n = u32::try_from(round % u64::from(KEYS)).unwrap();
            store.remove(&nth(n).id);
            store.insert(marked(n, round), NOW).unwrap();
            round += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(read.load(Ordering::Relaxed) > 100, "the reader has read");
}

#[test]
fn a_record_that_is_changed_is_read_whole() {
    let node = Node::new([1, 1]);
    let mac = |round: u64| {
        let [a, b, ..] = round.to_ne_bytes();
        MacAddr::new([2, 0, 0, 0, a, b])
    };
    let mut first = node.kernel.clone();
    Store::new(&mut first, &node.names, SEED).insert(nth(1), NOW).unwrap();
    let (stop, read) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (mut kernel, names) = (node.kernel.clone(), &node.names);
        let (stop, read) = (&stop, &read);
        scope.spawn(move || {
            let store = Store::new(&mut kernel, names, SEED);
            while !stop.load(Ordering::Relaxed) {
                let Some(flow) = store.get(&nth(1).id) else { continue };
                let Some((_, round)) = flow.policy.source.clone().filter(|(_, round)| *round > 0) else {
                    continue;
                };
                // These lie in words far apart.
                assert_eq!(
                    (flow.ingress.mac, &flow.service.is_some()),
                    (mac(round), &round.is_multiple_of(2))
                );
                read.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut kernel = node.kernel.clone();
        let mut store = Store::new(&mut kernel, names, SEED);
        for round in 1..2_000_000u64 {
            if read.load(Ordering::Relaxed) > 400_000 {
                break;
            }
            let round = round & 0xffff;
            store.update(&nth(1).id, &mut |flow| {
                flow.policy.source = Some((port("p1"), round));
                flow.ingress.mac = mac(round);
                flow.service = round.is_multiple_of(2).then(service);
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(read.load(Ordering::Relaxed) > 100, "the reader has read");
}

#[test]
fn changes_from_two_sides_all_count() {
    const PACKETS: u64 = 20_000;
    let node = Node::new([4, 4]);
    let id = nth(1).id;
    let mut first = node.kernel.clone();
    Store::new(&mut first, &node.names, SEED).insert(nth(1), NOW).unwrap();
    std::thread::scope(|scope| {
        for side in [0usize, 1] {
            let (mut kernel, names, id) = (node.kernel.clone(), &node.names, &id);
            scope.spawn(move || {
                let mut store = Store::new(&mut kernel, names, SEED);
                for n in 0..PACKETS {
                    store.update(id, &mut |flow| {
                        flow.packets[side] += 1;
                        flow.bytes[0] += 1;
                        // Alternating states: both exchange the same word.
                        let state = if n % 2 == 0 { TcpState::Established } else { TcpState::SynReceived };
                        flow.state = FlowState::Tcp(state);
                    });
                }
            });
        }
    });
    let mut node = node;
    let mut store = node.store();
    let flow = store.get(&id).unwrap();
    assert_eq!(flow.packets, [1 + PACKETS, PACKETS]);
    assert_eq!(flow.bytes[0], 60 + 2 * PACKETS);
    let (family, key) = Key::of(1, &id.tuple).unwrap();
    let table = store.table(family);
    let (_, record) = table.record(table.find(&key).unwrap()).unwrap();
    assert_eq!(record.state() == 2, flow.state.is_half_open());
    assert_eq!(recount(&mut store).unwrap().corrected, 0, "half-open ones are counted by whoever moved them");
}
