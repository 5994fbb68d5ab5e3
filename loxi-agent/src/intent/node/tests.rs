use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::cluster::Event;
use crate::intent::fixture::{attachment, entities, settings, valid};
use crate::intent::{Attachment, Intent};
use loxi_core::ir::{EntityKey, RouteKey};
use loxi_core::net::VrfName;

fn node(name: &str, address: u8, cidrs: &[&str]) -> Node {
    Node {
        name: Name::of_cluster(name),
        internal_ips: vec![format!("172.18.0.{address}").parse().unwrap()],
        pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        ..Node::default()
    }
}

fn with(nodes: impl IntoIterator<Item = Node>) -> Intent {
    let mut intent = Intent::new(settings());
    for node in nodes {
        intent.apply(Event::Put(node.into()));
    }
    intent
}

/// By which node's tunnel a prefix is reached.
fn way_to(intent: &mut Intent, prefix: &str) -> Option<String> {
    let vrf = VrfName::new("pods").unwrap();
    let key = EntityKey::Route(RouteKey { vrf, prefix: prefix.parse().unwrap() });
    match intent.ledger().entity(&key) {
        Some(Entity::Route(route)) => match &route.target {
            RouteTarget::NextHop(hop) => Some(hop.to_string()),
            RouteTarget::Group(_) => None,
        },
        _ => None,
    }
}

fn peers(intent: &mut Intent) -> Vec<String> {
    let termination = |entity: &Entity| match entity {
        Entity::Termination(termination) => Some(termination.peers.clone()),
        _ => None,
    };
    intent.ledger().entities().filter_map(termination).flatten().map(|peer| peer.to_string()).collect()
}

#[test]
fn a_node_alone_is_valid() {
    valid(&mut with([]));
}

#[test]
fn a_node_is_reached_by_its_tunnel_and_let_in_by_its_address() {
    let mut intent = with([node("n1", 1, &["10.244.1.0/24"]), node("n2", 2, &["10.244.2.0/24"])]);
    assert_eq!(way_to(&mut intent, "10.244.2.0/24").as_deref(), Some("node:n2"));
    assert_eq!(way_to(&mut intent, "10.244.1.0/24").as_deref(), Some("pods-link"));
    assert_eq!(peers(&mut intent), ["172.18.0.2/32"]);
    valid(&mut intent);
    intent.apply(Event::Put(node("n2", 3, &["10.244.3.0/24"]).into()));
    assert_eq!(way_to(&mut intent, "10.244.2.0/24"), None);
    assert_eq!(way_to(&mut intent, "10.244.3.0/24").as_deref(), Some("node:n2"));
    assert_eq!(peers(&mut intent), ["172.18.0.3/32"]);
    intent.apply(Event::Gone(Object::from(node("n2", 0, &[])).reference()));
    assert_eq!(entities(&mut intent), entities(&mut with([])));
}

#[test]
fn a_node_without_pods_network_is_waited_for() {
    let mut intent = with([node("n2", 2, &[])]);
    assert_eq!(way_to(&mut intent, "10.244.2.0/24"), None);
    intent.apply(Event::Put(node("n2", 2, &["10.244.2.0/24"]).into()));
    assert_eq!(way_to(&mut intent, "10.244.2.0/24").as_deref(), Some("node:n2"));
}

#[test]
fn of_two_claims_to_a_network_the_first_name_holds_until_it_is_given_up() {
    let mut intent = with([node("n3", 3, &["10.244.2.0/24"]), node("n2", 2, &["10.244.0.0/16"])]);
    // This node's own network is inside of what n2 claims.
    assert_eq!(way_to(&mut intent, "10.244.0.0/16"), None);
    assert_eq!(way_to(&mut intent, "10.244.2.0/24"), None);
    intent.apply(Event::Put(node("n2", 2, &["10.244.2.0/23"]).into()));
    assert_eq!(way_to(&mut intent, "10.244.2.0/23").as_deref(), Some("node:n2"));
    assert_eq!(way_to(&mut intent, "10.244.2.0/24"), None);
    intent.apply(Event::Put(node("n2", 2, &["10.244.4.0/24"]).into()));
    assert_eq!(way_to(&mut intent, "10.244.2.0/24").as_deref(), Some("node:n3"));
    valid(&mut intent);
}

#[test]
fn a_pod_has_a_port_a_station_and_its_addresses_until_it_is_gone() {
    let mut intent = with([]);
    let before = entities(&mut intent);
    intent.attach(Attachment { pod: None, ..attachment(1) });
    let pipeline = valid(&mut intent);
    assert_eq!(pipeline.neighbors().filter(|neighbor| neighbor.mac == attachment(1).mac).count(), 2);
    assert_eq!(entities(&mut intent).len(), before.len() + 4);
    intent.detach(&attachment(1).port);
    assert_eq!(entities(&mut intent), before);
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let cidr = (0_u8..6, prop_oneof![Just(24_u8), Just(23)])
        .prop_map(|(number, len)| IpPrefix::containing(IpAddr::from([10, 244, number, 0]), len));
    let node = (1_u8..6, 1_u8..5, btree_set(cidr, 0..3)).prop_map(|(name, address, cidrs)| Node {
        pod_cidrs: cidrs.into_iter().collect(),
        ..node(&format!("n{name}"), address, &[])
    });
    let event = prop_oneof![
        3 => node.prop_map(|node| Event::Put(node.into())),
        1 => (1_u8..6).prop_map(|name| Event::Gone(Object::from(node_named(name)).reference())),
    ];
    vec(event, 0..24)
}

fn node_named(number: u8) -> Node {
    node(&format!("n{number}"), 0, &[])
}

proptest! {
    #[test]
    fn step_by_step_is_as_at_once(events in events()) {
        let mut stepwise = with([]);
        for event in events {
            stepwise.apply(event);
        }
        let nodes: Vec<Node> = stepwise.cluster().nodes().cloned().collect();
        let mut at_once = Intent::new(settings());
        at_once.apply(Event::All(Kind::Node, nodes.into_iter().rev().map(Object::from).collect()));
        prop_assert_eq!(entities(&mut stepwise), entities(&mut at_once));
        valid(&mut stepwise);
    }
}
