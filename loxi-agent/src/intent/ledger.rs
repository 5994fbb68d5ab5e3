//! Who contributes which entities, and what of them isn't applied yet.
//!
//! Two objects may want the same entity: a virtual address that two services share. The entity stays as long as one of
//! them wants it, and is as the first of them wants it, in the order of [`Contributor`]s.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use loxi_core::change::Operation;
use loxi_core::ir::{Entity, EntityKey};

use crate::cluster::model::Name;
use loxi_core::net::{AddrSetName, PortName};

/// Who wants an entity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contributor {
    /// This node itself.
    Own,
    /// All nodes together: where their tunnels end.
    Overlay,
    /// Another node.
    Node(Name),
    /// An interface of this node.
    Attachment(PortName),
    /// A service.
    Service(Name),
    /// A network policy.
    Policy(Name),
    /// Pods that network policies name as peers: who they are.
    Peers(AddrSetName),
    /// An interface of this node whose pod, or its namespace, isn't known.
    Unknown(PortName),
}

impl Contributor {
    /// Whether it is the node itself, without whose entities nothing works.
    #[must_use]
    pub fn is_of_the_node(&self) -> bool {
        matches!(self, Self::Own | Self::Overlay)
    }
}

impl fmt::Display for Contributor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("this node"),
            Self::Overlay => f.write_str("the overlay"),
            Self::Node(name) => write!(f, "Node {name}"),
            Self::Attachment(port) => write!(f, "port {port}"),
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Policy(name) => write!(f, "NetworkPolicy {name}"),
            Self::Peers(name) => write!(f, "peers {name}"),
            Self::Unknown(port) => write!(f, "port {port} of a pod that isn't known"),
        }
    }
}

/// The entities, by who contributes them.
#[derive(Debug, Default)]
pub struct Ledger {
    entities: HashMap<EntityKey, BTreeMap<Contributor, Entity>>,
    contributed: HashMap<Contributor, BTreeSet<EntityKey>>,
    /// What the dataplane has of the entities that it hasn't got as they are.
    behind: BTreeMap<EntityKey, Option<Entity>>,
    /// What those wanted that are set aside.
    aside: HashMap<Contributor, BTreeMap<EntityKey, Entity>>,
}

impl Ledger {
    /// What a contributor wants from now on; what it wanted before and doesn't now is gone. Cost grows with both.
    ///
    /// One that is set aside stays so while it wants the same.
    pub fn contribute(&mut self, contributor: &Contributor, entities: impl IntoIterator<Item = Entity>) {
        if let Some(aside) = self.aside.get(contributor) {
            let entities: BTreeMap<EntityKey, Entity> =
                entities.into_iter().map(|entity| (entity.key(), entity)).collect();
            if *aside != entities {
                self.aside.remove(contributor);
                self.contribute_all(contributor, entities.into_values());
            }
        } else {
            self.contribute_all(contributor, entities);
        }
    }

    fn contribute_all(&mut self, contributor: &Contributor, entities: impl IntoIterator<Item = Entity>) {
        let before = self.contributed.remove(contributor).unwrap_or_default();
        let mut now = BTreeSet::new();
        for entity in entities {
            let key = entity.key();
            if before.contains(&key)
                && self.entities.get(&key).and_then(|wanted| wanted.get(contributor)) == Some(&entity)
            {
                now.insert(key);
                continue;
            }
            self.change(&key, |wanted| {
                wanted.insert(contributor.clone(), entity);
            });
            now.insert(key);
        }
        for key in before.difference(&now) {
            self.change(key, |wanted| {
                wanted.remove(contributor);
            });
        }
        if !now.is_empty() {
            self.contributed.insert(contributor.clone(), now);
        }
    }

    /// A contributor wants nothing any more.
    pub fn withdraw(&mut self, contributor: &Contributor) {
        self.contribute(contributor, []);
    }

    fn change(&mut self, key: &EntityKey, change: impl FnOnce(&mut BTreeMap<Contributor, Entity>)) {
        let wanted = self.entities.entry(key.clone()).or_default();
        let old = wanted.values().next().cloned();
        change(wanted);
        let new = wanted.values().next();
        if old.as_ref() != new {
            let applied = self.behind.entry(key.clone()).or_insert(old);
            if applied.as_ref() == new {
                self.behind.remove(key);
            }
        }
        if wanted.is_empty() {
            self.entities.remove(key);
        }
    }

    /// Takes away what a contributor wants, until it wants something else; whether there was anything to take. What
    /// isolates stays: without its rules a policy is to be strict, not open.
    pub fn set_aside(&mut self, contributor: &Contributor) -> bool {
        let keys = self.contributed.get(contributor).cloned().unwrap_or_default();
        let wanted = keys.into_iter().filter_map(|key| {
            let entity = self.entities.get(&key)?.get(contributor)?.clone();
            Some((key, entity))
        });
        let wanted: BTreeMap<EntityKey, Entity> = wanted.collect();
        let stays = |entity: &&Entity| matches!(entity, Entity::PolicyIsolation(_));
        let staying: Vec<Entity> = wanted.values().filter(stays).cloned().collect();
        if staying.len() == wanted.len() || self.aside.contains_key(contributor) {
            return false;
        }
        self.contribute_all(contributor, staying);
        self.aside.insert(contributor.clone(), wanted);
        true
    }

    /// Whether a contributor is set aside.
    #[must_use]
    pub fn is_set_aside(&self, contributor: &Contributor) -> bool {
        self.aside.contains_key(contributor)
    }

    /// Who wants an entity.
    #[must_use]
    pub fn contributors_of(&self, key: &EntityKey) -> Vec<Contributor> {
        self.entities.get(key).into_iter().flat_map(|wanted| wanted.keys().cloned()).collect()
    }

    /// Every entity that shall be.
    pub fn entities(&self) -> impl Iterator<Item = &Entity> {
        self.entities.values().filter_map(|wanted| wanted.values().next())
    }

    /// An entity as it shall be.
    #[must_use]
    pub fn entity(&self, key: &EntityKey) -> Option<&Entity> {
        self.entities.get(key).and_then(|wanted| wanted.values().next())
    }

    /// Whether the dataplane has everything.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.behind.is_empty()
    }

    /// What brings the dataplane from what it has to what shall be; taken as applied from here on.
    ///
    /// On a failure give it back by [`Self::give_back`].
    #[must_use]
    pub fn take(&mut self) -> Pending {
        Pending { applied: std::mem::take(&mut self.behind) }
    }

    /// The operations of what was taken, as the entities are now.
    #[must_use]
    pub fn operations(&self, pending: &Pending) -> Vec<Operation> {
        let operation = |(key, applied): (&EntityKey, &Option<Entity>)| match (self.entity(key), applied) {
            (Some(entity), _) => Some(Operation::Put(Box::new(entity.clone()))),
            (None, Some(_)) => Some(Operation::Delete(key.clone())),
            (None, None) => None,
        };
        pending.applied.iter().filter_map(operation).collect()
    }

    /// What was taken has not been applied.
    pub fn give_back(&mut self, pending: Pending) {
        for (key, applied) in pending.applied {
            if self.entity(&key) == applied.as_ref() {
                self.behind.remove(&key);
            } else {
                self.behind.insert(key, applied);
            }
        }
    }
}

/// What was taken to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// What the dataplane has of each entity.
    applied: BTreeMap<EntityKey, Option<Entity>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use loxi_core::ir::{AddrSet, Origin, PolicyDirection, PolicyIsolation, PolicySubject};
    use loxi_core::net::{AddrSetName, PolicyName};

    fn set(name: &str, origin: &str) -> Entity {
        let name = AddrSetName::new(name).unwrap();
        AddrSet { name, members: BTreeSet::new(), origin: Origin(origin.into()) }.into()
    }

    fn service(name: &str) -> Contributor {
        Contributor::Service(Name::new("default", name))
    }

    fn taken(ledger: &mut Ledger) -> Vec<Operation> {
        let pending = ledger.take();
        ledger.operations(&pending)
    }

    fn put(entity: Entity) -> Operation {
        Operation::Put(Box::new(entity))
    }

    #[test]
    fn only_what_differs_is_applied() {
        let mut ledger = Ledger::default();
        ledger.contribute(&service("a"), [set("x", "1"), set("y", "1")]);
        assert_eq!(taken(&mut ledger), [put(set("x", "1")), put(set("y", "1"))]);
        ledger.contribute(&service("a"), [set("x", "1"), set("y", "2")]);
        assert_eq!(taken(&mut ledger), [put(set("y", "2"))]);
        ledger.contribute(&service("a"), [set("y", "2")]);
        assert_eq!(taken(&mut ledger), [Operation::Delete(set("x", "").key())]);
        assert!(ledger.is_applied());
    }

    #[test]
    fn back_and_forth_is_nothing() {
        let mut ledger = Ledger::default();
        ledger.contribute(&service("a"), [set("x", "1")]);
        ledger.withdraw(&service("a"));
        assert!(ledger.is_applied());
        ledger.contribute(&service("a"), [set("x", "1")]);
        let _ = ledger.take();
        ledger.contribute(&service("a"), [set("x", "2")]);
        ledger.contribute(&service("a"), [set("x", "1")]);
        assert!(ledger.is_applied());
    }

    #[test]
    fn a_shared_entity_stays_until_nobody_wants_it() {
        let mut ledger = Ledger::default();
        ledger.contribute(&service("b"), [set("x", "b")]);
        ledger.contribute(&service("a"), [set("x", "a")]);
        assert_eq!(taken(&mut ledger), [put(set("x", "a"))]);
        ledger.withdraw(&service("b"));
        assert!(ledger.is_applied());
        ledger.contribute(&service("b"), [set("x", "b")]);
        ledger.withdraw(&service("a"));
        assert_eq!(taken(&mut ledger), [put(set("x", "b"))]);
        ledger.withdraw(&service("b"));
        assert_eq!(taken(&mut ledger), [Operation::Delete(set("x", "").key())]);
        assert_eq!(ledger.entities().count(), 0);
    }

    #[test]
    fn what_failed_is_tried_again_with_what_has_changed_meanwhile() {
        let mut ledger = Ledger::default();
        ledger.contribute(&service("a"), [set("x", "1")]);
        let _ = ledger.take();
        ledger.contribute(&service("a"), [set("x", "2"), set("y", "1")]);
        let failed = ledger.take();
        ledger.contribute(&service("a"), [set("x", "1"), set("z", "1")]);
        ledger.give_back(failed);
        // What was to be changed and is as before again, and what came and went, needs nothing.
        assert_eq!(taken(&mut ledger), [put(set("z", "1"))]);
    }

    #[test]
    fn who_is_set_aside_stays_so_until_it_wants_something_else() {
        let mut ledger = Ledger::default();
        ledger.contribute(&service("a"), [set("x", "a"), set("y", "a")]);
        ledger.contribute(&service("b"), [set("x", "b")]);
        let _ = ledger.take();
        assert_eq!(ledger.contributors_of(&set("x", "").key()), [service("a"), service("b")]);
        assert!(ledger.set_aside(&service("a")));
        assert!(!ledger.set_aside(&service("a")));
        assert_eq!(taken(&mut ledger), [put(set("x", "b")), Operation::Delete(set("y", "").key())]);
        ledger.contribute(&service("a"), [set("x", "a"), set("y", "a")]);
        assert!(ledger.is_applied() && ledger.is_set_aside(&service("a")));
        ledger.contribute(&service("a"), [set("x", "c")]);
        assert_eq!(taken(&mut ledger), [put(set("x", "c"))]);
        assert!(!ledger.is_set_aside(&service("a")));
        assert!(ledger.set_aside(&service("a")));
        ledger.withdraw(&service("a"));
        assert!(!ledger.is_set_aside(&service("a")));
    }

    #[test]
    fn a_policy_that_is_set_aside_still_isolates() {
        let isolation: Entity = PolicyIsolation {
            policy: PolicyName::new("p").unwrap(),
            direction: PolicyDirection::Ingress,
            subject: PolicySubject::AllPods,
            origin: Origin::default(),
        }
        .into();
        let policy = Contributor::Policy(Name::new("default", "p"));
        let mut ledger = Ledger::default();
        ledger.contribute(&policy, [isolation.clone(), set("x", "1")]);
        let _ = ledger.take();
        assert!(ledger.set_aside(&policy));
        assert_eq!(taken(&mut ledger), [Operation::Delete(set("x", "").key())]);
        assert_eq!(ledger.entities().collect::<Vec<_>>(), [&isolation]);
        // It isn't set aside for that a second time, and goes with its policy.
        assert!(!ledger.set_aside(&policy));
        ledger.withdraw(&policy);
        assert_eq!(taken(&mut ledger), [Operation::Delete(isolation.key())]);
    }
}
