//! Numbers and packets in words. A number without a name is told as it is.

use super::Walk;
use super::flows::Key;
use super::frame::ethertype;
use crate::install::{Named, Space};
use loxi_core::ir::{EntityKey, Origin};
use loxi_core::net::{IpProtocol, MacAddr};
use loxi_core::packet::{Fate, FlowTuple, TraceEntry};
use loxi_ebpf_layout::flow::{rest, state};
use loxi_ebpf_layout::scratch::{flag, l4};
use loxi_ebpf_layout::{Addr, family};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a fate does, in the words of a step.
pub(super) fn verb(fate: Fate) -> String {
    match fate {
        Fate::Forwarded => "forward".to_owned(),
        Fate::Consumed(reason) => format!("consume {reason}"),
        Fate::Punted(reason) => format!("punt {reason}"),
        Fate::Dropped(reason) => format!("drop {reason}"),
    }
}

/// An address of a packet or of a table.
pub(super) fn ip(family: u8, addr: Addr) -> IpAddr {
    let octets = addr.octets();
    if family == family::V6 {
        return Ipv6Addr::from(octets).into();
    }
    let [a, b, c, d, ..] = octets;
    Ipv4Addr::new(a, b, c, d).into()
}

pub(super) fn mac(octets: [u8; 6]) -> MacAddr {
    MacAddr::new(octets)
}

/// The name of a number, or the number.
pub(super) fn name<T: Named + std::fmt::Display>(space: &Space<T>, number: impl Into<u32>) -> String {
    let number = number.into();
    match space.live(number) {
        Some(name) => name.to_string(),
        None => nameless(number),
    }
}

/// A number without a name.
pub(super) fn nameless(number: u32) -> String {
    format!("#{number} (no name)")
}

/// An entry that is an entity, or what it is where it has no name.
pub(super) fn entity(key: Option<EntityKey>, otherwise: impl FnOnce() -> String) -> Option<TraceEntry> {
    let text = if key.is_some() { String::new() } else { otherwise() };
    Some(TraceEntry { entity: key, origin: Origin::default(), text })
}

/// An entry that is no entity.
pub(super) fn learned(text: impl Into<String>) -> Option<TraceEntry> {
    Some(TraceEntry { entity: None, origin: Origin::default(), text: text.into() })
}

/// A flow's tuple.
pub(super) fn tuple(family: u8, key: &Key) -> FlowTuple {
    FlowTuple {
        src: ip(family, key.src),
        dst: ip(family, key.dst),
        protocol: IpProtocol(rest::protocol(key.rest)),
        src_port: u16::from_be(rest::sport(key.rest)),
        dst_port: u16::from_be(rest::dport(key.rest)),
    }
}

/// A flow's state.
pub(super) fn state_name(number: u8) -> &'static str {
    match number {
        state::SYN_SENT => "syn_sent",
        state::SYN_RECEIVED => "syn_received",
        state::ESTABLISHED | state::SCTP_ESTABLISHED => "established",
        state::FIN_WAIT => "fin_wait",
        state::CLOSE_WAIT => "close_wait",
        state::LAST_ACK => "last_ack",
        state::TIME_WAIT => "time_wait",
        state::CLOSE => "close",
        state::SCTP_SETUP => "setup",
        state::SCTP_SHUTDOWN => "shutdown",
        state::UNREPLIED => "unreplied",
        state::REPLIED => "replied",
        _ => "of no known state",
    }
}

impl Walk<'_> {
    /// The key of the packet as it came, or of its first fragment.
    pub(super) fn own_key(&self) -> Key {
        let p = &self.p;
        Key { src: p.src, dst: p.dst, rest: rest::key(p.sport, p.dport, p.protocol, p.zone) }
    }

    /// The key of the packet as it leaves.
    pub(super) fn new_key(&self) -> Key {
        let p = &self.p;
        Key { src: p.new_src, dst: p.new_dst, rest: rest::key(p.new_sport, p.new_dport, p.protocol, p.zone) }
    }

    /// The packet as it came.
    pub(super) fn summary(&self) -> String {
        if self.p.family == 0 {
            return format!("{} -> {}", mac(self.p.smac), mac(self.p.dmac));
        }
        tuple(self.p.family, &self.own_key()).to_string()
    }

    /// The packet as it leaves.
    pub(super) fn translated(&self) -> String {
        tuple(self.p.family, &self.new_key()).to_string()
    }

    /// What kind of packet it is.
    pub(super) fn kind(&self) -> String {
        let p = &self.p;
        if p.family == 0 {
            return match p.ethertype {
                ethertype::ARP if p.detail == 1 => "arp request".to_owned(),
                ethertype::ARP => "arp reply".to_owned(),
                other => format!("ethertype 0x{:04x}", u16::from_be(other)),
            };
        }
        let part = match (p.flags & flag::FRAGMENT != 0, p.kind == l4::LATER) {
            (_, true) => ", later fragment",
            (true, _) => ", first fragment",
            _ => "",
        };
        let family = if p.family == family::V4 { "ipv4" } else { "ipv6" };
        format!("{family} {}{part}", IpProtocol(p.protocol))
    }

    pub(super) fn port_name(&self, number: u16) -> String {
        name(&self.t.names.ports, number)
    }

    /// A port as the entry of a step.
    pub(super) fn port_entry(&self, number: u16) -> Option<TraceEntry> {
        let key = self.t.names.ports.live(number.into()).cloned().map(EntityKey::Port);
        entity(key, || format!("port {}", nameless(number.into())))
    }

    pub(super) fn zone_name(&self) -> String {
        name(&self.t.names.zones, self.p.zone)
    }

    pub(super) fn vrf_name(&self, number: u16) -> String {
        name(&self.t.names.vrfs, number)
    }
}
