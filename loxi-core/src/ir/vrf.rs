//! VRFs: routing domains (RFC 4364's VRF, Linux' `vrf`).

use super::Origin;
use crate::net::{IpPrefix, VrfName, ZoneName};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

data! {
    /// A routing domain. Key: its name.
    pub struct Vrf {
        /// Its name.
        pub name: VrfName,
        /// Conntrack zone of packets that enter here; none: untracked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub zone: Option<ZoneName>,
        /// Source of IPv4 traffic that full NAT and DSR by IPIP send; on a node its `loxi_host` address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub snat_address_v4: Option<Ipv4Addr>,
        /// The same for IPv6.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub snat_address_v6: Option<Ipv6Addr>,
        /// Addresses of the node itself, whose traffic to local subjects no policy stops (kubelet probes).
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        pub node_local: BTreeSet<IpPrefix>,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}
