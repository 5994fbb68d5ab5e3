//! Tunnels: what they make, and where they end.

use crate::{Addr, plain};

/// Encapsulations.
pub mod kind {
    /// VXLAN.
    pub const VXLAN: u8 = 1;
    /// IP in IP.
    pub const IPIP: u8 = 2;
}

/// Attributes of a tunnel, in the half that is read.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// Outer source.
    pub local: Addr,
    /// Outer destination.
    pub remote: Addr,
    /// See [`kind`].
    pub kind: u8,
    /// Family of the outer header.
    pub family: u8,
    /// See [`flag`].
    pub flags: u16,
    /// VNI in the upper three bytes, network order, as it is in the header.
    pub vni: u32,
    /// Destination port, network order.
    pub port: u16,
    /// Lowest source port.
    pub first: u16,
    /// Highest source port.
    pub last: u16,
    /// TTL, where it isn't the inner one.
    pub ttl: u8,
    /// DSCP, shifted, where it isn't the inner one.
    pub tos: u8,
    /// Tunnel port.
    pub in_port: u16,
    /// VRF of the outer packet.
    pub vrf: u16,
    /// MTU of the tunnel port.
    pub mtu: u16,
    /// Bytes that it adds to an inner L3 packet.
    pub overhead: u16,
    /// Destination MAC of routed inner frames.
    pub inner_dst: [u8; 6],
    /// Source MAC of routed inner frames.
    pub inner_src: [u8; 6],
    /// Number of the remote address among path MTUs.
    pub endpoint: u32,
    /// 1: it is configured.
    pub exists: u32,
    /// Nothing yet.
    pub reserved: u32,
}

/// Flags of a tunnel.
pub mod flag {
    /// TTL is the inner one.
    pub const TTL_INHERIT: u16 = 1;
    /// DSCP is the inner one.
    pub const DSCP_INHERIT: u16 = 2;
    /// DF is set.
    pub const DF: u16 = 4;
    /// DF is the inner one.
    pub const DF_INHERIT: u16 = 8;
    /// The outer UDP checksum is computed.
    pub const CHECKSUM: u16 = 16;
}

/// Key of a termination; with VNI 0 and [`ANY_KEY`] of all of one UDP port.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndKey {
    /// Underlay VRF.
    pub vrf: u16,
    /// UDP port, network order; 0 for IP in IP.
    pub port: u16,
    /// Family.
    pub family: u8,
    /// See [`kind`]; plus 128 for the entry of all keys.
    pub kind: u8,
    /// Zero.
    pub reserved: u16,
    /// VNI as it is in the header.
    pub vni: u32,
    /// Outer destination.
    pub dst: Addr,
}

/// Added to the kind of an [`EndKey`] that stands for all keys of its port.
pub const ANY_KEY: u8 = 128;

/// Where a tunnel ends.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ending {
    /// Tunnel port.
    pub port: u16,
    /// 1: unknown keys are dropped (in the entry of all keys).
    pub exclusive: u16,
    /// Set of trusted peers.
    pub peers: u32,
}

/// Key of the tunnel back to an outer source.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackKey {
    /// Tunnel port.
    pub port: u16,
    /// Family.
    pub family: u16,
    /// Its outer destination.
    pub remote: Addr,
}

/// Key of the tunnel whose outer packet an ICMP error quotes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OuterKey {
    /// Underlay VRF.
    pub vrf: u16,
    /// UDP port, network order; 0 for IP in IP.
    pub port: u16,
    /// Family.
    pub family: u8,
    /// See [`kind`].
    pub kind: u8,
    /// Zero.
    pub reserved: u16,
    /// Outer source.
    pub local: Addr,
    /// Outer destination.
    pub remote: Addr,
}

/// Key of a remote address's number among path MTUs.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// Family.
    pub family: u32,
    /// The address.
    pub addr: Addr,
}

/// A lowered path MTU in one word: MTU in the low 16 bits, the tick at which it
/// is forgotten above them.
#[must_use]
#[inline(always)]
pub const fn path_mtu(mtu: u16, until: u32) -> u64 {
    mtu as u64 | (until as u64) << 16
}

/// The largest outer packet: the link's, or the lower path MTU while it holds.
#[must_use]
#[inline(always)]
pub const fn outer_mtu(word: u64, tick: u32, link: u16) -> u16 {
    let (mtu, until) = (word as u16, (word >> 16) as u32);
    if word != 0 && until > tick && mtu < link { mtu } else { link }
}

/// A lowered path MTU that was never believed: while a tunnel changes, packets towards its ends go the long way.
pub const PATH_CHANGES: u64 = path_mtu(u16::MAX, 0);

/// Seconds for which a lowered path MTU is believed.
pub const PATH_MTU_S: u64 = 600;

plain! {
    Tunnel = 80, EndKey = 28, Ending = 8, BackKey = 20, OuterKey = 40, EndpointKey = 20,
}
