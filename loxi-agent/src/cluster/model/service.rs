//! Services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use loxi_core::net::IpPrefix;
use serde::{Deserialize, Serialize};

use super::{Name, Protocol};

/// A service (`core/v1 Service`) that this proxy implements: one with the label `service.kubernetes.io/service-proxy-name`
/// and headless ones are not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// What it is reached by.
    pub kind: ServiceKind,
    /// `spec.clusterIPs`, one per family at most.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: BTreeSet<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` whose `ipMode` is `VIP` (the default). Those of `Proxy` aren't ours.
    pub load_balancer_ips: BTreeSet<IpAddr>,
    /// `spec.loadBalancerSourceRanges`; empty: everybody. For load balancer addresses alone.
    pub source_ranges: BTreeSet<IpPrefix>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.sessionAffinity: ClientIP`, with its timeout.
    pub affinity: Option<ClientAffinity>,
    /// `spec.internalTrafficPolicy`: which endpoints clients of the cluster reach at cluster addresses.
    pub internal_traffic_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`: which endpoints clients from outside reach.
    pub external_traffic_policy: TrafficPolicy,
    /// `spec.trafficDistribution`.
    pub traffic_distribution: TrafficDistribution,
    /// `spec.healthCheckNodePort`, if there is one.
    pub health_check_node_port: Option<u16>,
}

/// What a service is reached by (`spec.type`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceKind {
    /// Addresses of the cluster.
    #[default]
    ClusterIp,
    /// Also ports of every node.
    NodePort,
    /// Also addresses of a load balancer.
    LoadBalancer,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Its name; empty where there is one port only. Endpoints name theirs by it.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number at the service's addresses, 1 to 65535.
    pub port: u16,
    /// Its number at every node, if it has one.
    pub node_port: Option<u16>,
}

/// Client affinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAffinity {
    /// `sessionAffinityConfig.clientIP.timeoutSeconds`, 1 to 86400.
    pub timeout_s: u32,
}

/// Which endpoints take part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// All.
    #[default]
    Cluster,
    /// Those of this node.
    Local,
}

/// Which endpoints are preferred (`spec.trafficDistribution`), as the EndpointSlice's hints say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficDistribution {
    /// None.
    #[default]
    Any,
    /// Of the same zone (`PreferSameZone`, formerly `PreferClose`).
    SameZone,
    /// Of the same node (`PreferSameNode`).
    SameNode,
}
