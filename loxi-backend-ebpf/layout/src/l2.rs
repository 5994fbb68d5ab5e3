//! Ports, bridges, stations.

use crate::{Addr, plain};

/// Attributes of a port, in the half that is read.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Port {
    /// The station's MAC, or the port's own.
    pub mac: [u8; 6],
    /// See [`port`].
    pub flags: u16,
    /// MAC of the first L3 interface on the port's link; zero: none.
    pub gateway: [u8; 6],
    /// Access or native VLAN.
    pub vlan: u16,
    /// Device by which packets leave, as the dataplane's side of the port names it.
    pub ifindex: u32,
    /// Largest L3 packet.
    pub mtu: u16,
    /// Zone of what enters; 0: untracked.
    pub zone: u8,
    /// See [`kind`].
    pub kind: u8,
    /// Bridge; 0: none.
    pub bridge: u16,
    /// VRF of a routed port; 0: none.
    pub vrf: u16,
    /// First L3 interface on the port's link; 0: none.
    pub interface: u16,
    /// Split-horizon group, where [`port::SPLIT`] is set.
    pub split: u16,
    /// Set of addresses of a guarded port.
    pub guard: u32,
    /// See [`side`].
    pub side: u8,
    /// See [`exit`].
    pub exit: u8,
    /// Nothing yet.
    pub reserved: u16,
    /// Nothing yet.
    pub spare: [u64; 2],
}

/// A port's halves, padded to two cache lines; the first half shares one with the selector.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PortPair {
    /// Both halves.
    pub pair: crate::pair::Pair<Port>,
    /// Nothing yet.
    pub reserved: u64,
}

/// Flags of a port.
pub mod port {
    /// It is configured.
    pub const EXISTS: u16 = 1;
    /// Administratively up.
    pub const UP: u16 = 2;
    /// Up, and attached or without a device: packets may leave.
    pub const OPEN: u16 = 4;
    /// Tunnels may end here.
    pub const UNDERLAY: u16 = 8;
    /// What nobody claims goes to the local stack.
    pub const PUNT: u16 = 16;
    /// Clients behind it are outside.
    pub const EXTERNAL: u16 = 32;
    /// A source guard is on.
    pub const GUARDED: u16 = 64;
    /// The guard admits DHCP clients.
    pub const DHCP: u16 = 128;
    /// The guard has MACs besides the port's own.
    pub const GUARD_MACS: u16 = 256;
    /// VLANs are tagged.
    pub const TRUNK: u16 = 512;
    /// A trunk has a native VLAN.
    pub const NATIVE: u16 = 1024;
    /// Sources are learned here.
    pub const LEARN: u16 = 2048;
    /// It is a bridge's member.
    pub const BRIDGED: u16 = 4096;
    /// It is attached to a VRF.
    pub const ROUTED: u16 = 8192;
    /// It has a split-horizon group.
    pub const SPLIT: u16 = 16384;
}

/// Kinds of ports.
pub mod kind {
    /// A pod.
    pub const POD: u8 = 1;
    /// The node's own stack.
    pub const HOST: u8 = 2;
    /// A physical network.
    pub const UPLINK: u8 = 3;
    /// The inside of a tunnel.
    pub const TUNNEL: u8 = 4;
    /// A representor.
    pub const REPRESENTOR: u8 = 5;
}

/// Network namespaces that ports are in.
pub mod side {
    /// The root namespace.
    pub const ROOT: u8 = 0;
    /// The dataplane's.
    pub const DATAPLANE: u8 = 1;
}

/// How packets get out of a port's device: bits.
pub mod exit {
    /// It is a veth whose other end is in another namespace: they arrive there at once. Else they are sent.
    pub const PEER: u8 = 1;
    /// XDP may send there too.
    pub const XDP: u8 = 2;
    /// It is no veth: what comes in by it may have a checksum of all of it, which the device has taken.
    pub const SUMS: u8 = 4;
}

/// Policy of a port. Each word is changed at once.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortPolicy {
    /// Groups of rules for connections that it opens (low) and accepts (high); 0: none.
    pub groups: u64,
    /// Generation.
    pub generation: u64,
}

/// A key of a port and a number: VLANs that it carries.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortVlan {
    /// Port.
    pub port: u16,
    /// VLAN.
    pub vlan: u16,
}

/// A MAC of a guarded port besides its own, by the port's set of addresses: both change at once.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuardMac {
    /// The port's set.
    pub set: u32,
    /// MAC.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: u16,
}

/// Attributes of a bridge.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bridge {
    /// See [`bridge`].
    pub flags: u32,
    /// Zone of what enters; 0: untracked.
    pub zone: u32,
    /// ns after which a learned station is forgotten.
    pub ageing: u64,
    /// Learned stations at most.
    pub max_stations: u64,
}

/// Flags of a bridge.
pub mod bridge {
    /// It is configured.
    pub const EXISTS: u32 = 1;
    /// Unknown unicast is flooded.
    pub const FLOOD_UNKNOWN: u32 = 2;
    /// Multicast is flooded.
    pub const FLOOD_MULTICAST: u32 = 4;
    /// Broadcast is flooded.
    pub const FLOOD_BROADCAST: u32 = 8;
    /// Every ethertype is bridged.
    pub const ANY_ETHERTYPE: u32 = 16;
    /// Questions for static neighbours are answered.
    pub const PROXY: u32 = 32;
}

/// A VLAN that a port carries: bits of the value of a [`PortVlan`].
pub mod carried {
    /// Tagged frames of it may come in.
    pub const TAGGED: u32 = 1;
    /// Its frames leave untagged.
    pub const NATIVE: u32 = 2;
}

/// A link: a VLAN of a bridge, or a port.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Bridge or port.
    pub id: u16,
    /// VLAN; 0 for a port.
    pub vlan: u16,
}

/// A station: key of the forwarding table, and of the MACs that admit to L3.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Station {
    /// Bridge, or port where the VLAN is 0.
    pub link: Link,
    /// MAC.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: u16,
}

/// Where a station is.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StationAt {
    /// Port.
    pub port: u16,
    /// Tunnel; 0: none.
    pub tunnel: u16,
    /// 1: configured, else learned.
    pub fixed: u32,
    /// When it is forgotten, ns.
    pub expires: u64,
}

/// An address on a link: which interface has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddr {
    /// The link.
    pub link: Link,
    /// Family.
    pub family: u32,
    /// The address.
    pub addr: Addr,
}

plain! {
    Port = 56, PortPair = 128, PortPolicy = 16, PortVlan = 4, GuardMac = 12, Bridge = 24, Link = 4, Station = 12, StationAt = 16,
    LinkAddr = 24,
}
