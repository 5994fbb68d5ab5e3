//! The plan as text, for people: a line per row, its key before the colon.

use super::*;
use loxi_core::net::MacAddr;
use loxi_ebpf_layout::l2::{bridge, carried, kind, port};
use loxi_ebpf_layout::lb::{algorithm, mode, vip};
use loxi_ebpf_layout::tunnel::flag;
use std::fmt::{Display, Formatter, Result};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.rows().try_for_each(|(key, row)| {
            write!(f, "{key}: ")?;
            match (key, row) {
                (RowKey::Vip(_), Row::Flags(flags)) => names(f, VIP, *flags)?,
                (RowKey::PortVlan(..), Row::Flags(flags)) => names(f, CARRIED, *flags)?,
                _ => write!(f, "{row}")?,
            }
            writeln!(f)
        })
    }
}

type Names = &'static [(u32, &'static str)];

const VIP: Names =
    &[(vip::EXCLUSIVE, "exclusive"), (vip::REJECT, "reject"), (vip::ECHO, "echo"), (vip::RANGES, "ranges")];
const CARRIED: Names = &[(carried::TAGGED, "tagged"), (carried::NATIVE, "native")];
const BRIDGE: Names = &[
    (bridge::EXISTS, "exists"),
    (bridge::FLOOD_UNKNOWN, "flood_unknown"),
    (bridge::FLOOD_MULTICAST, "flood_multicast"),
    (bridge::FLOOD_BROADCAST, "flood_broadcast"),
    (bridge::ANY_ETHERTYPE, "any_ethertype"),
    (bridge::PROXY, "proxy"),
];
const PORT: Names = &[
    (port::EXISTS as u32, "exists"),
    (port::UP as u32, "up"),
    (port::OPEN as u32, "open"),
    (port::UNDERLAY as u32, "underlay"),
    (port::PUNT as u32, "punt"),
    (port::EXTERNAL as u32, "external"),
    (port::GUARDED as u32, "guarded"),
    (port::DHCP as u32, "dhcp"),
    (port::GUARD_MACS as u32, "guard_macs"),
    (port::TRUNK as u32, "trunk"),
    (port::NATIVE as u32, "native"),
    (port::LEARN as u32, "learn"),
    (port::BRIDGED as u32, "bridged"),
    (port::ROUTED as u32, "routed"),
    (port::SPLIT as u32, "split"),
];
const TUNNEL: Names = &[
    (flag::TTL_INHERIT as u32, "ttl_inherit"),
    (flag::DSCP_INHERIT as u32, "dscp_inherit"),
    (flag::DF as u32, "df"),
    (flag::DF_INHERIT as u32, "df_inherit"),
    (flag::CHECKSUM as u32, "checksum"),
];

/// The names of flags that are set; those without a name as a number.
fn names(f: &mut Formatter<'_>, known: Names, flags: u32) -> Result {
    let mut rest = flags;
    let mut first = true;
    for (bit, name) in known.iter().filter(|(bit, _)| flags & bit != 0) {
        write!(f, "{}{name}", if first { "" } else { "|" })?;
        (rest, first) = (rest & !bit, false);
    }
    if rest != 0 || first {
        write!(f, "{}{rest:#x}", if first { "" } else { "|" })?;
    }
    Ok(())
}

impl Display for LinkRef {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Vlan(bridge, vlan) => write!(f, "bridge {bridge} vlan {vlan}"),
            Self::Port(port) => write!(f, "port {port}"),
        }
    }
}

impl Display for SetRef {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Guard(port) => write!(f, "guard {port}"),
            Self::NodeLocal(vrf) => write!(f, "node_local {vrf}"),
            Self::Peers(termination) => write!(f, "peers {termination}"),
            Self::Sources(service) => write!(f, "sources {service}"),
            Self::NatSrc(rule) => write!(f, "nat src {rule}"),
            Self::NatDst(rule) => write!(f, "nat dst {rule}"),
        }
    }
}

impl Display for Encap {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Vxlan(port) => write!(f, "vxlan udp {port}"),
            Self::Ipip => f.write_str("ipip"),
        }
    }
}

impl Display for Digest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        std::fmt::Debug::fmt(self, f)
    }
}

impl Display for PortBits {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}/{}", self.port, self.bits)
    }
}

impl Display for RowKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Zone(name) => write!(f, "zone {name}"),
            Self::Vrf(name) => write!(f, "vrf {name}"),
            Self::Bridge(name) => write!(f, "bridge {name}"),
            Self::Member(set, prefix) => write!(f, "member {set} {prefix}"),
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::FirstOn(link) => write!(f, "first {link}"),
            Self::Admit(link, mac) => write!(f, "admit {link} {mac}"),
            Self::LinkAddr(link, address) => write!(f, "link_address {link} {address}"),
            Self::LocalAddr(vrf, address) => write!(f, "local_address {vrf} {address}"),
            Self::Neighbor(key) => write!(f, "neighbor {key}"),
            Self::Proxy(link, address) => write!(f, "proxy {link} {address}"),
            Self::Endpoint(address) => write!(f, "endpoint {address}"),
            Self::Tunnel(name) => write!(f, "tunnel {name}"),
            Self::Back(port, remote) => write!(f, "back {port} {remote}"),
            Self::Outer(vrf, encap, local, remote) => write!(f, "outer {vrf} {encap} {local} > {remote}"),
            Self::BareUdp(port) => write!(f, "bare_udp {port}"),
            Self::Station(key) => write!(f, "station {key}"),
            Self::NextHop(name) => write!(f, "next_hop {name}"),
            Self::Group(name) => write!(f, "group {name}"),
            Self::Route(key) => write!(f, "route {key}"),
            Self::Nat(vrf) => write!(f, "nat {vrf}"),
            Self::Backend(name) => write!(f, "backend {name}"),
            Self::Vip(key) => write!(f, "vip {key}"),
            Self::Service(key) => write!(f, "service {key}"),
            Self::Rules(group) => write!(f, "rules {group}"),
            Self::PeerRules(group, Some(class)) => write!(f, "peer_rules {group} class {class}"),
            Self::PeerRules(group, None) => write!(f, "peer_rules {group} other"),
            Self::PortRules(group, Some(protocol), ports) => {
                write!(f, "port_rules {group} protocol {protocol} {ports}")
            }
            Self::PortRules(group, None, ports) => write!(f, "port_rules {group} other {ports}"),
            Self::Peer(prefix) => write!(f, "peer {prefix}"),
            Self::End(vrf, dst, encap, vni) => write!(f, "end {vrf} {dst} {encap} vni {vni}"),
            Self::EndAny(vrf, dst, encap) => write!(f, "end {vrf} {dst} {encap} any"),
            Self::PortVlan(port, vlan) => write!(f, "port_vlan {port} {vlan}"),
            Self::PortMac(port, mac) => write!(f, "port_mac {port} {mac}"),
            Self::PortPolicy(port) => write!(f, "port_policy {port}"),
            Self::Port(port) => write!(f, "port {port}"),
        }
    }
}

/// ` NAME VALUE` of what is there.
fn some<T: Display>(f: &mut Formatter<'_>, name: &str, value: Option<T>) -> Result {
    value.map_or(Ok(()), |value| write!(f, " {name} {value}"))
}

fn bits(f: &mut Formatter<'_>, bits: &Bits) -> Result {
    let used = bits.iter().rposition(|word| *word != 0).map_or(1, |last| last + 1);
    bits[..used].iter().rev().try_for_each(|word| write!(f, "{word:016x}"))
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Present => f.write_str("present"),
            Self::Zone(row) => row.fmt(f),
            Self::Vrf(row) => row.fmt(f),
            Self::Bridge(row) => row.fmt(f),
            Self::Is(interface) => write!(f, "interface {interface}"),
            Self::Interface(row) => row.fmt(f),
            Self::Mac(mac) => mac.fmt(f),
            Self::Tunnel(row) => row.fmt(f),
            Self::By(tunnel) => write!(f, "tunnel {tunnel}"),
            Self::At(port, tunnel) => {
                write!(f, "port {port}")?;
                some(f, "tunnel", tunnel.as_ref())
            }
            Self::NextHop(row) => row.fmt(f),
            Self::Group(row) => row.fmt(f),
            Self::ToNextHop(hop) => write!(f, "next_hop {hop}"),
            Self::ToGroup(group) => write!(f, "group {group}"),
            Self::Nat(rules) => {
                write!(f, "{} rule(s)", rules.len())?;
                rules.iter().try_for_each(|rule| write!(f, "; {rule}"))
            }
            Self::Backend(row) => row.fmt(f),
            Self::Flags(flags) => write!(f, "{flags:#x}"),
            Self::Service(row) => row.fmt(f),
            Self::Rules(row) => row.fmt(f),
            Self::Bits(row) => bits(f, row),
            Self::Class(class) => write!(f, "class {class}"),
            Self::End(row) => write!(f, "port {} by {}", row.port, row.name),
            Self::PortPolicy(row) => {
                f.write_str("groups")?;
                some(f, "egress", row.egress)?;
                some(f, "ingress", row.ingress)
            }
            Self::Port(row) => row.fmt(f),
        }
    }
}

impl Display for ZoneRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "max_flows {}", self.max_flows)?;
        some(f, "max_half_open", self.max_half_open)?;
        some(f, "max_per_source", self.max_per_source)?;
        write!(f, " pickup {} timeouts {:?}", self.pickup, self.timeouts)
    }
}

impl Display for VrfRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "node_local {}", self.node_local)?;
        some(f, "zone", self.zone.as_ref())?;
        some(f, "snat", self.snat_v4)?;
        some(f, "snat", self.snat_v6)
    }
}

impl Display for BridgeRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        names(f, BRIDGE, self.flags)?;
        some(f, "zone", self.zone.as_ref())?;
        write!(f, " ageing {} s stations {}", self.ageing_s, self.max_stations)
    }
}

impl Display for InterfaceRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let punt = if self.punt { " punt" } else { "" };
        write!(f, "on {} vrf {} mac {} mtu {}{punt}", self.link, self.vrf, self.mac, self.mtu)?;
        some(f, "address", self.v4)?;
        some(f, "address", self.v6)
    }
}

impl Display for TunnelRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} vni {} vrf {}", self.encap, self.vni, self.vrf)?;
        write!(f, " {} > {} port {} mtu {} ", self.local, self.remote, self.port, self.mtu)?;
        names(f, TUNNEL, self.flags.into())?;
        write!(f, " ttl {} tos {:#x} source_ports {}", self.ttl, self.tos, self.source_ports)?;
        write!(f, " inner {} > {}", self.inner_src, self.inner_dst)
    }
}

impl Display for NextHopRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Direct(interface, gateway) => {
                write!(f, "by {interface}")?;
                some(f, "gateway", *gateway)
            }
            Self::Tunnel(tunnel) => write!(f, "tunnel {tunnel}"),
            Self::Host => f.write_str("host"),
            Self::Blackhole => f.write_str("blackhole"),
        }
    }
}

impl Display for GroupRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "seed {}", self.seed)?;
        self.members.iter().try_for_each(|(hop, weight)| write!(f, " {hop}*{weight}"))
    }
}

impl Display for NatRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}", self.key)?;
        some(f, "protocol", self.protocol)?;
        some(f, "ports", self.ports)?;
        some(f, "egress", self.egress.as_ref())?;
        write!(f, "{}{} ", if self.src { " src" } else { "" }, if self.dst { " dst" } else { "" })?;
        match &self.action {
            NatActionRow::NoNat => f.write_str("no_nat"),
            NatActionRow::Snat(pool, ports) => write!(f, "snat {pool:?} {ports}"),
            NatActionRow::Masquerade(ports) => write!(f, "masquerade {ports}"),
            NatActionRow::OneToOne(inside, outside) => write!(f, "one_to_one {inside} {outside}"),
            NatActionRow::Dnat(address, port) => write!(f, "dnat {address} {port}"),
        }
    }
}

impl Display for BackendRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} port {} weight {}", self.address, self.port, self.weight)?;
        write!(f, "{}{}", if self.local { " local" } else { "" }, if self.down { " down" } else { "" })
    }
}

impl Display for ServiceRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self.mode {
            mode::NAT => "nat",
            mode::FULL_NAT => "full_nat",
            mode::DSR_IPIP => "dsr_ipip",
            _ => "dsr_l2",
        })?;
        f.write_str(match self.algorithm {
            algorithm::MAGLEV => " maglev",
            algorithm::SOURCE_HASH => " source_hash",
            algorithm::ROUND_ROBIN => " round_robin",
            algorithm::RANDOM => " random",
            _ => " least_connections",
        })?;
        if self.refusal != 0 {
            write!(f, " refusal {}{}", self.refusal, if self.reject { " reject" } else { "" })?;
        }
        f.write_str(if self.sources { " sources" } else { "" })?;
        some(f, "affinity", self.affinity_s)?;
        some(f, "table", Some(self.table).filter(|size| *size != 0))?;
        self.list
            .iter()
            .try_for_each(|(name, address, port, weight)| write!(f, "; {name} {address} {port} *{weight}"))?;
        self.idle.iter().try_for_each(|name| write!(f, "; {name} idle"))
    }
}

impl Display for RulesRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "admin {} network_policy {}", self.admin, self.network_policy)?;
        f.write_str(if self.isolated { " isolated allow " } else { " allow " })?;
        bits(f, &self.allow)?;
        f.write_str(" deny ")?;
        bits(f, &self.deny)
    }
}

impl Display for PortRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self.kind {
            kind::POD => "pod ",
            kind::HOST => "host ",
            kind::UPLINK => "uplink ",
            kind::TUNNEL => "tunnel ",
            _ => "representor ",
        })?;
        names(f, PORT, self.flags.into())?;
        write!(f, " mac {} mtu {}", self.mac, self.mtu)?;
        some(f, "zone", self.zone.as_ref())?;
        some(f, "bridge", self.bridge.as_ref())?;
        some(f, "vlan", Some(self.vlan).filter(|vlan| *vlan != 0))?;
        some(f, "vrf", self.vrf.as_ref())?;
        some(f, "interface", self.interface.as_ref())?;
        some(f, "gateway", Some(self.gateway).filter(|mac| *mac != MacAddr::ZERO))?;
        some(f, "split", self.split)
    }
}
