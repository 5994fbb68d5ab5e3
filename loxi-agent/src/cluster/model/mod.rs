//! What the agent keeps of the cluster: plain data, and only what some packet depends on.
//!
//! Sources make these from manifests or from the API's objects ([`super::convert`]) and refuse what can't be
//! meant; so whoever reads them need not check again. They are what the agent keeps on disk, too.

mod endpoints;
mod labels;
mod node;
mod pod;
mod policy;
mod service;

use std::fmt;

use loxi_core::net::IpProtocol;
use serde::{Deserialize, Serialize};

pub use endpoints::{Endpoint, EndpointPort, EndpointSlice};
pub use labels::{Expression, Labels, Operator, Selector};
pub use node::Node;
pub use pod::{ContainerPort, Namespace, Pod};
pub use policy::{IpBlock, NetworkPolicy, PeerPorts, PolicyPeer, PolicyPort, PolicyRule, PortRef};
pub use service::{ClientAffinity, Service, ServiceKind, ServicePort, TrafficDistribution, TrafficPolicy};

/// A transport protocol, as Kubernetes names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// The default.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp,
}

impl From<Protocol> for IpProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::TCP,
            Protocol::Udp => Self::UDP,
            Protocol::Sctp => Self::SCTP,
        }
    }
}

/// The name of an object: in a namespace, or without one (nodes, namespaces).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// The namespace; empty for objects without.
    pub namespace: String,
    /// The name there.
    pub name: String,
}

impl Name {
    /// A name in a namespace.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// A name without a namespace.
    #[must_use]
    pub fn of_cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

macro_rules! kinds {
    ($($kind:ident),+) => {
        /// The kinds of objects that the agent follows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $(#[doc = concat!("[`", stringify!($kind), "`].")] $kind,)+
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// As manifests name it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)+ }
            }
        }

        /// An object of any kind.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Object {
            $(#[doc = concat!("[`", stringify!($kind), "`].")] $kind($kind),)+
        }

        impl Object {
            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)+ }
            }

            /// Its name.
            #[must_use]
            pub fn name(&self) -> &Name {
                match self { $(Self::$kind(object) => &object.name,)+ }
            }

            /// Its kind and name.
            #[must_use]
            pub fn reference(&self) -> Reference {
                Reference { kind: self.kind(), name: self.name().clone() }
            }
        }

        $(impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(object)
            }
        })+
    };
}

kinds!(Node, Namespace, Pod, Service, EndpointSlice, NetworkPolicy);

/// What names an object: its kind and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: Name,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}
