mod alone;
mod laws;
mod packets;
mod unknown;
mod work;

use super::*;
use crate::cluster::Event;
use crate::cluster::model::{
    ContainerPort, Expression, IpBlock, Labels, Namespace, Operator, PeerPorts, PolicyPeer, PolicyPort,
    PolicyRule, PortRef, Protocol, Reference, Selector,
};
use crate::intent::fixture::{attachment, entities, settings, valid};
use crate::intent::{Intent, PodIdentity};
use loxi_core::ir::{self, PolicySubject};

fn labels(text: &str) -> Labels {
    let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    text.split(',').filter_map(pair).collect()
}

/// `a=b,c=d`; everything where it is empty.
fn selector(text: &str) -> Selector {
    Selector { labels: labels(text), expressions: Vec::new() }
}

fn name(text: &str) -> Name {
    let (namespace, name) = text.split_once('/').unwrap();
    Name::new(namespace, name)
}

fn namespace(name: &str, of: &str) -> Namespace {
    Namespace { name: Name::of_cluster(name), labels: labels(of) }
}

fn pod(text: &str, of: &str, ips: &[&str]) -> Pod {
    Pod {
        name: name(text),
        labels: labels(of),
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..Pod::default()
    }
}

fn with_port(pod: Pod, name: &str, number: u16) -> Pod {
    let mut ports = pod.ports.clone();
    ports.push(ContainerPort { name: name.into(), protocol: Protocol::Tcp, number });
    Pod { ports, ..pod }
}

/// The interface `hsN`, of a pod.
fn interface(number: u8, of: &str) -> Attachment {
    Attachment { pod: Some(PodIdentity { name: name(of), uid: None }), ..attachment(number) }
}

/// `default/guard`, about pods `app=web`.
fn guard(ingress: Option<Vec<PolicyRule>>, egress: Option<Vec<PolicyRule>>) -> NetworkPolicy {
    NetworkPolicy { name: name("default/guard"), pods: selector("app=web"), ingress, egress }
}

fn rule(peers: Vec<PolicyPeer>, ports: Vec<PolicyPort>) -> PolicyRule {
    let ports = if ports.is_empty() { PeerPorts::All } else { PeerPorts::These(ports) };
    PolicyRule { peers, ports }
}

fn pods(of: &str) -> PolicyPeer {
    PolicyPeer::Pods { namespaces: None, pods: selector(of) }
}

fn pods_of(namespaces: &str, of: &str) -> PolicyPeer {
    PolicyPeer::Pods { namespaces: Some(selector(namespaces)), pods: selector(of) }
}

fn block(prefix: &str, except: &[&str]) -> PolicyPeer {
    let except = except.iter().map(|prefix| prefix.parse().unwrap()).collect();
    PolicyPeer::Block(IpBlock { prefix: prefix.parse().unwrap(), except })
}

fn range(protocol: Protocol, first: u16, last: u16) -> PolicyPort {
    PolicyPort { protocol, port: Some(PortRef::Range(first, last)) }
}

fn tcp(port: u16) -> PolicyPort {
    range(Protocol::Tcp, port, port)
}

fn all_of(protocol: Protocol) -> PolicyPort {
    PolicyPort { protocol, port: None }
}

fn named(name: &str) -> PolicyPort {
    PolicyPort { protocol: Protocol::Tcp, port: Some(PortRef::Named(name.into())) }
}

/// Two pods here, `default/web` at `hs1` and `default/db` at `hs2`; `default/far` and `other/web` elsewhere.
fn cluster() -> Intent {
    let mut intent = Intent::new(settings());
    for of in [namespace("default", "team=a"), namespace("other", "team=b")] {
        intent.apply(Event::Put(of.into()));
    }
    for pod in [
        pod("default/web", "app=web", &["10.244.1.10", "fd00:10:244:1::a"]),
        pod("default/db", "app=db", &["10.244.1.11"]),
        pod("default/far", "app=far", &["10.244.2.10"]),
        pod("other/web", "app=web", &["10.244.2.11"]),
    ] {
        intent.apply(Event::Put(pod.into()));
    }
    intent.attach(interface(1, "default/web"));
    intent.attach(interface(2, "default/db"));
    intent
}

fn told(policy: NetworkPolicy) -> Intent {
    let mut intent = cluster();
    intent.apply(Event::Put(policy.into()));
    valid(&mut intent);
    intent
}

fn put(intent: &mut Intent, object: impl Into<Object>) {
    intent.apply(Event::Put(object.into()));
}

fn gone(intent: &mut Intent, object: impl Into<Object>) {
    intent.apply(Event::Gone(object.into().reference()));
}

fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

fn subject(subject: &PolicySubject) -> String {
    match subject {
        PolicySubject::AllPods => "all".into(),
        PolicySubject::Ports(ports) => joined(ports),
    }
}

/// What policies say, in lines: `isolate SUBJECT DIRECTION`, and `SUBJECT DIRECTION PEER PROTOCOL PORTS`, sets written out.
fn lines(intent: &mut Intent) -> Vec<String> {
    let all = entities(intent);
    let members = |name| {
        let set = all.iter().find_map(|entity| match entity {
            Entity::AddrSet(set) if set.name == name => Some(joined(&set.members)),
            _ => None,
        });
        format!("{{{}}}", set.unwrap())
    };
    let peer = |peer: &ir::PolicyPeer| match peer {
        ir::PolicyPeer::Any => "any".to_owned(),
        ir::PolicyPeer::Set(name) => members(name.clone()),
        ir::PolicyPeer::Prefixes { prefixes, except } if except.is_empty() => joined(prefixes),
        ir::PolicyPeer::Prefixes { prefixes, except } => format!("{}-{}", joined(prefixes), joined(except)),
    };
    let mut lines = Vec::new();
    for entity in &all {
        match entity {
            Entity::PolicyIsolation(isolation) => {
                lines.push(format!("isolate {} {}", subject(&isolation.subject), isolation.direction));
            }
            Entity::PolicyRule(rule) => {
                let protocol = rule.protocol.map_or("any".into(), |protocol| protocol.to_string());
                let ports = match &rule.ports {
                    ir::PolicyPorts::Any => "any".to_owned(),
                    ir::PolicyPorts::Ranges(ranges) => joined(ranges),
                    ir::PolicyPorts::Set(name) => name.to_string(),
                };
                let (direction, of) = (rule.direction, subject(&rule.subject));
                lines.push(format!("{of} {direction} {} {protocol} {ports}", peer(&rule.peer)));
            }
            _ => {}
        }
    }
    lines.sort();
    lines
}

/// The lines of an ingress rule of `guard`, without its isolation.
fn ingress(rule: PolicyRule) -> Vec<String> {
    let mut lines = lines(&mut told(guard(Some(vec![rule]), None)));
    lines.retain(|line| !line.starts_with("isolate"));
    lines
}

fn egress(rule: PolicyRule) -> Vec<String> {
    let mut lines = lines(&mut told(guard(None, Some(vec![rule]))));
    lines.retain(|line| !line.starts_with("isolate"));
    lines
}

#[test]
fn an_empty_list_isolates_and_an_absent_one_does_not() {
    let none = Some(Vec::new);
    for (ingress, egress, expected) in [
        (none, None, &["isolate hs1 ingress"][..]),
        (None, none, &["isolate hs1 egress"]),
        (none, none, &["isolate hs1 egress", "isolate hs1 ingress"]),
        (None, None, &[]),
    ] {
        let policy = guard(ingress.map(|list| list()), egress.map(|list| list()));
        assert_eq!(lines(&mut told(policy)), expected);
    }
}

#[test]
fn an_empty_selector_is_about_every_pod_of_the_namespace() {
    let policy = NetworkPolicy { pods: selector(""), ..guard(Some(Vec::new()), None) };
    assert_eq!(lines(&mut told(policy.clone())), ["isolate hs1,hs2 ingress"]);
    let other = NetworkPolicy { name: name("other/guard"), ..policy };
    let mut intent = told(other);
    assert_eq!(lines(&mut intent), [""; 0]);
    intent.attach(interface(3, "other/web"));
    assert_eq!(lines(&mut intent), ["isolate hs3 ingress"]);
    intent.detach(&interface(3, "other/web").port);
    assert_eq!(lines(&mut intent), [""; 0]);
}

#[test]
fn empty_rules_allow_everybody_everything() {
    assert_eq!(ingress(rule(vec![], vec![])), ["hs1 ingress any any any"]);
    assert_eq!(egress(rule(vec![], vec![])), ["hs1 egress any any any"]);
}

#[test]
fn peers_are_pods_of_namespaces_or_blocks() {
    for (peer, expected) in [
        (pods("app=far"), "{10.244.2.10/32}"),
        (pods("app=web"), "{10.244.1.10/32,fd00:10:244:1::a/128}"),
        (pods(""), "{10.244.1.10/32,10.244.1.11/32,10.244.2.10/32,fd00:10:244:1::a/128}"),
        (pods("app=nobody"), "{}"),
        (pods_of("team=b", ""), "{10.244.2.11/32}"),
        (pods_of("", "app=web"), "{10.244.1.10/32,10.244.2.11/32,fd00:10:244:1::a/128}"),
        (pods_of("team=c", ""), "{}"),
        (block("10.0.0.0/8", &[]), "10.0.0.0/8"),
        (block("10.0.0.0/8", &["10.1.0.0/16", "10.2.0.0/16"]), "10.0.0.0/8-10.1.0.0/16,10.2.0.0/16"),
        (block("2001:db8::/32", &[]), "2001:db8::/32"),
    ] {
        let rule = rule(vec![peer], vec![]);
        assert_eq!(ingress(rule.clone()), [format!("hs1 ingress {expected} any any")]);
        assert_eq!(egress(rule), [format!("hs1 egress {expected} any any")]);
    }
}

#[test]
fn mixed_peers_are_several_rules_and_blocks_keep_their_own_exceptions() {
    let peers = vec![
        pods("app=far"),
        block("10.0.0.0/8", &[]),
        block("192.0.2.0/24", &[]),
        block("10.0.0.0/8", &["10.1.0.0/16"]),
    ];
    assert_eq!(
        ingress(rule(peers, vec![tcp(80)])),
        [
            "hs1 ingress 10.0.0.0/8,192.0.2.0/24 tcp 80",
            "hs1 ingress 10.0.0.0/8-10.1.0.0/16 tcp 80",
            "hs1 ingress {10.244.2.10/32} tcp 80",
        ]
    );
}

#[test]
fn ports_are_numbers_ranges_and_protocols() {
    use Protocol::{Sctp, Tcp, Udp};
    for (ports, expected) in [
        (vec![tcp(80)], &["tcp 80"][..]),
        (vec![tcp(80), range(Tcp, 8000, 8100)], &["tcp 80,8000-8100"]),
        (vec![tcp(80), range(Udp, 53, 53), range(Sctp, 1, 2)], &["sctp 1-2", "tcp 80", "udp 53"]),
        (vec![all_of(Udp)], &["udp any"]),
        // All of a protocol says more than some of it.
        (vec![tcp(80), all_of(Tcp), named("http")], &["tcp any"]),
    ] {
        let expected: Vec<String> = expected.iter().map(|ports| format!("hs1 egress any {ports}")).collect();
        assert_eq!(egress(rule(vec![], ports)), expected);
    }
}

#[test]
fn selectors_have_expressions() {
    let expression = |operator| Selector {
        labels: Labels::new(),
        expressions: vec![Expression { key: "app".into(), operator }],
    };
    for (operator, expected) in [
        (Operator::In(["far".to_owned()].into()), "{10.244.2.10/32}"),
        (Operator::NotIn(["web".to_owned(), "db".to_owned()].into()), "{10.244.2.10/32}"),
        (Operator::DoesNotExist, "{}"),
    ] {
        let peer = PolicyPeer::Pods { namespaces: None, pods: expression(operator) };
        assert_eq!(ingress(rule(vec![peer], vec![])), [format!("hs1 ingress {expected} any any")]);
    }
}

#[test]
fn a_named_port_of_ingress_is_what_each_subject_calls_so() {
    let policy = |peers| NetworkPolicy {
        pods: selector(""),
        ..guard(Some(vec![rule(peers, vec![named("http"), tcp(22)])]), None)
    };
    let mut intent = told(policy(vec![pods("app=far")]));
    put(&mut intent, with_port(pod("default/web", "app=web", &["10.244.1.10"]), "http", 8080));
    let isolation = "isolate hs1,hs2 ingress";
    let ssh = "hs1,hs2 ingress {10.244.2.10/32} tcp 22";
    assert_eq!(lines(&mut intent), ["hs1 ingress {10.244.2.10/32} tcp 8080", ssh, isolation]);
    put(&mut intent, with_port(pod("default/db", "app=db", &["10.244.1.11"]), "http", 80));
    let each =
        ["hs1 ingress {10.244.2.10/32} tcp 8080", ssh, "hs2 ingress {10.244.2.10/32} tcp 80", isolation];
    assert_eq!(lines(&mut intent), each);
    put(&mut intent, with_port(pod("default/db", "app=db", &["10.244.1.11"]), "http", 8080));
    assert_eq!(lines(&mut intent), [ssh, "hs1,hs2 ingress {10.244.2.10/32} tcp 8080", isolation]);
    put(&mut intent, policy(vec![block("192.0.2.0/24", &[])]));
    assert!(lines(&mut intent).contains(&"hs1,hs2 ingress 192.0.2.0/24 tcp 8080".to_owned()));
}

#[test]
fn a_named_port_of_egress_is_what_each_peer_calls_so() {
    let to = |peers| guard(None, Some(vec![rule(peers, vec![named("http")])]));
    let mut intent = told(to(vec![pods_of("", "")]));
    let isolation = "isolate hs1 egress";
    assert_eq!(lines(&mut intent), [isolation]);
    put(&mut intent, with_port(pod("default/far", "app=far", &["10.244.2.10"]), "http", 80));
    assert_eq!(lines(&mut intent), ["hs1 egress {10.244.2.10/32} tcp 80", isolation]);
    put(&mut intent, with_port(pod("default/db", "app=db", &["10.244.1.11"]), "http", 80));
    put(&mut intent, with_port(pod("other/web", "app=web", &["10.244.2.11"]), "http", 8080));
    let by_number = [
        "hs1 egress {10.244.1.11/32,10.244.2.10/32} tcp 80",
        "hs1 egress {10.244.2.11/32} tcp 8080",
        isolation,
    ];
    assert_eq!(lines(&mut intent), by_number);
    valid(&mut intent);
    // Anybody has it among all pods; a block has none.
    put(&mut intent, to(vec![]));
    assert_eq!(lines(&mut intent), by_number);
    put(&mut intent, to(vec![pods("app=far")]));
    assert_eq!(lines(&mut intent), ["hs1 egress {10.244.2.10/32} tcp 80", isolation]);
    put(&mut intent, to(vec![block("10.0.0.0/8", &[])]));
    assert_eq!(lines(&mut intent), [isolation]);
    gone(&mut intent, to(vec![]));
    assert_eq!(lines(&mut intent), [""; 0]);
}

#[test]
fn pods_of_the_hosts_network_and_finished_ones_are_nobody() {
    let policy = || guard(Some(vec![rule(vec![pods("")], vec![])]), None);
    for change in [|pod: Pod| Pod { host_network: true, ..pod }, |pod: Pod| Pod { finished: true, ..pod }] {
        let mut intent = told(policy());
        put(&mut intent, change(pod("default/far", "app=far", &["10.244.2.10"])));
        let line = "hs1 ingress {10.244.1.10/32,10.244.1.11/32,fd00:10:244:1::a/128} any any";
        assert_eq!(lines(&mut intent), [line, "isolate hs1 ingress"]);
        put(&mut intent, change(pod("default/web", "app=web", &["10.244.1.10"])));
        assert_eq!(lines(&mut intent), [""; 0]);
    }
}

#[test]
fn a_subject_is_selected_before_it_is_known_to_have_addresses() {
    let mut intent = told(guard(Some(Vec::new()), None));
    put(&mut intent, pod("default/web", "app=web", &[]));
    assert_eq!(lines(&mut intent), ["isolate hs1 ingress"]);
}

#[test]
fn sets_follow_pods_and_namespaces() {
    let policy = guard(Some(vec![rule(vec![pods_of("team=b", "app=web")], vec![])]), None);
    let mut intent = told(policy);
    let members = |intent: &mut Intent| lines(intent)[0].split(' ').nth(2).unwrap().to_owned();
    assert_eq!(members(&mut intent), "{10.244.2.11/32}");
    put(&mut intent, pod("other/web", "app=web", &["10.244.2.12"]));
    assert_eq!(members(&mut intent), "{10.244.2.12/32}");
    put(&mut intent, pod("other/web", "app=db", &["10.244.2.12"]));
    assert_eq!(members(&mut intent), "{}");
    put(&mut intent, pod("other/web", "app=web", &["10.244.2.12"]));
    put(&mut intent, namespace("default", "team=b"));
    assert_eq!(members(&mut intent), "{10.244.1.10/32,10.244.2.12/32,fd00:10:244:1::a/128}");
    put(&mut intent, namespace("other", "team=a"));
    assert_eq!(members(&mut intent), "{10.244.1.10/32,fd00:10:244:1::a/128}");
    put(&mut intent, namespace("other", "team=b"));
    gone(&mut intent, pod("other/web", "", &[]));
    assert_eq!(members(&mut intent), "{10.244.1.10/32,fd00:10:244:1::a/128}");
}

fn sets(intent: &mut Intent) -> usize {
    entities(intent).iter().filter(|entity| matches!(entity, Entity::AddrSet(_))).count()
}

#[test]
fn rules_share_a_set_and_the_last_takes_it_along() {
    let peer = || rule(vec![pods("app=far")], vec![]);
    let mut intent = told(guard(Some(vec![peer(), peer()]), Some(vec![peer()])));
    assert_eq!((sets(&mut intent), lines(&mut intent).len()), (1, 5));
    let second = NetworkPolicy { name: name("default/second"), ..guard(Some(vec![peer()]), None) };
    put(&mut intent, second.clone());
    assert_eq!(sets(&mut intent), 1);
    gone(&mut intent, guard(None, None));
    assert_eq!((sets(&mut intent), lines(&mut intent).len()), (1, 2));
    // A policy that selects nobody here needs no peers either.
    put(&mut intent, pod("default/web", "app=other", &["10.244.1.10"]));
    assert_eq!((sets(&mut intent), lines(&mut intent).len()), (0, 0));
}

#[test]
fn a_policy_whose_rules_are_refused_isolates_still() {
    let mut intent = told(guard(Some(vec![rule(vec![], vec![])]), None));
    intent.ledger().set_aside(&Contributor::Policy(name("default/guard")));
    assert_eq!(lines(&mut intent), ["isolate hs1 ingress"]);
}

#[test]
fn origins_name_the_policy_and_the_rule() {
    let long = Name::new("default", "p".repeat(253));
    let policy = NetworkPolicy { name: long, ..guard(Some(vec![rule(vec![pods("app=far")], vec![])]), None) };
    let mut intent = told(policy);
    let origins: Vec<_> = entities(&mut intent)
        .into_iter()
        .filter(|entity| {
            matches!(entity, Entity::AddrSet(_) | Entity::PolicyRule(_) | Entity::PolicyIsolation(_))
        })
        .map(|entity| entity.origin().0.replace(&"p".repeat(253), "P"))
        .collect();
    let expected = [
        "pods app=far of namespace default",
        "NetworkPolicy default/P ingress[0]",
        "NetworkPolicy default/P",
    ];
    assert_eq!(origins, expected);
    for key in entities(&mut intent).iter().map(Entity::key) {
        let text = match key {
            ir::EntityKey::AddrSet(name) => name.to_string(),
            ir::EntityKey::PolicyIsolation(key) => key.policy.to_string(),
            _ => continue,
        };
        assert!(text.len() <= 63, "{text}");
    }
}
