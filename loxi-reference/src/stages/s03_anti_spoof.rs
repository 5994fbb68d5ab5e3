//! Stage 3: a guarded port may only claim to be what it is.
//!
//! RFC 2827 and RFC 7039 for addresses, RFC 826 senders, RFC 6105 for router
//! advertisements, RFC 7610 for DHCP. Checked before anything else looks
//! inside, so that a spoofed packet leaves no trace in any state.

use super::ingress::Packet;
use super::{Run, Step, drop, entity, step};
use crate::frame::{ETH, Icmp, Ip, L3, L4};
use loxi_core::ir::{AntiSpoof, EntityKey};
use loxi_core::net::{IpProtocol, MacAddr};
use loxi_core::reason::DropReason;
use std::net::{IpAddr, Ipv4Addr};

impl Run<'_> {
    pub(super) fn s03_anti_spoof(&mut self, packet: &Packet) -> Step {
        let Some(guard) = &packet.port.anti_spoof else { return Ok(()) };
        let verdict = check(packet, guard);
        let effect = match verdict {
            Ok(()) => "pass".to_owned(),
            Err(reason) => format!("drop {reason}"),
        };
        let key = EntityKey::Port(packet.port.name.clone());
        step!(
            self,
            AntiSpoof,
            entity(key, &packet.port.origin),
            ("{} {}", packet.view.src, packet.summary()),
            ("{effect}")
        );
        verdict.or_else(drop)
    }
}

fn check(packet: &Packet, guard: &AntiSpoof) -> Result<(), DropReason> {
    let own_mac = |mac: MacAddr| mac == packet.port.mac || guard.macs.contains(&mac);
    let own = |addr: IpAddr| guard.addresses.iter().any(|prefix| prefix.contains(addr));
    if !own_mac(packet.view.src) {
        return Err(DropReason::SpoofMac);
    }
    match &packet.view.l3 {
        L3::Other(_) => Ok(()),
        L3::Arp(arp) => {
            // A probe has no sender address yet (RFC 5227 section 2.1.1).
            let sender = if arp.sender_ip.is_unspecified() { arp.target_ip } else { arp.sender_ip };
            if own_mac(arp.sender_mac) && own(sender.into()) { Ok(()) } else { Err(DropReason::SpoofArp) }
        }
        L3::Ip(ip) => {
            forbidden_messages(ip)?;
            if let L4::Icmp(Icmp::Nd { kind, target }) = &ip.l4 {
                return nd(packet, ip, *kind, target.map(IpAddr::from), &own, &own_mac);
            }
            if own(ip.src) || exempt(ip, guard) { Ok(()) } else { Err(DropReason::SpoofIp) }
        }
    }
}

/// Messages that only routers and servers send.
fn forbidden_messages(ip: &Ip) -> Result<(), DropReason> {
    match &ip.l4 {
        L4::Icmp(Icmp::Nd { kind: 134 | 137, .. }) => Err(DropReason::SpoofNd),
        L4::Icmp(Icmp::Error { kind: 5, .. }) if ip.is_ipv4() => Err(DropReason::SpoofIp),
        L4::Udp { src: 67, dst: 68 } | L4::Udp { src: 547, dst: 546 } => Err(DropReason::SpoofDhcp),
        _ => Ok(()),
    }
}

/// Sources without an address of their own.
fn exempt(ip: &Ip, guard: &AntiSpoof) -> bool {
    match ip.src {
        IpAddr::V4(src) => {
            guard.dhcp_client
                && src.is_unspecified()
                && ip.dst == IpAddr::V4(Ipv4Addr::BROADCAST)
                && matches!(ip.l4, L4::Udp { src: 68, dst: 67 })
        }
        IpAddr::V6(src) => {
            let mld = matches!(ip.l4, L4::Icmp(Icmp::Mld));
            let on_link = matches!(ip.dst, IpAddr::V6(dst) if dst.is_unicast_link_local());
            // Not yet configured (RFC 3590), or link-local, which the MAC check above ties to the port.
            (src.is_unspecified() && mld) || (src.is_unicast_link_local() && (mld || on_link))
        }
    }
}

fn nd(
    packet: &Packet,
    ip: &Ip,
    kind: u8,
    target: Option<IpAddr>,
    own: &dyn Fn(IpAddr) -> bool,
    own_mac: &dyn Fn(MacAddr) -> bool,
) -> Result<(), DropReason> {
    let link_local = |addr: IpAddr| matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let owned = |addr: IpAddr| own(addr) || link_local(addr);
    let unspecified = matches!(ip.src, IpAddr::V6(v6) if v6.is_unspecified());
    let target_owned = target.is_some_and(owned);
    // The link-layer address option, source (1) or target (2), must be the sender's own.
    let options =
        packet.frame.get(ip.l4_at + if kind == 133 { 8 } else { 24 }..ETH + ip.len).unwrap_or_default();
    if !options_own(options, own_mac) {
        return Err(DropReason::SpoofNd);
    }
    let admitted = match kind {
        133 => unspecified || owned(ip.src),
        135 if unspecified => target_owned,
        135 => owned(ip.src),
        136 => target_owned && owned(ip.src),
        _ => false,
    };
    if admitted && ip.protocol == IpProtocol::ICMPV6 { Ok(()) } else { Err(DropReason::SpoofNd) }
}

fn options_own(mut options: &[u8], own_mac: &dyn Fn(MacAddr) -> bool) -> bool {
    while let [kind, length, ..] = options {
        let length = usize::from(*length) * 8;
        if length == 0 || length > options.len() {
            // Malformed: RFC 4861 section 4.6 wants the message discarded.
            return false;
        }
        if matches!(kind, 1 | 2) {
            let mut octets = [0; 6];
            octets.copy_from_slice(&options[2..8]);
            if !own_mac(MacAddr::new(octets)) {
                return false;
            }
        }
        options = &options[length..];
    }
    true
}
