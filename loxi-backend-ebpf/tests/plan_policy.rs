//! Policies as bitmaps say what the rules say, one by one in their order.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod generate;

use generate::{Dice, PREFIXES};
use loxi_backend_ebpf::plan::{
    Bits, Digest, GroupDef, Plan, PortBits, Row, RowKey, Rows, Unit, compile, groups_of, rules_of,
};
use loxi_core::capability::Capabilities;
use loxi_core::ir::*;
use loxi_core::net::{IpPrefix, IpProtocol, PortName};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Allowed,
    Denied,
    Isolated,
    Default,
}

/// What decides, and which rule it is where one does.
type Judged = (Verdict, Option<PolicyRuleKey>);

#[derive(Debug, Clone, Copy)]
struct Connection {
    peer: IpAddr,
    protocol: IpProtocol,
    port: u16,
}

/// The tiers, as the reference looks at them: rule by rule.
fn linear(pipeline: &Pipeline, direction: PolicyDirection, subject: &Port, c: &Connection) -> Judged {
    for tier in [PolicyTier::Admin, PolicyTier::NetworkPolicy, PolicyTier::Baseline] {
        let first = pipeline.policy_rules().find(|rule| {
            rule.direction == direction
                && rule.tier == tier
                && rule.subject.contains(subject)
                && peer_matches(pipeline, &rule.peer, c.peer)
                && ports_match(pipeline, rule, c)
        });
        match first.map(|rule| (rule.action, rule.key())) {
            Some((PolicyAction::Allow, key)) => return (Verdict::Allowed, Some(key)),
            Some((PolicyAction::Deny, key)) => return (Verdict::Denied, Some(key)),
            _ => {}
        }
        let isolates = |i: &PolicyIsolation| i.direction == direction && i.subject.contains(subject);
        if tier == PolicyTier::NetworkPolicy && pipeline.policy_isolations().any(isolates) {
            return (Verdict::Isolated, None);
        }
    }
    (Verdict::Default, None)
}

fn peer_matches(pipeline: &Pipeline, definition: &PolicyPeer, peer: IpAddr) -> bool {
    match definition {
        PolicyPeer::Any => true,
        PolicyPeer::Set(name) => pipeline.get::<AddrSet>(name).unwrap().contains(peer),
        PolicyPeer::Prefixes { prefixes, except } => {
            prefixes.iter().any(|prefix| prefix.contains(peer))
                && !except.iter().any(|prefix| prefix.contains(peer))
        }
    }
}

fn ports_match(pipeline: &Pipeline, rule: &PolicyRule, c: &Connection) -> bool {
    rule.protocol.is_none_or(|protocol| protocol == c.protocol)
        && match &rule.ports {
            PolicyPorts::Any => true,
            PolicyPorts::Ranges(ranges) => ranges.iter().any(|range| range.contains(c.port)),
            PolicyPorts::Set(name) => {
                pipeline.get::<PortSet>(name).unwrap().members.iter().any(|range| range.contains(c.port))
            }
        }
}

/// The tables of the policy unit, as the programs look into them.
struct Tables<'a>(&'a Rows);

impl Tables<'_> {
    /// The longest prefix that has the address.
    fn class(&self, peer: IpAddr) -> Option<Digest> {
        (0..=128).rev().find_map(|len| match self.0.get(&RowKey::Peer(IpPrefix::containing(peer, len))) {
            Some(Row::Class(class)) => Some(*class),
            _ => None,
        })
    }

    fn bits(&self, key: &RowKey) -> Option<Bits> {
        match self.0.get(key) {
            Some(Row::Bits(bits)) => Some(*bits),
            _ => None,
        }
    }

    /// The longest prefix of group, protocol and port.
    fn by_port(&self, group: Digest, protocol: IpProtocol, port: u16) -> Option<Bits> {
        let of = |bits: u8| {
            let mask = if bits == 0 { 0 } else { u16::MAX << (16 - bits) };
            RowKey::PortRules(group, Some(protocol.0), PortBits { bits, port: port & mask })
        };
        (0..=16)
            .rev()
            .find_map(|bits| self.bits(&of(bits)))
            .or_else(|| self.bits(&RowKey::PortRules(group, None, PortBits { bits: 0, port: 0 })))
    }

    fn group(&self, direction: PolicyDirection, port: &PortName) -> Option<Digest> {
        match self.0.get(&RowKey::PortPolicy(port.clone())) {
            Some(Row::PortPolicy(row)) => match direction {
                PolicyDirection::Egress => row.egress,
                PolicyDirection::Ingress => row.ingress,
            },
            _ => None,
        }
    }

    /// What the programs' stage does, word for word.
    fn judge(&self, group: Digest, c: &Connection, named: &GroupDef) -> Judged {
        let Some(Row::Rules(rules)) = self.0.get(&RowKey::Rules(group)) else { panic!("no group {group}") };
        let isolated = |otherwise| if rules.isolated { (Verdict::Isolated, None) } else { otherwise };
        let nothing = (Verdict::Default, None);
        let class = self.class(c.peer);
        let (Some(by_peer), Some(by_port)) =
            (self.bits(&RowKey::PeerRules(group, class)), self.by_port(group, c.protocol, c.port))
        else {
            return isolated(nothing);
        };
        let mut passed = 0;
        for (n, (by_peer, by_port)) in by_peer.into_iter().zip(by_port).enumerate() {
            let at = n as u32;
            let tier = u32::from(at >= rules.admin) + u32::from(at >= rules.network_policy);
            if tier == 2 && rules.isolated {
                return (Verdict::Isolated, None);
            }
            let both = by_peer & by_port;
            if both == 0 || passed == tier + 1 {
                continue;
            }
            let lowest = both & both.wrapping_neg();
            let key = || Some(named.rule(at, lowest).unwrap().clone());
            if rules.allow[n] & lowest != 0 {
                return (Verdict::Allowed, key());
            }
            if rules.deny[n] & lowest != 0 {
                return (Verdict::Denied, key());
            }
            passed = tier + 1;
        }
        if rules.isolated && rules.network_policy >= 8 {
            return (Verdict::Isolated, None);
        }
        nothing
    }
}

fn compiled(pipeline: &Pipeline) -> Plan {
    compile(pipeline, &Capabilities::full("test", 1 << 20)).unwrap()
}

/// Pods, sets, and rules of which most are about the same ports, so that there are many of each.
fn policies(seeds: &[u64], isolated: bool) -> Pipeline {
    let base: Vec<u64> = seeds.iter().copied().filter(|seed| matches!(seed % 20, 3 | 16 | 17)).collect();
    let mut pipeline = generate::pipeline(&base);
    for key in pipeline.keys().filter(|key| key.kind() == EntityKind::PolicyIsolation).collect::<Vec<_>>() {
        if !isolated {
            pipeline.remove(&key);
        }
    }
    let ports: Vec<PortName> = pipeline.ports().map(|port| port.name.clone()).collect();
    for seed in seeds {
        let mut dice = Dice(*seed);
        let mut rule = generate::policy_rule(&mut dice);
        if dice.one_in(2) {
            rule.subject = PolicySubject::Ports([dice.of(&ports)].into());
        }
        // Few ports, many rules: tiers of more than one word.
        if dice.one_in(2) {
            rule.subject = PolicySubject::Ports(ports.first().cloned().into_iter().collect());
            rule.direction = PolicyDirection::Ingress;
        }
        pipeline.put(generate::owner(), rule.into());
    }
    generate::prune(pipeline)
}

fn connection(dice: &mut Dice) -> Connection {
    let prefix: IpPrefix = dice.of(&PREFIXES).parse().unwrap();
    let peer = match prefix.addr() {
        // At the prefix's edge, next to it, or somewhere.
        IpAddr::V4(v4) => {
            let any = dice.roll(1 << 32) as u32;
            let near = dice.of(&[0, 1, 255, 256, u32::MAX]);
            IpAddr::V4(Ipv4Addr::from_bits(dice.of(&[v4.to_bits().wrapping_add(near), any])))
        }
        IpAddr::V6(v6) => {
            let near = dice.of(&[0, 1, 5, 1 << 64, u128::MAX]);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits().wrapping_add(near)))
        }
    };
    let protocol = dice.of(&[IpProtocol::TCP, IpProtocol::UDP, IpProtocol::ICMP, IpProtocol::SCTP]);
    let ports = [0, 1, 79, 80, 81, 443, 999, 1000, 1023, 1024, 2000, 2001, 8080, 8083, 8084, 65534, 65535];
    let port = dice.of(&ports);
    Connection { peer, protocol, port }
}

#[derive(Debug, Default)]
struct Seen {
    judged: u32,
    verdicts: BTreeMap<Verdict, u32>,
    words: BTreeMap<u32, u32>,
    exceptions: u32,
}

fn judge_all(pipeline: &Pipeline, dice: &mut Dice, seen: &mut Seen) -> Result<(), TestCaseError> {
    let plan = compiled(pipeline);
    let rows = plan.units.get(&Unit::Policy).cloned().unwrap_or_default();
    let tables = Tables(&rows);
    for port in pipeline.ports() {
        for direction in [PolicyDirection::Egress, PolicyDirection::Ingress] {
            let named = rules_of(pipeline, direction, &port.name);
            let group = tables.group(direction, &port.name);
            prop_assert_eq!(named.as_ref().map(|named| named.digest), group);
            if let Some(last) = named.as_ref().and_then(|named| named.rules.keys().last()) {
                *seen.words.entry(last / 64).or_default() += 1;
            }
            let connections = if group.is_some() { 20 } else { 1 };
            for _ in 0..connections {
                let c = connection(dice);
                let expected = linear(pipeline, direction, port, &c);
                let judged = match (group, &named) {
                    (Some(group), Some(named)) => tables.judge(group, &c, named),
                    _ => (Verdict::Default, None),
                };
                prop_assert_eq!(&judged, &expected, "{} of {}: {:?}\n{}", direction, port.name, c, plan);
                seen.judged += 1;
                *seen.verdicts.entry(judged.0).or_default() += 1;
                seen.exceptions += u32::from(is_excepted(pipeline, c.peer));
            }
        }
    }
    Ok(())
}

fn is_excepted(pipeline: &Pipeline, peer: IpAddr) -> bool {
    pipeline.policy_rules().any(|rule| match &rule.peer {
        PolicyPeer::Prefixes { prefixes, except } => {
            prefixes.iter().any(|prefix| prefix.contains(peer))
                && except.iter().any(|prefix| prefix.contains(peer))
        }
        _ => false,
    })
}

#[test]
fn bitmaps_say_what_the_rules_say() {
    let seen = RefCell::new(Seen::default());
    let strategy = (vec(any::<u64>(), 0..60), vec(any::<u64>(), 0..600), any::<bool>(), any::<u64>());
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&strategy, |(few, many, is_few, dice)| {
            let seeds = if is_few { few } else { many };
            let pipeline = policies(&seeds, dice % 3 == 0);
            judge_all(&pipeline, &mut Dice(dice), &mut seen.borrow_mut())
        })
        .unwrap();
    let seen = seen.into_inner();
    println!("{seen:?}");
    assert!(seen.judged >= 20_000, "{seen:?}");
    assert!(seen.verdicts.len() == 4 && seen.verdicts.values().all(|count| *count >= 1000), "{seen:?}");
    let beyond: u32 = seen.words.range(3..).map(|(_, count)| count).sum();
    assert!(beyond >= 20, "groups of more than a word per tier: {seen:?}");
    assert!(seen.exceptions >= 1000, "{seen:?}");
}

/// Rules of one port that mean one TCP port each, of a tier.
fn tier(pipeline: &mut Pipeline, tier: PolicyTier, action: PolicyAction, ports: std::ops::Range<u16>) {
    for port in ports {
        let rule = PolicyRule {
            direction: PolicyDirection::Egress,
            tier,
            priority: port.into(),
            subject: PolicySubject::AllPods,
            peer: PolicyPeer::Any,
            protocol: Some(IpProtocol::TCP),
            ports: PolicyPorts::Ranges([loxi_core::net::L4Ports::one(port)].into()),
            action,
            origin: Origin::default(),
        };
        pipeline.put(generate::owner(), rule.into());
    }
}

fn from_yaml(yaml: &str) -> Pipeline {
    let entities = loxi_core::text::from_yaml(yaml).unwrap();
    let pipeline = Pipeline::from_entities(&generate::owner(), entities);
    loxi_core::validate::validate(&pipeline).unwrap();
    pipeline
}

const ISOLATED_POD: &str = "version: 1
ports: [{name: pod, kind: pod, mac: '02:00:00:00:00:01'}]
policy_isolations: [{policy: all, direction: egress, subject: all_pods}]
";

fn judged(pipeline: &Pipeline, port: u16) -> Verdict {
    let plan = compiled(pipeline);
    let tables = Tables(&plan.units[&Unit::Policy]);
    let pod = pipeline.ports().next().unwrap();
    let c = Connection { peer: "10.0.0.1".parse().unwrap(), protocol: IpProtocol::TCP, port };
    let named = rules_of(pipeline, PolicyDirection::Egress, &pod.name).unwrap();
    let judged = tables.judge(named.digest, &c, &named);
    assert_eq!(judged, linear(pipeline, PolicyDirection::Egress, pod, &c));
    judged.0
}

#[test]
fn isolation_holds_where_tiers_fill_all_words_and_where_they_are_empty() {
    let mut pipeline = from_yaml(ISOLATED_POD);
    assert_eq!(judged(&pipeline, 1), Verdict::Isolated);
    tier(&mut pipeline, PolicyTier::NetworkPolicy, PolicyAction::Allow, 0..512);
    assert_eq!(judged(&pipeline, 511), Verdict::Allowed);
    // One rule means the peer and another the port, but none both.
    assert_eq!(judged(&pipeline, 600), Verdict::Isolated);

    let mut pipeline = from_yaml(ISOLATED_POD);
    tier(&mut pipeline, PolicyTier::Admin, PolicyAction::Pass, 0..448);
    tier(&mut pipeline, PolicyTier::Baseline, PolicyAction::Allow, 0..64);
    assert_eq!(judged(&pipeline, 5), Verdict::Isolated);
    tier(&mut pipeline, PolicyTier::Admin, PolicyAction::Deny, 70..71);
    assert_eq!(judged(&pipeline, 70), Verdict::Denied);
    let isolation = EntityKey::PolicyIsolation(pipeline.policy_isolations().next().unwrap().key());
    pipeline.remove(&isolation);
    assert_eq!(judged(&pipeline, 5), Verdict::Allowed);
    assert_eq!(judged(&pipeline, 447), Verdict::Default);
}

#[test]
fn a_pass_leaves_its_tier_over_all_of_its_words() {
    let mut pipeline = from_yaml(ISOLATED_POD);
    let isolation = EntityKey::PolicyIsolation(pipeline.policy_isolations().next().unwrap().key());
    pipeline.remove(&isolation);
    tier(&mut pipeline, PolicyTier::Admin, PolicyAction::Deny, 0..100);
    // The first rule means every port; that of port 99 is in the second word.
    let mut rule = pipeline.policy_rules().next().unwrap().clone();
    (rule.ports, rule.action) = (PolicyPorts::Any, PolicyAction::Pass);
    pipeline.put(generate::owner(), rule.into());
    assert_eq!(judged(&pipeline, 99), Verdict::Default);
    tier(&mut pipeline, PolicyTier::Baseline, PolicyAction::Deny, 99..100);
    assert_eq!(judged(&pipeline, 99), Verdict::Denied);
}

const SETS: &str = "version: 1
ports:
  - {name: a, kind: pod, mac: '02:00:00:00:00:01'}
  - {name: b, kind: pod, mac: '02:00:00:00:00:02'}
  - {name: c, kind: host, mac: '02:00:00:00:00:03'}
addr_sets: [{name: inside, members: [10.0.0.0/8]}]
port_sets: [{name: web, members: [80, 443]}]
policy_rules:
  - {direction: egress, tier: admin, priority: 1, subject: {ports: [a]}, peer: {set: inside}, protocol: tcp, ports: {set: web}, action: deny}
  - {direction: egress, tier: admin, priority: 2, subject: {ports: [b]}, peer: {set: inside}, protocol: tcp, ports: {ranges: [80, 443]}, action: deny}
";

fn group(pipeline: &Pipeline, port: &str) -> Option<GroupDef> {
    rules_of(pipeline, PolicyDirection::Egress, &port.parse().unwrap())
}

fn put(pipeline: &mut Pipeline, yaml: &str) {
    for entity in loxi_core::text::from_yaml(&format!("version: 1\n{yaml}\n")).unwrap() {
        pipeline.put(generate::owner(), entity);
    }
}

#[test]
fn a_group_is_named_by_what_decides() {
    let pipeline = from_yaml(SETS);
    let (a, b) = (group(&pipeline, "a").unwrap(), group(&pipeline, "b").unwrap());
    assert_eq!(a.digest, b.digest, "priorities and the names of port sets decide nothing");
    assert_ne!(a.rules, b.rules, "but each port's bits are its own rules");
    assert_eq!(group(&pipeline, "c"), None);
    // One group, named by the first port's rules.
    assert_eq!(groups_of(&pipeline).unwrap(), BTreeMap::from([(a.digest, a.clone())]));
    let policy = &compiled(&pipeline).units[&Unit::Policy];
    let ports: Vec<&RowKey> = policy.keys().filter(|key| matches!(key, RowKey::PortPolicy(_))).collect();
    assert_eq!(ports.len(), 2, "a port that is subject to nothing has no row");

    for (changes, yaml) in [
        (false, "addr_sets: [{name: inside, members: [10.0.0.0/9]}]"),
        (true, "port_sets: [{name: web, members: [80]}]"),
        (true, "port_sets: [{name: web, members: [80, 443-444]}]"),
        (true, "port_sets: [{name: web, members: [80, 442-443]}]"),
        (true, "policy_isolations: [{policy: p, direction: egress, subject: {ports: [a]}}]"),
        (false, "policy_isolations: [{policy: p, direction: ingress, subject: {ports: [a]}}]"),
    ] {
        let mut pipeline = from_yaml(SETS);
        put(&mut pipeline, yaml);
        assert_eq!(group(&pipeline, "a").unwrap().digest != a.digest, changes, "{yaml}");
    }
}

/// The lines of a dump that begin so, the digests of classes replaced by letters in their order.
fn lines(plan: &Plan, start: &str) -> Vec<String> {
    let mut known: Vec<String> = Vec::new();
    let dump = plan.to_string();
    let lines = dump.lines().filter(|line| line.starts_with(start)).map(|line| {
        let Some((key, class)) = line.split_once(": class ") else { return line.to_owned() };
        let number = known.iter().position(|other| other == class).unwrap_or(known.len());
        if number == known.len() {
            known.push(class.to_owned());
        }
        format!("{key}: {}", ["A", "B", "C", "D"][number])
    });
    lines.collect()
}

#[test]
fn peers_have_a_row_where_what_is_true_of_them_differs() {
    let pipeline = from_yaml(
        "version: 1
ports: [{name: a, kind: pod, mac: '02:00:00:00:00:01'}]
addr_sets: [{name: s, members: [10.0.0.0/8, 10.1.0.0/16, 'fd00::/8', 192.168.0.0/16]}, {name: unused, members: [1.0.0.0/8]}]
policy_rules:
  - {direction: egress, tier: admin, priority: 1, subject: all_pods, peer: {set: s}, action: deny}
  - {direction: egress, tier: admin, priority: 2, subject: all_pods, action: deny,
     peer: {prefixes: {prefixes: [10.1.2.0/24, 172.16.0.0/12], except: [10.1.2.3, 172.16.0.0/16, 172.16.1.0/24, 8.8.8.8]}}}
  - {direction: egress, tier: admin, priority: 3, subject: {ports: []}, peer: {prefixes: {prefixes: [2.0.0.0/8]}}, action: deny}
",
    );
    let expected = [
        "peer 10.0.0.0/8: A",
        // 10.1.0.0/16 says nothing more; 8.8.8.8 nothing at all.
        "peer 10.1.2.0/24: B",
        "peer 10.1.2.3/32: A",
        "peer 172.16.0.0/12: C",
        // Nobody's, though what is shorter is somebody's; what is longer is nobody's as well.
        "peer 172.16.0.0/16: D",
        "peer 192.168.0.0/16: A",
        "peer fd00::/8: A",
    ];
    assert_eq!(lines(&compiled(&pipeline), "peer "), expected);
}

#[test]
fn a_rule_for_anybody_means_every_class_and_none() {
    let mut pipeline = from_yaml(SETS);
    let count = |pipeline: &Pipeline| {
        let plan = compiled(pipeline);
        (lines(&plan, "peer_rules ").len(), lines(&plan, "port_rules ").len())
    };
    // One group, one class; two ports.
    assert_eq!(count(&pipeline), (1, 2));
    put(
        &mut pipeline,
        "policy_rules: [{direction: egress, tier: admin, priority: 9, subject: all_pods, peer: any, action: deny}]",
    );
    // The class and nobody's; the protocol's ports, the protocol itself and every other.
    assert_eq!(count(&pipeline), (2, 4));
}
