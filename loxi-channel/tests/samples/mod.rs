//! A value of everything that a dataplane is asked and answers.

#![allow(dead_code)]

use loxi_core::change::{Applied, ChangeError, Generation, Operation, Transaction, TransactionId};
use loxi_core::dataplane::{
    ChoiceMode, DataplaneError, Event, EventKind, Explanation, FlowFilter, FlowPage, FlowQuery,
    InjectRequest, Injected, PacketIn, SnapshotPage, SnapshotQuery,
};
use loxi_core::ir::{Bridge, Entity, EntityKey, EntityKind, Owned, Owner};
use loxi_core::net::{BridgeName, IpProtocol, PortName, ZoneName};
use loxi_core::packet::{
    Choice, ChoicePoint, Counters, Fate, Flow, FlowId, FlowIngress, FlowState, FlowTotals, FlowTuple, Output,
    PolicyStamp, PortCounters, Stage, State, TcpState, Timestamp, Trace, TraceEntry, TraceStep, Translation,
    Unsent, Verdict,
};
use loxi_core::reason::{ConsumedReason, DropReason, PuntReason};

pub fn port(name: &str) -> PortName {
    PortName::new(name).unwrap()
}

pub fn zone(name: &str) -> ZoneName {
    ZoneName::new(name).unwrap()
}

pub fn owner() -> Owner {
    Owner::new("test").unwrap()
}

pub fn bridge(name: &str) -> Entity {
    let text = format!("version: 1\nbridges: [{{name: {name}, ageing_s: 60, origin: here}}]\n");
    loxi_core::text::from_yaml(&text).unwrap().remove(0)
}

pub fn bridge_key(name: &str) -> EntityKey {
    EntityKey::Bridge(BridgeName::new(name).unwrap())
}

pub fn transaction() -> Transaction {
    Transaction {
        base: Some(Generation(3)),
        operations: vec![Operation::Put(Box::new(bridge("pods"))), Operation::Delete(bridge_key("old"))],
        ..Transaction::change("tx-1", owner(), Vec::new())
    }
}

pub fn applied() -> Applied {
    Applied { generation: Generation(4), created: 1, updated: 0, deleted: 1 }
}

pub fn snapshot_query() -> SnapshotQuery {
    let kinds = [EntityKind::Bridge, EntityKind::Fdb].into();
    SnapshotQuery { kinds, owner: Some(owner()), skip: 5, limit: 10 }
}

pub fn snapshot_page() -> SnapshotPage {
    SnapshotPage {
        generation: Generation(4),
        entities: vec![Owned { owner: owner(), entity: bridge("pods") }],
        next: Some(15),
        attached: vec![port("hs1")],
        ..SnapshotPage::default()
    }
}

pub fn tuple() -> FlowTuple {
    FlowTuple {
        src: "10.244.1.10".parse().unwrap(),
        dst: "fd00::1".parse().unwrap(),
        protocol: IpProtocol::TCP,
        src_port: 40000,
        dst_port: 80,
    }
}

pub fn flow() -> Flow {
    Flow {
        id: FlowId { zone: zone("pods"), tuple: tuple() },
        reply: tuple().reversed(),
        translation: Translation::Nat,
        state: FlowState::Tcp(TcpState::Established),
        created: Timestamp(1),
        expires: Timestamp(u64::MAX),
        ingress: FlowIngress { port: port("hs1"), mac: "02:00:00:00:00:01".parse().unwrap(), tunnel: None },
        service: None,
        backend: Some(("web-1".parse().unwrap(), 2)),
        dsr_target: None,
        policy: PolicyStamp { source: Some((port("hs1"), 7)), destination: None },
        hairpin: false,
        packets: [3, 2],
        bytes: [300, 200],
    }
}

pub fn flow_query() -> FlowQuery {
    let filter = FlowFilter {
        zone: Some(zone("pods")),
        address: Some("10.244.0.0/16".parse().unwrap()),
        protocol: Some(IpProtocol::TCP),
        l4_port: Some(80),
        ingress: Some(port("hs1")),
    };
    FlowQuery { filter, cursor: Some(flow().id), limit: 100 }
}

pub fn flow_page() -> FlowPage {
    FlowPage { flows: vec![flow()], next: Some(flow().id) }
}

pub fn counters() -> Counters {
    let hs1 = PortCounters {
        rx_packets: 6,
        rx_bytes: 600,
        tx_packets: 1,
        tx_bytes: 60,
        forwarded: 1,
        consumed: [(ConsumedReason::ArpReply, 2)].into(),
        punted: [(PuntReason::NotOursRoute, 1)].into(),
        dropped: [(DropReason::SpoofIp, 1), (DropReason::Other(999), 1)].into(),
        unsent: [(DropReason::EgressDown, 1)].into(),
    };
    let totals = FlowTotals { flows: 1, half_open: 0, capacity: 10, created: 4 };
    Counters { ports: [(port("hs1"), hs1)].into(), zones: [(zone("pods"), totals)].into() }
}

pub fn packet() -> PacketIn {
    PacketIn { port: port("hs1"), bytes: vec![0xff, 0, 1, 2, 3], at: Some(Timestamp(9)) }
}

pub fn trace() -> Trace {
    let entry = TraceEntry {
        entity: Some(bridge_key("pods")),
        origin: loxi_core::ir::Origin("here".to_owned()),
        text: "learned".to_owned(),
    };
    let step = |entry| TraceStep {
        stage: Stage::Forward,
        key: "02:00:00:00:00:01".to_owned(),
        entry,
        effect: "to hs2".to_owned(),
    };
    Trace { steps: vec![step(Some(entry)), step(None)] }
}

pub fn choice() -> Choice {
    let point = ChoicePoint::SnatPort { first: 1024, last: 65535, preferred: 40000 };
    Choice { point, value: 40000 }
}

pub fn inject_request() -> InjectRequest {
    InjectRequest {
        packets: vec![packet()],
        now: Some(Timestamp(8)),
        choices: ChoiceMode::Recorded(vec![choice()]),
        commit: true,
    }
}

pub fn injected() -> Injected {
    let verdict = Verdict {
        fate: Fate::Forwarded,
        outputs: vec![Output { port: port("hs2"), bytes: vec![1, 2, 3] }],
        unsent: vec![Unsent { port: port("hs3"), reason: DropReason::EgressDown }],
    };
    Injected { verdict, choices: vec![choice()], trace: trace(), punt: None }
}

pub fn explanation() -> Explanation {
    Explanation { backend: "test".to_owned(), installed: trace(), reference: Some(injected()) }
}

pub fn state() -> State {
    State { flows: vec![flow()], ..State::default() }
}

pub fn event() -> Event {
    let kind = EventKind::Dropped {
        port: port("hs1"),
        reason: DropReason::SpoofIp,
        packet: "10.0.0.1 -> 10.0.0.2".to_owned(),
    };
    Event { at: Timestamp(5), kind }
}

/// An error of every kind that a dataplane may answer.
pub fn errors() -> Vec<DataplaneError> {
    let text = "version: 1\nbridges: [{name: pods, zone: none}]\n";
    let pipeline =
        loxi_core::ir::Pipeline::from_entities(&owner(), loxi_core::text::from_yaml(text).unwrap());
    vec![
        ChangeError::GenerationConflict { base: Generation(1), current: Generation(2) }.into(),
        ChangeError::Owned { entity: Box::new(bridge_key("pods")), by: owner() }.into(),
        loxi_core::validate::validate(&pipeline).unwrap_err().into(),
        DataplaneError::Compile(
            loxi_core::capability::CapacityExceeded { kind: EntityKind::Bridge, limit: 1, asked: 2 }.into(),
        ),
        DataplaneError::Install(loxi_core::dataplane::InstallError {
            step: 3,
            what: "map".to_owned(),
            message: "full".to_owned(),
        }),
        DataplaneError::NoSuchPort(port("hs9")),
        DataplaneError::Attach { port: port("hs1"), message: "no device".to_owned() },
        DataplaneError::NotSupported { capability: "explain".to_owned() },
        DataplaneError::BadRequest { field: "cursor".to_owned(), message: "not ours".to_owned() },
        DataplaneError::OutcomeUnknown { id: TransactionId("tx-1".to_owned()) },
        DataplaneError::Internal("bug".to_owned()),
        DataplaneError::Compile(loxi_core::dataplane::CompileError::TooMany {
            entity: bridge_key("pods"),
            field: "flood_tunnels".to_owned(),
            limit: 1,
            asked: 2,
        }),
    ]
}

/// Bridges alone, for a second glance at a bridge's fields.
pub fn as_bridge(entity: &Entity) -> &Bridge {
    match entity {
        Entity::Bridge(bridge) => bridge,
        other => panic!("{other:?}"),
    }
}
