//! The cluster as the agent knows it.
//!
//! A [`Cluster`] is made by events of a source alone and holds no more than the objects and two indexes. Whoever derives
//! something from it is told what has changed by [`Change`]s, with the old object; an event that changes nothing makes
//! none, so a resync is silent.

pub mod convert;
pub mod model;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use model::{EndpointSlice, Kind, Name, Namespace, NetworkPolicy, Node, Object, Pod, Reference, Service};
use serde::{Deserialize, Serialize};

/// What a source tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All objects of a kind: others of it are gone.
    All(Kind, Vec<Object>),
    /// An object is there, or is different.
    Put(Object),
    /// An object is gone.
    Gone(Reference),
}

/// An object that has changed: what it was; the cluster has what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The object.
    pub reference: Reference,
    /// What it was; none: it is new.
    pub old: Option<Object>,
}

/// The objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<Object>", from = "Vec<Object>")]
pub struct Cluster {
    nodes: BTreeMap<Name, Node>,
    namespaces: BTreeMap<Name, Namespace>,
    pods: BTreeMap<Name, Pod>,
    services: BTreeMap<Name, Service>,
    slices: BTreeMap<Name, EndpointSlice>,
    policies: BTreeMap<Name, NetworkPolicy>,
    /// Slices by the service that they are of.
    slices_of: BTreeMap<Name, BTreeSet<Name>>,
}

/// What every kind has.
trait Kept: PartialEq + Into<Object> {
    const KIND: Kind;
    fn name(&self) -> &Name;
    fn table(cluster: &mut Cluster) -> &mut BTreeMap<Name, Self>;
}

/// The service that a slice is of.
fn of_service(object: &Object) -> Option<Name> {
    match object {
        Object::EndpointSlice(slice) => Some(slice.service()),
        _ => None,
    }
}

macro_rules! kept {
    ($($type:ident in $table:ident),+ $(,)?) => {
        $(impl Kept for $type {
            const KIND: Kind = Kind::$type;
            fn table(cluster: &mut Cluster) -> &mut BTreeMap<Name, Self> { &mut cluster.$table }
            fn name(&self) -> &Name { &self.name }
        })+

        impl Cluster {
            fn put(&mut self, object: Object) -> Option<Change> {
                let new = of_service(&object);
                let change = match object { $(Object::$type(object) => self.put_kept(object),)+ }?;
                self.index(&change, new);
                Some(change)
            }

            fn remove(&mut self, reference: &Reference) -> Option<Change> {
                let old = match reference.kind { $(Kind::$type => self.$table.remove(&reference.name)?.into(),)+ };
                let change = Change { reference: reference.clone(), old: Some(old) };
                self.index(&change, None);
                Some(change)
            }

            fn names(&self, kind: Kind) -> Vec<Name> {
                match kind { $(Kind::$type => self.$table.keys().cloned().collect(),)+ }
            }

            /// Every object, kind by kind.
            pub fn into_objects(self) -> impl Iterator<Item = Object> {
                std::iter::empty()$(.chain(self.$table.into_values().map(Object::$type)))+
            }
        }
    };
}

kept!(
    Node in nodes,
    Namespace in namespaces,
    Pod in pods,
    Service in services,
    EndpointSlice in slices,
    NetworkPolicy in policies,
);

impl Cluster {
    /// Takes an event over, and says what it changed.
    pub fn apply(&mut self, event: Event) -> Vec<Change> {
        match event {
            Event::Put(object) => self.put(object).into_iter().collect(),
            Event::Gone(reference) => self.remove(&reference).into_iter().collect(),
            Event::All(kind, objects) => {
                let mut gone: BTreeSet<Name> = self.names(kind).into_iter().collect();
                let mut changes = Vec::new();
                for object in objects.into_iter().filter(|object| object.kind() == kind) {
                    gone.remove(object.name());
                    changes.extend(self.put(object));
                }
                let gone = gone.into_iter().filter_map(|name| self.remove(&Reference { kind, name }));
                // What goes first makes room for what comes.
                gone.collect::<Vec<_>>().into_iter().chain(changes).collect()
            }
        }
    }

    fn put_kept<T: Kept>(&mut self, object: T) -> Option<Change> {
        let name = object.name().clone();
        let old = match T::table(self).entry(name.clone()) {
            Entry::Occupied(there) if *there.get() == object => return None,
            Entry::Occupied(mut there) => Some(there.insert(object).into()),
            Entry::Vacant(place) => {
                place.insert(object);
                None
            }
        };
        Some(Change { reference: Reference { kind: T::KIND, name }, old })
    }

    /// Follows a change in the index: an object that was of a service, and one that is.
    fn index(&mut self, change: &Change, new: Option<Name>) {
        let slice = &change.reference.name;
        if let Some(service) = change.old.as_ref().and_then(of_service)
            && let Some(slices) = self.slices_of.get_mut(&service)
        {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        if let Some(service) = new {
            self.slices_of.entry(service).or_default().insert(slice.clone());
        }
    }

    /// A node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(&Name::of_cluster(name))
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A namespace.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(&Name::of_cluster(name))
    }

    /// All namespaces, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// A pod.
    #[must_use]
    pub fn pod(&self, name: &Name) -> Option<&Pod> {
        self.pods.get(name)
    }

    /// All pods, by name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// The pods of a namespace, by name.
    pub fn pods_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Pod> {
        let from = Name::new(namespace, "");
        self.pods.range(from..).map(|(_, pod)| pod).take_while(move |pod| pod.name.namespace == namespace)
    }

    /// A service.
    #[must_use]
    pub fn service(&self, name: &Name) -> Option<&Service> {
        self.services.get(name)
    }

    /// All services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The slices of a service, by name.
    pub fn slices_of(&self, service: &Name) -> impl Iterator<Item = &EndpointSlice> {
        self.slices_of.get(service).into_iter().flatten().filter_map(|name| self.slices.get(name))
    }

    /// A slice.
    #[must_use]
    pub fn slice(&self, name: &Name) -> Option<&EndpointSlice> {
        self.slices.get(name)
    }

    /// A policy.
    #[must_use]
    pub fn policy(&self, name: &Name) -> Option<&NetworkPolicy> {
        self.policies.get(name)
    }

    /// All policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.values()
    }

    /// The policies of a namespace, by name.
    pub fn policies_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a NetworkPolicy> {
        let from = Name::new(namespace, "");
        let inside = move |policy: &&NetworkPolicy| policy.name.namespace == namespace;
        self.policies.range(from..).map(|(_, policy)| policy).take_while(inside)
    }
}

impl From<Cluster> for Vec<Object> {
    fn from(cluster: Cluster) -> Self {
        cluster.into_objects().collect()
    }
}

impl From<Vec<Object>> for Cluster {
    fn from(objects: Vec<Object>) -> Self {
        let mut cluster = Self::default();
        for object in objects {
            cluster.put(object);
        }
        cluster
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, service: &str) -> Object {
        let name = Name::new("default", name);
        EndpointSlice { name, service: service.into(), ..EndpointSlice::default() }.into()
    }

    fn of_service(cluster: &Cluster, service: &str) -> Vec<String> {
        let name = Name::new("default", service);
        cluster.slices_of(&name).map(|slice| slice.name.name.clone()).collect()
    }

    #[test]
    fn what_changes_nothing_makes_no_change() {
        let mut cluster = Cluster::default();
        let changes = cluster.apply(Event::Put(slice("a", "web")));
        assert_eq!(changes, [Change { reference: slice("a", "").reference(), old: None }]);
        assert_eq!(cluster.apply(Event::Put(slice("a", "web"))), []);
        assert_eq!(cluster.apply(Event::All(Kind::EndpointSlice, vec![slice("a", "web")])), []);
        assert_eq!(cluster.apply(Event::Gone(slice("b", "").reference())), []);
    }

    #[test]
    fn all_of_a_kind_removes_the_others_of_it_only() {
        let mut cluster = Cluster::default();
        cluster.apply(Event::Put(slice("a", "web")));
        cluster.apply(Event::Put(Node { name: Name::of_cluster("n1"), ..Node::default() }.into()));
        let changes = cluster.apply(Event::All(Kind::EndpointSlice, vec![slice("b", "web")]));
        let expected = [
            Change { reference: slice("a", "").reference(), old: Some(slice("a", "web")) },
            Change { reference: slice("b", "").reference(), old: None },
        ];
        assert_eq!(changes, expected);
        assert!(cluster.node("n1").is_some());
        assert_eq!(of_service(&cluster, "web"), ["b"]);
    }

    #[test]
    fn slices_are_found_by_their_service_also_when_it_is_another() {
        let mut cluster = Cluster::default();
        cluster.apply(Event::Put(slice("a", "web")));
        cluster.apply(Event::Put(slice("b", "web")));
        cluster.apply(Event::Put(slice("a", "db")));
        assert_eq!(
            (of_service(&cluster, "web"), of_service(&cluster, "db")),
            (vec!["b".into()], vec!["a".into()])
        );
        let again = Cluster::from(Vec::from(cluster.clone()));
        assert_eq!(again, cluster);
    }

    #[test]
    fn the_pods_of_a_namespace_are_no_others() {
        let mut cluster = Cluster::default();
        for (namespace, name) in [("a", "z"), ("b", "x"), ("b", "y"), ("b-c", "x"), ("c", "a")] {
            cluster.apply(Event::Put(Pod { name: Name::new(namespace, name), ..Pod::default() }.into()));
        }
        let found: Vec<_> = cluster.pods_in("b").map(|pod| pod.name.to_string()).collect();
        assert_eq!(found, ["b/x", "b/y"]);
    }
}
