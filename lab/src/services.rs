//! The lab's services: one for each place where an endpoint can be.
//!
//! Every node knows every service; where an endpoint is local differs by node.

use std::net::IpAddr;

use crate::plan::{Family, vip};

/// A service with its endpoints. It has a TCP and a UDP port, and an address per family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// The last number of its addresses.
    pub number: u8,
    /// The endpoints: node and pod.
    pub endpoints: &'static [(u8, u8)],
    /// The port of every node that leads to it, over TCP and UDP.
    pub node_port: Option<u16>,
}

/// The node port of [`SECOND`].
pub const NODE_PORT: u16 = 30080;

/// One endpoint on the first node.
pub const FIRST: Service = Service { name: "first", number: 1, endpoints: &[(1, 2)], node_port: None };
/// One endpoint on the second node.
pub const SECOND: Service =
    Service { name: "second", number: 2, endpoints: &[(2, 2)], node_port: Some(NODE_PORT) };
/// An endpoint on each node.
pub const BOTH: Service = Service { name: "both", number: 3, endpoints: &[(1, 2), (2, 2)], node_port: None };
/// No endpoint.
pub const NOBODY: Service = Service { name: "nobody", number: 4, endpoints: &[], node_port: None };

/// All of them.
pub const SERVICES: [Service; 4] = [FIRST, SECOND, BOTH, NOBODY];

impl Service {
    /// Its virtual address.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        vip(self.number, family)
    }
}
