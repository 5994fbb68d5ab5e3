//! Every shape of a flow goes into the table and comes out as it was.

use super::fixture::*;
use crate::state::flow::Key;
use crate::sys::{BACKEND_FLOWS, SOURCES, ZONE_COUNT};
use loxi_core::dataplane::{FlowInsertError, FlowStore};
use loxi_core::net::IpProtocol;
use loxi_core::packet::{
    Flow, FlowDirection, FlowState, FlowTuple, PolicyStamp, SctpState, TcpState, Translation,
};
use loxi_ebpf_layout::flow::{BUSY, FAST, NAT, REPLY, rest};

fn shapes() -> Vec<(&'static str, Flow)> {
    let v4 = tuple("10.0.0.1", 40_000, "10.96.0.1", 80);
    let v6 = tuple("fd00::1", 40_000, "fd00:96::1", 80);
    let udp = |tuple| FlowTuple { protocol: IpProtocol::UDP, ..tuple };
    let base = |tuple| flow(tuple, NOW);
    let with = |tuple: FlowTuple, state: FlowState| Flow {
        state,
        expires: NOW.plus_s(idle(state, tuple.protocol)),
        ..base(tuple)
    };
    let back = |src: &str, sport: u16, dst: &str, dport: u16| tuple(src, sport, dst, dport);
    let icmp = FlowTuple { protocol: IpProtocol::ICMP, src_port: 77, dst_port: 77, ..v4 };
    let bare = FlowTuple { protocol: IpProtocol::GRE, src_port: 0, dst_port: 0, ..v6 };
    let sctp = FlowTuple { protocol: IpProtocol::SCTP, ..v4 };
    let own = tuple("10.0.0.9", 500, "10.0.0.9", 500);
    let served =
        |flow: Flow| Flow { service: Some(service()), backend: Some(("b2".parse().unwrap(), 6)), ..flow };
    let mut tunnelled = base(v6);
    tunnelled.ingress.tunnel = Some("t2".parse().unwrap());
    vec![
        ("plain v4", base(v4)),
        ("plain v6", base(v6)),
        ("udp, both ways", with(udp(v6), FlowState::Replied)),
        ("icmp", with(icmp, FlowState::Unreplied)),
        ("by addresses alone", with(bare, FlowState::Unreplied)),
        ("sctp", with(sctp, FlowState::Sctp(SctpState::Established))),
        ("nat v4", served(Flow { reply: back("10.1.0.5", 8080, "10.0.0.1", 40_000), ..base(v4) })),
        ("nat v6", served(Flow { reply: back("fd00:5::1", 8080, "fd00:7::1", 1024), ..base(v6) })),
        (
            "icmp with another identifier",
            Flow {
                reply: FlowTuple { src_port: 9, dst_port: 9, dst: addr("192.0.2.7"), ..icmp.reversed() },
                ..with(icmp, FlowState::Unreplied)
            },
        ),
        (
            "ipip v4 in v4",
            served(Flow {
                translation: Translation::DsrIpip,
                dsr_target: Some(addr("10.9.0.1")),
                ..base(v4)
            }),
        ),
        (
            "ipip v4 in v6",
            served(Flow {
                translation: Translation::DsrIpip,
                dsr_target: Some(addr("fd00:9::1")),
                ..base(v4)
            }),
        ),
        (
            "ipip v6 in v4",
            served(Flow {
                translation: Translation::DsrIpip,
                dsr_target: Some(addr("10.9.0.1")),
                ..base(v6)
            }),
        ),
        (
            "l2 of the other family",
            served(Flow { translation: Translation::DsrL2, dsr_target: Some(addr("10.9.0.1")), ..base(v6) }),
        ),
        ("hairpin", Flow { reply: back("10.0.0.1", 8080, "10.0.0.254", 40_000), hairpin: true, ..base(v4) }),
        ("its own reverse", Flow { packets: [7, 0], bytes: [400, 0], ..base(own) }),
        ("out of a tunnel", tunnelled),
        ("without stamps", Flow { policy: PolicyStamp::default(), ..base(v4) }),
        ("counters", Flow { packets: [1 << 40, 3], bytes: [1 << 50, 5], ..base(v6) }),
        ("older than this boot's first tick", {
            let state = FlowState::Tcp(TcpState::Established);
            Flow { created: loxi_core::packet::Timestamp(5), ..with(v4, state) }
        }),
    ]
}

#[test]
fn every_shape_comes_back_by_both_tuples() {
    for (what, wanted) in shapes() {
        let mut node = Node::new([16, 16]);
        let mut store = node.store();
        store.insert(wanted.clone(), NOW).unwrap();
        let wanted = as_stored(&wanted);
        assert_eq!(store.get(&wanted.id), Some(wanted.clone()), "{what}");
        let own = store.lookup(&wanted.id.zone, &wanted.id.tuple, NOW);
        assert_eq!(own, Some((FlowDirection::Original, wanted.clone())), "{what}");
        if wanted.reply != wanted.id.tuple {
            let back = store.lookup(&wanted.id.zone, &wanted.reply, NOW);
            assert_eq!(back, Some((FlowDirection::Reply, wanted.clone())), "{what}");
            let mut as_id = wanted.id.clone();
            as_id.tuple = wanted.reply;
            assert_eq!(store.get(&as_id), None, "{what}: a reply's tuple is no identity");
        }
        assert_eq!(store.remove(&wanted.id), Some(wanted.clone()), "{what}");
        for tuple in [wanted.id.tuple, wanted.reply] {
            assert_eq!(store.lookup(&wanted.id.zone, &tuple, NOW), None, "{what}");
        }
        assert_eq!(store.remove(&wanted.id), None, "{what}");
    }
}

#[test]
fn entries_are_such_that_the_programs_decide_anew() {
    for (what, flow) in shapes() {
        let mut node = Node::new([16, 16]);
        let mut store = node.store();
        store.insert(flow.clone(), NOW).unwrap();
        let (family, key) = Key::of(1, &flow.id.tuple).unwrap();
        let table = store.table(family);
        let original = table.find(&key).unwrap();
        let (_, record) = table.record(original).unwrap();
        let flags = rest::flags(record.word);
        assert_eq!(flags & (BUSY | FAST | REPLY), 0, "{what}");
        let translated = flow.reply != flow.id.tuple.reversed();
        assert_eq!(flags & NAT != 0, translated, "{what}");
        assert_eq!(record.seen[0].epoch, 0, "{what}");
        assert_eq!(record.is_single(), flow.reply == flow.id.tuple, "{what}");
        if !record.is_single() {
            let reply = rest::flags(table.rest(record.partner).load());
            assert_eq!(
                reply & (BUSY | FAST | REPLY | NAT),
                if translated { REPLY | NAT } else { REPLY },
                "{what}"
            );
            assert_eq!(table.cold(record.partner).partner, original.number(), "{what}");
        }
        let places = if record.is_single() { 1 } else { 2 };
        let mut seen = 0;
        for family in crate::state::flow::FAMILIES {
            let table = store.table(family);
            table.scan(0..table.buckets(), |_, _| seen += 1);
        }
        assert_eq!(seen, places, "{what}");
    }
}

#[test]
fn a_flow_is_counted_while_it_is_there() {
    let mut node = Node::new([16, 16]);
    let mut flow = nth(1);
    flow.id.zone = zone("z2");
    flow.backend = Some(("b1".parse().unwrap(), 5));
    node.store().insert(flow.clone(), NOW).unwrap();
    let count = node.kernel().at(ZONE_COUNT, 2);
    assert_eq!((count.flows, count.half_open, count.created), (1, 1, 1));
    assert_eq!(node.kernel().at(BACKEND_FLOWS, 1), 1);
    let sources = node.kernel().all(SOURCES).unwrap();
    assert_eq!(sources.iter().map(|(_, flows)| *flows).collect::<Vec<_>>(), [1]);
    let mut store = node.store();
    assert_eq!(store.of_source(&zone("z2"), flow.id.tuple.src), 1);
    assert_eq!(store.of_backend(&"b1".parse().unwrap(), NOW), 1);
    store.update(&flow.id, &mut |flow| flow.state = FlowState::Tcp(TcpState::Established));
    assert_eq!(node.kernel().at(ZONE_COUNT, 2).half_open, 0);
    node.store().remove(&flow.id).unwrap();
    let count = node.kernel().at(ZONE_COUNT, 2);
    assert_eq!((count.flows, count.half_open, count.created), (0, 0, 1));
    assert_eq!(node.kernel().at(BACKEND_FLOWS, 1), 0);
    assert_eq!(node.store().of_source(&zone("z2"), flow.id.tuple.src), 0);
}

#[test]
fn sources_are_told_also_where_nobody_counts_them() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    for sport in 0..5 {
        store.insert(flow(tuple("10.0.0.1", 1000 + sport, "10.0.0.2", 80), NOW), NOW).unwrap();
    }
    store.insert(flow(tuple("10.0.0.2", 1, "10.0.0.1", 80), NOW), NOW).unwrap();
    assert_eq!(store.of_source(&zone("z1"), addr("10.0.0.1")), 5);
    assert_eq!(store.of_source(&zone("z1"), addr("10.0.0.2")), 1);
    assert_eq!(store.of_source(&zone("z1"), addr("10.0.0.3")), 0);
    assert_eq!(store.of_source(&zone("z2"), addr("10.0.0.1")), 0);
    assert_eq!(node.kernel().all(SOURCES).unwrap(), []);
}

#[test]
fn what_has_no_number_is_refused_and_nothing_is_left() {
    let mut node = Node::new([16, 16]);
    let mut strangers = vec![nth(1), nth(1), nth(1)];
    strangers[0].id.zone = zone("elsewhere");
    strangers[1].ingress.port = port("elsewhere");
    strangers[2].reply.src = addr("fd00::1");
    for stranger in strangers {
        assert_eq!(node.store().insert(stranger, NOW), Err(FlowInsertError::Full));
    }
    assert_eq!(node.kernel().at(ZONE_COUNT, 1).created, 0);
    let mut store = node.store();
    store.insert(nth(1), NOW).unwrap();
    assert_eq!(store.lookup(&zone("elsewhere"), &nth(1).id.tuple, NOW), None);
    assert_eq!(store.lookup(&zone("z2"), &nth(1).id.tuple, NOW), None);
}

#[test]
fn a_flow_whose_port_is_gone_is_not_there() {
    let mut node = Node::new([16, 16]);
    let flow = nth(1);
    node.store().insert(flow.clone(), NOW).unwrap();
    let mut other = nth(2);
    other.ingress.port = port("p3");
    other.policy.destination = Some((port("p1"), 9));
    node.store().insert(other.clone(), NOW).unwrap();
    node.names.ports.retire(&port("p1"));
    let mut store = node.store();
    assert_eq!(store.get(&flow.id), None);
    assert_eq!(store.lookup(&flow.id.zone, &flow.reply, NOW), None);
    assert_eq!(store.remove(&flow.id), None);
    // A port that is only named by a stamp still has its name.
    assert_eq!(store.get(&other.id), Some(as_stored(&other)));
    // Nobody's flow is in nobody's way.
    let again = Flow { ingress: other.ingress.clone(), ..flow };
    store.insert(again.clone(), NOW).unwrap();
    assert_eq!(store.get(&again.id).unwrap().ingress, again.ingress);
    assert_eq!(node.kernel().at(ZONE_COUNT, 1).flows, 2);
}

#[test]
fn no_flow_was_seen_later_than_now() {
    let mut node = Node::new([16, 16]);
    let mut flow = nth(1);
    flow.expires = NOW.plus_s(1_000_000);
    let mut store = node.store();
    store.insert(flow.clone(), NOW).unwrap();
    let stored = store.get(&flow.id).unwrap();
    let wanted = as_stored(&nth(1)).expires;
    assert_eq!(stored.expires, wanted);
}
