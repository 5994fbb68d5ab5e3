//! Virtual addresses: who answers what no service claims.

use super::Origin;
use crate::net::VrfName;
use std::net::IpAddr;

data! {
    /// What happens to traffic for an exclusive address that no service claims.
    #[derive(Copy, Default)]
    pub enum OtherPorts {
        /// RST or ICMP port unreachable (`no_service`).
        #[default]
        Reject,
        /// Silence (`no_service`).
        Drop,
    }
}

data! {
    /// Whether an address is ours alone.
    #[derive(Copy)]
    pub enum VipMode {
        /// Ours alone: nothing for it is ever forwarded.
        Exclusive {
            /// Traffic that no service claims.
            #[serde(default)]
            other: OtherPorts,
            /// Whether the dataplane answers echo requests.
            #[serde(default)]
            echo: bool,
        },
        /// Shared with somebody else (a node's address): other traffic is not ours where the port leaves
        /// such to the local stack ([`super::Port::unclaimed`]), and elsewhere forwarded.
        Shared,
    }
}

data! {
    /// Key of a virtual address.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct VipKey {
        /// Routing domain.
        pub vrf: VrfName,
        /// The address.
        pub address: IpAddr,
    }
}

data! {
    /// An address on which services live.
    pub struct VipAddress {
        /// Routing domain.
        pub vrf: VrfName,
        /// The address.
        pub address: IpAddr,
        /// Ours alone or shared.
        pub mode: VipMode,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl VipAddress {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> VipKey {
        VipKey { vrf: self.vrf.clone(), address: self.address }
    }
}

impl std::fmt::Display for VipKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.vrf, self.address)
    }
}
