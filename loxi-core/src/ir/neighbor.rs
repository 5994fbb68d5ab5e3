//! Static neighbours (ARP, RFC 826; Neighbor Discovery, RFC 4861).

use super::Origin;
use crate::net::{InterfaceName, MacAddr};
use std::net::IpAddr;

data! {
    /// Key of a neighbour, static or learned.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct NeighborKey {
        /// The L3 interface on whose link it is.
        pub interface: InterfaceName,
        /// Its address.
        pub address: IpAddr,
    }
}

data! {
    /// A static neighbour. It wins over a learned one and is never probed.
    pub struct Neighbor {
        /// The L3 interface on whose link it is.
        pub interface: InterfaceName,
        /// Its address.
        pub address: IpAddr,
        /// Its MAC, a unicast address.
        pub mac: MacAddr,
        /// Where the entry came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl Neighbor {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> NeighborKey {
        NeighborKey { interface: self.interface.clone(), address: self.address }
    }
}

impl std::fmt::Display for NeighborKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.interface, self.address)
    }
}
