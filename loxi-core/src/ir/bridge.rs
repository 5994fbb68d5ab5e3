//! Bridges: L2 domains with a forwarding database per VLAN (IEEE 802.1Q).

use super::Origin;
use crate::net::{BridgeName, TunnelName, ZoneName};
use std::collections::BTreeSet;

data! {
    /// What a bridge does with a class of frames that has no single destination.
    #[derive(Copy, Default)]
    pub enum Flooding {
        /// To every other member of the VLAN.
        #[default]
        Flood,
        /// Nowhere (`fdb_miss`).
        Drop,
    }
}

data! {
    /// An L2 domain. Key: its name.
    pub struct Bridge {
        /// Its name.
        pub name: BridgeName,
        /// Conntrack zone of packets that enter here; none: untracked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub zone: Option<ZoneName>,
        /// Whether source addresses are learned at all.
        #[serde(default = "crate::defaults::yes")]
        pub learning: bool,
        /// Seconds after which a learned address is forgotten, 10 to 1,000,000
        /// (IEEE 802.1Q, table 8-11; default 300).
        #[serde(default = "crate::defaults::ageing_s")]
        pub ageing_s: u32,
        /// Learned addresses at most; beyond it a source is not learned.
        #[serde(default = "crate::defaults::max_macs")]
        pub max_macs: u32,
        /// Unicast to an address that is not in the FDB.
        #[serde(default)]
        pub unknown_unicast: Flooding,
        /// Group addresses other than broadcast.
        #[serde(default)]
        pub multicast: Flooding,
        /// Broadcast.
        #[serde(default)]
        pub broadcast: Flooding,
        /// Whether ethertypes besides IPv4, IPv6 and ARP are bridged; else `unsupported_l2`.
        #[serde(default)]
        pub any_ethertype: bool,
        /// Whether ARP and NS are answered on behalf of static neighbours of the
        /// L3 interfaces on this bridge (RFC 1027, RFC 4389).
        #[serde(default)]
        pub proxy_neighbors: bool,
        /// Tunnels that get a copy of every flooded frame (head-end replication, RFC 7432
        /// section 11.2).
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        pub flood_tunnels: BTreeSet<TunnelName>,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}
