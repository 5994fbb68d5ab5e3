//! Endpoints of services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Name, Protocol};

/// A slice of a service's endpoints (`discovery.k8s.io/v1 EndpointSlice`) of address type IPv4 or IPv6; those of FQDNs are
/// not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Its name.
    pub name: Name,
    /// The service (label `kubernetes.io/service-name`), in the slice's namespace.
    pub service: String,
    /// Ports of every endpoint.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

impl EndpointSlice {
    /// The name of the service that it is of.
    #[must_use]
    pub fn service(&self) -> Name {
        Name::new(&*self.name.namespace, &*self.service)
    }
}

/// A port of a slice's endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPort {
    /// The name of the service's port.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number at the endpoints, 1 to 65535.
    pub port: u16,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `addresses[0]`: the only one that clients use, as the API says.
    pub address: IpAddr,
    /// `conditions.ready`; unknown is ready.
    pub ready: bool,
    /// `conditions.serving`; unknown is as `ready`.
    pub serving: bool,
    /// `conditions.terminating`; unknown is not.
    pub terminating: bool,
    /// `nodeName`.
    pub node: Option<String>,
    /// `hints.forZones[].name`.
    pub zones: BTreeSet<String>,
    /// `hints.forNodes[].name`.
    pub nodes: BTreeSet<String>,
}
