//! Pods, and the namespaces that selectors know them by.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Labels, Name, Protocol};

/// A namespace (`core/v1 Namespace`): its labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name.
    pub name: Name,
    /// `metadata.labels`, with `kubernetes.io/metadata.name` as the API server sets it.
    pub labels: Labels,
}

/// A pod (`core/v1 Pod`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name.
    pub name: Name,
    /// `metadata.uid`: another pod of the same name has another.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.nodeName`; none while it isn't scheduled.
    pub node: Option<String>,
    /// `spec.hostNetwork`: then its addresses are the node's, and policies don't select it.
    pub host_network: bool,
    /// `status.podIPs`, one per family at most.
    pub ips: Vec<IpAddr>,
    /// Whether `status.phase` is `Succeeded` or `Failed`: its addresses may be another's by now.
    pub finished: bool,
    /// Ports of its containers (and of init containers that restart always) that have a name.
    pub ports: Vec<ContainerPort>,
}

impl Pod {
    /// Whether policies and peers see it at its addresses.
    #[must_use]
    pub fn is_on_the_pod_network(&self) -> bool {
        !self.host_network && !self.finished && !self.ips.is_empty()
    }

    /// The number of a named port of a protocol.
    #[must_use]
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.ports.iter().find(|port| port.name == name && port.protocol == protocol).map(|port| port.number)
    }
}

/// A named port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number, 1 to 65535.
    pub number: u16,
}
