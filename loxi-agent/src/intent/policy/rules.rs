//! What a policy means for the interfaces that it selects here: isolations, and rules that allow.

use std::collections::{BTreeMap, BTreeSet};

use loxi_core::ir::{
    Origin, PolicyAction, PolicyDirection, PolicyIsolation, PolicyPeer, PolicyPorts, PolicyRule,
    PolicySubject, PolicyTier,
};
use loxi_core::net::{IpPrefix, IpProtocol, L4Ports, PolicyName, PortName};

use super::peers::PeerKey;
use crate::cluster::model::{self, NetworkPolicy, PeerPorts, Pod, PortRef, Protocol};
use crate::intent::names;

/// A rule that has no priority yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) direction: PolicyDirection,
    subject: PolicySubject,
    peer: PolicyPeer,
    protocol: Option<IpProtocol>,
    ports: PolicyPorts,
    origin: Origin,
}

impl Draft {
    pub(super) fn rule(&self, priority: u32) -> PolicyRule {
        let Self { direction, subject, peer, protocol, ports, origin } = self.clone();
        let (tier, action) = (PolicyTier::NetworkPolicy, PolicyAction::Allow);
        PolicyRule { direction, tier, priority, subject, peer, protocol, ports, action, origin }
    }
}

/// The other side, as a rule says it.
enum Peer {
    Any,
    Pods(PeerKey),
    Prefixes { prefixes: BTreeSet<IpPrefix>, except: BTreeSet<IpPrefix> },
}

/// Destination ports, as a rule says them.
enum Ports<'a> {
    Numbers(Option<IpProtocol>, PolicyPorts),
    Named(Protocol, &'a str),
}

fn peers(namespace: &str, rule: &model::PolicyRule) -> Vec<Peer> {
    if rule.peers.is_empty() {
        return vec![Peer::Any];
    }
    let mut peers = Vec::new();
    let mut plain = BTreeSet::new();
    for peer in &rule.peers {
        match peer {
            model::PolicyPeer::Pods { namespaces, pods } => peers.push(Peer::Pods(PeerKey {
                namespace: namespace.to_owned(),
                namespaces: namespaces.clone(),
                pods: pods.clone(),
                port: None,
            })),
            // One block's exceptions are not another's.
            model::PolicyPeer::Block(block) if block.except.is_empty() => {
                plain.insert(block.prefix);
            }
            model::PolicyPeer::Block(block) => peers.push(Peer::Prefixes {
                prefixes: BTreeSet::from([block.prefix]),
                except: block.except.clone(),
            }),
        }
    }
    if !plain.is_empty() {
        peers.push(Peer::Prefixes { prefixes: plain, except: BTreeSet::new() });
    }
    peers
}

fn ports(rule: &model::PolicyRule) -> Vec<Ports<'_>> {
    let PeerPorts::These(these) = &rule.ports else {
        return vec![Ports::Numbers(None, PolicyPorts::Any)];
    };
    let mut all = BTreeSet::new();
    let mut ranges: BTreeMap<Protocol, BTreeSet<L4Ports>> = BTreeMap::new();
    let mut named = BTreeSet::new();
    for port in these {
        match &port.port {
            None => {
                all.insert(port.protocol);
            }
            Some(PortRef::Range(first, last)) => {
                ranges.entry(port.protocol).or_default().extend(L4Ports::new(*first, *last));
            }
            Some(PortRef::Named(name)) => {
                named.insert((port.protocol, &**name));
            }
        }
    }
    ranges.retain(|protocol, ranges| !all.contains(protocol) && !ranges.is_empty());
    named.retain(|(protocol, _)| !all.contains(protocol));
    let all = all.into_iter().map(|protocol| Ports::Numbers(Some(protocol.into()), PolicyPorts::Any));
    let ranges = ranges
        .into_iter()
        .map(|(protocol, ranges)| Ports::Numbers(Some(protocol.into()), PolicyPorts::Ranges(ranges)));
    let named = named.into_iter().map(|(protocol, name)| Ports::Named(protocol, name));
    all.chain(ranges).chain(named).collect()
}

/// The pods among whom an egress rule looks for a named port. In a block of addresses there are none: which of its
/// addresses is a pod's is nothing that a block says.
fn named_at(namespace: &str, peer: &Peer, protocol: Protocol, name: &str) -> Option<PeerKey> {
    match peer {
        Peer::Any => Some(PeerKey::everybody(namespace).with_port(protocol, name)),
        Peer::Pods(key) => Some(key.with_port(protocol, name)),
        Peer::Prefixes { .. } => None,
    }
}

fn directions(
    policy: &NetworkPolicy,
) -> impl Iterator<Item = (PolicyDirection, &'static str, &[model::PolicyRule])> {
    let ingress = policy.ingress.as_deref().map(|rules| (PolicyDirection::Ingress, "ingress", rules));
    let egress = policy.egress.as_deref().map(|rules| (PolicyDirection::Egress, "egress", rules));
    ingress.into_iter().chain(egress)
}

/// The sets that a policy's rules need.
pub(super) fn keys(policy: &NetworkPolicy) -> BTreeSet<PeerKey> {
    let namespace = &policy.name.namespace;
    let mut keys = BTreeSet::new();
    for (direction, _, rules) in directions(policy) {
        for rule in rules {
            for peer in peers(namespace, rule) {
                for ports in ports(rule) {
                    match (ports, &peer) {
                        (Ports::Named(protocol, name), _) if direction == PolicyDirection::Egress => {
                            keys.extend(named_at(namespace, &peer, protocol, name));
                        }
                        (_, Peer::Pods(key)) => {
                            keys.insert(key.clone());
                        }
                        (_, Peer::Any | Peer::Prefixes { .. }) => {}
                    }
                }
            }
        }
    }
    keys
}

/// The interfaces that a policy selects, with their pods.
pub(super) type Subjects<'a> = BTreeMap<PortName, &'a Pod>;

/// A policy's rules. `numbers` says what numbers the peers give a named port.
pub(super) fn drafts(
    policy: &NetworkPolicy,
    subjects: &Subjects<'_>,
    numbers: &dyn Fn(&PeerKey) -> Vec<u16>,
) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (direction, text, rules) in directions(policy) {
        for (index, rule) in rules.iter().enumerate() {
            let lower = Lower {
                namespace: &policy.name.namespace,
                direction,
                origin: Origin(format!("NetworkPolicy {} {text}[{index}]", policy.name)),
                subjects,
                numbers,
            };
            for peer in peers(&policy.name.namespace, rule) {
                for ports in ports(rule) {
                    lower.one(&peer, ports, &mut drafts);
                }
            }
        }
    }
    drafts
}

/// A rule on its way to drafts.
struct Lower<'a> {
    namespace: &'a str,
    direction: PolicyDirection,
    origin: Origin,
    subjects: &'a Subjects<'a>,
    numbers: &'a dyn Fn(&PeerKey) -> Vec<u16>,
}

impl Lower<'_> {
    fn one(&self, peer: &Peer, ports: Ports<'_>, drafts: &mut Vec<Draft>) {
        let everyone = || self.subjects.keys().cloned().collect::<BTreeSet<_>>();
        match ports {
            Ports::Numbers(protocol, ports) => {
                drafts.extend(self.draft(everyone(), self.peer(peer), protocol, ports));
            }
            // The destination is the subject, and each may have another number.
            Ports::Named(protocol, name) if self.direction == PolicyDirection::Ingress => {
                let mut groups: BTreeMap<u16, BTreeSet<PortName>> = BTreeMap::new();
                for (port, pod) in self.subjects {
                    if let Some(number) = pod.port(name, protocol) {
                        groups.entry(number).or_default().insert(port.clone());
                    }
                }
                for (number, group) in groups {
                    drafts.extend(self.draft(group, self.peer(peer), Some(protocol.into()), at(number)));
                }
            }
            // The destination is the peer.
            Ports::Named(protocol, name) => {
                if let Some(key) = named_at(self.namespace, peer, protocol, name) {
                    for number in (self.numbers)(&key) {
                        let set = key.set(Some(number)).map(PolicyPeer::Set);
                        drafts.extend(self.draft(everyone(), set, Some(protocol.into()), at(number)));
                    }
                }
            }
        }
    }

    fn peer(&self, peer: &Peer) -> Option<PolicyPeer> {
        match peer {
            Peer::Any => Some(PolicyPeer::Any),
            Peer::Pods(key) => key.set(None).map(PolicyPeer::Set),
            Peer::Prefixes { prefixes, except } => {
                Some(PolicyPeer::Prefixes { prefixes: prefixes.clone(), except: except.clone() })
            }
        }
    }

    fn draft(
        &self,
        subject: BTreeSet<PortName>,
        peer: Option<PolicyPeer>,
        protocol: Option<IpProtocol>,
        ports: PolicyPorts,
    ) -> Option<Draft> {
        let (direction, subject) = (self.direction, PolicySubject::Ports(subject));
        Some(Draft { direction, subject, peer: peer?, protocol, ports, origin: self.origin.clone() })
    }
}

fn at(number: u16) -> PolicyPorts {
    PolicyPorts::Ranges(BTreeSet::from([L4Ports::one(number)]))
}

/// What a policy isolates.
pub(super) fn isolations(policy: &NetworkPolicy, subjects: &Subjects<'_>) -> Vec<PolicyIsolation> {
    let Ok(name) = PolicyName::new(names::fit("", &policy.name.to_string())) else { return Vec::new() };
    let isolation = |(direction, _, _)| PolicyIsolation {
        policy: name.clone(),
        direction,
        subject: PolicySubject::Ports(subjects.keys().cloned().collect()),
        origin: Origin(format!("NetworkPolicy {}", policy.name)),
    };
    directions(policy).map(isolation).collect()
}

/// The isolation of an interface whose pod isn't known. No policy is named so: a namespace has no `@`.
pub(super) fn unknown(port: &PortName, pod: &model::Name) -> Vec<PolicyIsolation> {
    let Ok(name) = PolicyName::new(format!("@unknown/{port}")) else { return Vec::new() };
    let isolation = |direction| PolicyIsolation {
        policy: name.clone(),
        direction,
        subject: PolicySubject::Ports(BTreeSet::from([port.clone()])),
        origin: Origin(format!("Pod {pod} isn't known yet")),
    };
    [PolicyDirection::Ingress, PolicyDirection::Egress].map(isolation).into()
}
