//! A change compiled by itself comes to the plan of the new pipeline, and compiles no more than it must.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod generate;

use loxi_backend_ebpf::plan::{PlanIndex, Unit, compile};
use loxi_conformance::{case, pipeline_of};
use loxi_core::capability::{Capabilities, Feature, needs};
use loxi_core::change::{Change, diff};
use loxi_core::ir::*;
use loxi_core::net::{Mtu, PortName};
use loxi_core::text::from_yaml;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

fn full() -> Capabilities {
    Capabilities::full("test", 1 << 20)
}

/// What was seen, so that a test can say what it really judged.
#[derive(Default, Debug)]
struct Seen {
    changed: u32,
    units: BTreeMap<String, u32>,
    stale: u32,
    unlike: u32,
}

impl Seen {
    fn unit(&mut self, unit: &Unit) {
        let name = format!("{unit:?}");
        let kind = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
        *self.units.entry(kind).or_default() += 1;
    }
}

/// The ports whose policy generations the reference raises, by its own rule on both pipelines.
fn stale(old: &Pipeline, new: &Pipeline, change: &Change) -> BTreeSet<PortName> {
    let mut ports = BTreeSet::new();
    for changed in &change.entities {
        for (side, pipeline) in [(&changed.old, old), (&changed.new, new)] {
            let mut add = |subject: &PolicySubject| {
                let concerned = pipeline.ports().filter(|port| subject.contains(port));
                ports.extend(concerned.map(|port| port.name.clone()));
            };
            match side.as_ref().map(|side| &side.entity) {
                Some(Entity::PolicyRule(rule)) => add(&rule.subject),
                Some(Entity::PolicyIsolation(isolation)) => add(&isolation.subject),
                Some(Entity::AddrSet(set)) => pipeline
                    .policy_rules()
                    .filter(|rule| rule.peer == PolicyPeer::Set(set.name.clone()))
                    .for_each(|rule| add(&rule.subject)),
                Some(Entity::PortSet(set)) => pipeline
                    .policy_rules()
                    .filter(|rule| rule.ports == PolicyPorts::Set(set.name.clone()))
                    .for_each(|rule| add(&rule.subject)),
                _ => {}
            }
        }
    }
    ports.retain(|port| new.get::<Port>(port).is_some());
    ports
}

/// Takes an index from one pipeline to the next.
fn step(index: &mut PlanIndex, old: &Pipeline, new: &Pipeline, seen: &mut Seen) -> Result<(), TestCaseError> {
    let change = diff(old, new);
    let delta = index.compile_change(new, &change, &full()).unwrap();
    for unit in &delta.units {
        prop_assert!(unit.old != unit.new, "{:?} doesn't differ", unit.unit);
        let installed = index.plan().units.get(&unit.unit).cloned().unwrap_or_default();
        prop_assert_eq!(&unit.old, &installed);
        seen.unit(&unit.unit);
    }
    prop_assert_eq!(&delta.stale_ports, &stale(old, new, &change));
    seen.changed += u32::from(!delta.units.is_empty());
    seen.stale += u32::from(!delta.stale_ports.is_empty());
    index.apply(&delta);
    let whole = compile(new, &full()).unwrap();
    let differ: BTreeSet<&Unit> = whole
        .units
        .keys()
        .chain(index.plan().units.keys())
        .filter(|unit| whole.units.get(unit) != index.plan().units.get(unit))
        .collect();
    prop_assert!(differ.is_empty(), "{:?} after {:#?}", differ, change);
    prop_assert_eq!(&*index, &PlanIndex::from_plan(whole));
    Ok(())
}

fn run<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(strategy, test).unwrap();
}

#[test]
fn changes_of_generated_pipelines_come_to_the_same_plan() {
    let seen = RefCell::new(Seen::default());
    let changes = vec(vec(any::<u64>(), 1..8), 1..5);
    run(400, &(vec(any::<u64>(), 0..80), changes), |(first, changes)| {
        let mut old = generate::pipeline(&first);
        let mut index = PlanIndex::from_plan(compile(&old, &full()).unwrap());
        for seeds in changes {
            let new = generate::changed(&old, &seeds);
            step(&mut index, &old, &new, &mut seen.borrow_mut())?;
            old = new;
        }
        Ok(())
    });
    let seen = seen.into_inner();
    println!("{seen:?}");
    assert!(seen.changed >= 600, "{seen:?}");
    assert!(seen.stale >= 100, "{seen:?}");
    assert_eq!(seen.units.len(), 26, "{seen:?}");
    assert!(seen.units.values().all(|count| *count >= 10), "{seen:?}");
}

#[test]
fn a_node_in_all_its_variations_comes_to_the_same_plan() {
    let seen = RefCell::new(Seen::default());
    run(100, &(case(), case(), vec(any::<u64>(), 0..4)), |(a, b, seeds)| {
        let pipeline = |entities| Pipeline::from_entities(&generate::owner(), entities);
        let (old, new) = (pipeline(pipeline_of(&a)), pipeline(pipeline_of(&b)));
        let mut index = PlanIndex::from_plan(compile(&old, &full()).unwrap());
        let seen = &mut seen.borrow_mut();
        step(&mut index, &old, &new, seen)?;
        let third = generate::changed(&new, &seeds);
        step(&mut index, &new, &third, seen)?;
        // And everything at once, there and back.
        step(&mut index, &third, &Pipeline::default(), seen)?;
        step(&mut index, &Pipeline::default(), &old, seen)
    });
    let seen = seen.into_inner();
    assert!(seen.changed >= 300, "{seen:?}");
}

#[test]
fn what_a_backend_lacks_is_refused_of_a_change_as_of_the_whole() {
    let seen = RefCell::new(Seen::default());
    let strategy = (vec(any::<u64>(), 0..40), vec(any::<u64>(), 1..60), 0..Feature::ALL.len());
    run(1000, &strategy, |(first, seeds, lacks)| {
        let mut capabilities = full();
        capabilities.features.remove(&Feature::ALL[lacks]);
        let mut old = generate::pipeline(&first);
        for (entity, _, feature) in needs(&old) {
            if feature == Feature::ALL[lacks] {
                old.remove(&entity);
            }
        }
        let old = generate::prune(old);
        let plan = compile(&old, &capabilities).unwrap();
        let new = generate::changed(&old, &seeds);
        let whole = compile(&new, &capabilities);
        let change = diff(&old, &new);
        let part = PlanIndex::from_plan(plan).compile_change(&new, &change, &capabilities);
        prop_assert_eq!(whole.as_ref().err(), part.as_ref().err());
        seen.borrow_mut().unlike += u32::from(whole.is_err());
        Ok(())
    });
    let refused = seen.into_inner().unlike;
    assert!(refused >= 60, "{refused}");
}

#[test]
fn a_tunnel_that_needs_more_is_refused_for_the_next_hop_that_leads_there() {
    let old = pipeline_from(
        "version: 1
vrfs: [{name: v}]
ports: [{name: t, kind: tunnel, mac: '02:00:00:00:00:01', attachment: {vrf: v}}]
tunnels: [{name: n, kind: ipip, underlay_vrf: v, local: 172.16.0.1, remote: 172.16.0.2, port: t}]
next_hops: [{name: h, action: {tunnel: n}}]
",
    );
    let mut capabilities = full();
    capabilities.features.remove(&Feature::Ipv6);
    let mut tunnel = old.tunnels().next().unwrap().clone();
    (tunnel.local, tunnel.remote) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let new = with(&old, tunnel);
    let index = PlanIndex::from_plan(compile(&old, &capabilities).unwrap());
    let error = index.compile_change(&new, &diff(&old, &new), &capabilities).unwrap_err();
    assert_eq!(error.to_string(), "next_hop h: action.tunnel: backend test has no capability ipv6");
    assert_eq!(Err(error), compile(&new, &capabilities));
}

fn pipeline_from(yaml: &str) -> Pipeline {
    let pipeline = Pipeline::from_entities(&generate::owner(), from_yaml(yaml).unwrap());
    loxi_core::validate::validate(&pipeline).unwrap();
    pipeline
}

fn with(pipeline: &Pipeline, entity: impl Into<Entity>) -> Pipeline {
    let mut pipeline = pipeline.clone();
    pipeline.put(generate::owner(), entity.into());
    pipeline
}

/// The committed node with as many more routes, services, endpoints, stations and neighbours.
fn large_node(more: u32) -> Pipeline {
    let mut pipeline = pipeline_from(include_str!("../../loxi-conformance/rows/pipelines/node.yaml"));
    let mut put = |entity: Entity| {
        pipeline.put(generate::owner(), entity);
    };
    let service = large_service(&mut put);
    for n in 0..more {
        let text = format!(
            "version: 1
neighbors: [{{interface: hsvlan110, address: 10.245.{}.{}, mac: '02:00:00:01:{:02x}:{:02x}'}}]
fdb: [{{bridge: br0, mac: '02:00:00:01:{:02x}:{:02x}', target: {{port: hs1}}}}]
routes: [{{vrf: pods, prefix: 10.{}.{}.0/24, target: {{next_hop: n2}}}}]
backends: [{{name: more-{n}, address: 10.246.{}.{}, port: 80}}]
",
            n / 250,
            n % 250,
            n / 250,
            n % 250,
            n / 250,
            n % 250,
            100 + n / 250,
            n % 250,
            n / 250,
            n % 250,
        );
        from_yaml(&text).unwrap().into_iter().for_each(&mut put);
        let mut service = service.clone();
        service.ports = loxi_core::net::L4Ports::one(1000 + n as u16);
        service.backends = [format!("more-{n}").parse().unwrap()].into();
        put(service.into());
    }
    loxi_core::validate::validate(&pipeline).unwrap();
    pipeline
}

fn large_service(put: &mut impl FnMut(Entity)) -> LbService {
    let text = "version: 1
vips: [{vrf: pods, address: 10.96.0.2, mode: shared}]
backends: [{name: more, address: 10.246.0.0, port: 80}]
services: [{vrf: pods, vip: 10.96.0.2, protocol: tcp, ports: 999, backends: [more]}]
";
    let mut found = None;
    for entity in from_yaml(text).unwrap() {
        if let Entity::Service(service) = &entity {
            found = Some(service.clone());
        }
        put(entity);
    }
    found.unwrap()
}

/// How many units are compiled again for an entity that changes, comes and goes, and that it comes to the same.
fn compiled_again(old: &Pipeline, new: &Pipeline) -> BTreeSet<Unit> {
    let mut index = PlanIndex::from_plan(compile(old, &full()).unwrap());
    let change = diff(old, new);
    assert_eq!(change.entities.len(), 1);
    let units = index.affected(new, &change);
    assert_eq!(units, index.affected(old, &change.inverse()));
    step(&mut index, old, new, &mut Seen::default()).unwrap();
    units
}

#[test]
fn a_change_of_one_entity_compiles_what_it_concerns_alone() {
    for size in [10, 500] {
        let node = large_node(size);
        let backend = LbBackend { weight: 9, ..node.backends().nth(5).unwrap().clone() };
        let units = compiled_again(&node, &with(&node, backend.clone()));
        let service = node.services().find(|service| service.backends.contains(&backend.name)).unwrap();
        let expected = [Unit::Backend(backend.name.clone()), Unit::Service(service.key())];
        assert_eq!(units, expected.into(), "a backend");

        let down = LbBackend { state: BackendState::Down, ..backend };
        assert_eq!(compiled_again(&with(&node, down.clone()), &node).len(), 2, "a backend that comes back");

        let changed = LbService { affinity: Some(Affinity { timeout_s: 5 }), ..service.clone() };
        assert_eq!(compiled_again(&node, &with(&node, changed)), [Unit::Service(service.key())].into());

        let route = node.routes().nth(7).unwrap().clone();
        let mut without = node.clone();
        without.remove(&EntityKey::Route(route.key()));
        assert_eq!(compiled_again(&node, &without), [Unit::Route(route.key())].into());
        assert_eq!(compiled_again(&without, &node), [Unit::Route(route.key())].into());

        let neighbor = node.neighbors().nth(3).unwrap().clone();
        let mac = "02:00:00:00:00:77".parse().unwrap();
        let moved = with(&node, Neighbor { mac, ..neighbor.clone() });
        assert_eq!(compiled_again(&node, &moved), [Unit::Neighbor(neighbor.key())].into());
        let mut without = node.clone();
        without.remove(&EntityKey::Neighbor(neighbor.key()));
        assert_eq!(compiled_again(&without, &node).len(), 2, "the neighbour, and whose it is");

        let fdb = node.fdb().nth(3).unwrap().clone();
        let mut without = node.clone();
        without.remove(&EntityKey::Fdb(fdb.key()));
        assert_eq!(compiled_again(&without, &node), [Unit::Station(fdb.key())].into());

        let mut port = node.ports().next().unwrap().clone();
        port.mtu = Mtu::new(1300).unwrap();
        assert_eq!(compiled_again(&node, &with(&node, port.clone())), [Unit::Port(port.name)].into());

        let mut interface = node.interfaces().next().unwrap().clone();
        interface.mtu = Mtu::new(1300).unwrap();
        let units = compiled_again(&node, &with(&node, interface));
        // Itself, its link, its two addresses.
        assert_eq!(units.len(), 4, "{units:?}");
    }
}

#[test]
fn an_unused_set_compiles_nothing() {
    let node = large_node(1);
    let text = "version: 1\naddr_sets: [{name: a, members: [10.0.0.0/8]}]\n";
    let set = from_yaml(text).unwrap().remove(0);
    assert!(compiled_again(&node, &with(&node, set)).is_empty());
}

/// Ports whose policies are stale after a change, by name.
fn stale_after(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (pipeline_from(old), pipeline_from(new));
    let index = PlanIndex::from_plan(compile(&old, &full()).unwrap());
    let change = diff(&old, &new);
    let found = index.compile_change(&new, &change, &full()).unwrap().stale_ports;
    assert_eq!(found, stale(&old, &new, &change));
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn policies_are_stale_for_the_ports_of_before_and_after() {
    const PODS: &str = "version: 1
ports:
  - {name: p, kind: pod, mac: '02:00:00:00:00:01'}
  - {name: q, kind: pod, mac: '02:00:00:00:00:02'}
  - {name: h, kind: host, mac: '02:00:00:00:00:03'}
";
    const RULE: &str = "policy_rules: [{direction: egress, tier: admin, priority: 1, subject: all_pods, peer: {set: a}, action: deny}]\n";
    let set = |members: &str| format!("addr_sets: [{{name: a, members: [{members}]}}]\n");
    let (one, two) = (set("10.0.0.0/8"), set("10.0.0.0/9"));
    assert_eq!(stale_after(&format!("{PODS}{one}{RULE}"), &format!("{PODS}{two}{RULE}")), ["p", "q"]);
    assert_eq!(stale_after(&format!("{PODS}{one}"), &format!("{PODS}{two}")), [""; 0]);
    // A port that comes has admitted nothing under a rule that goes; one that goes is no port.
    let without = PODS.replace("  - {name: q, kind: pod, mac: '02:00:00:00:00:02'}\n", "");
    assert_eq!(stale_after(&format!("{without}{one}{RULE}"), &format!("{PODS}{one}")), ["p"]);
    assert_eq!(stale_after(&format!("{PODS}{one}{RULE}"), &format!("{without}{one}")), ["p"]);
    // What was a pod is concerned by what was said of pods; a rule that comes says nothing of it.
    let host = PODS.replace("name: q, kind: pod", "name: q, kind: host");
    assert_eq!(stale_after(&format!("{PODS}{one}{RULE}"), &format!("{host}{one}")), ["p", "q"]);
    assert_eq!(stale_after(&format!("{PODS}{one}{RULE}"), &format!("{host}{two}{RULE}")), ["p", "q"]);
    assert_eq!(stale_after(&format!("{PODS}{one}"), &format!("{host}{two}{RULE}")), ["p"]);
}
