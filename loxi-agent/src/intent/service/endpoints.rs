//! The endpoints of a service's port, and which of them clients of this node get.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use loxi_core::ir::BackendState;
use loxi_core::net::is_hosts;

use crate::cluster::Cluster;
use crate::cluster::model::{self, Name, ServicePort, TrafficDistribution};
use crate::intent::Settings;

/// An endpoint, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) state: BackendState,
    pub(super) local: bool,
    zones: BTreeSet<String>,
    nodes: BTreeSet<String>,
}

impl Endpoint {
    /// None: it serves nobody.
    fn new(endpoint: &model::Endpoint, port: u16, settings: &Settings) -> Option<Self> {
        let address = endpoint.address;
        if !is_hosts(address) {
            return None;
        }
        let state = match endpoint {
            model::Endpoint { ready: true, .. } => BackendState::Active,
            model::Endpoint { serving: true, terminating: true, .. } => BackendState::Draining,
            _ => return None,
        };
        Some(Self {
            address,
            port,
            state,
            local: is_local(endpoint, settings),
            zones: endpoint.zones.clone(),
            nodes: endpoint.nodes.clone(),
        })
    }

    fn is_active(&self) -> bool {
        self.state == BackendState::Active
    }
}

fn is_local(endpoint: &model::Endpoint, settings: &Settings) -> bool {
    endpoint.node.as_deref() == Some(&*settings.node)
}

/// The endpoints of a port, by address.
///
/// One may be in two slices while it moves from one to the other; then the better of the two counts: the one that says it
/// is here, then the one that says it is ready.
pub(super) fn of_port(
    cluster: &Cluster,
    settings: &Settings,
    service: &Name,
    port: &ServicePort,
) -> Vec<Endpoint> {
    let mut found: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    for slice in cluster.slices_of(service) {
        let same = |at: &&model::EndpointPort| at.name == port.name && at.protocol == port.protocol;
        for at in slice.ports.iter().filter(same) {
            let endpoints = slice.endpoints.iter();
            for endpoint in endpoints.filter_map(|endpoint| Endpoint::new(endpoint, at.port, settings)) {
                let key = (endpoint.address, endpoint.port);
                let rank = |endpoint: &Endpoint| (endpoint.local, endpoint.is_active());
                if found.get(&key).is_none_or(|known| rank(known) < rank(&endpoint)) {
                    found.insert(key, endpoint);
                }
            }
        }
    }
    found.into_values().collect()
}

/// Of the endpoints of one family those that the service's distribution prefers here; all where the hints don't tell.
///
/// As kube-proxy has it: hints count when every ready endpoint has them and one of them is meant for us; node hints come
/// first, zone hints are the way back. Endpoints that drain are taken whatever their hints: they count only while none
/// is ready.
pub(super) fn preferred<'a>(
    endpoints: Vec<&'a Endpoint>,
    distribution: TrafficDistribution,
    settings: &Settings,
) -> Vec<&'a Endpoint> {
    let zone = settings.zone.as_deref();
    let for_node = |endpoint: &Endpoint| endpoint.nodes.contains(&settings.node);
    let for_zone = |endpoint: &Endpoint| zone.is_some_and(|zone| endpoint.zones.contains(zone));
    let ready = || endpoints.iter().filter(|endpoint| endpoint.is_active());
    let by_node = distribution == TrafficDistribution::SameNode
        && ready().all(|endpoint| !endpoint.nodes.is_empty())
        && ready().any(|endpoint| for_node(endpoint));
    let by_zone = distribution != TrafficDistribution::Any
        && ready().all(|endpoint| !endpoint.zones.is_empty())
        && ready().any(|endpoint| for_zone(endpoint));
    let wanted = |endpoint: &&Endpoint| {
        !endpoint.is_active()
            || match (by_node, by_zone) {
                (true, _) => for_node(endpoint),
                (false, true) => for_zone(endpoint),
                (false, false) => true,
            }
    };
    endpoints.into_iter().filter(wanted).collect()
}

/// How many ready endpoints a service has on this node, whatever the port: what its `healthCheckNodePort` answers.
#[must_use]
pub fn local_endpoints(cluster: &Cluster, settings: &Settings, service: &Name) -> usize {
    let endpoints = cluster.slices_of(service).flat_map(|slice| &slice.endpoints);
    let here = endpoints.filter(|endpoint| endpoint.ready && is_local(endpoint, settings));
    here.map(|endpoint| endpoint.address).collect::<BTreeSet<_>>().len()
}
