//! Network policies.
//!
//! A policy is in force here if it selects a pod that has an interface on this node. Then its rules are entities, and
//! the pods that they name as peers are sets of addresses that follow the cluster ([`peers`]). What a change touches is
//! found by namespace and selector: no other policy and no other pod is looked at.

mod peers;
mod priorities;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use loxi_core::ir::{Entity, PolicyDirection, PolicyIsolation};
use loxi_core::net::PortName;

use super::{Attachment, Changed, Contributor, Controller, Ledger, View};
use crate::cluster::Change;
use crate::cluster::model::{Kind, Name, NetworkPolicy, Object, Pod};
use peers::{AllPeers, PeerKey, Touched};
use priorities::Priorities;
use rules::{Draft, Subjects};

/// The controller of network policies.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// The interfaces of this node, by pod.
    local: BTreeMap<Name, BTreeSet<PortName>>,
    in_force: BTreeMap<Name, InForce>,
    peers: AllPeers,
    priorities: Priorities,
    work: Work,
}

/// A policy that selects an interface here.
#[derive(Debug, Default)]
struct InForce {
    subjects: BTreeSet<PortName>,
    peers: BTreeSet<PeerKey>,
    isolations: Vec<PolicyIsolation>,
    drafts: Vec<Draft>,
}

/// What a change took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Work {
    /// Pods that were held against a peer's selectors.
    pods: usize,
    /// Policies that were derived anew.
    policies: usize,
}

impl Controller for Policies {
    fn changed(&mut self, view: View<'_>, changed: Changed<'_>, ledger: &mut Ledger) {
        self.work = Work::default();
        let policies = match changed {
            Changed::Attachment { port, old } => self.attachment(view, port, old, ledger),
            Changed::Object(change) => match change.reference.kind {
                Kind::NetworkPolicy => BTreeSet::from([change.reference.name.clone()]),
                Kind::Pod => self.pod(view, change, ledger),
                Kind::Namespace => self.namespace(view, change, ledger),
                Kind::Node | Kind::Service | Kind::EndpointSlice => return,
            },
        };
        for name in policies {
            self.derive(view, &name, ledger);
        }
        tracing::trace!(pods = self.work.pods, policies = self.work.policies, "policies follow a change");
    }
}

/// The pod of an interface, if it is known with its namespace.
///
/// The runtime tells the uid, and another pod of the same name has another. That of a static pod is the kubelet's own, a
/// hash without dashes, which the API server doesn't know.
fn known<'a>(view: View<'a>, attachment: &Attachment) -> Option<&'a Pod> {
    let identity = attachment.pod.as_ref()?;
    view.cluster.namespace(&identity.name.namespace)?;
    let pod = view.cluster.pod(&identity.name)?;
    let is_another = |uid: &String| uid.contains('-') && !pod.uid.is_empty() && *uid != pod.uid;
    (!identity.uid.as_ref().is_some_and(is_another)).then_some(pod)
}

/// Whether a policy is about a pod of its namespace.
fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    !pod.host_network && !pod.finished && policy.pods.matches(&pod.labels)
}

impl Policies {
    /// An interface has come, gone, or is another one. Which policies does it touch?
    fn attachment(
        &mut self,
        view: View<'_>,
        port: &PortName,
        old: Option<&Attachment>,
        ledger: &mut Ledger,
    ) -> BTreeSet<Name> {
        let identity = |attachment: &Attachment| attachment.pod.as_ref().map(|pod| pod.name.clone());
        let old = old.and_then(identity);
        let new = view.attachments.get(port).and_then(identity);
        if let Some(pod) = &old
            && let Some(ports) = self.local.get_mut(pod)
        {
            ports.remove(port);
            if ports.is_empty() {
                self.local.remove(pod);
            }
        }
        if let Some(pod) = &new {
            self.local.entry(pod.clone()).or_default().insert(port.clone());
        }
        isolate_unknown(view, port, ledger);
        let mut touched = BTreeSet::new();
        for name in [old, new].into_iter().flatten() {
            let pod = view.cluster.pod(&name);
            let concerns = |policy: &&NetworkPolicy| {
                pod.is_some_and(|pod| selects(policy, pod))
                    || self.in_force.get(&policy.name).is_some_and(|policy| policy.subjects.contains(port))
            };
            let policies = view.cluster.policies_in(&name.namespace).filter(concerns);
            touched.extend(policies.map(|policy| policy.name.clone()));
        }
        touched
    }

    /// A pod has come, gone, or is another one.
    fn pod(&mut self, view: View<'_>, change: &Change, ledger: &mut Ledger) -> BTreeSet<Name> {
        let name = &change.reference.name;
        let old = match &change.old {
            Some(Object::Pod(pod)) => Some(pod),
            _ => None,
        };
        let mut policies = BTreeSet::new();
        if let Some(ports) = self.local.get(name) {
            for port in ports {
                isolate_unknown(view, port, ledger);
            }
            let new = view.cluster.pod(name);
            let concerned =
                |policy: &&NetworkPolicy| old.into_iter().chain(new).any(|pod| selects(policy, pod));
            let all = view.cluster.policies_in(&name.namespace).filter(concerned);
            policies.extend(all.map(|policy| policy.name.clone()));
        }
        let mut touched = Touched::default();
        self.peers.pod(view.cluster, name, &mut touched);
        policies.append(&mut touched.policies);
        self.say(&touched, ledger);
        policies
    }

    /// A namespace has come, gone, or has other labels.
    fn namespace(&mut self, view: View<'_>, change: &Change, ledger: &mut Ledger) -> BTreeSet<Name> {
        let name = &change.reference.name.name;
        let old = match &change.old {
            Some(Object::Namespace(namespace)) => Some(namespace),
            _ => None,
        };
        let mut policies = BTreeSet::new();
        if old.is_some() != view.cluster.namespace(name).is_some() {
            for port in self.local_in(name).flat_map(|(_, ports)| ports) {
                isolate_unknown(view, port, ledger);
            }
            if self.local_in(name).next().is_some() {
                policies.extend(view.cluster.policies_in(name).map(|policy| policy.name.clone()));
            }
        }
        let mut touched = Touched::default();
        self.peers.namespace(view.cluster, name, old, &mut touched);
        policies.append(&mut touched.policies);
        self.say(&touched, ledger);
        policies
    }

    /// The pods of a namespace that are here.
    fn local_in<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Name, &'a BTreeSet<PortName>)> {
        let from = Name::new(namespace, "");
        self.local.range(from..).take_while(move |(pod, _)| pod.namespace == namespace)
    }

    /// Says who the pods of sets are.
    fn say(&mut self, touched: &Touched, ledger: &mut Ledger) {
        self.work.pods += touched.looked_at;
        for key in &touched.sets {
            // All numbers of a named port are one contribution.
            if let Some(name) = key.set(None) {
                ledger.contribute(&Contributor::Peers(name), self.peers.entities(key));
            }
        }
    }

    /// Derives a policy anew.
    fn derive(&mut self, view: View<'_>, name: &Name, ledger: &mut Ledger) {
        self.work.policies += 1;
        let policy = view.cluster.policy(name);
        let subjects = policy.map(|policy| self.subjects(view, policy)).unwrap_or_default();
        let policy = policy.filter(|_| !subjects.is_empty());
        let before = self.in_force.remove(name).unwrap_or_default();
        let peers = policy.map(rules::keys).unwrap_or_default();
        let touched = self.peers.use_by(view.cluster, name, &before.peers, &peers);
        self.say(&touched, ledger);
        let numbers = |key: &PeerKey| self.peers.numbers(key);
        let drafts = policy.map(|policy| rules::drafts(policy, &subjects, &numbers)).unwrap_or_default();
        let mut moved = BTreeSet::new();
        for direction in [PolicyDirection::Egress, PolicyDirection::Ingress] {
            let (before, now) = (count(&before.drafts, direction), count(&drafts, direction));
            moved.append(&mut self.priorities.resize(name, direction, before, now));
        }
        if let Some(policy) = policy {
            let isolations = rules::isolations(policy, &subjects);
            let subjects = subjects.into_keys().collect();
            self.in_force.insert(name.clone(), InForce { subjects, peers, isolations, drafts });
        }
        moved.insert(name.clone());
        for name in moved {
            let entities = self.entities(&name);
            ledger.contribute(&Contributor::Policy(name), entities);
        }
    }

    /// The interfaces here that a policy selects.
    fn subjects<'a>(&self, view: View<'a>, policy: &NetworkPolicy) -> Subjects<'a> {
        let ports = self.local_in(&policy.name.namespace).flat_map(|(_, ports)| ports);
        let attachments = ports.filter_map(|port| view.attachments.get(port));
        let selected = attachments.filter_map(|attachment| {
            let pod = known(view, attachment).filter(|pod| selects(policy, pod))?;
            Some((attachment.port.clone(), pod))
        });
        selected.collect()
    }

    /// What a policy isolates and allows, with the priorities as they are.
    fn entities(&self, name: &Name) -> Vec<Entity> {
        let Some(policy) = self.in_force.get(name) else { return Vec::new() };
        let mut entities: Vec<Entity> = policy.isolations.iter().cloned().map(Entity::from).collect();
        for direction in [PolicyDirection::Egress, PolicyDirection::Ingress] {
            let drafts = policy.drafts.iter().filter(|draft| draft.direction == direction);
            for (number, draft) in (0_u32..).zip(drafts) {
                let priority = self.priorities.of(name, direction, number);
                entities.extend(priority.map(|priority| Entity::from(draft.rule(priority))));
            }
        }
        entities
    }
}

fn count(drafts: &[Draft], direction: PolicyDirection) -> u32 {
    let count = drafts.iter().filter(|draft| draft.direction == direction).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Isolates an interface whose pod isn't known: which policies select it can't be said. One that is nobody's is not.
fn isolate_unknown(view: View<'_>, port: &PortName, ledger: &mut Ledger) {
    let contributor = Contributor::Unknown(port.clone());
    let unknown = view.attachments.get(port).filter(|attachment| known(view, attachment).is_none());
    let pod = unknown.and_then(|attachment| attachment.pod.as_ref());
    let isolations = pod.map(|pod| rules::unknown(port, &pod.name)).unwrap_or_default();
    ledger.contribute(&contributor, isolations.into_iter().map(Entity::from));
}
