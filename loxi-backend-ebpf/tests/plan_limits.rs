//! What the tables have no room for is refused, naming entity and field; what just fits is not.

#![allow(clippy::unwrap_used)]

use loxi_backend_ebpf::plan::{Counted, PlanIndex, Room, compile, compile_for};
use loxi_core::capability::Capabilities;
use loxi_core::change::diff;
use loxi_core::dataplane::CompileError;
use loxi_core::ir::*;
use loxi_core::net::{BackendName, L4Ports};

fn owner() -> Owner {
    Owner::new("test").unwrap()
}

fn base() -> Pipeline {
    let yaml = "version: 1
zones: [{name: z}]
vrfs: [{name: v, zone: z}]
ports: [{name: pod, kind: pod, mac: '02:00:00:00:00:01', attachment: {vrf: v}}]
next_hops: [{name: h, action: host}]
vips: [{vrf: v, address: 10.96.0.1, mode: shared}]
services: [{vrf: v, vip: 10.96.0.1, protocol: tcp, ports: 80}]
";
    Pipeline::from_entities(&owner(), loxi_core::text::from_yaml(yaml).unwrap())
}

fn full() -> Capabilities {
    Capabilities::full("test", 1 << 20)
}

/// The refusal, the same for the whole and for the change that comes to it.
fn refusal(new: &Pipeline) -> Option<String> {
    refusal_of(&base(), new)
}

fn refusal_of(old: &Pipeline, new: &Pipeline) -> Option<String> {
    let index = PlanIndex::from_plan(compile(old, &full()).unwrap());
    let part = index.compile_change(new, &diff(old, new), &full());
    let whole = compile(new, &full());
    assert_eq!(whole.as_ref().err(), part.as_ref().err());
    let error = whole.err()?;
    assert!(matches!(error, CompileError::TooMany { .. }));
    Some(error.to_string())
}

fn put(pipeline: &mut Pipeline, entity: impl Into<Entity>) {
    pipeline.put(owner(), entity.into());
}

fn backends(pipeline: &mut Pipeline, count: u32, weight: u16) -> Vec<BackendName> {
    let backend = |n: u32| LbBackend {
        name: format!("b{n}").parse().unwrap(),
        address: std::net::Ipv4Addr::from_bits(0x0a00_0001 + n).into(),
        port: 80,
        weight,
        state: BackendState::Active,
        locality: Locality::Local,
        origin: Origin::default(),
    };
    let all: Vec<LbBackend> = (0..count).map(backend).collect();
    let names = all.iter().map(|backend| backend.name.clone()).collect();
    all.into_iter().for_each(|backend| put(pipeline, backend));
    names
}

fn service(pipeline: &Pipeline, port: u16) -> LbService {
    LbService { ports: L4Ports::one(port), ..pipeline.services().next().unwrap().clone() }
}

#[test]
fn members_of_a_group() {
    let mut pipeline = base();
    let mut group = NextHopGroup {
        name: "g".parse().unwrap(),
        members: vec![GroupMember { next_hop: "h".parse().unwrap(), weight: 1 }; 64],
        seed: 0,
        origin: Origin::default(),
    };
    put(&mut pipeline, group.clone());
    assert_eq!(refusal(&pipeline), None);
    group.members.push(group.members[0].clone());
    put(&mut pipeline, group);
    let expected = "next_hop_group g: members: 65 exceed the backend's limit of 64";
    assert_eq!(refusal(&pipeline).as_deref(), Some(expected));
}

#[test]
fn nat_rules_of_a_vrf() {
    let mut pipeline = base();
    for priority in 0..65 {
        assert_eq!(refusal(&pipeline), None);
        put(
            &mut pipeline,
            NatRule {
                vrf: "v".parse().unwrap(),
                priority,
                matches: NatMatch::default(),
                action: NatAction::NoNat,
                origin: Origin::default(),
            },
        );
    }
    let expected = "vrf v: nat_rules: 65 exceed the backend's limit of 64";
    assert_eq!(refusal(&pipeline).as_deref(), Some(expected));
}

#[test]
fn rules_of_a_port_and_direction() {
    let mut pipeline = base();
    let rule = |tier, priority| PolicyRule {
        direction: PolicyDirection::Ingress,
        tier,
        priority,
        subject: PolicySubject::AllPods,
        peer: PolicyPeer::Any,
        protocol: None,
        ports: PolicyPorts::Any,
        action: PolicyAction::Allow,
        origin: Origin::default(),
    };
    for priority in 0..448 {
        put(&mut pipeline, rule(PolicyTier::Admin, priority));
    }
    put(&mut pipeline, rule(PolicyTier::Baseline, 0));
    assert_eq!(refusal(&pipeline), None);
    // Few rules more, but each tier begins at a word.
    put(&mut pipeline, rule(PolicyTier::NetworkPolicy, 0));
    let expected =
        "port pod: policy_rules (ingress, each tier filled up to 64): 576 exceed the backend's limit of 512";
    assert_eq!(refusal(&pipeline).as_deref(), Some(expected));
}

#[test]
fn endpoints_of_one_list() {
    let mut pipeline = base();
    let most = (1 << 18) - 1;
    let mut names = backends(&mut pipeline, most + 1, 1);
    let last = names.pop().unwrap();
    let mut service = service(&pipeline, 80);
    service.backends = names.into_iter().collect();
    put(&mut pipeline, service.clone());
    assert_eq!(refusal(&pipeline), None);
    service.backends.insert(last.clone());
    put(&mut pipeline, service);
    let expected = "service v 10.96.0.1:80 tcp: backends: 262144 exceed the backend's limit of 262143";
    assert_eq!(refusal(&pipeline).as_deref(), Some(expected));
    // It is the eligible ones that are listed.
    let down = pipeline.get::<LbBackend>(&last).unwrap().clone();
    put(&mut pipeline, LbBackend { state: BackendState::Down, ..down });
    assert_eq!(refusal(&pipeline), None);
}

#[test]
fn weights_of_one_list() {
    let mut pipeline = base();
    // 65537 times 65535 is all ones in 32 bits.
    let names = backends(&mut pipeline, 65538, 65535);
    let mut service = service(&pipeline, 80);
    service.backends = names[1..].iter().cloned().collect();
    put(&mut pipeline, service.clone());
    assert_eq!(refusal(&pipeline), None);
    service.backends = names.into_iter().collect();
    put(&mut pipeline, service);
    let expected =
        "service v 10.96.0.1:80 tcp: backends.weight: 4295032830 exceed the backend's limit of 4294967295";
    assert_eq!(refusal(&pipeline).as_deref(), Some(expected));
}

#[test]
fn endpoints_of_all_lists() {
    let mut pipeline = base();
    let names: std::collections::BTreeSet<_> = backends(&mut pipeline, 1 << 16, 1).into_iter().collect();
    for port in 1..=8 {
        let service = LbService { backends: names.clone(), ..service(&pipeline, port) };
        put(&mut pipeline, service);
    }
    assert_eq!(refusal(&pipeline), None);
    let full = pipeline.clone();
    let mut ninth = service(&pipeline, 9);
    ninth.backends = names.first().cloned().into_iter().collect();
    put(&mut pipeline, ninth.clone());
    let expected =
        "service v 10.96.0.1:9 tcp: backends, with all in LISTS: 524289 exceed the backend's limit of 524288";
    assert_eq!(refusal_of(&full, &pipeline).as_deref(), Some(expected));
    // One that gets nothing takes its place as well.
    let mut idle = pipeline.clone();
    let first = pipeline.get::<LbBackend>(names.first().unwrap()).unwrap().clone();
    put(&mut idle, LbBackend { state: BackendState::Down, ..first });
    assert_eq!(refusal_of(&full, &idle).as_deref(), Some(expected));
    // In exchange for another's there is room, whichever comes first.
    let eighth = LbService { backends: ninth.backends, ..service(&pipeline, 8) };
    put(&mut pipeline, eighth);
    assert_eq!(refusal_of(&full, &pipeline), None);
}

#[test]
fn places_of_all_tables_of_hashes() {
    let mut pipeline = base();
    let names = backends(&mut pipeline, 1, 1);
    let table_size = MaglevSize::try_from(131_071).unwrap();
    for port in 1..=16 {
        let mut service = service(&pipeline, port);
        service.backends = names.iter().cloned().collect();
        service.algorithm = LbAlgorithm::Maglev { table_size };
        put(&mut pipeline, service);
    }
    // A service without endpoints has no table.
    let idle = LbService { algorithm: LbAlgorithm::SourceHash, ..service(&pipeline, 17) };
    put(&mut pipeline, LbService { backends: Default::default(), ..idle.clone() });
    assert_eq!(refusal(&pipeline), None);
    let old = pipeline.clone();
    put(&mut pipeline, LbService { backends: names.into_iter().collect(), ..idle });
    let expected = "service v 10.96.0.1:17 tcp: algorithm, with all in HASHES: 2113517 exceed the backend's limit of 2097152";
    assert_eq!(refusal_of(&old, &pipeline).as_deref(), Some(expected));
}

#[test]
fn entities_of_a_kind() {
    let mut capabilities = full();
    capabilities.capacity.insert(EntityKind::Backend, 2);
    let old = base();
    let index = PlanIndex::from_plan(compile(&old, &capabilities).unwrap());
    let mut new = old.clone();
    backends(&mut new, 2, 1);
    assert!(index.compile_change(&new, &diff(&old, &new), &capabilities).is_ok());
    backends(&mut new, 3, 1);
    let error = index.compile_change(&new, &diff(&old, &new), &capabilities).unwrap_err();
    assert_eq!(error.to_string(), "3 entities of kind backend exceed the backend's limit of 2");
    assert_eq!(compile(&new, &capabilities), Err(error));
}

/// A pipeline that grows until half of a table is full, and by one entry more: what the refusal says. `small` is
/// the room that the table has.
fn fills(table: Counted, small: u64, old: &Pipeline, full_pipeline: &Pipeline, over: &Pipeline) -> String {
    let room = Room::default().with(table, small);
    let plan = compile_for(old, &full(), &room).unwrap();
    let index = PlanIndex::for_room(plan, room.clone());
    assert!(compile_for(full_pipeline, &full(), &room).is_ok(), "{table:?} is full already");
    assert!(index.compile_change(full_pipeline, &diff(old, full_pipeline), &full()).is_ok());
    let whole = compile_for(over, &full(), &room).unwrap_err();
    let part = index.compile_change(over, &diff(old, over), &full()).unwrap_err();
    assert_eq!(whole, part);
    // As the tables are made there is room.
    assert!(compile(over, &full()).is_ok());
    whole.to_string()
}

/// The base with entities of a text.
fn with(yaml: &str) -> Pipeline {
    let mut pipeline = base();
    for entity in loxi_core::text::from_yaml(&format!("version: 1\n{yaml}")).unwrap() {
        put(&mut pipeline, entity);
    }
    loxi_core::validate::validate(&pipeline).unwrap();
    pipeline
}

/// With two and with three of what a template makes of a number.
fn grows(table: Counted, template: impl Fn(u32) -> String) -> String {
    fills(table, 4, &base(), &with(&template(2)), &with(&template(3)))
}

fn listed(count: u32, each: impl Fn(u32) -> String) -> String {
    (0..count).map(each).collect::<Vec<_>>().join(", ")
}

#[test]
fn members_of_all_sets() {
    let prefixes = |count| listed(count, |n| format!("10.{n}.0.0/16"));
    let of_service = grows(Counted::Sets, |count| {
        let ranges = prefixes(count);
        format!("services: [{{vrf: v, vip: 10.96.0.1, protocol: tcp, ports: 80, source_ranges: [{ranges}]}}]")
    });
    let expected =
        "service v 10.96.0.1:80 tcp: source_ranges, with all in SETS: 3 exceed the backend's limit of 2";
    assert_eq!(of_service, expected);
    let of_vrf =
        grows(Counted::Sets, |n| format!("vrfs: [{{name: v, zone: z, node_local: [{}]}}]", prefixes(n)));
    assert_eq!(of_vrf, "vrf v: node_local, with all in SETS: 3 exceed the backend's limit of 2");
    let of_rule = grows(Counted::Sets, |count| {
        let src = prefixes(count);
        format!("nat_rules: [{{vrf: v, priority: 1, matches: {{src: [{src}]}}, action: no_nat}}]")
    });
    assert_eq!(of_rule, "nat_rule v 1: matches.src, with all in SETS: 3 exceed the backend's limit of 2");
}

#[test]
fn addresses_of_all_pools() {
    let said = grows(Counted::NatPool, |count| {
        let pool = listed(count, |n| format!("10.9.0.{n}"));
        format!("nat_rules: [{{vrf: v, priority: 1, action: {{snat: {{pool: [{pool}]}}}}}}]")
    });
    assert_eq!(
        said,
        "nat_rule v 1: action.snat.pool, with all in NAT_POOL: 3 exceed the backend's limit of 2"
    );
}

#[test]
fn vlans_of_all_trunks() {
    let said = grows(Counted::PortVlans, |count| {
        let allowed = listed(count, |n| (n + 1).to_string());
        format!(
            "bridges: [{{name: b}}]\nports: [{{name: t, kind: pod, mac: '02:00:00:00:00:02', attachment: {{bridge: \
             {{bridge: b, vlan: {{trunk: {{allowed: [{allowed}]}}}}}}}}}}]"
        )
    });
    let expected =
        "port t: attachment.bridge.vlan, with all in PORT_VLANS: 3 exceed the backend's limit of 2";
    assert_eq!(said, expected);
}

#[test]
fn addresses_of_all_interfaces() {
    let said = grows(Counted::LocalAddrs, |count| {
        let addresses = listed(count, |n| format!("10.7.0.{n}"));
        format!(
            "interfaces: [{{name: i, on: {{port: pod}}, vrf: v, mac: '02:00:00:00:00:01', addresses: [{addresses}]}}]"
        )
    });
    assert_eq!(said, "interface i: addresses, with all in LOCAL_ADDRS: 3 exceed the backend's limit of 2");
}

fn policy(rules: u32) -> String {
    let rule = |n: u32| {
        format!(
            "{{direction: ingress, tier: admin, priority: {n}, subject: all_pods, action: allow, protocol: tcp, \
             ports: {{ranges: ['{port}']}}, peer: {{prefixes: {{prefixes: [10.{n}.0.0/16]}}}}}}",
            port = 100 + n
        )
    };
    format!("policy_rules: [{}]", listed(rules, rule))
}

#[test]
fn rows_of_policies() {
    let room_for = |of: u32| 2 * u64::from(of);
    let said = |table, small| fills(table, small, &base(), &with(&policy(2)), &with(&policy(3)));
    // One class for each rule.
    let peers = said(Counted::Peers, room_for(2));
    let expected = "policy_rule ingress admin 2: peer, with all in PEERS: 3 exceed the backend's limit of 2";
    assert_eq!(peers, expected.replace(" admin 2:", " admin 0:"));
    let peer_rules = said(Counted::PeerRules, room_for(2));
    assert_eq!(peer_rules, "port pod: policies, with all in PEER_RULES: 3 exceed the backend's limit of 2");
    let port_rules = said(Counted::PortRules, room_for(2));
    assert_eq!(port_rules, "port pod: policies, with all in PORT_RULES: 3 exceed the backend's limit of 2");
}

#[test]
fn rows_on_the_way_from_policies_to_others() {
    let mut old = with(&policy(2));
    let rule = old.policy_rules().next().unwrap().clone();
    // A rule for all peers is a row for every class.
    put(&mut old, PolicyRule { priority: 9, peer: PolicyPeer::Any, ..rule.clone() });
    let peer = PolicyPeer::Prefixes { prefixes: ["10.9.0.0/16".parse().unwrap()].into(), except: [].into() };
    let mut new = old.clone();
    put(&mut new, PolicyRule { peer, ..rule });
    let compiled = |room: &Room| {
        let index = PlanIndex::for_room(compile_for(&old, &full(), room).unwrap(), room.clone());
        index.compile_change(&new, &diff(&old, &new), &full())
    };
    // Old and new groups with the classes of both are there at once.
    let most =
        (6..40).find(|room| compiled(&Room::default().with(Counted::PeerRules, *room)).is_ok()).unwrap();
    assert_eq!(most, 8, "at rest 3 are taken");
    let error = compiled(&Room::default().with(Counted::PeerRules, most - 1)).unwrap_err().to_string();
    assert!(error.starts_with("port pod: policies, with all in PEER_RULES: "), "{error}");
    assert!(error.ends_with(&format!(" exceed the backend's limit of {}", most - 1)), "{error}");
}
