//! What goes with entities.

use super::fixture::*;
use super::learning::{client, endpoint, fragment, lowered, neighbor, station};
use crate::state::{
    Gone, forget, forget_bridge, forget_endpoint, forget_interface, forget_port, forget_service,
    forget_tunnel, forget_zone, recount,
};
use crate::sys::{PORT_POLICY, SOURCES, TURNS, ZONE_COUNT};
use loxi_core::dataplane::{FlowStore, StateStore};
use loxi_core::packet::{FdbEntry, Flow, FragmentEntry, PolicyStamp};
use loxi_ebpf_layout::l2::PortPolicy;

/// Flows of ports: by ingress, by either stamp, by none.
fn ported() -> Vec<(Flow, bool)> {
    let mut flows: Vec<_> = (0..5).map(|n| (nth(n), false)).collect();
    for (flow, _) in &mut flows {
        flow.ingress.port = port("p1");
        flow.policy = PolicyStamp { source: Some((port("p1"), 1)), destination: Some((port("p2"), 1)) };
    }
    flows[1].0.ingress.port = port("p3");
    flows[2].0.policy.source = Some((port("p3"), 1));
    flows[3].0.policy.destination = Some((port("p3"), 1));
    flows[4].0.policy = PolicyStamp::default();
    for n in [1, 2, 3] {
        flows[n].1 = true;
    }
    flows
}

#[test]
fn a_port_takes_its_flows_and_stations_along() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    for (flow, _) in ported() {
        store.insert(flow, NOW).unwrap();
    }
    store.put_station(FdbEntry { port: port("p3"), ..station(1) });
    store.put_station(station(2));
    store.put_neighbor(neighbor(1));
    store.kernel.fill(PORT_POLICY, 3, &PortPolicy { groups: 5, generation: 9 });
    forget_port(&mut store, 3).unwrap();
    for (flow, gone) in ported() {
        assert_eq!(store.get(&flow.id).is_none(), gone, "{:?}", flow.policy);
        assert_eq!(store.lookup(&flow.id.zone, &flow.reply, NOW).is_none(), gone);
    }
    assert_eq!(store.station(&station(1).key), None);
    assert!(store.station(&station(2).key).is_some() && store.neighbor(&neighbor(1).key).is_some());
    assert_eq!(store.kernel.at(PORT_POLICY, 3), PortPolicy { groups: 5, generation: 0 });
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 2);
    assert_eq!(recount(&mut store).unwrap().corrected, 0);
}

#[test]
fn a_zone_takes_its_flows_and_fragments_along() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    let other = |flow: Flow| Flow { id: loxi_core::packet::FlowId { zone: zone("z2"), ..flow.id }, ..flow };
    for n in 0..3 {
        store.insert(nth(n), NOW).unwrap();
        store.insert(other(nth(n)), NOW).unwrap();
    }
    store.put_fragment(fragment());
    store.put_fragment(FragmentEntry { zone: zone("z2"), ..fragment() });
    forget_zone(&mut store, 2).unwrap();
    for n in 0..3 {
        assert!(store.get(&nth(n).id).is_some());
        assert_eq!(store.get(&other(nth(n)).id), None);
    }
    assert!(store.fragment(&fragment().key()).is_some());
    assert_eq!(store.fragment(&FragmentEntry { zone: zone("z2"), ..fragment() }.key()), None);
    assert_eq!(store.kernel.all(SOURCES).unwrap(), []);
    assert_eq!(store.kernel.at(ZONE_COUNT, 2), Default::default(), "the next zone begins with none");
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 3);
    assert_eq!(recount(&mut store).unwrap().corrected, 0);
}

#[test]
fn bridges_interfaces_and_services_take_theirs() {
    let mut node = Node::new([4, 4]);
    endpoint(&mut node, "192.0.2.50", 3);
    let mut store = node.store();
    store.put_station(station(1));
    store.put_neighbor(neighbor(1));
    store.put_affinity(client());
    store.put_path_mtu(lowered("192.0.2.50", 1400));
    store.turn(&service());
    forget_bridge(&mut store, 2).unwrap();
    forget_interface(&mut store, 2).unwrap();
    forget_service(&mut store, 2).unwrap();
    forget_endpoint(&mut store, 2).unwrap();
    assert!(store.station(&station(1).key).is_some() && store.neighbor(&neighbor(1).key).is_some());
    assert!(store.affinity(&service(), client().client).is_some());
    assert!(store.path_mtu(addr("192.0.2.50")).is_some());
    forget_bridge(&mut store, 1).unwrap();
    assert_eq!(store.station(&station(1).key), None);
    forget_interface(&mut store, 1).unwrap();
    assert_eq!(store.neighbor(&neighbor(1).key), None);
    forget_service(&mut store, 1).unwrap();
    assert_eq!(store.affinity(&service(), client().client), None);
    assert_eq!(store.kernel.at(TURNS, 1), 0);
    forget_endpoint(&mut store, 3).unwrap();
    assert_eq!(store.path_mtu(addr("192.0.2.50")), None);
    assert_eq!(recount(&mut store).unwrap().corrected, 0);
}

#[test]
fn a_tunnel_takes_the_way_back_and_leaves_the_flow() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    let by = |n: u32, tunnel: Option<&str>| {
        let mut flow = nth(n);
        flow.ingress.tunnel = tunnel.map(|name| name.parse().unwrap());
        flow
    };
    for flow in [by(1, Some("t1")), by(2, Some("t2")), by(3, None)] {
        store.insert(flow, NOW).unwrap();
    }
    for (n, tunnel) in [(1, "t1"), (2, "t2")] {
        store.put_station(FdbEntry { tunnel: Some(tunnel.parse().unwrap()), ..station(n) });
    }
    forget_tunnel(&mut store, 1).unwrap();
    assert_eq!(store.get(&nth(1).id), Some(as_stored(&by(1, None))));
    assert_eq!(store.get(&nth(2).id), Some(as_stored(&by(2, Some("t2")))));
    assert_eq!(store.get(&nth(3).id), Some(as_stored(&by(3, None))));
    assert_eq!(store.station(&station(1).key), None);
    assert!(store.station(&station(2).key).is_some());
}

#[test]
fn much_goes_at_once() {
    let mut node = Node::new([16, 16]);
    let mut store = node.store();
    for (flow, _) in ported() {
        store.insert(flow, NOW).unwrap();
    }
    store.put_station(station(1));
    let gone = Gone { ports: [1, 2, 3].into(), zones: [2].into(), bridges: [1].into(), ..Gone::default() };
    forget(&mut store, &gone).unwrap();
    assert_eq!(store.kernel.at(ZONE_COUNT, 1).flows, 0);
    assert_eq!(store.station(&station(1).key), None);
    forget(&mut store, &Gone::default()).unwrap();
}
