//! Nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use loxi_core::net::IpPrefix;
use serde::{Deserialize, Serialize};

use super::Name;

/// A node of the cluster (`core/v1 Node`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// `status.addresses` of type `InternalIP`, in order: the first of a family is where its tunnels end.
    pub internal_ips: Vec<IpAddr>,
    /// `status.addresses` of type `ExternalIP`.
    pub external_ips: BTreeSet<IpAddr>,
    /// `spec.podCIDRs`: one per family at most. Empty until the controller has given some.
    pub pod_cidrs: Vec<IpPrefix>,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

impl Node {
    /// Its first internal address of a family.
    #[must_use]
    pub fn internal_ip(&self, v4: bool) -> Option<IpAddr> {
        self.internal_ips.iter().copied().find(|address| address.is_ipv4() == v4)
    }
}
