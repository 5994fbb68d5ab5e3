//! Services and their endpoints.
//!
//! A service is reached at addresses of three kinds: of the cluster, of this node, and from outside. Each of its ports is
//! an [`LbService`] at each of them, in the domain of the pods; at those that clients from outside use in the domain of
//! the wire, too. A change of a service or of one of its slices says anew what that service contributes.

mod endpoints;
#[cfg(test)]
mod tests;

pub use endpoints::local_endpoints;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use loxi_core::ir::{
    Affinity, Entity, EntityKey, LbAlgorithm, LbBackend, LbMode, LbService, Locality, OnNoBackend, Origin,
    OtherPorts, ServiceScope, TrafficPolicy, VipAddress, VipMode,
};
use loxi_core::net::{BackendName, IpPrefix, L4Ports, NetError, VrfName, is_hosts};

use super::{Changed, Contributor, Controller, Ledger, Settings, View, names};
use crate::cluster::Change;
use crate::cluster::model::{self, Name, Object, Service, ServiceKind, ServicePort};
use endpoints::Endpoint;

/// The controller of services.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// Addresses of nodes, and whose they are.
    nodes: BTreeMap<IpAddr, BTreeSet<Name>>,
    /// Addresses that clients from outside use, and whose services are there.
    outside: BTreeMap<IpAddr, BTreeSet<Name>>,
}

impl Controller for Services {
    fn changed(&mut self, view: View<'_>, changed: Changed<'_>, ledger: &mut Ledger) {
        let Changed::Object(change) = changed else { return };
        let name = &change.reference.name;
        let touched: BTreeSet<Name> = match change.reference.kind {
            model::Kind::Service => {
                let old = match &change.old {
                    Some(Object::Service(service)) => outside(service),
                    _ => BTreeSet::new(),
                };
                let new = view.cluster.service(name).map(outside).unwrap_or_default();
                move_to(&mut self.outside, name, &old, &new);
                BTreeSet::from([name.clone()])
            }
            model::Kind::EndpointSlice => {
                let old = match &change.old {
                    Some(Object::EndpointSlice(slice)) => Some(slice.service()),
                    _ => None,
                };
                old.into_iter().chain(view.cluster.slice(name).map(model::EndpointSlice::service)).collect()
            }
            model::Kind::Node => self.node(view, change),
            _ => return,
        };
        for name in touched {
            let entities = view.cluster.service(&name).map(|service| entities(view, &self.nodes, service));
            ledger.contribute(&Contributor::Service(name), entities.unwrap_or_default());
        }
    }
}

impl Services {
    /// A node has come, gone, or has other addresses. Which services are there?
    fn node(&mut self, view: View<'_>, change: &Change) -> BTreeSet<Name> {
        let name = &change.reference.name;
        let addresses = |node: &model::Node| -> BTreeSet<IpAddr> {
            node.internal_ips.iter().chain(&node.external_ips).copied().collect()
        };
        let old = match &change.old {
            Some(Object::Node(node)) => addresses(node),
            _ => BTreeSet::new(),
        };
        let new = view.cluster.node(&name.name).map(addresses).unwrap_or_default();
        move_to(&mut self.nodes, name, &old, &new);
        let there = old.symmetric_difference(&new).filter_map(|address| self.outside.get(address));
        there.flatten().cloned().collect()
    }
}

/// The addresses from outside that a service has, those of nodes apart.
fn outside(service: &Service) -> BTreeSet<IpAddr> {
    service.external_ips.union(&service.load_balancer_ips).copied().collect()
}

/// Moves an object of an index from its old addresses to its new ones.
fn move_to(
    index: &mut BTreeMap<IpAddr, BTreeSet<Name>>,
    name: &Name,
    old: &BTreeSet<IpAddr>,
    new: &BTreeSet<IpAddr>,
) {
    for address in old.difference(new) {
        if let Some(names) = index.get_mut(address) {
            names.remove(name);
            if names.is_empty() {
                index.remove(address);
            }
        }
    }
    for address in new {
        index.entry(*address).or_default().insert(name.clone());
    }
}

fn entities(view: View<'_>, nodes: &BTreeMap<IpAddr, BTreeSet<Name>>, service: &Service) -> Vec<Entity> {
    let ports = service.ports.iter().map(|port| Port::new(view, service, port)).collect();
    let mut build = Build { settings: view.settings, nodes, service, ports, entities: BTreeMap::new() };
    // What comes first stays, should an address be of two kinds.
    build.cluster_addresses();
    build.node_addresses();
    build.load_balancer_addresses();
    build.external_addresses();
    build.entities.into_values().collect()
}

/// A port with its endpoints.
struct Port<'a> {
    port: &'a ServicePort,
    endpoints: Vec<Endpoint>,
    /// What the service's port is called: part of its endpoints' names.
    hash: u64,
    origin: Origin,
}

impl<'a> Port<'a> {
    fn new(view: View<'_>, service: &Service, port: &'a ServicePort) -> Self {
        let endpoints = endpoints::of_port(view.cluster, view.settings, &service.name, port);
        let hash = names::hash(&format!("{}:{}/{:?}", service.name, port.name, port.protocol));
        let shown = if port.name.is_empty() { port.port.to_string() } else { port.name.clone() };
        Self { port, endpoints, hash, origin: Origin(format!("Service {}:{shown}", service.name)) }
    }

    fn backend(&self, endpoint: &Endpoint) -> Result<LbBackend, NetError> {
        let Endpoint { address, port, state, local, .. } = endpoint;
        Ok(LbBackend {
            name: BackendName::new(format!("{:016x}:{address}/{port}", self.hash))?,
            address: *address,
            port: *port,
            weight: 1,
            state: *state,
            locality: if *local { Locality::Local } else { Locality::Remote },
            origin: self.origin.clone(),
        })
    }
}

/// An address at which a service is.
struct At {
    vrf: VrfName,
    address: IpAddr,
    vip: VipMode,
    /// Which endpoints clients get there.
    policy: model::TrafficPolicy,
    mode: LbMode,
    source_ranges: BTreeSet<IpPrefix>,
}

struct Build<'a> {
    settings: &'a Settings,
    nodes: &'a BTreeMap<IpAddr, BTreeSet<Name>>,
    service: &'a Service,
    ports: Vec<Port<'a>>,
    entities: BTreeMap<EntityKey, Entity>,
}

impl Build<'_> {
    fn cluster_addresses(&mut self) {
        for address in self.service.cluster_ips.clone() {
            let at = At {
                vrf: self.settings.names.pods.clone(),
                address,
                vip: VipMode::Exclusive { other: OtherPorts::Reject, echo: true },
                policy: self.service.internal_traffic_policy,
                mode: LbMode::Nat,
                source_ranges: BTreeSet::new(),
            };
            self.put(&at, |port| Some(port.port));
        }
    }

    fn node_addresses(&mut self) {
        if self.service.kind != ServiceKind::ClusterIp {
            for address in &self.settings.node_ips {
                self.put_outside(*address, &BTreeSet::new(), |port| port.node_port);
            }
        }
    }

    fn load_balancer_addresses(&mut self) {
        if self.service.kind == ServiceKind::LoadBalancer {
            for address in self.service.load_balancer_ips.clone() {
                let ranges = ranges_of(&self.service.source_ranges, address.is_ipv4());
                self.put_outside(address, &ranges, |port| Some(port.port));
            }
        }
    }

    fn external_addresses(&mut self) {
        for address in self.service.external_ips.clone() {
            self.put_outside(address, &BTreeSet::new(), |port| Some(port.port));
        }
    }

    /// An address that clients from outside use. Those of the cluster use it as well: they come from the pods' domain,
    /// and reach all endpoints whatever the policy for those from outside.
    fn put_outside(
        &mut self,
        address: IpAddr,
        source_ranges: &BTreeSet<IpPrefix>,
        number: impl Fn(&ServicePort) -> Option<u16>,
    ) {
        let vip = if self.settings.node_ips.contains(&address) || self.nodes.contains_key(&address) {
            // A node has more to say than its services.
            VipMode::Shared
        } else {
            // Routed back to where it came from, it would go round in circles; and a refusal would speak for whoever has
            // the address's other ports.
            VipMode::Exclusive { other: OtherPorts::Drop, echo: false }
        };
        let mode = match self.service.external_traffic_policy {
            // The reply must pass here, and an endpoint elsewhere would send it to the client directly.
            model::TrafficPolicy::Cluster => LbMode::FullNat,
            model::TrafficPolicy::Local => LbMode::Nat,
        };
        let outside = At {
            vrf: self.settings.names.underlay.clone(),
            address,
            vip,
            policy: self.service.external_traffic_policy,
            mode,
            source_ranges: source_ranges.clone(),
        };
        let inside = At {
            vrf: self.settings.names.pods.clone(),
            address,
            vip,
            policy: model::TrafficPolicy::Cluster,
            mode: LbMode::Nat,
            source_ranges: source_ranges.clone(),
        };
        for at in [outside, inside] {
            self.put(&at, &number);
        }
    }

    /// Every port that has a number at an address.
    fn put(&mut self, at: &At, number: impl Fn(&ServicePort) -> Option<u16>) {
        let address = at.address;
        if !is_hosts(address) {
            return;
        }
        for port in &self.ports {
            let Some(number) = number(port.port).filter(|number| *number != 0) else { continue };
            let of_family = port.endpoints.iter().filter(|at| at.address.is_ipv4() == address.is_ipv4());
            let endpoints = match at.policy {
                model::TrafficPolicy::Cluster => endpoints::preferred(
                    of_family.collect(),
                    self.service.traffic_distribution,
                    self.settings,
                ),
                model::TrafficPolicy::Local => of_family.collect(),
            };
            let backends: Vec<LbBackend> =
                endpoints.into_iter().filter_map(|endpoint| port.backend(endpoint).ok()).collect();
            let service = Entity::from(LbService {
                vrf: at.vrf.clone(),
                vip: address,
                protocol: port.port.protocol.into(),
                ports: L4Ports::one(number),
                scope: ServiceScope::Any,
                backends: backends.iter().map(|backend| backend.name.clone()).collect(),
                algorithm: LbAlgorithm::Random,
                affinity: self
                    .service
                    .affinity
                    .map(|affinity| Affinity { timeout_s: affinity.timeout_s.clamp(1, 86_400) }),
                traffic_policy: match at.policy {
                    model::TrafficPolicy::Cluster => TrafficPolicy::Cluster,
                    model::TrafficPolicy::Local => TrafficPolicy::Local,
                },
                source_ranges: at.source_ranges.clone(),
                mode: at.mode,
                on_no_backend: OnNoBackend::Reject,
                on_no_local_backend: OnNoBackend::Drop,
                origin: port.origin.clone(),
            });
            let vip = Entity::from(VipAddress {
                vrf: at.vrf.clone(),
                address,
                mode: at.vip,
                origin: Origin(format!("Service {}", self.service.name)),
            });
            self.entities.entry(vip.key()).or_insert(vip);
            let key = service.key();
            if !self.entities.contains_key(&key) {
                self.entities.insert(key, service);
                for backend in backends {
                    let backend = Entity::from(backend);
                    self.entities.insert(backend.key(), backend);
                }
            }
        }
    }
}

/// The ranges of a family. Where there are some, but of the other family alone, nobody is admitted; no ranges would admit
/// everybody. The unspecified address says so: no packet comes from it.
fn ranges_of(ranges: &BTreeSet<IpPrefix>, v4: bool) -> BTreeSet<IpPrefix> {
    let of_family: BTreeSet<IpPrefix> =
        ranges.iter().copied().filter(|range| range.is_ipv4() == v4).collect();
    if of_family.is_empty() && !ranges.is_empty() {
        let nobody: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        return BTreeSet::from([IpPrefix::host(nobody)]);
    }
    of_family
}
