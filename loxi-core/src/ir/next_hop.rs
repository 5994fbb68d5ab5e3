//! Next hops and groups of them (ECMP, RFC 2992).

use super::Origin;
use crate::net::{GroupName, InterfaceName, NextHopName, TunnelName};
use std::net::IpAddr;

data! {
    /// What a next hop does with a packet.
    pub enum NextHopAction {
        /// Sends it on a link.
        Direct {
            /// Egress L3 interface.
            interface: InterfaceName,
            /// Router on that link; none: the packet's own destination is on the link.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            gateway: Option<IpAddr>,
        },
        /// Sends it into a tunnel.
        Tunnel(TunnelName),
        /// Leaves it to the local stack (`not_ours_route`).
        Host,
        /// Drops it (`blackhole`), without an ICMP error.
        Blackhole,
    }
}

data! {
    /// A way out of a VRF. Key: its name.
    pub struct NextHop {
        /// Its name.
        pub name: NextHopName,
        /// What it does.
        pub action: NextHopAction,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

data! {
    /// A member of a group.
    pub struct GroupMember {
        /// The next hop.
        pub next_hop: NextHopName,
        /// Share of the flows, 1 to 65535.
        #[serde(default = "crate::defaults::weight")]
        pub weight: u16,
    }
}

data! {
    /// Next hops among which flows are divided by hash-threshold over the
    /// 5-tuple with the group's seed: [`crate::algo::flow_hash`]. Key: its name.
    pub struct NextHopGroup {
        /// Its name.
        pub name: GroupName,
        /// Members in order; at least one.
        pub members: Vec<GroupMember>,
        /// Seed of the hash, so that two stages don't polarise.
        #[serde(default)]
        pub seed: u32,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}
