//! Static forwarding entries of a bridge.

use super::Origin;
use crate::net::{BridgeName, MacAddr, PortName, TunnelName, VlanId};

data! {
    /// Where a station is.
    pub enum FdbTarget {
        /// Behind a port of the bridge.
        Port(PortName),
        /// Behind a tunnel; the frame is carried whole.
        Tunnel(TunnelName),
    }
}

data! {
    /// Key of an FDB entry, static or learned.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct FdbKey {
        /// The bridge.
        pub bridge: BridgeName,
        /// The VLAN.
        pub vlan: VlanId,
        /// The station.
        pub mac: MacAddr,
    }
}

data! {
    /// A static forwarding entry: never aged, never moved by learning.
    pub struct Fdb {
        /// The bridge.
        pub bridge: BridgeName,
        /// The VLAN; 1 unless given.
        #[serde(default)]
        pub vlan: VlanId,
        /// The station, a unicast address.
        pub mac: MacAddr,
        /// Where it is.
        pub target: FdbTarget,
        /// Where the entry came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl Fdb {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> FdbKey {
        FdbKey { bridge: self.bridge.clone(), vlan: self.vlan, mac: self.mac }
    }
}

impl std::fmt::Display for FdbKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} vlan {} {}", self.bridge, self.vlan, self.mac)
    }
}
