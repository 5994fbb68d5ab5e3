//! VRFs, interfaces, neighbours, routes, NAT rules, zones.

use crate::{Addr, plain};

/// A set of addresses, keyed by prefix: sources of guarded ports, peers of
/// tunnels, source ranges of services, matches of NAT rules, a node's own
/// addresses. `bits` counts from the set's number on.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Bits that count: 64 for set and family, then those of the prefix.
    pub bits: u32,
    /// The set.
    pub set: u32,
    /// Family.
    pub family: u32,
    /// The prefix.
    pub addr: Addr,
}

/// Bits of a [`Member`] or [`Route`] key before its address.
pub const FIXED_BITS: u32 = 64;

/// Key of a route.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Bits that count: 64 for VRF and family, then those of the prefix.
    pub bits: u32,
    /// VRF.
    pub vrf: u32,
    /// Family.
    pub family: u32,
    /// The prefix.
    pub addr: Addr,
}

/// Set in a route's value where it leads to a group.
pub const TO_GROUP: u32 = 1 << 31;

/// A next hop.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NextHop {
    /// See [`hop`].
    pub kind: u16,
    /// Interface or tunnel.
    pub via: u16,
    /// Family of the gateway; 0: the destination itself is on the link.
    pub family: u32,
    /// Gateway.
    pub gateway: Addr,
}

/// Kinds of next hops.
pub mod hop {
    /// On a link.
    pub const DIRECT: u16 = 1;
    /// Into a tunnel.
    pub const TUNNEL: u16 = 2;
    /// To the local stack.
    pub const HOST: u16 = 3;
    /// Nowhere.
    pub const BLACKHOLE: u16 = 4;
}

/// A group of next hops.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Members.
    pub count: u32,
    /// Seed of the hash.
    pub seed: u32,
    /// Sum of the weights.
    pub total: u64,
    /// Sum of the weights up to and including each member.
    pub up_to: [u32; crate::limits::GROUP_MEMBERS as usize],
    /// Places of the next hops.
    pub hops: [u32; crate::limits::GROUP_MEMBERS as usize],
}

/// Attributes of an L3 interface.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interface {
    /// MAC.
    pub mac: [u8; 6],
    /// See [`interface`].
    pub flags: u16,
    /// VRF.
    pub vrf: u16,
    /// Largest packet sent by it.
    pub mtu: u16,
    /// The link that it is on.
    pub link: crate::l2::Link,
    /// First IPv4 address.
    pub v4: u32,
    /// Nothing yet.
    pub reserved: u32,
    /// First IPv6 address.
    pub v6: Addr,
}

/// Flags of an L3 interface.
pub mod interface {
    /// It is configured.
    pub const EXISTS: u16 = 1;
    /// It is on a bridge.
    pub const ON_BRIDGE: u16 = 2;
    /// The local stack answers for it.
    pub const PUNT: u16 = 4;
    /// It has an IPv4 address.
    pub const V4: u16 = 8;
    /// It has an IPv6 address.
    pub const V6: u16 = 16;
}

/// Key of an address of a VRF: which interface has it, or what kind of VIP it is.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VrfAddr {
    /// VRF.
    pub vrf: u32,
    /// Family.
    pub family: u32,
    /// The address.
    pub addr: Addr,
}

/// Key of a neighbour.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighborKey {
    /// Interface.
    pub interface: u32,
    /// Family.
    pub family: u32,
    /// The address.
    pub addr: Addr,
}

/// A neighbour.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Neighbor {
    /// MAC.
    pub mac: [u8; 6],
    /// See [`neighbor`].
    pub state: u16,
    /// When it was last asked for, ns.
    pub asked: u64,
    /// When it is forgotten, ns.
    pub expires: u64,
}

/// States of neighbours.
pub mod neighbor {
    /// Asked, no answer yet.
    pub const INCOMPLETE: u16 = 0;
    /// Answered.
    pub const REACHABLE: u16 = 1;
    /// Configured.
    pub const FIXED: u16 = 2;
    /// Seconds for which a learned neighbour is kept without being heard of.
    pub const KEPT_S: u64 = 120;
    /// Seconds for which an answer is believed without asking again.
    pub const BELIEVED_S: u64 = 30;
}

/// Attributes of a VRF.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vrf {
    /// 1: configured.
    pub exists: u32,
    /// Zone; 0: untracked.
    pub zone: u32,
    /// Source of full NAT and DSR; 0: none.
    pub snat_v4: u32,
    /// Set of the node's own addresses; 0: none.
    pub node_local: u32,
    /// Source of full NAT and DSR; zero: none.
    pub snat_v6: Addr,
    /// First NAT rule.
    pub nat_base: u32,
    /// NAT rules.
    pub nat_count: u32,
}

/// A NAT rule, in a place that is written before anybody reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NatRule {
    /// See [`nat`].
    pub action: u8,
    /// Protocol, where it counts.
    pub protocol: u8,
    /// See [`nat_counts`].
    pub counts: u16,
    /// Lowest destination port.
    pub first: u16,
    /// Highest destination port.
    pub last: u16,
    /// Set of sources; 0: any.
    pub src: u32,
    /// Set of destinations; 0: any.
    pub dst: u32,
    /// Egress interface; 0: any.
    pub egress: u32,
    /// Lowest port of the translation, or the new destination port.
    pub low: u16,
    /// Highest port of the translation.
    pub high: u16,
    /// IPv4 addresses of the pool.
    pub pool_v4: u32,
    /// IPv6 addresses of the pool.
    pub pool_v6: u32,
    /// Where the pool begins: IPv4 addresses, then IPv6 ones.
    pub pool: u32,
    /// Family of the addresses below; 0: none.
    pub family: u32,
    /// Prefix length of static 1:1.
    pub length: u32,
    /// Its place among the VRF's rules, as configured.
    pub priority: u32,
    /// Inside prefix of static 1:1, or the new destination.
    pub inside: Addr,
    /// Outside prefix of static 1:1.
    pub outside: Addr,
}

/// Actions of NAT rules.
pub mod nat {
    /// Leave the source.
    pub const NO_NAT: u8 = 1;
    /// Source from a pool.
    pub const SNAT: u8 = 2;
    /// Source is the egress interface's address.
    pub const MASQUERADE: u8 = 3;
    /// Static 1:1.
    pub const ONE_TO_ONE: u8 = 4;
    /// Destination.
    pub const DNAT: u8 = 5;
}

/// What a NAT rule looks at besides addresses.
pub mod nat_counts {
    /// Destination ports.
    pub const PORTS: u16 = 1;
    /// The protocol.
    pub const PROTOCOL: u16 = 2;
}

/// Attributes of a conntrack zone.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Zone {
    /// 1: configured.
    pub exists: u32,
    /// 1: a TCP packet in the middle may open a flow.
    pub pickup: u32,
    /// Flows at most.
    pub max_flows: u32,
    /// Half-open ones at most; all ones: any.
    pub max_half_open: u32,
    /// Flows of one source at most; all ones: any.
    pub max_per_source: u32,
    /// Nothing yet.
    pub reserved: u32,
    /// Seconds without a packet after which a flow ends, by [`timeout`].
    pub timeouts: [u32; 16],
}

/// Index of a flow's idle time.
pub mod timeout {
    use crate::flow::state;

    /// UDP, both directions seen. UDP, one direction: [`state::UNREPLIED`].
    pub const UDP_STREAM: u8 = state::REPLIED;
    /// ICMP.
    pub const ICMP: u8 = 14;
    /// Tracked by addresses alone.
    pub const OTHER: u8 = 15;

    /// Which idle time a flow has.
    #[must_use]
    #[inline(always)]
    pub const fn index(state: u8, protocol: u8) -> u8 {
        if state < state::UNREPLIED {
            return state;
        }
        match protocol {
            17 => state,
            1 | 58 => ICMP,
            _ => OTHER,
        }
    }
}

/// Flows of a zone now. Each word is added to at once.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ZoneCount {
    /// Flows.
    pub flows: u64,
    /// Of these, half open.
    pub half_open: u64,
    /// Made since the start.
    pub created: u64,
    /// Nothing yet.
    pub reserved: u64,
}

/// Key of a source whose flows are counted.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Zone.
    pub zone: u32,
    /// Family.
    pub family: u32,
    /// The address.
    pub addr: Addr,
}

/// Key of a fragmented packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// Zone.
    pub zone: u8,
    /// Family.
    pub family: u8,
    /// Protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Identification, as it is in the packet.
    pub id: u32,
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
}

/// What is known of a fragmented packet's first fragment.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Reason for which the first was dropped; 0: it was not.
    pub reason: u32,
    /// When it is forgotten, ns.
    pub expires: u64,
}

/// Seconds for which a fragmented packet is remembered.
pub const FRAGMENT_S: u64 = 30;

plain! {
    Member = 28, Route = 28, NextHop = 24, Group = 528, Interface = 40, VrfAddr = 24, NeighborKey = 24, Neighbor = 24,
    Vrf = 40, NatRule = 80, Zone = 88, ZoneCount = 32, Source = 24, FragmentKey = 40, Fragment = 16,
}
