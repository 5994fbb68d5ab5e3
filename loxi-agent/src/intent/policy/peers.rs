//! Pods that policies name as peers: who they are, as sets of addresses.
//!
//! A set is there while a policy in force here uses it, and policies of one namespace share it. A pod is looked at by the
//! sets of its own namespace, and by those that select namespaces; no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use loxi_core::ir::{AddrSet, Entity, Origin};
use loxi_core::net::{AddrSetName, IpPrefix};

use crate::cluster::Cluster;
use crate::cluster::model::{Expression, Labels, Name, Namespace, Operator, Pod, Protocol, Selector};
use crate::digest::sha256;

/// Which pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PeerKey {
    /// The policies' namespace.
    pub(super) namespace: String,
    /// Pods of these namespaces; none: of the policies' own.
    pub(super) namespaces: Option<Selector>,
    /// These pods of them.
    pub(super) pods: Selector,
    /// Those that have a port of this name, by its number.
    pub(super) port: Option<(Protocol, String)>,
}

/// A selector as `kubectl` writes it. Keys and values of labels have none of the characters between them.
struct Text<'a>(&'a Selector);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
        let expression = |Expression { key, operator }: &Expression| match operator {
            Operator::In(values) => format!("{key} in ({})", list(values)),
            Operator::NotIn(values) => format!("{key} notin ({})", list(values)),
            Operator::Exists => key.clone(),
            Operator::DoesNotExist => format!("!{key}"),
        };
        let labels = self.0.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let all: Vec<String> = labels.chain(self.0.expressions.iter().map(expression)).collect();
        f.write_str(if all.is_empty() { "*".to_owned() } else { all.join(",") }.as_str())
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespaces {
            None => write!(f, "pods {} of namespace {}", Text(&self.pods), self.namespace)?,
            Some(namespaces) => {
                write!(f, "pods {} of namespaces {}", Text(&self.pods), Text(namespaces))?;
                write!(f, " for namespace {}", self.namespace)?;
            }
        }
        match &self.port {
            Some((protocol, name)) => write!(f, " with port {name} of {protocol:?}"),
            None => Ok(()),
        }
    }
}

impl PeerKey {
    /// All pods of the cluster that have a port of this name.
    pub(super) fn everybody(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            namespaces: Some(Selector::default()),
            pods: Selector::default(),
            port: None,
        }
    }

    /// Those of them that have a port of this name.
    pub(super) fn with_port(&self, protocol: Protocol, name: &str) -> Self {
        Self { port: Some((protocol, name.to_owned())), ..self.clone() }
    }

    /// The name of the set; with named ports one for each number.
    pub(super) fn set(&self, number: Option<u16>) -> Option<AddrSetName> {
        const SHOWN: usize = 24;
        let (pods, all) = (Text(&self.pods).to_string(), format!("{self} {number:?}"));
        let legal = |c: &char| c.is_ascii_alphanumeric() || "._-/".contains(*c);
        let shown: String = format!("{}/{pods}", self.namespace).chars().filter(legal).take(SHOWN).collect();
        // Whoever writes a policy chooses what is hashed, and must not meet another one's set.
        AddrSetName::new(format!("peers:{shown}@{:.32}", sha256(&all))).ok()
    }

    /// Whether pods of a namespace are meant, if it has these labels.
    fn selects_namespace(&self, name: &str, labels: Option<&Labels>) -> bool {
        match &self.namespaces {
            None => name == self.namespace,
            Some(selector) => labels.is_some_and(|labels| selector.matches(labels)),
        }
    }

    /// What a pod is in the set; none: it isn't in it.
    fn member(&self, cluster: &Cluster, pod: &Pod) -> Option<Member> {
        let namespace = &*pod.name.namespace;
        let labels = cluster.namespace(namespace).map(|namespace| &namespace.labels);
        let selected = pod.is_on_the_pod_network()
            && self.pods.matches(&pod.labels)
            && self.selects_namespace(namespace, labels);
        let number = match &self.port {
            Some((protocol, name)) => Some(pod.port(name, *protocol)?),
            None => None,
        };
        selected.then(|| Member { addresses: pod.ips.clone(), number })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    addresses: Vec<IpAddr>,
    /// What the pod calls so, in a set of a named port.
    number: Option<u16>,
}

/// The pods of a set, and the policies that use it.
#[derive(Debug, Default)]
pub(super) struct Peers {
    members: BTreeMap<Name, Member>,
    users: BTreeSet<Name>,
}

impl Peers {
    fn numbers(&self) -> BTreeSet<Option<u16>> {
        self.members.values().map(|member| member.number).collect()
    }

    /// The sets as entities: one, or one for each number of a named port.
    fn entities(&self, key: &PeerKey) -> Vec<Entity> {
        let numbers = if key.port.is_some() { self.numbers() } else { BTreeSet::from([None]) };
        let set = |number: Option<u16>| {
            let members = self.members.values().filter(|member| member.number == number);
            let addresses = members.flat_map(|member| &member.addresses);
            Some(Entity::from(AddrSet {
                name: key.set(number)?,
                members: addresses.copied().map(IpPrefix::host).collect(),
                origin: Origin(key.to_string()),
            }))
        };
        numbers.into_iter().filter_map(set).collect()
    }
}

/// What came of a change.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Sets that are other ones now.
    pub(super) sets: BTreeSet<PeerKey>,
    /// Policies that use a named port which has other numbers now.
    pub(super) policies: BTreeSet<Name>,
    /// Pods that were looked at.
    pub(super) looked_at: usize,
}

/// All sets, by whose pods may be in them: those of a namespace, or those of any.
#[derive(Debug, Default)]
pub(super) struct AllPeers(BTreeMap<Option<String>, BTreeMap<PeerKey, Peers>>);

impl AllPeers {
    fn place(key: &PeerKey) -> Option<String> {
        key.namespaces.is_none().then(|| key.namespace.clone())
    }

    fn get(&self, key: &PeerKey) -> Option<&Peers> {
        self.0.get(&Self::place(key))?.get(key)
    }

    /// The entities of a set; none: it isn't used.
    pub(super) fn entities(&self, key: &PeerKey) -> Vec<Entity> {
        self.get(key).map(|peers| peers.entities(key)).unwrap_or_default()
    }

    /// The numbers that a named port has.
    pub(super) fn numbers(&self, key: &PeerKey) -> Vec<u16> {
        self.get(key).into_iter().flat_map(Peers::numbers).flatten().collect()
    }

    /// A policy uses these sets from now on, and no others of `before`.
    pub(super) fn use_by(
        &mut self,
        cluster: &Cluster,
        policy: &Name,
        before: &BTreeSet<PeerKey>,
        now: &BTreeSet<PeerKey>,
    ) -> Touched {
        let mut touched = Touched::default();
        for key in now {
            let peers = self.0.entry(Self::place(key)).or_default().entry(key.clone()).or_default();
            if peers.users.is_empty() {
                touched.sets.insert(key.clone());
                let namespaces = match &key.namespaces {
                    None => vec![&*key.namespace],
                    Some(selector) => {
                        let all =
                            cluster.namespaces().filter(|namespace| selector.matches(&namespace.labels));
                        all.map(|namespace| &*namespace.name.name).collect()
                    }
                };
                for pod in namespaces.into_iter().flat_map(|namespace| cluster.pods_in(namespace)) {
                    touched.looked_at += 1;
                    if let Some(member) = key.member(cluster, pod) {
                        peers.members.insert(pod.name.clone(), member);
                    }
                }
            }
            peers.users.insert(policy.clone());
        }
        for key in before.difference(now) {
            let place = Self::place(key);
            let Some(keys) = self.0.get_mut(&place) else { continue };
            let Some(peers) = keys.get_mut(key) else { continue };
            peers.users.remove(policy);
            if peers.users.is_empty() {
                keys.remove(key);
                touched.sets.insert(key.clone());
            }
            if keys.is_empty() {
                self.0.remove(&place);
            }
        }
        touched
    }

    /// A pod is another one, or gone.
    pub(super) fn pod(&mut self, cluster: &Cluster, name: &Name, touched: &mut Touched) {
        let pod = cluster.pod(name);
        for place in [Some(name.namespace.clone()), None] {
            for (key, peers) in self.0.get_mut(&place).into_iter().flatten() {
                touched.looked_at += 1;
                set(key, peers, name, pod.and_then(|pod| key.member(cluster, pod)), touched);
            }
        }
    }

    /// A namespace has other labels, has come, or is gone.
    pub(super) fn namespace(
        &mut self,
        cluster: &Cluster,
        name: &str,
        old: Option<&Namespace>,
        touched: &mut Touched,
    ) {
        let new = cluster.namespace(name);
        for (key, peers) in self.0.get_mut(&None).into_iter().flatten() {
            let selects =
                |namespace: Option<&Namespace>| key.selects_namespace(name, namespace.map(|of| &of.labels));
            if selects(old) == selects(new) {
                continue;
            }
            for pod in cluster.pods_in(name) {
                touched.looked_at += 1;
                set(key, peers, &pod.name, key.member(cluster, pod), touched);
            }
        }
    }
}

fn set(key: &PeerKey, peers: &mut Peers, pod: &Name, member: Option<Member>, touched: &mut Touched) {
    if peers.members.get(pod) == member.as_ref() {
        return;
    }
    let numbers = |peers: &Peers| key.port.is_some().then(|| peers.numbers());
    let before = numbers(peers);
    match member {
        Some(member) => peers.members.insert(pod.clone(), member),
        None => peers.members.remove(pod),
    };
    touched.sets.insert(key.clone());
    if numbers(peers) != before {
        touched.policies.extend(peers.users.iter().cloned());
    }
}
