//! Random operations against a model: what the reference does, in two maps.

use super::fixture::*;
use crate::state::{Pace, Store, recount};
use loxi_core::dataplane::{FlowInsertError, FlowStore};
use loxi_core::net::IpProtocol;
use loxi_core::packet::{Flow, FlowDirection, FlowId, FlowState, FlowTuple, TcpState, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Op {
    /// Begin a flow: which one, and with what reply.
    Insert(u8, u8),
    Lookup(u8),
    Reply(u8, u8),
    /// A packet of a direction, and a state.
    Packet(u8, bool, u8),
    Restamp(u8, u64),
    Remove(u8),
    Wait(u16),
    Expire,
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0..24u8;
    prop_oneof![
        6 => (which.clone(), 0..6u8).prop_map(|(a, b)| Op::Insert(a, b)),
        3 => which.clone().prop_map(Op::Lookup),
        3 => (which.clone(), 0..6u8).prop_map(|(a, b)| Op::Reply(a, b)),
        4 => (which.clone(), any::<bool>(), 0..5u8).prop_map(|(a, b, c)| Op::Packet(a, b, c)),
        1 => (which.clone(), any::<u64>()).prop_map(|(a, b)| Op::Restamp(a, b >> 33)),
        2 => which.prop_map(Op::Remove),
        2 => (0..200u16).prop_map(Op::Wait),
        1 => Just(Op::Expire),
    ]
}

/// A few tuples that meet each other: both families, crossing directions, one that is its own reverse.
fn original(which: u8) -> FlowId {
    let n = which / 2 % 6;
    let tuple = match (n, which >= 12) {
        (5, false) => tuple("10.0.0.7", 7, "10.0.0.7", 7),
        (n, false) => {
            tuple(["10.0.0.1", "10.0.0.2"][usize::from(n % 2)], 1 + u16::from(n / 2), "10.0.0.3", 80)
        }
        (5, true) => tuple("10.0.0.3", 80, "10.0.0.1", 1),
        (n, true) => tuple("fd00::1", 5 + u16::from(n), "fd00::2", 80),
    };
    FlowId { zone: zone(if which.is_multiple_of(2) { "z1" } else { "z2" }), tuple }
}

fn reply(original: FlowTuple, kind: u8) -> FlowTuple {
    let back = original.reversed();
    let v6 = original.src.is_ipv6();
    match kind {
        1 => FlowTuple { src: addr(if v6 { "fd00:9::1" } else { "10.9.0.1" }), ..back },
        2 => FlowTuple { dst_port: 1, ..back },
        3 => original,
        _ => back,
    }
}

fn begun(which: u8, kind: u8, now: Timestamp) -> Flow {
    let id = original(which);
    let udp = which.is_multiple_of(3);
    let protocol = if udp { IpProtocol::UDP } else { IpProtocol::TCP };
    let tuple = FlowTuple { protocol, ..id.tuple };
    let mut flow = flow(tuple, now);
    flow.id.zone = id.zone;
    flow.reply = reply(tuple, kind);
    if udp {
        flow.state = FlowState::Unreplied;
    }
    flow.expires = now.plus_s(idle(flow.state, protocol));
    if which.is_multiple_of(4) {
        flow.backend = Some(("b1".parse().unwrap(), u64::from(which)));
    }
    flow
}

/// The reference's table: flows by identity, and both tuples of each.
#[derive(Default)]
struct Model {
    flows: BTreeMap<FlowId, Flow>,
    index: BTreeMap<FlowId, (FlowTuple, FlowDirection)>,
    created: BTreeMap<String, u64>,
}

impl Model {
    fn at(zone: &FlowId, tuple: FlowTuple) -> FlowId {
        FlowId { zone: zone.zone.clone(), tuple }
    }

    fn find(&self, id: &FlowId, now: Timestamp) -> Option<(FlowDirection, Flow)> {
        let (original, direction) = self.index.get(id)?;
        let flow = self.flows.get(&Self::at(id, *original))?;
        (flow.expires > now).then(|| (*direction, flow.clone()))
    }

    fn remove(&mut self, id: &FlowId) -> Option<Flow> {
        let flow = self.flows.remove(id)?;
        self.index.remove(id);
        self.index.remove(&Self::at(id, flow.reply));
        Some(flow)
    }

    fn insert(&mut self, flow: &Flow, now: Timestamp) -> Result<(), FlowInsertError> {
        for tuple in [flow.id.tuple, flow.reply] {
            let id = Self::at(&flow.id, tuple);
            if self.find(&id, now).is_some() {
                return Err(FlowInsertError::Occupied);
            }
            if let Some((original, _)) = self.index.get(&id).copied() {
                self.remove(&Self::at(&id, original));
            }
        }
        *self.created.entry(flow.id.zone.to_string()).or_default() += 1;
        self.index.insert(Self::at(&flow.id, flow.reply), (flow.id.tuple, FlowDirection::Reply));
        self.index.insert(flow.id.clone(), (flow.id.tuple, FlowDirection::Original));
        self.flows.insert(flow.id.clone(), as_stored(flow));
        Ok(())
    }

    fn expire(&mut self, now: Timestamp) {
        let over: Vec<_> = self.flows.values().filter(|f| f.expires <= now).map(|f| f.id.clone()).collect();
        for id in over {
            self.remove(&id);
        }
    }
}

fn packet(flow: &mut Flow, back: bool, state: u8, now: Timestamp) {
    if flow.id.tuple.protocol == IpProtocol::UDP {
        flow.state = if back { FlowState::Replied } else { flow.state };
    } else {
        let states = [
            TcpState::SynSent,
            TcpState::SynReceived,
            TcpState::Established,
            TcpState::FinWait,
            TcpState::Close,
        ];
        flow.state = FlowState::Tcp(states[usize::from(state)]);
    }
    flow.expires = now.plus_s(idle(flow.state, flow.id.tuple.protocol));
    // A flow that is its own reverse has one direction.
    let n = usize::from(back && flow.reply != flow.id.tuple);
    flow.packets[n] += 1;
    flow.bytes[n] += 100;
}

fn check(store: &Store<'_>, model: &Model) {
    for name in ["z1", "z2"] {
        let zone: loxi_core::ir::CtZone = loxi_core::text::parse_yaml(&format!("name: {name}")).unwrap();
        let own = || model.flows.values().filter(|flow| flow.id.zone == zone.name);
        let totals = store.totals(&zone);
        assert_eq!(totals.flows, own().count() as u64, "flows of {name}");
        assert_eq!(
            totals.half_open,
            own().filter(|f| f.state.is_half_open()).count() as u64,
            "half-open of {name}"
        );
        assert_eq!(totals.created, model.created.get(name).copied().unwrap_or(0), "made in {name}");
        for source in ["10.0.0.1", "10.0.0.2", "10.0.0.7", "fd00::1"].map(addr) {
            let wanted = own().filter(|flow| flow.id.tuple.src == source).count() as u64;
            assert_eq!(store.of_source(&zone.name, source), wanted, "{source} in {name}");
        }
    }
    let served = model.flows.values().filter(|flow| flow.backend.is_some()).count() as u64;
    assert_eq!(store.of_backend(&"b1".parse().unwrap(), NOW), served);
    let exported = crate::state::export(store).unwrap().flows;
    assert_eq!(exported, model.flows.values().cloned().collect::<Vec<_>>());
}

fn run(ops: &[Op], buckets: [u32; 2], paced: bool) -> (u32, u32) {
    let mut node = Node::new(buckets);
    let (mut pace, mut fresh) = (Pace::default(), Pace::default());
    let mut model = Model::default();
    let mut now = NOW;
    let (mut stored, mut full) = (0, 0);
    for op in ops {
        let pace = if paced { &mut pace } else { &mut fresh };
        if !paced {
            *pace = Pace::default();
        }
        let mut store = node.store().paced(pace);
        let id_of = |which: u8| begun(which, 0, now).id;
        match op {
            Op::Insert(which, kind) => {
                let flow = begun(*which, *kind, now);
                let result = store.insert(flow.clone(), now);
                if result == Err(FlowInsertError::Full) {
                    // Room may be missing, and expired flows may have gone to make some.
                    full += 1;
                    model.expire_missing(&store, now);
                } else {
                    assert_eq!(result, model.insert(&flow, now), "{op:?}");
                    // Others may have gone where buckets were full.
                    model.expire_missing(&store, now);
                    stored += u32::from(result.is_ok());
                }
            }
            Op::Lookup(which) => {
                let id = id_of(*which);
                assert_eq!(store.lookup(&id.zone, &id.tuple, now), model.find(&id, now), "{op:?}");
                assert_eq!(store.get(&id), model.flows.get(&id).cloned(), "{op:?}");
            }
            Op::Reply(which, kind) => {
                let id = id_of(*which);
                let id = Model::at(&id, reply(id.tuple, *kind));
                assert_eq!(store.lookup(&id.zone, &id.tuple, now), model.find(&id, now), "{op:?}");
            }
            Op::Packet(which, back, state) => {
                let id = id_of(*which);
                store.update(&id, &mut |flow| packet(flow, *back, *state, now));
                if let Some(flow) = model.flows.get_mut(&id) {
                    packet(flow, *back, *state, now);
                    *flow = as_stored(flow);
                }
            }
            Op::Restamp(which, at) => {
                let id = id_of(*which);
                store.update(&id, &mut |flow| flow.policy.source = Some((port("p1"), *at)));
                if let Some(flow) = model.flows.get_mut(&id) {
                    flow.policy.source = Some((port("p1"), *at));
                }
            }
            Op::Remove(which) => {
                let id = id_of(*which);
                assert_eq!(store.remove(&id), model.remove(&id), "{op:?}");
            }
            Op::Wait(seconds) => now = now.plus_s((*seconds).into()),
            Op::Expire => {
                store.expire(now);
                model.expire(now);
            }
        }
        check(&store, &model);
    }
    assert_eq!(recount(&mut node.store()).unwrap().corrected, 0, "counts are those of what is there");
    (stored, full)
}

impl Model {
    /// Takes out what the store has taken out though nobody asked: it must have expired.
    fn expire_missing(&mut self, store: &Store<'_>, now: Timestamp) {
        let missing: Vec<_> =
            self.flows.values().filter(|flow| store.get(&flow.id).is_none()).cloned().collect();
        for flow in missing {
            assert!(flow.expires <= now, "{} was evicted", flow.id.tuple);
            self.remove(&flow.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(ops in prop::collection::vec(op(), 1..80)) {
        let (_, full) = run(&ops, [64, 64], false);
        prop_assert_eq!(full, 0, "there is room for all of them");
    }

    #[test]
    fn full_buckets_lose_nothing(ops in prop::collection::vec(op(), 40..120)) {
        run(&ops, [1, 1], false);
    }
}

#[test]
fn random_operations_do_store_and_do_fill() {
    // The properties above mean something only if their operations do.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut stored, mut full) = (0, 0);
    for _ in 0..40 {
        let ops = prop::collection::vec(op(), 100..120).new_tree(&mut runner).unwrap().current();
        stored += run(&ops, [64, 64], true).0;
        full += run(&ops, [1, 1], false).1;
    }
    assert!(stored > 400 && full > 20, "{stored} stored, {full} refused");
}
