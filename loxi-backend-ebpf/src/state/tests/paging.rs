//! Pages of flows.

use super::fixture::*;
use crate::state::flows;
use loxi_core::dataplane::{FlowFilter, FlowPage, FlowQuery, FlowStore};
use loxi_core::net::IpProtocol;
use loxi_core::packet::{Flow, FlowId, FlowState};
use proptest::prelude::*;

/// Flows of both zones, families and of three protocols.
fn many(count: u32) -> Vec<Flow> {
    let one = |n: u32| {
        let (src, dst) = if n.is_multiple_of(3) {
            (format!("fd00::{:x}", n % 97), "fd00:1::5".to_owned())
        } else {
            (format!("10.0.{}.{}", n % 7, n % 97), "192.0.2.5".to_owned())
        };
        let mut of =
            flow(tuple(&src, 1000 + (n * 7919 % 5000) as u16, &dst, [80, 443][(n % 2) as usize]), NOW);
        of.id.zone = zone(["z1", "z2"][(n / 2 % 2) as usize]);
        if n.is_multiple_of(5) {
            of.id.tuple.protocol = IpProtocol::UDP;
            of.state = FlowState::Unreplied;
            of.expires = NOW.plus_s(30);
        }
        of.reply = of.id.tuple.reversed();
        if n.is_multiple_of(4) {
            of.reply.src = addr(if n.is_multiple_of(3) { "fd00:9::9" } else { "10.9.9.9" });
        }
        of.ingress.port = port(["p1", "p2", "p3"][(n % 3) as usize]);
        of
    };
    (0..count).map(one).collect()
}

/// Everything that a query means, in order: what the pages come to.
fn wanted(all: &[Flow], filter: &FlowFilter, seconds: u32) -> Vec<Flow> {
    let now = NOW.plus_s(seconds);
    let mut flows: Vec<_> =
        all.iter().map(as_stored).filter(|f| f.expires > now && filter.admits(f)).collect();
    flows.sort_by(|a, b| a.id.cmp(&b.id));
    flows
}

fn node(all: &mut Vec<Flow>) -> Node {
    let mut node = Node::new([256, 256]);
    let mut store = node.store();
    all.retain(|flow| store.insert(flow.clone(), NOW).is_ok());
    node
}

fn pages(node: &mut Node, filter: &FlowFilter, limit: u32, seconds: u32) -> Vec<FlowPage> {
    let store = node.store();
    let mut query = FlowQuery { filter: filter.clone(), cursor: None, limit };
    let mut pages: Vec<FlowPage> = Vec::new();
    loop {
        let page = flows(&store, &query, NOW.plus_s(seconds));
        query.cursor = page.next.clone();
        pages.push(page);
        if query.cursor.is_none() {
            return pages;
        }
    }
}

#[test]
fn every_flow_is_on_one_page() {
    let mut all = many(700);
    let mut node = node(&mut all);
    assert!(all.len() > 600, "{}", all.len());
    for limit in [1, 7, 100, 699, 10_000] {
        let found = pages(&mut node, &FlowFilter::default(), limit, 0);
        let (last, full) = found.split_last().unwrap();
        assert!(full.iter().all(|page| page.flows.len() == limit as usize), "pages of {limit}");
        assert!(!last.flows.is_empty());
        let flows: Vec<_> = found.into_iter().flat_map(|page| page.flows).collect();
        assert_eq!(flows, wanted(&all, &FlowFilter::default(), 0), "pages of {limit}");
    }
}

#[test]
fn expired_flows_and_those_of_nobody_are_on_none() {
    let mut all = many(200);
    let mut node = node(&mut all);
    let later = pages(&mut node, &FlowFilter::default(), 50, 60);
    let flows: Vec<_> = later.into_iter().flat_map(|page| page.flows).collect();
    assert_eq!(flows, wanted(&all, &FlowFilter::default(), 60));
    assert!(flows.len() < all.len());
    node.names.ports.retire(&port("p2"));
    let left = pages(&mut node, &FlowFilter::default(), 50, 0);
    let flows: Vec<_> = left.into_iter().flat_map(|page| page.flows).collect();
    all.retain(|flow| flow.ingress.port != port("p2"));
    assert_eq!(flows, wanted(&all, &FlowFilter::default(), 0));
}

#[test]
fn a_cursor_may_be_of_a_flow_or_a_zone_that_is_gone() {
    let mut all = many(100);
    let mut node = node(&mut all);
    let sorted = wanted(&all, &FlowFilter::default(), 0);
    let mut ask = |zone_name: &str, tuple| {
        let cursor = Some(FlowId { zone: zone(zone_name), tuple });
        flows(&node.store(), &FlowQuery { cursor, limit: 10_000, ..FlowQuery::default() }, NOW).flows
    };
    let tuple = tuple("10.0.3.200", 1, "10.0.0.1", 1);
    for zone_name in ["a", "z1", "z11", "z2", "z3"] {
        let cursor = FlowId { zone: zone(zone_name), tuple };
        let behind: Vec<_> = sorted.iter().filter(|flow| flow.id > cursor).cloned().collect();
        assert_eq!(ask(zone_name, tuple), behind, "{zone_name}");
    }
}

fn filter() -> impl Strategy<Value = FlowFilter> {
    let zone_name = prop::option::of(prop::sample::select(vec!["z1", "z2", "z9"]));
    let prefixes =
        vec!["10.0.3.0/24", "10.9.9.9/32", "0.0.0.0/0", "fd00::/64", "fd00:9::/32", "172.16.0.0/12"];
    let protocol = prop::option::of(prop::sample::select(vec![6u8, 17, 1]));
    let l4_port = prop::option::of(prop::sample::select(vec![80u16, 443, 1000, 7]));
    let ingress = prop::option::of(prop::sample::select(vec!["p1", "p3", "p9"]));
    (zone_name, prop::option::of(prop::sample::select(prefixes)), protocol, l4_port, ingress).prop_map(
        |(zone_name, prefix, protocol, l4_port, ingress)| FlowFilter {
            zone: zone_name.map(zone),
            address: prefix.map(|prefix| prefix.parse().unwrap()),
            protocol: protocol.map(IpProtocol),
            l4_port,
            ingress: ingress.map(port),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn filters_mean_what_the_core_says(filter in filter(), limit in 1u32..40, seconds in 0u32..130) {
        let mut all = many(150);
        let mut node = node(&mut all);
        let found = pages(&mut node, &filter, limit, seconds);
        let flows: Vec<_> = found.into_iter().flat_map(|page| page.flows).collect();
        prop_assert_eq!(flows, wanted(&all, &filter, seconds));
    }
}
