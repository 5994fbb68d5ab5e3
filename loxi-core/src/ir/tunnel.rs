//! Tunnels: encapsulation towards a peer, and what ends here.

use super::Origin;
use crate::net::{IpPrefix, L4Ports, MacAddr, PortName, TerminationName, TunnelName, Vni, VrfName};
use std::collections::BTreeSet;
use std::net::IpAddr;

data! {
    /// Encapsulation and its key: what a tunnel makes, and what tells one tunnel's packets from another's.
    #[derive(Copy)]
    pub enum TunnelKind {
        /// VXLAN (RFC 7348).
        Vxlan {
            /// Network identifier.
            vni: Vni,
            /// UDP destination port, 4789 unless given.
            #[serde(default = "crate::defaults::vxlan_port")]
            port: u16,
        },
        /// IP in IP, of either family in either (RFC 2003, RFC 2473, RFC 4213).
        Ipip,
    }
}

data! {
    /// TTL or hop limit of the outer header.
    #[derive(Copy)]
    pub enum OuterTtl {
        /// This value, 1 to 255 (the pipe model of RFC 3443).
        Fixed(u8),
        /// The inner packet's (the uniform model).
        Inherit,
    }
}

impl Default for OuterTtl {
    /// 64, the default of RFC 1700 and of Linux.
    fn default() -> Self {
        Self::Fixed(64)
    }
}

data! {
    /// DSCP of the outer header (RFC 2983).
    #[derive(Copy)]
    pub enum OuterDscp {
        /// This code point, 0 to 63.
        Fixed(u8),
        /// The inner packet's.
        Inherit,
    }
}

impl Default for OuterDscp {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

data! {
    /// Don't Fragment of an outer IPv4 header.
    #[derive(Copy, Default)]
    pub enum OuterDf {
        /// Set, as RFC 7348 section 4.3 wants no fragmentation by VTEPs.
        #[default]
        Set,
        /// Clear.
        Clear,
        /// The inner packet's (set where the inner is IPv6).
        Inherit,
    }
}

data! {
    /// Checksum of the outer UDP header.
    #[derive(Copy, Default)]
    pub enum UdpChecksum {
        /// Zero, as RFC 7348 recommends and RFC 6935 allows over IPv6.
        #[default]
        Zero,
        /// Computed.
        Computed,
    }
}

data! {
    /// An encapsulation towards one peer. Key: its name.
    ///
    /// ECN follows RFC 6040: the outer header copies the inner field, and
    /// decapsulation combines the two (normal mode).
    pub struct Tunnel {
        /// Its name.
        pub name: TunnelName,
        /// Encapsulation.
        pub kind: TunnelKind,
        /// VRF in which the outer packet is routed.
        pub underlay_vrf: VrfName,
        /// Outer source.
        pub local: IpAddr,
        /// Outer destination.
        pub remote: IpAddr,
        /// Tunnel port that shows its counters and carries its MTU and inner source MAC.
        pub port: PortName,
        /// Destination MAC of routed inner frames; needed where the encapsulation carries Ethernet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub inner_dst_mac: Option<MacAddr>,
        /// Outer TTL.
        #[serde(default)]
        pub ttl: OuterTtl,
        /// Outer DSCP.
        #[serde(default)]
        pub dscp: OuterDscp,
        /// Outer DF.
        #[serde(default)]
        pub df: OuterDf,
        /// Outer UDP checksum.
        #[serde(default)]
        pub udp_checksum: UdpChecksum,
        /// Range of the outer UDP source port, chosen by hash of the inner flow (RFC 7348 section 5).
        #[serde(default = "crate::defaults::entropy_ports")]
        pub source_ports: L4Ports,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

data! {
    /// Key of a termination: no two may claim the same packets.
    #[derive(PartialOrd, Ord, Hash)]
    pub struct TerminationKey {
        /// Underlay VRF.
        pub vrf: VrfName,
        /// Outer destination.
        pub dst: IpAddr,
        /// Encapsulation and key.
        pub matches: TunnelKind,
    }
}

data! {
    /// Where tunnels end. Only packets that enter by an `underlay` port, from
    /// one of the peers, are decapsulated; the inner packet restarts at the
    /// tunnel port.
    pub struct TunnelTermination {
        /// A name for people; unique.
        pub name: TerminationName,
        /// Underlay VRF.
        pub vrf: VrfName,
        /// Outer destination.
        pub dst: IpAddr,
        /// Encapsulation and key.
        pub matches: TunnelKind,
        /// Outer sources that are trusted; others are dropped (`tunnel_untrusted_peer`).
        pub peers: BTreeSet<IpPrefix>,
        /// Tunnel port where the inner packet restarts.
        pub port: PortName,
        /// Whether packets for `dst` with an unknown key are dropped
        /// (`tunnel_unknown_key`) rather than left to others.
        #[serde(default)]
        pub exclusive: bool,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}

impl TunnelTermination {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> TerminationKey {
        TerminationKey { vrf: self.vrf.clone(), dst: self.dst, matches: self.matches }
    }
}

impl std::fmt::Display for TunnelKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vxlan { vni, port } => write!(f, "vxlan {vni} udp {port}"),
            Self::Ipip => f.write_str("ipip"),
        }
    }
}

impl std::fmt::Display for TerminationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.vrf, self.dst, self.matches)
    }
}
