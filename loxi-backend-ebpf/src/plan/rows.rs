//! The plan's vocabulary: what stands in the tables, by names.
//!
//! A [`RowKey`] names a row, a [`Row`] is what it says. Numbers of ports, slots
//! of endpoints and the like are given out by whoever installs a plan, so that a plan depends on the
//! pipeline alone. What is learned, attached or counted is no row.
//!
//! Rows come in [`Unit`]s: the smallest parts that are compiled by themselves. Every row belongs to
//! one unit, which its key tells ([`RowKey::unit`]).

use loxi_core::ir::{FdbKey, NatKey, NeighborKey, RouteKey, ServiceKey, VipKey};
use loxi_core::net::{
    BackendName, BridgeName, GroupName, InterfaceName, IpPrefix, L4Ports, MacAddr, NextHopName, PortName,
    TerminationName, TunnelName, VrfName, ZoneName,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// First 16 bytes of a SHA-256: names something by its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A link: a VLAN of a bridge, a bridge as a whole, or a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkRef {
    /// A VLAN of a bridge.
    Vlan(BridgeName, u16),
    /// A port attached to a VRF.
    Port(PortName),
}

/// What a set of addresses is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetRef {
    /// Sources of a guarded port.
    Guard(PortName),
    /// A VRF's own addresses.
    NodeLocal(VrfName),
    /// Trusted peers of a termination.
    Peers(TerminationName),
    /// Clients of a service.
    Sources(ServiceKey),
    /// Sources that a NAT rule means.
    NatSrc(NatKey),
    /// Destinations that a NAT rule means.
    NatDst(NatKey),
}

/// Encapsulation of a termination or tunnel, without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encap {
    /// VXLAN at a UDP port.
    Vxlan(u16),
    /// IP in IP.
    Ipip,
}

/// Names a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// A conntrack zone.
    Zone(ZoneName),
    /// A VRF.
    Vrf(VrfName),
    /// A bridge.
    Bridge(BridgeName),
    /// An address or prefix in a set.
    Member(SetRef, IpPrefix),
    /// An L3 interface.
    Interface(InterfaceName),
    /// First interface of a link of a bridge.
    FirstOn(LinkRef),
    /// A MAC that admits to L3, and the interface that it is of.
    Admit(LinkRef, MacAddr),
    /// An address of an interface on a link.
    LinkAddr(LinkRef, IpAddr),
    /// An address of a VRF's interfaces.
    LocalAddr(VrfName, IpAddr),
    /// A static neighbour.
    Neighbor(NeighborKey),
    /// The interface on a link that has a static neighbour of this address.
    Proxy(LinkRef, IpAddr),
    /// A path MTU's place for an outer destination.
    Endpoint(IpAddr),
    /// A tunnel.
    Tunnel(TunnelName),
    /// The tunnel back from a tunnel port to an outer source.
    Back(PortName, IpAddr),
    /// The tunnel of an outer header: VRF, encapsulation, local, remote.
    Outer(VrfName, Encap, IpAddr, IpAddr),
    /// A UDP port where an IPv6 packet may come without checksum.
    BareUdp(u16),
    /// A static station.
    Station(FdbKey),
    /// A next hop.
    NextHop(NextHopName),
    /// A group of next hops.
    Group(GroupName),
    /// A route.
    Route(RouteKey),
    /// A VRF's NAT rules.
    Nat(VrfName),
    /// An endpoint.
    Backend(BackendName),
    /// A virtual address.
    Vip(VipKey),
    /// A service.
    Service(ServiceKey),
    /// A group of policy rules.
    Rules(Digest),
    /// The rules of a group that mean a class of peers; no class: peers that nothing names.
    PeerRules(Digest, Option<Digest>),
    /// The rules of a group that mean a protocol (none: any other) and a prefix of a port's bits.
    PortRules(Digest, Option<u8>, PortBits),
    /// The class of peers of a prefix.
    Peer(IpPrefix),
    /// Where a tunnel ends: VRF, destination, encapsulation, VNI (0 for IP in IP).
    End(VrfName, IpAddr, Encap, u32),
    /// Whether unknown keys of an encapsulation are dropped there.
    EndAny(VrfName, IpAddr, Encap),
    /// A VLAN that a trunk carries.
    PortVlan(PortName, u16),
    /// A MAC of a guarded port besides its own.
    PortMac(PortName, MacAddr),
    /// The groups of rules of a port.
    PortPolicy(PortName),
    /// A port.
    Port(PortName),
}

/// A prefix of a port's 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortBits {
    /// Bits that count, 0 to 16.
    pub bits: u8,
    /// The port; bits that don't count are 0.
    pub port: u16,
}

/// What a row says. Flags that a layout module names are given by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// It is there, and that is all.
    Present,
    /// A zone.
    Zone(ZoneRow),
    /// A VRF.
    Vrf(VrfRow),
    /// A bridge.
    Bridge(BridgeRow),
    /// An interface is meant.
    Is(InterfaceName),
    /// An interface.
    Interface(InterfaceRow),
    /// A MAC.
    Mac(MacAddr),
    /// A tunnel.
    Tunnel(TunnelRow),
    /// A tunnel is meant.
    By(TunnelName),
    /// Where a station is: its port and, behind a tunnel port, the tunnel.
    At(PortName, Option<TunnelName>),
    /// A next hop.
    NextHop(NextHopRow),
    /// A group of next hops.
    Group(GroupRow),
    /// A route's next hop.
    ToNextHop(NextHopName),
    /// A route's group.
    ToGroup(GroupName),
    /// NAT rules in order.
    Nat(Vec<NatRow>),
    /// An endpoint.
    Backend(BackendRow),
    /// [`loxi_ebpf_layout::lb::vip`], [`loxi_ebpf_layout::l2::carried`] or the like.
    Flags(u32),
    /// A service.
    Service(ServiceRow),
    /// A group of policy rules.
    Rules(RulesRow),
    /// Bits of rules.
    Bits(Bits),
    /// A class of peers.
    Class(Digest),
    /// Where a tunnel ends.
    End(EndRow),
    /// A port's groups of rules.
    PortPolicy(PortPolicyRow),
    /// A port.
    Port(PortRow),
}

/// One bit per rule of a group.
pub type Bits = [u64; loxi_ebpf_layout::limits::POLICY_WORDS];

/// See [`loxi_core::ir::CtZone`]. Idle times by [`loxi_ebpf_layout::l3::timeout`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneRow {
    /// Flows at most.
    pub max_flows: u32,
    /// Half-open ones at most.
    pub max_half_open: Option<u32>,
    /// Flows of one source at most.
    pub max_per_source: Option<u32>,
    /// Whether a TCP packet in the middle may open a flow.
    pub pickup: bool,
    /// Seconds, by [`loxi_ebpf_layout::l3::timeout::index`].
    pub timeouts: [u32; 16],
}

/// A VRF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VrfRow {
    /// Zone of what enters by a port.
    pub zone: Option<ZoneName>,
    /// Source of full NAT and DSR.
    pub snat_v4: Option<std::net::Ipv4Addr>,
    /// The same for IPv6.
    pub snat_v6: Option<std::net::Ipv6Addr>,
    /// Whether it has addresses of the node's own ([`SetRef::NodeLocal`]).
    pub node_local: bool,
}

/// A bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeRow {
    /// [`loxi_ebpf_layout::l2::bridge`].
    pub flags: u32,
    /// Zone of what enters.
    pub zone: Option<ZoneName>,
    /// Seconds after which a learned station is forgotten.
    pub ageing_s: u32,
    /// Learned stations at most.
    pub max_stations: u32,
}

/// An L3 interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceRow {
    /// Its link.
    pub link: LinkRef,
    /// VRF.
    pub vrf: VrfName,
    /// MAC.
    pub mac: MacAddr,
    /// Largest packet sent by it.
    pub mtu: u16,
    /// Whether the local stack answers for it.
    pub punt: bool,
    /// First IPv4 address.
    pub v4: Option<std::net::Ipv4Addr>,
    /// First IPv6 address.
    pub v6: Option<std::net::Ipv6Addr>,
}

/// A tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelRow {
    /// Encapsulation.
    pub encap: Encap,
    /// VNI; 0 for IP in IP.
    pub vni: u32,
    /// VRF of the outer packet.
    pub vrf: VrfName,
    /// Outer source.
    pub local: IpAddr,
    /// Outer destination.
    pub remote: IpAddr,
    /// Tunnel port.
    pub port: PortName,
    /// MTU of the tunnel port.
    pub mtu: u16,
    /// Destination MAC of routed inner frames; zero: none.
    pub inner_dst: MacAddr,
    /// The tunnel port's MAC.
    pub inner_src: MacAddr,
    /// [`loxi_ebpf_layout::tunnel::flag`].
    pub flags: u16,
    /// TTL, where it isn't the inner one.
    pub ttl: u8,
    /// DSCP, shifted to its place, where it isn't the inner one.
    pub tos: u8,
    /// Range of the outer source port.
    pub source_ports: L4Ports,
}

/// A next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHopRow {
    /// On a link, by a gateway or by itself.
    Direct(InterfaceName, Option<IpAddr>),
    /// Into a tunnel.
    Tunnel(TunnelName),
    /// To the local stack.
    Host,
    /// Nowhere.
    Blackhole,
}

/// A group of next hops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRow {
    /// Seed of the hash.
    pub seed: u32,
    /// Members with their weights.
    pub members: Vec<(NextHopName, u16)>,
}

/// A NAT rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatRow {
    /// Which rule it is.
    pub key: NatKey,
    /// Protocol.
    pub protocol: Option<u8>,
    /// Destination ports.
    pub ports: Option<L4Ports>,
    /// Whether sources count ([`SetRef::NatSrc`]).
    pub src: bool,
    /// Whether destinations count ([`SetRef::NatDst`]).
    pub dst: bool,
    /// Egress interface.
    pub egress: Option<InterfaceName>,
    /// What it does.
    pub action: NatActionRow,
}

/// What a NAT rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatActionRow {
    /// Leaves the source.
    NoNat,
    /// Source from a pool, IPv4 addresses first, each family in order.
    Snat(Vec<IpAddr>, L4Ports),
    /// Source is the egress interface's address.
    Masquerade(L4Ports),
    /// Static 1:1: inside, outside.
    OneToOne(IpPrefix, IpPrefix),
    /// New destination; port 0 keeps it.
    Dnat(IpAddr, u16),
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRow {
    /// Address.
    pub address: IpAddr,
    /// Port; 0 keeps the packet's.
    pub port: u16,
    /// Share.
    pub weight: u16,
    /// Whether it runs here.
    pub local: bool,
    /// Whether it takes no part: each time it becomes so, its slot gets a new generation.
    pub down: bool,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRow {
    /// [`loxi_ebpf_layout::lb::mode`].
    pub mode: u8,
    /// [`loxi_ebpf_layout::lb::algorithm`].
    pub algorithm: u8,
    /// The core's number of the reason where no endpoint may be used; 0: one may.
    pub refusal: u8,
    /// Whether a refusal is answered.
    pub reject: bool,
    /// Whether clients are limited ([`SetRef::Sources`]).
    pub sources: bool,
    /// Seconds of affinity.
    pub affinity_s: Option<u32>,
    /// Eligible endpoints in name order: name, address, port, weight.
    pub list: Vec<(BackendName, IpAddr, u16, u16)>,
    /// Endpoints that get nothing now, in name order: a change of one leads by its name to the
    /// services in which it may become eligible.
    pub idle: Vec<BackendName>,
    /// Places of the table of hashes; 0: it has none. Its content follows from the list
    /// ([`loxi_core::algo::MaglevTable`]).
    pub table: u32,
}

impl ServiceRow {
    /// Every endpoint by name, whether it is used or not.
    pub fn backends(&self) -> impl Iterator<Item = &BackendName> {
        self.list.iter().map(|(name, ..)| name).chain(&self.idle)
    }
}

/// A group of policy rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesRow {
    /// Rules that allow.
    pub allow: Bits,
    /// Rules that deny; what is neither passes.
    pub deny: Bits,
    /// Words of the tier `admin` end here.
    pub admin: u32,
    /// Words of the tier `network_policy` end here.
    pub network_policy: u32,
    /// Whether what no rule of `network_policy` allows is refused.
    pub isolated: bool,
}

/// Where a tunnel ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndRow {
    /// Tunnel port.
    pub port: PortName,
    /// Name of the termination, whose peers are [`SetRef::Peers`].
    pub name: TerminationName,
}

/// A port's groups of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortPolicyRow {
    /// For connections that it opens.
    pub egress: Option<Digest>,
    /// For connections that it accepts.
    pub ingress: Option<Digest>,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRow {
    /// MAC.
    pub mac: MacAddr,
    /// [`loxi_ebpf_layout::l2::kind`].
    pub kind: u8,
    /// [`loxi_ebpf_layout::l2::port`], but `OPEN`, which depends on whether it is attached.
    pub flags: u16,
    /// Access or native VLAN; 0: none.
    pub vlan: u16,
    /// MTU.
    pub mtu: u16,
    /// Zone of what enters.
    pub zone: Option<ZoneName>,
    /// Bridge.
    pub bridge: Option<BridgeName>,
    /// VRF.
    pub vrf: Option<VrfName>,
    /// First L3 interface on its link.
    pub interface: Option<InterfaceName>,
    /// MAC of that interface, or for a routed port without one its own: what the short way compares.
    pub gateway: MacAddr,
    /// Split-horizon group.
    pub split: Option<u16>,
}

/// A part of the plan that is compiled by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Rows of a zone.
    Zone(ZoneName),
    /// Rows of a VRF: itself and its own addresses.
    Vrf(VrfName),
    /// A bridge.
    Bridge(BridgeName),
    /// A port: itself, its VLANs, its guard.
    Port(PortName),
    /// An interface.
    Interface(InterfaceName),
    /// What stands on a link: first interface, MACs, addresses.
    Link(LinkRef),
    /// An address of a VRF.
    LocalAddr(VrfName, IpAddr),
    /// A static neighbour.
    Neighbor(NeighborKey),
    /// A static neighbour's address on a link.
    Proxy(LinkRef, IpAddr),
    /// A remote address.
    Endpoint(IpAddr),
    /// A tunnel.
    Tunnel(TunnelName),
    /// A tunnel back.
    Back(PortName, IpAddr),
    /// A tunnel by its outer header.
    Outer(VrfName, Encap, IpAddr, IpAddr),
    /// A UDP port.
    BareUdp(u16),
    /// Trusted peers of a termination.
    Peers(TerminationName),
    /// A termination.
    End(VrfName, IpAddr, Encap, u32),
    /// Terminations of one encapsulation at one address.
    EndAny(VrfName, IpAddr, Encap),
    /// A static station.
    Station(FdbKey),
    /// A next hop.
    NextHop(NextHopName),
    /// A group.
    Group(GroupName),
    /// A route.
    Route(RouteKey),
    /// A VRF's NAT rules with their sets.
    Nat(VrfName),
    /// An endpoint.
    Backend(BackendName),
    /// A virtual address.
    Vip(VipKey),
    /// A service with its sources.
    Service(ServiceKey),
    /// All policies.
    Policy,
}

impl RowKey {
    /// The unit that the row belongs to.
    #[must_use]
    pub fn unit(&self) -> Unit {
        match self {
            Self::Zone(name) => Unit::Zone(name.clone()),
            Self::Vrf(name) => Unit::Vrf(name.clone()),
            Self::Bridge(name) => Unit::Bridge(name.clone()),
            Self::Member(set, _) => match set {
                SetRef::Guard(port) => Unit::Port(port.clone()),
                SetRef::NodeLocal(vrf) => Unit::Vrf(vrf.clone()),
                SetRef::Peers(name) => Unit::Peers(name.clone()),
                SetRef::Sources(service) => Unit::Service(service.clone()),
                SetRef::NatSrc(key) | SetRef::NatDst(key) => Unit::Nat(key.vrf.clone()),
            },
            Self::Interface(name) => Unit::Interface(name.clone()),
            Self::FirstOn(link) | Self::Admit(link, _) | Self::LinkAddr(link, _) => Unit::Link(link.clone()),
            Self::LocalAddr(vrf, addr) => Unit::LocalAddr(vrf.clone(), *addr),
            Self::Neighbor(key) => Unit::Neighbor(key.clone()),
            Self::Proxy(link, addr) => Unit::Proxy(link.clone(), *addr),
            Self::Endpoint(addr) => Unit::Endpoint(*addr),
            Self::Tunnel(name) => Unit::Tunnel(name.clone()),
            Self::Back(port, remote) => Unit::Back(port.clone(), *remote),
            Self::Outer(vrf, encap, local, remote) => Unit::Outer(vrf.clone(), *encap, *local, *remote),
            Self::BareUdp(port) => Unit::BareUdp(*port),
            Self::Station(key) => Unit::Station(key.clone()),
            Self::NextHop(name) => Unit::NextHop(name.clone()),
            Self::Group(name) => Unit::Group(name.clone()),
            Self::Route(key) => Unit::Route(key.clone()),
            Self::Nat(vrf) => Unit::Nat(vrf.clone()),
            Self::Backend(name) => Unit::Backend(name.clone()),
            Self::Vip(key) => Unit::Vip(key.clone()),
            Self::Service(key) => Unit::Service(key.clone()),
            Self::Rules(_)
            | Self::PeerRules(..)
            | Self::PortRules(..)
            | Self::Peer(_)
            | Self::PortPolicy(_) => Unit::Policy,
            Self::End(vrf, dst, encap, vni) => Unit::End(vrf.clone(), *dst, *encap, *vni),
            Self::EndAny(vrf, dst, encap) => Unit::EndAny(vrf.clone(), *dst, *encap),
            Self::PortVlan(port, _) | Self::PortMac(port, _) | Self::Port(port) => Unit::Port(port.clone()),
        }
    }
}

/// Rows of a unit or of a plan.
pub type Rows = BTreeMap<RowKey, Row>;
