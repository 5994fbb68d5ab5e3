//! Network policies.

use loxi_core::net::IpPrefix;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::{Name, Protocol, Selector};

/// A network policy (`networking.k8s.io/v1 NetworkPolicy`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// Its name.
    pub name: Name,
    /// `spec.podSelector`: pods of its namespace that it is about.
    pub pods: Selector,
    /// Rules of what may come in; none: it does not isolate in this direction (`policyTypes`, with its defaults).
    pub ingress: Option<Vec<PolicyRule>>,
    /// Rules of what may go out, likewise.
    pub egress: Option<Vec<PolicyRule>>,
}

/// What a policy allows: any of the peers at any of the ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// The other side; empty: anybody.
    pub peers: Vec<PolicyPeer>,
    /// Destination ports.
    pub ports: PeerPorts,
}

/// Destination ports of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerPorts {
    /// Every protocol and port.
    #[default]
    All,
    /// Any of these.
    These(Vec<PolicyPort>),
}

/// The other side of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyPeer {
    /// Pods by label.
    Pods {
        /// Of these namespaces; none: of the policy's own.
        namespaces: Option<Selector>,
        /// These pods of them.
        pods: Selector,
    },
    /// Addresses.
    Block(IpBlock),
}

/// Addresses of a block (`ipBlock`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpBlock {
    /// `cidr`.
    pub prefix: IpPrefix,
    /// `except`: inside of the block, and not meant.
    pub except: BTreeSet<IpPrefix>,
}

/// Destination ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// Which; none: all.
    pub port: Option<PortRef>,
}

/// Which destination port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortRef {
    /// From one number to another (`port`, `endPort`), both included.
    Range(u16, u16),
    /// What the destination pod calls so.
    Named(String),
}
